"""DenseNet for 32x32 images: three blocks, with or without bottlenecks."""

from typing import Any

import torch
from mmpretrain.models.backbones.densenet import DenseNet
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ...cfg_type import Cfg


class PlainDenseLayer(nn.Sequential):
    """Layers that are fed all maps of the block so far: mmpretrain's only has a bottleneck."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map any number of (B, C_i, H, W) to the block's next map."""
        return super().forward(torch.cat(maps, dim=1))  # type: ignore[no-untyped-call]


@MODELS.register_module()
class CifarDenseNet(DenseNet):
    """DenseNet and DenseNet-BC as defined for CIFAR (https://arxiv.org/abs/1608.06993).

    A 3x3 stem of twice the growth rate, then three dense blocks. A network called "DenseNet-40-12"
    is one of two: DenseNet-BC (OKDDip, PCL, MCL-OKD), (B, 3, 32, 32) to (B, 132, 8, 8), or the
    plain one (FFSD), to (B, 456, 8, 8). The last map is that after batch norm and ReLU, those
    before it are the ones after a transition.

    Args:
        depth: 6n + 4 for DenseNet-BC, 3n + 4 for the plain one; n layers a block.
        growth_rate: Channels that each layer adds.
        bottleneck: DenseNet-BC: a 1x1 convolution to 4 times the growth rate before each 3x3, and
            half the channels after each transition. Otherwise there is neither.
        drop_rate: Dropout after each layer.
        init_cfg: Initialization config.
        **kwargs: As in :class:`mmpretrain.models.DenseNet`.

    Raises:
        ValueError: No such network has this ``depth``.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import CifarDenseNet
        >>> [tuple(x.shape) for x in CifarDenseNet(depth=40)(torch.rand(2, 3, 32, 32))]
        [(2, 132, 8, 8)]
    """

    def __init__(
        self,
        depth: int,
        growth_rate: int = 12,
        bottleneck: bool = True,
        drop_rate: float = 0.0,
        init_cfg: Cfg | list[Cfg] | None = [
            dict(type='Kaiming', layer='Conv2d'),
            dict(type='Constant', val=1, layer='_BatchNorm'),
        ],
        **kwargs: Any,
    ) -> None:
        layers = 6 if bottleneck else 3  # that one more layer in every block adds to the depth
        if depth < layers + 4 or (depth - 4) % layers:
            raise ValueError(f'depth={depth}, expected {layers}n + 4 with bottleneck={bottleneck}')
        blocks = [(depth - 4) // layers] * 3
        channels = 2 * growth_rate
        super().__init__(
            dict(growth_rate=growth_rate, depths=blocks, init_channels=channels),
            drop_rate=drop_rate,
            compression_factor=0.5 if bottleneck else 1.0,
            init_cfg=init_cfg,
            **kwargs,
        )
        # every layer begins with batch norm and ReLU, so the stem is the convolution alone
        self.stem = nn.Conv2d(kwargs.get('in_channels', 3), channels, 3, padding=1, bias=False)
        if not bottleneck:
            for stage in self.stages:
                stage.block = nn.ModuleList(
                    PlainDenseLayer(
                        layer.norm1,
                        layer.act,
                        nn.Conv2d(layer.conv1.in_channels, growth_rate, 3, padding=1, bias=False),
                        nn.Dropout(drop_rate),
                    )
                    for layer in stage.block
                )
            self._freeze_stages()
