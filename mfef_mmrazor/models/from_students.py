"""What an ``OnlineDistill`` takes over from its students, unless its config says otherwise."""

import copy
import inspect
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from mmengine.logging import print_log
from mmpretrain.models.heads import ArcFaceClsHead, ClsHead, MultiLabelClsHead, MultiTaskHead
from mmrazor.models.losses import DISTLoss, DKDLoss, KLDivergence
from torch import nn

from ..cfg_type import Cfg
from .builder import arguments_of, find
from .distillers.online_distiller import OnlineDistiller
from .losses import StandardizedKLDivergence
from .student_facts import (
    agreed,
    batch_augments,
    is_multi_label,
    loss_on_labels,
    map_channels,
    number_of_classes,
)

PER_LABEL: dict[str, Cfg] = dict(
    KLDivergence=dict(type='BernoulliKLDivergence'),
    EnsembleKLDivergence=dict(divergence=dict(type='BernoulliKLDivergence')),
    MutualKLDivergence=dict(divergence=dict(type='BernoulliKLDivergence')),
)
"""What becomes of a loss between softmaxes, where an image may have several labels."""

OF_SOFTMAXES = (DISTLoss, DKDLoss, KLDivergence, StandardizedKLDivergence)


def arguments_of_distiller(
    kind: type[OnlineDistiller], cfg: Cfg, students: Sequence[nn.Module]
) -> Cfg:
    """A distiller's config with what it leaves out and the students know.

    - ``num_students``, ``num_classes`` and ``in_channels``, the channels of the last maps;
    - the loss on the labels of every classifier of the method's own, in the arguments ``head`` and
      ``loss_ce``: the loss of the students' heads;
    - for students with several labels an image, a divergence per label for one of softmaxes.

    Raises:
        ValueError: An argument is needed, and the students do not say it either.
        TypeError: The method does not take the number of students.
    """
    takes, more = arguments_of(kind)
    if 'num_students' not in takes and not more:
        raise TypeError(
            f'{kind.__name__} does not take num_students: let its __init__ have this argument and '
            'pass it to super().__init__'
        )
    cfg = {'num_students': len(students), **cfg}
    told: dict[str, Any] = {}
    if 'num_classes' in takes and 'num_classes' not in cfg:
        told['num_classes'] = number_of_classes(students[0])
    if 'in_channels' in takes and 'in_channels' not in cfg:
        told['in_channels'] = _channels(kind, cfg, students)
    for name, value in told.items():
        if value is None and takes[name] is inspect.Parameter.empty:
            raise ValueError(
                f'distiller: {kind.__name__} needs {name}, which cannot be read from the heads '
                f'of the students. Set it, as in dict(type={kind.__name__!r}, {name}=...)'
            )
    told = {name: value for name, value in told.items() if value is not None}
    if told:
        found = ', '.join(f'{name}={value}' for name, value in told.items())
        _log(f'{kind.__name__}: {found}, from the heads of the students')
    cfg.update(told)
    cfg.update(_losses_on_labels(kind, cfg, takes, students))
    if all(map(is_multi_label, students)):
        cfg.update(_losses_per_label(kind, cfg, takes))
    return cfg


def _channels(
    kind: type[OnlineDistiller], cfg: Cfg, students: Sequence[nn.Module]
) -> int | list[int] | None:
    """``in_channels``, if the students' heads tell it and no other map is recorded."""
    recorders = cfg.get('recorders') or {}
    recorders = [recorders] if isinstance(recorders, dict) else recorders
    if any('feature' in each for each in recorders):
        return None
    channels = [map_channels(student) for student in students]
    known = [c for c in channels if c is not None]
    return kind.default_in_channels(known) if len(known) == len(students) else None


def _losses_on_labels(
    kind: type[OnlineDistiller], cfg: Cfg, defaults: dict[str, Any], students: Sequence[nn.Module]
) -> Cfg:
    found = [loss_on_labels(student) for student in students]
    if found[0] is None:
        return {}
    taken: dict[str, Any] = {}
    for name, default in defaults.items():
        given = cfg.get(name, default)
        if name == 'loss_ce' and name not in cfg:
            taken[name] = copy.deepcopy(found[0])
        if (name == 'head' or name.endswith('_head')) and isinstance(given, dict):
            usual = default if isinstance(default, dict) else dict(type='mmpretrain.LinearClsHead')
            head = {**usual, **given}
            if 'loss' not in head and issubclass(find(head), (ClsHead, MultiLabelClsHead)):
                taken[name] = {**head, 'loss': copy.deepcopy(found[0])}
    if taken and not agreed(found):
        names = ', '.join(type(loss).__name__ for loss in found)
        _log(
            f'{kind.__name__}: the losses of the students differ ({names}); its own classifiers '
            f'take that of student0. Set {" and ".join(taken)} in the distiller to choose another'
        )
    return taken


def _losses_per_label(method: type[OnlineDistiller], cfg: Cfg, defaults: dict[str, Any]) -> Cfg:
    changed = {}
    for name, default in defaults.items():
        given = cfg.get(name, default)
        if not isinstance(given, dict):
            continue
        loss = {**(default if isinstance(default, dict) else {}), **given}
        kind = loss.get('type', '')
        kind = getattr(kind, '__name__', kind).rpartition('.')[2]
        if kind in PER_LABEL and loss.get('divergence') is None:
            changed[name] = {**loss, **PER_LABEL[kind]}
    if changed:
        _log(
            f'{method.__name__}: the students have several labels for an image, so that '
            f'{", ".join(changed)} compare sigmoids label by label, not softmaxes'
        )
    return changed


