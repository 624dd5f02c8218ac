"""Takes a student home: what was trained, as files of a plain network that need no distiller."""

import ast
import copy
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.utils import import_modules_from_strings
from mmpretrain import get_model
from mmpretrain.registry import TRANSFORMS
from mmrazor.registry import MODELS
from torch import Tensor, nn

from ..engine.results import History
from ..models.algorithms import OnlineDistill
from .checks import check_folder, inner_datasets
from .formats import Predictor, check_formats, write
from .train import load_config


def export(
    checkpoint: str | Path,
    out: str | Path,
    students: int | str = 0,
    formats: Sequence[str] = ('pth',),
    config: str | Path | None = None,
    ensemble: bool = False,
    fused: bool = False,
) -> list[Path]:
    """Write students of a checkpoint as plain networks, and check what was written.

    - ``pth``: an mmpretrain checkpoint, ``studentN.pth``, and its config, ``studentN.py``, for
      ``mmpretrain.get_model`` and ``ImageClassificationInferencer``. The config takes image files,
      also where the training images were in memory (those are taken for RGB, as mmpretrain's CIFAR
      is). It imports a plugin only where the student or the pipeline has a part of that plugin's.
    - ``safetensors``: the weights alone, and the same config:
      ``safetensors.torch.load_model(mmpretrain.get_model('studentN.py'), 'studentN.safetensors')``.
    - ``onnx`` and ``torchscript`` (``studentN.onnx``, ``studentN.pt``): the network. In go images
      (B, 3, H, W), float32, B free, H and W as in ``input_size``, values 0 to 255 after
      ``(x - mean) / std``; channels are RGB if ``to_rgb``, else BGR. Out come logits (B, K). The
      tensors are called ``images`` and ``logits``. A TorchScript is moved to another device with
      ``torch.jit.load(..., map_location=...)``.

    ``classes``, ``mean``, ``std``, ``to_rgb`` and ``input_size`` are in the metadata of
    safetensors and onnx files, as JSON, and in the extra file ``metadata.json`` of TorchScript.

    Every file is read back and compared with the same predictor of the trained algorithm on random
    images. All must agree, exactly (``onnx``: to 1e-4), or none is left. Existing files of the same
    names are replaced.

    Args:
        checkpoint: Of an :class:`OnlineDistill`, as mmengine saved it. The training config is in
            it.
        out: Folder for the files; made if it is not there.
        students: A number, ``'all'``, or ``'best'``: the student with the highest validation
            accuracy at the checkpoint's own epoch. A checkpoint is saved before its epoch is
            scored, so the ``results.json`` beside it is asked first, if it is of the same run; else
            the last earlier epoch counts. Of equal students the first is taken. What was chosen
            and why is printed.
        formats: Any of ``'pth'``, ``'safetensors'``, ``'onnx'``, ``'torchscript'``.
        config: Training config to use instead of the one in the checkpoint.
        ensemble: Also export the mean of the students' logits, as one module, in those of the
            formats that hold a whole module: ``onnx`` and ``torchscript``.
        fused: Likewise the fused classifier, with all students.

    Returns:
        The files.

    Raises:
        FileNotFoundError: The checkpoint or the config is not there.
        NotADirectoryError: ``out``, or a folder above it, is a file.
        ValueError: A format or a student is unknown, or there is no validation record to choose the
            best one by; the method has no fused classifier; the file is no checkpoint of an
            ``OnlineDistill``, or of another architecture than the config; or neither pipeline
            brings images to one size.
        ImportError: A package for one of the formats is not installed, or one that the config
            imports.
        RuntimeError: A file does not predict what the trained algorithm does.

    Example::

        export('work_dirs/demo/epoch_20.pth', 'exported', students='best', formats=['pth', 'onnx'])
    """
    checkpoint, out, formats = Path(checkpoint), Path(out), list(dict.fromkeys(formats))
    check_formats(formats)
    check_folder(out)
    of_modules = [name for name in formats if name in ('onnx', 'torchscript')]
    if (ensemble or fused) and not of_modules:
        raise ValueError(
            f'the ensemble and the fused classifier are no single network of mmpretrain, so '
            f'{", ".join(formats)} cannot hold them: add onnx or torchscript to the formats'
        )
    stored, cfg = _read(checkpoint, config)
    algorithm = _trained(stored, cfg)
    numbers = _chosen(students, len(algorithm.students), checkpoint, stored)

    shape = _input_shape(cfg)
    images = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = algorithm.predict_logits(images)
    if fused and 'fused' not in expected:
        raise ValueError(
            f'{type(algorithm.distiller).__name__} has no fused classifier to export; '
            f'it has {", ".join(expected)}'
        )
    classes = stored.get('meta', {}).get('dataset_meta', {}).get('classes')
    preprocessor = _preprocessor(cfg)
    metadata = dict(
        classes=classes,
        mean=preprocessor.get('mean'),
        std=preprocessor.get('std'),
        to_rgb=preprocessor.get('to_rgb', False),
        input_size=shape[1:],
    )
    common: Any = dict(
        images=images,
        classes=classes,
        metadata={key: json.dumps(value) for key, value in metadata.items()},
    )

    out.mkdir(parents=True, exist_ok=True)
    written = []
    with TemporaryDirectory(dir=out, prefix='.export-') as partial:
        folder = Path(partial)
        for i in numbers:
            name = f'student{i}'
            network, student_cfg = _deployed(cfg, i, algorithm.student_weights(i), classes)
            predictor = Predictor(network, config=folder / f'{name}.py', **common)
            if {'pth', 'safetensors'} & set(formats):
                student_cfg.dump(predictor.config)
                written.append((f'{name}.py', 'its config'))
            written += write(predictor, formats, folder / name, expected[name])
        for name in ['ensemble'] * ensemble + ['fused'] * fused:
            predictor = Predictor(_OneOf(algorithm, name).eval(), **common)
            written += write(predictor, of_modules, folder / name, expected[name])
        for filename, _ in written:
            (folder / filename).replace(out / filename)
    for filename, remark in written:
        print(f'{out / filename}: {remark}')
    return [out / filename for filename, _ in written]


