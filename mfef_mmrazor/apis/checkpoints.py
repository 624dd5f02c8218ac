"""Reads checkpoints, and builds the models that they belong to."""

import copy
import logging
import reprlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger, print_log
from mmrazor.registry import MODELS
from torch import Tensor, nn

from ..cfg_type import Cfg
from ..engine.checkpoint_files import check_intact
from ..engine.results import History, read_results
from ..models.algorithms import OnlineDistill
from ..models.builder import shortened
from ..safe_load import safe_load, weights_of
from .completion import is_called
from .conditions import NOT_SET, differences
from .config import load_config, value_at
from .data_checks import difference
from .stored_config import literals, read_stored_config
from .student_config import default_scope, without_initial_weights

# of a data loader, none of which changes what it loads
HOW_LOADED = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor')
PLAIN = (bool, int, float, str, list, tuple, dict)  # not a class, which is stored as a string


def read_checkpoint(
    checkpoint: Path, config: str | Path | None, allow_imports: Sequence[str] = ()
) -> tuple[dict[str, Any], Cfg]:
    """The checkpoint, and the training config: the user's, else the one stored in the checkpoint.

    Raises:
        FileNotFoundError: One of the files is not there.
        ValueError: The checkpoint cannot be read as data, or its config names what is not a
            registered class, or it is not of an :class:`OnlineDistill`.
        ImportError: A package of ``allow_imports`` is not there.
    """
    stored = read(checkpoint)
    if 'state_dict' not in stored:
        raise ValueError(
            f'{checkpoint} is not a checkpoint of mmengine: found '
            f'{sorted(map(str, stored))[:8]}, expected a state_dict'
        )
    if config is not None:
        cfg = load_config(config).to_dict()
    else:
        text = stored.get('meta', {}).get('cfg')
        if not isinstance(text, str):
            raise ValueError(f'{checkpoint} has no training config in it: give it with --config')
        cfg = read_stored_config(text, checkpoint, allow_imports)
    model = cfg.get('model') or {}
    if 'students' not in model:
        raise ValueError(
            f'{config or checkpoint} is of a {model.get("type")}, expected an OnlineDistill: a '
            'network trained alone is deployed as it is'
        )
    return stored, cfg


def class_names(stored: dict[str, Any]) -> Sequence[str] | None:
    """Names of the classes, as the training data had them; None if the checkpoint has none."""
    names = (stored.get('meta', {}).get('dataset_meta') or {}).get('classes')
    # a config file is written with them, in which mmengine would replace {{...}}
    if isinstance(names, (list, tuple)) and all(
        isinstance(name, str) and '{{' not in name for name in names
    ):
        return names
    return None


def build_trained(stored: dict[str, Any], cfg: Cfg) -> OnlineDistill:
    """The algorithm with the checkpoint's weights, ready to predict."""
    model_cfg = as_when_saved(without_initial_weights(cfg['model']), stored)
    with torch.random.fork_rng(devices=[]), default_scope(cfg), unlogged():
        algorithm = MODELS.build(model_cfg)
    _load_weights(algorithm, stored, 'the checkpoint is of another network than its config')
    return algorithm.eval()


class OnePredictor(nn.Module):
    """One of the predictors of an algorithm, as a network.

    Args:
        algorithm: The whole.
        name: ``student0``, ``ensemble``, ``fused`` and the like.
    """

    def __init__(self, algorithm: OnlineDistill, name: str) -> None:
        super().__init__()
        self.algorithm = algorithm
        self.name = name

    def forward(self, images: Tensor) -> Tensor:
        """Preprocessed images (B, 3, H, W) to logits (B, K)."""
        return self.algorithm.predict_logits(images)[self.name]


def as_when_saved(model_cfg: Cfg, stored: dict[str, Any]) -> Cfg:
    """The config of a checkpoint's model, with the defaults of the time that it was saved.

    ``MFEFDistiller`` once had attention, and no enhanced classifiers, where its config did not say.

    Example:
        >>> model = dict(distiller=dict(type='MFEFDistiller'))
        >>> as_when_saved(model, dict(state_dict={'distiller.fused_classifier.head.fc.bias': 0}))
        {'distiller': {'enhanced_head': None, 'type': 'MFEFDistiller'}}
    """
    distiller = model_cfg.get('distiller') or {}
    if not is_called(distiller.get('type'), 'MFEFDistiller'):
        return model_cfg
    parts = {name.split('.')[1] for name in weights_of(stored) if name.startswith('distiller.')}
    then: Cfg = {}
    if parts and 'enhanced_heads' not in parts:
        then['enhanced_head'] = None
    if 'attention' in parts:
        then['attention'] = dict(type='DualAttentionConnector')
    return type(model_cfg)({**model_cfg, 'distiller': {**then, **distiller}})


def validation_record(checkpoint: Path, stored: dict[str, Any]) -> tuple[History, Path]:
    """The history of ``results.json`` if it continues the checkpoint's own, else the latter."""
    own = stored.get('results', {}).get('history', [])
    results = checkpoint.parent / 'results.json'
    if results.is_file():
        found = read_results(results)
        same_run = found.get('seed') == stored.get('meta', {}).get('seed')
        if same_run and all(entry in found['history'] for entry in own):
            return found['history'], results
    return own, checkpoint


