"""Builds one student, from any of the ways in which OpenMMLab's users name a network."""

import copy
import functools
import logging
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.logging import print_log
from mmengine.model import BaseModel, BaseModule

from ..cfg_type import Cfg
from .builder import build, initialise, shortened
from .initial_weights import load_initial_weights

read_once = functools.cache(get_config)  # a second for each: it goes through its package's index


def build_student(index: int, student: Cfg | BaseModel, pretrained: str | None = None) -> BaseModel:
    """Build a student, and initialise it; a built one keeps the weights that it has, unless
    ``pretrained`` is given.

    Args:
        index: Its number, for messages.
        student: Config or built model.
        pretrained: Checkpoint to start from, where the config names none.

    Raises:
        TypeError: It is not a ``BaseModel``.
        ImportError: It is of a package that is not installed.
        FileNotFoundError: The config or the checkpoint that it names is not there.
        ValueError: No weight of the checkpoint fits.
    """
    name = f'student{index}'
    if isinstance(student, dict):
        cfg, own = split_initial_weights(resolve_student(student))
        pretrained = own or (None if has_own_backbone(cfg) else pretrained)
        try:
            student = build(copy.deepcopy(cfg))  # mmpretrain changes what it gets
        except ImportError as error:
            raise ImportError(
                f'{name}: {error}. Students are image classifiers, of mmpretrain or your own; '
                'detectors and segmentation networks are not supported',
                name=error.name,
            ) from None
        if isinstance(student, BaseModel):
            initialise(student)
    if not isinstance(student, BaseModel):
        raise TypeError(
            f'{name}: found {type(student).__name__}, expected an mmengine BaseModel '
            'such as mmpretrain.ImageClassifier'
        )
    if pretrained:
        load_initial_weights(student, pretrained, name)
    keep_weights(student, name)
    return student


def keep_weights(student: BaseModel, name: str) -> None:
    """Let nobody initialise a student again; the runner would, where it was given as built."""
    parts = {key: x for key, x in student.named_modules() if isinstance(x, BaseModule)}
    waiting = [key or type(x).__name__ for key, x in parts.items() if x.init_cfg and not x.is_init]
    if waiting:
        print_log(
            f'{name} keeps the weights that it was given with: init_cfg of {shortened(waiting)} is '
            'ignored. Call its init_weights() before, or give its config',
            logger='current',
            level=logging.WARNING,
        )
    for part in parts.values():
        part.is_init = True


def resolve_student(cfg: Cfg) -> Cfg:
    """Replace mmrazor's ``cfg_path`` by the config that it points to, in another package.

    ``pretrained=True`` means the weights that the package publishes for that config. All other keys
    override the network's config: ``dict(cfg_path=..., head=dict(num_classes=10))``.

    Raises:
        ImportError: The package is not installed.
        FileNotFoundError: It has no such config.

    Example:
        >>> resolve_student(dict(
        ...     cfg_path='mmpretrain::resnet/resnet18_8xb32_in1k.py', head=dict(num_classes=10)
        ... ))['head']['num_classes']
        10
    """
    if 'cfg_path' not in cfg or 'type' in cfg:
        return cfg
    rest = copy.deepcopy(dict(cfg))
    path, pretrained = rest.pop('cfg_path'), rest.pop('pretrained', False)
    package, separator, _ = path.partition('::')
    if separator and find_spec(package) is None:  # mmengine would install it
        raise ImportError(f'cfg_path={path!r}: the package {package} is not installed')
    try:
        found = read_once(path, pretrained is True)
    except (FileNotFoundError, ValueError, AssertionError) as error:
        raise FileNotFoundError(
            f"cfg_path={path!r}: {error}; expected '<package>::<folder>/<config>.py'"
        ) from None
    model = dict(found.model.to_dict())
    if '.' not in model['type']:
        model['type'] = f'{package}.{model["type"]}'
    if 'data_preprocessor' in found:
        model.setdefault('data_preprocessor', found.data_preprocessor.to_dict())
    model['pretrained'] = found.model_path if pretrained is True else pretrained or None
    merged = Config(dict(model=model))
    merged.merge_from_dict(dict(model=rest))
    return merged.model.to_dict()


def has_own_backbone(cfg: Cfg) -> bool:
    """Whether a student's config names a checkpoint for its backbone."""
    backbone = cfg.get('backbone')
    init = backbone.get('init_cfg') if isinstance(backbone, dict) else None
    inits = init if isinstance(init, (list, tuple)) else [init]
    return any(isinstance(each, dict) and is_pretrained(each.get('type')) for each in inits)


def is_pretrained(kind: Any) -> bool:
    """Whether a type of an ``init_cfg`` is the one that loads a checkpoint."""
    return kind == 'Pretrained' or getattr(kind, '__name__', '') == 'PretrainedInit'


def split_initial_weights(cfg: Cfg) -> tuple[Cfg, str | None]:
    """The config without the checkpoint that the whole network is to start from, and its path."""
    cfg = dict(cfg)
    if isinstance(cfg.get('pretrained'), str):  # a bool is the network's own business
        return cfg, cfg.pop('pretrained')
    init = cfg.get('init_cfg')
    if isinstance(init, dict) and is_pretrained(init.get('type')) and 'prefix' not in init:
        return cfg, cfg.pop('init_cfg')['checkpoint']
    return cfg, None
