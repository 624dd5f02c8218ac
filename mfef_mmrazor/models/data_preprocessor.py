"""Crops, flips and normalises whole batches of small pictures on the device that trains."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.nn import functional as F


@MODELS.register_module()
class InMemoryDataPreprocessor(ClsDataPreprocessor):
    """mmpretrain's ``ClsDataPreprocessor`` for the batches of an ``InMemory`` data set.

    In training each image gets a crop and perhaps a flip, drawn from the seed, the epoch, the
    image's number and the view alone: not from the batch that it is in, the workers or the number
    of processes. :class:`~mfef_mmrazor.engine.EpochSeedHook` sets seed and epoch; without it, each
    batch draws a seed from torch's generator. In evaluation the middle of each image is taken.

    In training one data sample has the labels of the whole batch; the heads concatenate them.

    Args:
        crop_size: Side of the crops; None for none.
        flip_prob: How likely an image is mirrored.
        num_views: Views of each image, a crop and a flip for each: one per student, and those that
            the method wants for itself. None for one that all students see.
        **kwargs: ``mean``, ``std``, ``to_rgb``, ``num_classes`` and ``batch_augments`` of
            :class:`mmpretrain.models.ClsDataPreprocessor`.

    Raises:
        ValueError: Views are to be mixed by ``batch_augments``, or a number cannot be meant; or, in
            ``forward``, images are smaller than ``crop_size``.

    Example:
        >>> from mfef_mmrazor.datasets import InMemory
        >>> from mfef_mmrazor.models import InMemoryDataPreprocessor
        >>> digits = InMemory(dict(type='Digits', pipeline=[]), padding=1)
        >>> batch = dict(inputs=[digits.images[:5]], data_samples=[digits[0]['data_samples']])
        >>> InMemoryDataPreprocessor(crop_size=8)(batch)['inputs'].shape
        torch.Size([5, 3, 8, 8])
    """

    def __init__(
        self,
        crop_size: int | None = None,
        flip_prob: float = 0.0,
        num_views: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_views and self.batch_augments:
            raise ValueError(f'num_views={num_views}: views cannot be mixed by batch_augments')
        if not 0 <= flip_prob <= 1:
            raise ValueError(f'flip_prob={flip_prob!r}, expected a number between 0 and 1')
        for name, number in (('crop_size', crop_size), ('num_views', num_views)):
            if number is not None and not (isinstance(number, int) and number > 0):
                raise ValueError(f'{name}={number!r}, expected a whole number, 1 or more, or None')
        self.crop_size = crop_size
        self.flip_prob = flip_prob
        self.num_views = num_views
        self.seed_and_epoch: tuple[int, int] | None = None  # set by EpochSeedHook

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Images (B, 3, H, W), or a list of such views, and their data samples."""
        numbers = torch.cat([sample.sample_idx for sample in data['data_samples']]).cpu()
        data = self.cast_data(data)
        images, samples = torch.cat(data['inputs']), data['data_samples']
        height, width = self.size_after(images)
        if not training:
            top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
            middle = images[:, top : top + height, left : left + width]
            return dict(inputs=self.normalized(middle), data_samples=one_per_image(samples))
        inputs = [
            self.normalized(self.augmented(images, numbers, view))
            for view in range(self.num_views or 1)
        ]
        if self.num_views:
            return dict(inputs=inputs, data_samples=samples)
        if self.batch_augments:
            return self.mixed(inputs[0], torch.cat([sample.gt_label for sample in samples]))
        return dict(inputs=inputs[0], data_samples=samples)

    def size_after(self, images: Tensor) -> tuple[int, int]:
        """Height and width of what is left of images (B, H, W, 3)."""
        height, width = images.shape[1:3]
        if self.crop_size is None:
            return height, width
        if min(height, width) < self.crop_size:
            raise ValueError(
                f'crop_size={self.crop_size}, but the images are {(height, width)}; set padding in '
                'the InMemory data set, or a smaller crop_size'
            )
        return self.crop_size, self.crop_size

    def augmented(self, images: Tensor, numbers: Tensor, view: int) -> Tensor:
        """Crops and flips: images (B, H, W, 3) of these numbers (B,) to those of one view."""
        seed, epoch = self.seed_and_epoch or (int(torch.randint(2**31, ())), 0)
        size = self.size_after(images)
        places = [whole - part + 1 for whole, part in zip(images.shape[1:3], size, strict=True)]
        draws = uniform(seed, epoch, view, numbers)
        top, left, flip = (draws * torch.tensor([*places, 1])).unbind(1)
        images = crops(images, top.long(), left.long(), size)
        flipped = (flip < self.flip_prob).nonzero().flatten().to(images.device, non_blocking=True)
        return images.index_copy_(0, flipped, images.index_select(0, flipped).flip(2))

    def normalized(self, images: Tensor) -> Tensor:
        """Pixels (B, H, W, 3) as what networks take, (B, 3, H, W), in channels-last format."""
        if self.to_rgb:
            images = images.flip(3)
        width, channels = images.shape[2:]
        rows = images.flatten(2).float()  # long rows are faster than three channels each
        if self._enable_normalize:
            mean, std = (x.flatten().expand(channels).repeat(width) for x in (self.mean, self.std))
            rows = rows.sub_(mean).div_(std)
        return rows.unflatten(2, (width, channels)).permute(0, 3, 1, 2)

    def mixed(self, inputs: Tensor, labels: Tensor) -> dict[str, Any]:
        """A batch (B, 3, H, W) that mixup or the like has mixed, with labels (B,) become scores."""
        scores = F.one_hot(labels, self.num_classes)
        inputs, scores = self.batch_augments(inputs, scores)
        samples = [
            DataSample().set_gt_label(label).set_gt_score(score)
            for label, score in zip(labels.split(1), scores, strict=True)  # no .item() for each
        ]
        return dict(inputs=inputs, data_samples=samples)


