"""Contrast among images of one class and of others."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
