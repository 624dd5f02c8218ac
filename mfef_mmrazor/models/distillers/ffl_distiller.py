"""FFL: feature fusion for online mutual knowledge distillation."""

from collections.abc import Sequence

from mmrazor.registry import MODELS
from torch import Tensor

from ...cfg_type import Cfg
from ..losses.logit_losses import optional_loss
from .fused_classifier import FusedClassifier, MapAdapters
from .online_distiller import OnlineDistiller, Records
from .recorded_maps import one_per_student


@MODELS.register_module()
class FFLDistiller(OnlineDistiller):
    r"""The students' last maps are fused; the fused classifier and the students teach each other
    (Feature Fusion Learning, https://arxiv.org/abs/1904.09058).

    For the last feature map :math:`F_i` and logits :math:`z_i` of student i:

    .. math::
        z_f &= \mathrm{head}(\mathrm{GAP}(\mathrm{fusion}(F_1, \dots, F_m))) \\
        L &= \sum_i \{\mathrm{CE}(z_i, y) + w\,\mathrm{KD}_\tau(\mathrm{sg}\,z_f \to z_i)\}
          + \mathrm{CE}(z_f, y) + w\,\mathrm{KD}_\tau(\mathrm{sg}\,\bar z \to z_f)

    w is the ramp-up, :math:`\bar z` the mean of the students' logits. The students' own
    cross-entropies are not repeated here: their heads compute them. The original's students are
    either branches of one network, ``shared_stages`` of :class:`OnlineDistill`, or networks of
    their own. :class:`MFEFDistiller` is FFL with every map made more informative before the fusion.

    Args:
        in_channels: Channels of the recorded ``feature``: one number, or one for each student. Maps
            of different shapes are brought to one by :class:`MapAdapters`.
        num_classes: K.
        fusion: Config of the feature fusion.
        head: Config of the fused classifier and its loss.
        loss_transfer: Fused classifier teaches each student; None for none.
        loss_ensemble: Mean of the students' logits teaches the fused classifier; None for none.
        tau: Temperature of every term whose config does not set its own.
        ramp_up_epochs: R, in epochs; 0 for none.
        detach_features: The fused classifier's loss does not reach the students.
        num_students: m, filled in by :class:`OnlineDistill`.
        recorders: See :class:`OnlineDistiller`.
        init_cfg: Initialization config.
        ramp_up_iters: R in iterations, instead of ``ramp_up_epochs``.

    Raises:
        ValueError: ``in_channels`` names another number of students, or ``tau`` is not positive;
            or, at the first step, a recorded map has other channels than ``in_channels`` says.

    Example:
        >>> from mfef_mmrazor.models import FFLDistiller
        >>> sum(p.numel() for p in FFLDistiller(in_channels=64, num_classes=100).parameters())
        16228
    """

    renamed_weights = FusedClassifier.RENAMED
    takes_multi_label = True
    half_precision_maps = True

    def __init__(
        self,
        in_channels: int | Sequence[int],
        num_classes: int,
        fusion: Cfg = dict(type='FeatureFusionConnector'),
        head: Cfg = dict(type='mmpretrain.LinearClsHead'),
        loss_transfer: Cfg | None = dict(type='KLDivergence'),
        loss_ensemble: Cfg | None = dict(type='EnsembleKLDivergence'),
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
        self.fused_classifier = FusedClassifier(
            self.adapters.channels, num_students, num_classes, fusion, head
        )

        self.loss_transfer = optional_loss(loss_transfer, 'KLDivergence', tau)
        self.loss_ensemble = optional_loss(loss_ensemble, 'EnsembleKLDivergence', tau)

    def compute_distill_losses(self, records: Records, labels: Tensor) -> dict[str, Tensor]:
        """Losses of the fused classifier, and what it and the students teach each other."""
        logits, w = records['logits'], self.ramp_up()
        fused = self.fused_logits(records)
        losses = dict(loss_fused=self.fused_classifier.loss(fused, labels))
        if self.loss_ensemble:
            losses['loss_ensemble'] = w * self.loss_ensemble(fused, logits)
        if self.loss_transfer:
            losses['loss_transfer'] = w * sum(self.loss_transfer(z, fused) for z in logits)
        return losses

    def fused_logits(self, records: Records) -> Tensor:
        """Logits of the fused classifier, (B, K)."""
        maps = [x.detach() if self.detach_features else x for x in records['feature']]
        _, logits = self.fused_classifier(self.adapters(maps))
        return logits
