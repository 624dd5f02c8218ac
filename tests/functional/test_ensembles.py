import numpy as np
import pytest
import torch
from scipy.special import softmax

from mfef_mmrazor import functional


def random(*shape, seed=0, scale=3.0):
    return scale * torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def test_ensemble_is_the_mean_of_the_logits():
    logits = [random(5, 7, seed=seed) for seed in range(3)]
    expected = np.mean([z.numpy() for z in logits], axis=0)
    assert np.allclose(functional.ensemble_logits(iter(logits)), expected, rtol=0, atol=1e-15)


def test_peer_means_leave_the_learner_out():
    z = [random(5, 7, seed=i) for i in range(4)]
    for i, mean in enumerate(functional.peer_means(z)):
        assert torch.allclose(mean, (sum(z) - z[i]) / 3, rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match='at least 2 students, got 1'):
        functional.peer_means(z[:1])


def test_weighted_logits_and_their_precision_under_autocast():
    z, weights = [random(5, 7, seed=i).float() for i in range(3)], random(5, 3).float().softmax(1)
    expected = sum(weights[:, i : i + 1] * x for i, x in enumerate(z))
    with torch.autocast('cpu', torch.bfloat16):
        found = functional.weighted_logits(weights, z)
    assert found.dtype is torch.float32 and torch.allclose(found, expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r'weights are \(5, 3\), expected \(batch, 2\)'):
        functional.weighted_logits(weights, z[:2])


def test_attended_logits_follow_the_keys_and_are_not_scaled():
    queries, keys, z = (
        [random(5, d, seed=s + i) for i in range(3)] for d, s in ((4, 0), (4, 5), (7, 9))
    )
    for query, found in zip(queries, functional.attended_logits(queries, keys, z), strict=True):
        for b in range(5):
            share = softmax([float(query[b] @ key[b]) for key in keys])
            expected = sum(s * x[b] for s, x in zip(share, z, strict=True))
            assert torch.allclose(found[b], expected, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match='3 queries, 2 keys and 3 logits'):
        functional.attended_logits(queries, keys[:2], z)
