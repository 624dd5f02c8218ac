"""Between mmpretrain's data samples and the tensors that methods work on."""

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any, overload

import torch
from mmengine.structures import BaseDataElement
from mmpretrain.models.heads import ClsHead, MultiLabelClsHead
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


def single_labels(samples: Sequence[Any]) -> Tensor | None:
    """The true classes (B,) of samples, or of their dicts, on the CPU; None unless each has one."""
    labels = [sample.get('gt_label') for sample in samples]
    if any(label is None or label.numel() != 1 for label in labels):
        return None
    return torch.cat([label.flatten() for label in labels]).cpu()


class PredictedSamples(Sequence[BaseDataElement]):
    """Copies of a batch's data samples with scores and labels, made when they are looked at.

    Metrics that take a whole batch, ``scores`` and ``labels``, need none of them: for small
    networks they take longer to make than the predictions.

    Args:
        logits: (B, K), of classes that exclude each other.
        data_samples: What is known of the images.
    """

    def __init__(self, logits: Tensor, data_samples: Sequence[BaseDataElement]) -> None:
        self._scores = logits.softmax(dim=1)
        self._given = data_samples

    @cached_property
    def scores(self) -> Tensor:
        """Probabilities (B, K), on the CPU."""
        return self._scores.cpu()

    @cached_property
    def labels(self) -> Tensor | None:
        """The true classes (B,), on the CPU; None unless each image has one."""
        return single_labels(self._given)

    @cached_property
    def _samples(self) -> list[BaseDataElement]:
        samples = [copied(sample) for sample in self._given]
        predicted = self._scores.argmax(dim=1, keepdim=True)
        for sample, score, label in zip(samples, self._scores, predicted, strict=True):
            sample.set_pred_score(score).set_pred_label(label)
        return samples

    def __len__(self) -> int:
        return len(self._scores)

    @overload
    def __getitem__(self, index: int) -> BaseDataElement: ...
    @overload
    def __getitem__(self, index: slice) -> list[BaseDataElement]: ...
    def __getitem__(self, index: int | slice) -> BaseDataElement | list[BaseDataElement]:
        return self._samples[index]


def pack_predictions(
    logits: Tensor,
    data_samples: Sequence[BaseDataElement] | None,
    head: Any = None,
) -> Sequence[BaseDataElement]:
    """Copies of the data samples with the scores and labels that a head makes of logits (B, K).

    mmpretrain's heads say so in ``_get_predictions``: a softmax and the largest, or for several
    labels sigmoids and a threshold. Without such a head it is the former.
    """
    samples = [DataSample() for _ in logits] if data_samples is None else data_samples
    make = getattr(type(head), '_get_predictions', ClsHead._get_predictions)
    if make is ClsHead._get_predictions:
        return PredictedSamples(logits, samples)
    return head._get_predictions(logits, [copied(sample) for sample in samples])


def labels_of(scores: Tensor, head: Any) -> Tensor:
    """What a head predicts by scores (K,): the largest; for several labels, those it lets pass."""
    if not isinstance(head, MultiLabelClsHead):
        return scores.argmax()
    if head.thr is None:
        return scores.topk(head.topk).indices
    return (scores >= head.thr).nonzero().flatten()
