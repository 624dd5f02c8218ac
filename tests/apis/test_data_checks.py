"""What is said when a data set is not there, or of other classes."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmpretrain.datasets import CIFAR10

from mfef_mmrazor.apis.data_checks import check_data

DATASETS = Path(__file__).parents[2] / 'configs/_base_/datasets'
SAYS = {
    'cifar10': ['CIFAR10 is not in data/cifar10', 'cifar-10-python.tar.gz', 'data_batch_5'],
    'cifar100': ['CIFAR100 is not in data/cifar100', 'cifar-100-python.tar.gz'],
    'cinic10': ['data/cinic10/train/<class>/<picture>', 'https://datashare.ed.ac.uk/', 'valid'],
    'cinic10_trainvalid': ['data/cinic10/train/<class>/<picture>', 'https://datashare.ed.ac.uk/'],
    'fashion_mnist': [
        'FashionMNIST is not in data/fashion_mnist', 'train-images-idx3-ubyte',
        'apt-get install dataset-fashion-mnist',
    ],
    'image_folder': ['data/image_folder/train/<class>/<picture>'],
    'imagenet': ['data/imagenet/train/<class>/<picture>', 'https://image-net.org'],
    'tiny_imagenet': ['tiny-imagenet-200/train', 'tiny-imagenet-200.zip', 'val_annotations.txt'],
}  # fmt: skip


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """An empty folder, and no network."""
    monkeypatch.chdir(tmp_path)
    for name in ('http_proxy', 'https_proxy'):
        monkeypatch.setenv(name, 'http://127.0.0.1:9')
    return tmp_path


@pytest.mark.parametrize('name', SAYS)
def test_where_missing_data_is_to_be_had_and_what_it_must_look_like(name, nowhere):
    with pytest.raises(FileNotFoundError) as error:
        check_data(Config.fromfile(DATASETS / f'{name}.py'), 'train_dataloader')
    message = str(error.value)
    assert message.startswith('train_dataloader: ') and str(nowhere) in message
    assert all(part in message for part in SAYS[name]), message
    assert message.endswith('set the data_root of train_dataloader.dataset')


def test_an_empty_folder_is_not_a_data_set(nowhere):
    (nowhere / 'data/image_folder/train').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match='data folder is empty: data/image_folder/train'):
        check_data(Config.fromfile(DATASETS / 'image_folder.py'), 'train_dataloader')


def test_a_download_is_tried_only_if_it_is_wanted():
    cfg = Config.fromfile(DATASETS / 'cifar10.py')
    with pytest.raises(FileNotFoundError, match=r'cifar-10-python.tar.gz cannot be reached: '):
        check_data(cfg, 'val_dataloader')
    cfg.val_dataloader.dataset.download = False
    with pytest.raises(FileNotFoundError, match=r'is not downloaded \(download=False\)'):
        check_data(cfg, 'val_dataloader')


def test_half_a_file_of_cifar_is_not_cifar(nowhere):
    folder = nowhere / 'data/cifar10' / CIFAR10.base_folder
    folder.mkdir(parents=True)
    for name, _ in CIFAR10.train_list + CIFAR10.test_list:
        (folder / name).write_bytes(b'half')
    with pytest.raises(FileNotFoundError, match='CIFAR10 is not in data/cifar10'):
        check_data(Config.fromfile(DATASETS / 'cifar10.py'), 'train_dataloader')


def test_class_folders_of_other_names_are_other_classes(nowhere):
    cfg = Config.fromfile(DATASETS / 'image_folder.py')
    for folder in ('train/cat', 'train/dog', 'val/cat', 'val/dog'):
        (nowhere / 'data/image_folder' / folder).mkdir(parents=True)
    check_data(cfg, 'train_dataloader', 'val_dataloader')
    (nowhere / 'data/image_folder/val/cat').rename(nowhere / 'data/image_folder/val/eel')
    with pytest.raises(ValueError, match='/val .*/train: missing: cat; unexpected: eel'):
        check_data(cfg, 'train_dataloader', 'val_dataloader')
    check_data(cfg, 'val_dataloader')


def test_a_prefix_may_be_a_dict(nowhere):
    cfg = Config.fromfile(DATASETS / 'image_folder.py')
    cfg.train_dataloader.dataset.data_prefix = dict(img_path='learn')
    (nowhere / 'data/image_folder').mkdir(parents=True)
    (nowhere / 'data/image_folder/notes.txt').touch()
    with pytest.raises(FileNotFoundError, match='not found: data/image_folder/learn; expected'):
        check_data(cfg, 'train_dataloader')
    for folder in ('learn/cat', 'val/eel'):
        (nowhere / 'data/image_folder' / folder).mkdir(parents=True)
    with pytest.raises(ValueError, match='/val .*/learn: missing: cat; unexpected: eel'):
        check_data(cfg, 'train_dataloader', 'val_dataloader')


def test_a_prefix_may_be_in_the_home_folder(nowhere, monkeypatch):
    monkeypatch.setenv('HOME', str(nowhere))
    cfg = Config.fromfile(DATASETS / 'image_folder.py')
    cfg.train_dataloader.dataset.update(data_root='', data_prefix='~/learn')
    with pytest.raises(FileNotFoundError, match=f'not found: {nowhere}/learn'):
        check_data(cfg, 'train_dataloader')
    (nowhere / 'learn/cat').mkdir(parents=True)
    check_data(cfg, 'train_dataloader')


@pytest.mark.parametrize('name', ['image_folder', 'cifar10'])
def test_data_on_another_host_is_not_looked_for(name):
    cfg = Config.fromfile(DATASETS / f'{name}.py')
    cfg.train_dataloader.dataset.data_root = 's3://bucket/data'
    check_data(cfg, 'train_dataloader')
