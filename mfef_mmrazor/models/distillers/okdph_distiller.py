"""OKDPH: online knowledge distillation by parameter hybridisation."""

import copy
from collections.abc import Sequence

import torch
from mmengine.model import BaseModel
from mmrazor.registry import MODELS
from torch import Tensor, nn
from torch.func import functional_call

from ...cfg_type import Cfg
from ...functional import ensemble_logits
from ..builder import build
from ..losses.logit_losses import build_loss, check_weights
from .online_distiller import (
    LOGITS_ALONE,
    OnlineDistiller,
    Records,
    check_same_architecture,
    classification_loss,
    network_logits,
)

# arguments of mmpretrain's networks that save memory by running a part twice
RECOMPUTES = ('with_cp', 'memory_efficient', 'use_checkpoint')


@MODELS.register_module()
class OKDPHDistiller(OnlineDistiller):
    r"""A network with the mean of the students' weights learns and teaches with them, and every few
    steps the students move towards it (Parameter Hybridization, https://arxiv.org/abs/2303.14666).

    The hybrid network h is the students' architecture with the mean of their weights,
    :math:`\theta_h = \frac1m \sum_i \theta_i`, and sees a view of the images of its own. With its
    logits :math:`z_h`:

    .. math::
        z_t &= \frac{1}{m+1} \Big(z_h + \sum_i z_i\Big) \\
        L &= \sum_i \{\omega\,\mathrm{CE}(z_i, y) + (1 - \omega)\,\mathrm{CE}(z_h, y)
          + \beta\,\mathrm{KD}_\tau(\mathrm{sg}\,z_t \to z_i)\}

    and after every ``interval`` steps :math:`\theta_i \gets \gamma \theta_h + (1 - \gamma)
    \theta_i`, batch norm's statistics included. The students' own cross-entropies are not repeated
    here: their heads compute them, and :class:`OnlineDistill` weighs them by :math:`\omega`.

    :math:`\mathrm{CE}(z_h, y)` looks for weights around which the loss is flat. **As the paper
    means it, it trains the students through their mean**, each by :math:`\frac1m` of the gradient
    there: ``hybrid_gradient=True``, the default. **In the released code it trains nothing**, since
    h is a copy: ``hybrid_gradient=False``.

    The students are one architecture, and in the original start from the same weights,
    ``same_initial_weights`` of :class:`OnlineDistill`.

    Args:
        label_weight: :math:`\omega`.
        transfer_weight: :math:`\beta`.
        averaging: :math:`\gamma`; 0 for none.
        interval: Steps of the optimizer between two averagings.
        hybrid_gradient: Whether the loss of the hybrid network trains the students.
        loss_ce: Config of the hybrid network's loss on the labels.
        loss_transfer: Config of what all of them teach each student; ``type``, ``tau`` and
            ``loss_weight`` may be left out.
        tau: Temperature, where ``loss_transfer`` does not set its own.
        num_students: m, filled in by :class:`OnlineDistill`.
        recorders: See :class:`OnlineDistiller`; beside the usual ones, ``image`` is what the
            student sees. Where the data pipeline makes no views, the hybrid network sees the same.
        init_cfg: Initialization config.

    Raises:
        ValueError: The students are different networks; ``label_weight`` or ``averaging`` is not
            between 0 and 1, ``transfer_weight`` is negative, ``interval`` is not a whole number
            from 1 on, or ``tau`` is not positive; students recompute a part in the backward pass;
            or, at the second step, :class:`DistillerUpdateHook` is missing.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import OnlineDistill
        >>> student = dict(
        ...     type='mmpretrain.ImageClassifier',
        ...     backbone=dict(type='CifarResNet', depth=8),
        ...     neck=dict(type='GlobalAveragePooling'),
        ...     head=dict(type='LinearClsHead', num_classes=10, in_channels=64))
        >>> model = OnlineDistill(
        ...     students=[student, student],
        ...     distiller=dict(type='OKDPHDistiller'),
        ...     same_initial_weights=True)
        >>> list(model.predict_all(torch.rand(2, 3, 32, 32)))  # the hybrid network is called fused
        ['student0', 'student1', 'ensemble', 'fused']
    """

    takes_multi_label = True
    default_recorders = dict(**LOGITS_ALONE, image=dict(type='ModuleInputs', source='backbone'))
    extra_views = 1
    shares_stages = False
    acts_on_updates = True

    def __init__(
        self,
        label_weight: float = 0.8,
        transfer_weight: float = 0.8,
        averaging: float = 0.5,
        interval: int = 5,
        hybrid_gradient: bool = True,
        loss_ce: Cfg = dict(type='mmpretrain.CrossEntropyLoss'),
        loss_transfer: Cfg = dict(type='KLDivergence'),
        tau: float = 4.0,
        num_students: int = 2,
        recorders: Cfg | Sequence[Cfg] | None = None,
        init_cfg: Cfg | None = None,
    ) -> None:
        super().__init__(num_students, recorders, init_cfg=init_cfg)
        for name, share in (('label_weight', label_weight), ('averaging', averaging)):
            if not 0 <= share <= 1:
                raise ValueError(f'{name}={share}, expected a share between 0 and 1')
        if not isinstance(interval, int) or interval < 1:
            raise ValueError(f'interval={interval!r}, expected a whole number of steps, 1 or more')
        check_weights(transfer_weight=transfer_weight)
        self.own_loss_weight = label_weight
        self.averaging = averaging
        self.interval = interval
        self.hybrid_gradient = hybrid_gradient
        self.loss_ce = build(loss_ce, type='mmpretrain.CrossEntropyLoss')
        self.loss_transfer = build_loss(
            loss_transfer, 'KLDivergence', tau, loss_weight=transfer_weight
        )
        self.students: tuple[BaseModel, ...] = ()  # a tuple: they are the algorithm's own parts
        self.steps: Tensor
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))

    @property
    def hybrid_learns(self) -> bool:
        """Whether the hybrid network's loss trains the students."""
        return self.hybrid_gradient and self.own_loss_weight < 1

    def set_up(self, students: Sequence[BaseModel]) -> None:
        """Remember whose weights are averaged."""
        check_same_architecture(students, type(self).__name__)
        for part in students[0].modules() if self.hybrid_learns else ():
            for flag in RECOMPUTES:
                if getattr(part, flag, False) is True:
                    raise ValueError(
                        f'{flag}=True in a student: what is recomputed in the backward pass has '
                        f'the weights of student0, not the mean of all; set {flag}=False, or '
                        'hybrid_gradient=False'
                    )
        self.students = tuple(students)

    def compute_distill_losses(self, records: Records, labels: Tensor) -> dict[str, Tensor]:
        """What the hybrid network learns, and what all of them together teach each student."""
        logits = records['logits']
        with torch.set_grad_enabled(self.hybrid_learns and torch.is_grad_enabled()):
            hybrid = self.hybrid_logits(records.get('extra_views', records['image'])[0])
        target = ensemble_logits([*logits, hybrid])
        share = self.num_students * (1 - self.own_loss_weight)
        return dict(
            loss_hybrid=share * classification_loss(self.loss_ce, hybrid, labels),
            loss_transfer=sum(self.loss_transfer(z, target) for z in logits),
        )

    def after_update(self, students: Sequence[BaseModel]) -> None:
        """Move the students towards their mean, after every so many steps."""
        self.steps += 1
        if self.steps % self.interval:
            return
        with torch.no_grad():
            mean = self.mean_weights()
            for student in students:
                for name, weight in student.state_dict(keep_vars=True).items():
                    if weight.is_floating_point():  # not the number of batches seen
                        weight.lerp_(mean[name], self.averaging)

    def mean_weights(self) -> dict[str, Tensor]:
        """The hybrid network's weights and buffers; the students' weights get their gradients."""
        states = [student.state_dict(keep_vars=True) for student in self.students]
        return {
            name: torch.stack([state[name] for state in states]).mean(dim=0)
            if first.is_floating_point()
            else first.clone()
            for name, first in states[0].items()
        }

    def hybrid_logits(self, images: Tensor) -> Tensor:
        """Logits of the hybrid network, (B, K)."""
        call = dict(data_samples=None, mode='tensor')
        network = self.students[0]
        # mmengine puts a wrapper in the place of their forward
        if any(hasattr(vars(part).get('forward'), '__wrapped__') for part in network.modules()):
            raise ValueError(
                "activation_checkpointing: its modules would run with student0's weights, not with "
                'the mean of all; leave it out of the config'
            )
        outputs = functional_call(network, self.mean_weights(), (images,), call)
        return network_logits(network, outputs)

    def fused_logits(self, records: Records) -> Tensor:
        """Logits of the hybrid network, (B, K), built here as a module that can be traced."""
        shared = self.students[0].state_dict(keep_vars=True).values()
        network = copy.deepcopy(self.students[0], {id(x): x for x in shared})  # its modules alone
        for key, value in self.mean_weights().items():
            owner, _, name = key.rpartition('.')
            module = network.get_submodule(owner)
            if name in module._parameters:
                module._parameters[name] = nn.Parameter(value)
            else:
                module._buffers[name] = value
        return network_logits(network, network(records['image'][0], mode='tensor'))
