"""Brings maps of different networks to one shape."""

from mmrazor.models.architectures.connectors.base_connector import BaseConnector
from mmrazor.registry import MODELS
from torch import Tensor

from ...cfg_type import Cfg
from .conv import conv_block


@MODELS.register_module()
class MapAdapter(BaseConnector):
    r"""A 1x1 convolution, batch norm and ReLU from one number of channels to another.

    Heights and widths are brought together where the maps meet, by average pooling to the smallest
    (:func:`mfef_mmrazor.functional.resize`), so only channels are this module's business.

    Args:
        in_channels: Channels of the map that comes in.
        out_channels: Channels of the map that goes out.
        init_cfg: Initialization config.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import MapAdapter
        >>> MapAdapter(512, 64)(torch.rand(2, 512, 4, 4)).shape
        torch.Size([2, 64, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, init_cfg: Cfg | None = None) -> None:
        super().__init__(init_cfg)
        self.conv = conv_block(in_channels, out_channels, 1)

    def forward_train(self, feature: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        return self.conv(feature)
