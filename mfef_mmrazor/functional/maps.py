"""Feature maps: attention, sizes, and losses between them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .divergences import kd_loss


def attention_map(feature: Tensor) -> Tensor:
    r"""Spatial attention map of a feature map, one unit vector a sample.

    :math:`A(F) = \frac1C \sum_c F_c^2`, flattened and L2-normalised
    (https://arxiv.org/abs/1612.03928).

    Args:
        feature: (B, C, H, W).

    Returns:
        (B, H * W), rows of norm 1.

    Example:
        >>> attention_map(torch.tensor([0.0, 0.0, 3.0, 4.0]).sqrt().view(1, 1, 2, 2))
        tensor([[0.0000, 0.0000, 0.6000, 0.8000]])
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
    student, teacher = _at_smaller_size(student, teacher)
    return F.mse_loss(attention_map(student), attention_map(teacher))


def whole_map_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean squared difference of two feature maps, each of norm 1 a sample.

    .. math:: \frac{1}{BCHW} \sum \Big(\frac{F^s}{\|F^s\|} - \frac{F^t}{\|F^t\|}\Big)^2

    Maps of different sizes are compared at the smaller one, by average pooling.

    Args:
        student: Map that learns, (B, C, H, W).
        teacher: Map that teaches, (B, C, H', W').

    Raises:
        ValueError: The maps have different channels.

    Example:
        >>> x = torch.rand(2, 8, 4, 4)
        >>> whole_map_loss(x, 3.0 * x).item() < 1e-12
        True
    """
    _check_channels(student, teacher)
    a, b = (F.normalize(x.flatten(1), dim=1) for x in _at_smaller_size(student, teacher))
    return F.mse_loss(a, b)


def map_kd_loss(student: Tensor, teacher: Tensor, tau: float = 1.0) -> Tensor:
    r"""Distillation loss from one feature map to another of as many channels.

    :func:`kd_loss` of the maps flattened over C * H * W, each taken for one vector of logits, as in
    DCCL. Maps of different sizes are compared at the smaller one, by average pooling.

    Args:
        student: Map that learns, (B, C, H, W).
        teacher: Map that teaches, (B, C, H', W').
        tau: Temperature, above 0.

    Raises:
        ValueError: The maps have different channels, or the temperature is not positive.

    Example:
        >>> x = torch.rand(2, 8, 4, 4)
        >>> map_kd_loss(x, x + 1.0, tau=3.0).item() < 1e-4
        True
    """
    _check_channels(student, teacher)
    student, teacher = _at_smaller_size(student, teacher)
    return kd_loss(student.flatten(1), teacher.flatten(1), tau)


def _at_smaller_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    size = smallest_size([a, b])
    return resize(a, size), resize(b, size)


def _check_channels(student: Tensor, teacher: Tensor) -> None:
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f'the map that learns has {student.shape[1]} channels, the one that teaches '
            f'{teacher.shape[1]}: whole maps can be compared only where both have as many'
        )


def shifted_attention(feature: Tensor) -> Tensor:
    r"""FFSD's diversity target: a spatial attention map with its high values inverted.

    .. math:: y' = \big(\tfrac n2 - y\big) \, \mathrm{sign}(y - \theta) + \tfrac n2

    y is :func:`attention_map`, n the norm it was divided by, :math:`\theta` the largest value in
    the lowest third of y. Values above :math:`\theta` become n - y, values below it stay, and
    :math:`\theta` itself becomes n/2 (https://arxiv.org/abs/2103.14473).

    Args:
        feature: (B, C, H, W).

    Returns:
        (B, H * W).

    Example:
        >>> shifted_attention(torch.tensor([0.0, 0.0, 3.0, 4.0]).sqrt().view(1, 1, 2, 2))
        tensor([[2.5000, 2.5000, 4.4000, 4.2000]])
    """
    y = attention_map(feature)
    half = _attention_norm(feature) / 2
    third = max(1, y.shape[1] // 3)
    theta = y.topk(third, dim=1, largest=False).values[:, -1:]
    return (half - y) * torch.sign(y - theta) + half


def diversity_loss(student: Tensor, peer: Tensor) -> Tensor:
    r"""A map learns to attend to what a peer's does not, :func:`shifted_attention`.

    .. math:: \frac{1}{BHW} \sum \big(A(F^s) - y'(F^p)\big)^2

    Maps of different sizes are compared at the smaller one, by average pooling.

    Args:
        student: Map that learns, (B, C, H, W).
        peer: Map to differ from, (B, C', H', W').

    Example:
        >>> x = torch.rand(2, 8, 4, 4)
        >>> diversity_loss(x, x).item() > attention_map_loss(x, x).item()
        True
    """
    student, peer = _at_smaller_size(student, peer)
    return F.mse_loss(attention_map(student), shifted_attention(peer))


def shifted_map(feature: Tensor) -> Tensor:
    r"""A map whose attention is moved towards :func:`shifted_attention`.

    .. math:: F + \frac nC (y' - y), \quad n = \|\tfrac1C \textstyle\sum_c F_c^2\|

    the same for every channel, as in FFSD (https://arxiv.org/abs/2103.14473).

    Args:
        feature: (B, C, H, W).

    Returns:
        (B, C, H, W).

    Example:
        >>> x = torch.tensor([0.0, 0.0, 3.0, 4.0]).sqrt().view(1, 1, 2, 2)
        >>> shifted_map(x).flatten()
        tensor([12.5000, 12.5000, 20.7320, 19.0000])
    """
    shift = shifted_attention(feature) - attention_map(feature)
    shift = shift * _attention_norm(feature) / feature.shape[1]
    return feature + shift.view(-1, 1, *feature.shape[2:])


def _attention_norm(feature: Tensor) -> Tensor:
    return feature.pow(2).mean(dim=1).flatten(1).norm(dim=1, keepdim=True)


def smallest_size(maps: Sequence[Tensor]) -> tuple[int, int]:
    """Height and width that every one of the (B, C, H, W) maps can be average-pooled to.

    Example:
        >>> smallest_size([torch.zeros(1, 8, 4, 4), torch.zeros(1, 16, 2, 3)])
        (2, 3)
    """
    return min(int(x.shape[-2]) for x in maps), min(int(x.shape[-1]) for x in maps)


def resize(feature: Tensor, size: tuple[int, int]) -> Tensor:
    """Average-pool a (B, C, H, W) map to ``size``; the map itself where nothing is to be done.

    Example:
        >>> resize(torch.arange(4.0).view(1, 1, 2, 2), (1, 1))
        tensor([[[[1.5000]]]])
    """
    return feature if feature.shape[-2:] == size else F.adaptive_avg_pool2d(feature, size)
