import pytest
from reference import LABELS, W40, assert_same, kd, kd_with_gradient, records

from mfef_mmrazor.models import CLILRDistiller, DMLDistiller


@pytest.mark.parametrize('students', [2, 3, 4])
def test_the_mean_of_the_others_teaches(students, epoch):
    epoch(40)
    distiller, caught = CLILRDistiller(num_students=students), records(students)
    losses = distiller.compute_distill_losses(caught, LABELS)
    z = caught['logits']
    others = [(sum(z) - z[i]) / (students - 1) for i in range(students)]
    transfer = sum(kd(teacher, student, 3.0) for teacher, student in zip(others, z, strict=True))
    assert_same(losses, dict(loss_transfer=W40 * transfer), distiller, caught)
    assert distiller.fused_logits(caught) is None


@pytest.mark.parametrize('students', [2, 3])
def test_targets_that_are_not_detached_learn_as_well(students, epoch):
    epoch(40)
    distiller, caught = (
        CLILRDistiller(num_students=students, detach_targets=False),
        records(students),
    )
    losses = distiller.compute_distill_losses(caught, LABELS)
    z = caught['logits']
    others = [(sum(z) - z[i]) / (students - 1) for i in range(students)]
    pairs = zip(others, z, strict=True)
    expected = W40 * sum(kd_with_gradient(teacher, student, 3.0) for teacher, student in pairs)
    assert_same(losses, dict(loss_transfer=expected), distiller, caught)


def test_two_students_learn_as_in_dml_at_temperature_3(epoch):
    epoch(80)
    caught = records(2)
    ours = CLILRDistiller(num_students=2).compute_distill_losses(caught, LABELS)['loss_transfer']
    dml = DMLDistiller(tau=3.0).compute_distill_losses(caught, LABELS)['loss_mutual']
    assert ours.item() == pytest.approx(dml.item(), abs=1e-12)


def test_impossible_options():
    with pytest.raises(ValueError, match='tau=0, but a temperature must be positive'):
        CLILRDistiller(tau=0)
    with pytest.raises(ValueError, match='num_students=1, expected 2 or more'):
        CLILRDistiller(num_students=1)
