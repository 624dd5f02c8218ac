"""What ``tools/train.py`` and ``tools/test.py`` do, callable from Python."""

import copy
import ctypes
import logging
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from .. import compat
from ..engine.checkpoint_files import newest_checkpoint
from ..engine.hooks import ProgressHook, SignalHook
from ..engine.predictions import check_suffix, keep_predictions, write_predictions
from ..engine.workers import end_workers
from .checkpoints import check_classes, check_model, check_teacher, read
from .checks import check_folder, check_same_start, check_sync_bn, check_training
from .completion import SCORED_BY, complete_hooks, use_tta
from .config import by_iterations, use_iterations, value_at
from .config_keys import check_custom_keys
from .data_checks import check_data
from .lock import locked

# parts of those messages that mmengine logs once for every weight
PER_WEIGHT = ('paramwise_options', 'skipped since its requires_grad=False')


# of glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Let the process keep the memory that a training step frees, for the next step.

    Otherwise glibc gives it back to the system after every step, and gets it page by page again: on
    a CPU, a step that needs much memory takes up to a tenth longer. Elsewhere it does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None) if os.name == 'posix' else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2**25)  # the most that it accepts
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def train(cfg: Config, resume: bool = False, schedule: str | None = None) -> Runner:
    """Train what the config says; results are in its work dir.

    Everything that can be checked is checked before the first file is written; in a work dir that
    is there already, before any but the lock.

    Args:
        cfg: From :func:`load_config`.
        resume: Go on from the newest intact checkpoint in the work dir, if there is a run; what the
            config says in ``load_from`` and ``resume`` is then ignored.
        schedule: What becomes of the schedules of a run that is resumed with another number of
            epochs: ``'keep'``, ``'config'``, ``'stretch'`` or ``'restart'``, see
            :class:`mfef_mmrazor.engine.ContinuedScheduleHook`; by default what the config says.

    Returns:
        The runner, after training.

    Raises:
        FileNotFoundError: The data, the checkpoint to start from or a teacher's is not there.
        NotADirectoryError: The work dir, or a folder above it, is a file.
        ValueError, TypeError, KeyError: The config is not one to train, or the model's
            part of it is wrong, or a checkpoint is of another architecture; the message says what
            was found, what was expected. Or the run to go on with has no intact checkpoint,
            or is of another method, other students, batch size or number of processes; or the
            processes find different checkpoints.
        RuntimeError: Another run is at work in the work dir; or a loss, a gradient or a weight
            became NaN or infinite.
    """
    cfg = copy.deepcopy(cfg)
    check_training(cfg)
    complete_hooks(cfg, schedule)
    check_folder(cfg.work_dir)
    if by_iterations(cfg):
        use_iterations(cfg)
    if resume or (cfg.get('resume') and not cfg.get('load_from')):
        resume, cfg.resume = True, False  # until a checkpoint is found
    begun = resume and Path(cfg.work_dir).is_dir()
    if not begun:
        check(cfg)  # before the first file is written
    keep_freed_memory()
    with locked(cfg.work_dir, cfg.get('launcher', 'none')):
        # no other run can replace now what is found
        if resume and (go_on_from_newest(cfg) or begun):
            check(cfg)
        runner = Runner.from_cfg(cfg)
        for handler in runner.logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(lambda log: not any(x in log.getMessage() for x in PER_WEIGHT))
        try:
            check_same_start(cfg)
            runner.train()
        finally:
            end_workers(runner)
            for hook in runner.hooks:
                if isinstance(hook, ProgressHook):
                    hook.stop()
                if isinstance(hook, SignalHook):  # an exception skips its after_train
                    hook.after_train(runner)
    return runner


def go_on_from_newest(cfg: Config) -> bool:
    """Let the run go on from the newest intact checkpoint in its work dir, if there is one.

    Where there is none, it starts, from ``load_from`` if that is set.

    Returns:
        Whether there is one.
    """
    newest = newest_checkpoint(cfg.work_dir, value_at(cfg, 'default_hooks.checkpoint.out_dir'))
    if newest:
        cfg.resume, cfg.load_from = True, str(newest)
    return newest is not None


def check(cfg: Config) -> None:
    """Raise if the data, the model, or a checkpoint that the run starts from is not as needed."""
    check_data(cfg, 'train_dataloader', 'val_dataloader')
    check_teacher(cfg)
    model = check_model(cfg)
    check_custom_keys(cfg, model)
    compat.init_cpu_processes(cfg.get('launcher', 'none'))
    check_sync_bn(cfg, model)


def test(
    cfg: Config, checkpoint: str | Path, out: str | Path | None = None, tta: bool = False
) -> dict[str, float]:
    """Score every predictor of a checkpoint on the test data.

    Args:
        cfg: From :func:`load_config`.
        checkpoint: Path of a checkpoint of the same architecture.
        out: File for the predictions for each image: ``.csv``, ``.json``, or ``.pkl`` as
            mmpretrain's analysis tools read it, one file per predictor.
        tta: Average the scores over an image and its mirror image, or over what the config's
            ``tta_pipeline`` makes of it.

    Returns:
        Metrics by name, such as ``student0.accuracy/top1``.

    Raises:
        FileNotFoundError: The data or the checkpoint is not there.
        ValueError: The checkpoint is of another architecture; names the keys; or it was trained on
            other classes; or there is no test data, or ``out`` is of another kind.
    """
    cfg = copy.deepcopy(cfg)
    if any(cfg.get(part) is None for part in SCORED_BY['test']):
        raise ValueError(
            f'the config has nothing to test on; expected {", ".join(SCORED_BY["test"])}'
        )
    if out is not None:
        out = Path(out)
        check_suffix(out)
        check_folder(out.parent)
    cfg.load_from, cfg.resume = str(checkpoint), False
    check_data(cfg, 'test_dataloader')
    check_teacher(cfg)
    compat.init_cpu_processes(cfg.get('launcher', 'none'))
    stored = read(checkpoint)
    check_sync_bn(cfg, check_model(cfg, stored))
    if tta:
        use_tta(cfg)
    runner = Runner.from_cfg(cfg)
    check_classes(checkpoint, stored, runner.test_dataloader.dataset)
    if out is None:
        return runner.test()
    out.parent.mkdir(parents=True, exist_ok=True)
    evaluator = runner.test_evaluator
    keep_predictions(evaluator, out)
    metrics = runner.test()
    write_predictions(evaluator, out)
    return metrics
