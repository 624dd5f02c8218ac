"""Feature fusion: the students' maps become one."""

from collections.abc import Sequence

import torch
from mmcv.cnn import DepthwiseSeparableConvModule
from mmrazor.models.architectures.connectors.base_connector import BaseConnector
from mmrazor.registry import MODELS
from torch import Tensor

from ...cfg_type import Cfg


@MODELS.register_module()
class FeatureFusionConnector(BaseConnector):
    r"""N maps in, one out, as in FFL (https://arxiv.org/abs/1904.09058) and FFSD.

    .. math:: \mathrm{out} = \phi(\mathrm{pw}_{1\times1}(\phi(\mathrm{dw}_{3\times3}(
        [x_1, \dots, x_m])))), \quad \phi = \mathrm{ReLU} \circ \mathrm{BN}

    Args:
        in_channels: Channels of each input map.
        out_channels: Channels of the fused map.
        init_cfg: Initialization config.

    Raises:
        ValueError: There are fewer than two input maps; or, in ``forward``, another number of maps
            or maps of different sizes come in.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import FeatureFusionConnector
        >>> maps = [torch.rand(2, 64, 8, 8), torch.rand(2, 64, 8, 8)]
        >>> FeatureFusionConnector(in_channels=[64, 64], out_channels=64)(maps).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self, in_channels: Sequence[int], out_channels: int, init_cfg: Cfg | None = None
    ) -> None:
        super().__init__(init_cfg)
        if isinstance(in_channels, int) or len(in_channels) < 2:
            raise ValueError(
                f'in_channels={in_channels!r}, expected the channels of each of at least two maps, '
                'such as [64, 64]'
            )
        self.in_channels = tuple(in_channels)
        self.fuse = DepthwiseSeparableConvModule(
            sum(in_channels), out_channels, 3, padding=1, norm_cfg=dict(type='BN'), inplace=False
        )

    def forward_train(self, feature: Sequence[Tensor]) -> Tensor:
        """Maps of (B, C_i, H, W) to one of (B, out_channels, H, W)."""
        shapes = [tuple(map(int, x.shape)) for x in feature]  # tensors, while it is traced
        if tuple(s[1] for s in shapes) != self.in_channels or len({s[2:] for s in shapes}) > 1:
            raise ValueError(
                f'got maps of {shapes}, expected {len(self.in_channels)} maps of one height and '
                f'width with {list(self.in_channels)} channels'
            )
        return self.fuse(torch.cat(list(feature), dim=1))
