"""MFEF's parts in a student's own path: necks that are deployed with it."""

from mmpretrain.registry import MODELS
from torch import Tensor

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
