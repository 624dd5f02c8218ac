"""FFSD: feature fusion and self-distillation."""

import itertools
from collections.abc import Sequence

import torch
from mmcv.cnn import DepthwiseSeparableConvModule
from mmengine.model import ModuleList
from mmrazor.registry import MODELS
from torch import Tensor, nn

from ...cfg_type import Cfg
from ...functional import shifted_map
from ..losses import AttentionMapLoss, DiversityLoss, WholeMapLoss
from ..losses.logit_losses import build_loss, check_weights
from ..precision import full_precision
from .fused_classifier import FusedClassifier
from .online_distiller import DEFAULT_RECORDERS, HIDDEN_STAGES, OnlineDistiller, Records
from .recorded_maps import check_maps, stages_of_all


class MapDecoder(nn.ModuleList):
    """Reconstructs the earlier stages' maps from the last one; each is twice as large as the next.

    Args:
        in_channels: Channels of the stages' maps, the last one, which comes in, included.
    """

    def __init__(self, in_channels: Sequence[int]) -> None:
        super().__init__(
            nn.Sequential(
                nn.ConvTranspose2d(deep, shallow, 3, 2, padding=1, output_padding=1, bias=False),
                nn.BatchNorm2d(shallow),
                nn.ReLU(),
            )
            for shallow, deep in reversed(list(itertools.pairwise(in_channels)))
        )

    def forward(self, feature: Tensor) -> list[Tensor]:
        """Maps of the earlier stages, the first stage first."""
        maps = []
        for block in self:
            feature = block(feature)
            maps.append(full_precision(feature))
        return maps[::-1]

    @torch.no_grad()
    def teach(self, feature: Tensor) -> list[Tensor]:
        """The same maps as constants, by the running statistics of batch norm."""
        modes = [(module, module.training) for module in self.modules()]
        with torch.autocast(feature.device.type, enabled=False):  # shifted maps overflow in fp16
            maps = self.eval()(full_precision(feature))
        for module, training in modes:  # frozen batch norm stays frozen
            module.training = training
        return maps


