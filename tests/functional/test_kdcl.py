import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from mfef_mmrazor import functional


def random(*shape, seed=0, scale=3.0):
    return scale * torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def losses_of(logits, labels):
    return torch.nn.functional.cross_entropy(logits, labels, reduction='none')


STUDENTS = pytest.mark.parametrize('students', [2, 3, 4])
SCALES = pytest.mark.parametrize('scale', [0.01, 1.0, 5.0, 20.0])


def students_logits(students, scale=3.0, batch=40, classes=6):
    generator = torch.Generator().manual_seed(students)
    labels = torch.randint(classes, (batch,), generator=generator)
    return [random(batch, classes, seed=i, scale=scale) for i in range(students)], labels


@STUDENTS
@SCALES
def test_minlogit_target_is_no_worse_than_any_student(students, scale):
    z, labels = students_logits(students, scale)
    target = functional.minlogit_target(z, labels)
    assert (target.gather(1, labels[:, None]) == 0).all()
    for x in z:
        margins = x - x.gather(1, labels[:, None])
        assert (target <= margins).all()
        assert (losses_of(target, labels) <= losses_of(x, labels)).all()


@STUDENTS
def test_naive_target_is_the_best_student_of_each_sample(students):
    z, labels = students_logits(students)
    target = functional.naive_target(z, labels)
    losses = torch.stack([losses_of(x, labels) for x in z])
    assert len(losses.argmin(dim=0).unique()) == students
    assert torch.equal(losses_of(target, labels), losses.amin(dim=0))
    assert all(any(torch.equal(row, x[b]) for x in z) for b, row in enumerate(target))


@STUDENTS
@SCALES
@pytest.mark.parametrize('mixed', [False, True])
def test_linear_weights_are_on_the_simplex_and_scipy_finds_none_better(students, scale, mixed):
    z, labels = students_logits(students, scale)
    if mixed:
        labels = random(40, 6, seed=8).softmax(dim=1)
    weights = functional.linear_weights(z, labels)
    assert weights.shape == (40, students) and (weights >= 0).all()
    assert torch.allclose(weights.sum(dim=1), torch.ones(40, dtype=torch.float64), atol=1e-12)

    target = functional.linear_target(z, labels)
    assert torch.allclose(target, functional.weighted_logits(weights, z))
    losses = losses_of(target, labels)
    assert all((losses <= losses_of(x, labels) + 1e-6).all() for x in z)
    for b in range(0, 40, 5):
        rows, label = torch.stack([x[b] for x in z]), labels[b]

        def loss(alpha, rows=rows, label=label):
            return losses_of((torch.tensor(alpha) @ rows)[None], label[None]).item()

        found = minimize(
            loss,
            np.full(students, 1 / students),
            method='SLSQP',
            bounds=[(0, 1)] * students,
            constraints=dict(type='eq', fun=lambda alpha: alpha.sum() - 1),
            options=dict(ftol=1e-12),
        )
        assert losses[b].item() <= found.fun + 1e-6


@SCALES
def test_linear_weights_of_two_students_against_a_dense_grid(scale):
    z, labels = students_logits(2, scale)
    share = torch.linspace(0, 1, 10_001, dtype=torch.float64)[:, None]
    losses = losses_of(functional.linear_target(z, labels), labels)
    inside = 0
    for b in range(len(labels)):
        grid = losses_of(share * z[0][b] + (1 - share) * z[1][b], labels[b].expand(len(share)))
        assert losses[b] <= grid.min() + 1e-6
        assert losses[b] >= grid.min() - scale**2 * 1e-6  # the grid's own step
        inside += 0 < int(grid.argmin()) < 10_000
    assert inside > 10 or scale < 1  # small logits: the better student alone is best


def test_linear_weights_of_students_that_agree_are_equal():
    z, labels = students_logits(1)
    weights = functional.linear_weights(z * 3, labels)
    assert torch.allclose(weights, torch.full_like(weights, 1 / 3), rtol=0, atol=1e-6)


@STUDENTS
@pytest.mark.parametrize('mixed', [False, True])
def test_general_weights_sum_to_1_and_scipy_finds_none_better(students, mixed):
    z, labels = students_logits(students)
    scores = torch.nn.functional.one_hot(labels, 6).double()
    if mixed:
        labels = scores = random(40, 6, seed=8).softmax(dim=1)

    def error(weights):
        mixture = sum(w * x.softmax(dim=1) for w, x in zip(weights, z, strict=True))
        return (mixture - scores).pow(2).sum().item() / 40

    weights = functional.general_weights(z, labels)
    assert weights.shape == (students,) and abs(weights.sum().item() - 1) < 1e-10
    found = minimize(
        error,
        np.full(students, 1 / students),
        constraints=dict(type='eq', fun=lambda w: w.sum() - 1),
        options=dict(ftol=1e-14),
    )
    assert error(weights) <= found.fun + 1e-10
    np.testing.assert_allclose(weights, found.x, atol=1e-4)
    # and at its minimum: any other weights of sum 1 are worse
    for shift in np.random.default_rng(0).normal(size=(20, students)):
        assert error(weights) < error(weights.numpy() + 0.01 * (shift - shift.mean()))


def test_general_weights_of_students_that_agree_or_are_all_right_are_equal():
    z, labels = students_logits(1)
    right = [1e4 * torch.nn.functional.one_hot(labels, 6).double()]
    for same in (z, right):
        weights = functional.general_weights(same * 3, labels)
        assert torch.allclose(weights, torch.full_like(weights, 1 / 3), rtol=0, atol=1e-10)


def test_targets_refuse_or_take_mixed_labels():
    z, labels = students_logits(2)
    scores = torch.nn.functional.one_hot(labels, 6).double()
    for target in (functional.naive_target, functional.linear_target):
        assert torch.equal(target(z, labels), target(z, scores))
    with pytest.raises(ValueError, match=r'labels are \(40, 6\).*index of the one true class'):
        functional.minlogit_target(z, scores)


def test_no_gradient_goes_through_the_weights():
    z, labels = students_logits(2)
    z = [x.requires_grad_() for x in z]
    assert not functional.general_weights(z, labels).requires_grad
    weights = functional.linear_weights(z, labels)
    assert not weights.requires_grad
    (gradient,) = torch.autograd.grad(functional.linear_target(z, labels).sum(), z[0])
    assert torch.allclose(gradient, weights[:, :1].expand(-1, 6))


@pytest.mark.parametrize('target', ['naive_target', 'minlogit_target', 'linear_target'])
def test_targets_are_as_precise_as_the_logits(target):
    z, labels = students_logits(2)
    found = getattr(functional, target)([x.float() for x in z], labels)
    assert found.dtype is torch.float32
