"""Whole data sets of small pictures in memory, from which a batch is one look-up."""

import copy
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import torch
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmpretrain.registry import DATASETS
from mmpretrain.structures import DataSample
from rich.console import Console
from rich.progress import track
from torch.utils.data import Dataset

from ..cfg_type import Cfg
from ..version import __version__


@DATASETS.register_module()
class InMemory(Dataset[dict[str, Any]]):
    """Keeps the pictures of another data set in memory, as uint8, and hands out whole batches.

    What makes CIFAR-sized data slow is that each picture is read, cropped, flipped and packed by
    itself. Here every picture goes once through the pipeline of the other data set, which must end
    before ``PackInputs``; crops, flips and normalisation are then made of a whole batch at once, on
    the device that trains, by :class:`~mfef_mmrazor.models.InMemoryDataPreprocessor`.

    An item is a batch of one, and PyTorch's data loader, which asks for all items of a batch
    together, gets a batch: ``inputs`` (B, H, W, 3), uint8, and one ``DataSample`` with all labels
    ``gt_label`` (B,) and numbers ``sample_idx`` (B,).

    Args:
        dataset: Config of the other data set, with one label an image. Its pipeline gives pictures
            ``img`` of one size: ``[]`` for CIFAR, which mmpretrain has in memory as it is, and
            ``[dict(type='LoadIntactImage')]`` for files.
        to_rgb: Reverse the order of the channels: files are read as BGR.
        padding: Pixels to add on every side, for the crops.
        padding_mode: ``'reflect'``, or ``'constant'`` for zeros.
        cache: Keep what was read from files in ``{data_root}/{data_prefix}.*.npz``, so that the
            next run need not decode them. They are decoded again if files were added, removed or
            changed, or if a package that decodes them has another version.
        test_mode: Add the pictures' paths to the data samples, as predictions name them.

    Raises:
        ValueError: ``padding_mode`` is unknown; or pictures have different sizes, several labels,
            no channels or other numbers than uint8, or one of them cannot be read.

    Example:
        >>> from mfef_mmrazor.datasets import InMemory
        >>> digits = InMemory(dict(type='Digits', pipeline=[]), padding=1)
        >>> (batch,) = digits.__getitems__([5, 3])
        >>> batch['inputs'].shape, batch['data_samples'].sample_idx
        (torch.Size([2, 10, 10, 3]), tensor([5, 3]))
    """

    def __init__(
        self,
        dataset: Cfg,
        to_rgb: bool = False,
        padding: int = 0,
        padding_mode: str = 'reflect',
        cache: bool = False,
        test_mode: bool = False,
    ) -> None:
        if padding_mode not in ('reflect', 'constant'):
            raise ValueError(f"padding_mode={padding_mode!r}, expected 'reflect' or 'constant'")
        built = DATASETS.build(dataset)
        infos = [built.get_data_info(i) for i in range(len(built))]
        labels = [info['gt_label'] for info in infos]
        if any(isinstance(label, (Sequence, np.ndarray)) for label in labels):
            raise ValueError('InMemory: an image has several labels, expected one')
        self.metainfo: dict[str, Any] = built.metainfo
        self.test_mode = test_mode
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self.sample_idx = torch.arange(len(labels))
        self.paths = [info.get('img_path') for info in infos]
        in_files = cache and None not in self.paths
        numbers = [info.get('sample_idx') for info in infos]
        images = (
            cached_images(built, dataset, self.paths, numbers)
            if in_files
            else read_images(built, numbers)
        )
        images = images[..., ::-1] if to_rgb else images
        around = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
        self.images = torch.from_numpy(np.pad(images, around, mode=padding_mode))  # type: ignore

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.__getitems__([i])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The images of a batch, as the only item of a list."""
        chosen = torch.as_tensor(indices)
        labels, numbers, images = (
            whole.index_select(0, chosen) for whole in (self.labels, self.sample_idx, self.images)
        )
        sample = DataSample(gt_label=labels, sample_idx=numbers)
        if self.test_mode and self.paths[0] is not None:
            sample.set_metainfo(dict(img_path=[self.paths[i] for i in indices]))
        return [dict(inputs=images, data_samples=sample)]

    def full_init(self) -> None:
        """Nothing is left to be done; mmpretrain's wrappers ask for it."""

    def get_data_info(self, i: int) -> dict[str, Any]:
        """Label, number and path of an image, for mmpretrain's wrappers."""
        return dict(
            gt_label=int(self.labels[i]),
            sample_idx=int(self.sample_idx[i]),
            img_path=self.paths[i],
        )

    def get_cat_ids(self, i: int) -> list[int]:
        """The label of an image, for mmpretrain's wrappers."""
        return [int(self.labels[i])]

    def get_subset(self, indices: Sequence[int]) -> 'InMemory':
        """Some of the images, which keep their numbers."""
        subset, chosen = copy.copy(self), torch.as_tensor(indices)
        for name in ('labels', 'sample_idx', 'images'):
            setattr(subset, name, getattr(self, name)[chosen])
        subset.paths = [self.paths[i] for i in indices]
        return subset


