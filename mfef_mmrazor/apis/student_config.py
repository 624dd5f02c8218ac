"""Turns the config of an online distillation into that of one student, as mmpretrain reads it."""

import copy
import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry
from mmpretrain import get_model
from mmpretrain.registry import DATASETS, METRICS, TRANSFORMS
from torch import Tensor, nn

from ..cfg_type import Cfg
from ..datasets.image_folder import EXTENSIONS
from ..models.builder import scope_and_class
from ..models.students import resolve_student
from .completion import is_called
from .data_checks import inner_datasets, swaps_colours


def deployed_student(
    cfg: Cfg, i: int, weights: dict[str, Tensor], classes: Sequence[str] | None
) -> tuple[nn.Module, Config]:
    """A student as mmpretrain builds it by itself, with the trained weights; and its config."""
    model = without_initial_weights(resolve_student(cfg['model']['students'][i]))
    scope, _ = scope_and_class(model)
    model.pop('_scope_', None)
    if scope != 'mmpretrain':
        model['_scope_'] = scope
    model['data_preprocessor'] = preprocessor_config(cfg)
    pipeline = file_pipeline(cfg)
    content = dict(default_scope='mmpretrain', model=model, **test_part(cfg, classes, pipeline))
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


def test_part(cfg: Cfg, classes: Sequence[str] | None, pipeline: list[Cfg]) -> Cfg:
    """How images are prepared; and, where the test images are files, all that mmpretrain scores by.

    A data set of this package's that mmpretrain has under another name is written as that one.
    """
    loader = copy.deepcopy(cfg.get('test_dataloader') or cfg.get('val_dataloader') or {})
    evaluator = cfg.get('test_evaluator') or cfg.get('val_evaluator')
    dataset = loader.get('dataset') or {}
    if is_called(dataset.get('type'), 'InMemory'):
        dataset = dataset['dataset']
    if dataset.get('type', '').rpartition('.')[2] == 'ImageFolder':
        own = ('num_classes', 'skip_corrupt')
        dataset = {key: value for key, value in dataset.items() if key not in own}
        dataset = {'extensions': EXTENSIONS, **dataset, 'type': 'CustomDataset'}
    metrics = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    served = [_is_mmpretrains(METRICS, metric) for metric in metrics]
    plain = not {'dataset', 'datasets'} & set(dataset)  # a wrapper takes no pipeline
    usable = [plain, _is_mmpretrains(DATASETS, dataset), *served]
    if all(usable) and _loaders(image_pipeline(cfg)):
        loader['dataset'] = dict(dataset, pipeline=pipeline)
        return dict(test_dataloader=loader, test_cfg={}, test_evaluator=evaluator)
    stub = dict(type='CustomDataset', classes=classes, pipeline=pipeline)
    return dict(test_dataloader=dict(dataset=stub))


def _is_mmpretrains(registry: Registry, cfg: Cfg | None) -> bool:
    name = (cfg or {}).get('type')
    kind = registry.get(name) if name else None
    return kind is not None and kind.__module__.startswith(('mmpretrain', 'mmengine'))


def _preprocessor(cfg: Cfg) -> Cfg:
    model = cfg['model']
    return (
        model.get('data_preprocessor')
        or cfg.get('data_preprocessor')
        or resolve_student(model['students'][0]).get('data_preprocessor')
        or {}
    )


def preprocessor_config(cfg: Cfg) -> Cfg:
    """Config of the preprocessing, for image files."""
    found = _preprocessor(cfg)
    training_only = ('batch_augments', 'to_onehot', 'crop_size', 'flip_prob', 'num_views')
    found = {key: value for key, value in found.items() if key not in training_only}
    found.setdefault('type', 'mmpretrain.ClsDataPreprocessor')
    views_or_batches = ('SelfSupDataPreprocessor', 'InMemoryDataPreprocessor')
    if found['type'].endswith(views_or_batches):  # one view of one image is left
        found['type'] = 'mmpretrain.ClsDataPreprocessor'
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
    if swaps_colours(loader):
        found['to_rgb'] = not found.get('to_rgb', False)
    if not _loaders(image_pipeline(cfg)):
        # trained on RGB images from memory; files are read as BGR
        found['to_rgb'] = not found.get('to_rgb', False)
    return found


