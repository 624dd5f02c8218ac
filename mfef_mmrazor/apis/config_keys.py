"""Finds misspelt keys in a config, by what will read them.

mmengine ignores a key that nothing reads: with ``default_hooks=dict(chekpoint=...)`` the settings
of the checkpoints are gone without a word. So each dict of a config is compared with the arguments
of its ``type``, or with what mmengine itself reads at its place.
"""

import functools
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from difflib import SequenceMatcher, get_close_matches
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.dist import init_dist
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, LogProcessor, Runner, ValLoop
from mmengine.utils import import_modules_from_strings
from mmengine.utils.dl_utils import set_multi_processing
from mmpretrain.models import ClsDataPreprocessor
from mmrazor.models.distillers import ConfigurableDistiller
from torch import nn
from torch.distributed import init_process_group
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from ..models.builder import arguments_of

# what mmengine's Runner reads, and what else OpenMMLab's own configs have at the top level
KNOWN_KEYS = {
    'activation_checkpointing', 'auto_scale_lr', 'cfg', 'compile', 'custom_hooks', 'custom_imports',
    'data_preprocessor', 'default_hooks', 'default_scope', 'efficient_conv_bn_eval', 'env_cfg',
    'experiment_name', 'find_unused_parameters', 'launcher', 'load_from', 'log_level',
    'log_processor', 'model', 'model_wrapper_cfg', 'optim_wrapper', 'param_scheduler', 'randomness',
    'resume', 'runner_type', 'sync_bn', 'test_cfg', 'test_dataloader', 'test_evaluator',
    'train_cfg', 'train_dataloader', 'val_cfg', 'val_dataloader', 'val_evaluator', 'vis_backends',
    'visualizer', 'work_dir',
}  # fmt: skip

LOADER = (
    DataLoader, 'batch_sampler', 'collate_fn', 'dataset', 'num_batch_per_epoch', 'sampler',
    'worker_init_fn',
)  # fmt: skip
Factory = Callable[..., Any]
Reader = str | Factory
# what is read at a place, besides the arguments of the type that is there; * is any key, ... says
# that there may be more
READ: dict[tuple[str, ...], tuple[Reader, ...]] = {
    ('auto_scale_lr',): ('base_batch_size', 'enable'),
    ('custom_hooks',): ('priority',),
    ('custom_imports',): (import_modules_from_strings,),
    ('data_preprocessor',): (ClsDataPreprocessor,),
    ('default_hooks',): (
        'checkpoint', 'logger', 'param_scheduler', 'runtime_info', 'sampler_seed', 'timer',
        'visualization',
    ),
    ('default_hooks', '*'): ('priority',),
    ('env_cfg',): ('cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit'),
    ('env_cfg', 'dist_cfg'): (init_process_group, init_dist),
    ('env_cfg', 'mp_cfg'): (set_multi_processing,),
    ('log_processor',): (LogProcessor,),
    ('model', 'data_preprocessor'): (ClsDataPreprocessor,),
    ('model', 'distiller', 'loss_forward_mappings', '*', '*'): (
        ConfigurableDistiller.get_record, 'detach', 'from_batch', 'student',
    ),
    ('model', 'distiller', 'recorders'): ('feature', 'logits', '...'),
    ('model_wrapper_cfg',): (DistributedDataParallel,),
    ('optim_wrapper',): (OptimWrapper, 'constructor', 'paramwise_cfg'),
    ('optim_wrapper', 'paramwise_cfg'): (
        'bias_decay_mult', 'bias_lr_mult', 'bypass_duplicate', 'custom_keys', 'dcn_offset_lr_mult',
        'dwconv_decay_mult', 'flat_decay_mult', 'layer_decay_rate', 'norm_decay_mult',
    ),
    ('optim_wrapper', 'paramwise_cfg', 'custom_keys', '*'): ('decay_mult', 'lr_mult'),
    ('param_scheduler',): ('convert_to_iter_based',),
    ('randomness',): (Runner.set_randomness,),
    ('test_cfg',): (ValLoop,),
    ('test_dataloader',): LOADER,
    ('train_cfg',): (EpochBasedTrainLoop, IterBasedTrainLoop, 'by_epoch'),
    ('train_dataloader',): LOADER,
    ('val_cfg',): (ValLoop,),
    ('val_dataloader',): LOADER,
    ('visualizer',): ('name', 'save_dir'),
}  # fmt: skip
# what a dict with a type may have besides its arguments: read by registries, or by OpenMMLab's
# builders of layers, of initial weights and of augmentation policies
EVERYWHERE = {
    'type', '_scope_', 'magnitude_key', 'magnitude_range', 'name', 'override', 'requires_grad'
}  # fmt: skip


