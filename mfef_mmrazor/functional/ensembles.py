"""Logits that students teach together: means and weighted means."""

from collections.abc import Sequence

import torch
from torch import Tensor


def ensemble_logits(logits: Sequence[Tensor]) -> Tensor:
    """The students' ensemble: the mean of their logits, (B, K).

    Args:
        logits: m tensors of (B, K).

    Example:
        >>> ensemble_logits([torch.zeros(1, 2), torch.ones(1, 2)])
        tensor([[0.5000, 0.5000]])
    """
    return torch.stack(list(logits)).mean(dim=0)


def peer_means(logits: Sequence[Tensor]) -> list[Tensor]:
    r"""For every student, the mean of the other ones' logits.

    .. math:: t_i = \frac{1}{m-1} \sum_{j \ne i} z_j

    Args:
        logits: m >= 2 tensors of (B, K).

    Returns:
        m tensors of (B, K).

    Raises:
        ValueError: There are fewer than two students.

    Example:
        >>> peer_means([torch.tensor([[3.0]]), torch.tensor([[5.0]])])
        [tensor([[5.]]), tensor([[3.]])]
    """
    if len(logits) < 2:
        raise ValueError(f'peers need at least 2 students, got {len(logits)}')
    return [
        ensemble_logits([peer for j, peer in enumerate(logits) if j != i])
        for i in range(len(logits))
    ]


def weighted_logits(weights: Tensor, logits: Sequence[Tensor]) -> Tensor:
    r"""Logits of an ensemble whose weights differ from sample to sample.

    .. math:: z_b = \sum_i w_{bi} \, z_{i,b}

    Args:
        weights: (B, m).
        logits: m tensors of (B, K).

    Returns:
        (B, K).

    Raises:
        ValueError: There is not one column of weights for each student.

    Example:
        >>> weighted_logits(torch.tensor([[0.25, 0.75]]), [torch.zeros(1, 2), torch.ones(1, 2)])
        tensor([[0.7500, 0.7500]])
    """
    if weights.shape[1:] != (len(logits),):
        raise ValueError(
            f'weights are {tuple(weights.shape)}, expected (batch, {len(logits)}): one a student'
        )
    # no matrix product: under autocast that would be one of half precision
    return (weights[..., None] * torch.stack(list(logits), dim=1)).sum(dim=1)


def attended_logits(
    queries: Sequence[Tensor], keys: Sequence[Tensor], logits: Sequence[Tensor]
) -> list[Tensor]:
    r"""Every peer's own mixture of all peers' logits, itself included.

    .. math:: t_a = \sum_b \alpha_{ab} \, z_b,
        \quad \alpha_{ab} = \mathrm{softmax}_b \, q_a^\top k_b

    The dot product is not scaled (https://arxiv.org/abs/1912.00350). Nothing is detached here.

    Args:
        queries: m tensors of (B, d).
        keys: m tensors of (B, d).
        logits: m tensors of (B, K).

    Returns:
        m tensors of (B, K).

    Raises:
        ValueError: Their numbers differ.

    Example:
        >>> same = [torch.ones(1, 2)] * 2
        >>> attended_logits(same, same, [torch.zeros(1, 1), torch.ones(1, 1)])
        [tensor([[0.5000]]), tensor([[0.5000]])]
    """
    if not len(queries) == len(keys) == len(logits):
        raise ValueError(
            f'got {len(queries)} queries, {len(keys)} keys and {len(logits)} logits: '
            'each peer has one of each'
        )
    k = torch.stack(list(keys), dim=1)
    attention = [(q[:, None] * k).sum(dim=2).softmax(dim=1) for q in queries]
    return [weighted_logits(weights, logits) for weights in attention]
