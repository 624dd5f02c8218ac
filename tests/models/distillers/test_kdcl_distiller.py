import pytest
import torch
from reference import LABELS, assert_same, kd, records
from torch.nn import functional as F

from mfef_mmrazor.functional import linear_target
from mfef_mmrazor.models import KDCLDistiller


def minlogit(logits, labels):
    """Sample by sample and class by class."""
    target = torch.empty_like(logits[0])
    for b, c in enumerate(labels):
        for k in range(target.shape[1]):
            target[b, k] = min((z[b, k] - z[b, c]).item() for z in logits)
    return target


def naive(logits, labels):
    rows = []
    for b, c in enumerate(labels):
        rows.append(max((z[b] for z in logits), key=lambda row: float(row.softmax(0)[c])))
    return torch.stack(rows)


@pytest.mark.parametrize('students', [2, 3, 4])
@pytest.mark.parametrize(
    # the weights of the linear target are proved optimal in tests/functional/test_kdcl.py
    'variant, target',
    [('minlogit', minlogit), ('naive', naive), ('linear', linear_target)],
)
def test_the_target_teaches_every_student(students, variant, target):
    distiller = KDCLDistiller(variant, num_students=students, loss_weight=0.7)
    caught = records(students)
    losses = distiller.compute_distill_losses(caught, LABELS)
    with torch.no_grad():
        teacher = target(caught['logits'], LABELS)
    expected = dict(loss_transfer=0.7 * sum(kd(teacher, z, 2.0) for z in caught['logits']))
    assert_same(losses, expected, distiller, caught)


def held_out(students):
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 5, (40,), generator=generator)
    size = (40, 5)
    z = [torch.randn(size, dtype=torch.float64, generator=generator) for _ in range(students)]
    return z, labels


@pytest.mark.parametrize('students', [2, 3, 4])
def test_general_is_the_mixture_that_is_best_on_held_out_data(students):
    z, y = held_out(students)
    errors = [x.exp() / x.exp().sum(dim=1, keepdim=True) - torch.eye(5)[y] for x in z]
    c = torch.stack([torch.stack([(a * b).sum() for b in errors]) for a in errors]) / 40
    weights = c.inverse().sum(dim=1) / c.inverse().sum()

    distiller = KDCLDistiller('general', num_students=students, loss_weight=0.7)
    distiller.learn_held_out(z, y)
    assert torch.allclose(distiller.weights, weights, rtol=0, atol=1e-10)
    caught = records(students)
    losses = distiller.compute_distill_losses(caught, LABELS)
    teacher = sum(float(w) * x.detach() for w, x in zip(weights, caught['logits'], strict=True))
    expected = dict(loss_transfer=0.7 * sum(kd(teacher, x, 2.0) for x in caught['logits']))
    assert_same(losses, expected, distiller, caught)


def test_the_weights_of_general_are_as_precise_as_the_logits():
    z, y = held_out(2)
    distiller = KDCLDistiller('general')
    distiller.learn_held_out([x.float() for x in z], y)
    assert distiller.weights.dtype is torch.float32


def test_general_without_held_out_data():
    with pytest.raises(ValueError, match='no weights: .* held-out training images, by .*HeldOut'):
        KDCLDistiller('general').compute_distill_losses(records(2), LABELS)


def test_by_default_it_is_minlogit_at_temperature_2_and_weight_1(epoch):
    caught = records(2)
    teacher = minlogit(caught['logits'], LABELS)
    expected = sum(kd(teacher, z, 2.0) for z in caught['logits']).item()
    for number in (0, 80):
        epoch(number)
        losses = KDCLDistiller().compute_distill_losses(caught, LABELS)
        assert losses['loss_transfer'].item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize('variant', ['naive', 'linear'])
def test_mixed_labels(variant):
    distiller, caught = KDCLDistiller(variant), records(2)
    hard = distiller.compute_distill_losses(caught, LABELS)['loss_transfer']
    scores = F.one_hot(LABELS, 5).double()
    soft = distiller.compute_distill_losses(caught, scores)['loss_transfer']
    assert soft.item() == pytest.approx(hard.item(), abs=1e-10)


def test_minlogit_refuses_mixed_labels():
    with pytest.raises(ValueError, match=r'labels are \(5, 5\).*take the naive or the linear'):
        KDCLDistiller().compute_distill_losses(records(2), torch.eye(5))


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(variant='minlogits'), r"'minlogits', expected one of \['minlogit'.*est: minlogit"),
        (dict(variant=None), 'variant=None, expected one of'),
        (dict(loss_weight=-1), 'loss_weight=-1, but a weight must be 0 or more'),
        (dict(tau=-1), 'tau=-1, but a temperature must be positive'),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        KDCLDistiller(**options)
