"""DCM: dense cross-layer mutual distillation."""

from collections.abc import Sequence
from itertools import permutations, product

from mmengine.model import ModuleList
from mmrazor.registry import MODELS
from torch import Tensor, nn

from ...cfg_type import Cfg
from ..builder import arguments_of, build, find
from ..losses.logit_losses import build_loss
from ..precision import full_precision
from .online_distiller import (
    HIDDEN_STAGES,
    LOGITS_ALONE,
    OnlineDistiller,
    Records,
    classification_loss,
)
from .recorded_maps import check_maps, stages_per_student


@MODELS.register_module()
class DCMDistiller(OnlineDistiller):
    r"""Adds classifiers on the students' hidden stages; each classifier of a student learns from
    all classifiers of the other students (Dense Cross-layer Mutual-distillation,
    https://arxiv.org/abs/2008.07816).

    Student i has the logits :math:`z_i^3 = z_i` and those of a classifier on each of two hidden
    stages, :math:`z_i^1` and :math:`z_i^2`:

    .. math:: L = \sum_i \sum_a \mathrm{CE}(z_i^a, y) + \frac{1}{m-1} \sum_{i \ne j} \sum_{a, b}
        \mathrm{KD}_\tau(\mathrm{sg}\,z_j^b \to z_i^a)

    So what a deep layer knows teaches shallow ones, and the other way round. The students' own
    cross-entropies, a = 3, are not repeated here: their heads compute them. The hidden classifiers
    are there for training only.

    Args:
        in_channels: Channels of the maps of the two hidden stages, such as ``[16, 32]``, or a list
            of such a pair for each student.
        num_classes: K.
        classifier: Config of the classifier on a hidden stage; ``type`` and what is known here may
            be left out. The one on the first stage has one stage more than that on the second.
        loss_ce: Config of the hidden classifiers' loss on the labels.
        loss_mutual: Config of what one classifier teaches another; ``type``, ``tau`` and
            ``loss_weight``, 1 / (m - 1), may be left out.
        tau: Temperature, where ``loss_mutual`` does not set its own.
        ramp_up_epochs: R, in epochs, of a weight on the second sum; 0 (the original) for none.
        num_students: m, filled in by :class:`OnlineDistill`.
        recorders: See :class:`OnlineDistiller`; beside the usual ones, ``stage1`` and ``stage2``
            are the maps of the hidden stages.
        init_cfg: Initialization config.
        ramp_up_iters: R in iterations, instead of ``ramp_up_epochs``.

    Raises:
        ValueError: ``in_channels`` is not a pair for each student, or ``tau`` is not positive; or,
            at the first step, a recorded map has other channels than ``in_channels`` says.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import DCMDistiller
        >>> dcm = DCMDistiller(in_channels=[16, 32], num_classes=10)
        >>> records = dict(logits=[torch.randn(4, 10) for _ in range(2)],
        ...                stage1=[torch.rand(4, 16, 8, 8) for _ in range(2)],
        ...                stage2=[torch.rand(4, 32, 4, 4) for _ in range(2)])
        >>> sorted(dcm.compute_distill_losses(records, torch.tensor([1, 2, 3, 4])))
        ['loss_hidden', 'loss_mutual']
    """

    takes_multi_label = True
    default_recorders = {**LOGITS_ALONE, **HIDDEN_STAGES}

    def __init__(
        self,
        in_channels: Sequence[int] | Sequence[Sequence[int]],
        num_classes: int,
        classifier: Cfg = dict(type='AuxiliaryClassifier'),
        loss_ce: Cfg = dict(type='mmpretrain.CrossEntropyLoss'),
        loss_mutual: Cfg = dict(type='KLDivergence'),
        tau: float = 1.0,
        ramp_up_epochs: float = 0,
        num_students: int = 2,
        recorders: Cfg | Sequence[Cfg] | None = None,
        init_cfg: Cfg | None = None,
        ramp_up_iters: int | None = None,
    ) -> None:
        super().__init__(num_students, recorders, ramp_up_epochs, init_cfg, ramp_up_iters)
        self.num_classes = num_classes
        self.in_channels = stages_per_student(in_channels, len(HIDDEN_STAGES), num_students)
        kind = {'type': 'AuxiliaryClassifier', **classifier}
        takes, takes_more = arguments_of(find(kind))
        counts = takes_more or 'num_stages' in takes  # one of your own need not

        def after(stage: int, channels: Sequence[int]) -> nn.Module:
            stages = dict(num_stages=len(channels) - stage) if counts else {}
            return build(kind, in_channels=channels[stage], num_classes=num_classes, **stages)

        self.classifiers = ModuleList(
            ModuleList(after(stage, channels) for stage in range(len(channels)))
            for channels in self.in_channels
        )
        self.loss_ce = build(loss_ce, type='mmpretrain.CrossEntropyLoss')
        share = 1 / (num_students - 1)
        self.loss_mutual = build_loss(loss_mutual, 'KLDivergence', tau, loss_weight=share)

    def compute_distill_losses(self, records: Records, labels: Tensor) -> dict[str, Tensor]:
        """What the hidden classifiers learn from the labels, and all of them from each other."""
        hidden = self.hidden_logits(records)
        outputs = [[*own, z] for own, z in zip(hidden, records['logits'], strict=True)]
        mutual = sum(
            self.loss_mutual(learner, teacher)
            for one, other in permutations(outputs, 2)
            for learner, teacher in product(one, other)
        )
        return dict(
            loss_hidden=sum(
                classification_loss(self.loss_ce, z, labels) for own in hidden for z in own
            ),
            loss_mutual=self.ramp_up() * mutual,
        )

    def hidden_logits(self, records: Records) -> list[list[Tensor]]:
        """Logits (B, K) of the classifiers on the hidden stages, student by student."""
        maps = list(zip(*(records[stage] for stage in HIDDEN_STAGES), strict=True))
        for i, stage in enumerate(HIDDEN_STAGES):
            check_maps(records[stage], [channels[i] for channels in self.in_channels], stage)
        return [
            [full_precision(classify(x)) for classify, x in zip(classifiers, own, strict=True)]
            for classifiers, own in zip(self.classifiers, maps, strict=True)
        ]
