"""Adds to a config what its parts from elsewhere leave open."""

import copy
import logging
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from ..cfg_type import Cfg
from .data_checks import inner_datasets

ADDED = (
    'ContinuedScheduleHook', 'DataCheckHook', 'RampUpHook', 'DistillerUpdateHook', 'FiniteHook',
    'PlainLogHook', 'ResultsHook', 'SignalHook',
)  # fmt: skip

SCORED_BY = {
    stage: tuple(f'{stage}_{part}' for part in ('dataloader', 'cfg', 'evaluator'))
    for stage in ('val', 'test')
}


def is_called(kind: Any, name: str) -> bool:
    """Whether a ``type`` of a config, a class or its name with any prefix, is of that name."""
    found = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return found.rpartition('.')[2] == name


def complete_loops(cfg: Config) -> None:
    """Name the loops that score a model, where a config has something to score but names none.

    An :class:`OnlineDistill` is scored by its own: mmpretrain has ``val_cfg = dict()``, by
    which the first student alone would be scored. Any other model is scored by mmengine's.
    """
    online = is_called((cfg.get('model') or {}).get('type'), 'OnlineDistill')
    for stage in ('val', 'test'):
        loop = cfg.get(f'{stage}_cfg', {})
        if cfg.get(f'{stage}_dataloader') is None or loop is None:
            continue
        if online and 'type' not in loop:
            loop = dict(loop, type=f'mmrazor.OnlineDistill{stage.capitalize()}Loop')
        cfg[f'{stage}_cfg'] = loop


def complete_hooks(cfg: Config, schedule: str | None = None) -> None:
    """Add the hooks that methods, results and a safe run rely on, where a config lacks them.

    mmengine's ``CheckpointHook`` becomes a :class:`SafeCheckpointHook`. A config that has switched
    its checkpoints off (``default_hooks.checkpoint=None``) gets none.

    Args:
        cfg: Config, changed in place.
        schedule: What becomes of the schedules of a run that is continued for longer; see
            :class:`ContinuedScheduleHook`.
    """
    hooks = list(cfg.get('custom_hooks') or [])
    for name in ADDED:
        if not any(is_called(hook.get('type'), name) for hook in hooks):
            hooks.append(dict(type=f'mmrazor.{name}'))
    if schedule is not None:
        for hook in hooks:
            if is_called(hook['type'], 'ContinuedScheduleHook'):
                hook['how'] = schedule
    cfg.custom_hooks = hooks
    default_hooks = cfg.get('default_hooks') or {}
    checkpoint = default_hooks.get('checkpoint', dict(type='CheckpointHook', interval=1))
    if checkpoint and is_called(checkpoint.get('type'), 'CheckpointHook'):
        checkpoint = dict(checkpoint, type='mmrazor.SafeCheckpointHook')
        cfg.default_hooks = dict(default_hooks, checkpoint=checkpoint)
    if not is_scored(cfg):
        print_log(
            'nothing is scored during this training: the config has no val_dataloader, val_cfg and '
            'val_evaluator, so there will be no results.json',
            level=logging.WARNING,
        )


def is_scored(cfg: Config) -> bool:
    """Whether a training is scored while it runs."""
    return all(cfg.get(part) is not None for part in SCORED_BY['val'])


def use_tta(cfg: Config) -> None:
    """Test-time augmentation as mmpretrain's ``test.py --tta`` has it.

    Of the config's own ``tta_pipeline`` and ``tta_model``, or else over an image and its mirror
    image, the scores averaged.

    Raises:
        ValueError: The last step of the test pipeline does not pack the image, or there is none.
    """
    if is_called(cfg.test_dataloader.dataset.type, 'InMemory'):
        raise ValueError(
            'tta: test_dataloader.dataset is InMemory, which has no pipeline for each image; test '
            'with the data config without _fast'
        )
    for dataset in inner_datasets(cfg.test_dataloader):
        own = copy.deepcopy(cfg.get('tta_pipeline'))
        dataset['pipeline'] = mirrored(dataset['pipeline']) if own is None else own
    wrapper = cfg.get('tta_model', dict(type='mmpretrain.AverageClsScoreTTA'))
    cfg.model = ConfigDict(**wrapper, module=cfg.model)


def mirrored(pipeline: list[Cfg]) -> list[Cfg]:
    """A test pipeline that gives an image and its mirror image.

    Raises:
        ValueError: Its last step does not pack the image.
    """
    *earlier, last = copy.deepcopy(pipeline) or [dict(type='nothing')]  # for the message
    if not is_called(last['type'], 'PackInputs'):
        raise ValueError(
            f'tta: the test pipeline ends in {last["type"]}, expected PackInputs; or set '
            'tta_pipeline in the config'
        )
    flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
    return [*earlier, dict(type='TestTimeAug', transforms=[flips, [last]])]


def duplicate_keys(config: Any, error: KeyError) -> Exception:
    """mmengine's error about two bases with the same key, with the way out; others as they are."""
    message = str(error.args[0]) if error.args else ''
    if 'Duplicate key' not in message:
        return error
    keys = message.rpartition(': ')[2]
    hint = ''
    if 'val_cfg' in keys:
        hint = (
            ". Beside a schedule of mmpretrain's, which has val_cfg and test_cfg, take "
            '_base_/common_runtime.py instead of _base_/default_runtime.py'
        )
    return ValueError(f'{config}: two files of its _base_ set {keys}; keep one of them{hint}')
