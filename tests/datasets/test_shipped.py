"""The shipped data configs read what is laid out as the real data is."""

import gzip
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from pictures import write_tree
from PIL import Image

from mfef_mmrazor.apis import load_config, train
from mfef_mmrazor.apis.data_checks import check_data, inner_datasets
from mfef_mmrazor.models.builder import build

CONFIGS = Path(__file__).parents[2] / 'configs'


def write_cinic10(root):
    for split in ('train', 'valid', 'test'):
        write_tree(root / split, {f'class{i}': 2 for i in range(10)}, 32, 32, '.png')


def write_imagenet(root):
    """With labels in files, so that there need not be 1000 folders."""
    (root / 'meta').mkdir()
    for split in ('train', 'val'):
        write_tree(root / split, {'.': 3}, 300, 400, '.JPEG')
        (root / f'meta/{split}.txt').write_text('000.JPEG 7\n001.JPEG 999\n002.JPEG 0\n')


def write_tiny_imagenet(root):
    for i in range(200):
        write_tree(root / 'train' / f'n{i:03}', dict(images=1), 64, 64, '.JPEG')
    write_tree(root / 'val', dict(images=2), 64, 64, '.JPEG')
    (root / 'val/val_annotations.txt').write_text('000.JPEG\tn150\t0\n001.JPEG\tn003\t0\n')


def write_fashion_mnist(root):
    """Packed by another gzip than the original files, as Debian's are; then unpacked."""
    numbers = np.random.default_rng(0)
    for name, count in dict(train=40, t10k=10).items():
        images = numbers.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, array in dict(images=images, labels=labels).items():
            sizes = np.array(array.shape, '>u4').tobytes()
            content = bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()
            file = root / f'{name}-{kind}-idx{array.ndim}-ubyte.gz'
            file.write_bytes(gzip.compress(content))
    subprocess.run(['gunzip', *root.glob('*.gz')], check=True)


# writer, size of the images, training and validation labels
DATA = {
    'cinic10': (write_cinic10, 32, np.repeat(range(10), 2), np.repeat(range(10), 2)),
    'cinic10_trainvalid': (
        write_cinic10, 32, np.tile(np.repeat(range(10), 2), 2), np.repeat(range(10), 2)
    ),
    'imagenet': (write_imagenet, 224, [7, 999, 0], [7, 999, 0]),
    'tiny_imagenet': (write_tiny_imagenet, 64, range(200), [150, 3]),
    'fashion_mnist': (write_fashion_mnist, 28, np.tile(range(10), 4), range(10)),
}  # fmt: skip


@pytest.mark.parametrize('name', DATA)
def test_images_and_labels_of_both_splits(name, tmp_path):
    write, size, *labels = DATA[name]
    write(tmp_path)
    cfg = Config.fromfile(CONFIGS / f'_base_/datasets/{name}.py')
    for split, expected in zip(('train', 'val'), labels, strict=True):
        loader = cfg[f'{split}_dataloader']
        loader.update(num_workers=0, batch_size=1000)
        for dataset in inner_datasets(loader):
            dataset.data_root = str(tmp_path)
        check_data(cfg, f'{split}_dataloader')
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            batch = next(iter(Runner.build_dataloader(loader, seed=0)))
        found = [int(sample.gt_label) for sample in batch['data_samples']]
        assert sorted(found) == sorted(expected)
        if split == 'val':
            assert found == list(expected)
        inputs = build(cfg.data_preprocessor)(batch)['inputs']
        assert inputs.shape == (len(expected), 3, size, size)
        assert inputs.dtype == torch.float32 and inputs.abs().max() < 4
        if split == 'val' and name in ('cinic10', 'tiny_imagenet'):  # which are not resized
            picture = np.array(Image.open(batch['data_samples'][0].img_path))
            scale = cfg.data_preprocessor
            expected = torch.tensor((picture - np.array(scale.mean)) / np.array(scale.std))
            torch.testing.assert_close(inputs[0], expected.permute(2, 0, 1).float())


def test_pictures_in_memory_are_those_of_the_plain_config(tmp_path):
    write_tree(tmp_path / 'test', {f'class{i}': 2 for i in range(10)}, 32, 32, '.png')
    found = []
    for kind in ('', '_fast'):
        cfg = Config.fromfile(CONFIGS / f'_base_/datasets/cifar10_folder{kind}.py')
        for dataset in inner_datasets(cfg.val_dataloader):
            dataset.data_root = str(tmp_path)
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            batch = next(iter(Runner.build_dataloader(cfg.val_dataloader, seed=0)))
        found.append(build(cfg.data_preprocessor)(batch, False)['inputs'])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize('name', ['cifar10', 'cifar100', 'cifar10_folder'])
def test_fast_crops_and_flips_are_those_of_the_plain_config(name):
    plain, fast = (
        Config.fromfile(CONFIGS / f'_base_/datasets/{name}{kind}.py') for kind in ('', '_fast')
    )
    padded, crop, flip, _ = plain.train_dataloader.dataset.pipeline[-4:]
    assert (padded.crop_size - crop.crop_size) / 2 == fast.train_dataloader.dataset.padding
    assert crop.crop_size == fast.data_preprocessor.crop_size
    assert flip.prob == fast.data_preprocessor.flip_prob


def test_fashion_mnist_trains(tmp_path):
    (tmp_path / 'data').mkdir()
    write_fashion_mnist(tmp_path / 'data')
    options = {'train_cfg.max_epochs': 1}
    for split in ('train', 'val'):
        options[f'{split}_dataloader.dataset.data_root'] = str(tmp_path / 'data')
        options[f'{split}_dataloader.num_workers'] = 0
    runner = train(
        load_config(
            CONFIGS / 'mfef/mfef_resnet20-x2_1xb128-20e_fashion-mnist.py', tmp_path / 'run', options
        )
    )
    assert len(runner.train_dataloader.dataset) == 40 and len(runner.val_dataloader.dataset) == 10
    assert (tmp_path / 'run/results.json').is_file()
