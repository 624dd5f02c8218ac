"""Losses from one set of logits to another, any of which a method can be given for its own."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

from mmrazor.models.losses import DKDLoss
from mmrazor.registry import MODELS
from torch import Tensor, nn

from ...cfg_type import Cfg
from ...functional import bernoulli_kd_loss, kd_loss, standardized
from ..builder import arguments_of, build_offering, find

Divergence = Callable[[Tensor, Tensor], Tensor]


class LogitDivergence(nn.Module, ABC):
    """Base of losses with the arguments of mmrazor's ``KLDivergence``.

    Args:
        tau: Temperature.
        loss_weight: What the loss is multiplied by.
        teacher_detach: Whether the teacher is a constant, as it usually is.
    """

    def __init__(
        self, tau: float = 1.0, loss_weight: float = 1.0, teacher_detach: bool = True
    ) -> None:
        super().__init__()
        self.tau = tau
        self.loss_weight = loss_weight
        self.teacher_detach = teacher_detach

    @abstractmethod
    def between(self, student: Tensor, teacher: Tensor) -> Tensor:
        """How far the one is from the other, as a scalar."""

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Loss of the logits ``preds_S`` (B, K) against ``preds_T`` (B, K)."""
        teacher = preds_T.detach() if self.teacher_detach else preds_T
        return self.loss_weight * self.between(preds_S, teacher)


@MODELS.register_module()
class BernoulliKLDivergence(LogitDivergence):
    r"""One set of logits teaches another, for images of several labels.

    .. math:: \lambda \, \mathrm{KD}_\tau\big(\mathrm{sg}\,z^t \to z^s\big)

    with a Bernoulli distribution for each label, see
    :func:`~mfef_mmrazor.functional.bernoulli_kd_loss`. It takes the place of mmrazor's
    ``KLDivergence`` where the students' heads are multi-label ones.

    Args:
        tau: Temperature.
        loss_weight: :math:`\lambda`.
        teacher_detach: Whether the teacher is a constant, as it usually is.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import BernoulliKLDivergence
        >>> z = torch.randn(4, 10)
        >>> BernoulliKLDivergence(tau=3.0)(z, z).item()
        0.0
    """

    def between(self, student: Tensor, teacher: Tensor) -> Tensor:
        """``bernoulli_kd_loss`` of (B, K) and (B, K)."""
        return bernoulli_kd_loss(student, teacher, self.tau)


@MODELS.register_module()
class StandardizedKLDivergence(LogitDivergence):
    r"""mmrazor's ``KLDivergence`` between logits of mean 0 and standard deviation 1 per sample.

    .. math:: \lambda \, \mathrm{KD}_\tau(\hat z^t \to \hat z^s)

    The student learns the teacher's relations between classes, but not its range (Logit
    Standardization, https://arxiv.org/abs/2403.01427); :math:`\hat z` is
    :func:`~mfef_mmrazor.functional.standardized`.

    Args:
        tau: Temperature.
        loss_weight: :math:`\lambda`.
        teacher_detach: Whether the teacher is a constant.

    Raises:
        ValueError: In ``forward``, with fewer than three classes.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import StandardizedKLDivergence
        >>> z = torch.randn(4, 10)
        >>> StandardizedKLDivergence(tau=2.0)(z, 5 * z + 1).item() < 1e-4
        True
    """

    def between(self, student: Tensor, teacher: Tensor) -> Tensor:
        """``kd_loss`` of (B, K) and (B, K), both standardised."""
        return kd_loss(standardized(student), standardized(teacher), self.tau)


