"""Checks of a config before anything is built or written."""

from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint
from mmengine.runner.checkpoint import _load_checkpoint
from mmrazor.registry import MODELS

from ..models.builder import build, nearest

# what Runner.from_cfg reads, and what else OpenMMLab's own configs have at the top level
KNOWN_KEYS = {
    'auto_scale_lr', 'cfg', 'custom_hooks', 'custom_imports', 'data_preprocessor', 'default_hooks',
    'default_scope', 'env_cfg', 'experiment_name', 'launcher', 'load_from', 'log_level',
    'log_processor', 'model', 'model_wrapper_cfg', 'optim_wrapper', 'param_scheduler',
    'randomness', 'resume', 'runner_type', 'test_cfg', 'test_dataloader', 'test_evaluator',
    'train_cfg', 'train_dataloader', 'val_cfg', 'val_dataloader', 'val_evaluator', 'vis_backends',
    'visualizer', 'work_dir',
}  # fmt: skip


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


def check_data(cfg: Config, *dataloaders: str) -> None:
    """Raise a ``FileNotFoundError`` if a data set's folder is not there.

    Data sets that mmpretrain downloads itself are left to it.
    """
    for dataloader in dataloaders:
        for dataset in inner_datasets(cfg.get(dataloader)):
            root, prefix = dataset.get('data_root', ''), dataset.get('data_prefix', '')
            folder = Path(root) / prefix if isinstance(prefix, str) else Path(root)
            downloads = 'CIFAR' in str(dataset.get('type')) and dataset.get('download', True)
            if not (folder == Path() or folder.exists() or downloads):
                raise FileNotFoundError(
                    f'{dataloader}: data folder not found: {folder} (looked from {Path.cwd()}). '
                    f'Put the data there, or set {dataloader}.dataset.data_root'
                )


def inner_datasets(dataset_cfg: dict | None) -> Iterator[dict]:
    """The data sets of a data loader's config, inside any wrappers."""
    inner = (dataset_cfg or {}).get('dataset', (dataset_cfg or {}).get('datasets'))
    for each in inner if isinstance(inner, (list, tuple)) else [inner]:
        if isinstance(each, dict):
            yield from inner_datasets(each) if {'dataset', 'datasets'} & set(each) else [each]


def check_checkpoint(cfg: Config) -> None:
    """Raise if the checkpoint a run starts from is missing or of another architecture.

    Raises:
        FileNotFoundError: ``load_from`` is not there.
        ValueError: Names the keys that are missing, unexpected or of another shape.
    """
    path = cfg.get('load_from')
    if cfg.get('resume') and not path:
        path = find_latest_checkpoint(cfg.work_dir)
    if not path:
        return
    if '://' not in path and not Path(path).is_file():
        raise FileNotFoundError(f'checkpoint not found: {path}')
    weights = _load_checkpoint(path, map_location='cpu')
    with torch.random.fork_rng():  # the run itself starts from the seed, not from here
        model = MODELS.build(cfg.model)
    model.load_state_dict(weights.get('state_dict', weights))


def check_teacher(cfg: Config) -> None:
    """Raise if the trained teacher of mmrazor's own distillers is missing or another network.

    mmengine would load what fits of a checkpoint and leave the rest untrained, without a word.

    Raises:
        FileNotFoundError: ``model.teacher_ckpt`` is not there.
        ValueError: It is the checkpoint of another network than ``model.teacher``.
    """
    path = cfg.model.get('teacher_ckpt')
    if not path:
        return
    hint = (
        "give a trained network's checkpoint with --cfg-options model.teacher_ckpt=PATH: that of a "
        'config in configs/baseline, or a student from tools/export_student.py'
    )
    if '://' not in path and not Path(path).is_file():
        raise FileNotFoundError(f'teacher not found: {path}; {hint}')
    weights = _load_checkpoint(path, map_location='cpu')
    with torch.random.fork_rng():
        teacher = build(cfg.model.teacher)
    try:
        teacher.load_state_dict(weights.get('state_dict', weights))
    except RuntimeError as error:
        first = ' '.join(str(error).split())[:200]
        raise ValueError(f'{path} is not of the network model.teacher; {hint} ({first})') from None
