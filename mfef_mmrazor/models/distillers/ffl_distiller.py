"""FFL: feature fusion for online mutual knowledge distillation."""

from collections.abc import Sequence

from mmrazor.registry import MODELS

from .mfef_distiller import MFEFDistiller


@MODELS.register_module()
class FFLDistiller(MFEFDistiller):
    r"""The students' last maps are fused; the fused classifier and the students teach each other
    (Feature Fusion Learning, https://arxiv.org/abs/1904.09058).

    For the last feature map :math:`F_i` and logits :math:`z_i` of student i:

    .. math::
        z_f &= \mathrm{head}(\mathrm{GAP}(\mathrm{fusion}(F_1, \dots, F_m))) \\
        L &= \sum_i \{\mathrm{CE}(z_i, y) + w\,\mathrm{KD}_\tau(\mathrm{sg}\,z_f \to z_i)\}
          + \mathrm{CE}(z_f, y) + w\,\mathrm{KD}_\tau(\mathrm{sg}\,\bar z \to z_f)

    w is the ramp-up, :math:`\bar z` the mean of the students' logits. MFEF is FFL with every map
    made more informative before the fusion, so FFL is :class:`MFEFDistiller` with that left out.
    The original's students are either branches of one network, ``shared_stages`` of
    :class:`OnlineDistill`, or networks of their own.

    Args:
        in_channels: As in :class:`MFEFDistiller`, as is everything below.
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

    Raises:
        ValueError: ``in_channels`` names another number of students, or ``tau`` is not positive;
            or, at the first step, a recorded map has other channels than announced.

    Example:
        >>> from mfef_mmrazor.models import FFLDistiller
        >>> sum(p.numel() for p in FFLDistiller(in_channels=64, num_classes=100).parameters())
        16228
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        num_classes: int,
        fusion: dict = dict(type='FeatureFusionConnector'),
        head: dict = dict(type='mmpretrain.LinearClsHead'),
        loss_transfer: dict | None = dict(type='KLDivergence'),
        loss_ensemble: dict | None = dict(type='EnsembleKLDivergence'),
        tau: float = 3.0,
        ramp_up_epochs: float = 80,
        detach_features: bool = False,
        num_students: int = 2,
        recorders: dict | Sequence[dict] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            num_classes,
            multi_scale=None,
            attention=None,
            fusion=fusion,
            head=head,
            loss_transfer=loss_transfer,
            loss_ensemble=loss_ensemble,
            tau=tau,
            ramp_up_epochs=ramp_up_epochs,
            detach_features=detach_features,
            num_students=num_students,
            recorders=recorders,
            init_cfg=init_cfg,
        )
