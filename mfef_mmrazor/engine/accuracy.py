"""mmpretrain's accuracy, by whole batches."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from mmpretrain.evaluation import Accuracy

from ..models.data_samples import PredictedSamples


class BatchAccuracy(Accuracy):
    """mmpretrain's accuracy, to the last digit, without going through a batch image by image.

    It keeps of each image for which ``topk`` and ``thrs`` it is right, not its K scores, which
    several processes would have to bring together.
    """

    def process(
        self, data_batch: Any, data_samples: PredictedSamples | Sequence[dict[str, Any]]
    ) -> None:
        """Take in one batch."""
        if not isinstance(data_samples, PredictedSamples):
            super().process(data_batch, data_samples)
            return
        scores, labels = data_samples.scores.float(), data_samples.labels
        assert labels is not None  # PredictorsEvaluator has looked
        most = max(self.topk)
        if most > scores.size(1):  # mmpretrain says what is wrong
            super().process(data_batch, [sample.to_dict() for sample in data_samples])
            return
        largest, classes = scores.topk(most, dim=1)
        right = classes == labels[:, None]
        each = [
            (right if thr is None else right & (largest > thr))[:, :k].any(dim=1)
            for k, thr in product(self.topk, self.thrs)
        ]
        self.results += torch.stack(each, dim=1).tolist()

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Accuracy in percent, under mmpretrain's names."""
        if isinstance(results[0], dict):
            return super().compute_metrics(results)
        counts = torch.tensor(results).float().sum(dim=0)
        metrics = {}
        for (k, thr), count in zip(product(self.topk, self.thrs), counts, strict=True):
            which = '' if len(self.thrs) == 1 else '_no-thr' if thr is None else f'_thr-{thr:.2f}'
            metrics[f'top{k}{which}'] = (count * (100.0 / len(results))).item()
        return metrics
