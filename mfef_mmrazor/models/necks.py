"""Necks: MFEF's parts in a student's own path, where they are deployed with it, and a pooling."""

from mmpretrain.models.necks import GlobalAveragePooling
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from .connectors import DualAttentionConnector, MultiScaleConnector


class _LastMapNeck:
    """Mixed into a connector: it processes the last of a backbone's maps, others pass through."""

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Maps (B, C_i, H_i, W_i) to maps of the same shapes."""
        *earlier, last = maps
        return (*earlier, super().forward(last))  # type: ignore[misc]


@MODELS.register_module()
class MultiScaleNeck(_LastMapNeck, MultiScaleConnector):
    """Multi-scale feature extraction that stays in the student, between backbone and pooling.

    The arguments are those of :class:`MultiScaleConnector`. The student has more parameters then,
    so compare it with others that have this neck as well. MFEF can fuse what the neck gives, with
    ``multi_scale=None`` and a recorder on ``neck.0``: ``configs/mfef/mfef-kept_*.py``.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import MultiScaleNeck
        >>> [tuple(x.shape) for x in MultiScaleNeck(64)((torch.rand(2, 64, 8, 8),))]
        [(2, 64, 8, 8)]
    """


@MODELS.register_module()
class DualAttentionNeck(_LastMapNeck, DualAttentionConnector):
    """Dual attention that stays in the student, see :class:`MultiScaleNeck`.

    The arguments are those of :class:`DualAttentionConnector`.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import DualAttentionNeck
        >>> [tuple(x.shape) for x in DualAttentionNeck(64)((torch.rand(2, 64, 8, 8),))]
        [(2, 64, 8, 8)]
    """


@MODELS.register_module()
class GlobalMaxPooling(GlobalAveragePooling):
    """Neck: the maximum of every channel, (B, C, H, W) to (B, C).

    On a 2x2 map that is a 2x2 max-pooling and flattening: the end of a VGG on 32x32 images.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import GlobalMaxPooling
        >>> GlobalMaxPooling()(torch.arange(8.0).view(1, 2, 2, 2))
        tensor([[3., 7.]])
    """

    def __init__(self) -> None:
        super().__init__()
        self.gap = nn.AdaptiveMaxPool2d(1)
