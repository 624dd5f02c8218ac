from pathlib import Path

import pytest
from pictures import truncate, write_tree

from mfef_mmrazor.datasets import TinyImageNet


@pytest.fixture
def root(tmp_path):
    """Three classes, laid out as the archive is; the annotations are in no order."""
    for wnid, count in dict(n03=2, n01=3, n02=1).items():
        write_tree(tmp_path / 'train' / wnid, dict(images=count), 64, 64, '.JPEG')
        (tmp_path / 'train' / wnid / f'{wnid}_boxes.txt').write_text('000.JPEG\t0\t0\t62\t62\n')
    write_tree(tmp_path / 'val', dict(images=4), 64, 64, '.JPEG')
    rows = [('001', 'n03'), ('003', 'n01'), ('000', 'n02'), ('002', 'n01')]
    (tmp_path / 'val/val_annotations.txt').write_text(
        ''.join(f'{name}.JPEG\t{wnid}\t0\t0\t62\t62\n' for name, wnid in rows)
    )
    return tmp_path


def test_both_splits_have_the_labels_of_the_training_folders(root):
    train = TinyImageNet(data_root=str(root), split='train', num_classes=3)
    assert train.get_gt_labels().tolist() == [0, 0, 0, 1, 2, 2]
    val = TinyImageNet(data_root=str(root), split='val', num_classes=3)
    found = {Path(val.get_data_info(i)['img_path']).stem: val.get_cat_ids(i) for i in range(4)}
    assert found == {'000': [1], '001': [2], '002': [0], '003': [0]}
    assert train.metainfo['classes'] == val.metainfo['classes'] == ('n01', 'n02', 'n03')


def test_broken_pictures_are_left_out_of_either_split(root):
    truncate(root / 'train/n01/images/001.JPEG')
    truncate(root / 'val/images/003.JPEG')
    train, val = (
        TinyImageNet(data_root=str(root), split=split, skip_corrupt=True)
        for split in ('train', 'val')
    )
    assert train.get_gt_labels().tolist() == [0, 0, 1, 2, 2]
    assert val.get_gt_labels().tolist() == [2, 1, 0]


def test_unknown_split():
    with pytest.raises(ValueError, match="split='test', expected 'train' or 'val'"):
        TinyImageNet(data_root='nowhere', split='test')
