"""ONE: knowledge distillation by on-the-fly native ensemble."""

from collections.abc import Sequence

import torch
from mmrazor.registry import MODELS
from torch import Tensor, nn

from ...cfg_type import Cfg
from ...functional import weighted_logits
from ..builder import build
from ..losses.logit_losses import build_loss
from ..precision import full_precision
from .online_distiller import OnlineDistiller, Records, classification_loss
from .recorded_maps import check_maps, one_per_student


@MODELS.register_module()
class ONEDistiller(OnlineDistiller):
    r"""A gate weighs the students' logits sample by sample, and the gated ensemble teaches (ONE,
    https://arxiv.org/abs/1806.04606).

    For the last feature map :math:`F_i` and logits :math:`z_i` of student i:

    .. math::
        g &= \mathrm{softmax}(\mathrm{ReLU}(\mathrm{BN}(W
          [\mathrm{GAP}(F_1), \dots, \mathrm{GAP}(F_m)]))), \quad z_e = \sum_i g_i z_i \\
        L &= \sum_i \{\mathrm{CE}(z_i, y) + w\,\mathrm{KD}_\tau(\mathrm{sg}\,z_e \to z_i)\}
          + \mathrm{CE}(z_e, y)

    w is the ramp-up. The gate learns from :math:`\mathrm{CE}(z_e, y)` alone. The students' own
    cross-entropies are not repeated here: their heads compute them.

    In the original the students are three branches of one network, and the gate reads the pooled
    map of the trunk they share. Students that are networks of their own have no trunk, so by
    default the gate reads the pooled last maps of all of them. With ``shared_stages`` of
    :class:`OnlineDistill` the ``feature`` recorder can be put on the trunk's last stage instead.
    The gate then gets the same map m times, which adds nothing to what it can express, but makes
    its steps larger.

    Args:
        in_channels: Channels of the recorded ``feature``: one number, or one for each student.
        loss_ce: Config of the ensemble's loss on the labels.
        loss_transfer: Config of what the ensemble teaches each student.
        tau: Temperature, where ``loss_transfer`` does not set its own.
        ramp_up_epochs: R, in epochs; 0 for none.
        detach_features: The students' feature maps do not learn through the gate. (Through the
            logits they learn from the ensemble's loss in any case.)
        num_students: m, filled in by :class:`OnlineDistill`.
        recorders: See :class:`OnlineDistiller`.
        init_cfg: Initialization config.
        ramp_up_iters: R in iterations, instead of ``ramp_up_epochs``.

    Raises:
        ValueError: ``in_channels`` names another number of students, or ``tau`` is not positive;
            or, at the first step, a recorded map has other channels than ``in_channels`` says.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import ONEDistiller
        >>> one = ONEDistiller(in_channels=64, num_students=3)
        >>> sum(p.numel() for p in one.parameters())
        582
        >>> records = dict(logits=[torch.randn(4, 100) for _ in range(3)],
        ...                feature=[torch.rand(4, 64, 8, 8) for _ in range(3)])
        >>> sorted(one.compute_distill_losses(records, torch.tensor([1, 2, 3, 4])))
        ['loss_fused', 'loss_transfer']
    """

    takes_multi_label = True

    def __init__(
        self,
        in_channels: int | Sequence[int],
        loss_ce: Cfg = dict(type='mmpretrain.CrossEntropyLoss'),
        loss_transfer: Cfg = dict(type='KLDivergence'),
        tau: float = 3.0,
        ramp_up_epochs: float = 80,
        detach_features: bool = False,
        num_students: int = 2,
        recorders: Cfg | Sequence[Cfg] | None = None,
        init_cfg: Cfg | None = None,
        ramp_up_iters: int | None = None,
    ) -> None:
        super().__init__(num_students, recorders, ramp_up_epochs, init_cfg, ramp_up_iters)
        self.in_channels = one_per_student(in_channels, num_students)
        self.detach_features = detach_features
        self.gate = nn.Sequential(
            nn.Linear(sum(self.in_channels), num_students, bias=False),  # batch norm has one
            nn.BatchNorm1d(num_students),
            nn.ReLU(),
        )
        self.loss_ce = build(loss_ce, type='mmpretrain.CrossEntropyLoss')
        self.loss_transfer = build_loss(loss_transfer, 'KLDivergence', tau)

    def compute_distill_losses(self, records: Records, labels: Tensor) -> dict[str, Tensor]:
        """Loss of the gated ensemble, and what it teaches the students."""
        ensemble = self.fused_logits(records)
        transfer = sum(self.loss_transfer(z, ensemble) for z in records['logits'])
        return dict(
            loss_fused=classification_loss(self.loss_ce, ensemble, labels),
            loss_transfer=self.ramp_up() * transfer,
        )

    def gate_weights(self, maps: Sequence[Tensor]) -> Tensor:
        """A weight for each student, (B, m), rows that sum to 1."""
        check_maps(maps, self.in_channels)
        if self.training and len(maps[0]) == 1:
            raise ValueError(
                f'{type(self).__name__}: found a batch of one image, expected two or more: the '
                'gate has batch norm. Set train_dataloader.drop_last=True, or another batch size'
            )
        pooled = torch.cat([x.mean(dim=(2, 3)) for x in maps], dim=1)
        pooled = pooled.detach() if self.detach_features else pooled
        return full_precision(self.gate(pooled)).softmax(dim=1)

    def fused_logits(self, records: Records) -> Tensor:
        """Logits of the gated ensemble, (B, K)."""
        return weighted_logits(self.gate_weights(records['feature']), records['logits'])
