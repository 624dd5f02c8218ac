"""What PCL and DKEL have in common: a classifier on all features, and mean teachers."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModel, ModuleList
from torch import Tensor

from ...cfg_type import Cfg
from ..builder import build
from ..losses.logit_losses import build_loss
from ..precision import full_precision
from .online_distiller import DEFAULT_RECORDERS, OnlineDistiller, Records, network_logits
from .recorded_maps import check_maps, one_per_student


class MeanTeacherDistiller(OnlineDistiller):
    r"""Base of methods in which a student learns from a classifier on all students' features and
    from its peers' mean teachers. Each method decides what these start from and how they move.

    For the last feature maps :math:`F_i`:
    :math:`z_e = \mathrm{head}([\mathrm{GAP}(F_1), \dots, \mathrm{GAP}(F_m)])`.

    Args:
        momentum: Share of the student's weights in a step of its mean teacher.

    The other arguments are those of :class:`PCLDistiller`.

    Raises:
        ValueError: ``in_channels`` names another number of students, ``momentum`` is not between 0
            and 1, or ``tau`` is not positive.
    """

    acts_on_updates = True
    takes_multi_label = True
    default_recorders = dict(
        **DEFAULT_RECORDERS, image=dict(type='ModuleInputs', source='backbone')
    )
    shares_stages = False

    def __init__(
        self,
        in_channels: int | Sequence[int],
        num_classes: int,
        momentum: float = 0.001,
        head: Cfg = dict(type='mmpretrain.LinearClsHead'),
        loss_transfer: Cfg = dict(type='KLDivergence'),
        loss_peers: Cfg = dict(type='KLDivergence'),
        tau: float = 3.0,
        ramp_up_epochs: float = 80,
        num_students: int = 2,
        recorders: Cfg | Sequence[Cfg] | None = None,
        init_cfg: Cfg | None = None,
        ramp_up_iters: int | None = None,
    ) -> None:
        super().__init__(num_students, recorders, ramp_up_epochs, init_cfg, ramp_up_iters)
        if not 0 < momentum < 1:
            raise ValueError(
                f"momentum={momentum}, the share of a student's weights in a step of its mean "
                'teacher, must be between 0 and 1'
            )
        self.in_channels = one_per_student(in_channels, num_students)
        self.num_classes = num_classes
        self.momentum = momentum
        known = dict(in_channels=sum(self.in_channels), num_classes=num_classes)
        self.head = build(head, type='mmpretrain.LinearClsHead', **known)
        self.loss_transfer = build_loss(loss_transfer, 'KLDivergence', tau)
        share = 1 / (num_students - 1)
        self.loss_peers = build_loss(loss_peers, 'KLDivergence', tau, loss_weight=share)
        self.mean_teachers = ModuleList()  # made in set_up

    def after_update(self, students: Sequence[BaseModel]) -> None:
        """Let the mean teachers follow the students."""
        for teacher, student in zip(self.mean_teachers, students, strict=True):
            teacher.update_parameters(student)

    def peer_losses(self, logits: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
        """What every mean teacher teaches every student but its own."""
        return sum(
            self.loss_peers(z, teacher)
            for i, z in enumerate(logits)
            for j, teacher in enumerate(teachers)
            if i != j
        )

    @torch.no_grad()
    def teacher_logits(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Logits (B, K) of every mean teacher, each on its own student's view."""
        pairs = zip(self.mean_teachers, images, strict=True)
        return [network_logits(each.module, each(view, mode='tensor')) for each, view in pairs]

    def fused_logits(self, records: Records) -> Tensor:
        """Logits of the classifier on all students' features, (B, K)."""
        check_maps(records['feature'], self.in_channels)
        pooled = torch.cat([x.mean(dim=(2, 3)) for x in records['feature']], dim=1)
        return full_precision(self.head((pooled,)))
