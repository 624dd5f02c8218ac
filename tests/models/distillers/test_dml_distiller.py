import pytest
from reference import LABELS, W40, assert_same, kd, records

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


def test_the_weight_is_constant(epoch):
    values = []
    for number in (0, 40, 80):
        epoch(number)
        values.append(DMLDistiller().compute_distill_losses(records(2), LABELS)['loss_mutual'])
    assert values[0] == values[1] == values[2]


def test_the_weight_can_be_ramped_up(epoch):
    epoch(40)
    distiller, caught = DMLDistiller(ramp_up_epochs=80), records(2)
    losses = distiller.compute_distill_losses(caught, LABELS)
    expected = dict(loss_mutual=W40 * mutual(caught['logits'], 1.0))
    assert_same(losses, expected, distiller, caught)


def test_the_loss_has_its_own_temperature_and_weight():
    distiller = DMLDistiller(loss_mutual=dict(tau=2.0, loss_weight=0.5))
    caught = records(2)
    value = distiller.compute_distill_losses(caught, LABELS)['loss_mutual'].item()
    assert value == pytest.approx(0.5 * mutual(caught['logits'], 2.0).item(), abs=1e-10)


def test_impossible_options():
    with pytest.raises(ValueError, match='tau=0, but a temperature must be positive'):
        DMLDistiller(tau=0)
    with pytest.raises(ValueError, match='num_students=1, expected 2 or more'):
        DMLDistiller(num_students=1)
    with pytest.raises(TypeError, match="MutualKLDivergence has no argument 'temperature'"):
        DMLDistiller(loss_mutual=dict(temperature=3))
