"""Images in one folder per class."""

import logging
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmengine.logging import print_log
from mmpretrain.datasets import CustomDataset
from mmpretrain.datasets.custom import find_folders
from mmpretrain.registry import DATASETS

from .loading import LoadIntactImage

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """mmpretrain's ``CustomDataset`` that can check the number of classes and leave out broken
    images.

    A label is the place of a class folder in alphabetical order. So if one split lacks a class, the
    classes after it get wrong labels there, without a warning. ``num_classes`` detects this;
    ``tools/train.py`` also compares the names in both splits.

    Args:
        num_classes: How many class folders there are, or how many labels there may be in
            ``ann_file``; None to take what is there.
        skip_corrupt: Read every file once at the start, log those that are not whole images, or
            that the pipeline cannot read, and leave them out: the same ones in every process,
            worker and resumed run. Otherwise the first one that is met stops the run, if the
            pipeline reads with ``LoadIntactImage``.
        extensions: How the names of pictures end; other files are left out.
        **kwargs: As in :class:`mmpretrain.datasets.CustomDataset`.

    Raises:
        ValueError: There is another number of class folders, or a label that is not below it; or no
            picture is whole.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from mfef_mmrazor.datasets import ImageFolder
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ('cat', 'dog'):
        ...     (root / name).mkdir()
        ...     Image.new('RGB', (40, 30)).save(root / name / '1.png')
        >>> _ = (root / 'dog/2.png').write_bytes(b'')
        >>> folder = dict(data_root=str(root), num_classes=2)
        >>> len(ImageFolder(**folder)), len(ImageFolder(**folder, skip_corrupt=True))
        (3, 2)
    """

    def __init__(
        self,
        num_classes: int | None = None,
        skip_corrupt: bool = False,
        extensions: Sequence[str] = EXTENSIONS,
        **kwargs: Any,
    ) -> None:
        self.num_classes = num_classes
        self.skip_corrupt = skip_corrupt
        super().__init__(extensions=extensions, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Paths and labels of all files."""
        if self.with_label and not self.ann_file:
            classes, _ = find_folders(self.img_prefix)
            hidden = [name for name in classes if name.startswith('.')]
            if hidden:
                raise ValueError(
                    f'{self.img_prefix} has the hidden folder {hidden[0]}, which would be a class: '
                    'remove it'
                )
            if self.num_classes is not None and len(classes) != self.num_classes:
                raise ValueError(
                    f'{self.img_prefix} has {len(classes)} class folders '
                    f'({", ".join(classes[:5])}{", ..." * (len(classes) > 5)}), expected '
                    f'num_classes={self.num_classes}: {self.img_prefix}/<class>/<picture>'
                )
        samples = super().load_data_list()
        if self.num_classes is not None and self.ann_file and self.with_label:
            for sample in samples:
                if not 0 <= sample['gt_label'] < self.num_classes:
                    raise ValueError(
                        f'{self.ann_file}: {sample["img_path"]} has the label '
                        f'{sample["gt_label"]}, expected 0 to {self.num_classes - 1} '
                        f'(num_classes={self.num_classes})'
                    )
        return samples

    def is_valid_file(self, filename: str) -> bool:
        """Whether a path below its class is called like a picture, and in no hidden folder."""
        folders = Path(filename).parts[:-1]
        return super().is_valid_file(filename) and not any(x.startswith('.') for x in folders)

    def filter_data(self) -> list[dict[str, Any]]:
        """Without the broken ones, if they are to be skipped."""
        if not self.skip_corrupt:
            return self.data_list
        loaders = [x for x in self.pipeline.transforms if isinstance(x, LoadImageFromFile)]
        if 'pillow' not in [x.imdecode_backend for x in loaders]:
            loaders.append(LoadIntactImage())  # other decoders take truncated files
        with ThreadPool() as pool:
            whole = pool.map(lambda sample: _is_whole(sample['img_path'], loaders), self.data_list)
        kept, broken = (
            [sample for sample, good in zip(self.data_list, whole, strict=True) if good == wanted]
            for wanted in (True, False)
        )
        paths = ''.join(f'\n  {sample["img_path"]}' for sample in broken)
        found = f'{len(broken)} of {len(whole)} pictures are broken'
        if not kept:
            raise ValueError(f'{self.img_prefix}: {found}{paths}')
        print_log(
            f'{self.img_prefix}: {found}' + (f' and left out:{paths}' if broken else ''),
            logger='current',
            level=logging.WARNING if broken else logging.INFO,
        )
        return kept


def _is_whole(path: str, loaders: Sequence[Callable[..., Any]]) -> bool:
    try:
        return all(load(dict(img_path=path)) is not None for load in loaders)
    except Exception:  # every decoder has errors of its own
        return False
