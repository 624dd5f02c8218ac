"""Dual attention: strengthens the important channels and the important regions of a map."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule, ModuleList
from mmrazor.models.architectures.connectors.base_connector import BaseConnector
from mmrazor.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from ...cfg_type import Cfg
from ..precision import full_precision
from .conv import conv_block


class ChannelGate(BaseModule):
    r"""One weight in (0, 1) a channel: :math:`\sigma(\mathrm{MLP}(avg(x)) + \mathrm{MLP}(max(x)))`.

    The two-layer MLP is shared by both poolings.

    Args:
        in_channels: C, the channels of the map.
        reduction: The hidden layer has C // reduction units.
    """

    def __init__(self, in_channels: int, reduction: int) -> None:
        super().__init__()
        hidden = in_channels // reduction
        self.mlp = nn.Sequential(
            nn.Linear(in_channels, hidden), nn.ReLU(), nn.Linear(hidden, in_channels)
        )

    @property
    def last(self) -> nn.Module:
        """The layer whose output goes into the sigmoid."""
        return self.mlp[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Gate (B, C, 1, 1) of the map (B, C, H, W)."""
        strongest = F.adaptive_max_pool2d(x, 1).flatten(1)  # its gradient is cheaper than amax's
        gate = self.mlp(x.mean(dim=(2, 3))) + self.mlp(strongest)
        return gate.sigmoid()[:, :, None, None]


class SpatialGate(BaseModule):
    r"""One weight in (0, 1) a pixel: :math:`\sigma(\mathrm{BN}(\mathrm{conv}([\max, mean])))`.

    Args:
        kernel_size: Of the convolution; odd.
    """

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.conv = conv_block(
            2, 1, kernel_size, padding=kernel_size // 2,
            norm_cfg=dict(type='BN', momentum=0.01), act_cfg=None,
        )  # fmt: skip

    @property
    def last(self) -> nn.Module:
        """The layer whose output goes into the sigmoid."""
        return self.conv.bn

    def forward(self, x: Tensor) -> Tensor:
        """Gate (B, 1, H, W) of the map (B, C, H, W)."""
        strongest = x.max(dim=1, keepdim=True).values
        pooled = torch.cat([strongest, x.mean(dim=1, keepdim=True)], dim=1)
        return self.conv(pooled).sigmoid()


@MODELS.register_module()
class DualAttentionConnector(BaseConnector):
    r"""Channel gate, then spatial gate, both multiplied onto the map (CBAM,
    https://arxiv.org/abs/1807.06521).

    .. math:: x' = x \cdot g_c(x), \qquad \mathrm{out} = x' \cdot g_s(x')

    Args:
        in_channels: C.
        reduction: The channel gate's bottleneck has ``C // reduction`` units.
        kernel_size: Of the spatial gate's convolution, odd.
        order: Which gates, in which order: any of ``'channel'`` and ``'spatial'``.
        identity_start: Gates between 0 and 2 that are all 1 before the first step, since their last
            layers start at zero, so that training starts from the map as it is. (CBAM's gates start
            near a half.)
        init_cfg: Initialization config.

    Raises:
        ValueError: ``reduction`` is above ``in_channels`` or below 1, ``kernel_size`` is not odd,
            or ``order`` is empty or names another gate.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import DualAttentionConnector
        >>> x = torch.rand(2, 64, 8, 8)
        >>> bool((DualAttentionConnector(64)(x).abs() <= x.abs()).all())
        True
    """

    def __init__(
        self,
        in_channels: int,
        reduction: int = 16,
        kernel_size: int = 7,
        order: Sequence[str] = ('channel', 'spatial'),
        identity_start: bool = False,
        init_cfg: Cfg | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not 1 <= reduction <= in_channels:
            raise ValueError(
                f'reduction={reduction} leaves no unit of in_channels={in_channels}: '
                f'expected 1 to {in_channels}'
            )
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'kernel_size={kernel_size}, expected 1, 3, 5 ... (an odd number)')
        unknown = set(order) - {'channel', 'spatial'}
        if isinstance(order, str) or unknown or not order:
            raise ValueError(
                f"order={order!r}, expected a sequence of 'channel' and 'spatial'; "
                'to drop the attention altogether set it to None in the distiller'
            )
        self.gates = ModuleList(
            ChannelGate(in_channels, reduction) if gate == 'channel' else SpatialGate(kernel_size)
            for gate in order
        )
        self.scale = 2.0 if identity_start else 1.0
        if identity_start:
            for gate in self.gates:
                for parameter in gate.last.parameters():
                    nn.init.zeros_(parameter)

    def forward_train(self, feature: Tensor) -> Tensor:
        """Map (B, C, H, W) to a map of the same shape."""
        for gate in self.gates:
            feature = feature * (self.scale * gate(feature))
        return feature


@MODELS.register_module()
class DANetConnector(BaseConnector):
    r"""Position and channel self-attention, summed (DANet, https://arxiv.org/abs/1809.02983).

    The other meaning of "dual attention". For 1x1 convolutions :math:`q, k, v` of x, flattened to
    one row per channel, :math:`a_p = v\,\mathrm{softmax}(q^\top k)^\top`; for x as C rows,
    :math:`a_c = \mathrm{softmax}(\max(e) - e)\,x`, :math:`e = x x^\top`. Both start switched off:

    .. math:: \mathrm{out} = (x + \gamma_p a_p + x + \gamma_c a_c) / 2, \quad \gamma = 0
        \text{ at the start}

    so that the connector is the identity before the first step.

    Args:
        in_channels: C.
        reduction: Queries and keys have ``C // reduction`` channels.
        init_cfg: Initialization config.

    Raises:
        ValueError: ``reduction`` is above ``in_channels`` or below 1.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import DANetConnector
        >>> x = torch.rand(2, 64, 8, 8)
        >>> torch.equal(DANetConnector(64)(x), x)
        True
    """

    def __init__(self, in_channels: int, reduction: int = 8, init_cfg: Cfg | None = None) -> None:
        super().__init__(init_cfg)
        if not 1 <= reduction <= in_channels:
            raise ValueError(
                f'reduction={reduction} leaves no channel of in_channels={in_channels}: '
                f'expected 1 to {in_channels}'
            )
        self.query = nn.Conv2d(in_channels, in_channels // reduction, 1)
        self.key = nn.Conv2d(in_channels, in_channels // reduction, 1)
        self.value = nn.Conv2d(in_channels, in_channels, 1)
        self.position_scale = nn.Parameter(torch.zeros(1))
        self.channel_scale = nn.Parameter(torch.zeros(1))

    def forward_train(self, feature: Tensor) -> Tensor:
        """Map (B, C, H, W) to a map of the same shape."""
        rows = feature.flatten(2)
        query, key, value = (f(feature).flatten(2) for f in (self.query, self.key, self.value))
        position = value @ (query.transpose(1, 2) @ key).softmax(dim=-1).transpose(1, 2)
        with torch.autocast(feature.device.type, enabled=False):  # a sum of squares: fp16 overflows
            wide = full_precision(rows)
            energy = wide @ wide.transpose(1, 2)
            gates = (energy.amax(dim=-1, keepdim=True) - energy).softmax(dim=-1)
        channel = gates.to(rows.dtype) @ rows
        attended = self.position_scale * position + self.channel_scale * channel
        return feature + attended.view_as(feature) / 2
