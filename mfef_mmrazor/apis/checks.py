"""Checks of a training's config and work dir before anything is built or written."""

import logging
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object, get_world_size
from mmengine.logging import print_log
from mmpretrain.registry import OPTIMIZERS
from torch import nn

from ..models.builder import nearest
from .completion import SCORED_BY, is_scored
from .config import by_iterations, value_at

# numbers of a training that can only be like this: type and least value
NUMBERS = (
    ('train_cfg.max_epochs', int, 1), ('train_cfg.max_iters', int, 1),
    ('train_cfg.val_interval', int, 1),
    ('train_dataloader.batch_size', int, 1), ('val_dataloader.batch_size', int, 1),
    ('optim_wrapper.optimizer.lr', (int, float), 0),
)  # fmt: skip


def check_training(cfg: Config) -> None:
    """Raise if the config is not one to train, or a number in it cannot be.

    Raises:
        ValueError: A part is missing, or one of those that score it, or epochs and iterations are
            mixed up, or a number is missing or too small.
        KeyError: The optimizer is not registered.
    """
    for part in ('model', 'train_dataloader', 'optim_wrapper', 'train_cfg'):
        if cfg.get(part) is None:
            raise ValueError(
                f'{cfg.filename} has no {part!r}, so it cannot be trained; take a whole config: '
                'those in configs/_base_ are only parts'
            )
    check_loop(cfg)
    for parts in SCORED_BY.values():
        missing = [part for part in parts if cfg.get(part) is None]
        if 0 < len(missing) < len(parts):
            found = ', '.join(part for part in parts if part not in missing)
            raise ValueError(
                f'the config has {found}, but no {", ".join(missing)}: expected all three, or None '
                'for each'
            )
    for name, kind, least in NUMBERS:
        value = value_at(cfg, name)
        if value is not None and not (isinstance(value, kind) and value >= least):
            what = 'a whole number' if kind is int else 'a number'
            raise ValueError(f'{name}={value!r}, expected {what}, {least} or more')
    optimizer = value_at(cfg, 'optim_wrapper.optimizer.type')
    if isinstance(optimizer, str) and OPTIMIZERS.get(optimizer) is None:
        known = [*OPTIMIZERS.module_dict, *OPTIMIZERS.parent.module_dict]
        raise KeyError(
            f'optim_wrapper.optimizer.type={optimizer!r} is not registered'
            f'{nearest(optimizer, known)}'
        )


def check_scored(cfg: Config, name: str) -> None:
    """Raise if the config is not one to train, or does not score what it trains.

    Raises:
        ValueError, KeyError: As of :func:`check_training`, or the validation is missing.
    """
    check_training(cfg)
    if not is_scored(cfg):
        raise ValueError(
            f'{name}: nothing to compare by; expected val_dataloader, val_cfg and val_evaluator'
        )


def check_loop(cfg: Config) -> None:
    """Raise a ``ValueError`` if the training's length or schedule is not in its own unit."""
    length, other = 'max_epochs', 'max_iters'
    if by_iterations(cfg):
        length, other = other, length
    found = {key: value for key, value in cfg.train_cfg.items() if value is not None}
    if length not in found or other in found:
        raise ValueError(
            f'train_cfg={found}: expected {length}, and no {other}. By iterations it is '
            'dict(_delete_=True, by_epoch=False, max_iters=..., val_interval=...), else '
            'dict(by_epoch=True, max_epochs=...)'
        )
    schedulers = cfg.get('param_scheduler') or []
    for scheduler in [schedulers] if isinstance(schedulers, dict) else schedulers:
        by_epoch = scheduler.get('by_epoch', True) and not scheduler.get('convert_to_iter_based')
        if by_iterations(cfg) and 'type' in scheduler and by_epoch:
            raise ValueError(
                f'param_scheduler: {scheduler["type"]} goes by epochs, but the training by '
                'iterations, so it would never step: set by_epoch=False and give its times in '
                'iterations'
            )
        times = [scheduler.get('T_max'), *(scheduler.get('milestones') or [])]
        until = max((time for time in times if isinstance(time, int)), default=0)
        if (by_epoch or by_iterations(cfg)) and until > found[length]:
            print_log(
                f'param_scheduler: {scheduler.get("type")} goes on until {until}, beyond '
                f'train_cfg.{length}={found[length]}: the training ends at a high learning rate',
                level=logging.WARNING,
            )


def check_folder(path: str | Path) -> None:
    """Raise a ``NotADirectoryError`` if a file is where the folder, or one above it, is to be."""
    for folder in (Path(path), *Path(path).parents):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f'{path}: {folder} is a file, expected a folder or nothing')


def check_sync_bn(cfg: Config, model: nn.Module) -> None:
    """Raise a ``ValueError`` for synchronised batch norm in several processes on the CPU.

    torch has it on GPUs only; mmengine takes it back by itself where there is one process. To be
    called when the processes have met.
    """
    wanted = cfg.get('sync_bn') or any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
    if wanted and get_world_size() > 1 and not torch.cuda.is_available():
        raise ValueError(
            f'sync_bn={cfg.get("sync_bn")!r}, or SyncBN in a network, works on GPUs only, and here '
            f'are {get_world_size()} processes on the CPU: take BN without sync_bn, or one process'
        )


def check_same_start(cfg: Config) -> None:
    """Raise a ``ValueError``, in all processes, if they would start from different checkpoints.

    Each has looked for itself, and their disks, or views of one, may differ. To be called when the
    processes have met.
    """
    found = all_gather_object((cfg.get('resume', False), cfg.get('load_from')))
    if any(each != found[0] for each in found):
        starts = ', '.join(f'process {i}: {path or "none"}' for i, (_, path) in enumerate(found))
        raise ValueError(
            f'the processes would start from different checkpoints ({starts}): all need to see the '
            'same work dir, on a disk that they share. If another run has just ended there, start '
            'this one again'
        )
