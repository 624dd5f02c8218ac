"""The classifier on the students' fused feature maps, common to FFL, FFSD, DCCL and MFEF."""

from collections.abc import Sequence

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from ...cfg_type import Cfg
from ...functional import resize, smallest_size
from ..builder import build
from ..precision import full_precision
from .online_distiller import classification_loss
from .recorded_maps import check_maps


class MapAdapters(ModuleList):
    """Brings the students' feature maps to one shape.

    Maps of different sizes are average-pooled to the smallest, then maps of more channels than the
    fewest go through a ``MapAdapter`` (1x1 convolution). The log says so.

    Args:
        in_channels: Channels of each student's map.

    Example:
        >>> import torch
        >>> maps = [torch.rand(2, 8, 4, 4), torch.rand(2, 16, 2, 2)]
        >>> [tuple(x.shape) for x in MapAdapters([8, 16])(maps)]
        [(2, 8, 2, 2), (2, 8, 2, 2)]
    """

    def __init__(self, in_channels: Sequence[int]) -> None:
        self.in_channels = list(in_channels)
        self.channels = min(in_channels)
        self._sizes: list[tuple[int, ...]] = []
        super().__init__(self._adapter(i, channels) for i, channels in enumerate(in_channels))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C_i, H_i, W_i) to maps of the fewest channels and the smallest size."""
        check_maps(maps, self.in_channels)
        size = smallest_size(maps)
        sizes = [tuple(map(int, x.shape[2:])) for x in maps]
        if len(set(sizes)) > 1 and sizes != self._sizes:
            self._sizes = sizes
            self._log(f'feature maps of {sizes} pixels are average-pooled to {size}')
        return [adapt(resize(x, size)) for adapt, x in zip(self, maps, strict=True)]

    def _adapter(self, student: int, channels: int) -> nn.Module:
        if channels == self.channels:
            return nn.Identity()
        self._log(
            f'the feature map of student{student} goes from {channels} to {self.channels} channels '
            'through a MapAdapter (1x1 convolution)'
        )
        return build(dict(type='MapAdapter', in_channels=channels, out_channels=self.channels))

    def _log(self, message: str) -> None:
        print_log(f'{type(self).__name__}: {message}', logger='current')


def classify(head: nn.Module, feature: Tensor) -> Tensor:
    """Logits (B, K) of a map (B, C, H, W): global average pooling, then the head."""
    # channels last, so that the gradient is too: another format slows down all layers before this
    pooled = feature.permute(0, 2, 3, 1).mean(dim=(1, 2))
    return full_precision(head((pooled,)))


class FusedClassifier(BaseModule):
    r"""The students' maps become one, which is classified (https://arxiv.org/abs/1904.09058).

    .. math:: \hat F = \mathrm{fusion}(F_1, \dots, F_m), \quad
        z_f = \mathrm{head}(\mathrm{GAP}(\hat F))

    Args:
        channels: C, of every map that comes in and of the fused one.
        num_maps: m.
        num_classes: K.
        fusion: Config of the feature fusion, by default a ``FeatureFusionConnector``; None to
            average the maps.
        head: Config of the classifier and its loss, by default mmpretrain's ``LinearClsHead``.

    Example:
        >>> import torch
        >>> fused = FusedClassifier(64, num_maps=2, num_classes=100)
        >>> feature, logits = fused([torch.rand(4, 64, 8, 8), torch.rand(4, 64, 8, 8)])
        >>> tuple(feature.shape), tuple(logits.shape)
        ((4, 64, 8, 8), (4, 100))
    """

    # where its weights were before it was a module of its own: name then -> name now
    RENAMED = {'fusion.': 'fused_classifier.fusion.', 'head.': 'fused_classifier.head.'}

    def __init__(
        self,
        channels: int,
        num_maps: int,
        num_classes: int,
        fusion: Cfg | None = dict(type='FeatureFusionConnector'),
        head: Cfg = dict(type='mmpretrain.LinearClsHead'),
    ) -> None:
        super().__init__()
        self.fusion: nn.Module | None = None
        if fusion is not None:
            known = dict(in_channels=[channels] * num_maps, out_channels=channels)
            self.fusion = build(fusion, type='FeatureFusionConnector', **known)
        known = dict(in_channels=channels, num_classes=num_classes)
        self.head = build(head, type='mmpretrain.LinearClsHead', **known)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """m maps (B, C, H, W) to the fused one (B, C, H, W) and its logits (B, K)."""
        fused = torch.stack(list(maps)).mean(dim=0) if self.fusion is None else self.fusion(maps)
        return full_precision(fused), classify(self.head, fused)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The head's loss of the logits (B, K)."""
        return classification_loss(self.head.loss_module, logits, labels)