def imitation(loss: nn.Module, maps: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Loss of the maps of all stages but the last against a decoder's."""
    return sum(loss(x, target) for x, target in zip(maps[:-1], targets, strict=True))


@MODELS.register_module()
class FFSDDistiller(OnlineDistiller):
    r"""Diverse students teach each other, and a leader learns from their fused maps and from
    decoders that turn deep maps into shallow ones (FFSD, https://arxiv.org/abs/2103.14473).

    The first student is the leader, L, and the one to deploy; the other m are common students, 1 to
    m. :math:`F_i` is a student's last map, :math:`F_i^s` those of the stages before. Every target
    and every map that goes into the fusion is a constant (sg):

    .. math::
        \hat F &= \mathrm{fusion}(F_1, \dots, F_m), \quad
          z_f = \mathrm{head}(\mathrm{GAP}(\hat F)) \\
        L_i &= \mathrm{CE}(z_i, y) + \frac{1}{m-1} \sum_{j \ne i} \mathrm{KD}_\tau(z_j \to z_i)
          + [i > 1]\,w \lambda_d \big\{\mathrm{div}(F_i, F_{i-1})
          + \textstyle\sum_s \mathrm{att}(F_i^s, D_i^s(\mathrm{shift}(F_{i-1})))\big\} \\
        L_f &= \mathrm{CE}(z_f, y) + \mathrm{KD}_\tau(\bar z \to z_f) \\
        L_L &= \mathrm{CE}(z_L, y) + \mathrm{KD}_\tau(z_f \to z_L) + w \lambda_f \big\{
          \mathrm{att}(F_L, \hat F) + \mathrm{att}(T(F_L), [F_1, \dots, F_m])
          + \textstyle\sum_s \mathrm{att}(F_L^s, D_L^s(\hat F))\big\} \\
        L_D &= w \lambda_D \textstyle\sum_{i = L, 2, \dots, m} \sum_s \big\{
          \mathrm{whole}(D_i^s(F_i), F_i^s) + \mathrm{att}(D_i^s(F_i), F_i^s)\big\}

    where :math:`\mathrm{div}`, :math:`\mathrm{shift}`, :math:`\mathrm{att}` and
    :math:`\mathrm{whole}` are :func:`~mfef_mmrazor.functional.diversity_loss`,
    :func:`~mfef_mmrazor.functional.shifted_map`,
    :func:`~mfef_mmrazor.functional.attention_map_loss` and
    :func:`~mfef_mmrazor.functional.whole_map_loss`; :math:`D_i` is a decoder of transposed
    convolutions, one for the leader and for every common student but the first; T widens the
    leader's map to m times its channels. w is the ramp-up, of the lambdas only. The students' own
    cross-entropies are not repeated here: their heads compute them.

    The original trains students, fusion, leader and decoders one after another, with an optimizer
    each, after all of them have run. As no loss reaches another one's parameters, one joint step
    with the sum of the losses has the very same gradients. What differs is the optimizer: the
    original's decoders learn with Adam at 1e-3, here with the common one, at a rate of their own if
    ``paramwise_cfg`` has one for ``distiller.decoders``.

    Args:
        in_channels: Channels of the maps of the three stages, of every student alike.
        num_classes: K.
        fusion: Config of the feature fusion.
        head: Config of the classifier on the fused map, and of its loss.
        loss_mutual: Config of what the common students teach each other.
        loss_ensemble: Config of what their mean teaches the fused classifier.
        loss_transfer: Config of what the fused classifier teaches the leader.
        tau: Temperature, where these three do not set their own.
        diversity_weight: :math:`\lambda_d`.
        fusion_weight: :math:`\lambda_f`.
        decoder_weight: :math:`\lambda_D`.
        ramp_up_epochs: R, in epochs; 0 for none.
        num_students: m + 1, the leader included, at least 3; filled in by :class:`OnlineDistill`.
        recorders: See :class:`OnlineDistiller`; beside the usual ones, ``stage1`` and ``stage2``
            are the maps of the stages before the last.
        init_cfg: Initialization config.
        ramp_up_iters: R in iterations, instead of ``ramp_up_epochs``.

    Raises:
        ValueError: There are fewer than three students, ``in_channels`` does not have three
            numbers, ``tau`` is not positive, or a weight is negative; or, at the first step, a
            recorded map has other channels than ``in_channels`` says, or is not twice as large as
            that of the next stage.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import FFSDDistiller
        >>> ffsd = FFSDDistiller(in_channels=(16, 32, 64), num_classes=100)
        >>> records = dict(logits=[torch.randn(4, 100) for _ in range(3)],
        ...                stage1=[torch.rand(4, 16, 32, 32) for _ in range(3)],
        ...                stage2=[torch.rand(4, 32, 16, 16) for _ in range(3)],
        ...                feature=[torch.rand(4, 64, 8, 8) for _ in range(3)])
        >>> for name in ffsd.compute_distill_losses(records, torch.tensor([1, 2, 3, 4])):
        ...     print(name)
        loss_mutual
        loss_diversity
        loss_shallow
        loss_fused
        loss_ensemble
        loss_transfer
        loss_map
        loss_decoders
    """

    default_recorders = {**HIDDEN_STAGES, **DEFAULT_RECORDERS}
    stages = (*HIDDEN_STAGES, 'feature')
    takes_multi_label = True
    renamed_weights = FusedClassifier.RENAMED
    shares_stages = False

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        fusion: Cfg = dict(type='FeatureFusionConnector'),
        head: Cfg = dict(type='mmpretrain.LinearClsHead'),
        loss_mutual: Cfg = dict(type='MutualKLDivergence'),
        loss_ensemble: Cfg = dict(type='EnsembleKLDivergence'),
        loss_transfer: Cfg = dict(type='KLDivergence'),
        tau: float = 2.0,
        diversity_weight: float = 1e-5,
        fusion_weight: float = 10.0,
        decoder_weight: float = 1000.0,
        ramp_up_epochs: float = 5,
        num_students: int = 3,
        recorders: Cfg | Sequence[Cfg] | None = None,
        init_cfg: Cfg | None = None,
        ramp_up_iters: int | None = None,
    ) -> None:
        super().__init__(num_students, recorders, ramp_up_epochs, init_cfg, ramp_up_iters)
        if num_students < 3:
            raise ValueError(
                f'FFSD has a leader and at least two common students, so at least 3 students, but '
                f'there are {num_students}: list another one in `students`'
            )
        self.in_channels = stages_of_all(in_channels, len(self.stages), num_students)
        self.num_classes = num_classes
        channels, common = self.in_channels[-1], num_students - 1
        self.fused_classifier = FusedClassifier(channels, common, num_classes, fusion, head)
        self.widen = DepthwiseSeparableConvModule(
            channels, common * channels, 3, padding=1, norm_cfg=dict(type='BN'), inplace=False
        )
        self.decoders = ModuleList(MapDecoder(self.in_channels) for _ in range(common))

        self.loss_mutual = build_loss(loss_mutual, 'MutualKLDivergence', tau)
        self.loss_ensemble = build_loss(loss_ensemble, 'EnsembleKLDivergence', tau)
        self.loss_transfer = build_loss(loss_transfer, 'KLDivergence', tau)
        check_weights(
            diversity_weight=diversity_weight,
            fusion_weight=fusion_weight,
            decoder_weight=decoder_weight,
        )
        self.loss_diversity = DiversityLoss(diversity_weight)
        self.loss_shallow = AttentionMapLoss(diversity_weight)
        self.loss_map = AttentionMapLoss(fusion_weight)
        self.loss_decoded = WholeMapLoss(decoder_weight)
        self.loss_attended = AttentionMapLoss(decoder_weight)

    def compute_distill_losses(self, records: Records, labels: Tensor) -> dict[str, Tensor]:
        """What common students, fusion, leader and decoders learn."""
        for stage, channels in zip(self.stages, self.in_channels, strict=True):
            check_maps(records[stage], [channels] * self.num_students, stage)
        self.check_sizes(records)
        w = self.ramp_up()
        leader_logits, *common_logits = records['logits']
        leader, *common = zip(*(records[stage] for stage in self.stages), strict=True)
        last = [maps[-1].detach() for maps in common]
        fused_map, fused = self.fused_classifier(last)

        leaders_decoder, *decoders = self.decoders
        pairs = list(zip(common[1:], last[:-1], decoders, strict=True))
        diversity = sum(self.loss_diversity(maps[-1], previous) for maps, previous, _ in pairs)
        shallow = sum(
            imitation(self.loss_shallow, maps, decoder.teach(shifted_map(previous)))
            for maps, previous, decoder in pairs
        )
        leading = (
            self.loss_map(leader[-1], fused_map)
            + self.loss_map(full_precision(self.widen(leader[-1])), torch.cat(last, dim=1))
            + imitation(self.loss_map, leader, leaders_decoder.teach(fused_map))
        )
        decoding = sum(
            self.loss_decoded(decoded, x) + self.loss_attended(decoded, x)
            for maps, decoder in zip([leader, *common[1:]], self.decoders, strict=True)
            for x, decoded in zip(maps[:-1], decoder(maps[-1].detach()), strict=True)
        )
        return dict(
            loss_mutual=self.loss_mutual(common_logits),
            loss_diversity=w * diversity,
            loss_shallow=w * shallow,
            loss_fused=self.fused_classifier.loss(fused, labels),
            loss_ensemble=self.loss_ensemble(fused, common_logits),
            loss_transfer=self.loss_transfer(leader_logits, fused),
            loss_map=w * leading,
            loss_decoders=w * decoding,
        )

    def check_sizes(self, records: Records) -> None:
        """Raise a ``ValueError`` if a stage's map is not twice as large as the next one."""
        for stage, after in itertools.pairwise(self.stages):
            for i, (x, y) in enumerate(zip(records[stage], records[after], strict=True)):
                found, needed = tuple(x.shape[2:]), tuple(2 * side for side in y.shape[2:])
                if found != needed:
                    raise ValueError(
                        f'the recorded {stage} of student{i} is a map of {found}, expected '
                        f'{needed}, twice the size of {after}, since decoders double the size; '
                        'name such stages in distiller.recorders, or use images of another size'
                    )

    def fused_logits(self, records: Records) -> Tensor:
        """Logits of the fused classifier, (B, K)."""
        _, logits = self.fused_classifier([x.detach() for x in records['feature'][1:]])
        return logits