def check_model(cfg: Config, stored: dict[str, Any] | None = None) -> nn.Module:
    """Raise if the model cannot be built, or a run cannot start from its checkpoint.

    A run that is resumed without a seed in its config gets the one that it had.

    Args:
        cfg: Of a run.
        stored: What :func:`read` gives for its ``load_from``, where that has been read.

    Returns:
        The model.

    Raises:
        FileNotFoundError: ``load_from`` is not there.
        ValueError: Weights are missing, unexpected or of another shape, or the file is no
            checkpoint, or the run that is to be resumed has another seed.
        ValueError, TypeError, KeyError: What is wrong with the config of the model.
    """
    path = cfg.get('load_from')
    if not path:
        return _built(cfg.model, cfg)
    stored = read(path) if stored is None else stored
    cfg.model = as_when_saved(cfg.model, stored)
    if cfg.get('resume') and not value_at(cfg, 'default_hooks.checkpoint.allow_changes'):
        warn_of_other_settings(cfg, stored, path)
    model = _built(cfg.model, cfg)
    _load_weights(model, stored, f'{path} is not a checkpoint of the model in this config')
    if cfg.get('resume') and 'config' in stored.get('meta', {}):
        raise ValueError(
            f'{path} is refused: mmengine would run the text in its meta.config to resume from it. '
            'Start from its weights alone: load_from'
        )
    was, now = stored.get('meta', {}).get('seed'), cfg.get('randomness', {}).get('seed')
    if cfg.get('resume') and None not in (was, now) and was != now:
        raise ValueError(
            f'{path} is of a run with seed {was}, and cannot go on with seed {now}: '
            f'give --seed {was}'
        )
    if cfg.get('resume') and was is not None and now is None:
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=was)
    return model


def warn_of_other_settings(cfg: Config, stored: dict[str, Any], path: str | Path) -> None:
    """Warn if the run to resume had another model, data or optimizer: it may be an earlier run."""
    try:
        was = literals(stored['meta']['cfg'], Path(path))
        was['model'] = as_when_saved(was['model'], stored)
    except (KeyError, ValueError):  # not written by mmengine, or with more than plain values
        return
    unlike = [
        f'{key} was {reprlib.repr(a)}, is {reprlib.repr(b)}'
        for part in ('model', 'train_dataloader', 'optim_wrapper')
        for key, a, b in differences(was.get(part), cfg.get(part), part)
        if key.rpartition('.')[2] not in HOW_LOADED
        and all(x is NOT_SET or x is None or isinstance(x, PLAIN) for x in (a, b))
    ]
    if unlike:
        print_log(
            f'{path}, from which the run goes on, was trained with other settings: '
            f'{shortened(unlike)}. If it is of an earlier run, choose another work dir'
            + '. The optimizer goes on with the learning rate and weight decay that are stored'
            * any(key.startswith('optim_wrapper.optimizer') for key in unlike),
            level=logging.WARNING,
        )


def check_classes(checkpoint: str | Path, stored: dict[str, Any], dataset: Any) -> None:
    """Raise a ``ValueError`` if a data set has other classes than a checkpoint was trained on.

    Labels are places in the list of classes, so they would stand for other ones.
    """
    trained = class_names(stored)
    found = getattr(dataset, 'metainfo', {}).get('classes')
    if trained and found and [*found] != [*trained]:
        raise ValueError(
            f'the test data has other classes than {checkpoint} was trained on: '
            f'{difference(found, trained)}. Give it the folders that the training had; if only '
            "names differ, set those of the training as the data set's metainfo.classes"
        )


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
    teacher = _built(cfg.model.teacher, cfg)
    if not path:
        if 'init_cfg' in cfg.model.teacher or cfg.model.teacher.get('pretrained'):
            return
        raise ValueError(f'the teacher has no weights (model.teacher_ckpt={path}); {hint}')
    try:
        stored = read(path)
    except FileNotFoundError:
        raise FileNotFoundError(f'teacher not found: {path}; {hint}') from None
    _load_weights(teacher, stored, f'{path} is not a checkpoint of model.teacher; {hint}')


def _built(model_cfg: Cfg, cfg: Config) -> nn.Module:
    # the run itself starts from the seed, not from here
    with torch.random.fork_rng(devices=[]), default_scope(cfg), unlogged():
        model = MODELS.build(copy.deepcopy(model_cfg))
        if hasattr(model, 'init_weights'):
            model.init_weights()  # reads the checkpoints in init_cfg
        return model


@contextmanager
def unlogged() -> Iterator[None]:
    """Log nothing: what is built is not what trains, and the log may be of an earlier run."""
    logger = MMLogger.get_current_instance()
    handlers, logger.handlers = logger.handlers, []
    try:
        yield
    finally:
        logger.handlers = handlers


def read(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint that is what was once saved under its name."""
    if Path(path).expanduser().is_file():
        check_intact(Path(path).expanduser())
    return safe_load(path)


def _load_weights(model: nn.Module, stored: dict[str, Any], message: str) -> None:
    """Load all weights, no more and no fewer; ``message`` begins what is raised otherwise."""
    try:
        model.load_state_dict(weights_of(stored))
    except (RuntimeError, AttributeError) as error:
        reason = ' '.join(str(error).split())[:300]
        raise ValueError(f'{message}: {reason}') from None
