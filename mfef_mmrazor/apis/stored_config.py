"""Reads the training config inside a checkpoint as data: nothing it names is imported or called.

A registry imports whatever a dotted ``type`` or a ``_scope_`` names, some registered classes
evaluate a string or load the file that it names, and the config of an exported student is a Python
file. So only registered classes may be named. No string may contain characters that a call in an
expression needs, or name a file of a format that can run code.
"""

import ast
import inspect
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.registry import FUNCTIONS
from mmengine.utils import import_modules_from_strings
from mmpretrain.registry import (
    BATCH_AUGMENTS,
    DATA_SAMPLERS,
    DATASETS,
    METRICS,
    TRANSFORMS,
)
from mmrazor.registry import MODELS

from ..cfg_type import Cfg
from .config_keys import registry_family
from .data_checks import inner_datasets, swaps_colours
from .student_config import without_initial_weights

# all that exporting reads of a config, besides the default scope. Of the data loaders it needs the
# pipelines; the rest, and the metrics, only go into the exported config where they are mmpretrain's
BUILT = ('model', 'data_preprocessor')
DATALOADERS = ('test_dataloader', 'val_dataloader', 'train_dataloader')
EVALUATORS = ('test_evaluator', 'val_evaluator')
REGISTRIES = (MODELS, TRANSFORMS, BATCH_AUGMENTS, DATASETS, DATA_SAMPLERS, METRICS)
RECORDERS = {  # mmrazor's others import what they record
    'FeatureMap', 'Logits', 'ModuleInputs', 'ModuleOutputs', 'Parameter',
}  # fmt: skip
PACKAGED = re.compile(r'([\w-]+)::(?!/|.*\.\.)[\w./-]+')  # a config of a package
CODE = re.compile(r'[()\[\]{}\'"\\;=`\n]|\.(p|pkl|pickle|ya?ml)$', re.IGNORECASE)


def read_stored_config(text: str, checkpoint: Path, allow_imports: Sequence[str] = ()) -> Cfg:
    """What exporting needs of a config, from the text that mmengine stores in a checkpoint.

    Args:
        text: Assignments of literals and ``dict(...)``.
        checkpoint: For the messages.
        allow_imports: Modules to import first, for what they register.

    Raises:
        ValueError: The text is something else, or names what is not a registered class.
        ImportError: A module of ``allow_imports`` is not there.
    """
    try:
        import_modules_from_strings(list(allow_imports))
    except ImportError as error:
        raise ImportError(
            f'--allow-import: {error}; install it, or put its folder on PYTHONPATH'
        ) from None
    stored = literals(text, checkpoint)
    try:
        cfg = {key: stored[key] for key in BUILT if stored.get(key)}
        known = _Registered.now()
        modules = list(cfg['model'].get('students', ()))
        for name in DATALOADERS:
            for dataset in inner_datasets(stored.get(name)):
                pipeline = dataset.get('pipeline', ())
                modules += pipeline
                if name not in cfg:
                    pipeline_alone = dict(pipeline=pipeline, to_rgb=swaps_colours(stored[name]))
                    cfg[name] = known.allows(stored[name]) or dict(dataset=pipeline_alone)
        for name in EVALUATORS:
            cfg[name] = known.allows(stored.get(name))
        for module in modules:
            if 'cfg_path' not in module:
                module['type']  # raises if it is not the config of a module
        scope = stored.get('default_scope') or 'mmpretrain'
        cfg = known.checked(dict(without_initial_weights(cfg), _scope_=scope))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(_not_a_config(checkpoint, error)) from None
    except _RefusedError as error:
        raise ValueError(
            f'{checkpoint} is refused: the config stored in it has {error}. Give your own with '
            '--config or, if you trust it, its package with --allow-import'
        ) from None
    scope = cfg.pop('_scope_')
    return dict(cfg, default_scope=scope, custom_imports=dict(imports=list(allow_imports)))


class _RefusedError(Exception):
    """A part of a config that may be code; says which."""


