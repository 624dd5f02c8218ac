"""No distillation: the baseline of every comparison."""

from mmrazor.registry import MODELS
from torch import Tensor

from .online_distiller import LOGITS_ALONE, OnlineDistiller, Records


@MODELS.register_module()
class IndependentDistiller(OnlineDistiller):
    r"""Students side by side, each on its own labels alone.

    .. math:: L = \sum_i \mathrm{CE}(z_i, y)

    The baseline, in the same training loop as the other methods: the same batches, optimizer,
    initial weights and evaluation, with the ensemble's accuracy beside the students'.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import IndependentDistiller
        >>> records = dict(logits=[torch.randn(4, 10) for _ in range(2)])
        >>> IndependentDistiller().compute_distill_losses(records, torch.tensor([1, 2, 3, 4]))
        {}
    """

    takes_multi_label = True
    default_recorders = LOGITS_ALONE

    def compute_distill_losses(self, records: Records, labels: Tensor) -> dict[str, Tensor]:
        """None at all: the students' own heads compute theirs."""
        return {}
