"""Reads checkpoints, and builds the models that they belong to."""

import ast
import copy
import json
import pickle
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner.checkpoint import _load_checkpoint
from mmengine.utils import import_modules_from_strings
from mmrazor.registry import MODELS
from torch import nn

from ..engine.results import History
from ..models.algorithms import OnlineDistill
from .config import load_config
from .student_config import default_scope, without_initial_weights


def read_checkpoint(checkpoint: Path, config: str | Path | None) -> tuple[dict, dict]:
    """The checkpoint, and the training config; what that imports is imported."""
    if not checkpoint.is_file():
        raise FileNotFoundError(f'checkpoint not found: {checkpoint}')
    try:
        stored = torch.load(checkpoint, map_location='cpu', weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'{checkpoint} cannot be read as a checkpoint: {reason}') from None
    if not isinstance(stored, dict) or 'state_dict' not in stored:
        found = sorted(map(str, stored))[:8] if isinstance(stored, dict) else type(stored).__name__
        raise ValueError(
            f"{checkpoint} is no checkpoint of mmengine's: found {found}, expected a state_dict"
        )
    if config is not None:
        cfg = load_config(config).to_dict()
    else:
        text = stored.get('meta', {}).get('cfg')
        if not isinstance(text, str):
            raise ValueError(f'{checkpoint} has no training config in it: give it with --config')
        cfg = _literals(text, checkpoint)
        _import(cfg.get('custom_imports') or {})
    model = cfg.get('model') or {}
    if 'students' not in model:
        raise ValueError(
            f'{config or checkpoint} is of a {model.get("type")}, expected an OnlineDistill: a '
            'network trained alone is deployed as it is'
        )
    return stored, cfg


def _literals(text: str, checkpoint: Path) -> dict:
    """A config as mmengine stores it: assignments of literals and ``dict(...)``.

    It is not run as Python, so that a checkpoint from elsewhere can do no harm.
    """

    class DictCalls(ast.NodeTransformer):
        def visit_Call(self, node: ast.Call) -> ast.expr:  # noqa: N802 (ast's name)
            self.generic_visit(node)
            named = isinstance(node.func, ast.Name) and node.func.id == 'dict'
            if not named or any(keyword.arg is None for keyword in node.keywords):
                return node
            if node.args:  # dict({...}), where a key has a dot
                return node.args[0] if len(node.args) == 1 and not node.keywords else node
            keys: list = [ast.Constant(keyword.arg) for keyword in node.keywords]
            return ast.Dict(keys, [keyword.value for keyword in node.keywords])

    try:
        return {
            statement.targets[0].id: ast.literal_eval(statement.value)  # type: ignore[attr-defined]
            for statement in DictCalls().visit(ast.parse(text)).body
        }
    except (SyntaxError, ValueError, AttributeError) as error:
        raise ValueError(
            f'the training config in {checkpoint} is not one that mmengine writes ({error}): '
            'give it with --config'
        ) from None


def _import(custom_imports: dict) -> None:
    try:
        if custom_imports:
            import_modules_from_strings(**custom_imports)
    except ImportError as error:
        raise ImportError(
            f"{error}, which is in the training config's custom_imports: install it, or put its "
            'folder on PYTHONPATH'
        ) from None


def build_trained(stored: dict, cfg: dict) -> OnlineDistill:
    """The algorithm with the checkpoint's weights, ready to predict."""
    with torch.random.fork_rng(), default_scope(cfg):
        algorithm = MODELS.build(without_initial_weights(cfg['model']))
    algorithm.load_state_dict(stored['state_dict'])
    return algorithm.eval()


def validation_record(checkpoint: Path, stored: dict) -> tuple[History, Path]:
    """The history of ``results.json`` if it continues the checkpoint's own, else the latter."""
    own = stored.get('results', {}).get('history', [])
    results = checkpoint.parent / 'results.json'
    if results.is_file():
        found = json.loads(results.read_text())
        same_run = found.get('seed') == stored.get('meta', {}).get('seed')
        if same_run and all(entry in found['history'] for entry in own):
            return found['history'], results
    return own, checkpoint


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
