"""PCL: peer collaborative learning."""

from collections.abc import Sequence

from mmengine.model import BaseModel, ExponentialMovingAverage, ModuleList
from mmrazor.registry import MODELS
from torch import Tensor

from .mean_teachers import MeanTeacherDistiller
from .online_distiller import Records, classification_loss


@MODELS.register_module()
class PCLDistiller(MeanTeacherDistiller):
    r"""A classifier on all students' features teaches each student, and so do the mean teachers of
    its peers (Peer Collaborative Learning, https://arxiv.org/abs/2006.04147).

    For the last feature map :math:`F_i` and logits :math:`z_i` of student i, and the logits
    :math:`\tilde z_i` of its mean teacher on the same view of the images:

    .. math::
        z_e &= \mathrm{head}([\mathrm{GAP}(F_1), \dots, \mathrm{GAP}(F_m)]) \\
        L &= \sum_i \Big\{\mathrm{CE}(z_i, y) + w\,\mathrm{KD}_\tau(\mathrm{sg}\,z_e \to z_i)
          + \frac{w}{m-1} \sum_{j \ne i} \mathrm{KD}_\tau(\tilde z_j \to z_i)\Big\}
          + \mathrm{CE}(z_e, y)

    w is the ramp-up. The students' own cross-entropies are not repeated here: their heads compute
    them. :math:`\mathrm{CE}(z_e, y)` trains the students' features as well.

    A mean teacher is a copy of its student, without gradients, whose weights follow the student's
    after each of its steps, :math:`\tilde\theta \gets \alpha \tilde\theta + (1 - \alpha) \theta`
    with :math:`\alpha = \min(1 - 1/(t+1),\ 1 - \mathrm{momentum})` after t steps: the plain mean of
    all weights so far, and later a moving average. Teachers normalise by the batch, as students do
    in training.

    The original's students are branches of one network. What it needs of the data is the same here,
    a view of the images for each student: see ``configs/_base_/datasets/*_views.py``.

    Args:
        in_channels: Channels of the recorded ``feature``: one number, or one for each student.
        num_classes: K.
        momentum: Share of the student's weights in the moving average.
        head: Config of the classifier on all features, and of its loss.
        loss_transfer: Config of what that classifier teaches each student.
        loss_peers: Config of what a mean teacher teaches a peer of its student; ``type``, ``tau``
            and ``loss_weight``, 1 / (m - 1), may be left out.
        tau: Temperature, where the losses do not set their own.
        ramp_up_epochs: R, in epochs; 0 for none.
        num_students: m, filled in by :class:`OnlineDistill`.
        recorders: See :class:`OnlineDistiller`; beside the usual ones, ``image`` is what the
            student sees.
        init_cfg: Initialization config.
        ramp_up_iters: R in iterations, instead of ``ramp_up_epochs``.

    Raises:
        ValueError: ``in_channels`` names another number of students, ``momentum`` is not between 0
            and 1, or ``tau`` is not positive; or, at the first step, a recorded map has other
            channels than ``in_channels`` says, or, at the second, :class:`DistillerUpdateHook` is
            missing.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import OnlineDistill
        >>> student = dict(
        ...     type='mmpretrain.ImageClassifier',
        ...     backbone=dict(type='CifarResNet', depth=8),
        ...     neck=dict(type='GlobalAveragePooling'),
        ...     head=dict(type='LinearClsHead', num_classes=10, in_channels=64))
        >>> model = OnlineDistill(
        ...     students=[student, student],
        ...     distiller=dict(type='PCLDistiller', in_channels=64, num_classes=10))
        >>> len(model.distiller.mean_teachers)
        2
        >>> sum(p.numel() for p in model.distiller.parameters() if p.requires_grad)
        1290
    """

    def set_up(self, students: Sequence[BaseModel]) -> None:
        """Make the mean teachers, equal to the students."""
        self.mean_teachers = ModuleList(
            ExponentialMovingAverage(student, self.momentum) for student in students
        )

    def before_step(self, students: Sequence[BaseModel]) -> None:
        """Let the mean teachers start from the weights that the students start from."""
        for teacher, student in zip(self.mean_teachers, students, strict=True):
            if not teacher.steps:
                teacher.update_parameters(student)

    def after_update(self, students: Sequence[BaseModel]) -> None:
        """Let the mean teachers follow the students; they are plain means at first.

        mmengine's ``MomentumAnnealingEMA`` does the same, but waits for the device at every weight.
        """
        for teacher in self.mean_teachers:
            teacher.momentum = max(self.momentum, 1 / (1 + int(teacher.steps)))
        super().after_update(students)

    def compute_distill_losses(self, records: Records, labels: Tensor) -> dict[str, Tensor]:
        """Loss of the classifier on all features; what it and the mean teachers teach."""
        logits, w = records['logits'], self.ramp_up()
        fused, teachers = self.fused_logits(records), self.teacher_logits(records['image'])
        return dict(
            loss_fused=classification_loss(self.head.loss_module, fused, labels),
            loss_transfer=w * sum(self.loss_transfer(z, fused) for z in logits),
            loss_peers=w * self.peer_losses(logits, teachers),
        )
