"""DCCL: deep cross-layer collaborative learning."""

import math
from collections.abc import Sequence

from mmengine.model import ModuleList
from mmrazor.registry import MODELS
from torch import Tensor

from ...cfg_type import Cfg
from ...functional import mutual_loss
from ..builder import build_offering
from ..connectors.conv import conv_block
from ..losses.logit_losses import build_loss
from ..precision import full_precision
from .fused_classifier import FusedClassifier
from .online_distiller import DEFAULT_RECORDERS, HIDDEN_STAGES, OnlineDistiller, Records
from .recorded_maps import check_maps, stages_of_all


class CrossLayerKnowledge(ModuleList):
    r"""Adds to the map of every stage what the earlier ones say: :math:`k_s = x_s + \sum_{p<s}
    P_{p \to s}(x_p)`.

    A projection P is a convolution whose kernel is as large as its stride, batch norm and ReLU.

    Args:
        in_channels: Channels of the stages' maps.
        strides: How many times smaller each stage's map is than the one before.
    """

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        for s, channels in enumerate(in_channels):
            ratios = [math.prod(strides[p:s]) for p in range(s)]
            self.append(
                ModuleList(
                    conv_block(earlier, channels, ratio, stride=ratio)
                    for earlier, ratio in zip(in_channels, ratios, strict=False)
                )
            )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C_s, H_s, W_s) to maps of the same shapes."""
        knowledge = []
        for x, projections in zip(maps, self, strict=True):
            pairs = zip(projections, maps, strict=False)
            earlier = [full_precision(project(y)) for project, y in pairs]
            sizes = {tuple(map(int, y.shape[2:])) for y in [x, *earlier]}
            if len(sizes) > 1:
                raise ValueError(
                    f'strides: the map of a stage and those projected to it are {sorted(sizes)}, '
                    "expected one size; set each stride to the size of a stage's map divided by "
                    'that of the next one. It must be a whole number: maps of odd sizes do not fit'
                )
            knowledge.append(sum(earlier, x))
        return knowledge


@MODELS.register_module()
class DCCLDistiller(OnlineDistiller):
    r"""Students and a fused classifier teach each other their predictions. The students also teach
    each other the maps of their stages, with projected maps of earlier stages added (Deep
    Cross-layer Collaborative Learning, https://doi.org/10.1109/TCSVT.2022.3222013).

    For the maps :math:`x_i^s` of student i after stage s, the last of which are fused as in FFL:

    .. math::
        k_i^s &= x_i^s + \sum_{p < s} P_i^{p \to s}(x_i^p), \quad
          z_f = \mathrm{head}(\mathrm{GAP}(\mathrm{fusion}(x_1^S, \dots, x_m^S))) \\
        L &= \sum_i \mathrm{CE}(z_i, y) + \mathrm{CE}(z_f, y)
          + w \sum_i \{\mathrm{KD}_\tau(\mathrm{sg}\,z_f \to z_i)
          + \mathrm{KD}_\tau(\mathrm{sg}\,z_i \to z_f)\} \\
          &+ \frac{w}{m-1} \sum_{i \ne j} \Big\{\mathrm{KD}_\tau(\mathrm{sg}\,z_j \to z_i)
          + \sum_s \mathrm{KD}_\tau(\mathrm{sg}\,\mathrm{flat}(k_j^s) \to
          \mathrm{flat}(k_i^s))\Big\}

    w is the ramp-up. The last KD takes a whole map for one vector of logits,
    :func:`~mfef_mmrazor.functional.map_kd_loss`. The students' own cross-entropies are not repeated
    here: their heads compute them. Maps are not detached where they are fused or projected.

    Args:
        in_channels: Channels of the maps of the three stages, of every student alike.
        num_classes: K.
        strides: How many times smaller each stage's map is than the one before.
        fusion: Config of the feature fusion.
        head: Config of the fused classifier and its loss.
        loss_mutual: Config of what the students teach each other.
        loss_transfer: Config of what the fused classifier teaches each student.
        loss_feedback: Config of what each student teaches the fused classifier.
        loss_map: Config of what a stage's map of one student teaches another's; ``type`` and
            ``tau`` may be left out.
        tau: Temperature, where the losses do not set their own.
        ramp_up_epochs: R, in epochs; 0 for none.
        num_students: m, filled in by :class:`OnlineDistill`.
        recorders: See :class:`OnlineDistiller`; beside the usual ones, ``stage1`` and ``stage2``
            are the maps of the stages before the last.
        init_cfg: Initialization config.
        ramp_up_iters: R in iterations, instead of ``ramp_up_epochs``.

    Raises:
        ValueError: ``in_channels`` does not have three numbers, or ``strides`` two, or ``tau`` is
            not positive; or, at the first step, a recorded map has other channels than
            ``in_channels`` says, or its size does not fit the strides.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import DCCLDistiller
        >>> dccl = DCCLDistiller(in_channels=[16, 32, 64], num_classes=10)
        >>> records = dict(logits=[torch.randn(4, 10) for _ in range(2)],
        ...                stage1=[torch.rand(4, 16, 16, 16) for _ in range(2)],
        ...                stage2=[torch.rand(4, 32, 8, 8) for _ in range(2)],
        ...                feature=[torch.rand(4, 64, 4, 4) for _ in range(2)])
        >>> list(dccl.compute_distill_losses(records, torch.tensor([1, 2, 3, 4])))
        ['loss_fused', 'loss_mutual', 'loss_transfer', 'loss_feedback', 'loss_map']
    """

    takes_multi_label = True
    default_recorders = {**HIDDEN_STAGES, **DEFAULT_RECORDERS}
    stages = (*HIDDEN_STAGES, 'feature')

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        strides: Sequence[int] = (2, 2),
        fusion: Cfg = dict(type='FeatureFusionConnector'),
        head: Cfg = dict(type='mmpretrain.LinearClsHead'),
        loss_mutual: Cfg = dict(type='MutualKLDivergence'),
        loss_transfer: Cfg = dict(type='KLDivergence'),
        loss_feedback: Cfg = dict(type='KLDivergence'),
        loss_map: Cfg = dict(type='MapKLDivergence'),
        tau: float = 3.0,
        ramp_up_epochs: float = 80,
        num_students: int = 2,
        recorders: Cfg | Sequence[Cfg] | None = None,
        init_cfg: Cfg | None = None,
        ramp_up_iters: int | None = None,
    ) -> None:
        super().__init__(num_students, recorders, ramp_up_epochs, init_cfg, ramp_up_iters)
        self.num_classes = num_classes
        self.in_channels = stages_of_all(in_channels, len(self.stages), num_students)
        number = len(self.stages) - 1
        whole = isinstance(strides, Sequence) and all(isinstance(s, int) and s > 0 for s in strides)
        if not whole or len(strides) != number:
            raise ValueError(f'strides={strides!r}, expected {number} whole numbers, 1 or more')
        self.knowledge = ModuleList(
            CrossLayerKnowledge(self.in_channels, strides) for _ in range(num_students)
        )
        self.fused_classifier = FusedClassifier(
            self.in_channels[-1], num_students, num_classes, fusion, head
        )
        self.loss_mutual = build_loss(loss_mutual, 'MutualKLDivergence', tau)
        self.loss_transfer = build_loss(loss_transfer, 'KLDivergence', tau)
        self.loss_feedback = build_loss(loss_feedback, 'KLDivergence', tau)
        self.loss_map = build_offering(loss_map, 'MapKLDivergence', tau=tau)

    def compute_distill_losses(self, records: Records, labels: Tensor) -> dict[str, Tensor]:
        """Losses of the fused classifier, what it and the students teach each other, and maps."""
        logits, w = records['logits'], self.ramp_up()
        fused = self.fused_logits(records)
        stages = zip(*self.stage_knowledge(records), strict=True)
        return dict(
            loss_fused=self.fused_classifier.loss(fused, labels),
            loss_mutual=w * self.loss_mutual(logits),
            loss_transfer=w * sum(self.loss_transfer(z, fused) for z in logits),
            loss_feedback=w * sum(self.loss_feedback(fused, z) for z in logits),
            loss_map=w * sum(mutual_loss(maps, self.loss_map) for maps in stages),
        )

    def stage_knowledge(self, records: Records) -> list[list[Tensor]]:
        """k of every stage, student by student."""
        for stage, channels in zip(self.stages, self.in_channels, strict=True):
            check_maps(records[stage], [channels] * self.num_students, stage)
        maps = zip(*(records[stage] for stage in self.stages), strict=True)
        return [join(own) for join, own in zip(self.knowledge, maps, strict=True)]

    def fused_logits(self, records: Records) -> Tensor:
        """Logits of the fused classifier, (B, K)."""
        _, logits = self.fused_classifier(records['feature'])
        return logits
