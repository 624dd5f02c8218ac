"""MCL: mutual contrastive learning."""

from collections.abc import Sequence
from itertools import permutations, product

from mmengine.model import ModuleList
from mmrazor.registry import MODELS
from torch import Tensor

from ...cfg_type import Cfg
from ...functional import cosine_similarities, supervised_contrast
from ..builder import build
from ..losses.logit_losses import build_loss, check_temperature, check_weights
from ..precision import full_precision
from .online_distiller import OnlineDistiller, Records
from .recorded_maps import check_maps, one_per_student


@MODELS.register_module()
class MCLDistiller(OnlineDistiller):
    r"""Students learn embeddings by contrast, each on its own and against the others', and imitate
    what the others find similar (Mutual Contrastive Learning, https://arxiv.org/abs/2104.12565).

    For the last feature map :math:`F_i` of student i, the embeddings
    :math:`E_i = \mathrm{fc}(\mathrm{ReLU}(\mathrm{fc}(\mathrm{GAP}(F_i))))` of the batch, and their
    similarities :math:`S_{ij} = \cos(E_i, E_j) / t`, image by image, (B, B):

    .. math:: L = \sum_i \{ \mathrm{CE}(z_i, y) + \alpha\,\mathrm{SC}(S_{ii}, y) \}
        + \sum_{i \ne j} \{ \beta\,\mathrm{SC}(S_{ij}, y)
        + \mathrm{KD}_\tau(\mathrm{sg}\,S_{jj} \to S_{ii})
        + \mathrm{KD}_\tau(\mathrm{sg}\,S_{ji} \to S_{ij}) \}

    The terms with SC, :func:`~mfef_mmrazor.functional.supervised_contrast`, are vanilla (VCL) and
    interactive contrastive learning (ICL); the others, their soft forms, are between the rows of
    the similarities. The students' own cross-entropies are not repeated here: their heads compute
    them. The embeddings are there for training only.

    Args:
        in_channels: Channels of the recorded ``feature``: one number, or one for each student.
        embedding: Config of what turns a map into an embedding; one is built for each student.
        temperature: t.
        vcl_weight: :math:`\alpha`.
        icl_weight: :math:`\beta`.
        loss_soft_vcl: Config of what a student's similarities teach another's.
        loss_soft_icl: Config of what the similarities of two students teach each other; ``type``,
            ``tau`` and ``loss_weight`` may be left out.
        tau: Temperature of the soft terms, where they do not set their own.
        num_students: m, filled in by :class:`OnlineDistill`.
        recorders: See :class:`OnlineDistiller`.
        init_cfg: Initialization config.

    Raises:
        ValueError: ``in_channels`` names another number of students, or a temperature is not
            positive, or a weight is negative; or, at a step, a recorded map has other channels than
            ``in_channels`` says, or the labels are mixed ones (B, K).

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import MCLDistiller
        >>> distiller = MCLDistiller(in_channels=64)
        >>> maps = dict(feature=[torch.rand(4, 64, 8, 8), torch.rand(4, 64, 8, 8)])
        >>> list(distiller.compute_distill_losses(maps, torch.tensor([0, 0, 1, 1])))
        ['loss_vcl', 'loss_icl', 'loss_soft_vcl', 'loss_soft_icl']
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        embedding: Cfg = dict(type='mmpretrain.MoCoV2Neck', hid_channels=128, out_channels=128),
        temperature: float = 0.1,
        vcl_weight: float = 0.1,
        icl_weight: float = 0.1,
        loss_soft_vcl: Cfg = dict(type='KLDivergence'),
        loss_soft_icl: Cfg = dict(type='KLDivergence'),
        tau: float = 3.0,
        num_students: int = 2,
        recorders: Cfg | Sequence[Cfg] | None = None,
        init_cfg: Cfg | None = None,
    ) -> None:
        super().__init__(num_students, recorders, init_cfg=init_cfg)
        check_temperature('temperature', temperature)
        check_weights(vcl_weight=vcl_weight, icl_weight=icl_weight)
        self.in_channels = one_per_student(in_channels, num_students)
        self.temperature = temperature
        self.vcl_weight, self.icl_weight = vcl_weight, icl_weight
        self.embeddings = ModuleList(build(embedding, in_channels=c) for c in self.in_channels)
        self.loss_soft_vcl = build_loss(loss_soft_vcl, 'KLDivergence', tau)
        self.loss_soft_icl = build_loss(loss_soft_icl, 'KLDivergence', tau)
        for name in ('loss_soft_vcl', 'loss_soft_icl'):
            if getattr(getattr(self, name), 'wants_labels', False):
                raise ValueError(
                    f'{name}: {type(getattr(self, name).loss).__name__} needs the true class of a '
                    'row of logits, but rows of similarities have a number for each image'
                )

    def compute_distill_losses(self, records: Records, labels: Tensor) -> dict[str, Tensor]:
        """Contrast within each student and between every two of them, and its soft forms."""
        s, students = self.similarities(records), range(self.num_students)
        pairs = list(permutations(students, 2))
        return dict(
            loss_vcl=self.vcl_weight * sum(supervised_contrast(s[i, i], labels) for i in students),
            loss_icl=self.icl_weight * sum(supervised_contrast(s[i, j], labels) for i, j in pairs),
            loss_soft_vcl=sum(self.loss_soft_vcl(s[i, i], s[j, j]) for i, j in pairs),
            loss_soft_icl=sum(self.loss_soft_icl(s[i, j], s[j, i]) for i, j in pairs),
        )

    def similarities(self, records: Records) -> dict[tuple[int, int], Tensor]:
        """Similarities (B, B) for every pair (i, j) of students: rows are the images as i embeds
        them, columns the images as j does."""
        check_maps(records['feature'], self.in_channels)
        embedded = [
            full_precision(embed((x,))[-1])
            for embed, x in zip(self.embeddings, records['feature'], strict=True)
        ]
        return {
            (i, j): cosine_similarities(embedded[i], embedded[j]) / self.temperature
            for i, j in product(range(self.num_students), repeat=2)
        }
