"""Builds registered modules from configs, with errors that name the way out."""

import inspect
import logging
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any

from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmrazor.registry import MODELS
from torch import nn

from ..cfg_type import Cfg


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """The names most like ``name``, as the end of an error message; empty where none is."""
    matches = get_close_matches(name, list(known), n=3, cutoff=cutoff)
    return f'; nearest: {", ".join(matches)}' if matches else ''


def shortened(names: Sequence[str], most: int = 8) -> str:
    """Names as a text, the first few of them.

    Example:
        >>> shortened(['a', 'b', 'c'], most=2)
        'a, b and 1 more'
    """
    shown = ', '.join(names[:most]) or 'no names'
    return f'{shown} and {len(names) - most} more' if len(names) > most else shown


def build(cfg: Cfg | nn.Module, **defaults: Any) -> Any:
    """Build a module in the registry scope of its own ``type`` prefix.

    Without that, the parts of an ``mmpretrain.ImageClassifier`` would be looked for in the scope of
    whoever builds it. A type without a prefix is mmrazor's, or else mmpretrain's.

    Args:
        cfg: The module's config; a built module is returned as it is.
        **defaults: Arguments (and the type) used where ``cfg`` does not set them.

    Raises:
        TypeError: ``cfg`` is not a dict, or has an argument that the type does not take.
        KeyError: There is no type, or none of that name is registered.
        ImportError: The type belongs to a package that is not installed.

    Example:
        >>> build(dict(scales=2), type='MultiScaleConnector', in_channels=8).width
        4
    """
    if isinstance(cfg, nn.Module):
        return cfg
    if not isinstance(cfg, dict):
        raise TypeError(f'expected a config dict, got {type(cfg).__name__}: {cfg!r}')
    cfg = {**defaults, **cfg}
    check_arguments(find(cfg), cfg)
    if isinstance(cfg['type'], str):
        cfg.setdefault('_scope_', scope_and_class(cfg)[0])
    return MODELS.build(cfg)


def build_offering(cfg: Cfg, kind: str, **offered: Any) -> Any:
    """Build a module with those offered arguments that its type takes and ``cfg`` does not set.

    Args:
        cfg: The module's config; a built module is returned as it is.
        kind: Its type, where ``cfg`` has none.
        **offered: Arguments.

    Raises:
        TypeError, KeyError, ImportError: As :func:`build`.

    Example:
        >>> build_offering(dict(loss_weight=5.0), 'AttentionMapLoss', tau=3.0).loss_weight
        5.0
    """
    if not isinstance(cfg, dict):
        return build(cfg)
    takes, _ = arguments_of(find({'type': kind, **cfg}))
    return build(cfg, type=kind, **{name: x for name, x in offered.items() if name in takes})


def find(cfg: Cfg) -> Any:
    """Resolve the ``type`` of a config to the registered class.

    Raises:
        KeyError: There is no type, or none of that name is registered.
        ImportError: The type belongs to a package that is not installed.
    """
    if 'type' not in cfg:
        raise KeyError(f"a module's config needs a 'type', got only {sorted(cfg)}")
    if not isinstance(cfg['type'], str):
        return cfg['type']
    return scope_and_class(cfg)[1]


def scope_and_class(cfg: Cfg) -> tuple[str, Any]:
    """The package that has registered the type, and the class.

    The package is that of the ``_scope_`` or of the prefix, without either mmrazor or mmpretrain.
    ``mmpretrain.models.ImageClassifier``, as a pure-Python config is stored, is a prefix as well.
    """
    prefix, _, name = cfg['type'].rpartition('.')
    scope = cfg.get('_scope_') or prefix.partition('.')[0]
    scopes = [scope] if scope else ['mmrazor', 'mmpretrain']
    known: set[str] = set()
    for scope in scopes:
        with MODELS.switch_scope_and_registry(scope) as registry:
            found = registry.get(name)
            known.update(registry.module_dict)
        if found is not None:
            return scope, found
    if find_spec(scope) is None:
        raise ImportError(f'{cfg["type"]}: the package {scope} is not installed', name=scope)
    raise KeyError(f'{name} is not registered in {" or ".join(scopes)}{nearest(name, known)}')


def initialise(network: BaseModule) -> None:
    """Initialise, without the line per weight that mmengine prints where there is no log file."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        network.init_weights()
    finally:
        logger.setLevel(level)


def arguments_of(factory: Callable[..., Any]) -> tuple[dict[str, Any], bool]:
    """Names and defaults of what can be passed, and whether there may be more.

    Arguments of a base class are included if ``**kwargs`` pass them on to it. There may be more
    arguments if the last base class takes ``**kwargs`` too.
    """
    functions = [factory]
    if inspect.isclass(factory):
        bases = map(vars, factory.__mro__[:-1])
        functions = [base['__init__'] for base in bases if '__init__' in base]
    found: dict[str, Any] = {}
    for function in functions:
        parameters = inspect.signature(function).parameters.values()
        for parameter in parameters:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                found.setdefault(parameter.name, parameter.default)
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            return found, False
    return found, bool(functions)


def check_arguments(factory: type, cfg: Cfg) -> None:
    """Raise a ``TypeError`` that names the first argument ``factory`` does not take."""
    parameters = inspect.signature(factory).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for name in set(cfg) - {'type', '_scope_'} - set(parameters):
        raise TypeError(
            f'{factory.__name__} has no argument {name!r}{nearest(name, parameters)}. '
            f'It takes: {", ".join(parameters)}'
        )
