"""The maths of online distillation: pure functions on tensors, no registry, no state.

Symbols, here and in every method: ``B`` batch size, ``K`` classes, ``m`` students, ``z`` logits of
shape (B, K), ``T`` or ``tau`` the temperature, ``sg`` stop-gradient (detach).
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def kd_loss(student: Tensor, teacher: Tensor, tau: float = 1.0) -> Tensor:
    r"""Distillation loss from one set of logits to another.

    .. math:: \tau^2 \, \frac{1}{B} \sum_b \mathrm{KL}\big(
        \mathrm{softmax}(z^t_b / \tau) \,\|\, \mathrm{softmax}(z^s_b / \tau)\big)

    The factor :math:`\tau^2` keeps the gradient's size independent of the temperature
    (https://arxiv.org/abs/1503.02531). Nothing is detached here: that is the caller's decision.

    Args:
        student: Logits that learn, (B, K).
        teacher: Logits that teach, (B, K).
        tau: Temperature, above 0.

    Returns:
        A scalar, zero where both distributions agree.

    Raises:
        ValueError: The shapes differ, or the temperature is not positive.

    Example:
        >>> z = torch.tensor([[2.0, 0.0]])
        >>> kd_loss(z, z + 5.0, tau=3.0).item() < 1e-6
        True
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f'student logits are {tuple(student.shape)}, teacher logits {tuple(teacher.shape)}: '
            'both must be (batch, classes) of the same size'
        )
    if not tau > 0:
        raise ValueError(f'tau is {tau}, but a temperature must be positive')
    return tau**2 * F.kl_div(
        F.log_softmax(student / tau, dim=1),
        F.log_softmax(teacher / tau, dim=1),
        reduction='batchmean',
        log_target=True,
    )


def ensemble_logits(logits: Sequence[Tensor]) -> Tensor:
    """The students' ensemble: the mean of their logits, (B, K)."""
    return torch.stack(list(logits)).mean(dim=0)


def mutual_kd_loss(logits: Sequence[Tensor], tau: float = 1.0) -> Tensor:
    r"""Every student learns from every other one, over all ordered pairs.

    .. math:: \frac{1}{m-1} \sum_i \sum_{j \ne i} \mathrm{KD}_\tau(\mathrm{sg}\,z_j \to z_i)

    Args:
        logits: m >= 2 tensors of (B, K).
        tau: Temperature.

    Raises:
        ValueError: There are fewer than two students.

    Example:
        >>> a, b = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
        >>> round(mutual_kd_loss([a, b]).item(), 4)
        0.2311
    """
    if len(logits) < 2:
        raise ValueError(f'mutual learning needs at least 2 students, got {len(logits)}')
    pairs = [
        kd_loss(learner, peer.detach(), tau)
        for i, learner in enumerate(logits)
        for j, peer in enumerate(logits)
        if i != j
    ]
    return torch.stack(pairs).sum() / (len(logits) - 1)


def attention_map(feature: Tensor) -> Tensor:
    r"""Spatial attention map of a feature map, one unit vector a sample.

    :math:`A(F) = \frac1C \sum_c F_c^2`, flattened and L2-normalised
    (https://arxiv.org/abs/1612.03928).

    Args:
        feature: (B, C, H, W).

    Returns:
        (B, H * W), rows of norm 1.
    """
    return F.normalize(feature.pow(2).mean(dim=1).flatten(1), dim=1)


def attention_map_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean squared difference of two attention maps.

    .. math:: \frac{1}{BHW} \sum \big(A(F^s) - A(F^t)\big)^2

    Maps of different sizes are compared at the smaller one, by average pooling.

    Args:
        student: Map that learns, (B, C, H, W).
        teacher: Map that teaches, (B, C', H', W').

    Example:
        >>> x = torch.rand(2, 8, 4, 4)
        >>> attention_map_loss(x, 3.0 * x).item() < 1e-12
        True
    """
    size = smallest_size([student, teacher])
    return F.mse_loss(attention_map(resize(student, size)), attention_map(resize(teacher, size)))


def smallest_size(maps: Sequence[Tensor]) -> tuple[int, int]:
    """Height and width that every one of the (B, C, H, W) maps can be average-pooled to."""
    return min(x.shape[-2] for x in maps), min(x.shape[-1] for x in maps)


def resize(feature: Tensor, size: tuple[int, int]) -> Tensor:
    """Average-pool a (B, C, H, W) map to ``size``; the map itself where nothing is to be done."""
    return feature if feature.shape[-2:] == size else F.adaptive_avg_pool2d(feature, size)


def sigmoid_ramp_up(epoch: float, length: float) -> float:
    r"""Weight that rises from 0.0067 to 1 over the first ``length`` epochs.

    .. math:: w(e) = \exp\big(-5 (1 - \min(e, R) / R)^2\big)

    Args:
        epoch: Epochs finished so far, from 0.
        length: R, in epochs; 0 switches the ramp-up off (always 1).

    Raises:
        ValueError: ``length`` is negative.

    Example:
        >>> [round(sigmoid_ramp_up(e, 80), 7) for e in (0, 40, 80)]
        [0.0067379, 0.2865048, 1.0]
    """
    if length < 0:
        raise ValueError(f'the ramp-up length is {length} epochs, but must not be negative')
    if length == 0:
        return 1.0
    return math.exp(-5.0 * (1.0 - min(epoch, length) / length) ** 2)
