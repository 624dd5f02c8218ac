"""A classifier on the map of a hidden stage, for training only."""

import itertools

from mmpretrain.models.backbones.resnet import BasicBlock, ResLayer
from mmrazor.models.architectures.connectors.base_connector import BaseConnector
from mmrazor.registry import MODELS
from torch import Tensor, nn

from ...cfg_type import Cfg


@MODELS.register_module()
class AuxiliaryClassifier(BaseConnector):
    """Residual stages that take a hidden map to the depth of the last one, and a linear classifier.

    Each stage halves the map and doubles its channels; then come global average pooling and the
    classifier, as in DCM's published networks (https://arxiv.org/abs/2008.07816).

    Args:
        in_channels: Channels of the map that comes in.
        num_classes: K.
        num_stages: How many stages.
        num_blocks: Residual blocks of each stage, of two 3x3 convolutions.
        init_cfg: Initialization config, by default that of a ResNet.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import AuxiliaryClassifier
        >>> AuxiliaryClassifier(16, num_classes=10, num_stages=2)(torch.rand(2, 16, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        num_stages: int = 1,
        num_blocks: int = 1,
        init_cfg: Cfg | list[Cfg] | None = [
            dict(type='Kaiming', layer='Conv2d'),
            dict(type='Constant', val=1, layer='BatchNorm2d'),
        ],
    ) -> None:
        super().__init__(init_cfg)
        channels = [in_channels * 2**i for i in range(num_stages + 1)]
        self.stages = nn.Sequential(
            *(
                ResLayer(BasicBlock, num_blocks, before, after, stride=2)
                for before, after in itertools.pairwise(channels)
            )
        )
        self.fc = nn.Linear(channels[-1], num_classes)

    def forward_train(self, feature: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to logits (B, K)."""
        return self.fc(self.stages(feature).mean(dim=(2, 3)))