def _read(checkpoint: Path, config: str | Path | None) -> tuple[dict, dict]:
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
            named = isinstance(node.func, ast.Name) and node.func.id == 'dict' and not node.args
            if not named or any(keyword.arg is None for keyword in node.keywords):
                return node
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
        import_modules_from_strings(**custom_imports)
    except ImportError as error:
        raise ImportError(
            f"{error}, which is in the training config's custom_imports: install it, or put its "
            'folder on PYTHONPATH'
        ) from None


def _trained(stored: dict, cfg: dict) -> OnlineDistill:
    """The algorithm with the checkpoint's weights, ready to predict."""
    with torch.random.fork_rng(), _scope(cfg):
        algorithm = MODELS.build(_without_initial_weights(cfg['model']))
    algorithm.load_state_dict(stored['state_dict'])
    return algorithm.eval()


def _scope(cfg: dict):
    return DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmpretrain')


def _without_initial_weights(cfg: Any) -> Any:
    """A copy without what would be loaded or downloaded, only to be overwritten."""
    if isinstance(cfg, dict):
        return {
            key: _without_initial_weights(value)
            for key, value in cfg.items()
            if key not in ('init_cfg', 'pretrained')
        }
    if isinstance(cfg, (list, tuple)):
        return type(cfg)(_without_initial_weights(item) for item in cfg)
    return cfg


def _chosen(students: int | str, number: int, checkpoint: Path, stored: dict) -> list[int]:
    """Numbers of the students to export."""
    if students == 'all':
        return list(range(number))
    if students == 'best':
        return [_best(number, checkpoint, stored)]
    if not str(students).isdecimal() or int(students) >= number:
        raise ValueError(
            f"student {students!r}, expected 0 to {number - 1}, 'best' or 'all': the checkpoint "
            f'has {number} students'
        )
    return [int(students)]


def _best(number: int, checkpoint: Path, stored: dict) -> int:
    epoch = stored.get('meta', {}).get('epoch', 0)
    history, source = _validation_record(checkpoint, stored)
    scored = [entry for entry in history if entry['epoch'] <= epoch and 'student0' in entry]
    if not scored:
        raise ValueError(
            f'{checkpoint} has no validation record up to its epoch {epoch} (ResultsHook keeps '
            'one), so the best student is not known: name one by its number'
        )
    last = max(scored, key=lambda entry: entry['epoch'])
    best = max(range(number), key=lambda i: last[f'student{i}'])
    figures = ', '.join(f'student{i} {last[f"student{i}"]:.2f} %' for i in range(number))
    print(
        f'best: student{best}; validation accuracy at epoch {last["epoch"]} (checkpoint: epoch '
        f'{epoch}), from {source}: {figures}'
    )
    return best


def _validation_record(checkpoint: Path, stored: dict) -> tuple[History, Path]:
    """The history of ``results.json`` if it continues the checkpoint's own, else the latter."""
    own = stored.get('results', {}).get('history', [])
    results = checkpoint.parent / 'results.json'
    if results.is_file():
        found = json.loads(results.read_text())
        same_run = found.get('seed') == stored.get('meta', {}).get('seed')
        if same_run and all(entry in found['history'] for entry in own):
            return found['history'], results
    return own, checkpoint