class DivergenceAdapter(nn.Module):
    """Gives a loss between two sets of logits the one signature that the methods call.

    It detaches the teacher for a loss that does not do so itself, and adds the labels of the batch
    for one whose ``forward`` asks for ``gt_labels``, such as mmrazor's ``DKDLoss``. The distiller
    sets ``labels`` before it computes its losses.

    Args:
        loss: The loss.
        teacher_detach: Whether the teacher is a constant.
        loss_weight: What the loss is multiplied by.

    Raises:
        ValueError: The loss is mmrazor's ``DKDLoss`` and the teacher is to learn; or, in
            ``forward``, the labels that it needs are missing or mixed ones (B, K).
    """

    def __init__(
        self, loss: nn.Module, teacher_detach: bool = True, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        if isinstance(loss, DKDLoss) and not teacher_detach:  # 0 * log 0 in its gradient
            raise ValueError(
                'DKDLoss gives the teacher no finite gradient, but this method learns through its '
                'targets: choose another loss'
            )
        self.loss = loss
        self.teacher_detach = teacher_detach
        self.loss_weight = loss_weight
        self.wants_labels = 'gt_labels' in inspect.signature(loss.forward).parameters
        self.labels: Tensor | None = None

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Loss of the logits ``preds_S`` (B, K) against ``preds_T`` (B, K)."""
        teacher = preds_T.detach() if self.teacher_detach else preds_T
        if not self.wants_labels:
            return self.loss_weight * self.loss(preds_S, teacher)
        if self.labels is None or self.labels.dim() != 1:
            found = None if self.labels is None else tuple(self.labels.shape)
            raise ValueError(
                f'{type(self.loss).__name__}: the labels are {found}, expected the index of the '
                'one true class, (batch,): train without mixup and the like'
            )
        return self.loss_weight * self.loss(preds_S, teacher, gt_labels=self.labels)


def check_temperature(name: str, value: float) -> None:
    """Raise a ``ValueError`` that names the argument if it is not a positive number."""
    if not (isinstance(value, (int, float)) and value > 0):
        raise ValueError(f'{name}={value!r}, but a temperature must be positive')


def check_weights(**weights: float) -> None:
    """Raise a ``ValueError`` that names the first argument which is not a number of 0 or more."""
    for name, value in weights.items():
        if not (isinstance(value, (int, float)) and value >= 0):
            raise ValueError(f'{name}={value!r}, but a weight must be 0 or more')


def build_loss(
    cfg: Cfg, kind: str, tau: float, teacher_detach: bool = True, **known: Any
) -> nn.Module:
    """Build a loss of what learns and what teaches; its type and all below may be left out.

    Any loss between two sets of logits can stand for mmrazor's ``KLDivergence``, also one without a
    temperature. Where ``kind`` is a loss over several students (``MutualKLDivergence``,
    ``EnsembleKLDivergence``), it becomes the divergence between each two.

    Args:
        cfg: Config of the loss.
        kind: Its type, where ``cfg`` has none.
        tau: Its temperature, where ``cfg`` has none and the loss has one.
        teacher_detach: Whether the teacher is a constant.
        **known: Other arguments that ``cfg`` may leave out.

    Raises:
        TypeError: ``cfg`` is not a config.
        ValueError: The temperature is not a positive number.

    Example:
        >>> mutual = build_loss(dict(type='DISTLoss'), 'MutualKLDivergence', tau=1.0)
        >>> type(mutual).__name__, type(mutual.divergence).__name__
        ('MutualKLDivergence', 'DISTLoss')
    """
    if not isinstance(cfg, dict):
        raise TypeError(f'found {cfg!r}, expected the config of a loss, as dict(type={kind!r})')
    check_temperature('tau', cfg.get('tau', tau))
    usual, chosen = find(dict(type=kind)), find({'type': kind, **cfg})
    known = dict(tau=tau, teacher_detach=teacher_detach) | known
    if 'divergence' in arguments_of(usual)[0] and not issubclass(chosen, usual):
        chosen, cfg = usual, dict(divergence=cfg)
    loss = build_offering(cfg, kind, **known)
    takes, _ = arguments_of(chosen)
    if takes.keys() & {'teacher_detach', 'divergence'}:  # one of ours, or mmrazor's KLDivergence
        return loss
    weight = 1.0 if 'loss_weight' in takes else known.get('loss_weight', 1.0)
    return DivergenceAdapter(loss, teacher_detach, weight)


def optional_loss(cfg: Cfg | None, kind: str, tau: float) -> nn.Module | None:
    """What :func:`build_loss` builds; None for none."""
    return None if cfg is None else build_loss(cfg, kind, tau)


def build_divergence(cfg: Cfg | None, tau: float) -> Divergence:
    """The loss between two students of a loss over several: by default the exact ``kd_loss``."""
    if cfg is None:
        return partial(kd_loss, tau=tau)
    return build_loss(cfg, 'KLDivergence', tau)
