"""The maths of online distillation: pure functions on tensors, no registry, no state.

Symbols, here and in every method: ``B`` batch size, ``K`` classes, ``m`` students, ``z`` logits of
shape (B, K), ``T`` or ``tau`` the temperature, ``sg`` stop-gradient (detach).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor


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
    https://arxiv.org/abs/2403.01427).

    Args:
        logits: (B, K), K >= 2.

    Returns:
        (B, K).

    Example:
        >>> standardized(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[-1.0000,  0.0000,  1.0000]])
    """
    centred = logits - logits.mean(dim=1, keepdim=True)
    return centred / (logits.std(dim=1, keepdim=True) + 1e-7)


def ensemble_logits(logits: Sequence[Tensor]) -> Tensor:
    """The students' ensemble: the mean of their logits, (B, K)."""
    return torch.stack(list(logits)).mean(dim=0)


def mutual_kd_loss(logits: Sequence[Tensor], tau: float = 1.0) -> Tensor:
    r"""Every student learns from every other one by :func:`kd_loss`, see :func:`mutual_loss`.

    Args:
        logits: m >= 2 tensors of (B, K).
        tau: Temperature.
        kd: What one teaches another, :func:`kd_loss` or :func:`bernoulli_kd_loss`.

    Raises:
        ValueError: There are fewer than two students.

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
    pairs = [
        divergence(learner, peer.detach())
        for i, learner in enumerate(outputs)
        for j, peer in enumerate(outputs)
        if i != j
    ]
    return torch.stack(pairs).sum() / (len(outputs) - 1)


def peer_means(logits: Sequence[Tensor]) -> list[Tensor]:
    r"""For every student, the mean of the other ones' logits.

    .. math:: t_i = \frac{1}{m-1} \sum_{j \ne i} z_j

    Args:
        logits: m >= 2 tensors of (B, K).

    Returns:
        m tensors of (B, K).

    Raises:
        ValueError: There are fewer than two students.

    Example:
        >>> peer_means([torch.tensor([[3.0]]), torch.tensor([[5.0]])])
        [tensor([[5.]]), tensor([[3.]])]
    """
    if len(logits) < 2:
        raise ValueError(f'peers need at least 2 students, got {len(logits)}')
    return [
        ensemble_logits([peer for j, peer in enumerate(logits) if j != i])
        for i in range(len(logits))
    ]


def weighted_logits(weights: Tensor, logits: Sequence[Tensor]) -> Tensor:
    r"""Logits of an ensemble whose weights differ from sample to sample.

    .. math:: z_b = \sum_i w_{bi} \, z_{i,b}

    Args:
        weights: (B, m).
        logits: m tensors of (B, K).

    Returns:
        (B, K).

    Raises:
        ValueError: There is not one column of weights for each student.

    Example:
        >>> weighted_logits(torch.tensor([[0.25, 0.75]]), [torch.zeros(1, 2), torch.ones(1, 2)])
        tensor([[0.7500, 0.7500]])
    """
    if weights.shape[1:] != (len(logits),):
        raise ValueError(
            f'weights are {tuple(weights.shape)}, expected (batch, {len(logits)}): one a student'
        )
    # no matrix product: under autocast that would be one of half precision
    return (weights[..., None] * torch.stack(list(logits), dim=1)).sum(dim=1)


def attended_logits(
    queries: Sequence[Tensor], keys: Sequence[Tensor], logits: Sequence[Tensor]
) -> list[Tensor]:
    r"""Every peer's own mixture of all peers' logits, itself included.

    .. math:: t_a = \sum_b \alpha_{ab} \, z_b,
        \quad \alpha_{ab} = \mathrm{softmax}_b \, q_a^\top k_b

    The dot product is not scaled (https://arxiv.org/abs/1912.00350). Nothing is detached here.

    Args:
        queries: m tensors of (B, d).
        keys: m tensors of (B, d).
        logits: m tensors of (B, K).

    Returns:
        m tensors of (B, K).

    Raises:
        ValueError: Their numbers differ.

    Example:
        >>> same = [torch.ones(1, 2)] * 2
        >>> attended_logits(same, same, [torch.zeros(1, 1), torch.ones(1, 1)])
        [tensor([[0.5000]]), tensor([[0.5000]])]
    """
    if not len(queries) == len(keys) == len(logits):
        raise ValueError(
            f'got {len(queries)} queries, {len(keys)} keys and {len(logits)} logits: '
            'each peer has one of each'
        )
    k = torch.stack(list(keys), dim=1)
    attention = [(q[:, None] * k).sum(dim=2).softmax(dim=1) for q in queries]
    return [weighted_logits(weights, logits) for weights in attention]


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
        ValueError: The labels are scores (B, K): there is no one true class.

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

    Accurate to about 1e-7 for logits up to some tens, more than networks produce. Larger logits
    need more than the 100 steps and float64: the weights stay on the simplex, but the cross-entropy
    may be 0.01 above its minimum for logits of some hundreds, and anywhere for those of thousands.

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


@torch.no_grad()
def distillation_gap(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    r"""How far student and teacher are from the labels and from each other (SwitOKD).

    .. math:: s = \overline{\|p_s - y\|_1}, \quad t = \overline{\|p_t - y\|_1}, \quad
        G = \overline{\|p_s - p_t\|_1}

    The overline is the mean over the batch, p a softmax.

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
    r"""Whether a teacher is so far ahead of its student that it had better wait (SwitOKD).

    .. math:: G > s - e^{-t / (t + s)}\,t \quad \text{and} \quad t < s

    Args:
        gap: s, t and G of :func:`distillation_gap`.

    Example:
        >>> is_expert(torch.tensor([1.8, 0.2, 1.8])), is_expert(torch.tensor([1.8, 1.9, 0.1]))
        (True, False)
    """
    s, t, between = gap.unbind()
    return bool((between > s - torch.exp(-t / (t + s)) * t) & (t < s))


def cosine_similarities(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of the angle between each embedding of one set and each of another.

    Args:
        a: (B, d).
        b: (B', d).

    Returns:
        (B, B').

    Example:
        >>> cosine_similarities(torch.tensor([[3.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        tensor([[1., 0.]])
    """
    with torch.autocast(a.device.type, enabled=False):  # else a product of half precision
        return F.normalize(a, dim=1) @ F.normalize(b, dim=1).T


def supervised_contrast(similarities: Tensor, labels: Tensor) -> Tensor:
    r"""Supervised contrastive loss: pulls images of one class together, pushes others apart.

    .. math:: \frac{1}{|\{b: P_b \ne \emptyset\}|} \sum_b \frac{-1}{|P_b|} \sum_{p \in P_b}
        \log \frac{\exp S_{bp}}{\sum_{a \ne b} \exp S_{ba}}, \quad
        P_b = \{p \ne b: y_p = y_b\}

    (https://arxiv.org/abs/2004.11362). An image that is alone in its class has nothing to be drawn
    to, and is left out of the mean.

    Args:
        similarities: S, (B, B): of image b, a row, to all images, divided by the temperature.
        labels: Class indices (B,).

    Returns:
        A scalar, 0 if no two images are of one class, or there is one image alone.

    Raises:
        ValueError: The labels are scores (B, K): no two images are of one class.

    Example:
        >>> round(supervised_contrast(torch.zeros(3, 3), torch.tensor([0, 0, 1])).item(), 4)
        0.6931
    """
    if labels.dim() != 1:
        raise ValueError(
            f'labels are {tuple(labels.shape)}, but contrast needs the index of the one class of '
            'each image, (batch,): train without mixup and the like'
        )
    if len(labels) == 1:  # alone in the batch: its row would have no entry to go on
        return 0 * similarities.sum()
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    partners = (labels[:, None] == labels) & ~itself
    log_p = similarities.masked_fill(itself, -torch.inf).log_softmax(dim=1)
    number = partners.sum(dim=1)
    losses = -log_p.masked_fill(~partners, 0).sum(dim=1) / number.clamp(min=1)
    return losses.sum() / (number > 0).sum().clamp(min=1)


def attention_map(feature: Tensor) -> Tensor:
    r"""Spatial attention map of a feature map, one unit vector a sample.

    :math:`A(F) = \frac1C \sum_c F_c^2`, flattened and L2-normalised
    (https://arxiv.org/abs/1612.03928).

    Args:
        feature: (B, C, H, W).

    Returns:
        (B, H * W), rows of norm 1.
    """
    return F.normalize(feature.pow(2).mean(dim=1).flatten(1), dim=1)


def attention_map_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean squared difference of two attention maps.

    .. math:: \frac{1}{BHW} \sum \big(A(F^s) - A(F^t)\big)^2

    Maps of different sizes are compared at the smaller one, by average pooling.

    Args:
        student: Map that learns, (B, C, H, W).
        teacher: Map that teaches, (B, C', H', W').

    Example:
        >>> x = torch.rand(2, 8, 4, 4)
        >>> attention_map_loss(x, 3.0 * x).item() < 1e-12
        True
    """
    size = smallest_size([student, teacher])
    return F.mse_loss(attention_map(resize(student, size)), attention_map(resize(teacher, size)))


def whole_map_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean squared difference of two feature maps, each of norm 1 a sample.

    .. math:: \frac{1}{BCHW} \sum \Big(\frac{F^s}{\|F^s\|} - \frac{F^t}{\|F^t\|}\Big)^2

    Maps of different sizes are compared at the smaller one, by average pooling.

    Args:
        student: Map that learns, (B, C, H, W).
        teacher: Map that teaches, (B, C, H', W').

    Example:
        >>> x = torch.rand(2, 8, 4, 4)
        >>> whole_map_loss(x, 3.0 * x).item() < 1e-12
        True
    """
    size = smallest_size([student, teacher])
    a, b = (F.normalize(resize(x, size).flatten(1), dim=1) for x in (student, teacher))
    return F.mse_loss(a, b)


def map_kd_loss(student: Tensor, teacher: Tensor, tau: float = 1.0) -> Tensor:
    r"""Distillation loss from one feature map to another of as many channels.

    :func:`kd_loss` of the maps flattened over C * H * W, each taken for one vector of logits, as in
    DCCL. Maps of different sizes are compared at the smaller one, by average pooling.

    Args:
        student: Map that learns, (B, C, H, W).
        teacher: Map that teaches, (B, C, H', W').
        tau: Temperature, above 0.

    Raises:
        ValueError: The maps have different channels, or the temperature is not positive.

    Example:
        >>> x = torch.rand(2, 8, 4, 4)
        >>> map_kd_loss(x, x + 1.0, tau=3.0).item() < 1e-6
        True
    """
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f'the map that learns has {student.shape[1]} channels, the one that teaches '
            f'{teacher.shape[1]}: a softmax over whole maps needs as many'
        )
    size = smallest_size([student, teacher])
    return kd_loss(resize(student, size).flatten(1), resize(teacher, size).flatten(1), tau)


def shifted_attention(feature: Tensor) -> Tensor:
    r"""FFSD's diversity target: a spatial attention map with its high values inverted.

    .. math:: y' = \big(\tfrac n2 - y\big) \, \mathrm{sign}(y - \theta) + \tfrac n2

    y is :func:`attention_map`, n the norm it was divided by, :math:`\theta` the largest of the
    lowest third of y: what is above becomes n - y, what is below stays, and :math:`\theta` itself
    becomes n/2 (https://arxiv.org/abs/2103.14473).

    Args:
        feature: (B, C, H, W).

    Returns:
        (B, H * W).

    Example:
        >>> shifted_attention(torch.tensor([0.0, 0.0, 3.0, 4.0]).sqrt().view(1, 1, 2, 2))
        tensor([[2.5000, 2.5000, 4.4000, 4.2000]])
    """
    y = attention_map(feature)
    half = _attention_norm(feature) / 2
    third = max(1, y.shape[1] // 3)
    theta = y.topk(third, dim=1, largest=False).values[:, -1:]
    return (half - y) * torch.sign(y - theta) + half


def diversity_loss(student: Tensor, peer: Tensor) -> Tensor:
    r"""A map learns to attend to what a peer's does not, :func:`shifted_attention`.

    .. math:: \frac{1}{BHW} \sum \big(A(F^s) - y'(F^p)\big)^2

    Args:
        student: Map that learns, (B, C, H, W).
        peer: Map to differ from, (B, C', H, W).

    Example:
        >>> x = torch.rand(2, 8, 4, 4)
        >>> diversity_loss(x, x).item() > attention_map_loss(x, x).item()
        True
    """
    return F.mse_loss(attention_map(student), shifted_attention(peer))


def shifted_map(feature: Tensor) -> Tensor:
    r"""A map whose attention is moved towards :func:`shifted_attention`.

    .. math:: F + \frac nC (y' - y), \quad n = \|\tfrac1C \textstyle\sum_c F_c^2\|

    the same for every channel, as in FFSD (https://arxiv.org/abs/2103.14473).

    Args:
        feature: (B, C, H, W).

    Returns:
        (B, C, H, W).
    """
    shift = shifted_attention(feature) - attention_map(feature)
    shift = shift * _attention_norm(feature) / feature.shape[1]
    return feature + shift.view(-1, 1, *feature.shape[2:])


def _attention_norm(feature: Tensor) -> Tensor:
    return feature.pow(2).mean(dim=1).flatten(1).norm(dim=1, keepdim=True)


def smallest_size(maps: Sequence[Tensor]) -> tuple[int, int]:
    """Height and width that every one of the (B, C, H, W) maps can be average-pooled to."""
    return min(int(x.shape[-2]) for x in maps), min(int(x.shape[-1]) for x in maps)


def resize(feature: Tensor, size: tuple[int, int]) -> Tensor:
    """Average-pool a (B, C, H, W) map to ``size``; the map itself where nothing is to be done."""
    return feature if feature.shape[-2:] == size else F.adaptive_avg_pool2d(feature, size)


def sigmoid_ramp_up(epoch: float, length: float) -> float:
    r"""Weight that rises from 0.0067 to 1 over the first ``length`` epochs, or iterations.

    .. math:: w(e) = \exp\big(-5 (1 - \min(e, R) / R)^2\big)

    Args:
        epoch: Epochs finished so far, from 0.
        length: R, in epochs; 0 switches the ramp-up off (always 1).

    Raises:
        ValueError: ``length`` is no number, or negative.

    Example:
        >>> [round(sigmoid_ramp_up(e, 80), 7) for e in (0, 40, 80)]
        [0.0067379, 0.2865048, 1.0]
    """
    if not isinstance(length, (int, float)) or length < 0:
        raise ValueError(f'the ramp-up length is {length!r} epochs, expected a number, 0 or more')
    if length == 0:
        return 1.0
    return math.exp(-5.0 * (1.0 - min(epoch, length) / length) ** 2)