def uniform(seed: int, epoch: int, view: int, numbers: Tensor) -> Tensor:
    """Random numbers (B, 3) in [0, 1) for images (B,), a function of the arguments alone.

    SplitMix64 (https://doi.org/10.1145/2714064.2660195) of the image's number and a key.
    """
    (key,) = np.random.SeedSequence((seed, epoch, view)).generate_state(1, np.uint64)
    with np.errstate(over='ignore'):
        x = key + numbers.numpy().astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    parts = [(x >> np.uint64(shift)) & np.uint64(2**21 - 1) for shift in (0, 21, 42)]
    return torch.from_numpy(np.stack(parts, axis=1).astype(np.float64) / 2**21)


def crops(images: Tensor, top: Tensor, left: Tensor, size: tuple[int, int]) -> Tensor:
    """Crops of one size from images (B, H, W, 3), each starting at its own row and column (B,).

    A crop has one slice of memory per row; the slices of all crops are copied in one go.
    """
    number, height, width, channels = images.shape
    first = (torch.arange(number) * height + top)[:, None] + torch.arange(size[0])
    starts = ((first * width + left[:, None]) * channels).flatten()
    length = size[1] * channels
    slices = images.contiguous().as_strided((images.numel() - length + 1, length), (1, 1))
    chosen = slices.index_select(0, starts.to(images.device, non_blocking=True))
    return chosen.view(number, *size, channels)


def one_per_image(samples: Sequence[DataSample]) -> list[DataSample]:
    """Data samples of batches, with labels, numbers and paths of many images, as one each."""
    split = []
    for sample in samples:
        paths = sample.get('img_path')
        for i, (label, number) in enumerate(
            zip(sample.gt_label.split(1), sample.sample_idx.tolist(), strict=True)
        ):
            facts = dict(sample_idx=number) | (dict(img_path=paths[i]) if paths else {})
            split.append(DataSample(metainfo=facts, gt_label=label))
    return split
