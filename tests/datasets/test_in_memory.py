"""Data sets in memory: the same pictures as read one by one, and a cache that follows the files."""

import os
from pathlib import Path

import cv2
import numpy as np
import PIL
import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.datasets import KFoldDataset
from pictures import truncate, write_tree
from PIL import Image

from mfef_mmrazor.datasets import BrokenImageError, Digits, InMemory

DIGITS = dict(type='Digits', pipeline=[])


@pytest.fixture
def folder(tmp_path):
    """Six pictures of 12 x 12 in two classes, and the config that reads them."""
    write_tree(tmp_path / 'train', dict(cat=3, dog=3), 12, 12, '.png')
    load = [dict(type='LoadIntactImage', imdecode_backend='cv2')]
    return dict(type='ImageFolder', data_root=str(tmp_path), data_prefix='train', pipeline=load)


def test_pictures_and_labels_are_those_of_the_files(folder):
    data = InMemory(folder, to_rgb=True, test_mode=True)
    batch = data.__getitems__([5, 0])[0]
    sample = batch['data_samples']
    assert sample.gt_label.tolist() == [1, 0] and sample.sample_idx.tolist() == [5, 0]
    assert [Path(path).parts[-2:] for path in sample.img_path] == [
        ('dog', '002.png'),
        ('cat', '000.png'),
    ]
    for image, path in zip(batch['inputs'], sample.img_path, strict=True):
        assert np.array_equal(image, np.array(Image.open(path)))
    assert data.metainfo['classes'] == ('cat', 'dog')


@pytest.mark.parametrize('mode', ['reflect', 'constant'])
def test_padding_is_that_of_torch(mode):
    plain, padded = InMemory(DIGITS).images, InMemory(DIGITS, padding=3, padding_mode=mode).images
    expected = torch.nn.functional.pad(plain.permute(0, 3, 1, 2).float(), [3] * 4, mode)
    assert torch.equal(padded.permute(0, 3, 1, 2).float(), expected)


