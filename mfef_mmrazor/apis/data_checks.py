"""Checks that the data sets of a config are there and have the same classes."""

from collections.abc import Iterator, Sequence
from os.path import expanduser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin
from urllib.request import urlopen

from mmengine.config import Config
from mmpretrain.datasets import CustomDataset
from mmpretrain.datasets.custom import find_folders
from mmpretrain.datasets.utils import check_integrity
from mmpretrain.registry import DATASETS

from ..cfg_type import Cfg
from ..datasets import ImageFolder


def check_data(cfg: Config, *dataloaders: str) -> None:
    """Raise if a data set is not there and cannot be downloaded, or is of other classes.

    The message says what the folder must look like; a config may add where to get the data, in a
    variable ``data_hint``. Data that is not in local files (``s3://...``) is not looked at.

    Raises:
        FileNotFoundError: A data set is not there.
        ValueError: The class folders of two data sets have other names. Their labels are places in
            the alphabetical order, so they would stand for other classes.
    """
    classes: dict[Path, list[str]] = {}
    for dataloader in dataloaders:
        for dataset in inner_datasets(cfg.get(dataloader)):
            if any('://' in str(dataset.get(key)) for key in ('data_root', 'data_prefix')):
                continue  # on another host
            problem = missing_archive(dataset) or missing_folder(dataset)
            if problem:
                hint = f' {cfg.data_hint}' if 'data_hint' in cfg else ''
                raise FileNotFoundError(
                    f'{dataloader}: {problem} (looked from {Path.cwd()}).{hint} '
                    f'If the data is elsewhere, set the data_root of {dataloader}.dataset'
                )
            if _dataset_class(dataset) is ImageFolder and not dataset.get('ann_file'):
                classes[_folder(dataset)] = find_folders(str(_folder(dataset)))[0]
    for folder, names in classes.items():
        first, expected = next(iter(classes.items()))
        if names and expected and names != expected:  # the data set itself says that it has none
            raise ValueError(
                f'the class folders of {folder} are not those of {first}: '
                + difference(names, expected)
            )


def difference(names: Sequence[str], expected: Sequence[str]) -> str:
    """How the names of classes are not those that were expected.

    Example:
        >>> difference(['cat', 'eel'], ['cat', 'dog'])
        'missing: dog; unexpected: eel'
        >>> difference(['dog', 'cat'], ['cat', 'dog'])
        'the same in another order'
    """
    missing, unexpected = (
        ', '.join(sorted({*a} - {*b})) for a, b in ((expected, names), (names, expected))
    )
    if not missing and not unexpected:
        return 'the same in another order'
    return f'missing: {missing or "none"}; unexpected: {unexpected or "none"}'


def _folder(dataset: Cfg) -> Path:
    prefix = dataset.get('data_prefix') or ''
    # mmpretrain expands a plain one alone
    prefix = prefix.get('img_path', '') if isinstance(prefix, dict) else expanduser(prefix)
    if issubclass(_dataset_class(dataset), CustomDataset):  # ImageNet has a folder for each split
        prefix = prefix or dataset.get('split', '')
    return Path(dataset.get('data_root') or '', prefix)


def missing_folder(dataset: Cfg) -> str | None:
    """What is wrong with the folder of a data set, from its config; None if nothing is."""
    kind, folder = _dataset_class(dataset), _folder(dataset)
    if folder == Path() or hasattr(kind, 'train_list'):
        return None
    wanted = f'; expected {folder}/<class>/<picture>' if issubclass(kind, CustomDataset) else ''
    if not folder.is_dir():
        return f'data folder not found: {folder}{wanted}'
    return None if any(folder.iterdir()) else f'data folder is empty: {folder}{wanted}'


def missing_archive(dataset: Cfg) -> str | None:
    """What is missing of a data set that mmpretrain downloads (CIFAR, MNIST); None if nothing."""
    kind = _dataset_class(dataset)
    if not hasattr(kind, 'train_list'):
        return None
    root = _folder(dataset)
    files = kind.train_list + kind.test_list
    if hasattr(kind, 'url'):  # CIFAR: one archive
        archives = [(kind.filename, kind.tgz_md5, kind.url)]
        unpacked = [(f'{kind.base_folder}/{name}', md5) for name, md5 in files]
    else:  # MNIST: each file is packed
        archives = [(name, md5, urljoin(kind.url_prefix, name)) for name, md5 in files]
        unpacked = [(name.removesuffix('.gz'), None) for name, _ in files]
    if all(check_integrity(root / name, md5) for name, md5 in unpacked):
        return None
    for name, md5, url in archives:
        if check_integrity(root / name, md5):
            continue
        reason = 'download=False'
        if dataset.get('download', True):
            try:
                urlopen(url, timeout=10).close()
                continue
            except OSError as error:
                reason = f'{url} cannot be reached: {error}'
        return (
            f'{kind.__name__} is not in {root}, and is not downloaded ({reason}). Put '
            f'{", ".join(name for name, *_ in archives)} there, or unpacked: '
            f'{", ".join(name for name, _ in unpacked)}'
        )
    return None


def _dataset_class(dataset: Cfg) -> Any:
    kind = dataset.get('type')
    return (DATASETS.get(kind) if isinstance(kind, str) else kind) or object


def swaps_colours(dataloader: Cfg) -> bool:
    """Whether a data loader's ``InMemory``, inside any wrappers, turns RGB into BGR or back.

    Its ``to_rgb`` is also on what stands for the data set where the stored one is not allowed.
    """
    dataset = dataloader.get('dataset') or {}
    while 'to_rgb' not in dataset and ('dataset' in dataset or 'datasets' in dataset):
        dataset = dataset.get('dataset') or next(iter(dataset.get('datasets', ())), {})
    return bool(dataset.get('to_rgb'))


def inner_datasets(dataset_cfg: Cfg | None) -> Iterator[Cfg]:
    """The data sets of a data loader's config, inside any wrappers."""
    inner = (dataset_cfg or {}).get('dataset', (dataset_cfg or {}).get('datasets'))
    for each in inner if isinstance(inner, (list, tuple)) else [inner]:
        if isinstance(each, dict):
            yield from inner_datasets(each) if {'dataset', 'datasets'} & set(each) else [each]
