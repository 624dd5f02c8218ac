"""CL-ILR: collaborative learning of peers, as in ONE without the gate."""

from collections.abc import Sequence

from mmrazor.registry import MODELS
from torch import Tensor

from ...cfg_type import Cfg
from ...functional import peer_means
from ..losses.logit_losses import build_loss
from .online_distiller import LOGITS_ALONE, OnlineDistiller, Records


@MODELS.register_module()
class CLILRDistiller(OnlineDistiller):
    r"""The mean of the other students' logits teaches each student (Collaborative Learning for Deep
    Neural Networks, https://arxiv.org/abs/1805.11761).

    .. math:: L = \sum_i \Big\{\mathrm{CE}(z_i, y) + w\,\mathrm{KD}_\tau\Big(
        \mathrm{sg}\,\frac{1}{m-1} \sum_{j \ne i} z_j \to z_i\Big)\Big\}

    w is the ramp-up. The students' own cross-entropies are not repeated here: their heads compute
    them. The original's students are branches of one network, and at the branching point the
    gradient is divided by the number of students (its "intermediate-level representation sharing"):
    ``shared_stages`` and ``mean_trunk_gradient`` of :class:`OnlineDistill`. Separate networks have
    no branching point. With two of them, CL-ILR is DML at another temperature, with a ramp-up.

    Args:
        loss_transfer: Config of what the others teach each student; ``type`` and ``tau`` may be
            left out.
        tau: Temperature, where ``loss_transfer`` does not set its own.
        detach_targets: Whether the others' mean is a constant for those who learn from it (sg). The
            code that this follows lets the gradient through: with three students the distillation's
            gradient is then about half as large again.
        ramp_up_epochs: R, in epochs; 0 for none.
        num_students: m, filled in by :class:`OnlineDistill`.
        recorders: See :class:`OnlineDistiller`.
        init_cfg: Initialization config.
        ramp_up_iters: R in iterations, instead of ``ramp_up_epochs``.

    Raises:
        ValueError: There are fewer than two students, or ``tau`` is not positive.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import CLILRDistiller
        >>> same = dict(logits=[torch.ones(4, 10)] * 3)
        >>> CLILRDistiller(num_students=3).compute_distill_losses(same, torch.tensor([1, 2, 3, 4]))
        {'loss_transfer': tensor(0.)}
    """

    takes_multi_label = True
    default_recorders = LOGITS_ALONE

    def __init__(
        self,
        loss_transfer: Cfg = dict(type='KLDivergence'),
        tau: float = 3.0,
        detach_targets: bool = True,
        ramp_up_epochs: float = 80,
        num_students: int = 3,
        recorders: Cfg | Sequence[Cfg] | None = None,
        init_cfg: Cfg | None = None,
        ramp_up_iters: int | None = None,
    ) -> None:
        super().__init__(num_students, recorders, ramp_up_epochs, init_cfg, ramp_up_iters)
        self.loss_transfer = build_loss(
            loss_transfer, 'KLDivergence', tau, teacher_detach=detach_targets
        )

    def compute_distill_losses(self, records: Records, labels: Tensor) -> dict[str, Tensor]:
        """What each student learns from the others' mean."""
        logits = records['logits']
        pairs = zip(logits, peer_means(logits), strict=True)
        transfer = sum(self.loss_transfer(z, others) for z, others in pairs)
        return dict(loss_transfer=self.ramp_up() * transfer)
