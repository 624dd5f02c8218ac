"""Tiny ImageNet, laid out as its archive is."""

from typing import Any

from mmengine.fileio import join_path, list_from_file
from mmpretrain.datasets.custom import find_folders
from mmpretrain.registry import DATASETS

from .image_folder import ImageFolder


@DATASETS.register_module()
class TinyImageNet(ImageFolder):
    """Tiny ImageNet (http://cs231n.stanford.edu/tiny-imagenet-200.zip), as unpacked.

    200 classes; 100,000 training and 10,000 validation images of 64x64. The archive has
    ``train/<wnid>/images/*.JPEG``, but ``val/images/*.JPEG`` without class folders: their labels
    are in ``val/val_annotations.txt``. Its test images have none.

    Args:
        data_root: The unpacked folder, ``tiny-imagenet-200``.
        split: ``'train'`` or ``'val'``.
        **kwargs: As in :class:`ImageFolder`.

    Raises:
        ValueError: ``split`` is unknown.
        FileNotFoundError: There is no such folder.

    Example::

        TinyImageNet('data/tiny-imagenet-200', split='val')
    """

    def __init__(self, data_root: str, split: str = 'train', **kwargs: Any) -> None:
        if split not in ('train', 'val'):
            raise ValueError(f"split={split!r}, expected 'train' or 'val'")
        self.split = split
        super().__init__(data_root=data_root, data_prefix=split, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Paths and labels; the labels of both splits count the training split's folders."""
        if self.split == 'train':
            return super().load_data_list()
        classes, labels = find_folders(join_path(self.data_root, 'train'))
        self._metainfo['classes'] = tuple(classes)
        rows = list_from_file(join_path(self.img_prefix, 'val_annotations.txt'))
        return [
            dict(img_path=join_path(self.img_prefix, 'images', name), gt_label=labels[wnid])
            for name, wnid, *_ in (row.split('\t') for row in rows)
        ]
