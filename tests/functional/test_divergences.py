import math

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from mfef_mmrazor import functional


def random(*shape, seed=0, scale=3.0):
    return scale * torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def numpy_kd(student, teacher, tau):
    p, q = (softmax(z.detach().numpy() / tau, axis=1) for z in (teacher, student))
    return tau**2 * rel_entr(p, q).sum(axis=1).mean()


STUDENT, TEACHER = random(5, 7, seed=1), random(5, 7, seed=2)
TAUS = pytest.mark.parametrize('tau', [1.0, 3.0, 0.5])


@TAUS
def test_kd_is_the_divergence_scipy_computes(tau):
    expected = numpy_kd(STUDENT, TEACHER, tau)
    assert expected > 0.1
    assert functional.kd_loss(STUDENT, TEACHER, tau).item() == pytest.approx(expected, rel=1e-12)


@TAUS
def test_kd_is_zero_and_flat_at_equality_and_positive_elsewhere(tau):
    z = TEACHER.clone().requires_grad_()
    loss = functional.kd_loss(z, TEACHER, tau)
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.item() == 0 and gradient.abs().max() < 1e-15
    for seed in range(20):
        assert functional.kd_loss(TEACHER + 0.1 * random(5, 7, seed=seed), TEACHER, tau) > 0


def test_kd_ignores_a_constant_added_to_a_row():
    shift = random(5, 1, seed=3, scale=10.0)
    expected = functional.kd_loss(STUDENT, TEACHER, 3.0).item()
    assert functional.kd_loss(STUDENT + shift, TEACHER, 3.0).item() == pytest.approx(expected)
    assert functional.kd_loss(STUDENT, TEACHER + shift, 3.0).item() == pytest.approx(expected)


def test_kd_at_a_high_temperature_is_the_distance_of_centred_logits():
    centred = [z - z.mean(dim=1, keepdim=True) for z in (STUDENT, TEACHER)]
    limit = (centred[0] - centred[1]).pow(2).sum(dim=1).mean() / (2 * 7)
    assert functional.kd_loss(STUDENT, TEACHER, 1e4).item() == pytest.approx(limit.item(), rel=1e-3)


@TAUS
def test_kd_gradient_is_the_difference_of_the_distributions(tau):
    z = STUDENT.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(functional.kd_loss(z, TEACHER, tau), z)
    expected = tau * ((STUDENT / tau).softmax(dim=1) - (TEACHER / tau).softmax(dim=1)) / 5
    assert torch.allclose(gradient, expected, rtol=0, atol=1e-14)


def test_kd_passes_gradcheck_in_both_arguments():
    pair = [z.clone().requires_grad_() for z in (STUDENT, TEACHER)]
    assert torch.autograd.gradcheck(lambda s, t: functional.kd_loss(s, t, 3.0), pair)


def test_kd_refuses_other_shapes_and_temperatures():
    with pytest.raises(ValueError, match=r'\(5, 7\), teacher logits \(5, 6\)'):
        functional.kd_loss(STUDENT, TEACHER[:, :6])
    for tau in (0.0, -1.0, float('nan')):
        with pytest.raises(ValueError, match=f'tau is {tau}'):
            functional.kd_loss(STUDENT, TEACHER, tau)


@pytest.mark.parametrize('number', [2, 3, 4])
def test_mutual_kd_is_the_mean_over_peers_summed_over_learners(number):
    logits = [random(5, 7, seed=seed).requires_grad_() for seed in range(number)]
    loss = functional.mutual_kd_loss(logits, 3.0)
    pairs = [numpy_kd(a, b, 3.0) for a in logits for b in logits if a is not b]
    assert loss.item() == pytest.approx(sum(pairs) / (number - 1))
    # a peer is a constant: the gradient is that of the learner's own terms
    probabilities = [(z / 3.0).softmax(dim=1).detach() for z in logits]
    for gradient, p in zip(torch.autograd.grad(loss, logits), probabilities, strict=True):
        expected = 3.0 / 5 * (p - (sum(probabilities) - p) / (number - 1))
        assert torch.allclose(gradient, expected, rtol=0, atol=1e-14)


def test_mutual_kd_needs_two():
    with pytest.raises(ValueError, match='at least 2 students, got 1'):
        functional.mutual_kd_loss([STUDENT])


def test_an_expert_is_further_from_its_student_than_the_threshold():
    s, t = 1.0, 0.8
    threshold = s - math.exp(-t / (t + s)) * t
    for between, expert in ((threshold + 1e-3, True), (threshold - 1e-3, False)):
        assert functional.is_expert(torch.tensor([s, t, between])) is expert
    assert not functional.is_expert(torch.tensor([t, s, 2.0]))  # it is behind


def test_the_gap_is_three_distances_summed_over_the_classes():
    labels = torch.tensor([0, 6, 2, 2, 5])
    p_s, p_t = (softmax(z.numpy(), axis=1) for z in (STUDENT, TEACHER))
    y = np.eye(7)[labels]
    pairs = ((p_s, y), (p_t, y), (p_s, p_t))
    expected = [np.abs(a - b).sum(axis=1).mean() for a, b in pairs]
    for given in (labels, torch.tensor(y)):
        found = functional.distillation_gap(STUDENT, TEACHER, given)
        assert found.tolist() == pytest.approx(expected, rel=1e-12)
