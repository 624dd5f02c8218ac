"""How far one set of logits is from another."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_SPREAD = 0.01  # what a smaller standard deviation of standardised logits counts as


def kd_loss(student: Tensor, teacher: Tensor, tau: float = 1.0) -> Tensor:
    r"""Distillation loss from one set of logits to another.

    .. math:: \tau^2 \, \frac{1}{B} \sum_b \mathrm{KL}\big(
        \mathrm{softmax}(z^t_b / \tau) \,\|\, \mathrm{softmax}(z^s_b / \tau)\big)

    The factor :math:`\tau^2` keeps the gradient's size independent of the temperature
    (https://arxiv.org/abs/1503.02531). Nothing is detached here: that is the caller's decision.

    Args:
        student: Logits that learn, (B, K).
        teacher: Logits that teach, (B, K).
        tau: Temperature, above 0.

    Returns:
        A scalar, zero where both distributions agree.

    Raises:
        ValueError: The shapes differ, or the temperature is not positive.

    Example:
        >>> z = torch.tensor([[2.0, 0.0]])
        >>> kd_loss(z, z + 5.0, tau=3.0).item() < 1e-6
        True
    """
    _check_logits(student, teacher, tau)
    return tau**2 * F.kl_div(
        F.log_softmax(student / tau, dim=1),
        F.log_softmax(teacher / tau, dim=1),
        reduction='batchmean',
        log_target=True,
    )


def _check_logits(student: Tensor, teacher: Tensor, tau: float) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f'student logits are {tuple(student.shape)}, teacher logits {tuple(teacher.shape)}: '
            'both must be (batch, classes) of the same size'
        )
    if not tau > 0:
        raise ValueError(f'tau is {tau}, but a temperature must be positive')


def bernoulli_kd_loss(student: Tensor, teacher: Tensor, tau: float = 1.0) -> Tensor:
    r"""Distillation loss for images of several labels, each a yes or no of its own.

    .. math:: \tau^2 \, \frac{1}{B} \sum_b \sum_k \Big\{ p \log \frac pq
        + (1 - p) \log \frac{1 - p}{1 - q} \Big\}, \quad
        p = \sigma(z^t_{bk} / \tau), \; q = \sigma(z^s_{bk} / \tau)

    :func:`kd_loss` with a Bernoulli distribution for each label in place of one softmax over all.

    Args:
        student: Logits that learn, (B, K).
        teacher: Logits that teach, (B, K).
        tau: Temperature, above 0.

    Returns:
        A scalar, zero where the logits agree.

    Raises:
        ValueError: The shapes differ, or the temperature is not positive.

    Example:
        >>> z = torch.tensor([[2.0, 0.0]])
        >>> round(bernoulli_kd_loss(z, -z).item(), 4)
        1.5232
    """
    _check_logits(student, teacher, tau)
    student, teacher = student / tau, teacher / tau
    yes = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))
    no = (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return tau**2 * (yes + no).sum() / len(student)


def standardized(logits: Tensor) -> Tensor:
    r"""Logits of mean 0 and standard deviation 1 over the classes of each sample.

    .. math:: \hat z_k = \frac{z_k - \bar z}{\mathrm{std}(z) + 10^{-7}}

    A student that imitates these need not reach the teacher's range (Logit Standardization,
    https://arxiv.org/abs/2403.01427). A standard deviation below 0.01 counts as 0.01: that of a
    head which starts at zero would make the gradient ten million times as large.

    Args:
        logits: (B, K), K >= 3.

    Returns:
        (B, K).

    Raises:
        ValueError: There are fewer than three classes: of two logits only the order is left.

    Example:
        >>> standardized(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[-1.0000,  0.0000,  1.0000]])
    """
    if logits.shape[1] < 3:
        raise ValueError(
            f'standardised logits need 3 classes or more, found {logits.shape[1]}: choose another '
            'loss'
        )
    centred = logits - logits.mean(dim=1, keepdim=True)
    spread = logits.std(dim=1, keepdim=True) + 1e-7
    return centred / spread.clamp(min=LEAST_SPREAD)


def mutual_kd_loss(logits: Sequence[Tensor], tau: float = 1.0) -> Tensor:
    r"""Every student learns from every other one by :func:`kd_loss`, see :func:`mutual_loss`.

    Args:
        logits: m >= 2 tensors of (B, K).
        tau: Temperature.

    Returns:
        A scalar.

    Raises:
        ValueError: There are fewer than two students, their shapes differ, or ``tau`` is not
            positive.

    Example:
        >>> a, b = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
        >>> round(mutual_kd_loss([a, b]).item(), 4)
        0.2311
    """
    return mutual_loss(logits, partial(kd_loss, tau=tau))


def mutual_loss(
    outputs: Sequence[Tensor], divergence: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    r"""Every student learns from every other one, over all ordered pairs.

    .. math:: \frac{1}{m-1} \sum_i \sum_{j \ne i} D(z_i, \mathrm{sg}\,z_j)

    Args:
        outputs: What each of the m >= 2 students gives, such as logits (B, K).
        divergence: D, a loss of what learns and what teaches.

    Raises:
        ValueError: There are fewer than two students.

    Example:
        >>> mutual_loss([torch.tensor(1.0), torch.tensor(3.0)], lambda a, b: (a - b).abs())
        tensor(4.)
    """
    if len(outputs) < 2:
        raise ValueError(f'mutual learning needs at least 2 students, got {len(outputs)}')
    pairs = [divergence(learner, peer.detach()) for learner, peer in permutations(outputs, 2)]
    return torch.stack(pairs).sum() / (len(outputs) - 1)


@torch.no_grad()
def distillation_gap(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    r"""How far student and teacher are from the labels and from each other.

    .. math:: s = \overline{\|p_s - y\|_1}, \quad t = \overline{\|p_t - y\|_1}, \quad
        G = \overline{\|p_s - p_t\|_1}

    The overline is the mean over the batch, p a softmax; as in SwitOKD
    (https://arxiv.org/abs/2209.04996).

    Args:
        student: Logits, (B, K).
        teacher: Logits, (B, K).
        labels: Class indices (B,), or scores (B, K).

    Returns:
        s, t and G, (3,).

    Example:
        >>> z = torch.tensor([[0.0, 0.0]])
        >>> distillation_gap(z, z, torch.tensor([0]))
        tensor([1., 1., 0.])
    """
    p_s, p_t = student.softmax(dim=1), teacher.softmax(dim=1)
    y = (F.one_hot(labels, p_s.shape[1]) if labels.dim() == 1 else labels).to(p_s)
    pairs = ((p_s, y), (p_t, y), (p_s, p_t))
    return torch.stack([(a - b).abs().sum(dim=1).mean() for a, b in pairs])


def is_expert(gap: Tensor) -> bool:
    r"""Whether a teacher is so far ahead of its student that it had better wait.

    .. math:: G > s - e^{-t / (t + s)}\,t \quad \text{and} \quad t < s

    As in SwitOKD (https://arxiv.org/abs/2209.04996).

    Args:
        gap: s, t and G of :func:`distillation_gap`.

    Example:
        >>> is_expert(torch.tensor([1.8, 0.2, 1.8])), is_expert(torch.tensor([1.8, 1.9, 0.1]))
        (True, False)
    """
    s, t, between = gap.unbind()
    return bool((between > s - torch.exp(-t / (t + s)) * t) & (t < s))
