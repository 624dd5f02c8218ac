"""Checks of a config before anything is built or written."""

import copy
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin
from urllib.request import urlopen

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger, print_log
from mmengine.runner.checkpoint import _load_checkpoint
from mmpretrain.datasets import CustomDataset
from mmpretrain.datasets.custom import find_folders
from mmpretrain.datasets.utils import check_integrity
from mmpretrain.registry import DATASETS, OPTIMIZERS
from mmrazor.registry import MODELS
from torch import nn

from ..datasets import ImageFolder
from ..models.builder import nearest

# what Runner.from_cfg reads, and what else OpenMMLab's own configs have at the top level
KNOWN_KEYS = {
    'auto_scale_lr', 'cfg', 'custom_hooks', 'custom_imports', 'data_preprocessor', 'default_hooks',
    'default_scope', 'env_cfg', 'experiment_name', 'launcher', 'load_from', 'log_level',
    'log_processor', 'model', 'model_wrapper_cfg', 'optim_wrapper', 'param_scheduler',
    'randomness', 'resume', 'runner_type', 'test_cfg', 'test_dataloader', 'test_evaluator',
    'train_cfg', 'train_dataloader', 'val_cfg', 'val_dataloader', 'val_evaluator', 'vis_backends',
    'visualizer', 'work_dir',
}  # fmt: skip

# numbers of a training that can only be like this: type and least value
NUMBERS = (
    ('train_cfg.max_epochs', int, 1), ('train_cfg.val_interval', int, 1),
    ('train_dataloader.batch_size', int, 1), ('val_dataloader.batch_size', int, 1),
    ('optim_wrapper.optimizer.lr', (int, float), 0),
)  # fmt: skip


def check_config(cfg: Config) -> None:
    """Raise a ``KeyError`` for a top-level key that looks like a misspelt one.

    mmengine accepts ``param_schedulers`` in silence, and trains without a schedule. Helper
    variables of a config's own are left alone.
    """
    for key in set(cfg.keys()) - KNOWN_KEYS:
        hint = nearest(key, KNOWN_KEYS, cutoff=0.85)
        if hint:
            raise KeyError(
                f'unknown top-level key {key!r} in the config{hint}. '
                'If it is a variable of your own, give it a name less like them.'
            )


def check_options(options: dict, cfg: Config) -> None:
    """Raise a ``KeyError`` for an option, by dotted key, that nothing would read."""
    known = KNOWN_KEYS | {'data_hint'}
    used = {'cfg', 'vis_backends', *({'data_preprocessor'} & set(cfg.get('model') or {}))}
    parts = ', '.join(sorted(known & set(cfg) - used))
    for option in options:
        part = option.split('.')[0]
        if part in (set(cfg) - known) | used:
            raise KeyError(
                f'option {option!r} would change nothing: the config has used its variable '
                f'{part!r} already. Set what it was used for, in one of {parts}'
            )
        if part not in known:
            raise KeyError(
                f'option {option!r} is of no part of the config{nearest(option, known)}; its parts '
                f'are {parts}'
            )


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


def value_at(cfg: Config, name: str) -> Any:
    """What is at a dotted key, None if there is nothing."""
    value: Any = cfg
    for key in name.split('.'):
        value = value.get(key) if isinstance(value, (Config, dict)) else None
    return value


def check_folder(path: str | Path) -> None:
    """Raise a ``NotADirectoryError`` if a file is where the folder, or one above it, is to be."""
    for folder in (Path(path), *Path(path).parents):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f'{path}: {folder} is a file, expected a folder or nothing')


def check_data(cfg: Config, *dataloaders: str) -> None:
    """Raise if a data set is not there and cannot be downloaded, or is of other classes.

    The message says what the folder must look like; a config may add where to get the data, in a
    variable ``data_hint``.

    Raises:
        FileNotFoundError: A data set is not there.
        ValueError: The class folders of two data sets have other names. Their labels are places in
            the alphabetical order, so they would stand for other classes.
    """
    classes: dict[Path, list[str]] = {}
    for dataloader in dataloaders:
        for dataset in inner_datasets(cfg.get(dataloader)):
            problem = missing_archive(dataset) or missing_folder(dataset)
            if problem:
                hint = f' {cfg.data_hint}' if 'data_hint' in cfg else ''
                raise FileNotFoundError(
                    f'{dataloader}: {problem} (looked from {Path.cwd()}).{hint} '
                    f'If the data is elsewhere, set the data_root of {dataloader}.dataset'
                )
            if _dataset_class(dataset) is ImageFolder and not dataset.get('ann_file'):
                classes[_folder(dataset)] = find_folders(str(_folder(dataset)))[0]
    for folder, names in classes.items():
        first, expected = next(iter(classes.items()))
        if names and expected and names != expected:  # the data set itself says that it has none
            raise ValueError(
                f'the class folders of {folder} are not those of {first}: '
                f'missing: {", ".join(sorted({*expected} - {*names})) or "none"}; '
                f'unexpected: {", ".join(sorted({*names} - {*expected})) or "none"}'
            )


def _folder(dataset: dict) -> Path:
    prefix = dataset.get('data_prefix', '')
    if issubclass(_dataset_class(dataset), CustomDataset):  # ImageNet has a folder for each split
        prefix = prefix or dataset.get('split', '')
    return Path(dataset.get('data_root', ''), prefix if isinstance(prefix, str) else '')


def missing_folder(dataset: dict) -> str | None:
    """What is wrong with the folder of a data set, from its config; None if nothing is."""
    kind, folder = _dataset_class(dataset), _folder(dataset)
    if folder == Path() or hasattr(kind, 'train_list'):
        return None
    wanted = f'; expected {folder}/<class>/<picture>' if issubclass(kind, CustomDataset) else ''
    if not folder.is_dir():
        return f'data folder not found: {folder}{wanted}'
    return None if any(folder.iterdir()) else f'data folder is empty: {folder}{wanted}'


