"""Wide ResNet for 32x32 images, with pre-activation blocks."""

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule, Sequential
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ...cfg_type import Cfg


class PreActivationBlock(BaseModule):
    """Pre-activation block: twice (batch norm, ReLU, 3x3 convolution), plus a shortcut.

    Where the shape changes, the shortcut is a 1x1 convolution of the activated input, or of the raw
    input in FFSD's version.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, ffsd: bool) -> None:
        super().__init__()
        first, second = (1, stride) if ffsd else (stride, 1)
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, first, padding=1, bias=ffsd)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, second, padding=1, bias=ffsd)
        self.shortcut: nn.Module = nn.Identity()
        changes = stride > 1 or in_channels != out_channels
        if changes:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=ffsd)
        self.activated_shortcut = changes and not ffsd

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        activated = F.relu(self.norm1(x))
        out = self.conv2(F.relu(self.norm2(self.conv1(activated))))
        return out + self.shortcut(activated if self.activated_shortcut else x)


@MODELS.register_module()
class WideResNet(BaseBackbone):
    """Wide ResNet, WRN-depth-widen_factor (https://arxiv.org/abs/1605.07146).

    A 3x3 stem of 16 channels, then three stages of n pre-activation blocks with 16k, 32k and 64k
    channels, batch norm and ReLU. (B, 3, 32, 32) becomes (B, 64k, 8, 8). The maps of the first two
    stages come before any activation, as their blocks give them.

    Args:
        depth: 6n + 4: 10, 16, 22, 28, 40 ...
        widen_factor: k.
        variant: ``'standard'`` (RepDistiller, MCL), or ``'ffsd'``: the second convolution of a
            block has the stride, convolutions have a bias, shortcuts take the raw input and the
            last batch norm's momentum is 0.9, as in FFSD's code.
        out_indices: The stages whose maps are given, of 0, 1 and 2.
        init_cfg: Initialization config.

    Raises:
        ValueError: ``depth`` is not 6n + 4, ``widen_factor`` not positive, ``variant`` unknown, or
            ``out_indices`` names a stage that is not there.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import WideResNet
        >>> [tuple(x.shape) for x in WideResNet(16, widen_factor=2)(torch.rand(2, 3, 32, 32))]
        [(2, 128, 8, 8)]
    """

    def __init__(
        self,
        depth: int,
        widen_factor: int = 1,
        variant: str = 'standard',
        out_indices: Sequence[int] = (2,),
        init_cfg: Cfg | list[Cfg] | None = [
            dict(type='Kaiming', layer='Conv2d'),
            dict(type='Constant', val=1, layer='_BatchNorm'),
        ],
    ) -> None:
        super().__init__(init_cfg)
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f'depth={depth}, expected 6n + 4: 10, 16, 22, 28, 40 ...')
        if widen_factor < 1:
            raise ValueError(f'widen_factor={widen_factor}, expected a positive integer')
        if variant not in ('standard', 'ffsd'):
            raise ValueError(f"variant={variant!r}, expected 'standard' or 'ffsd'")
        if not set(out_indices) <= {0, 1, 2}:
            raise ValueError(f'out_indices={tuple(out_indices)}, but the stages are 0, 1 and 2')
        self.out_indices = tuple(out_indices)
        ffsd = variant == 'ffsd'
        channels = 16
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=ffsd)
        self.stages = nn.ModuleList()
        for width, stride in ((16, 1), (32, 2), (64, 2)):
            blocks = []
            for block in range((depth - 4) // 6):
                out_channels = width * widen_factor
                step = stride if block == 0 else 1
                blocks.append(PreActivationBlock(channels, out_channels, step, ffsd))
                channels = out_channels
            self.stages.append(Sequential(*blocks))
        self.norm = nn.BatchNorm2d(channels, momentum=0.9 if ffsd else 0.1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H, W) to the maps of ``out_indices``."""
        x = self.conv1(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        maps[-1] = F.relu(self.norm(x))
        return tuple(maps[index] for index in self.out_indices)
