"""Reading picture files so that a broken one is noticed."""

from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmpretrain.registry import TRANSFORMS


class BrokenImageError(ValueError):
    """A picture file cannot be read; the message is one line and names it."""


@TRANSFORMS.register_module()
class LoadIntactImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile``, that names a truncated or unreadable image.

    Some versions of OpenCV return the part of a truncated JPEG that is there, the rest grey. Pillow
    never does. An image that was read before passes unchanged: mmpretrain's inferencers read images
    themselves, and only take a transform called ``LoadImageFromFile`` out of the pipeline.

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

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Add ``img``, ``img_shape`` and ``ori_shape`` to what has an ``img_path``."""
        if 'img' in results and 'img_path' not in results:
            return results
        path = results['img_path']
        try:
            return super().transform(results)
        except Exception as error:  # every decoder has errors of its own
            reason = ' '.join(str(error).split())
            raise BrokenImageError(
                f'{path} cannot be read as a picture ({reason}). Replace or delete the file, or '
                'leave out all such files: ImageFolder(skip_corrupt=True)'
            ) from None