def check_teaching(distiller: OnlineDistiller, students: Sequence[nn.Module]) -> None:
    """Raise a ``ValueError`` if the students cannot teach each other by this method.

    That is the case if a student has several tasks. It is also the case for multi-label students if
    only some are, if the number of labels is unknown, if the method is defined for one label per
    image only, or if one of its losses compares softmaxes. A warning names heads whose logits are
    different in training.
    """
    for i, student in enumerate(students):
        head = getattr(student, 'head', None)
        if isinstance(head, MultiTaskHead):
            raise ValueError(
                f'student{i}: a MultiTaskHead has logits for each of its tasks, and methods are '
                'defined for one: give the students the head of one task'
            )
        if isinstance(head, ArcFaceClsHead):
            print_log(
                f'student{i}: the logits of an ArcFaceClsHead have a margin in training, and it is '
                'these that the students teach each other',
                logger='current',
                level=logging.WARNING,
            )
    several = [is_multi_label(student) for student in students]
    if not any(several):
        return
    method = type(distiller).__name__
    if not all(several):
        one, other = several.index(True), several.index(False)
        raise ValueError(
            f'student{one} has a multi-label head, student{other} does not: students can teach '
            'each other only if all of them have one. Give all of them such a head, or none'
        )
    if number_of_classes(students[0]) is None:
        raise ValueError(
            f'student0: its multi-label head {type(students[0].head).__name__} does not say how '
            'many labels there are; set its attribute num_classes'
        )
    if not distiller.takes_multi_label:
        raise ValueError(
            f'{method}: found students with multi-label heads, but the method is defined for one '
            'label per image; take another one, such as DMLDistiller or MFEFDistiller'
        )
    for name, loss in distiller.named_modules():
        of_softmaxes = isinstance(getattr(loss, 'divergence', None), partial)  # kd_loss
        if isinstance(loss, OF_SOFTMAXES) or of_softmaxes:
            raise ValueError(
                f'{method}: {name} compares softmaxes, but the students have multi-label heads; '
                "set type='BernoulliKLDivergence' in its config"
            )


def share_augments(
    students: Sequence[nn.Module], preprocessor: Any, given: Cfg | nn.Module | None
) -> None:
    """Let the data preprocessor of all students mix batches as their ``train_cfg.augments`` say.

    Args:
        students: Each with a data preprocessor of its own, which is not used.
        preprocessor: The one that is used; changed in place.
        given: What it was made from. If that has ``batch_augments``, they are what counts.

    Raises:
        ValueError: The students want their batches, of which there is one for all, mixed in
            different ways; or ``preprocessor`` is of a kind that does not mix.
    """
    wanted = [batch_augments(student) for student in students]
    if not any(wanted):
        return
    names = ', '.join(f'student{i}: {_names(augments)}' for i, augments in enumerate(wanted))
    if isinstance(given, dict):
        decided = 'batch_augments' in given
    else:
        decided = getattr(given, 'batch_augments', None) is not None
    if decided:
        if not agreed([*wanted, preprocessor.batch_augments]):
            _log(f"data_preprocessor.batch_augments counts, not the students' own ({names})")
        return
    if not agreed(wanted):
        raise ValueError(
            f'train_cfg.augments of the students differ ({names}), but they all see one batch; set '
            "batch_augments in OnlineDistill's data_preprocessor (None to mix nothing)"
        )
    if not hasattr(preprocessor, 'batch_augments'):
        raise ValueError(
            f'train_cfg.augments of the students ({_names(wanted[0])}) cannot be done by '
            f'a {type(preprocessor).__name__}; take them out, or use a ClsDataPreprocessor'
        )
    if getattr(preprocessor, 'num_views', None):
        raise ValueError(
            f'train_cfg.augments of the students ({_names(wanted[0])}) cannot mix the '
            f'num_views={preprocessor.num_views} of the data preprocessor; take one of them out'
        )
    preprocessor.batch_augments = wanted[0]
    preprocessor.to_onehot = True
    preprocessor.num_classes = preprocessor.num_classes or number_of_classes(students[0])
    _log(f"batches are mixed as the students' train_cfg says: {_names(wanted[0])}")


def warn_of_normalisation(students: Sequence[nn.Module], preprocessor: Any) -> None:
    """Warn of students with a normalisation of their own, other than that of all their images."""
    used = _normalisation(preprocessor)
    for i, student in enumerate(students):
        own = _normalisation(getattr(student, 'data_preprocessor', None))
        if own and own != used:
            taken = 'mean {}, std {}'.format(*used) if used else 'none'
            print_log(
                f'student{i}: its own normalisation (mean {own[0]}, std {own[1]}) is ignored, as '
                f'one data_preprocessor serves all students ({taken}). Weights that were trained '
                'with its own would see images that they do not know',
                logger='current',
                level=logging.WARNING,
            )


def _normalisation(preprocessor: Any) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation of each channel; None for no normalisation."""
    if not getattr(preprocessor, '_enable_normalize', False):
        return None
    mean, std = (x.flatten().tolist() for x in (preprocessor.mean, preprocessor.std))
    return mean, std


class Heads:
    """The heads of all students as one, whose loss can be set, as for a single network.

    Args:
        model: An ``OnlineDistill``.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    @property
    def loss_module(self) -> nn.Module:
        """The loss on the labels; set for the students, and for those classifiers of the distiller
        whose loss is the students'."""
        return self._model.architecture.head.loss_module

    @loss_module.setter
    def loss_module(self, loss: nn.Module) -> None:
        was = self.loss_module
        for module in self._model.modules():
            for name in ('loss_module', 'loss_ce'):
                if agreed([getattr(module, name, None), was]):
                    setattr(module, name, copy.deepcopy(loss))


def _names(augments: Any) -> str:
    if augments is None:
        return 'none'
    return ' or '.join(type(augment).__name__ for augment in augments.augments if augment)


def _log(message: str) -> None:
    print_log(message, logger='current')
