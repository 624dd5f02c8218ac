"""Predictions for every image of a test, as a file."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.evaluator import BaseMetric, DumpResults, Evaluator

from .checkpoint_files import write_atomically
from .loops import PredictorsEvaluator, collected_as

SUFFIXES = ('.csv', '.json', '.pkl')


class KeptPredictions(BaseMetric):
    """Keeps what was predicted for each image, in the order of the data set; scores nothing.

    Args:
        all_scores: Keep the scores of all classes, not only of those predicted.
        **kwargs: Those of mmengine's ``BaseMetric``.
    """

    def __init__(self, all_scores: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.all_scores = all_scores
        self.kept: list[dict[str, Any]] = []

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Take in one batch."""
        for sample in data_samples:
            predicted, scores = sample['pred_label'], sample['pred_score']
            # as tensors: a list takes eight times the memory
            self.results.append(
                dict(
                    image=sample.get('img_path', sample.get('sample_idx')),
                    label=_numbers(sample.get('gt_label', [])),
                    predicted=_numbers(predicted),
                    scores=(scores if self.all_scores else scores[predicted.long()]).cpu(),
                )
            )

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """None; of several processes only the first has the images of all."""
        self.kept = results
        return {}


def check_suffix(path: Path) -> None:
    """Raise a ``ValueError`` if predictions cannot be written to a file of that kind."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f'out={str(path)!r}: expected a name that ends in {", ".join(SUFFIXES)}')


def keep_predictions(evaluator: Evaluator | PredictorsEvaluator, path: Path) -> None:
    """Let an evaluator keep what is to be written to a file."""
    how = collected_as(evaluator)
    if path.suffix == '.pkl':
        evaluator.metrics.append(DumpResults(str(path), **how))
    else:
        evaluator.metrics.append(KeptPredictions(all_scores=path.suffix == '.json', **how))


def write_predictions(evaluator: Evaluator | PredictorsEvaluator, path: Path) -> None:
    """Write what was kept, one row per image; ``.pkl`` files are mmengine's own, and there already.

    A CSV file has the image's file (or its number), its label, and for every predictor the label
    and the score of it; a JSON file all scores. Several labels are separated by spaces.
    """
    each = getattr(evaluator, 'evaluators', {'model': evaluator})
    kept = {
        name: metric.kept
        for name, own in each.items()
        for metric in own.metrics
        if isinstance(metric, KeptPredictions) and metric.kept
    }
    if not kept:  # another process writes them, or mmengine has
        return
    first = next(iter(kept.values()))
    if path.suffix == '.json':
        content = [
            dict(
                image=image['image'],
                label=image['label'],
                **{
                    name: dict(predicted=found[i]['predicted'], scores=_numbers(found[i]['scores']))
                    for name, found in kept.items()
                },
            )
            for i, image in enumerate(first)
        ]
        write_atomically(path, f'{json.dumps(content, indent=1)}\n'.encode())
        return
    file = io.StringIO(newline='')
    writer = csv.writer(file)
    columns = [column for name in kept for column in (name, f'{name}.score')]
    writer.writerow(['image', 'label', *columns])
    for i, image in enumerate(first):
        row = [image['image'], ' '.join(map(str, image['label']))]
        for found in kept.values():
            predicted, scores = found[i]['predicted'], found[i]['scores']
            row += [
                ' '.join(map(str, predicted)),
                ' '.join(f'{score:.6f}' for score in _numbers(scores)),
            ]
        writer.writerow(row)
    write_atomically(path, file.getvalue().encode())


def _numbers(values: Any) -> list[Any]:
    return values.tolist() if hasattr(values, 'tolist') else list(values)
