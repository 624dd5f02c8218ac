"""MobileNetV2 for 32x32 images."""

from typing import Any

from mmcv.cnn import ConvModule
from mmpretrain.models.backbones.mobilenet_v2 import MobileNetV2
from mmpretrain.registry import MODELS
from torch import nn


@MODELS.register_module()
class CifarMobileNetV2(MobileNetV2):
    """MobileNetV2 (https://arxiv.org/abs/1801.04381) with fewer strides.

    mmpretrain's network, in which the stem and the second stage keep the size of the map:
    (B, 3, 32, 32) becomes (B, 1280, 4, 4).

    Args:
        widen_factor: Multiplies the channels; the last map keeps 1280 below 1.
        variant: ``'standard'``, or ``'repdistiller'``: the stem has stride 2, which gives
            (B, 1280, 2, 2); channels are not rounded to multiples of 8; the first block has a 1x1
            convolution at its start as the others have; and ReLU stands for ReLU6.
        **kwargs: As in :class:`mmpretrain.models.MobileNetV2`.

    Raises:
        ValueError: ``variant`` is unknown, or RepDistiller's has a ``widen_factor`` that is no
            multiple of 1/4.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import CifarMobileNetV2
        >>> [tuple(x.shape) for x in CifarMobileNetV2()(torch.rand(2, 3, 32, 32))]
        [(2, 1280, 4, 4)]
    """

    # expansion, channels, blocks, stride
    arch_settings = [[t, c, n, 1 if c == 24 else s] for t, c, n, s in MobileNetV2.arch_settings]

    def __init__(self, widen_factor: float = 1.0, variant: str = 'standard', **kwargs: Any) -> None:
        if variant not in ('standard', 'repdistiller'):
            raise ValueError(f"variant={variant!r}, expected 'standard' or 'repdistiller'")
        self.variant = variant
        if variant == 'standard':
            super().__init__(widen_factor, **kwargs)
            self.conv1.conv.stride = (1, 1)
            return
        if widen_factor <= 0 or widen_factor * 4 % 1:
            raise ValueError(
                f'widen_factor={widen_factor}, but variant={variant!r} needs a multiple of 1/4'
            )
        super().__init__(widen_factor, **{'act_cfg': dict(type='ReLU'), **kwargs})
        channels = self.conv1.out_channels
        self.layer1[0].conv.insert(
            0,
            ConvModule(
                channels,
                channels,
                1,
                conv_cfg=self.conv_cfg,
                norm_cfg=self.norm_cfg,
                act_cfg=self.act_cfg,
            ),
        )

    def make_layer(
        self, out_channels: int, num_blocks: int, stride: int, expand_ratio: int
    ) -> nn.Sequential:
        """A stage; mmpretrain has rounded ``out_channels``."""
        if self.variant == 'repdistiller':
            out_channels = int(self.arch_settings[len(self.layers)][1] * self.widen_factor)
        return super().make_layer(out_channels, num_blocks, stride, expand_ratio)
