"""VGG for 32x32 images."""

from typing import Any

from mmpretrain.models.backbones.vgg import VGG
from mmpretrain.registry import MODELS
from torch import nn

from ...cfg_type import Cfg


@MODELS.register_module()
class CifarVGG(VGG):
    """VGG-8, 11, 13, 16 or 19 with batch norm, up to its last pooling.

    See https://arxiv.org/abs/1409.1556. The network is mmpretrain's without the fully connected
    layers for 7x7 maps. Distillation wants a map with some room in it, so the backbone ends before
    the fifth max-pooling: (B, 3, 32, 32) becomes (B, 512, 2, 2), and the neck
    :class:`GlobalMaxPooling` does the fifth on the way to the classifier. Together they are the
    standard network. Maps of earlier stages are given after their pooling, as mmpretrain does.

    Args:
        depth: 8 (RepDistiller's), 11, 13, 16 or 19.
        variant: ``'standard'``, or ``'repdistiller'``, which on 32x32 images leaves out the fourth
            pooling and averages at the end: (B, 512, 4, 4), with the neck ``GlobalAveragePooling``.
        norm_cfg: Config of the norm layers.
        **kwargs: As in :class:`mmpretrain.models.VGG`.

    Raises:
        ValueError: No such network has this ``depth``, or ``variant`` is unknown.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import CifarVGG, GlobalMaxPooling
        >>> maps = CifarVGG(depth=8)(torch.rand(2, 3, 32, 32))
        >>> [tuple(x.shape) for x in maps], [tuple(x.shape) for x in GlobalMaxPooling()(maps)]
        ([(2, 512, 2, 2)], [(2, 512)])
    """

    arch_settings = {8: (1, 1, 1, 1, 1), **VGG.arch_settings}

    def __init__(
        self, depth: int, variant: str = 'standard', norm_cfg: Cfg = dict(type='BN'), **kwargs: Any
    ) -> None:
        if depth not in self.arch_settings:
            raise ValueError(f'depth={depth}, expected one of {sorted(self.arch_settings)}')
        if variant not in ('standard', 'repdistiller'):
            raise ValueError(f"variant={variant!r}, expected 'standard' or 'repdistiller'")
        super().__init__(depth, norm_cfg=norm_cfg, with_last_pool=False, **kwargs)
        if variant == 'repdistiller':
            _, end = self.range_sub_modules[3]
            self.features[end - 1] = nn.Identity()