def image_pipeline(cfg: Cfg, *dataloaders: str) -> list[Cfg]:
    """The transforms of the first of the data loaders that is there, by default those of tests."""
    for name in dataloaders or ('test_dataloader', 'val_dataloader'):
        for dataset in inner_datasets(cfg.get(name)):
            pipeline = [_mmcv(transform) for transform in dataset.get('pipeline', ())]
            found = _preprocessor(cfg)
            if is_called(found.get('type'), 'InMemoryDataPreprocessor'):  # which has done the rest
                size = found.get('crop_size')
                pipeline += [dict(type='CenterCrop', crop_size=size)] if size else []
                pipeline.append(dict(type='PackInputs'))
            return pipeline
    raise ValueError(
        f'the training config has no {" or ".join(dataloaders or ("test_dataloader",))}, so it '
        'is not known how images are prepared: give a config that has one with --config'
    )


def file_pipeline(cfg: Cfg) -> list[Cfg]:
    """The transforms of test images, for image files."""
    pipeline = image_pipeline(cfg)
    return pipeline if _loaders(pipeline) else [dict(type='LoadImageFromFile'), *pipeline]


def resizing(cfg: Cfg) -> Cfg:
    """How the tests resize an image, for users who prepare images elsewhere.

    ``resize_edge`` is what the shorter edge becomes, ``resize_to`` what height and width become;
    of what is larger than the networks' size, the centre is cropped. Both are None where nothing is
    resized, or in another way; ``interpolation`` and ``backend`` where there is neither ``Resize``
    nor ``ResizeEdge``.
    """
    names = ('Resize', 'ResizeEdge')
    found = [t for t in file_pipeline(cfg) if any(is_called(t['type'], name) for name in names)]
    if not found:
        return dict(resize_edge=None, resize_to=None, interpolation=None, backend=None)
    resize, edge, size = found[0], None, None
    if is_called(resize['type'], 'ResizeEdge'):
        edge = resize['scale'] if resize.get('edge', 'short') == 'short' else None
    elif not resize.get('keep_ratio'):
        scale = resize.get('scale')  # (w, h), or one number
        size = [scale] * 2 if isinstance(scale, int) else scale and [*scale][::-1]
    return dict(
        resize_edge=edge,
        resize_to=size,
        interpolation=resize.get('interpolation', 'bilinear'),
        backend=resize.get('backend', 'cv2'),
    )


def _mmcv(transform: Cfg) -> Cfg:
    """Replace ``LoadIntactImage`` by mmcv's transform, which differs only for broken images and
    those of 16 or 32 bits; other transforms stay as they are."""
    if not transform['type'].endswith('LoadIntactImage'):
        return transform
    return dict(imdecode_backend='pillow') | transform | dict(type='LoadImageFromFile')


def _loaders(pipeline: list[Cfg]) -> list[Cfg]:
    return [transform for transform in pipeline if _is_loader(transform)]


def _is_loader(transform: Cfg) -> bool:
    kind = TRANSFORMS.get(transform['type'])
    own = inspect.isclass(kind) and issubclass(kind, LoadImageFromFile)
    return own or 'LoadImage' in transform['type']


def input_shape(cfg: Cfg) -> tuple[int, int, int]:
    """(3, H, W) as the pipeline of the tests, else that of the training, brings images to it."""
    for pipeline in (image_pipeline(cfg), image_pipeline(cfg, 'train_dataloader')):
        with default_scope(cfg):
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


def _shape_after(transforms: Sequence[Callable[..., Any]], size: int) -> tuple[Any, ...]:
    image = torch.zeros(size, size, 3, dtype=torch.uint8).numpy()
    results: Any = dict(img=image, img_shape=(size, size), ori_shape=(size, size), gt_label=0)
    for transform in transforms:
        results = transform(results)
    inputs = results['inputs']
    return tuple((inputs[0] if isinstance(inputs, list) else inputs).shape)


def default_scope(cfg: Cfg) -> AbstractContextManager[Any]:
    """Look types up in the config's own default scope."""
    return DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmpretrain')


def without_initial_weights(cfg: Any) -> Any:
    """A copy without what would be loaded or downloaded, only to be overwritten."""
    if isinstance(cfg, dict):
        return {
            key: without_initial_weights(value)
            for key, value in cfg.items()
            if key not in ('init_cfg', 'pretrained', 'teacher_ckpt', 'float_checkpoint')
        }
    if isinstance(cfg, (list, tuple)):
        return type(cfg)(without_initial_weights(item) for item in cfg)
    return cfg
