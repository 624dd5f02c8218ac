"""Whole batches against mmpretrain's metrics, image by image."""

import pytest
import torch
from mmengine.evaluator import DumpResults, Evaluator
from mmpretrain.evaluation import Accuracy, SingleLabelMetric
from mmpretrain.models.heads import LinearClsHead, MultiLabelLinearClsHead
from mmpretrain.structures import DataSample

from mfef_mmrazor.engine.calibration import Calibration
from mfef_mmrazor.engine.loops import PredictorsEvaluator
from mfef_mmrazor.models.data_samples import PredictedSamples, pack_predictions

HEAD = LinearClsHead(6, in_channels=4)


def batches(labels=lambda i: i % 6):
    """Logits with ties, certain ones, and ones whose smallest probabilities are 0."""
    torch.manual_seed(0)
    for size in (7, 7, 3):
        logits = 3 * torch.randn(size, 6)
        logits[0], logits[1] = torch.arange(6.0) * 60, torch.tensor([1.0, 1, 1, 0, 0, 0])
        yield logits, [DataSample().set_gt_label(labels(i)) for i in range(size)]


def expected(metric, labels=lambda i: i % 6):
    """mmpretrain's own numbers, from samples that its head has made."""
    evaluator = Evaluator([metric])
    for logits, samples in batches(labels):
        evaluator.process(HEAD._get_predictions(logits, samples))
    return evaluator.evaluate(17)


@pytest.mark.parametrize('options', [
    dict(), dict(topk=(1, 5)), dict(topk=3, thrs=None), dict(topk=(2, 6), thrs=(None, 0.2, 0.5)),
    dict(topk=(6,), prefix='top'),
], ids=str)  # fmt: skip
def test_accuracy_is_mmpretrains_to_the_last_digit(options):
    evaluator = PredictorsEvaluator(Evaluator([Accuracy(**options), Calibration()]))
    for logits, samples in batches():
        found = pack_predictions(logits, samples, HEAD)
        evaluator.process(dict(student0=found), {})
        assert '_samples' not in vars(found)  # none was made
        assert all('pred_score' not in sample for sample in samples)
    metrics = evaluator.evaluate(17)
    for name, value in expected(Accuracy(**options)).items():
        assert metrics[name] == metrics[f'student0.{name}'] == value
    assert {'student0.nll', 'student0.ece'} <= set(metrics)


def test_other_metrics_get_the_samples_of_the_same_batch(tmp_path):
    dumped = DumpResults(str(tmp_path / 'found.pkl'))
    evaluator = PredictorsEvaluator(Evaluator([Accuracy(), SingleLabelMetric(), dumped]))
    for logits, samples in batches():
        evaluator.process(dict(student0=pack_predictions(logits, samples, HEAD)), {})
    metrics = evaluator.evaluate(17)
    for metric in (Accuracy(), SingleLabelMetric()):
        assert expected(metric).items() <= metrics.items()
    assert (tmp_path / 'found.pkl').is_file()


def test_samples_are_those_of_mmpretrains_head():
    for logits, samples in batches():
        found = pack_predictions(logits, samples, HEAD)
        wanted = HEAD._get_predictions(logits, [sample.clone() for sample in samples])
        assert len(found) == len(wanted)
        for ours, theirs in zip(found, wanted, strict=True):
            assert str(ours.to_dict()) == str(theirs.to_dict())
            assert ours.metainfo == theirs.metainfo
        assert found[0] is found[0] and found[-1].gt_label == samples[-1].gt_label
    several = MultiLabelLinearClsHead(6, in_channels=4)
    assert not isinstance(pack_predictions(logits, samples, several), PredictedSamples)


def test_too_few_classes_for_topk_are_mmpretrains_error():
    evaluator = PredictorsEvaluator(Evaluator([Accuracy(topk=(1, 7))]))
    for logits, samples in batches():
        evaluator.process(dict(student0=pack_predictions(logits, samples, HEAD)), {})
    with pytest.raises(ValueError, match='Top-7 accuracy is unavailable'):
        evaluator.evaluate(17)


def test_images_of_several_labels_are_scored_one_by_one():
    evaluator = PredictorsEvaluator(Evaluator([SingleLabelMetric(), Calibration()]))
    logits, samples = next(batches(lambda i: [i % 6, (i + 1) % 6]))
    found = pack_predictions(logits, samples, HEAD)
    assert found.labels is None
    evaluator.process(dict(student0=found), {})
    assert len(evaluator.evaluators['student0'].metrics[1].results) == 7
