from math import exp

import pytest
from reference import LABELS, assert_same, kd, records

from mfef_mmrazor.models import DMLDistiller


def mutual(z, tau):
    pairs = [kd(z[j], z[i], tau) for i in range(len(z)) for j in range(len(z)) if i != j]
    return sum(pairs) / (len(z) - 1)


@pytest.mark.parametrize('students', [2, 3, 4])
@pytest.mark.parametrize('options, tau', [(dict(), 1.0), (dict(tau=3.0), 3.0)])
def test_every_student_learns_from_every_other(students, options, tau):
    distiller, caught = DMLDistiller(num_students=students, **options), records(students)
    losses = distiller.compute_distill_losses(caught, LABELS)
    expected = dict(loss_mutual=mutual(caught['logits'], tau))
    assert_same(losses, expected, distiller, caught)


@pytest.mark.parametrize('ramp_up, weights', [(0, (1, 1, 1)), (80, (exp(-5), exp(-1.25), 1))])
def test_the_weight_is_constant_or_ramped_up(epoch, ramp_up, weights):
    full = mutual(records(2)['logits'], 1.0).item()
    for number, weight in zip((0, 40, 80), weights, strict=True):
        epoch(number)
        distiller = DMLDistiller(ramp_up_epochs=ramp_up)
        value = distiller.compute_distill_losses(records(2), LABELS)['loss_mutual'].item()
        assert value == pytest.approx(weight * full, abs=1e-10)


def test_the_loss_has_its_own_temperature_and_weight():
    distiller = DMLDistiller(loss_mutual=dict(tau=2.0, loss_weight=0.5))
    caught = records(2)
    value = distiller.compute_distill_losses(caught, LABELS)['loss_mutual'].item()
    assert value == pytest.approx(0.5 * mutual(caught['logits'], 2.0).item(), abs=1e-10)


def test_impossible_options():
    with pytest.raises(ValueError, match='tau=0, but a temperature must be positive'):
        DMLDistiller(tau=0)
    with pytest.raises(ValueError, match='at least 2 students, got 1'):
        DMLDistiller(num_students=1).compute_distill_losses(records(1), LABELS)
    with pytest.raises(TypeError, match="MutualKLDivergence has no argument 'temperature'"):
        DMLDistiller(loss_mutual=dict(temperature=3))
