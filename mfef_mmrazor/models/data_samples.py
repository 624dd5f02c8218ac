"""Between mmpretrain's data samples and the tensors that methods work on."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from mmpretrain.models.heads import MultiLabelClsHead
from mmpretrain.structures import DataSample, label_to_onehot
from torch import Tensor


def targets(data_samples: Sequence[BaseDataElement], multi_label: int | None = None) -> Tensor:
    """The labels of a batch, as the students' heads take them.

    Args:
        data_samples: Annotated samples.
        multi_label: K, where an image may have several labels; None where it has one.

    Returns:
        Class indices (B,); or scores (B, K) where mixup or the like has made them, or 0 and 1 for
        every label.

    Example:
        >>> from mmpretrain.structures import DataSample
        >>> samples = [DataSample().set_gt_label([0, 2]), DataSample().set_gt_label([1])]
        >>> targets(samples, multi_label=3)
        tensor([[1., 0., 1.],
                [0., 1., 0.]])
    """
    if 'gt_score' in data_samples[0]:
        scores = torch.stack([sample.gt_score for sample in data_samples])
        return scores if multi_label is None and scores.is_floating_point() else scores.float()
    if multi_label is None:
        return torch.cat([sample.gt_label for sample in data_samples])
    labels = [label_to_onehot(sample.gt_label, multi_label) for sample in data_samples]
    return torch.stack(labels).float()


def copied(sample: BaseDataElement) -> BaseDataElement:
    """A data sample with the same values, into which a head can write.

    ``sample.new()`` copies what is in the metainfo as well and checks every field, which takes four
    times as long: for small networks more than their forward pass.
    """
    other = copy.copy(sample)
    # the names of its fields, which mmengine does not let be set as attributes
    vars(other).update(
        _data_fields=set(sample._data_fields), _metainfo_fields=set(sample._metainfo_fields)
    )
    return other


def pack_predictions(
    logits: Tensor,
    data_samples: Sequence[BaseDataElement] | None,
    head: Any = None,
) -> list[BaseDataElement]:
    """Copies of the data samples with the scores and labels that a head makes of logits (B, K).

    mmpretrain's heads say so in ``_get_predictions``: a softmax and the largest, or for several
    labels sigmoids and a threshold. Without such a head it is the former.
    """
    samples = [DataSample() for _ in logits] if data_samples is None else data_samples
    copies = [copied(sample) for sample in samples]
    if hasattr(head, '_get_predictions'):
        return head._get_predictions(logits, copies)
    for sample, score in zip(copies, logits.softmax(dim=1), strict=True):
        sample.set_pred_score(score).set_pred_label(score.argmax())
    return copies


def labels_of(scores: Tensor, head: Any) -> Tensor:
    """What a head predicts by scores (K,): the largest; for several labels, those it lets pass."""
    if not isinstance(head, MultiLabelClsHead):
        return scores.argmax()
    if head.thr is None:
        return scores.topk(head.topk).indices
    return (scores >= head.thr).nonzero().flatten()
