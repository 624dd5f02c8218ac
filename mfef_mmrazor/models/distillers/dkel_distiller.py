"""DKEL: decoupled knowledge with ensemble learning."""

import copy
import math
from collections.abc import Sequence

import torch
from mmengine.model import BaseModel, BaseModule, ExponentialMovingAverage, ModuleList
from mmrazor.registry import MODELS
from torch import Tensor

from ...cfg_type import Cfg
from ...functional import peer_means
from ..builder import initialise, shortened
from ..losses.logit_losses import build_loss
from .mean_teachers import MeanTeacherDistiller
from .online_distiller import Records, classification_loss


@MODELS.register_module()
class DKELDistiller(MeanTeacherDistiller):
    r"""PCL with mean teachers that start from weights of their own, and whose ensemble teaches at
    first (Decoupled Knowledge with Ensemble Learning, https://arxiv.org/abs/2312.11218).

    For the last feature map :math:`F_i` and logits :math:`z_i` of student i, and the logits
    :math:`\tilde z_i` of its mean teacher on the same view of the images:

    .. math::
        z_e &= \mathrm{head}([\mathrm{GAP}(F_1), \dots, \mathrm{GAP}(F_m)]) \\
        P_i &= d\,\mathrm{KD}_\tau\Big(\frac{1}{m-1} \sum_{j \ne i} \tilde z_j \to z_i\Big)
          + \frac{1 - d}{m-1} \sum_{j \ne i} \mathrm{KD}_\tau(\tilde z_j \to z_i) \\
        L &= \sum_i \{\mathrm{CE}(z_i, y) + w\,\mathrm{KD}_\tau(\mathrm{sg}\,z_e \to z_i)
          + w\,P_i\} + \mathrm{CE}(z_e, y)

    w is the ramp-up, and :math:`d = e^{-\mathrm{decay} \cdot \mathrm{epoch}}`, 0 once it is below
    0.01. With two students each has one peer, and d makes no difference. The students' own
    cross-entropies are not repeated here: their heads compute them. :math:`\mathrm{CE}(z_e, y)`
    trains the students' features as well.

    A mean teacher is the student's network with other initial weights, without gradients. After
    each step of the optimizer it moves towards the student, :math:`\tilde\theta \gets (1 - \mu)\,
    \tilde\theta + \mu\,\theta` with the momentum :math:`\mu`, at the same pace from the first step
    on: so the two are apart for some :math:`1 / \mu` steps. Teachers normalise by the batch, as
    students do in training.

    Args:
        in_channels: Channels of the recorded ``feature``: one number, or one for each student.
        num_classes: K.
        momentum: :math:`\mu`.
        decay: Of d, per epoch.
        head: Config of the classifier on all features, and of its loss.
        loss_transfer: Config of what that classifier teaches each student.
        loss_ensemble: Config of what the mean of the peers' teachers teaches a student.
        loss_peers: Config of what one peer's teacher teaches a student; ``type``, ``tau`` and
            ``loss_weight``, 1 / (m - 1), may be left out.
        tau: Temperature, where the losses do not set their own.
        ramp_up_epochs: R, in epochs; 0 for none.
        num_students: m, filled in by :class:`OnlineDistill`.
        recorders: See :class:`OnlineDistiller`; beside the usual ones, ``image`` is what the
            student sees.
        init_cfg: Initialization config.
        ramp_up_iters: R in iterations, instead of ``ramp_up_epochs``.

    Raises:
        ValueError: ``in_channels`` names another number of students, ``momentum`` is not between 0
            and 1, ``decay`` is negative or ``tau`` is not positive; or, at the first step, a
            recorded map has other channels than ``in_channels`` says, or, at the second,
            :class:`DistillerUpdateHook` is missing.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import OnlineDistill
        >>> student = dict(
        ...     type='mmpretrain.ImageClassifier',
        ...     backbone=dict(type='CifarResNet', depth=8),
        ...     neck=dict(type='GlobalAveragePooling'),
        ...     head=dict(type='LinearClsHead', num_classes=10, in_channels=64))
        >>> model = OnlineDistill(
        ...     students=[student, student, student],
        ...     distiller=dict(type='DKELDistiller', in_channels=64, num_classes=10))
        >>> teacher = model.distiller.mean_teachers[0].module
        >>> torch.equal(teacher.head.fc.weight, model.students[0].head.fc.weight)
        False
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        num_classes: int,
        momentum: float = 0.001,
        decay: float = 0.5,
        head: Cfg = dict(type='mmpretrain.LinearClsHead'),
        loss_transfer: Cfg = dict(type='KLDivergence'),
        loss_ensemble: Cfg = dict(type='KLDivergence'),
        loss_peers: Cfg = dict(type='KLDivergence'),
        tau: float = 3.0,
        ramp_up_epochs: float = 80,
        num_students: int = 3,
        recorders: Cfg | Sequence[Cfg] | None = None,
        init_cfg: Cfg | None = None,
        ramp_up_iters: int | None = None,
    ) -> None:
        super().__init__(
            in_channels, num_classes, momentum, head, loss_transfer, loss_peers, tau,
            ramp_up_epochs, num_students, recorders, init_cfg, ramp_up_iters,
        )  # fmt: skip
        if not decay >= 0:
            raise ValueError(f'decay={decay}, expected 0 or more')
        self.decay = decay
        self.loss_ensemble = build_loss(loss_ensemble, 'KLDivergence', tau)

    def set_up(self, students: Sequence[BaseModel]) -> None:
        """Make the mean teachers, with weights of their own."""
        self.mean_teachers = ModuleList(
            ExponentialMovingAverage(with_other_weights(student), self.momentum)
            for student in students
        )
        for teacher in self.mean_teachers:
            teacher.steps += 1  # in its step 0 it would take over the student's weights
        for i, (teacher, student) in enumerate(zip(self.mean_teachers, students, strict=True)):
            its = dict(student.named_parameters())
            same = [
                name
                for name, x in teacher.module.named_parameters()
                if x.dim() > 1 and x.any() and torch.equal(x, its[name])
            ]
            if same:
                self.log(
                    f'the mean teacher of student{i} starts from {len(same)} of its weights, not '
                    f'from others (a pretrained part?): {shortened(same)}'
                )

    def compute_distill_losses(self, records: Records, labels: Tensor) -> dict[str, Tensor]:
        """Loss of the classifier on all features; what it and the mean teachers teach."""
        logits, w, d = records['logits'], self.ramp_up(), self.ensemble_weight()
        fused, teachers = self.fused_logits(records), self.teacher_logits(records['image'])
        pairs = zip(logits, peer_means(teachers), strict=True)
        ensemble = sum(self.loss_ensemble(z, mean) for z, mean in pairs)
        return dict(
            loss_fused=classification_loss(self.head.loss_module, fused, labels),
            loss_transfer=w * sum(self.loss_transfer(z, fused) for z in logits),
            loss_peers=w * (1 - d) * self.peer_losses(logits, teachers),
            loss_ensemble=w * d * ensemble,
        )

    def ensemble_weight(self) -> float:
        """d, the share of the mean teachers' ensemble in the runner's current epoch."""
        d = math.exp(-self.decay * self.epoch())
        return d if d > 0.01 else 0.0


def with_other_weights(student: BaseModel) -> BaseModel:
    """The same network, initialised anew."""
    network = copy.deepcopy(student)
    for module in network.modules():
        if hasattr(module, 'reset_parameters'):
            module.reset_parameters()
        if isinstance(module, BaseModule):
            module.is_init = False
    initialise(network)
    return network