def cached_images(
    dataset: Any, cfg: Cfg, paths: Sequence[str], numbers: Sequence[int | None]
) -> np.ndarray:
    """All images (N, H, W, 3), from the cache if the files are as they were when it was written.

    Args:
        dataset: Gives ``img`` for each number.
        cfg: Its config; each has a cache file of its own.
        paths: The images' files.
        numbers: See :func:`read_images`.
    """
    digest = hashlib.sha256(repr(cfg).encode()).hexdigest()[:12]
    first = dataset
    while hasattr(first, 'dataset') or hasattr(first, 'datasets'):  # a wrapper
        first = first.dataset if hasattr(first, 'dataset') else first.datasets[0]
    folder = Path(first.img_prefix)
    file = Path(first.data_root or folder.parent, f'{folder.name}.{digest}.npz')
    files = fingerprint(paths)
    # there may be none, or not a whole one
    with suppress(Exception), np.load(file, allow_pickle=False) as stored:
        if str(stored['files']) == files:
            return stored['images']
    images = read_images(dataset, numbers)
    try:
        write_whole(file, images=images, files=files)
    except OSError as error:
        print_log(
            f'{file}: the decoded images cannot be kept ({error}); the next run decodes them again',
            logger='current',
            level=logging.WARNING,
        )
    return images


def fingerprint(paths: Sequence[str]) -> str:
    """Changes where a file comes, goes, or is written anew, or may be decoded in another way."""
    versions = (__version__, cv2.__version__, PIL.__version__)
    stats = [(path, os.stat(path)) for path in paths]
    facts = [(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for path, stat in stats]
    return hashlib.sha256(json.dumps([versions, facts]).encode()).hexdigest()


def read_images(dataset: Any, numbers: Sequence[int | None]) -> np.ndarray:
    """Every image once through the pipeline of the data set, by as many threads as there are CPUs.

    Args:
        dataset: Gives ``img`` and ``sample_idx`` for each number.
        numbers: The ``sample_idx`` that each image has to have.

    Raises:
        ValueError: They have different sizes, no channels or other numbers than uint8, are packed
            already, or one of them cannot be read.
    """

    def read(i: int) -> np.ndarray:
        result = dataset[i]
        image = result.get('img')
        if image is None:
            raise ValueError(
                "InMemory: the pipeline of dataset gives no 'img'; end it before PackInputs"
            )
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3:
            raise ValueError(
                f'InMemory: image {i} is {image.dtype} of shape {image.shape}, expected uint8 of '
                'shape (height, width, channels): leave normalisation to the data preprocessor, '
                'and give grey pictures channels'
            )
        # mmpretrain takes another one where the pipeline gives None
        if result.get('sample_idx') != numbers[i]:
            raise ValueError(
                f'InMemory: the pipeline of dataset gives nothing for image {i}; leave out what '
                'cannot be read, as ImageFolder(skip_corrupt=True) does'
            )
        return image

    console = Console(stderr=True)
    images: list[np.ndarray] = []
    with ThreadPool() as pool:
        for image in track(
            pool.imap(read, range(len(numbers)), chunksize=64),
            'Reading images',
            total=len(numbers),
            transient=True,
            console=console,
            disable=not (console.is_terminal and is_main_process()),
        ):
            images.append(image)
            if image.shape != images[0].shape:
                raise ValueError(
                    f'InMemory: image {len(images) - 1} is {image.shape}, image 0 is '
                    f'{images[0].shape}; bring all to one size with a Resize in the pipeline of '
                    'dataset'
                )
    return np.stack(images)


def write_whole(file: Path, **arrays: Any) -> None:
    """Write an ``.npz`` file so that nobody ever sees a part of it."""
    part = file.with_suffix(f'.{os.getpid()}.part')
    try:
        with part.open('wb') as stream:
            np.savez(stream, **arrays)
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
