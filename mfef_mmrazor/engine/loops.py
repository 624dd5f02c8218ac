"""Validation and test loops that score every predictor in one pass over the data."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric, DumpResults, Evaluator
from mmengine.model import BaseModel, BaseTTAModel
from mmengine.runner import BaseLoop, TestLoop, ValLoop, autocast
from mmengine.structures import BaseDataElement
from mmpretrain.evaluation import Accuracy
from mmrazor.registry import LOOPS

from ..models.algorithms.online_distill import Predictions
from ..models.data_samples import PredictedSamples, labels_of
from .accuracy import BatchAccuracy
from .calibration import Calibration
from .statistics import CommonStatistics
from .unwrap import unwrapped


class PredictorsEvaluator:
    """One copy of an evaluator for every predictor; all are fed in the same pass.

    The metrics in ``together`` are given the predictions of all at once.

    Metrics are named ``student0.accuracy/top1``, ``ensemble.accuracy/top1`` and so on; those of
    student0 stand under their plain names as well, first, so that ``save_best='auto'`` finds them.
    Likewise where predictions are written (mmpretrain's ``test.py --out pred.pkl``): those of
    student0 are in that file, and every other predictor's beside it, ``pred.student1.pkl``.

    Args:
        evaluator: mmengine's; each predictor gets a copy of its metrics.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self.template = evaluator
        for metric in evaluator.metrics:
            if type(metric) is Accuracy:
                metric.__class__ = BatchAccuracy
        self.together: list[BaseMetric] = []
        self.evaluators: dict[str, Evaluator] = {}

    @property
    def metrics(self) -> list[BaseMetric]:
        """Those that every predictor gets a copy of."""
        return self.template.metrics

    def process(self, predictions: Predictions, data_batch: dict[str, Any]) -> None:
        """Take in one batch of predictions of every predictor."""
        for metric in self.together:
            metric.process(data_batch, predictions)
        for name, samples in predictions.items():
            if name not in self.evaluators:
                self.evaluators[name] = copy.deepcopy(self.template)
                for metric in self.evaluators[name].metrics:
                    if isinstance(metric, DumpResults) and name != 'student0':
                        path = Path(metric.out_file_path)
                        metric.out_file_path = str(path.with_suffix(f'.{name}{path.suffix}'))
            process(self.evaluators[name], samples, data_batch)

    def evaluate(self, size: int) -> dict[str, float]:
        """Metrics of all predictors over the ``size`` images of the data set."""
        metrics = {name: each.evaluate(size) for name, each in self.evaluators.items()}
        named = {f'{name}.{key}': v for name, own in metrics.items() for key, v in own.items()}
        for metric in self.together:
            named |= metric.evaluate(size)
        return {**metrics['student0'], **named}


def process(
    evaluator: Evaluator, samples: Sequence[BaseDataElement], data_batch: dict[str, Any]
) -> None:
    """As the evaluator's own, but metrics that can get the batch as a whole."""
    if type(evaluator) is not Evaluator:
        evaluator.process(data_samples=samples, data_batch=data_batch)
        return
    whole: list[BaseMetric] = []
    if isinstance(samples, PredictedSamples) and samples.labels is not None:
        whole = [x for x in evaluator.metrics if isinstance(x, (BatchAccuracy, Calibration))]
    for metric in whole:
        metric.process(data_batch, samples)
    one_by_one = [metric for metric in evaluator.metrics if metric not in whole]
    if one_by_one:
        as_dicts = [sample.to_dict() for sample in samples]
        for metric in one_by_one:
            metric.process(data_batch, as_dicts)


def collected_as(evaluator: Evaluator | PredictorsEvaluator) -> dict[str, Any]:
    """How a metric that is added is to bring the results of several processes together."""
    names = ('collect_device', 'collect_dir')
    first = next(iter(evaluator.metrics), None)
    return {name: getattr(first, name) for name in names if hasattr(first, name)}


class _PredictorsLoop(BaseLoop):
    """What the two loops share: the step that asks the model for all predictors at once."""

    stage: str
    evaluator: Any
    fp16: bool

    def __init__(self, *args: Any, dtype: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if dtype not in (None, 'bfloat16'):
            raise ValueError(f"{self.stage}_cfg.dtype={dtype!r}, expected 'bfloat16' or nothing")
        self.dtype = torch.bfloat16 if dtype else None
        self.evaluator = PredictorsEvaluator(self.evaluator)
        self.statistics = CommonStatistics()

    def run(self) -> dict[str, float]:
        """Score with the batch-norm statistics that are saved."""
        self.statistics.put_in(self.runner)
        try:
            return super().run()
        finally:
            self.statistics.give_back()

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict[str, Any]) -> None:
        """Score one batch."""
        hook_args = dict(batch_idx=idx, data_batch=data_batch)
        self.runner.call_hook(f'before_{self.stage}_iter', **hook_args)
        model = unwrapped(self.runner.model)
        with autocast(enabled=self.fp16, dtype=self.dtype):
            predictions = predict_all(model, data_batch)
        self.evaluator.process(predictions, data_batch)
        outputs = predictions['student0']
        self.runner.call_hook(f'after_{self.stage}_iter', outputs=outputs, **hook_args)


def predict_all(model: BaseModel, data_batch: dict[str, Any]) -> Predictions:
    """Predictions of every predictor for one batch as it comes from the data loader.

    Where mmengine's test-time augmentation is around the model, the batch has several views of each
    image, and each predictor's scores are averaged over them.
    """
    if not isinstance(model, BaseTTAModel):
        return model.predict_all(**model.data_preprocessor(data_batch, False))
    number = len(data_batch['inputs'])
    views = [{key: value[i] for key, value in data_batch.items()} for i in range(number)]
    by_view = [predict_all(model.module, view) for view in views]
    merged = {}
    for name in by_view[0]:
        of_image = zip(*(predictions[name] for predictions in by_view), strict=True)
        merged[name] = model.merge_preds([list(samples) for samples in of_image])
        head = model.module.head_of(name)
        for sample in merged[name]:  # has the first view's label
            sample.set_pred_label(labels_of(sample.pred_score, head))
    return merged


@LOOPS.register_module()
class OnlineDistillValLoop(_PredictorsLoop, ValLoop):
    """mmengine's validation loop, for all predictors of an :class:`OnlineDistill` at once.

    Args:
        runner: The runner.
        dataloader: Data loader or its config.
        evaluator: Evaluator or its config; every predictor gets a copy.
        fp16: Predict under autocast.
        dtype: ``'bfloat16'`` for bf16; None for the precision of the device: fp16 on a GPU, bf16 on
            the CPU.
    """

    stage = 'val'


@LOOPS.register_module()
class OnlineDistillTestLoop(_PredictorsLoop, TestLoop):
    """mmengine's test loop, for all predictors of an :class:`OnlineDistill` at once.

    Args:
        runner: The runner.
        dataloader: Data loader or its config.
        evaluator: Evaluator or its config; every predictor gets a copy.
        fp16: Predict under autocast.
        dtype: ``'bfloat16'`` for bf16; None for the precision of the device: fp16 on a GPU, bf16 on
            the CPU.
    """

    stage = 'test'
