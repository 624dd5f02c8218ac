"""Checks of a training's config and work dir before anything is built or written."""

import logging
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from mmpretrain.registry import OPTIMIZERS
from torch import nn

from ..models.builder import nearest
from .config import value_at

# numbers of a training that can only be like this: type and least value
NUMBERS = (
    ('train_cfg.max_epochs', int, 1), ('train_cfg.val_interval', int, 1),
    ('train_dataloader.batch_size', int, 1), ('val_dataloader.batch_size', int, 1),
    ('optim_wrapper.optimizer.lr', (int, float), 0),
)  # fmt: skip


def check_training(cfg: Config) -> None:
    """Raise if the config is none of a training by epochs, or a number in it cannot be.

    Raises:
        ValueError: A part is missing, or the training goes by iterations, or a number is none or
            too small.
        KeyError: The optimizer is not registered.
    """
    for part in ('model', 'train_dataloader', 'optim_wrapper', 'train_cfg'):
        if cfg.get(part) is None:
            raise ValueError(
                f'{cfg.filename} has no {part!r}; a config to train has all of it, those in '
                'configs/_base_ are parts'
            )
    loop = cfg.train_cfg
    if not loop.get('by_epoch', 'Iter' not in str(loop.get('type'))):
        raise ValueError(
            'train_cfg: found a training by iterations, expected dict(by_epoch=True, '
            'max_epochs=...): the ramp-up, the augmentation and the results go by epochs'
        )
    if loop.get('max_epochs') is None:
        raise ValueError('train_cfg has no max_epochs, the number of epochs to train')
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


def check_folder(path: str | Path) -> None:
    """Raise a ``NotADirectoryError`` if a file is where the folder, or one above it, is to be."""
    for folder in (Path(path), *Path(path).parents):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f'{path}: {folder} is a file, expected a folder or nothing')


def check_ramp_up(model: nn.Module, epochs: int) -> None:
    """Warn if the distillation does not get to its full weight in so many epochs."""
    ramp_up = getattr(getattr(model, 'distiller', None), 'ramp_up_epochs', 0)
    if ramp_up > epochs:
        print_log(
            f'ramp_up_epochs={ramp_up}, but the training has {epochs} epochs: the distillation '
            'never gets to its full weight. About a quarter of the epochs is usual',
            level=logging.WARNING,
        )
