"""Reads a config file, applies the command line to it and checks its keys."""

import ast
import logging
import traceback
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from yaml import YAMLError

from ..engine.optim_wrapper import has_bf16
from ..models.builder import nearest
from .completion import complete_loops, duplicate_keys, is_called
from .config_keys import KNOWN_KEYS, check_keys
from .shipped_configs import successor

READ_KEYS = KNOWN_KEYS | {'data_hint'}
"""All that is read at the top level of a config."""


def load_config(
    config: str | Path,
    work_dir: str | Path | None = None,
    cfg_options: dict[str, Any] | None = None,
    seed: int | None = None,
    amp: bool = False,
    launcher: str = 'none',
) -> Config:
    """Read a config file and apply what was said on the command line.

    Args:
        config: Path of the config file.
        work_dir: Where the run's files go; by default the config's, or ``work_dirs/<config name>``.
        cfg_options: Values to override, by dotted key.
        seed: Of the initial weights, the data order and the augmentation.
        amp: Mixed precision for training and scoring: bf16 on the CPU, mmengine's own elsewhere.
        launcher: mmengine's launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        FileNotFoundError: There is no such file, or one of its bases is not there.
        KeyError: A key looks misspelt, or an option belongs to no part of the config.
        ValueError: The file is not valid Python, or uses a name that it does not set, or cannot be
            run; or two of its bases set the same key; or ``amp`` is asked for, but the config has
            an optimizer wrapper of its own.
    """
    if not Path(config).is_file():
        raise FileNotFoundError(f'config file not found: {config}{successor(str(config))}')
    try:
        cfg = Config.fromfile(config)
    except (
        SyntaxError, NameError, AttributeError, ImportError, ArithmeticError, JSONDecodeError,
        YAMLError,
    ) as error:  # fmt: skip
        mark = '. Save it as UTF-8 without a byte-order mark' * ('U+FEFF' in str(error))
        raise ValueError(f'{config}: {error}{place_of(error)}{mark}') from None
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{config}: {error}{successor(str(error))}') from None
    except KeyError as error:
        raise duplicate_keys(config, error) from None
    warn_of_variables(Path(config))
    check_options(cfg_options or {}, cfg)
    cfg.merge_from_dict(cfg_options or {})
    check_keys(cfg)
    complete_loops(cfg)
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = str(work_dir)
    elif cfg.get('work_dir') is None:
        cfg.work_dir = f'work_dirs/{Path(config).stem}'
    if seed is not None:
        cfg.randomness = dict(cfg.get('randomness', {}), seed=seed)
    if amp:
        use_amp(cfg)
    if 'find_unused_parameters' in cfg and cfg.get('model_wrapper_cfg') is not None:
        # mmengine reads this key only where there is no model_wrapper_cfg, as there is in ours
        cfg.model_wrapper_cfg.setdefault('find_unused_parameters', cfg.find_unused_parameters)
    return cfg


def place_of(error: Exception) -> str:
    """File and line of an error in a module that a config imports; empty for the config itself."""
    if isinstance(error, (SyntaxError, JSONDecodeError, YAMLError)):
        return ''  # it is in the message
    frames = traceback.extract_tb(error.__traceback__)
    library = Path(mmengine.__file__).parent
    own = [frame for frame in frames if library not in Path(frame.filename).parents]
    file = own[-1].filename
    return f' ({file}:{own[-1].lineno})' if file != __file__ and Path(file).is_file() else ''


def use_amp(cfg: Config) -> None:
    """Switch a config to mixed precision: scoring and, if there is one, the training."""
    if get_device() == 'mps':
        raise ValueError("amp: mmengine has no mixed precision on Apple's GPUs; leave it out")
    for loop in ('val_cfg', 'test_cfg'):
        if cfg.get(loop) is not None:
            cfg[loop].fp16 = True
            cfg[loop].pop('dtype', None)  # that of the device, as for the training
    if cfg.get('optim_wrapper') is None:
        return
    wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
    replaceable = ('OptimWrapper', 'AmpOptimWrapper', 'BFloat16OptimWrapper')
    if not any(is_called(wrapper, name) for name in replaceable):
        raise ValueError(
            f'amp: the config has optim_wrapper.type={wrapper!r}; it can only replace OptimWrapper'
        )
    if torch.cuda.is_available():
        cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
        return
    if not has_bf16():
        print_log(
            'amp: this CPU has no bf16 instructions; training is likely slower with --amp '
            'than without',
            level=logging.WARNING,
        )
    cfg.optim_wrapper.pop('loss_scale', None)
    cfg.optim_wrapper.type = 'mmrazor.BFloat16OptimWrapper'


def by_iterations(cfg: Config) -> bool:
    """Whether the config's training goes by iterations."""
    loop = cfg.train_cfg
    return not loop.get('by_epoch', 'Iter' not in str(loop.get('type')))


def use_iterations(cfg: Config) -> None:
    """Let checkpoints and logs of a training by iterations go by them too, unless they say how."""
    hooks = cfg.setdefault('default_hooks', {})
    checkpoint = hooks.setdefault('checkpoint', dict(type='CheckpointHook'))
    if checkpoint is not None and 'by_epoch' not in checkpoint:
        checkpoint.by_epoch = False
        if checkpoint.get('interval', 1) == 1:  # what the base says for epochs
            checkpoint.interval = cfg.train_cfg.get('val_interval', 1000)
    logger = hooks.setdefault('logger', dict(type='LoggerHook'))
    if logger is not None:
        logger.setdefault('log_metric_by_epoch', False)
    cfg.setdefault('log_processor', {}).setdefault('by_epoch', False)


def warn_of_variables(path: Path) -> None:
    """Warn of variables that a config file sets over its bases, and that nothing in it reads."""
    if path.suffix != '.py':
        return
    file = ast.parse(path.read_text(encoding='utf-8'))
    set_here = {
        target.id
        for line in file.body
        if isinstance(line, ast.Assign)
        for target in line.targets
        if isinstance(target, ast.Name)
    }
    names = (node for node in ast.walk(file) if isinstance(node, ast.Name))
    read_here = {node.id for node in names if isinstance(node.ctx, ast.Load)}
    unread = sorted(set_here - read_here - READ_KEYS - {'_base_'})
    if '_base_' in set_here and unread:
        print_log(
            f'{path}: nothing in it reads {", ".join(unread)}. To set a variable that a base has '
            'as well changes nothing: the base has used its own. Set what it was used for, such as '
            'model or train_dataloader',
            level=logging.WARNING,
        )


def check_options(options: dict[str, Any], cfg: Config) -> None:
    """Raise a ``KeyError`` for a ``--cfg-options`` key that has no effect."""
    used = {'cfg', 'vis_backends', *({'data_preprocessor'} & set(cfg.get('model') or {}))}
    parts = ', '.join(sorted(READ_KEYS & set(cfg) - used))
    for option in options:
        part = option.split('.')[0]
        if part in (set(cfg) - READ_KEYS) | used:
            raise KeyError(
                f'option {option!r} would change nothing: the config has used its variable '
                f'{part!r} already. Set what it was used for, in one of {parts}'
            )
        if part not in READ_KEYS:
            raise KeyError(
                f'option {option!r} belongs to no part of the config'
                f'{nearest(option, READ_KEYS)}; its parts are {parts}'
            )


def value_at(cfg: Config, name: str) -> Any:
    """What is at a dotted key, None if there is nothing."""
    value: Any = cfg
    for key in name.split('.'):
        value = value.get(key) if isinstance(value, (Config, dict)) else None
    return value
