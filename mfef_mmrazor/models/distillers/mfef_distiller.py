"""MFEF: multi-scale feature extraction and fusion for online knowledge distillation."""

from collections.abc import Sequence

import torch
from mmengine.model import ModuleList
from mmrazor.registry import MODELS
from torch import Tensor, nn

from ...functional import resize, smallest_size
from ..builder import build
from .online_distiller import (
    OnlineDistiller,
    Records,
    build_loss,
    check_maps,
    full_precision,
    one_per_student,
)


@MODELS.register_module()
class MFEFDistiller(OnlineDistiller):
    r"""Makes the students' feature maps more informative, fuses them, and lets the fused classifier
    teach (MFEF, https://arxiv.org/abs/2206.08224).

    Only the abstract of the paper is public, so the equations are a reconstruction; what is taken
    from where is in ``configs/mfef/README.md``, and every choice is an argument here. For the last
    feature map :math:`F_i` and logits :math:`z_i` of student i:

    .. math::
        F'_i &= \mathrm{attention}(\mathrm{multi\_scale}(F_i)) \\
        z_f &= \mathrm{head}(\mathrm{GAP}(\mathrm{fusion}(F'_1, \dots, F'_m))) \\
        L &= \sum_i \{\mathrm{CE}(z_i, y) + w\,\mathrm{KD}_\tau(\mathrm{sg}\,z_f \to z_i)\}
          + \mathrm{CE}(z_f, y) + w\,\mathrm{KD}_\tau(\mathrm{sg}\,\bar z \to z_f)

    The students' own cross-entropies are not repeated here: their heads compute them. w is the
    ramp-up. A student's own path is left alone, so that what is deployed is the plain network.

    Args:
        in_channels: Channels of the recorded ``feature``: one number, or one for each student. Maps
            of different channels are brought to the fewest by a ``MapAdapter``, maps of different
            sizes to the smallest by average pooling; the log says so.
        num_classes: K.
        multi_scale: Config of the multi-scale feature extraction, one module a student; None for
            none.
        attention: Config of the dual attention, one module a student; None for none.
        fusion: Config of the feature fusion; None to average the maps instead.
        head: Config of the fused classifier and its loss.
        loss_transfer: Fused classifier teaches each student; None for none.
        loss_ensemble: Mean of the students' logits teaches the fused classifier; None for none.
        loss_mutual: Students teach each other, over all pairs; None (the default) for none.
        loss_map: The fused map teaches each student's map; None (the default) for none.
        tau: Temperature of every term whose config does not set its own.
        ramp_up_epochs: R, in epochs; 0 for none.
        detach_features: The fused classifier's loss does not reach the students.
        num_students: m, filled in by :class:`OnlineDistill`.
        recorders: See :class:`OnlineDistiller`.
        init_cfg: Initialization config.

    In every config of a part, ``type`` and what is known here (channels, tau) may be left out.

    Raises:
        ValueError: ``in_channels`` names another number of students, or is not divisible by the
            scales, or ``tau`` is not positive; or, at the first step, a recorded map has other
            channels than announced.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import MFEFDistiller
        >>> mfef = MFEFDistiller(in_channels=64, num_classes=100)
        >>> sum(p.numel() for p in mfef.parameters())
        46948
        >>> records = dict(logits=[torch.randn(4, 100) for _ in range(2)],
        ...                feature=[torch.rand(4, 64, 8, 8) for _ in range(2)])
        >>> sorted(mfef.compute_distill_losses(records, torch.tensor([1, 2, 3, 4])))
        ['loss_ensemble', 'loss_fused', 'loss_transfer']
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        num_classes: int,
        multi_scale: dict | None = dict(type='MultiScaleConnector'),
        attention: dict | None = dict(type='DualAttentionConnector'),
        fusion: dict | None = dict(type='FeatureFusionConnector'),
        head: dict = dict(type='mmpretrain.LinearClsHead'),
        loss_transfer: dict | None = dict(type='KLDivergence'),
        loss_ensemble: dict | None = dict(type='EnsembleKLDivergence'),
        loss_mutual: dict | None = None,
        loss_map: dict | None = None,
        tau: float = 3.0,
        ramp_up_epochs: float = 80,
        detach_features: bool = False,
        num_students: int = 2,
        recorders: dict | Sequence[dict] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(num_students, recorders, ramp_up_epochs, init_cfg)
        self.in_channels = one_per_student(in_channels, num_students)
        self.num_classes = num_classes
        self.detach_features = detach_features
        channels = min(self.in_channels)

        def one_each(cfg: dict | None, kind: str) -> ModuleList:
            return ModuleList(
                nn.Identity() if cfg is None else build(cfg, type=kind, in_channels=channels)
                for _ in range(num_students)
            )

        def loss(cfg: dict | None, kind: str) -> nn.Module | None:
            return None if cfg is None else build_loss(cfg, kind, tau)

        self.adapters = ModuleList(self._adapter(i, channels) for i in range(num_students))
        self.multi_scale = one_each(multi_scale, 'MultiScaleConnector')
        self.attention = one_each(attention, 'DualAttentionConnector')
        self.fusion: nn.Module | None = None
        if fusion is not None:
            known = dict(in_channels=[channels] * num_students, out_channels=channels)
            self.fusion = build(fusion, type='FeatureFusionConnector', **known)
        known = dict(in_channels=channels, num_classes=num_classes)
        self.head = build(head, type='mmpretrain.LinearClsHead', **known)

        self.loss_transfer = loss(loss_transfer, 'KLDivergence')
        self.loss_ensemble = loss(loss_ensemble, 'EnsembleKLDivergence')
        self.loss_mutual = loss(loss_mutual, 'MutualKLDivergence')
        self.loss_map = None if loss_map is None else build(loss_map, type='AttentionMapLoss')

    def compute_distill_losses(self, records: Records, labels: Tensor) -> dict[str, Tensor]:
        """Losses of the fused classifier, and what it and the students teach each other."""
        logits, w = records['logits'], self.ramp_up()
        fused_map = self.fused_map(records)
        fused = self.classify(fused_map)

        losses = dict(loss_fused=self.head.loss_module(fused, labels))
        if self.loss_ensemble:
            losses['loss_ensemble'] = w * self.loss_ensemble(fused, logits)
        if self.loss_transfer:
            losses['loss_transfer'] = w * sum(self.loss_transfer(z, fused) for z in logits)
        if self.loss_mutual:
            losses['loss_mutual'] = w * self.loss_mutual(logits)
        if self.loss_map:
            losses['loss_map'] = w * sum(self.loss_map(x, fused_map) for x in records['feature'])
        return losses

    def fused_map(self, records: Records) -> Tensor:
        """The students' processed maps as one, (B, C, H, W)."""
        check_maps(records['feature'], self.in_channels)
        self._log_sizes(records['feature'])
        maps = [x.detach() if self.detach_features else x for x in records['feature']]
        size = smallest_size(maps)
        maps = [adapt(resize(x, size)) for adapt, x in zip(self.adapters, maps, strict=True)]
        maps = [extract(x) for extract, x in zip(self.multi_scale, maps, strict=True)]
        maps = [attend(x) for attend, x in zip(self.attention, maps, strict=True)]
        return torch.stack(maps).mean(dim=0) if self.fusion is None else self.fusion(maps)

    def classify(self, fused_map: Tensor) -> Tensor:
        """Logits (B, K) of the fused map: global average pooling and the head."""
        return full_precision(self.head((fused_map.mean(dim=(2, 3)),)))

    def fused_logits(self, records: Records) -> Tensor:
        """Logits of the fused classifier, (B, K)."""
        return self.classify(self.fused_map(records))

    def _adapter(self, student: int, channels: int) -> nn.Module:
        if self.in_channels[student] == channels:
            return nn.Identity()
        self.log(
            f'the map of student{student} goes from {self.in_channels[student]} to {channels} '
            'channels through a MapAdapter (1x1 convolution)'
        )
        return build(
            dict(type='MapAdapter', in_channels=self.in_channels[student], out_channels=channels)
        )

    def _log_sizes(self, maps: Sequence[Tensor]) -> None:
        sizes = [tuple(map(int, x.shape[2:])) for x in maps]
        if len(set(sizes)) > 1 and not getattr(self, '_sizes_logged', False):
            self._sizes_logged = True
            self.log(f'maps of {sizes} pixels are average-pooled to {smallest_size(maps)}')
