"""MFEF: multi-scale feature extraction and fusion for online knowledge distillation."""

from collections.abc import Sequence
from typing import Any

from mmengine.model import ModuleList
from mmrazor.registry import MODELS
from torch import Tensor, nn

from ...cfg_type import Cfg
from ...functional import ensemble_logits
from ..builder import build, build_offering
from ..losses.logit_losses import optional_loss
from ..precision import full_precision
from .fused_classifier import FusedClassifier, MapAdapters, classify
from .online_distiller import OnlineDistiller, Records, classification_loss
from .recorded_maps import one_per_student


@MODELS.register_module()
class MFEFDistiller(OnlineDistiller):
    r"""Makes the students' feature maps more informative, fuses them, and lets what is classified
    from them teach (MFEF, https://arxiv.org/abs/2206.08224).

    Only the paper's abstract was available, so the equations are a reconstruction:
    ``configs/mfef/README.md`` gives the source of each part. Every choice is an argument here. For
    the last feature map :math:`F_i` and logits :math:`z_i` of student i:

    .. math::
        F'_i &= \mathrm{attention}(\mathrm{multi\_scale}(F_i)), \quad
          z'_i = \mathrm{head}_i(\mathrm{GAP}(F'_i)) \\
        z_f &= \mathrm{head}(\mathrm{GAP}(\mathrm{fusion}(F'_1, \dots, F'_m))) \\
        L &= \sum_i \{\mathrm{CE}(z_i, y) + w\,\mathrm{KD}_\tau(\mathrm{sg}\,z_f \to z_i)\}
          + \mathrm{CE}(z_f, y) + w\,\mathrm{KD}_\tau(\mathrm{sg}\,\bar z \to z_f) \\
          &+ \sum_i \{\mathrm{CE}(z'_i, y) + w\,\mathrm{KD}_\tau(\mathrm{sg}\,z'_i \to z_i)
          + w\,\mathrm{KD}_\tau(\mathrm{sg}\,z_f \to z'_i)\}

    The last line is of the enhanced classifiers, with which each student's more informative map
    teaches the student itself. What the defaults were chosen by is in the same file.
    The students' own cross-entropies are not repeated here: their heads compute them. w is the
    ramp-up. A student's own path is left alone, so that what is deployed is the plain network.

    Args:
        in_channels: Channels of the recorded ``feature``: one number, or one for each student. Maps
            of different shapes are brought to one by :class:`MapAdapters`.
        num_classes: K.
        multi_scale: Config of the multi-scale feature extraction, one module a student; None for
            none.
        attention: Config of the dual attention, one module a student; None (the default) for none.
        fusion: Config of the feature fusion; None to average the maps instead.
        head: Config of the fused classifier and its loss.
        enhanced_head: Config of each student's enhanced classifier and its loss; None for none.
        loss_transfer: Fused classifier teaches each student; None for none.
        loss_ensemble: Mean of the students' logits teaches the fused classifier; None for none.
        loss_self: Each enhanced classifier teaches its own student; None for none.
        loss_guide: Fused classifier teaches each enhanced classifier; None for none. Neither this
            nor ``loss_self`` is used without enhanced classifiers.
        loss_mutual: Students teach each other, over all pairs; None (the default) for none.
        loss_map: The fused map teaches each student's map; None (the default) for none.
        tau: Temperature of every term whose config does not set its own.
        ramp_up_epochs: R, in epochs; 0 for none.
        detach_features: The losses of the fused and the enhanced classifiers do not reach the
            students' backbones.
        num_students: m, filled in by :class:`OnlineDistill`.
        recorders: See :class:`OnlineDistiller`.
        init_cfg: Initialization config.
        ramp_up_iters: R in iterations, instead of ``ramp_up_epochs``.

    In every config of a part, ``type`` and what is known here (channels, tau) may be left out.

    Raises:
        ValueError: ``in_channels`` names another number of students, or is not divisible by the
            scales, or ``tau`` is not positive; or, at the first step, a recorded map has other
            channels than ``in_channels`` says.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import MFEFDistiller
        >>> mfef = MFEFDistiller(in_channels=64, num_classes=100)
        >>> sum(p.numel() for p in mfef.parameters())
        58588
        >>> records = dict(logits=[torch.randn(4, 100) for _ in range(2)],
        ...                feature=[torch.rand(4, 64, 8, 8) for _ in range(2)])
        >>> sorted(mfef.compute_distill_losses(records, torch.tensor([1, 2, 3, 4])))
        ['loss_enhanced', 'loss_ensemble', 'loss_fused', 'loss_guide', 'loss_self', 'loss_transfer']
    """

    renamed_weights = FusedClassifier.RENAMED
    takes_multi_label = True
    half_precision_maps = True

    def __init__(
        self,
        in_channels: int | Sequence[int],
        num_classes: int,
        multi_scale: Cfg | None = dict(type='MultiScaleConnector'),
        attention: Cfg | None = None,
        fusion: Cfg | None = dict(type='FeatureFusionConnector'),
        head: Cfg = dict(type='mmpretrain.LinearClsHead'),
        enhanced_head: Cfg | None = dict(type='mmpretrain.LinearClsHead'),
        loss_transfer: Cfg | None = dict(type='KLDivergence'),
        loss_ensemble: Cfg | None = dict(type='EnsembleKLDivergence'),
        loss_self: Cfg | None = dict(type='KLDivergence'),
        loss_guide: Cfg | None = dict(type='KLDivergence'),
        loss_mutual: Cfg | None = None,
        loss_map: Cfg | None = None,
        tau: float = 3.0,
        ramp_up_epochs: float = 80,
        detach_features: bool = False,
        num_students: int = 2,
        recorders: Cfg | Sequence[Cfg] | None = None,
        init_cfg: Cfg | None = None,
        ramp_up_iters: int | None = None,
    ) -> None:
        super().__init__(num_students, recorders, ramp_up_epochs, init_cfg, ramp_up_iters)
        self.num_classes = num_classes
        self.detach_features = detach_features
        self.adapters = MapAdapters(one_per_student(in_channels, num_students))
        channels = self.adapters.channels

        def one_each(cfg: Cfg | None, kind: str, **known: Any) -> ModuleList:
            return ModuleList(
                nn.Identity()
                if cfg is None
                else build(cfg, type=kind, in_channels=channels, **known)
                for _ in range(num_students)
            )

        self.multi_scale = one_each(multi_scale, 'MultiScaleConnector')
        self.attention = one_each(attention, 'DualAttentionConnector')
        self.fused_classifier = FusedClassifier(channels, num_students, num_classes, fusion, head)
        self.enhanced_heads = ModuleList()
        if enhanced_head is not None:
            kind = 'mmpretrain.LinearClsHead'
            self.enhanced_heads = one_each(enhanced_head, kind, num_classes=num_classes)

        self.loss_transfer = optional_loss(loss_transfer, 'KLDivergence', tau)
        self.loss_ensemble = optional_loss(loss_ensemble, 'EnsembleKLDivergence', tau)
        self.loss_self = optional_loss(loss_self, 'KLDivergence', tau)
        self.loss_guide = optional_loss(loss_guide, 'KLDivergence', tau)
        self.loss_mutual = optional_loss(loss_mutual, 'MutualKLDivergence', tau)
        self.loss_map = None
        if loss_map is not None:
            self.loss_map = build_offering(loss_map, 'AttentionMapLoss', tau=tau)

    def compute_distill_losses(self, records: Records, labels: Tensor) -> dict[str, Tensor]:
        """Losses of the fused and enhanced classifiers, and what these and the students teach."""
        logits, w = records['logits'], self.ramp_up()
        maps = self.informative_maps(records)
        fused_map, fused = self.fused_classifier(maps)

        losses = dict(loss_fused=self.fused_classifier.loss(fused, labels))
        if self.loss_ensemble:
            losses['loss_ensemble'] = w * self.loss_ensemble(fused, logits)
        if self.loss_transfer:
            losses['loss_transfer'] = w * sum(self.loss_transfer(z, fused) for z in logits)
        if self.enhanced_heads:
            losses.update(self.enhanced_losses(maps, logits, fused, labels))
        if self.loss_mutual:
            losses['loss_mutual'] = w * self.loss_mutual(logits)
        if self.loss_map:
            recorded = [full_precision(x) for x in records['feature']]
            losses['loss_map'] = w * sum(self.loss_map(x, fused_map) for x in recorded)
        return losses

    def enhanced_losses(
        self, maps: Sequence[Tensor], logits: Sequence[Tensor], fused: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """Losses of the enhanced classifiers, and what they learn and teach."""
        enhanced, w = self.enhanced_logits(maps), self.ramp_up()
        own = [
            classification_loss(head.loss_module, z, labels)
            for head, z in zip(self.enhanced_heads, enhanced, strict=True)
        ]
        losses = dict(loss_enhanced=sum(own[1:], own[0]))
        if self.loss_self:
            pairs = zip(logits, enhanced, strict=True)
            losses['loss_self'] = w * sum(self.loss_self(z, better) for z, better in pairs)
        if self.loss_guide:
            losses['loss_guide'] = w * sum(self.loss_guide(z, fused) for z in enhanced)
        return losses

    def informative_maps(self, records: Records) -> list[Tensor]:
        """The students' maps of one shape, after extraction and attention: m of (B, C, H, W)."""
        recorded = [x.detach() if self.detach_features else x for x in records['feature']]
        parts = zip(self.multi_scale, self.attention, self.adapters(recorded), strict=True)
        return [attend(extract(x)) for extract, attend, x in parts]

    def enhanced_logits(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Logits of the enhanced classifiers, m of (B, K)."""
        return [classify(head, x) for head, x in zip(self.enhanced_heads, maps, strict=True)]

    def fused_logits(self, records: Records) -> Tensor:
        """Logits of the fused classifier, (B, K)."""
        _, logits = self.fused_classifier(self.informative_maps(records))
        return logits

    def auxiliary_logits(self, records: Records) -> dict[str, Tensor]:
        """Logits (B, K) of the fused classifier, the enhanced ones and the mean of these."""
        maps = self.informative_maps(records)
        _, fused = self.fused_classifier(maps)
        found = dict(fused=fused)
        if self.enhanced_heads:
            enhanced = self.enhanced_logits(maps)
            found.update({f'enhanced{i}': z for i, z in enumerate(enhanced)})
            found['enhanced_ensemble'] = ensemble_logits(enhanced)
        return found
