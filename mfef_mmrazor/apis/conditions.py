"""What the configs of a comparison have to have in common, and where two configs differ."""

import logging
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..functional import sigmoid_ramp_up
from ..models.builder import arguments_of, find, nearest
from .config import by_iterations, value_at

# default hooks that only keep, or show, what a training does
RECORDED_BY = ('checkpoint', 'logger', 'runtime_info', 'timer', 'visualization')
# what mmengine adds of the others
ALWAYS = dict(
    param_scheduler=dict(type='ParamSchedulerHook'), sampler_seed=dict(type='DistSamplerSeedHook')
)
# What has to be the same in all configs: data, its order and augmentation, networks, optimization.
CONDITIONS = (
    'train_dataloader', 'val_dataloader', 'val_evaluator', 'optim_wrapper', 'param_scheduler',
    'train_cfg', 'val_cfg.fp16', 'val_cfg.dtype', 'randomness', 'load_from', 'auto_scale_lr',
    'sync_bn', 'custom_hooks', 'default_hooks', 'model.data_preprocessor', 'model.students',
    'model.shared_stages', 'model.pretrained', 'model.init_cfg',
)  # fmt: skip


class _NotSet:
    def __repr__(self) -> str:
        return 'not set'


NOT_SET = _NotSet()
"""What :func:`differences` gives for a key that one of the configs lacks: None is a value."""


def check_conditions(methods: dict[str, Config], allow: Sequence[str]) -> None:
    """Raise a ``ValueError`` that names the conditions in which the configs differ."""
    for name in allow:
        if not any(_is_part(name, condition) for condition in CONDITIONS):
            raise ValueError(
                f'allow: {name!r} is not one of the conditions {", ".join(CONDITIONS)}'
                f'{nearest(name, CONDITIONS)}'
            )
    (first, reference), *others = methods.items()
    for name, cfg in others:
        unlike = {
            key: (a, b)
            for condition in CONDITIONS
            for key, a, b in differences(
                _condition(reference, condition), _condition(cfg, condition), condition
            )
            if not any(_is_part(key, allowed) for allowed in allow)
        }
        if unlike:
            raise ValueError(
                f'{first} and {name} differ in '
                + ', '.join(
                    f'{key} ({reprlib.repr(a)} and {reprlib.repr(b)})'
                    for key, (a, b) in unlike.items()
                )
                + '. Make them equal, or allow it with --allow '
                + ' '.join(key.removesuffix('.length') for key in unlike)
            )


def warn_of_long_ramp_up(name: str, cfg: Config) -> None:
    """Warn of a method whose ramp-up is longer than its training: it hardly teaches.

    Args:
        name: The method, for the message.
        cfg: Its config. A ramp-up in another unit than the training's is not looked at here: how
            many iterations an epoch has is known to the run, which warns as well.
    """
    distiller = cfg.model.get('distiller')
    if not distiller:
        return
    unit, length = ('iters', 'max_iters') if by_iterations(cfg) else ('epochs', 'max_epochs')
    key, total = f'ramp_up_{unit}', cfg.train_cfg[length]
    kind = find({'_scope_': cfg.model.get('_scope_'), **distiller})
    arguments = {**arguments_of(kind)[0], **distiller}
    in_iterations = arguments.get('ramp_up_iters') is not None  # which then counts
    given = arguments.get(key) or 0
    if given <= total or (in_iterations and unit == 'epochs'):
        return
    whose = '' if key in distiller else f' (the default of {kind.__name__})'
    print_log(
        f'{name}: {key}={given}{whose}, but {length}={total}: the weight of the distillation gets '
        f'to {sigmoid_ramp_up(total - 1, given):.2g} of 1. About a quarter of the training is '
        f'usual: model.distiller.{key}={max(1, round(total / 4))}',
        level=logging.WARNING,
    )


def _is_part(key: str, whole: str) -> bool:
    return f'{key}.'.startswith(f'{whole}.')


def _condition(cfg: Config, name: str) -> Any:
    if name == 'model.students' and 'students' not in cfg.model:
        network = cfg.model.get('architecture', cfg.model)  # one, alone or in mmrazor's way
        return [{k: v for k, v in network.items() if k not in ('data_preprocessor', '_scope_')}]
    if name == 'model.data_preprocessor' and 'data_preprocessor' not in cfg.model:
        name = 'data_preprocessor'  # which mmengine then gives to the model
    value = value_at(cfg, name) or None
    if name == 'default_hooks':
        hooks = {**ALWAYS, **(value or {})}
        return {hook: own for hook, own in hooks.items() if hook not in RECORDED_BY}
    return value


def differences(a: Any, b: Any, key: str = '') -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys in which two parts of a config differ, with both values."""
    if isinstance(a, dict) and isinstance(b, dict):
        for name in sorted({*a, *b}):
            own = a.get(name, NOT_SET), b.get(name, NOT_SET)
            yield from differences(*own, f'{key}.{name}'.lstrip('.'))
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(x, y, f'{key}.{i}'.lstrip('.'))
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        yield f'{key}.length'.lstrip('.'), len(a), len(b)
    elif a != b:
        yield key, a, b
