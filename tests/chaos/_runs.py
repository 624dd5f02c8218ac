"""Tiny runs of every method, in forks of one process that has imported everything already."""

import atexit
import functools
import gc
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from mmengine.config import Config

from mfef_mmrazor.apis import load_config
from mfef_mmrazor.datasets.digits import read_digits
from mfef_mmrazor.engine.hooks import results_hook

CONFIGS = Path(__file__).parents[2] / 'configs'
EPOCHS = 3
STEPS = 4  # an epoch
SMALL = {
    'val_dataloader.dataset.indices': 20,
    'val_dataloader.batch_size': 20,
    'train_dataloader.batch_size': 20,
    'train_cfg.max_epochs': EPOCHS,
}


def methods() -> dict[str, Path]:
    """The digits configs of several students, by what comes before the first ``_``."""
    found = sorted(CONFIGS.glob('*/*_1xb32-20e_digits.py'), key=lambda path: -len(path.name))
    paths = {path.name.split('_')[0]: path for path in found}
    return {
        name: path
        for name, path in sorted(paths.items())
        if 'students' in load_config(path, 'unused').model
    }


def tiny(path: Path, work_dir: Path, by_epoch: bool = True, **options: Any) -> Config:
    """A config of three epochs of four steps; ``__`` stands for the dots of the options' keys."""
    dotted = {key.replace('__', '.'): value for key, value in options.items()}
    cfg = load_config(path, work_dir, {**SMALL, **dotted})
    dataset = cfg.train_dataloader.dataset
    per_class = 2 * STEPS  # of ten classes, a batch of twenty
    (dataset if dataset.type.endswith('Digits') else dataset.dataset).train_per_class = per_class
    if not by_epoch:
        length = EPOCHS * STEPS
        cfg.train_cfg = dict(by_epoch=False, max_iters=length, val_interval=STEPS)
        cfg.param_scheduler = dict(type='CosineAnnealingLR', by_epoch=False, T_max=length)
    return cfg


@contextmanager
def cheap() -> Iterator[None]:
    """Do once what every run does beside its training, and draw and format nothing."""
    with (
        mock.patch.object(results_hook, 'git_revision', functools.cache(results_hook.git_revision)),
        mock.patch.object(results_hook, 'draw_curves'),
        mock.patch('mmengine.config.config.FormatCode', lambda text, **style: (text, True)),
        mock.patch('mmengine.runner.runner.collect_env', dict),
    ):
        results_hook.git_revision()
        read_digits()
        gc.collect()
        gc.freeze()  # else each fork's collections go through all that was imported
        yield


def start(target: Callable, *args: Any, log: Path | str = os.devnull, **kwargs: Any) -> int:
    """Start a function in a fork of this process; its exit status is that of a script."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        target(*args, **kwargs)
        status = 0
    except SystemExit as stopped:
        status = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()  # as at the end of a script
        os._exit(status)


def finish(child: int) -> int:
    """Wait for the end of a process; its exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def is_running(child: int) -> bool:
    """Whether a process that was started has not ended (and is not waited for)."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def end(work_dir: Path) -> list:
    """What a run has come to: everything but times."""
    last = [work_dir / f'epoch_{EPOCHS}.pth', work_dir / f'iter_{EPOCHS * STEPS}.pth']
    (checkpoint,) = filter(Path.is_file, last)
    stored = torch.load(checkpoint, weights_only=True)
    history = stored['results']['history']
    return [stored['state_dict'], stored['optimizer'], stored['param_schedulers'], history]


def same(a: Any, b: Any) -> bool:
    """Whether two nested structures are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b
