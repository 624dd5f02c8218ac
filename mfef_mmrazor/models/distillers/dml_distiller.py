"""DML: deep mutual learning."""

from collections.abc import Sequence

from mmrazor.registry import MODELS
from torch import Tensor

from ...cfg_type import Cfg
from ..losses.logit_losses import build_loss
from .online_distiller import LOGITS_ALONE, OnlineDistiller, Records


@MODELS.register_module()
class DMLDistiller(OnlineDistiller):
    r"""Every student learns from every other one (Deep Mutual Learning,
    https://arxiv.org/abs/1706.00384).

    .. math:: L = \sum_i \Big\{ \mathrm{CE}(z_i, y) + \frac{w}{m-1} \sum_{j \ne i}
        \mathrm{KD}_\tau(\mathrm{sg}\,z_j \to z_i) \Big\}

    The students' own cross-entropies are not repeated here: their heads compute them. As in the
    paper the temperature is 1 and there is no ramp-up w. Without one the first steps at a high
    learning rate can diverge, see ``configs/dml/README.md``.

    Args:
        loss_mutual: Config of the loss over all ordered pairs; ``type`` and ``tau`` may be left
            out.
        tau: Temperature, where ``loss_mutual`` does not set its own.
        ramp_up_epochs: R, in epochs; 0 for none.
        num_students: m, filled in by :class:`OnlineDistill`.
        recorders: See :class:`OnlineDistiller`.
        init_cfg: Initialization config.
        ramp_up_iters: R in iterations, instead of ``ramp_up_epochs``.

    Raises:
        ValueError: There are fewer than two students, or ``tau`` is not positive.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import DMLDistiller
        >>> same = dict(logits=[torch.ones(4, 10)] * 2)
        >>> DMLDistiller().compute_distill_losses(same, torch.tensor([1, 2, 3, 4]))
        {'loss_mutual': tensor(0.)}
    """

    takes_multi_label = True
    default_recorders = LOGITS_ALONE

    def __init__(
        self,
        loss_mutual: Cfg = dict(type='MutualKLDivergence'),
        tau: float = 1.0,
        ramp_up_epochs: float = 0,
        num_students: int = 2,
        recorders: Cfg | Sequence[Cfg] | None = None,
        init_cfg: Cfg | None = None,
        ramp_up_iters: int | None = None,
    ) -> None:
        super().__init__(num_students, recorders, ramp_up_epochs, init_cfg, ramp_up_iters)
        self.loss_mutual = build_loss(loss_mutual, 'MutualKLDivergence', tau)

    def compute_distill_losses(self, records: Records, labels: Tensor) -> dict[str, Tensor]:
        """What the students teach each other."""
        return dict(loss_mutual=self.ramp_up() * self.loss_mutual(records['logits']))
