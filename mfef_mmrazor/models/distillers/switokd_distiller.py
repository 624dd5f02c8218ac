"""SwitOKD: switchable online knowledge distillation."""

from collections.abc import Sequence
from itertools import permutations

from mmengine.dist import all_reduce
from mmengine.model import BaseModel
from mmrazor.registry import MODELS
from torch import Tensor

from ...cfg_type import Cfg
from ...functional import distillation_gap, is_expert
from ..losses.logit_losses import build_loss
from .online_distiller import LOGITS_ALONE, OnlineDistiller, Records


@MODELS.register_module()
class SwitOKDDistiller(OnlineDistiller):
    r"""A teacher that is too far ahead of its student waits for it (Switchable Online Knowledge
    Distillation, https://arxiv.org/abs/2209.04996).

    The last ``num_teachers`` of the students are the teachers t, larger networks; the students s
    before them will be deployed. All start from scratch. For every batch, each pair of student and
    teacher is in one of two modes: in *expert mode*, :math:`e_{st} = 1`, if the teacher is nearer
    to the labels than the student and the gap between both is too large to learn from,

    .. math:: G > \delta = s - e^{-t / (t + s)}\,t \quad \text{and} \quad t < s,

    with the distances :func:`~mfef_mmrazor.functional.distillation_gap`; otherwise in *learning
    mode*. A teacher with a student in learning mode learns from the labels, that student and the
    other teachers; without one it is paused:

    .. math::
        L_s &= \mathrm{CE}(z_s, y) + \sum_{j \ne s} \mathrm{KD}_\tau(\mathrm{sg}\,z_j \to z_s) \\
        L_t &= l_t \Big\{\mathrm{CE}(z_t, y)
          + \sum_{t' \ne t} \mathrm{KD}_\tau(\mathrm{sg}\,z_{t'} \to z_t)
          + \sum_s (1 - e_{st})\,\mathrm{KD}_\tau(\mathrm{sg}\,z_s \to z_t)\Big\}, \quad
          l_t = \max_s (1 - e_{st})

    The students' own cross-entropies are not repeated here: their heads compute them. A paused
    teacher stands still: :class:`DistillerUpdateHook` takes its gradients away before the optimizer
    steps, so that neither momentum nor weight decay moves it. Its losses are still in the log, and
    the statistics of its batch norm go on, as it still sees the batch. Several processes decide
    together, by the mean of their distances.

    ``expert_share`` in the log is the share of pairs in expert mode, in the epoch so far.

    Args:
        num_teachers: How many of the last students are teachers.
        loss_mutual: Config of what one network teaches another.
        tau: Temperature, where ``loss_mutual`` does not set its own. The modes go by T = 1.
        num_students: m, teachers included, filled in by :class:`OnlineDistill`.
        recorders: See :class:`OnlineDistiller`.
        init_cfg: Initialization config.

    Raises:
        ValueError: ``num_teachers`` is not between 1 and m - 1, or ``tau`` is not positive; or, at
            the second step, :class:`DistillerUpdateHook` is missing.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import SwitOKDDistiller
        >>> student, teacher = torch.zeros(1, 10), torch.full((1, 10), -9.0)
        >>> teacher[0, :2] = torch.tensor([0.4, 0.0])  # sure that it is one of two classes
        >>> switokd = SwitOKDDistiller()
        >>> losses = switokd.compute_distill_losses(
        ...     dict(logits=[student, teacher]), torch.tensor([0]))
        >>> switokd.paused, losses['expert_share']
        ([1], tensor(1.))
    """

    default_recorders = LOGITS_ALONE
    shares_stages = False
    acts_on_updates = True
    decides_by_batch = True

    def __init__(
        self,
        num_teachers: int = 1,
        loss_mutual: Cfg = dict(type='KLDivergence'),
        tau: float = 1.0,
        num_students: int = 2,
        recorders: Cfg | Sequence[Cfg] | None = None,
        init_cfg: Cfg | None = None,
    ) -> None:
        super().__init__(num_students, recorders, init_cfg=init_cfg)
        if not 1 <= num_teachers < num_students:
            raise ValueError(
                f'num_teachers={num_teachers}, expected 1 to {num_students - 1} of the '
                f'{num_students} students'
            )
        self.smaller = range(num_students - num_teachers)
        self.teachers = range(num_students - num_teachers, num_students)
        self.paused: list[int] = []
        self.counted_epoch, self.shares = -1, list[float]()
        self.loss_mutual = build_loss(loss_mutual, 'KLDivergence', tau)

    def compute_distill_losses(self, records: Records, labels: Tensor) -> dict[str, Tensor]:
        """What students and teachers learn from each other, and how many pairs are in expert mode.

        It also says who is ``paused``.
        """
        z = records['logits']
        expert = self.expert_pairs(z, labels)
        learning = {t for s, t in expert if not expert[s, t]}
        self.paused = [t for t in self.teachers if t not in learning]
        pairs = permutations(range(self.num_students), 2)
        mutual = sum(self.loss_mutual(z[i], z[j]) for i, j in pairs if not expert.get((j, i)))
        share = self.mean_of_epoch(sum(expert.values()) / len(expert))
        return dict(loss_mutual=mutual, expert_share=z[0].new_tensor(share))

    def expert_pairs(self, z: Sequence[Tensor], labels: Tensor) -> dict[tuple[int, int], bool]:
        """For every student and teacher, whether they are in expert mode for this batch."""
        found = {}
        for s in self.smaller:
            for t in self.teachers:
                gap = distillation_gap(z[s], z[t], labels)
                all_reduce(gap, 'mean')
                found[s, t] = is_expert(gap)
        return found

    def mean_of_epoch(self, share: float) -> float:
        """Mean over the batches since the epoch began (mmengine's log shows the last value)."""
        epoch = int(self.epoch())  # it has fractions in a training by iterations
        if epoch != self.counted_epoch:
            self.counted_epoch, self.shares = epoch, []
        self.shares.append(share)
        return sum(self.shares) / len(self.shares)

    def before_update(self, students: Sequence[BaseModel]) -> None:
        """Take the gradients of paused teachers away: the optimizer passes them over."""
        for teacher in self.paused:
            for parameter in students[teacher].parameters():
                parameter.grad = None
