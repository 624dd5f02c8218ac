"""The augmentation of the shipped CIFAR configs: crops of a reflect-padded picture, and flips."""

from pathlib import Path

import numpy as np
import pytest
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import DefaultScope

DATASETS = Path(__file__).parents[2] / 'configs/_base_/datasets'


@pytest.mark.parametrize('name', ['cifar10', 'cifar100', 'cifar10_folder'])
def test_training_crops_are_of_the_reflect_padded_picture(name):
    cfg = Config.fromfile(DATASETS / f'{name}.py')
    steps = [step for step in cfg.train_pipeline if step.type in ('RandomCrop', 'RandomFlip')]
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        augment = Compose(steps)
    image = np.random.default_rng(0).integers(1, 256, (32, 32, 3), dtype=np.uint8)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode='reflect')
    expected = {
        (y, x, flip): padded[y : y + 32, x : x + 32][:, :: -1 if flip else 1]
        for y in range(9)
        for x in range(9)
        for flip in (False, True)
    }
    np.random.seed(0)
    seen = set()
    for _ in range(300):
        crop = augment(dict(img=image.copy()))['img']
        found = [key for key, value in expected.items() if np.array_equal(crop, value)]
        assert len(found) == 1
        seen.add(found[0])
    assert {y for y, _, _ in seen} == {x for _, x, _ in seen} == set(range(9))
    assert {flip for _, _, flip in seen} == {False, True}


@pytest.mark.parametrize('name', ['cifar100', 'cifar10_folder', 'digits'])
def test_a_view_is_the_same_augmentation_and_normalised_the_same(name):
    plain, views = (Config.fromfile(DATASETS / f'{name}{end}.py') for end in ('', '_views'))
    around = ('LoadImageFromFile', 'PackInputs')
    assert views.view == [step for step in plain.train_pipeline if step.type not in around]
    for key, default in (('mean', None), ('std', None), ('to_rgb', False)):
        ours, theirs = (cfg.data_preprocessor.get(key, default) for cfg in (views, plain))
        assert ours == theirs
    assert views.val_dataloader.dataset == plain.val_dataloader.dataset
