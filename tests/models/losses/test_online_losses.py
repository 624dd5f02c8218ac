import pytest
import torch
from mmrazor.registry import MODELS
from scipy.special import rel_entr, softmax

from mfef_mmrazor.models import (
    AttentionMapLoss,
    DiversityLoss,
    EnsembleKLDivergence,
    MapKLDivergence,
    MutualKLDivergence,
    WholeMapLoss,
)


def leaves(number, *shape):
    generator = torch.Generator().manual_seed(0)
    shape = shape or (4, 6)
    return [
        torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
        for _ in range(number)
    ]


def kd(student, teacher, tau):
    p, q = (softmax(z.detach().numpy() / tau, axis=1) for z in (teacher, student))
    return tau**2 * rel_entr(p, q).sum(axis=1).mean()


@pytest.mark.parametrize(
    'name',
    [
        'AttentionMapLoss',
        'DiversityLoss',
        'EnsembleKLDivergence',
        'MapKLDivergence',
        'MutualKLDivergence',
        'WholeMapLoss',
    ],
)
def test_they_are_registered_in_mmrazor(name):
    loss = MODELS.build(dict(_scope_='mmrazor', type=name, loss_weight=2.0))
    assert type(loss).__name__ == name and loss.loss_weight == 2.0
    assert not list(loss.parameters())


def test_ensemble_teaches_one_set_of_logits_and_learns_nothing():
    learner, *teachers = leaves(4)
    loss = EnsembleKLDivergence(tau=3.0, loss_weight=0.5)(learner, teachers)
    assert loss.item() == pytest.approx(0.5 * kd(learner, sum(teachers) / 3, 3.0))
    loss.backward()
    assert learner.grad.abs().sum() > 0 and all(z.grad is None for z in teachers)


def test_mutual_divergence_has_every_pair():
    a, b, c = logits = leaves(3)
    loss = MutualKLDivergence(tau=2.0, loss_weight=0.5)(logits)
    pairs = [(a, b), (a, c), (b, a), (b, c), (c, a), (c, b)]
    assert loss.item() == pytest.approx(0.5 / 2 * sum(kd(s, t, 2.0) for s, t in pairs))


def test_whole_maps_of_other_channels():
    with pytest.raises(ValueError, match='learns has 8 channels, the one that teaches 6'):
        WholeMapLoss()(torch.rand(2, 8, 4, 4), torch.rand(2, 6, 4, 4))


def test_mutual_divergence_needs_two():
    with pytest.raises(ValueError, match='at least 2 students, got 1'):
        MutualKLDivergence()(leaves(1))


def test_the_default_temperature_is_one():
    a, b = leaves(2)
    assert EnsembleKLDivergence()(a, [b]).item() == pytest.approx(kd(a, b, 1.0))
    assert MutualKLDivergence()([a, b]).item() == pytest.approx(kd(a, b, 1.0) + kd(b, a, 1.0))


@pytest.mark.parametrize(
    'kind, teacher_shape',
    [
        (AttentionMapLoss, (2, 5, 4, 4)),
        (DiversityLoss, (2, 5, 8, 8)),
        (WholeMapLoss, (2, 8, 4, 4)),
    ],
)
def test_losses_of_maps_teach_one_way_at_other_shapes(kind, teacher_shape):
    (student,), (teacher,) = leaves(1, 2, 8, 8, 8), leaves(1, *teacher_shape)
    loss, doubled = (kind(weight)(student, teacher) for weight in (1.0, 2.0))
    assert doubled.item() == pytest.approx(2 * loss.item()) and loss > 0
    loss.backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None


def test_whole_maps_are_one_distribution_each():
    student, teacher = leaves(2, 3, 4, 2, 6)
    loss = MapKLDivergence(tau=2.0, loss_weight=0.5)(student, teacher)
    expected = kd(student.reshape(3, 48), teacher.reshape(3, 48), 2.0)
    assert loss.item() == pytest.approx(0.5 * expected)
    loss.backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None


def test_a_larger_map_is_pooled_to_the_other_size():
    small, large = leaves(1, 3, 4, 2, 3)[0], leaves(1, 3, 4, 4, 6)[0]
    pooled = large.reshape(3, 4, 2, 2, 3, 2).mean(dim=(3, 5))
    expected = kd(small.reshape(3, 24), pooled.reshape(3, 24), 3.0)
    assert MapKLDivergence()(small, large).item() == pytest.approx(expected)


def test_whole_maps_of_other_channels_and_no_temperature():
    with pytest.raises(ValueError, match='learns has 4 channels, the one that teaches 2'):
        MapKLDivergence()(torch.rand(3, 4, 2, 2), torch.rand(3, 2, 2, 2))
    with pytest.raises(ValueError, match='tau=0, but a temperature must be positive'):
        MapKLDivergence(tau=0)
