"""What the students' networks and heads say of themselves, so that a config need not repeat it."""

from collections.abc import Sequence
from typing import Any

from mmpretrain.models.heads import MultiLabelClsHead, MultiTaskHead
from mmpretrain.models.necks import GeneralizedMeanPooling, GlobalAveragePooling
from torch import Tensor, nn

from .necks import DualAttentionNeck, GlobalMaxPooling, MultiScaleNeck

KEEPS_CHANNELS = (
    DualAttentionNeck, GeneralizedMeanPooling, GlobalAveragePooling, GlobalMaxPooling,
    MultiScaleNeck,
)  # fmt: skip


def number_of_classes(student: nn.Module) -> int | None:
    """K of a student's head, None where it does not say.

    Some of mmpretrain's heads do not keep the number; what their last layer gives has as many.
    """
    head: Any = getattr(student, 'head', None)
    told = getattr(head, 'num_classes', None)
    known = type(head).__module__.startswith('mmpretrain.') and not isinstance(head, MultiTaskHead)
    if told is None and known:
        layers = [layer for layer in head.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
        told = layers[-1].weight.shape[0] if layers else None
    return told


def map_channels(student: nn.Module) -> int | None:
    """Channels of a student's last feature map, None where its head does not say.

    A head reads as many numbers as the map has channels, unless some other neck than a pooling is
    between the two.
    """
    neck = getattr(student, 'neck', None)
    parts = neck if isinstance(neck, nn.Sequential) else [neck]
    channels = getattr(getattr(student, 'head', None), 'in_channels', None)
    known = all(part is None or isinstance(part, KEEPS_CHANNELS) for part in parts)
    return channels if known and isinstance(channels, int) else None


def is_multi_label(student: nn.Module) -> bool:
    """Whether an image may have several labels at once for a student."""
    return isinstance(getattr(student, 'head', None), MultiLabelClsHead)


def loss_on_labels(student: nn.Module) -> nn.Module | None:
    """The loss of a student's head, None where it has none."""
    loss = getattr(getattr(student, 'head', None), 'loss_module', None)
    return loss if isinstance(loss, nn.Module) else None


def batch_augments(student: nn.Module) -> Any:
    """What a student mixes batches with (mixup, cutmix): its ``train_cfg.augments``, or None."""
    return getattr(getattr(student, 'data_preprocessor', None), 'batch_augments', None)


def predicts_itself(student: nn.Module) -> bool:
    """Whether a student's head is of the user's own, with a ``predict`` of its own.

    mmpretrain's heads predict from their logits alone, in ``_get_predictions``.
    """
    predict = getattr(getattr(student, 'head', None), 'predict', None)
    return predict is not None and not predict.__module__.startswith('mmpretrain.')


def agreed(found: Sequence[Any]) -> bool:
    """Whether all are of one kind and have the same settings."""
    first, *others = map(_settings, found)
    return all(other == first for other in others)


def _settings(x: Any) -> Any:
    """An object's type and attributes, in a form that can be compared."""
    if isinstance(x, Tensor):
        return x.tolist()
    if isinstance(x, (list, tuple)):
        return [_settings(each) for each in x]
    if isinstance(x, dict):
        return {name: _settings(each) for name, each in x.items()}
    if callable(x) and hasattr(x, '__qualname__'):  # a function, or a method of its owner
        return x.__qualname__
    if hasattr(x, '__dict__'):
        attributes = {k: v for k, v in vars(x).items() if k != 'training'}
        return type(x), _settings(attributes)
    return x
