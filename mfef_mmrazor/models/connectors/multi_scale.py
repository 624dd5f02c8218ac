"""Multi-scale feature extraction: divide and concatenate in the channel dimension."""

import torch
from mmengine.model import ModuleList
from mmrazor.models.architectures.connectors.base_connector import BaseConnector
from mmrazor.registry import MODELS
from torch import Tensor

from ...cfg_type import Cfg
from .conv import conv_block


@MODELS.register_module()
class MultiScaleConnector(BaseConnector):
    r"""Hierarchical split of a feature map (https://arxiv.org/abs/2010.07621).

    The C channels are divided into ``scales`` groups :math:`x_1 \dots x_s` of equal width.
    The first goes straight to the output. Every later group, with what the group before passed on
    concatenated to it, goes through a 3x3 convolution, batch norm and ReLU; the first half of the
    result is kept, the second half is passed on to the next group. The kept parts together have
    C channels again, and group i sees up to (2i - 1) x (2i - 1) pixels.

    .. math::
        y_i = f_i([x_i, p_{i-1}]), \quad k_i, p_i = \mathrm{halve}(y_i), \quad
        \mathrm{out} = [x_1, k_2, \dots, k_{s-1}, y_s]

    Args:
        in_channels: C, divisible by ``scales``.
        scales: s, the number of groups, at least 2.
        residual: Add the input to the output.
        init_cfg: Initialization config.

    Raises:
        ValueError: ``scales`` is below 2 or does not divide ``in_channels``; or, in ``forward``,
            the map has other channels.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import MultiScaleConnector
        >>> MultiScaleConnector(64, scales=4)(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        scales: int = 4,
        residual: bool = False,
        init_cfg: Cfg | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not isinstance(scales, int) or scales < 2:
            raise ValueError(f'scales={scales!r}, expected a whole number of groups, at least 2')
        if in_channels % scales:
            fits = [s for s in range(2, min(in_channels, 16) + 1) if in_channels % s == 0]
            raise ValueError(
                f'in_channels={in_channels} cannot be divided into scales={scales} equal groups; '
                f'scales that fit: {fits}'
            )
        self.in_channels = in_channels
        self.residual = residual
        self.width = in_channels // scales
        self.convs = ModuleList()
        self.splits: list[list[int]] = []  # of each group: channels kept, and passed on if any
        passed = 0
        for group in range(1, scales):
            channels = self.width + passed
            passed = channels // 2 if group < scales - 1 else 0
            self.splits.append([channels - passed, passed] if passed else [channels])
            self.convs.append(conv_block(channels, channels, 3, padding=1))

    def forward_train(self, feature: Tensor) -> Tensor:
        """Map (B, C, H, W) to a map of the same shape."""
        if feature.shape[1] != self.in_channels:
            raise ValueError(
                f'got a map of {tuple(feature.shape)}, expected {self.in_channels} channels'
            )
        first, *groups = feature.split(self.width, dim=1)
        kept = [first]
        passed: list[Tensor] = []  # one, once a group has been convolved
        for group, conv, split in zip(groups, self.convs, self.splits, strict=True):
            found = conv(torch.cat([group, *passed], dim=1) if passed else group)
            # the last one too, though whole: a split makes the gradient contiguous, which is fast
            keep, *passed = found.split(split, dim=1)
            kept.append(keep)
        out = torch.cat(kept, dim=1)
        return out + feature if self.residual else out
