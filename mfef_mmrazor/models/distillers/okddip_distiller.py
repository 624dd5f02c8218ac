"""OKDDip: online knowledge distillation with diverse peers."""

from collections.abc import Sequence

from mmrazor.registry import MODELS
from torch import Tensor, nn

from ...cfg_type import Cfg
from ...functional import attended_logits, ensemble_logits
from ..losses.logit_losses import build_loss
from ..precision import full_precision
from .online_distiller import OnlineDistiller, Records
from .recorded_maps import check_maps


@MODELS.register_module()
class OKDDipDistiller(OnlineDistiller):
    r"""Each peer learns from its own mixture of the peers, a leader from their mean (OKDDip,
    https://arxiv.org/abs/1912.00350).

    The first student is the group leader, L, and the one to deploy; the others are its peers. For a
    peer's pooled feature :math:`f_a = \mathrm{GAP}(F_a)` and logits :math:`z_a`:

    .. math::
        t_a &= \sum_b \alpha_{ab} z_b, \quad
          \alpha_{ab} = \mathrm{softmax}_b \, (W_q f_a)^\top (W_k f_b) \\
        L &= \sum_i \mathrm{CE}(z_i, y) + w \sum_{a \ne L} \mathrm{KD}_\tau(t_a \to z_a)
          + w\,\mathrm{KD}_\tau\Big(\frac{1}{m-1} \sum_{a \ne L} z_a \to z_L\Big)

    w is the ramp-up. A peer attends to itself as well. **The targets are not detached**: the
    queries and keys, which all peers share, learn through them and through nothing else; and so the
    leader's loss reaches the peers too. The students' own cross-entropies are not repeated here:
    their heads compute them. This is the paper's form with separate networks; the branches of its
    other form share a trunk, ``shared_stages`` of :class:`OnlineDistill`.

    Args:
        in_channels: C, the channels of every peer's recorded ``feature``. (The leader's is not
            used.)
        reduction: Queries and keys have C / reduction numbers.
        loss_transfer: Config of what the mixtures and the mean teach; ``type``, ``tau`` and
            ``teacher_detach=False`` may be left out.
        tau: Temperature, where ``loss_transfer`` does not set its own.
        ramp_up_epochs: R, in epochs; 0 for none.
        num_students: m, the leader included, at least 3; filled in by :class:`OnlineDistill`.
        recorders: See :class:`OnlineDistiller`.
        init_cfg: Initialization config.
        ramp_up_iters: R in iterations, instead of ``ramp_up_epochs``.

    Raises:
        ValueError: There are fewer than three students, ``in_channels`` is not one number,
            ``reduction`` is not between 1 and ``in_channels``, or ``tau`` is not positive; or, at
            the first step, a peer's map has other channels than ``in_channels`` says.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import OKDDipDistiller
        >>> okddip = OKDDipDistiller(in_channels=64)
        >>> sum(p.numel() for p in okddip.parameters())
        1024
        >>> records = dict(logits=[torch.randn(4, 100) for _ in range(3)],
        ...                feature=[torch.rand(4, 64, 8, 8) for _ in range(3)])
        >>> sorted(okddip.compute_distill_losses(records, torch.tensor([1, 2, 3, 4])))
        ['loss_leader', 'loss_peers']
    """

    takes_multi_label = True

    def __init__(
        self,
        in_channels: int,
        reduction: int = 8,
        loss_transfer: Cfg = dict(type='KLDivergence'),
        tau: float = 3.0,
        ramp_up_epochs: float = 80,
        num_students: int = 3,
        recorders: Cfg | Sequence[Cfg] | None = None,
        init_cfg: Cfg | None = None,
        ramp_up_iters: int | None = None,
    ) -> None:
        super().__init__(num_students, recorders, ramp_up_epochs, init_cfg, ramp_up_iters)
        if num_students < 3:
            raise ValueError(
                f'OKDDip has a leader and at least two peers, so at least 3 students, but there '
                f'are {num_students}: list another one in `students`'
            )
        if not isinstance(in_channels, int):
            raise ValueError(
                f'in_channels={in_channels!r}, expected one number for all peers, as they share '
                'the queries and keys'
            )
        if not 1 <= reduction <= in_channels:
            raise ValueError(
                f'reduction={reduction} leaves no unit of in_channels={in_channels}: '
                f'expected 1 to {in_channels}'
            )
        self.in_channels = [in_channels] * (num_students - 1)
        self.query = nn.Linear(in_channels, in_channels // reduction, bias=False)
        self.key = nn.Linear(in_channels, in_channels // reduction, bias=False)
        self.loss_transfer = build_loss(loss_transfer, 'KLDivergence', tau, teacher_detach=False)

    @classmethod
    def default_in_channels(cls, channels: list[int]) -> int:
        """The channels of the peers' maps, which have to be alike."""
        _, *peers = channels
        if len(set(peers)) > 1:
            raise ValueError(
                f'in_channels: found peers whose maps have {peers} channels, expected one number '
                'for all, as they share the queries and keys; only student0 may be another network'
            )
        return peers[0]

    def compute_distill_losses(self, records: Records, labels: Tensor) -> dict[str, Tensor]:
        """What the peers learn from their mixtures, and the leader from their mean."""
        leader, *peers = records['logits']
        pairs = zip(peers, self.peer_targets(records), strict=True)
        w = self.ramp_up()
        return dict(
            loss_peers=w * sum(self.loss_transfer(z, target) for z, target in pairs),
            loss_leader=w * self.loss_transfer(leader, ensemble_logits(peers)),
        )

    def peer_targets(self, records: Records) -> list[Tensor]:
        """Every peer's mixture of all peers' logits: m - 1 tensors of (B, K)."""
        maps = records['feature'][1:]
        check_maps(maps, self.in_channels, first=1)
        pooled = [x.mean(dim=(2, 3)) for x in maps]
        queries = [full_precision(self.query(f)) for f in pooled]
        keys = [full_precision(self.key(f)) for f in pooled]
        return attended_logits(queries, keys, records['logits'][1:])
