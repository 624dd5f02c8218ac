"""Calibration against torchmetrics' own for several classes, and against sums by hand."""

import itertools
import json

import pytest
import torch
from mmpretrain.structures import DataSample
from processes import in_processes
from torch import distributed
from torchmetrics.classification import MulticlassCalibrationError

from mfef_mmrazor.compat import init_cpu_processes
from mfef_mmrazor.engine.calibration import Calibration, Diversity


def batches(scores, labels, size=7):
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        yield [
            dict(pred_score=p, gt_label=y.view(1))
            for p, y in zip(scores[part], labels[part], strict=True)
        ]


def test_nll_and_ece_are_those_of_the_library():
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(200, 10), torch.randint(0, 10, (200,))
    labels[:120] = logits[:120].argmax(dim=1)
    metric = Calibration()
    for batch in batches(logits.softmax(dim=1), labels):
        metric.process({}, batch)
    found = metric.evaluate(200)
    expected = MulticlassCalibrationError(10, n_bins=15, norm='l1')(logits.softmax(dim=1), labels)
    assert found['ece'] == pytest.approx(100 * float(expected), abs=1e-4)
    assert found['nll'] == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, labels)), abs=1e-5
    )


def test_certain_predictions_are_in_the_last_bin_with_the_nearly_certain():
    scores = torch.tensor([[1.0, 0.0], [0.94, 0.06]]).repeat(50, 1)
    labels = torch.tensor([1, 0] * 5 + [0, 0] * 45)  # 5 of the certain ones are wrong
    metric = Calibration()
    for batch in batches(scores, labels):
        metric.process({}, batch)
    assert metric.evaluate(100)['ece'] == pytest.approx(100 * (0.97 - 0.95))


def test_a_certain_mistake_is_not_infinite():
    metric = Calibration()
    metric.process({}, [dict(pred_score=torch.tensor([1.0, 0.0]), gt_label=torch.tensor([1]))])
    found = metric.evaluate(1)
    assert 80 < found['nll'] < 90 and found['ece'] == pytest.approx(100)


@pytest.mark.parametrize('sample', [
    dict(pred_score=torch.tensor([0.5, 0.5]), gt_label=torch.tensor([0, 1])),
    dict(pred_score=torch.tensor([0.9, 0.9]), gt_label=torch.tensor([0])),
    dict(pred_score=torch.tensor([0.5, 0.5])),
    dict(gt_label=torch.tensor([0])),
])  # fmt: skip
def test_nothing_is_said_where_it_is_not_defined(sample):
    metric = Calibration()
    metric.process({}, [sample])
    assert metric.evaluate(1) == {}


def test_one_image_whose_scores_are_no_probabilities_leaves_all_unsaid():
    metric, label = Calibration(), torch.tensor([0])
    scores = torch.tensor([[0.5, 0.5], [0.9, 0.9]])
    metric.process({}, [dict(pred_score=score, gt_label=label) for score in scores])
    assert metric.evaluate(2) == {}


def test_diversity_is_the_mean_over_pairs_and_images():
    torch.manual_seed(0)
    scores = torch.randn(3, 20, 5, dtype=torch.float64).softmax(dim=-1)
    predictions = {
        f'student{i}': [DataSample(pred_score=p) for p in own] for i, own in enumerate(scores)
    }
    metric = Diversity()
    metric.process({}, {**predictions, 'ensemble': predictions['student0']})
    found = metric.evaluate(20)
    kl, unlike = [], []
    for i, j in itertools.permutations(range(3), 2):
        kl.append((scores[i] * (scores[i] / scores[j]).log()).sum(dim=-1).mean())
        unlike.append((scores[i].argmax(dim=-1) != scores[j].argmax(dim=-1)).double().mean())
    assert found['students.kl'] == pytest.approx(float(sum(kl) / 6))
    assert found['students.disagreement'] == pytest.approx(100 * float(sum(unlike) / 6))


def test_a_student_alone_differs_from_nobody():
    metric = Diversity()
    metric.process({}, dict(student0=[DataSample(pred_score=torch.tensor([0.5, 0.5]))]))
    assert metric.evaluate(1) == {}


def scores_of_several_labels(work_dir):
    """What one of several processes finds out of images with several labels."""
    init_cpu_processes()
    sample = DataSample(gt_label=torch.tensor([0, 1]), pred_score=torch.tensor([0.9, 0.8]))
    calibration, diversity = Calibration(), Diversity()
    calibration.process({}, [sample.to_dict()])
    diversity.process({}, dict(student0=[sample], student1=[sample]))
    found = [calibration.evaluate(2), diversity.evaluate(2)]
    (work_dir / f'{distributed.get_rank()}.json').write_text(json.dumps(found))


def test_nothing_is_said_in_several_processes_either(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    in_processes(2, scores_of_several_labels, tmp_path)
    assert [json.loads((tmp_path / f'{i}.json').read_text()) for i in (0, 1)] == [[{}, {}]] * 2
