"""Reading picture files so that a broken one is noticed."""

from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmpretrain.registry import TRANSFORMS
from PIL import Image

ALWAYS_8_BITS = ('.jpg', '.jpeg')


class BrokenImageError(ValueError):
    """A picture file cannot be read; the message is one line and names it."""


@TRANSFORMS.register_module()
class LoadIntactImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile``, that names a truncated or unreadable image.

    Some versions of OpenCV return the part of a truncated JPEG that is there, the rest grey. Pillow
    never does. Images of 16 bits are scaled to 8 by OpenCV, as mmcv does: Pillow would make all
    above 255 white. An image that was read before passes
    unchanged: mmpretrain's inferencers read images themselves, and only take a transform called
    ``LoadImageFromFile`` out of the pipeline.

    Args:
        imdecode_backend: mmcv's name of the decoder; ``'cv2'`` is faster.
        **kwargs: As in :class:`mmcv.transforms.LoadImageFromFile`.

    Raises:
        BrokenImageError: The file is not there, empty, truncated or no picture.

    Example:
        >>> from mfef_mmrazor.datasets import LoadIntactImage
        >>> LoadIntactImage()(dict(img_path='nowhere.jpg'))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        mfef_mmrazor.datasets.loading.BrokenImageError: nowhere.jpg cannot be read as a picture ...
    """

    def __init__(self, imdecode_backend: str = 'pillow', **kwargs: Any) -> None:
        super().__init__(imdecode_backend=imdecode_backend, **kwargs)
        self.deep = LoadImageFromFile(imdecode_backend='cv2', **kwargs)

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Add ``img``, ``img_shape`` and ``ori_shape`` to what has an ``img_path``."""
        if 'img' in results and 'img_path' not in results:
            return results
        path = results['img_path']
        try:
            if self.is_deep(path):
                return self.deep.transform(results)
            return super().transform(results)
        except Exception as error:  # every decoder has errors of its own
            reason = ' '.join(str(error).split())
            raise BrokenImageError(
                f'{path} cannot be read as a picture ({reason}). Replace or delete the file. All '
                'such files of a data set are left out by ImageFolder(skip_corrupt=True)'
            ) from None

    def is_deep(self, path: str) -> bool:
        """Whether a file is a whole picture of 16 bits a channel."""
        if path.lower().endswith(ALWAYS_8_BITS):
            return False
        try:
            with (
                fileio.get_local_path(path, self.backend_args) as local,
                Image.open(local) as image,
            ):
                # older Pillow has one mode, I, for 16 and 32 bits; a PNG has no 32
                if image.mode[:4] != 'I;16' and (image.mode, image.format) != ('I', 'PNG'):
                    return False
                image.load()
        except Exception:  # what is wrong with it is said when it is read
            return False
        return True
