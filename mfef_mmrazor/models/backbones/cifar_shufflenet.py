"""ShuffleNetV1 and V2 for 32x32 images."""

from typing import Any

from mmpretrain.models.backbones.shufflenet_v1 import ShuffleNetV1
from mmpretrain.models.backbones.shufflenet_v2 import ShuffleNetV2
from mmpretrain.registry import MODELS
from torch import nn


def keep_size(network: ShuffleNetV1 | ShuffleNetV2) -> None:
    """Let the stem of a ShuffleNet keep the size of the map: no stride, no pooling."""
    network.conv1.conv.stride = (1, 1)
    network.maxpool = nn.Identity()


@MODELS.register_module()
class CifarShuffleNetV1(ShuffleNetV1):
    """ShuffleNet (https://arxiv.org/abs/1707.01083) whose stem keeps the size of the map.

    (B, 3, 32, 32) becomes (B, 960, 4, 4) with 3 groups. RepDistiller's version differs: a 1x1 stem,
    and thinner units where the map is reduced.

    Args:
        groups: Groups of the 1x1 convolutions: 1, 2, 3, 4 or 8.
        **kwargs: As in :class:`mmpretrain.models.ShuffleNetV1`.

    Raises:
        ValueError: ``groups`` is another number, or ``out_indices`` or ``frozen_stages`` names a
            stage that is not there.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import CifarShuffleNetV1
        >>> [tuple(x.shape) for x in CifarShuffleNetV1()(torch.rand(2, 3, 32, 32))]
        [(2, 960, 4, 4)]
    """

    def __init__(self, groups: int = 3, **kwargs: Any) -> None:
        super().__init__(groups, **kwargs)
        keep_size(self)


@MODELS.register_module()
class CifarShuffleNetV2(ShuffleNetV2):
    """ShuffleNetV2 (https://arxiv.org/abs/1807.11164) whose stem keeps the size of the map.

    (B, 3, 32, 32) becomes (B, 1024, 4, 4).

    Args:
        widen_factor: 0.5, 1.0, 1.5 or 2.0.
        **kwargs: As in :class:`mmpretrain.models.ShuffleNetV2`.

    Raises:
        ValueError: ``widen_factor`` is another number, or ``out_indices`` or ``frozen_stages``
            names a stage that is not there.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import CifarShuffleNetV2
        >>> [tuple(x.shape) for x in CifarShuffleNetV2(0.5)(torch.rand(2, 3, 32, 32))]
        [(2, 1024, 4, 4)]
    """

    def __init__(self, widen_factor: float = 1.0, **kwargs: Any) -> None:
        super().__init__(widen_factor, **kwargs)
        keep_size(self)