def check_keys(cfg: Config) -> None:
    """Raise a ``KeyError`` for a key that looks like a misspelt one, with the nearest names.

    It is a warning where the likeness is less than a typo's, or where more arguments may be taken
    than are known (``**kwargs`` to the end, or a type that is not registered here). Helper
    variables of a config's own, at its top level, are left alone.
    """
    # classes that a pure-Python config names
    imported: set[str] = getattr(cfg, '_imported_names', set())
    for key in set(cfg.keys()) - KNOWN_KEYS - imported:
        likely = _likely(key, KNOWN_KEYS, cutoff=0.85)
        if likely:
            raise KeyError(
                f'unknown top-level key {key!r} in the config; nearest: {", ".join(likely)}. '
                'If it is a variable of your own, give it a name less like them.'
            )
    factories = _registered()
    for key in sorted(KNOWN_KEYS & set(cfg.keys())):
        _check(cfg[key], (key,), None, factories)


def check_custom_keys(cfg: Config, model: nn.Module) -> None:
    """Warn of a pattern in ``paramwise_cfg.custom_keys`` that is part of no parameter's name.

    The shipped schedules name the distiller, also for networks that have none.
    """
    paramwise = cfg.optim_wrapper.get('paramwise_cfg') or {}
    parameters = [name for name, _ in model.named_parameters()]
    parts = {'distiller', *(part for name in parameters for part in name.split('.'))}
    for pattern in paramwise.get('custom_keys') or {}:
        if pattern != 'distiller' and not any(pattern in name for name in parameters):
            likely = ', '.join(_likely(pattern, parts)) or 'none'
            print_log(
                f'optim_wrapper.paramwise_cfg.custom_keys: {pattern!r} is in no name of a '
                f'parameter, so it changes nothing; nearest: {likely}',
                level=logging.WARNING,
            )


def _check(
    value: Any, path: tuple[str, ...], default: Any, factories: dict[str, list[Factory]]
) -> None:
    """Check a part of a config; ``default`` is the type that it has where it says none."""
    if isinstance(value, (list, tuple)):
        for item in value:
            _check(item, path, default, factories)
    if not isinstance(value, dict):
        return
    kind = value.get('type', default)
    readers = _readers(path)
    called = [
        arguments_of(reader) for reader in (*readers, *_found(kind, factories)) if callable(reader)
    ]
    defaults = {name: given for arguments, _ in called for name, given in arguments.items()}
    unknown_kind = bool(kind) and not _found(kind, factories)
    more = '...' in readers or unknown_kind or any(more for _, more in called)
    known = {*defaults, *(reader for reader in readers if isinstance(reader, str))}
    names = known | EVERYWHERE if known else {'type'}
    for key, item in value.items():
        likely = [] if key in names else _likely(str(key), names)
        if likely:
            of = f' of {getattr(kind, "__name__", kind)}' if kind else ''
            message = f'{".".join(path)}: unknown key {key!r}{of}; nearest: {", ".join(likely)}'
            alike = SequenceMatcher(None, str(key), likely[0]).ratio()
            if not more and (key in typos(likely[0]) or alike >= 0.9):
                raise KeyError(message)
            print_log(message, level=logging.WARNING)
        given = defaults.get(key)
        inner = given.get('type') if isinstance(given, dict) else None
        _check(item, (*path, str(key)), inner, factories)


def _readers(path: tuple[str, ...]) -> tuple[Reader, ...]:
    for place, readers in READ.items():
        if len(place) == len(path) and all(a in ('*', b) for a, b in zip(place, path, strict=True)):
            return readers
    return ()


def _registered() -> dict[str, list[Factory]]:
    """All that is registered, by name: classes of the same name are not told apart."""
    roots = {
        id(each.root): each.root
        for each in vars(mmengine.registry).values()
        if isinstance(each, Registry)
    }
    found = defaultdict(list)
    for root in roots.values():
        for registry in registry_family(root):
            for name, factory in registry.module_dict.items():
                found[name].append(factory)
    return found


def registry_family(registry: Registry) -> Iterator[Registry]:
    """A registry and all below it, filled."""
    registry.import_from_location()
    yield registry
    for child in registry.children.values():
        yield from registry_family(child)


def _found(kind: Any, factories: dict[str, list[Factory]]) -> list[Factory]:
    if not isinstance(kind, str):
        return [kind] if callable(kind) else []
    name = kind.rpartition('.')[2]
    return factories.get(name) or factories.get(f'{name}Recorder', [])  # mmrazor's short names


def _likely(key: str, names: Iterable[str], cutoff: float = 0.8) -> list[str]:
    """What ``key`` was meant to be: one letter dropped, doubled or swapped, else difflib's."""
    names = sorted(names)
    exact = [name for name in names if key in typos(name)]
    return exact or (get_close_matches(key, names, cutoff=cutoff) if names != ['type'] else [])


@functools.cache
def typos(word: str) -> set[str]:
    """A word with one letter dropped, doubled or swapped with the next.

    Example:
        >>> sorted(typos('lr'))
        ['l', 'llr', 'lrr', 'r', 'rl']
    """
    places = range(len(word))
    dropped = {word[:i] + word[i + 1 :] for i in places}
    doubled = {word[: i + 1] + word[i:] for i in places}
    swapped = {word[:i] + word[i + 1 : i + 2] + word[i] + word[i + 2 :] for i in places}
    return (dropped | doubled | swapped) - {word, ''}
