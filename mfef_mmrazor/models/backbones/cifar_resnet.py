"""ResNet for 32x32 images: three stages, a quarter of the ImageNet network's width."""

from fractions import Fraction
from functools import partial
from typing import Any

import torch.nn.functional as F
from mmpretrain.models.backbones.resnet import BasicBlock, Bottleneck
from mmpretrain.models.backbones.resnet_cifar import ResNet_CIFAR
from mmpretrain.registry import MODELS
from torch import Tensor, nn


class ZeroPadShortcut(nn.Module):
    """Shortcut without parameters: pixels are skipped, missing channels filled with zeros."""

    def __init__(self, extra_channels: int, stride: int = 2) -> None:
        super().__init__()
        self.extra_channels = extra_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C + extra_channels, H / stride, W / stride)."""
        before = self.extra_channels // 2
        padding = (0, 0, 0, 0, before, self.extra_channels - before)
        return F.pad(x[:, :, :: self.stride, :: self.stride], padding)


class WideBottleneck(Bottleneck):
    """Bottleneck whose 3x3 convolution has ``widen_factor`` times the channels, its output not."""

    def __init__(
        self, *args: Any, expansion: int = 4, widen_factor: int = 1, **kwargs: Any
    ) -> None:
        # mmpretrain's expansion is the ratio of output to inner channels, and need not be whole
        super().__init__(*args, expansion=Fraction(expansion, widen_factor), **kwargs)


@MODELS.register_module()
class CifarResNet(ResNet_CIFAR):
    """ResNet-20, 32, 56, 110 ... as defined for CIFAR (https://arxiv.org/abs/1512.03385, 4.2).

    A 3x3 stem of 16 channels, then three stages of n blocks with 16, 32 and 64 channels: depth is
    6n + 2 with basic blocks. (mmpretrain's ``ResNet_CIFAR`` is the ImageNet network, four stages of
    64 to 512 channels, with a small stem.) (B, 3, 32, 32) becomes (B, 64, 8, 8), or, with
    bottlenecks, depth 9n + 2, (B, 256, 8, 8).

    Networks of one name that are not the same: ``depth=110`` is ResNet-110 of the ResNet paper and
    of FFL; ``depth=110, block='bottleneck'`` that of OKDDip, PCL and MCL;
    ``depth=164, block='bottleneck'`` that of ONE's code. OKDDip's and PCL's "WRN-20-8" is
    ``depth=20, block='bottleneck', widen_factor=8``. ResNet-8x4 and 32x4 have
    ``stem_channels=32, base_channels=64``.

    Args:
        depth: 6n + 2 (8, 14, 20, 32, 44, 56, 110 ...) or, with bottlenecks, 9n + 2 (20, 110, 164).
        shortcut: Where the shape changes: ``'projection'``, a 1x1 convolution and batch norm, or
            ``'zero_pad'``, no parameters.
        block: ``'basic'``, two 3x3 convolutions, or ``'bottleneck'``, 1x1, 3x3, 1x1 with four times
            the channels at its output.
        widen_factor: Multiplies the channels inside the bottlenecks.
        **kwargs: As in :class:`mmpretrain.models.ResNet_CIFAR`.

    Raises:
        ValueError: ``block`` or ``shortcut`` is unknown, no such network has this ``depth``, or
            ``widen_factor`` is not positive or is given for basic blocks.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import CifarResNet
        >>> [tuple(x.shape) for x in CifarResNet(depth=20)(torch.rand(2, 3, 32, 32))]
        [(2, 64, 8, 8)]
    """

    def __init__(
        self,
        depth: int,
        shortcut: str = 'projection',
        block: str = 'basic',
        widen_factor: int = 1,
        **kwargs: Any,
    ) -> None:
        if block not in ('basic', 'bottleneck'):
            raise ValueError(f"block={block!r}, expected 'basic' or 'bottleneck'")
        layers = 6 if block == 'basic' else 9  # that one more block in every stage adds
        if depth < layers + 2 or (depth - 2) % layers:
            known = '8, 14, 20, 32, 44, 56, 110' if block == 'basic' else '20, 110, 164'
            raise ValueError(
                f'depth={depth}, expected {layers}n + 2 for {block} blocks: {known} ...'
            )
        if shortcut not in ('projection', 'zero_pad'):
            raise ValueError(f"shortcut={shortcut!r}, expected 'projection' or 'zero_pad'")
        if widen_factor < 1 or (widen_factor > 1 and block == 'basic'):
            raise ValueError(
                f'widen_factor={widen_factor} with {block} blocks: it is a positive integer for '
                'bottlenecks; basic blocks are widened by base_channels'
            )
        kind, expansion = BasicBlock, 1
        if block == 'bottleneck':
            kind, expansion = partial(WideBottleneck, widen_factor=widen_factor), 4
        self.arch_settings = {depth: (kind, ((depth - 2) // layers,) * 3)}
        cifar = dict(
            stem_channels=16,
            base_channels=16,
            expansion=expansion,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(2,),
            zero_init_residual=False,
        )
        super().__init__(depth, **{**cifar, **kwargs})
        if shortcut == 'zero_pad':
            for module in self.modules():
                if isinstance(module, (BasicBlock, Bottleneck)) and module.downsample is not None:
                    extra = module.out_channels - module.in_channels
                    module.downsample = ZeroPadShortcut(extra, module.stride)
