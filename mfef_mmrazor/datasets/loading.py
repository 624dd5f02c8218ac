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
    above 255 white. Those of 32 bits say no range to scale from, and are refused, except with
    ``color_type='unchanged'``. An image that was read before passes unchanged: mmpretrain's
    inferencers read images themselves, and only take a transform called ``LoadImageFromFile`` out
    of the pipeline.

    Args:
        imdecode_backend: mmcv's name of the decoder; ``'cv2'`` is faster.
        **kwargs: As in :class:`mmcv.transforms.LoadImageFromFile`.

    Raises:
        BrokenImageError: The file is not there, empty, truncated, no picture, or one of 32 bits.

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
            bits = self.bits_of(path)
            if bits == 32 and self.color_type != 'unchanged':
                raise ValueError('32 bits a channel: convert it to 8 or 16')
            if bits == 16:
                return self.deep.transform(results)
            return super().transform(results)
        except Exception as error:  # every decoder has errors of its own
            reason = ' '.join(str(error).split())
            raise BrokenImageError(
                f'{path} cannot be read as a picture ({reason}). Replace or delete the file, or '
                'leave out all such files: ImageFolder(skip_corrupt=True)'
            ) from None

    def bits_of(self, path: str) -> int:
        """How many bits a channel of a picture has, 8, 16 or 32; 8 where it cannot be told."""
        if path.lower().endswith(ALWAYS_8_BITS):
            return 8
        try:
            with (
                fileio.get_local_path(path, self.backend_args) as local,
                Image.open(local) as image,
            ):
                # mode I is 32 bits, but 16 of a PGM, and of a PNG in older Pillow
                deep = image.mode == 'I' and image.format in ('PNG', 'PPM')
                if deep or image.mode.startswith('I;16'):
                    image.load()
                    return 16
                return 32 if image.mode in ('I', 'F') else 8
        except Exception:  # what is wrong with it is said when it is read
            return 8
