"""KDCL: online knowledge distillation via collaborative learning."""

from collections.abc import Sequence

from mmrazor.registry import MODELS
from torch import Tensor

from ...cfg_type import Cfg
from ...functional import (
    general_weights,
    linear_target,
    minlogit_target,
    naive_target,
    weighted_logits,
)
from ..builder import nearest
from ..losses.logit_losses import build_loss, check_weights
from .online_distiller import LOGITS_ALONE, OnlineDistiller, Records

TARGETS = dict(minlogit=minlogit_target, naive=naive_target, linear=linear_target)
VARIANTS = [*TARGETS, 'general']


@MODELS.register_module()
class KDCLDistiller(OnlineDistiller):
    r"""One target, made of all students' logits and the labels, teaches every student (KDCL, Guo et
    al., CVPR 2020,
    https://openaccess.thecvf.com/content_CVPR_2020/html/Guo_Online_Knowledge_Distillation_via_Collaborative_Learning_CVPR_2020_paper.html).

    .. math:: L = \sum_i \{ \mathrm{CE}(z_i, y)
        + \lambda\,\mathrm{KD}_\tau(\mathrm{sg}\,z_t \to z_i) \}

    The target :math:`z_t` is made for every sample, and never worse on the labels than the best
    student: :func:`~mfef_mmrazor.functional.minlogit_target`,
    :func:`~mfef_mmrazor.functional.naive_target` or
    :func:`~mfef_mmrazor.functional.linear_target`. Or it is ``'general'``, one mixture for all,

    .. math:: z_t = \sum_i w_i z_i

    whose weights are best on training images that are held out
    (:func:`~mfef_mmrazor.functional.general_weights`): before every epoch, :class:`HeldOutHook`
    finds them, and they are written to the log. What is known of the paper does not settle whether
    logits or probabilities are mixed. Logits are mixed here, since with negative weights a mixture
    of probabilities need not be a distribution.

    In the paper each student sees an augmentation of its own: see
    ``configs/_base_/datasets/*_views.py``. The students' own cross-entropies are not repeated here:
    their heads compute them.

    Args:
        variant: ``'minlogit'``, ``'naive'``, ``'linear'`` or ``'general'``.
        tau: Temperature.
        loss_weight: :math:`\lambda`.
        loss_transfer: Config of what the target teaches; ``type``, ``tau`` and ``loss_weight`` may
            be left out.
        num_students: m, filled in by :class:`OnlineDistill`.
        recorders: See :class:`OnlineDistiller`.
        init_cfg: Initialization config.

    Raises:
        ValueError: The variant is unknown, ``tau`` is not positive, or ``loss_weight`` is negative;
            or, at a step, the labels are mixed ones (B, K) and the variant is ``'minlogit'``, or no
            weights were found for ``'general'``.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import KDCLDistiller
        >>> same = dict(logits=[torch.ones(4, 10)] * 2)
        >>> KDCLDistiller().compute_distill_losses(same, torch.tensor([1, 2, 3, 4]))
        {'loss_transfer': tensor(0.)}
    """

    default_recorders = LOGITS_ALONE

    def __init__(
        self,
        variant: str = 'minlogit',
        tau: float = 2.0,
        loss_weight: float = 1.0,
        loss_transfer: Cfg = dict(type='KLDivergence'),
        num_students: int = 2,
        recorders: Cfg | Sequence[Cfg] | None = None,
        init_cfg: Cfg | None = None,
    ) -> None:
        super().__init__(num_students, recorders, init_cfg=init_cfg)
        if variant not in VARIANTS:
            raise ValueError(
                f'variant={variant!r}, expected one of {VARIANTS}{nearest(str(variant), VARIANTS)}'
            )
        check_weights(loss_weight=loss_weight)
        self.variant = variant
        self.weights: Tensor | None = None  # found anew before every epoch
        self.loss_transfer = build_loss(loss_transfer, 'KLDivergence', tau, loss_weight=loss_weight)

    def compute_distill_losses(self, records: Records, labels: Tensor) -> dict[str, Tensor]:
        """What the common target teaches the students."""
        logits = records['logits']
        target = self.target(logits, labels)
        return dict(loss_transfer=sum(self.loss_transfer(z, target) for z in logits))

    def target(self, logits: Sequence[Tensor], labels: Tensor) -> Tensor:
        """The common target, (B, K)."""
        if self.variant != 'general':
            return TARGETS[self.variant](logits, labels)
        if self.weights is None:
            raise ValueError(
                "variant='general' has no weights: they are found on held-out training images, by "
                "dict(type='mmrazor.HeldOutHook') in custom_hooks"
            )
        return weighted_logits(self.weights.expand(len(labels), -1), logits)

    def learn_held_out(self, logits: Sequence[Tensor], labels: Tensor) -> None:
        """Find the weights of ``'general'`` from logits on held-out images."""
        self.weights = general_weights(logits, labels).to(logits[0])
        found = ', '.join(f'{w:.3f}' for w in self.weights)
        self.log(f'weights {found}, best on {len(labels)} held-out training images')
