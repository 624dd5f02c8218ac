"""The augmentation of small pictures: crops of the reflect-padded picture, and flips."""

from pathlib import Path

import numpy as np
import pytest
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import DefaultScope

DATASETS = Path(__file__).parents[2] / 'configs/_base_/datasets'


# side of the picture, and how far it is padded
SIZES = dict(
    cifar10=(32, 4), cifar100=(32, 4), cifar10_folder=(32, 4), cinic10=(32, 4),
    fashion_mnist=(28, 4), tiny_imagenet=(64, 8),
)  # fmt: skip


@pytest.mark.parametrize('name', SIZES)
def test_training_crops_are_of_the_reflect_padded_picture(name):
    size, pad = SIZES[name]
    cfg = Config.fromfile(DATASETS / f'{name}.py')
    steps = [step for step in cfg.train_pipeline if step.type in ('RandomCrop', 'RandomFlip')]
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        augment = Compose(steps)
    shape = (size, size) if name == 'fashion_mnist' else (size, size, 3)
    image = np.random.default_rng(0).integers(1, 256, shape, dtype=np.uint8)
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0))[: image.ndim], mode='reflect')
    offsets = range(2 * pad + 1)
    expected = {
        padded[y : y + size, x : x + size][:, :: -1 if flip else 1].tobytes(): (y, x, flip)
        for y in offsets
        for x in offsets
        for flip in (False, True)
    }
    assert len(expected) == 2 * len(offsets) ** 2
    np.random.seed(0)
    seen = set()
    for _ in range(300):
        crop = augment(dict(img=image.copy()))['img']
        seen.add(expected[crop.tobytes()])
    assert {y for y, _, _ in seen} == {x for _, x, _ in seen} == set(offsets)
    assert {flip for _, _, flip in seen} == {False, True}


@pytest.mark.parametrize('name', ['cifar100', 'cifar10_folder', 'digits'])
def test_a_view_is_the_same_augmentation_and_normalised_the_same(name):
    plain, views = (Config.fromfile(DATASETS / f'{name}{end}.py') for end in ('', '_views'))
    around = ('LoadIntactImage', 'PackInputs')
    assert views.augmentation == [step for step in plain.train_pipeline if step.type not in around]
    for key, default in (('mean', None), ('std', None), ('to_rgb', False)):
        ours, theirs = (cfg.data_preprocessor.get(key, default) for cfg in (views, plain))
        assert ours == theirs
    assert views.val_dataloader.dataset == plain.val_dataloader.dataset