@pytest.mark.parametrize('workers', [0, 2])
def test_a_data_loader_gets_whole_batches(workers):
    loader = dict(
        batch_size=128, num_workers=workers, sampler=dict(type='DefaultSampler', shuffle=False)
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        batches = list(
            Runner.build_dataloader(dict(loader, dataset=dict(type='InMemory', dataset=DIGITS)))
        )
    assert [[len(x) for x in batch['inputs']] for batch in batches] == [[128], [128], [44]]
    labels = torch.cat([batch['data_samples'][0].gt_label for batch in batches])
    digits = Digits()
    assert labels.tolist() == [digits.get_data_info(i)['gt_label'] for i in range(300)]


def test_files_are_read_again_only_where_they_have_changed(folder):
    first = InMemory(folder, cache=True).images
    (file,) = Path(folder['data_root']).glob('train.*.npz')
    kept = file.read_bytes()
    picture = Path(folder['data_root'], 'train/dog/001.png')
    stat = picture.stat()
    whole = picture.read_bytes()
    picture.write_bytes(b'x' * stat.st_size)
    os.utime(picture, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as rsync or tar do
    with pytest.raises(BrokenImageError, match='001.png'):
        InMemory(folder, cache=True)
    assert file.read_bytes() == kept
    picture.write_bytes(whole)
    assert torch.equal(InMemory(folder, cache=True).images, first)
    kept = file.stat().st_mtime_ns
    InMemory(folder, cache=True)
    assert file.stat().st_mtime_ns == kept
    picture.unlink()
    assert len(InMemory(folder, cache=True).images) == 5
    assert file.stat().st_mtime_ns != kept


def test_what_another_decoder_read_is_read_again(folder, monkeypatch):
    InMemory(folder, cache=True)
    (file,) = Path(folder['data_root']).glob('train.*.npz')
    for package in (cv2, PIL):
        kept = file.read_bytes()
        monkeypatch.setattr(package, '__version__', 'another')
        InMemory(folder, cache=True)
        assert file.read_bytes() != kept


def open_a_bracket(file):
    """In the description of an array, which numpy parses."""
    content = file.read_bytes()
    file.write_bytes(content.replace(b', }', b', ('))


@pytest.mark.parametrize('damage', [truncate, open_a_bracket])
def test_a_broken_cache_is_written_anew(damage, folder):
    first = InMemory(folder, cache=True).images
    (file,) = Path(folder['data_root']).glob('train.*.npz')
    damage(file)
    assert torch.equal(InMemory(folder, cache=True).images, first)
    assert np.load(file)['images'].shape == (6, 12, 12, 3)
    assert sorted(Path(folder['data_root']).iterdir()) == [file.parent / 'train', file]


def test_another_pipeline_has_another_cache(folder):
    InMemory(folder, cache=True)
    resized = [*folder['pipeline'], dict(type='Resize', scale=8)]
    assert InMemory(dict(folder, pipeline=resized), cache=True).images.shape == (6, 8, 8, 3)
    assert InMemory(folder, cache=True).images.shape == (6, 12, 12, 3)


def test_a_fold_keeps_the_numbers_of_its_images():
    fold = KFoldDataset(dict(type='InMemory', dataset=DIGITS), num_splits=10, seed=0, fold=3)
    whole = InMemory(DIGITS)
    assert len(fold) == 270
    for i in (0, 100, 269):
        item, number = fold[i], fold._get_ori_dataset_idx(i)
        assert item['data_samples'].sample_idx.tolist() == [number]
        assert item['data_samples'].gt_label.tolist() == [whole.labels[number]]
        assert torch.equal(item['inputs'][0], whole.images[number])


def test_what_cannot_be_one_array_is_refused(folder):
    write_tree(Path(folder['data_root'], 'train'), dict(emu=1), 10, 12, '.png')
    with pytest.raises(ValueError, match=r'\(10, 12, 3\).*\(12, 12, 3\)'):
        InMemory(folder)
    # before the others are read
    write_tree(Path(folder['data_root'], 'train'), dict(ant=1, dog=70), 10, 12, '.png')
    truncate(Path(folder['data_root'], 'train/dog/069.png'))
    write_tree(Path(folder['data_root'], 'train'), dict(ant=1), 12, 12, '.png')
    with pytest.raises(ValueError, match=r'image \d is \(10, 12, 3\), image 0 is \(12, 12, 3\)'):
        InMemory(folder)
    with pytest.raises(ValueError, match='PackInputs'):
        InMemory(dict(type='Digits', pipeline=[dict(type='PackInputs')]))
    with pytest.raises(ValueError, match="padding_mode='edge'"):
        InMemory(DIGITS, padding_mode='edge')


def test_a_picture_never_gets_the_label_of_another(folder):
    """mmpretrain takes any other picture where the pipeline gives none."""
    truncate(Path(folder['data_root'], 'train/cat/001.png'))
    folder['pipeline'] = [dict(type='LoadIntactImage', ignore_empty=True)]
    with pytest.raises(ValueError, match='gives nothing for image 1; .*skip_corrupt=True'):
        InMemory(folder)


def test_normalised_and_grey_pictures_are_refused(folder):
    load = folder['pipeline'][0]
    folder['pipeline'] = [load, dict(type='mmcv.Normalize', mean=[99] * 3, std=[9] * 3)]
    with pytest.raises(ValueError, match='image 0 is float32 .*expected uint8'):
        InMemory(folder)
    folder['pipeline'] = [dict(load, color_type='grayscale')]
    with pytest.raises(ValueError, match=r'of shape \(12, 12\), .*give grey pictures channels'):
        InMemory(folder)


def test_the_cache_of_several_folders_in_one(folder):
    both = dict(type='ConcatDataset', datasets=[folder, folder])
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        first, second = (InMemory(both, cache=True) for _ in range(2))
    assert len(first) == 12 and torch.equal(first.images, second.images)
    assert len([*Path(folder['data_root']).glob('train.*.npz')]) == 1


def test_the_cache_is_beside_the_folder_whatever_is_around_it(folder, monkeypatch):
    root = Path(folder.pop('data_root'))
    folder['data_prefix'] = str(root / 'train')
    (root / 'elsewhere').mkdir()
    monkeypatch.chdir(root / 'elsewhere')
    wrapped = [
        folder,
        dict(type='KFoldDataset', num_splits=3, dataset=folder),
        dict(type='RepeatDataset', times=2, dataset=folder),
        dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', times=2, dataset=folder)]),
    ]
    for number, dataset in enumerate(wrapped, start=1):
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            first, second = (InMemory(dataset, cache=True) for _ in range(2))
        assert torch.equal(first.images, second.images)
        assert len([*root.glob('train.*.npz')]) == number
    assert not [*Path.cwd().iterdir()]
