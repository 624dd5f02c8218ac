"""Small trees of pictures, whole and broken, for the tests."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def picture(height: int, width: int, seed: int = 0, kind: str = 'JPEG') -> bytes:
    """A file of smooth noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


def write_tree(
    root: Path, counts: dict[str, int], height: int = 24, width: int = 40, suffix: str = '.jpg'
) -> None:
    """``{root}/<folder>/<number>.jpg``, so many in each folder."""
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            kind = 'PNG' if suffix == '.png' else 'JPEG'
            (root / folder / f'{i:03}{suffix}').write_bytes(picture(height, width, i, kind))


def truncate(path: Path) -> None:
    """Cut a file in half, as an interrupted copy leaves it."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
