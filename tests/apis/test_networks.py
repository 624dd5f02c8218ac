import shutil
from pathlib import Path

import pytest

from mfef_mmrazor.apis import count_networks

MODELS = Path(__file__).parents[2] / 'configs/_base_/models'


def test_the_page_has_the_counts():
    """Every row of the table begins one of the page, and the page has no other."""
    counted = [row.removesuffix('|').rstrip() for row in count_networks(MODELS).splitlines()]
    page = (MODELS / 'README.md').read_text().splitlines()
    stated = [row for row in page if row.startswith('|')]
    assert len(counted) == len(stated) == len(list(MODELS.glob('*.py'))) + 2
    assert all(b.startswith(a) for a, b in zip(counted, stated, strict=True))


def test_every_network_for_cifar_has_a_config():
    for path in MODELS.glob('*_cifar.py'):
        name = path.stem.removesuffix('_cifar')
        assert (MODELS.parents[1] / f'mfef/mfef_{name}-x2_1xb128-300e_cifar100.py').is_file()


def test_wrong_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match='no config files in'):
        count_networks(tmp_path)
    shutil.copy(MODELS / 'resnet8_cifar.py', tmp_path / 'resnet8.py')
    with pytest.raises(ValueError, match='resnet8.py ends in none of _cifar.py, _imagenet.py'):
        count_networks(tmp_path)
