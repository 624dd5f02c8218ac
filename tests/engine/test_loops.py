import pytest
import torch
from mmengine.evaluator import Evaluator
from mmpretrain.structures import DataSample

from mfef_mmrazor.engine.loops import PredictorsEvaluator


def samples(predicted, labels):
    return [
        DataSample().set_gt_label(y).set_pred_label(p).set_pred_score(torch.eye(3)[p])
        for p, y in zip(predicted, labels, strict=True)
    ]


def test_every_predictor_is_scored_on_its_own_predictions():
    evaluator = PredictorsEvaluator(Evaluator([dict(type='mmpretrain.Accuracy', topk=(1,))]))
    evaluator.process(
        dict(student0=samples([0, 1], [0, 1]), student1=samples([0, 0], [0, 1])), data_batch={}
    )
    evaluator.process(dict(student0=samples([2], [0]), student1=samples([2], [2])), data_batch={})
    metrics = evaluator.evaluate(3)
    assert metrics == {
        'accuracy/top1': pytest.approx(200 / 3),
        'student0.accuracy/top1': pytest.approx(200 / 3),
        'student1.accuracy/top1': pytest.approx(200 / 3),
    }
    # a second epoch starts from nothing
    evaluator.process(dict(student0=samples([0], [0]), student1=samples([0], [1])), data_batch={})
    assert evaluator.evaluate(1)['student1.accuracy/top1'] == 0


def test_the_plain_names_come_first_for_save_best_auto():
    evaluator = PredictorsEvaluator(Evaluator([dict(type='mmpretrain.Accuracy', topk=(1,))]))
    evaluator.process(dict(student0=samples([0], [0]), ensemble=samples([1], [0])), data_batch={})
    metrics = evaluator.evaluate(1)
    assert next(iter(metrics)) == 'accuracy/top1'
    assert metrics['accuracy/top1'] == 100 and metrics['ensemble.accuracy/top1'] == 0
