"""ResNet for 32x32 images: three stages of 16, 32 and 64 channels."""

import torch.nn.functional as F
from mmpretrain.models.backbones.resnet import BasicBlock
from mmpretrain.models.backbones.resnet_cifar import ResNet_CIFAR
from mmpretrain.registry import MODELS
from torch import Tensor, nn


class ZeroPadShortcut(nn.Module):
    """Shortcut without parameters: every second pixel, missing channels filled with zeros."""

    def __init__(self, extra_channels: int) -> None:
        super().__init__()
        self.extra_channels = extra_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C + extra_channels, H / 2, W / 2)."""
        before = self.extra_channels // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, self.extra_channels - before))


@MODELS.register_module()
class CifarResNet(ResNet_CIFAR):
    """ResNet-20, 32, 56, 110 ... as defined for CIFAR (https://arxiv.org/abs/1512.03385, 4.2).

    A 3x3 stem of 16 channels, then three stages of n basic blocks with 16, 32 and 64 channels,
    depth = 6n + 2. (mmpretrain's ``ResNet_CIFAR`` is the ImageNet network, four stages of 64 to
    512 channels, with a small stem.)

    Args:
        depth: 6n + 2: 8, 14, 20, 32, 44, 56, 110 ...
        shortcut: Where the shape changes: ``'projection'``, a 1x1 convolution and batch norm, or
            ``'zero_pad'``, no parameters.
        **kwargs: As in :class:`mmpretrain.models.ResNet_CIFAR`.

    Raises:
        ValueError: ``depth`` is not 6n + 2, or ``shortcut`` is unknown.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import CifarResNet
        >>> [tuple(x.shape) for x in CifarResNet(depth=20)(torch.rand(2, 3, 32, 32))]
        [(2, 64, 8, 8)]
    """

    def __init__(self, depth: int, shortcut: str = 'projection', **kwargs) -> None:
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f'depth={depth}, expected 6n + 2: 8, 14, 20, 32, 44, 56, 110 ...')
        if shortcut not in ('projection', 'zero_pad'):
            raise ValueError(f"shortcut={shortcut!r}, expected 'projection' or 'zero_pad'")
        self.arch_settings = {depth: (BasicBlock, ((depth - 2) // 6,) * 3)}
        cifar = dict(
            stem_channels=16,
            base_channels=16,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(2,),
            zero_init_residual=False,
        )
        super().__init__(depth, **{**cifar, **kwargs})
        if shortcut == 'zero_pad':
            for layer in self.res_layers[1:]:
                block = getattr(self, layer)[0]
                block.downsample = ZeroPadShortcut(block.out_channels - block.in_channels)