def _preprocessor(cfg: dict) -> dict:
    """Config of the preprocessing, for image files."""
    model = cfg['model']
    found = (
        model.get('data_preprocessor')
        or cfg.get('data_preprocessor')
        or model['students'][0].get('data_preprocessor')
        or {}
    )
    training_only = ('batch_augments', 'to_onehot')
    found = {key: value for key, value in found.items() if key not in training_only}
    found.setdefault('type', 'mmpretrain.ClsDataPreprocessor')
    if found['type'].endswith('SelfSupDataPreprocessor'):  # for views; only one is left
        found['type'] = 'mmpretrain.ClsDataPreprocessor'
    if not _loaders(_pipeline(cfg)):
        # trained on RGB images from memory; files are read as BGR
        found['to_rgb'] = not found.get('to_rgb', False)
    return found


def _pipeline(cfg: dict, *dataloaders: str) -> list[dict]:
    """The transforms of the first of the data loaders that is there, by default those of tests."""
    for name in dataloaders or ('test_dataloader', 'val_dataloader'):
        for dataset in inner_datasets(cfg.get(name)):
            return [_mmcv(transform) for transform in dataset['pipeline']]
    raise ValueError(
        f'the training config has no {" or ".join(dataloaders or ("test_dataloader",))}, so how '
        'images are prepared is not known: give a config that has with --config'
    )


def _mmcv(transform: dict) -> dict:
    """What reads like a :class:`LoadIntactImage` without this package; others as they are."""
    if not transform['type'].endswith('LoadIntactImage'):
        return transform
    return dict(imdecode_backend='pillow') | transform | dict(type='LoadImageFromFile')


def _loaders(pipeline: list[dict]) -> list[dict]:
    return [transform for transform in pipeline if 'LoadImage' in transform['type']]


def _input_shape(cfg: dict) -> tuple[int, int, int]:
    """(3, H, W) as the pipeline of the tests, else that of the training, brings images to it."""
    for pipeline in (_pipeline(cfg), _pipeline(cfg, 'train_dataloader')):
        with _scope(cfg):
            transforms = [
                TRANSFORMS.build(dict(transform))
                for transform in pipeline
                if transform not in _loaders(pipeline)
            ]
        shapes = {_shape_after(transforms, size) for size in (301, 401)}
        if len(shapes) == 1:
            return shapes.pop()
    raise ValueError(
        'images of different sizes keep different sizes in the pipelines of the training config, '
        'so what the networks take is not known: give a config with a Resize or a crop in '
        'test_dataloader with --config'
    )


def _shape_after(transforms: Sequence[Callable], size: int) -> tuple:
    image = torch.zeros(size, size, 3, dtype=torch.uint8).numpy()
    results: Any = dict(img=image, img_shape=(size, size), ori_shape=(size, size), gt_label=0)
    for transform in transforms:
        results = transform(results)
    inputs = results['inputs']
    return tuple((inputs[0] if isinstance(inputs, list) else inputs).shape)


def _deployed(
    cfg: dict, i: int, weights: dict[str, Tensor], classes: Sequence[str] | None
) -> tuple[nn.Module, Config]:
    """A student as mmpretrain builds it by itself, with the trained weights; and its config."""
    model = _without_initial_weights(cfg['model']['students'][i])
    scope = model.pop('_scope_', model['type'].rpartition('.')[0]) or 'mmrazor'
    if scope != 'mmpretrain':
        model['_scope_'] = scope
    model['data_preprocessor'] = _preprocessor(cfg)
    pipeline = _pipeline(cfg)
    if not _loaders(pipeline):
        pipeline = [dict(type='LoadImageFromFile'), *pipeline]
    dataset = dict(type='CustomDataset', classes=classes, pipeline=pipeline)
    content = dict(default_scope='mmpretrain', model=model, test_dataloader=dict(dataset=dataset))
    network = get_model(Config(copy.deepcopy(content)))
    network.load_state_dict(weights)

    parts = [*map(type, network.modules()), *(TRANSFORMS.get(t['type']) for t in pipeline)]
    packages = {part.__module__.split('.')[0] for part in parts}
    if 'mmrazor' in packages:  # which this package makes ready
        packages.add('mfef_mmrazor')
    imports = (cfg.get('custom_imports') or {}).get('imports') or []
    known = [imports] if isinstance(imports, str) else imports
    needed = [
        name for name in dict.fromkeys([*known, 'mfef_mmrazor']) if name.split('.')[0] in packages
    ]
    if needed:
        content['custom_imports'] = dict(imports=needed, allow_failed_imports=False)
    return network, Config(content)


class _OneOf(nn.Module):
    """One of the predictors of an algorithm."""

    def __init__(self, algorithm: OnlineDistill, name: str) -> None:
        super().__init__()
        self.algorithm = algorithm
        self.name = name

    def forward(self, images: Tensor) -> Tensor:
        """Preprocessed images (B, 3, H, W) to logits (B, K)."""
        return self.algorithm.predict_logits(images)[self.name]
