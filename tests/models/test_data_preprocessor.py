"""Crops and flips of whole batches: those of the pipeline that goes image by image."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmpretrain.registry import TRANSFORMS
from mmpretrain.structures import DataSample
from scipy.stats import chisquare
from torch.utils._python_dispatch import TorchDispatchMode

from mfef_mmrazor.models import InMemoryDataPreprocessor
from mfef_mmrazor.models.builder import build

CONFIGS = Path(__file__).parents[2] / 'configs/_base_/datasets'
IMAGE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
MEAN, STD = [125.307, 122.961, 113.8575], [51.5865, 50.847, 51.255]


def batch_of(images, numbers=None):
    """As an ``InMemory`` data set gives it."""
    numbers = torch.arange(len(images)) if numbers is None else numbers
    return dict(
        inputs=[images], data_samples=[DataSample(gt_label=numbers % 10, sample_idx=numbers)]
    )


def preprocessor(seed=0, epoch=0, **kwargs):
    made = InMemoryDataPreprocessor(**{'crop_size': 32, 'flip_prob': 0.5, **kwargs})
    made.seed_and_epoch = (seed, epoch)
    return made


def padded(image=IMAGE):
    return np.pad(image, [(4, 4), (4, 4), (0, 0)], mode='reflect')


@pytest.fixture(scope='module')
def possible():
    """Every crop and flip, as bytes."""
    whole = padded()
    crops = [whole[y : y + 32, x : x + 32] for y in range(9) for x in range(9)]
    found = [crop.tobytes() for crop in crops] + [crop[:, ::-1].tobytes() for crop in crops]
    assert len(set(found)) == 162
    return found


def as_bytes(inputs):
    return [x.tobytes() for x in inputs.permute(0, 2, 3, 1).to(torch.uint8).numpy()]


def test_all_crops_and_flips_are_there_and_equally_often(possible):
    images = torch.from_numpy(padded()).expand(20_000, -1, -1, -1)
    found = Counter(as_bytes(preprocessor()(batch_of(images), True)['inputs']))
    assert set(found) == set(possible)
    assert chisquare([found[each] for each in possible]).pvalue > 0.01


def test_they_are_those_of_the_pipeline_that_goes_image_by_image(possible):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        transforms = Config.fromfile(CONFIGS / 'cifar10.py').train_pipeline
        pipeline = Compose([TRANSFORMS.build(transform) for transform in transforms])
    np.random.seed(0)
    found = Counter(
        pipeline(dict(img=IMAGE, gt_label=0))['inputs'].permute(1, 2, 0).numpy().tobytes()
        for _ in range(4000)
    )
    assert set(found) == set(possible)


@pytest.mark.parametrize('to_rgb', [False, True])
def test_pixels_are_normalised_as_mmpretrain_does(to_rgb):
    images = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    args = dict(mean=MEAN, std=STD, to_rgb=to_rgb)
    plain = build(dict(type='mmpretrain.ClsDataPreprocessor', **args))
    expected = plain(dict(inputs=list(images.permute(0, 3, 1, 2))))['inputs']
    for training in (False, True):
        found = preprocessor(flip_prob=0.0, **args)(batch_of(images), training)['inputs']
        assert torch.equal(found, expected)
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_an_image_is_cropped_alike_in_any_batch():
    images = torch.randint(0, 256, (60, 40, 40, 3), dtype=torch.uint8)
    whole = preprocessor(seed=3, epoch=5)(batch_of(images), True)['inputs']
    numbers = torch.randperm(60)
    for part in numbers.split(7):  # other batches, in another order, as in another process
        found = preprocessor(seed=3, epoch=5)(batch_of(images[part], part), True)['inputs']
        assert torch.equal(found, whole[part])
    for other in (dict(seed=4, epoch=5), dict(seed=3, epoch=6)):
        found = preprocessor(**other)(batch_of(images), True)['inputs']
        assert (found != whole).flatten(1).any(dim=1).sum() > 55


def test_views_are_independent(possible):
    images = torch.from_numpy(padded()).expand(4000, -1, -1, -1)
    made = preprocessor(num_views=3)(batch_of(images), True)
    views = [np.array([possible.index(x) for x in as_bytes(view)]) for view in made['inputs']]
    assert len(made['data_samples'][0].gt_label) == 4000
    for first, second in ((0, 1), (0, 2), (1, 2)):
        same = (views[first] == views[second]).mean()
        assert abs(same - 1 / 162) < 0.005
        flips = np.bincount(2 * (views[first] > 80) + (views[second] > 80), minlength=4)
        assert chisquare(flips).pvalue > 0.01


def test_evaluation_takes_the_middle_and_gives_a_sample_for_each_image():
    images = torch.from_numpy(padded()).expand(3, -1, -1, -1)
    data = batch_of(images, torch.tensor([7, 8, 21]))
    data['data_samples'][0].set_metainfo(dict(img_path=['a', 'b', 'c']))
    made = preprocessor()(data, False)
    assert as_bytes(made['inputs']) == 3 * [IMAGE.tobytes()]
    facts = [(x.gt_label.tolist(), x.sample_idx, x.img_path) for x in made['data_samples']]
    assert facts == [([7], 7, 'a'), ([8], 8, 'b'), ([1], 21, 'c')]


def test_without_a_hook_crops_come_from_torchs_generator():
    images = torch.randint(0, 256, (60, 40, 40, 3), dtype=torch.uint8)
    made = InMemoryDataPreprocessor(crop_size=32)
    torch.manual_seed(0)
    first, second = (made(batch_of(images), True)['inputs'] for _ in range(2))
    torch.manual_seed(0)
    assert not torch.equal(first, second)
    assert torch.equal(first, made(batch_of(images), True)['inputs'])


def test_mixup_makes_scores():
    mixup = dict(augments=[dict(type='Mixup', alpha=1.0)])
    made = preprocessor(batch_augments=mixup, num_classes=10)(
        batch_of(torch.randint(0, 256, (20, 32, 32, 3), dtype=torch.uint8)), True
    )
    scores = torch.stack([sample.gt_score for sample in made['data_samples']])
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(20))
    assert ((scores > 0).sum(dim=1) == 2).any()
    with pytest.raises(ValueError, match='num_views=2'):
        preprocessor(batch_augments=mixup, num_classes=10, num_views=2)


class CountReadNumbers(TorchDispatchMode):
    """For each, a GPU would be waited for."""

    number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.number += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_labels_of_mixed_images_are_not_read_one_by_one():
    mixup = dict(augments=[dict(type='Mixup', alpha=1.0)])
    images = torch.randint(0, 256, (20, 32, 32, 3), dtype=torch.uint8)
    mixing = preprocessor(batch_augments=mixup, num_classes=10)
    with CountReadNumbers() as read:
        made = mixing(batch_of(images), True)
    assert [sample.gt_label.tolist() for sample in made['data_samples']] == [
        [number % 10] for number in range(20)
    ]
    assert read.number < 20


@pytest.mark.parametrize('shape', [(6, 10), (10, 6)])
def test_images_that_are_not_square_stay_whole_without_a_crop_size(shape):
    images = torch.randint(0, 256, (9, *shape, 3), dtype=torch.uint8)
    for training in (False, True):
        found = preprocessor(crop_size=None, flip_prob=0.0)(batch_of(images), training)['inputs']
        assert torch.equal(found, images.permute(0, 3, 1, 2).float())
    crops = preprocessor(crop_size=4, flip_prob=0.0)(batch_of(images), True)['inputs']
    windows = images.permute(0, 3, 1, 2).float().unfold(2, 4, 1).unfold(3, 4, 1)
    same = (windows == crops[:, :, None, None]).flatten(4).all(dim=4).all(dim=1)
    assert same.flatten(1).any(dim=1).all()  # each is a window of its own image


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(flip_prob=50), 'flip_prob=50, expected a number between 0 and 1'),
        (dict(crop_size=0), 'crop_size=0, expected a whole number, 1 or more'),
        (dict(num_views=-1), 'num_views=-1, expected a whole number'),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        InMemoryDataPreprocessor(**options)


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match=r'crop_size=32.*\(28, 28\)'):
        preprocessor()(batch_of(torch.zeros(2, 28, 28, 3, dtype=torch.uint8)), True)
