"""Losses among students that mmrazor lacks; the maths is in :mod:`mfef_mmrazor.functional`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from mmrazor.registry import MODELS
from torch import Tensor, nn

from ...cfg_type import Cfg
from ...functional import (
    attention_map_loss,
    diversity_loss,
    ensemble_logits,
    map_kd_loss,
    mutual_loss,
    whole_map_loss,
)
from .logit_losses import build_divergence, check_temperature


@MODELS.register_module()
class EnsembleKLDivergence(nn.Module):
    r"""The mean of N students' logits teaches one set of logits.

    .. math:: \lambda \, \mathrm{KD}_\tau\big(\mathrm{sg}\,\bar z \to z\big),
        \quad \bar z = \frac1m \sum_i z_i

    The first half of the mutual distillation of FFL (https://arxiv.org/abs/1904.09058).

    Args:
        tau: Temperature.
        loss_weight: :math:`\lambda`.
        divergence: Config of the loss that takes the place of KD, such as
            ``dict(type='DISTLoss')``; None for KD.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import EnsembleKLDivergence
        >>> z = torch.randn(4, 10)
        >>> EnsembleKLDivergence(tau=3.0)(z, [z - 1.0, z + 1.0]).item() < 1e-4
        True
    """

    def __init__(
        self,
        tau: float = 1.0,
        loss_weight: float = 1.0,
        divergence: Cfg | None = None,
    ) -> None:
        super().__init__()
        self.tau = tau
        self.loss_weight = loss_weight
        self.divergence = build_divergence(divergence, tau)

    def forward(self, preds_S: Tensor, preds_T: Sequence[Tensor]) -> Tensor:
        """Loss of the logits ``preds_S`` (B, K) against the mean of the list ``preds_T``."""
        teacher = ensemble_logits(preds_T).detach()
        return self.loss_weight * self.divergence(preds_S, teacher)


@MODELS.register_module()
class MutualKLDivergence(nn.Module):
    r"""Every student learns from every other one, as in Deep Mutual Learning.

    .. math:: \frac{\lambda}{m-1} \sum_i \sum_{j \ne i} \mathrm{KD}_\tau(\mathrm{sg}\,z_j \to z_i)

    Peers are constants for the one that learns (https://arxiv.org/abs/1706.00384).

    Args:
        tau: Temperature.
        loss_weight: :math:`\lambda`.
        divergence: Config of the loss that takes the place of KD, such as
            ``dict(type='DISTLoss')``; None for KD.

    Raises:
        ValueError: In ``forward``, with fewer than two students.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import MutualKLDivergence
        >>> z = torch.randn(4, 10)
        >>> MutualKLDivergence()([z, z, z]).item()
        0.0
    """

    def __init__(
        self,
        tau: float = 1.0,
        loss_weight: float = 1.0,
        divergence: Cfg | None = None,
    ) -> None:
        super().__init__()
        self.tau = tau
        self.loss_weight = loss_weight
        self.divergence = build_divergence(divergence, tau)

    def forward(self, preds: Sequence[Tensor]) -> Tensor:
        """Loss over all ordered pairs of the list ``preds`` of (B, K) logits."""
        return self.loss_weight * mutual_loss(preds, self.divergence)


class MapLoss(nn.Module, ABC):
    """Base of losses from one feature map to another, which is a constant.

    Args:
        loss_weight: What the loss is multiplied by.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    @abstractmethod
    def between(self, student: Tensor, teacher: Tensor) -> Tensor:
        """How far the one map is from the other, as a scalar."""

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        """Loss of the map ``s_feature`` (B, C, H, W) against ``t_feature`` (B, C', H', W')."""
        return self.loss_weight * self.between(s_feature, t_feature.detach())


@MODELS.register_module()
class AttentionMapLoss(MapLoss):
    r"""A feature map imitates where another one is active.

    .. math:: \lambda \, \frac{1}{BHW} \sum \big(A(F^s) - \mathrm{sg}\,A(F^t)\big)^2

    :math:`A` is the channel mean of squares, L2-normalised a sample, so channels may differ; maps
    of different sizes are compared at the smaller one. mmrazor's ``ATLoss`` differs in that it
    neither detaches the teacher nor brings the sizes together. Used as in FFSD
    (https://arxiv.org/abs/2103.14473).

    Args:
        loss_weight: :math:`\lambda`. The mean over H*W of two unit vectors is small, so useful
            weights are far above 1.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import AttentionMapLoss
        >>> loss = AttentionMapLoss()(torch.rand(2, 64, 8, 8), torch.rand(2, 16, 4, 4))
        >>> loss.shape
        torch.Size([])
    """

    def between(self, student: Tensor, teacher: Tensor) -> Tensor:
        """``attention_map_loss`` of two maps."""
        return attention_map_loss(student, teacher)


@MODELS.register_module()
class WholeMapLoss(MapLoss):
    r"""A feature map imitates another one of as many channels, up to its scale.

    .. math:: \frac{\lambda}{BCHW} \sum \Big(\frac{F^s}{\|F^s\|}
        - \mathrm{sg}\,\frac{F^t}{\|F^t\|}\Big)^2

    Maps of different sizes are compared at the smaller one. FFSD trains its decoders so
    (https://arxiv.org/abs/2103.14473).

    Args:
        loss_weight: :math:`\lambda`. Large ones are usual: this is a mean over C*H*W.

    Raises:
        ValueError: In ``forward``, the maps have different channels.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import WholeMapLoss
        >>> WholeMapLoss()(torch.rand(2, 16, 8, 8), torch.rand(2, 16, 8, 8)).shape
        torch.Size([])
    """

    def between(self, student: Tensor, teacher: Tensor) -> Tensor:
        """``whole_map_loss`` of two maps."""
        return whole_map_loss(student, teacher)


@MODELS.register_module()
class DiversityLoss(MapLoss):
    r"""A feature map learns to be active where a peer's is not.

    .. math:: \lambda \, \frac{1}{BHW} \sum \big(A(F^s) - \mathrm{sg}\,y'(F^p)\big)^2

    :math:`y'` is the peer's attention with its high values inverted, see
    :func:`mfef_mmrazor.functional.shifted_attention`; as in FFSD
    (https://arxiv.org/abs/2103.14473). Maps of different sizes are compared at the smaller one.

    Args:
        loss_weight: :math:`\lambda`.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import DiversityLoss
        >>> DiversityLoss()(torch.rand(2, 64, 8, 8), torch.rand(2, 64, 8, 8)).shape
        torch.Size([])
    """

    def between(self, student: Tensor, teacher: Tensor) -> Tensor:
        """``diversity_loss`` of two maps."""
        return diversity_loss(student, teacher)


@MODELS.register_module()
class MapKLDivergence(MapLoss):
    r"""A feature map imitates another one of as many channels, each as one long vector of logits.

    .. math:: \lambda \, \mathrm{KD}_\tau\big(\mathrm{sg}\,\mathrm{flat}(F^t)
        \to \mathrm{flat}(F^s)\big)

    So what counts is where, in which channel, a map is most active. Maps of different sizes are
    compared at the smaller one. DCCL's students teach each other's stages so
    (https://doi.org/10.1109/TCSVT.2022.3222013).

    Args:
        tau: Temperature.
        loss_weight: :math:`\lambda`.

    Raises:
        ValueError: In ``forward``, the maps have different channels.

    Example:
        >>> import torch
        >>> from mfef_mmrazor.models import MapKLDivergence
        >>> MapKLDivergence(tau=3.0)(torch.rand(2, 16, 8, 8), torch.rand(2, 16, 4, 4)).shape
        torch.Size([])
    """

    def __init__(self, tau: float = 3.0, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        check_temperature('tau', tau)
        self.tau = tau

    def between(self, student: Tensor, teacher: Tensor) -> Tensor:
        """``map_kd_loss`` of two maps."""
        return map_kd_loss(student, teacher, self.tau)
