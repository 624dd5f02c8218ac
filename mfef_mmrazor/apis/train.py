"""What ``tools/train.py`` and ``tools/test.py`` do, callable from Python."""

import copy
import logging
import platform
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner, find_latest_checkpoint

from .. import compat
from .checks import (
    check_config,
    check_data,
    check_folder,
    check_model,
    check_options,
    check_ramp_up,
    check_teacher,
    check_training,
)

# what mmengine's messages that are a line a weight have in common
PER_WEIGHT = ('paramwise_options', 'skipped since its requires_grad=False')


def load_config(
    config: str | Path,
    work_dir: str | Path | None = None,
    cfg_options: dict | None = None,
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
        FileNotFoundError: There is no such file.
        KeyError: A top-level key is unknown and looks like a misspelt one, or an option is of none.
        ValueError: The file is no Python, or uses a name that it does not set; or ``amp`` is asked
            for, but the config has an optimizer wrapper of its own.
    """
    if not Path(config).is_file():
        raise FileNotFoundError(f'config file not found: {config}')
    try:
        cfg = Config.fromfile(config)
    except (SyntaxError, NameError) as error:
        raise ValueError(f'{config}: {error}') from None
    check_config(cfg)
    check_options(cfg_options or {}, cfg)
    cfg.merge_from_dict(cfg_options or {})
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = str(work_dir)
    elif cfg.get('work_dir') is None:
        cfg.work_dir = f'work_dirs/{Path(config).stem}'
    if seed is not None:
        cfg.randomness = dict(cfg.get('randomness', {}), seed=seed)
    if amp:
        use_amp(cfg)
    return cfg


def use_amp(cfg: Config) -> None:
    """Switch a config to mixed precision."""
    wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if wrapper not in ('OptimWrapper', 'AmpOptimWrapper', 'mmrazor.BFloat16OptimWrapper'):
        raise ValueError(
            f'amp: the config has optim_wrapper.type={wrapper!r}; it can only replace OptimWrapper'
        )
    if torch.cuda.is_available():
        cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    else:
        if not torch.cpu._is_avx512_bf16_supported() and platform.machine() == 'x86_64':
            print_log(
                'amp: this CPU has no bf16 instructions; training is likely slower with --amp '
                'than without',
                level=logging.WARNING,
            )
        cfg.optim_wrapper.pop('loss_scale', None)
        cfg.optim_wrapper.type = 'mmrazor.BFloat16OptimWrapper'
    for loop in ('val_cfg', 'test_cfg'):
        if cfg.get(loop) is not None:
            cfg[loop].fp16 = True


def train(cfg: Config, resume: bool = False) -> Runner:
    """Train what the config says; results are in its work dir.

    Everything that can be checked is checked before the first file is written.

    Args:
        cfg: From :func:`load_config`.
        resume: Go on from the latest checkpoint in the work dir, if there is one; what the config
            says in ``load_from`` and ``resume`` is then of no account.

    Returns:
        The runner, after training.

    Raises:
        FileNotFoundError: The data, the checkpoint to start from or a teacher's is not there.
        NotADirectoryError: The work dir, or a folder above it, is a file.
        ValueError, TypeError, KeyError: The config is none of a training by epochs, or the model's
            part of it is wrong, or a checkpoint is of another architecture; the message says what
            was found, what was expected.
    """
    cfg = copy.deepcopy(cfg)
    check_training(cfg)
    check_folder(cfg.work_dir)
    if resume or (cfg.get('resume') and not cfg.get('load_from')):
        # where there is nothing yet, the run starts, from load_from if that is set
        latest = find_latest_checkpoint(cfg.work_dir)
        cfg.resume, cfg.load_from = latest is not None, latest or cfg.get('load_from')
    check_data(cfg, 'train_dataloader', 'val_dataloader')
    check_teacher(cfg)
    check_ramp_up(check_model(cfg), cfg.train_cfg.max_epochs)
    compat.init_cpu_processes()
    runner = Runner.from_cfg(cfg)
    for handler in runner.logger.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.addFilter(lambda record: not any(x in record.getMessage() for x in PER_WEIGHT))
    runner.train()
    return runner


def test(cfg: Config, checkpoint: str | Path) -> dict[str, float]:
    """Score every predictor of a checkpoint on the test data.

    Args:
        cfg: From :func:`load_config`.
        checkpoint: Path of a checkpoint of the same architecture.

    Returns:
        Metrics by name, such as ``student0.accuracy/top1``.

    Raises:
        FileNotFoundError: The data or the checkpoint is not there.
        ValueError: The checkpoint is of another architecture; names the keys.
    """
    cfg = copy.deepcopy(cfg)
    cfg.load_from = str(checkpoint)
    check_data(cfg, 'test_dataloader')
    check_teacher(cfg)
    check_model(cfg)
    compat.init_cpu_processes()
    return Runner.from_cfg(cfg).test()