def missing_archive(dataset: dict) -> str | None:
    """What is missing of a data set that mmpretrain downloads (CIFAR, MNIST); None if nothing."""
    kind = _dataset_class(dataset)
    if not hasattr(kind, 'train_list'):
        return None
    root = Path(dataset.get('data_root', ''), dataset.get('data_prefix', ''))
    files = kind.train_list + kind.test_list
    if hasattr(kind, 'url'):  # CIFAR: one archive
        archives = [(kind.filename, kind.tgz_md5, kind.url)]
        unpacked = [(f'{kind.base_folder}/{name}', md5) for name, md5 in files]
    else:  # MNIST: each file is packed
        archives = [(name, md5, urljoin(kind.url_prefix, name)) for name, md5 in files]
        unpacked = [(name.removesuffix('.gz'), None) for name, _ in files]
    if all(check_integrity(root / name, md5) for name, md5 in unpacked):
        return None
    for name, md5, url in archives:
        if check_integrity(root / name, md5):
            continue
        reason = 'download=False'
        if dataset.get('download', True):
            try:
                urlopen(url, timeout=10).close()
                continue
            except OSError as error:
                reason = f'{url} cannot be reached: {error}'
        return (
            f'{kind.__name__} is not in {root}, and is not downloaded ({reason}). Put '
            f'{", ".join(name for name, *_ in archives)} there, or unpacked: '
            f'{", ".join(name for name, _ in unpacked)}'
        )
    return None


def _dataset_class(dataset: dict) -> Any:
    kind = dataset.get('type')
    return (DATASETS.get(kind) if isinstance(kind, str) else kind) or object


def inner_datasets(dataset_cfg: dict | None) -> Iterator[dict]:
    """The data sets of a data loader's config, inside any wrappers."""
    inner = (dataset_cfg or {}).get('dataset', (dataset_cfg or {}).get('datasets'))
    for each in inner if isinstance(inner, (list, tuple)) else [inner]:
        if isinstance(each, dict):
            yield from inner_datasets(each) if {'dataset', 'datasets'} & set(each) else [each]


def check_model(cfg: Config) -> nn.Module:
    """Raise if the model cannot be built, or a run cannot start from its checkpoint.

    Returns:
        The model.

    Raises:
        FileNotFoundError: ``load_from`` is not there.
        ValueError: Weights are missing, unexpected or of another shape, or the file is no
            checkpoint, or the run that is to be resumed has another seed.
        ValueError, TypeError, KeyError: What is wrong with the config of the model.
    """
    model = _built(cfg.model)
    path = cfg.get('load_from')
    if not path:
        return model
    _check_file(path, f'checkpoint not found: {path}')
    stored = _load_into(model, path, 'the model of this config')
    was, now = stored.get('meta', {}).get('seed'), cfg.get('randomness', {}).get('seed')
    if cfg.get('resume') and None not in (was, now) and was != now:
        raise ValueError(
            f'{path} is of a run with seed {was}, and cannot go on with seed {now}: '
            f'give --seed {was}'
        )
    return model


def check_ramp_up(model: nn.Module, epochs: int) -> None:
    """Warn if the distillation does not get to its full weight in so many epochs."""
    ramp_up = getattr(getattr(model, 'distiller', None), 'ramp_up_epochs', 0)
    if ramp_up > epochs:
        print_log(
            f'ramp_up_epochs={ramp_up}, but the training has {epochs} epochs: the distillation '
            'never gets to its full weight. About a quarter of the epochs is usual',
            level=logging.WARNING,
        )


def _built(model_cfg: dict) -> nn.Module:
    logger = MMLogger.get_current_instance()
    handlers, logger.handlers = logger.handlers, []  # maybe the log of an earlier run
    try:
        with torch.random.fork_rng():  # the run itself starts from the seed, not from here
            return MODELS.build(copy.deepcopy(model_cfg))
    finally:
        logger.handlers = handlers


def _check_file(path: str, message: str) -> None:
    if '://' not in path and not Path(path).is_file():
        raise FileNotFoundError(message)


def _load_into(model: nn.Module, path: str, expected: str) -> dict:
    try:
        stored = _load_checkpoint(path, map_location='cpu')
        model.load_state_dict(stored.get('state_dict', stored))
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError) as error:
        reason = ' '.join(str(error).split())[:300]
        raise ValueError(f'{path} is no checkpoint of {expected}: {reason}') from None
    return stored


def check_teacher(cfg: Config) -> None:
    """Raise if the trained teacher of mmrazor's own distillers is missing or another network.

    mmengine would load what fits of a checkpoint and leave the rest untrained, without a word.

    Raises:
        FileNotFoundError: ``model.teacher_ckpt`` is not there.
        ValueError: It is not given, or the checkpoint of another network than ``model.teacher``.
    """
    if 'teacher' not in cfg.model:
        return
    path = cfg.model.get('teacher_ckpt')
    hint = (
        "give a trained network's checkpoint with --cfg-options model.teacher_ckpt=PATH: that of a "
        'config in configs/baseline, or a student from tools/export_student.py'
    )
    teacher = _built(cfg.model.teacher)
    if not path:
        if 'init_cfg' in cfg.model.teacher or cfg.model.teacher.get('pretrained'):
            return
        raise ValueError(f'the teacher has no weights (model.teacher_ckpt={path}); {hint}')
    _check_file(path, f'teacher not found: {path}; {hint}')
    _load_into(teacher, path, f'model.teacher; {hint}')
