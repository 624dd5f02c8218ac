import numpy as np
import pytest
import torch
from mmpretrain.registry import DATASETS
from sklearn.datasets import load_digits

from mfef_mmrazor.datasets import Digits


def images_and_labels(dataset):
    samples = [dataset[i] for i in range(len(dataset))]
    return np.stack([s['img'] for s in samples]), np.array([s['gt_label'] for s in samples])


@pytest.mark.parametrize('per_class', [1, 30, 150])
def test_the_splits_share_nothing_and_together_are_everything(per_class):
    options = dict(train_per_class=per_class, pipeline=[])
    train, train_labels = images_and_labels(Digits(split='train', **options))
    test, test_labels = images_and_labels(Digits(split='test', **options))
    assert train.shape == (10 * per_class, 8, 8, 3) and train.dtype == np.uint8
    assert np.bincount(train_labels).tolist() == [per_class] * 10
    # put together again, in the file's order, digit by digit
    digits = load_digits()
    for digit in range(10):
        both = np.concatenate([train[train_labels == digit], test[test_labels == digit]])
        original = digits.images[digits.target == digit]
        assert np.array_equal(both[..., 0], np.floor(original * 255 / 16))
    assert np.array_equal(train, np.repeat(train[..., :1], 3, axis=-1))
    assert train.min() == 0 and train.max() == 255


def test_it_goes_through_a_pipeline_of_mmpretrain():
    pipeline = [dict(type='Resize', scale=16), dict(type='PackInputs')]
    dataset = DATASETS.build(dict(_scope_='mmpretrain', type='Digits', pipeline=pipeline))
    sample = dataset[0]
    assert sample['inputs'].shape == (3, 16, 16) and sample['inputs'].dtype == torch.uint8
    assert sample['data_samples'].gt_label.tolist() == [0]
    assert dataset.metainfo['classes'] == tuple('0123456789')


def test_unknown_split():
    with pytest.raises(ValueError, match="split='val', expected 'train' or 'test'"):
        Digits(split='val')


@pytest.mark.parametrize('per_class', [0, 151])
def test_impossible_number_of_images(per_class):
    with pytest.raises(ValueError, match=f'train_per_class={per_class}, expected 1 to 150'):
        Digits(train_per_class=per_class)