@dataclass
class _Registered:
    """The names that a stored config may use."""

    scopes: set[str]
    names: set[str]
    classes: dict[type, str]
    """The names of classes, with their scope."""

    @classmethod
    def now(cls) -> '_Registered':
        """Those of all classes that are registered at this moment."""
        registries = [member for each in REGISTRIES for member in registry_family(each.root)]
        classes = [
            (registry.scope, name, found)
            for registry in registries
            for name, found in registry.module_dict.items()
            if inspect.isclass(found)
        ]
        return cls(
            {registry.scope for registry in registries},
            RECORDERS | {*FUNCTIONS.module_dict} | {name for _, name, _ in classes},
            {found: f'{scope}.{name}' for scope, name, found in classes},
        )

    def allows(self, value: Any) -> Any:
        """An optional part of a config; None if it names something that is not allowed."""
        try:
            return self.checked(value)
        except _RefusedError:
            return None

    def checked(self, value: Any, key: Any = None) -> Any:
        """A copy of a part of a config, or an error if it names anything else."""
        if isinstance(value, dict):
            return {self._key(k): self.checked(v, k) for k, v in value.items()}
        if key == 'type':
            return self._type(value)
        if isinstance(value, (list, tuple)):
            return type(value)(self.checked(item, key) for item in value)
        if key == 'cfg_path':
            package = PACKAGED.fullmatch(str(value))
            if package is None or package[1] not in self.scopes:
                raise _RefusedError(f'cfg_path={value!r:.60}, which is not a config of a package')
        if key == '_scope_' and value not in self.scopes:
            raise _RefusedError(f'_scope_={value!r}, which is not one of {sorted(self.scopes)}')
        if key == 'trust_remote_code' and value:  # transformers' argument
            raise _RefusedError(f'{key}={value!r:.60}, which runs code of a stranger')
        if isinstance(value, str) and CODE.search(value):
            raise _RefusedError(f'a string that may be code, {key}={value!r:.60}')
        if value is None or isinstance(value, (str, int, float)):
            return value
        raise _RefusedError(f'a {type(value).__name__} in {key}')

    @staticmethod
    def _key(key: Any) -> Any:
        if not isinstance(key, (str, int)) or CODE.search(str(key)):
            raise _RefusedError(f'a key that is not allowed, {key!r:.60}')
        return key

    def _type(self, value: Any) -> str:
        scope, _, name = str(value).rpartition('.')
        if name in self.names and scope in self.scopes | {''}:
            return value
        # a class of a pure-Python config is stored under the path that it was imported by
        found = vars(sys.modules.get(scope, object)).get(name)
        if inspect.isclass(found) and found in self.classes:
            return self.classes[found]
        raise _RefusedError(f'type={value!r:.60}, which is not a registered class')


def literals(text: str, checkpoint: Path) -> Cfg:
    """The values of assignments of literals and ``dict(...)``; nothing is run."""

    class DictCalls(ast.NodeTransformer):
        def visit_Call(self, node: ast.Call) -> ast.expr:
            self.generic_visit(node)
            named = isinstance(node.func, ast.Name) and node.func.id == 'dict'
            if not named or any(keyword.arg is None for keyword in node.keywords):
                return node
            if node.args:  # dict({...}), where a key has a dot
                return node.args[0] if len(node.args) == 1 and not node.keywords else node
            keys: list[Any] = [ast.Constant(keyword.arg) for keyword in node.keywords]
            return ast.Dict(keys, [keyword.value for keyword in node.keywords])

    try:
        return {
            statement.targets[0].id: ast.literal_eval(statement.value)
            for statement in DictCalls().visit(ast.parse(text)).body
        }
    except (SyntaxError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(_not_a_config(checkpoint, error)) from None


def _not_a_config(checkpoint: Path, error: Exception) -> str:
    return (
        f'the training config in {checkpoint} is not one that mmengine writes ({error!s:.100}): '
        'give it with --config'
    )
