"""Handwritten digits that come with scikit-learn: real images, nothing to download."""

import functools
from typing import Any

import numpy as np
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS


@functools.cache
def read_digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (1797, 8, 8), uint8, their labels, and how many of the same label come before each."""
    from sklearn.datasets import load_digits  # with pandas and SciPy: for these images alone

    digits = load_digits()
    labels = digits.target
    rank = np.array([(labels[:i] == y).sum() for i, y in enumerate(labels)])
    return (digits.images * (255 / 16)).astype(np.uint8), labels, rank


@DATASETS.register_module()
class Digits(BaseDataset):
    """1,797 handwritten digits of 8x8 pixels, as 3-channel images, in two splits.

    The first ``train_per_class`` images of every digit are the training split, all others the test
    split. The file is ordered by writer, so the test digits are mostly of other writers. The
    training split is small on purpose: with all the images every network reaches 99 %, and nothing
    is left to compare.

    Args:
        split: ``'train'`` or ``'test'``.
        train_per_class: Training images of every digit, 1 to 150.
        pipeline: Transforms; the image is there already (``img``: uint8, 8x8x3).
        **kwargs: As in :class:`mmpretrain.datasets.BaseDataset`.

    Raises:
        ValueError: ``split`` is unknown, or ``train_per_class`` out of range.

    Example:
        >>> from mfef_mmrazor.datasets import Digits
        >>> len(Digits(split='train', train_per_class=30)), len(Digits(split='test'))
        (300, 1497)
    """

    METAINFO = dict(classes=tuple('0123456789'))

    def __init__(self, split: str = 'train', train_per_class: int = 30, **kwargs: Any) -> None:
        if split not in ('train', 'test'):
            raise ValueError(f"split={split!r}, expected 'train' or 'test'")
        if not 1 <= train_per_class <= 150:
            raise ValueError(f'train_per_class={train_per_class}, expected 1 to 150')
        self.split = split
        self.train_per_class = train_per_class
        super().__init__(ann_file='', test_mode=split == 'test', **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Images and labels of the split, in the file's order."""
        images, labels, rank = read_digits()
        chosen = (rank < self.train_per_class) == (self.split == 'train')
        return [
            dict(img=np.repeat(image[..., None], 3, axis=-1), gt_label=int(label))
            for image, label in zip(images[chosen], labels[chosen], strict=True)
        ]
