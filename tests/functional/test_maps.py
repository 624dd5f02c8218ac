import numpy as np
import pytest
import torch

from mfef_mmrazor import functional


def random(*shape, seed=0, scale=3.0):
    return scale * torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def numpy_attention(x):
    energy = (x.numpy() ** 2).mean(axis=1).reshape(len(x), -1)
    return energy / np.sqrt((energy**2).sum(axis=1, keepdims=True))


def test_attention_map_is_the_unit_vector_of_the_energies():
    x = random(3, 8, 4, 6)
    assert np.allclose(functional.attention_map(x), numpy_attention(x), rtol=1e-12)


def test_attention_map_loss_is_what_numpy_computes():
    a, b = random(3, 8, 4, 6, seed=1), random(3, 5, 4, 6, seed=2)
    expected = ((numpy_attention(a) - numpy_attention(b)) ** 2).mean()
    assert functional.attention_map_loss(a, b).item() == pytest.approx(expected, rel=1e-12)


def test_attention_map_loss_compares_maps_at_the_smaller_size():
    a, b = random(3, 8, 8, 8, seed=1), random(3, 8, 4, 4, seed=2)
    pooled = a.view(3, 8, 4, 2, 4, 2).mean(dim=(3, 5))
    expected = ((numpy_attention(pooled) - numpy_attention(b)) ** 2).mean()
    assert functional.attention_map_loss(a, b).item() == pytest.approx(expected, rel=1e-12)
    assert functional.attention_map_loss(b, a).item() == pytest.approx(expected, rel=1e-12)


def test_attention_map_loss_of_a_dead_map_is_finite():
    dead = torch.zeros(2, 4, 4, 4, requires_grad=True)
    loss = functional.attention_map_loss(dead, torch.ones(2, 4, 4, 4))
    (gradient,) = torch.autograd.grad(loss, dead)
    assert loss.isfinite() and gradient.isfinite().all()


def test_whole_map_loss_is_what_numpy_computes_at_the_smaller_size():
    a, b = random(3, 8, 8, 8, seed=1), random(3, 8, 4, 4, seed=2)
    pooled = a.view(3, 8, 4, 2, 4, 2).mean(dim=(3, 5))
    rows = [x.numpy().reshape(3, -1) for x in (pooled, b)]
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in rows]
    expected = ((units[0] - units[1]) ** 2).mean()
    assert functional.whole_map_loss(a, b).item() == pytest.approx(expected, rel=1e-12)
    assert functional.whole_map_loss(b, a).item() == pytest.approx(expected, rel=1e-12)


def test_diversity_loss_compares_maps_at_the_smaller_size():
    a, b = random(3, 8, 8, 8, seed=1), random(3, 8, 4, 4, seed=2)
    pooled = a.view(3, 8, 4, 2, 4, 2).mean(dim=(3, 5))
    for maps, small in (((a, b), (pooled, b)), ((b, a), (b, pooled))):
        assert functional.diversity_loss(*maps).item() == pytest.approx(
            functional.diversity_loss(*small).item(), rel=1e-12
        )


@pytest.mark.parametrize('size', [(1, 1), (1, 2), (3, 3), (8, 8)])
def test_shifted_attention_turns_over_what_is_above_the_lowest_third(size):
    x = random(4, 8, *size)
    y = numpy_attention(x)
    n = np.sqrt(((x.numpy() ** 2).mean(axis=1) ** 2).sum(axis=(1, 2)))[:, None]
    theta = np.sort(y, axis=1)[:, max(0, y.shape[1] // 3 - 1)][:, None]
    expected = np.where(y > theta, n - y, np.where(y < theta, y, n / 2))
    assert np.allclose(functional.shifted_attention(x), expected, rtol=1e-12)
    learner = random(4, 5, *size, seed=1)
    loss = ((numpy_attention(learner) - expected) ** 2).mean()
    assert functional.diversity_loss(learner, x).item() == pytest.approx(loss, rel=1e-12)
    # the shift is n / C times that of the unit attention, in every channel
    shift = ((expected - y) * n / 8).reshape(4, 1, *size)
    assert np.allclose(functional.shifted_map(x), x.numpy() + shift, rtol=1e-12)


def test_sizes_meet_at_the_smallest_height_and_width():
    tall, wide = torch.rand(1, 2, 8, 4), torch.rand(1, 2, 4, 8)
    assert functional.smallest_size([tall, wide]) == (4, 4)
    assert functional.resize(tall, (8, 4)) is tall
    expected = tall.view(1, 2, 4, 2, 4).mean(dim=3)
    assert torch.allclose(functional.resize(tall, (4, 4)), expected)
