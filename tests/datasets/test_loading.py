from pathlib import Path

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from pictures import picture
from PIL import Image

from mfef_mmrazor.datasets import BrokenImageError, LoadIntactImage

KINDS = ['JPEG', 'PNG', 'BMP', 'PPM']
WHOLE = {kind: picture(30, 50, kind=kind) for kind in KINDS}
BROKEN = {
    **{f'half a {kind}': content[: len(content) // 2] for kind, content in WHOLE.items()},
    'a JPEG without its end': WHOLE['JPEG'][:-20],
    'empty': b'',
    'only zeros': bytes(500),
    'a text': b'<html>404 Not Found</html>',
}


@pytest.mark.parametrize('kind', KINDS)
def test_pixels_are_those_of_opencv(kind, tmp_path):
    path = tmp_path / f'picture.{kind.lower()}'
    path.write_bytes(WHOLE[kind])
    results = LoadIntactImage()(dict(img_path=str(path), gt_label=3))
    assert results['img_shape'] == results['ori_shape'] == (30, 50) and results['gt_label'] == 3
    assert np.array_equal(results['img'], LoadImageFromFile()(dict(img_path=str(path)))['img'])


def test_an_image_that_was_read_before_passes_unchanged():
    """mmpretrain's inferencers hand over images, not paths."""
    image = np.zeros((4, 5, 3), np.uint8)
    results = LoadIntactImage()(dict(img=image, img_shape=(4, 5)))
    assert results['img'] is image and results['img_shape'] == (4, 5)


@pytest.mark.parametrize('kind', BROKEN)
def test_a_broken_file_is_named_in_one_line(kind, tmp_path):
    path = tmp_path / 'picture.jpg'
    path.write_bytes(BROKEN[kind])
    with pytest.raises(BrokenImageError) as error:
        LoadIntactImage()(dict(img_path=str(path)))
    message = str(error.value)
    assert message.startswith(f'{path} cannot be read as a picture (') and '\n' not in message
    assert 'Replace or delete the file' in message and 'skip_corrupt=True' in message


def test_opencv_if_asked_for_gets_the_same_message(tmp_path):
    path = tmp_path / 'picture.jpg'
    path.write_bytes(b'')
    with pytest.raises(BrokenImageError, match='picture.jpg cannot be read as a picture'):
        LoadIntactImage(imdecode_backend='cv2')(dict(img_path=str(path)))


GREY, COLOUR = (12, 12), (12, 12, 3)


@pytest.mark.parametrize(
    ('suffix', 'shape'),
    [('png', GREY), ('png', COLOUR), ('tif', GREY), ('tif', COLOUR), ('pgm', GREY)],
)
def test_more_than_8_bits_are_scaled_as_opencv_does(suffix, shape, tmp_path):
    path = str(tmp_path / f'picture.{suffix}')
    deep = np.random.default_rng(0).integers(0, 2**16, shape, dtype=np.uint16)
    cv2.imwrite(path, deep)
    found, expected = (
        load(dict(img_path=path))['img'].astype(int)
        for load in (LoadIntactImage(), LoadImageFromFile())
    )
    # Pillow itself scales TIFF files of three channels, and rounds otherwise
    assert np.abs(found - expected).max() <= (suffix == 'tif' and len(shape) == 3)
    assert np.abs(found[..., 0] - deep.reshape(12, 12, -1)[..., 0] / 256).max() <= 1
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])
    with pytest.raises(BrokenImageError, match='cannot be read as a picture'):
        LoadIntactImage()(dict(img_path=path))


@pytest.mark.parametrize('dtype', [np.int32, np.float32])
def test_pictures_of_32_bits_are_refused_or_unchanged(dtype, tmp_path):
    path = str(tmp_path / 'picture.tif')
    values = 1000 * np.arange(144, dtype=dtype).reshape(12, 12)
    Image.fromarray(values).save(path)
    with pytest.raises(BrokenImageError, match='32 bits a channel: convert it to 8 or 16'):
        LoadIntactImage()(dict(img_path=path))
    unchanged = LoadIntactImage(color_type='unchanged')
    assert np.array_equal(unchanged(dict(img_path=path))['img'], values)
