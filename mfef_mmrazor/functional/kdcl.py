"""KDCL's targets: what several students teach as one, given the labels.

https://openaccess.thecvf.com/content_CVPR_2020/html/Guo_Online_Knowledge_Distillation_via_Collaborative_Learning_CVPR_2020_paper.html
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .ensembles import weighted_logits


def naive_target(logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    r"""For every sample, the logits of the student with the smallest cross-entropy.

    .. math:: z_t = z_k, \quad k = \mathrm{argmin}_i \, \mathrm{CE}(z_i, y)

    KDCL-Naive (Guo et al., CVPR 2020).

    Args:
        logits: m tensors of (B, K).
        labels: Class indices (B,), or scores (B, K).

    Returns:
        (B, K).

    Example:
        >>> a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> naive_target([a, b], torch.tensor([1]))
        tensor([[0., 1.]])
    """
    z = torch.stack(list(logits), dim=1)
    losses = [F.cross_entropy(x, labels, reduction='none') for x in logits]
    best = torch.stack(losses).argmin(dim=0)
    return z[torch.arange(len(best), device=best.device), best]


def minlogit_target(logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    r"""For every class, the smallest of the students' margins to the true class.

    .. math:: z_t[k] = \min_i \, (z_i[k] - z_i[c]), \quad c \text{ the true class}

    So :math:`z_t[c] = 0`, and no student has a smaller cross-entropy than the target. KDCL-MinLogit
    (Guo et al., CVPR 2020).

    Args:
        logits: m tensors of (B, K).
        labels: Class indices (B,).

    Returns:
        (B, K).

    Raises:
        ValueError: The labels are scores (B, K): no single class is the true one.

    Example:
        >>> a, b = torch.tensor([[2.0, 0.0, 5.0]]), torch.tensor([[0.0, 1.0, 1.0]])
        >>> minlogit_target([a, b], torch.tensor([0]))
        tensor([[ 0., -2.,  1.]])
    """
    if labels.dim() != 1:
        raise ValueError(
            f'labels are {tuple(labels.shape)}, but the min-logit target needs the index of the '
            'one true class, (batch,); for mixed labels take the naive or the linear target'
        )
    margins = [z - z.gather(1, labels[:, None]) for z in logits]
    return torch.stack(margins).amin(dim=0)


def linear_target(logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    r"""For every sample, the students' mixture of smallest cross-entropy.

    .. math:: z_t = \sum_i \alpha_i z_i, \quad
        \alpha = \mathrm{argmin}_{\alpha \ge 0, \, \sum \alpha = 1}
        \mathrm{CE}\big(\textstyle\sum_i \alpha_i z_i, y\big)

    KDCL-Linear (Guo et al., CVPR 2020). No gradient goes through the weights.

    Args:
        logits: m tensors of (B, K).
        labels: Class indices (B,), or scores (B, K).

    Returns:
        (B, K).

    Example:
        >>> a, b = torch.tensor([[0.0, 9.0, 0.0]]), torch.tensor([[0.0, 0.0, 9.0]])
        >>> linear_target([a, b], torch.tensor([0]))
        tensor([[0.0000, 4.5000, 4.5000]])
    """
    return weighted_logits(linear_weights(logits, labels).to(logits[0]), logits)


@torch.no_grad()
def linear_weights(logits: Sequence[Tensor], labels: Tensor, tolerance: float = 1e-8) -> Tensor:
    r"""The weights of :func:`linear_target`, in float64.

    A convex problem on the simplex, solved for all samples at once by Newton's method with a
    logarithmic barrier: it minimises :math:`\mathrm{CE} - \mu \sum_i \log \alpha_i`, whose
    minimum is within :math:`m \mu` of the one wanted, and takes :math:`\mu` down.

    Accurate to about 1e-7 for logits up to some tens, more than networks produce. For larger ones
    100 steps in float64 are not enough: the weights stay on the simplex, but the cross-entropy may
    be 0.01 above its minimum for logits of some hundreds, and any value for those of thousands.

    Args:
        logits: m tensors of (B, K).
        labels: Class indices (B,), or scores (B, K).
        tolerance: How far above its minimum the cross-entropy is aimed to be.

    Returns:
        (B, m), rows that are positive and sum to 1.

    Raises:
        torch.linalg.LinAlgError: Logits of many thousands make a step's equations singular.

    Example:
        >>> z = [torch.tensor([[9.0, 0.0]]), torch.tensor([[0.0, 9.0]])]
        >>> linear_weights(z, torch.tensor([1])).round(decimals=4)
        tensor([[0., 1.]], dtype=torch.float64)
    """
    z = torch.stack(list(logits), dim=1).double()
    y = (F.one_hot(labels, z.shape[2]) if labels.dim() == 1 else labels).to(z)
    z = z - (z * y[:, None]).sum(dim=2, keepdim=True)  # now CE = logsumexp(sum_i alpha_i z_i)
    batch, students, _ = z.shape
    alpha = z.new_full((batch, students), 1 / students)
    mu, last = z.new_ones(batch, 1), tolerance / students
    lengths = 0.5 ** torch.arange(8).to(z)
    for _ in range(100):  # about 20 for two students
        p = (alpha[:, None] @ z).softmax(dim=2)
        mean = (p * z).sum(dim=2)
        centred = z - mean[..., None]
        slope = mean - mu / alpha
        hessian = (p * centred) @ centred.mT + torch.diag_embed(mu / alpha**2)
        # the Newton step that leaves the sum of the weights at 1
        free, shift = torch.linalg.solve(
            hessian, torch.stack([slope, torch.ones_like(slope)], dim=2)
        ).unbind(dim=2)
        step = shift * free.sum(1, keepdim=True) / shift.sum(1, keepdim=True) - free
        decrease = -(slope * step).sum(dim=1, keepdim=True)
        if ((mu == last) & (decrease < tolerance)).all():
            break
        # the best of eight lengths, the longest of which stays inside the simplex
        longest = (0.99 / (-step / alpha).amax(dim=1, keepdim=True)).clamp(0, 1)
        trials = alpha[:, None] + (longest * lengths)[..., None] * step[:, None]
        values = (trials @ z).logsumexp(dim=2) - mu * trials.log().sum(dim=2)
        alpha = trials[torch.arange(batch, device=z.device), values.argmin(dim=1)]
        alpha = alpha / alpha.sum(dim=1, keepdim=True)
        mu = torch.where(decrease < mu, (0.1 * mu).clamp(min=last), mu)
    return alpha


@torch.no_grad()
def general_weights(logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    r"""Students' weights, whose mixture of probabilities has the smallest squared error.

    .. math:: w = \mathrm{argmin}_{\sum w = 1} \frac{1}{B} \sum_b
        \big\|\textstyle\sum_i w_i p_{i,b} - y_b\big\|^2
        = \frac{C^{-1} 1}{1^\top C^{-1} 1}, \quad
        C_{ij} = \frac{1}{B} \sum_b (p_{i,b} - y_b)^\top (p_{j,b} - y_b)

    KDCL-General (Guo et al., CVPR 2020). The weights may be negative. Where several are best, as
    for students that agree, they are the most equal ones.

    Args:
        logits: m tensors of (B, K), on data that the students are not trained on.
        labels: Class indices (B,), or scores (B, K).

    Returns:
        (m,), in float64, of sum 1.

    Example:
        >>> half = torch.tensor([[4.0, 0.0], [0.0, 0.0]])  # knows the first of two samples
        >>> general_weights([half, half.flip(0)], torch.tensor([0, 0])).round(decimals=2)
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    p = torch.stack(list(logits)).double().softmax(dim=2)
    y = (F.one_hot(labels, p.shape[2]) if labels.dim() == 1 else labels).to(p)
    errors = (p - y).flatten(1)
    # minimise w'Cw, and a Lagrange multiplier sees to the sum: [C 1; 1' 0] [w; l] = [0; 1]
    system = p.new_ones(len(p) + 1, len(p) + 1)
    system[:-1, :-1] = errors @ errors.T / len(y)
    system[-1, -1] = 0
    return torch.linalg.pinv(system, hermitian=True)[:-1, -1]
