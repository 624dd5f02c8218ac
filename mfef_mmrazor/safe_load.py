"""Reads checkpoints as data: a file that would run code when it is read is refused."""

import io
import re
from pathlib import Path
from typing import Any

import torch
from mmengine import fileio
from mmengine.runner.checkpoint import CheckpointLoader

WAY_OUT = 'where it comes from, save only its tensors: torch.save(model.state_dict(), PATH)'


def safe_load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint's tensors and plain values; nothing in the file is run.

    Besides these, only the log that stock mmengine stores is read, by torch 2.6 or newer (see
    ``compat.py``).

    Args:
        path: Of a file, or a URL that mmengine reads.

    Returns:
        The content, on the CPU: mmengine's dict with ``state_dict`` and ``meta``, or weights alone.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, not a checkpoint, or needs code to be read.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.NamedTemporaryFile(suffix='.pth') as file:
        ...     torch.save(dict(weight=torch.ones(2)), file.name)
        ...     safe_load(file.name)
        {'weight': tensor([1., 1.])}
    """
    remote = '://' in str(path)
    if not remote and not Path(path).expanduser().is_file():
        raise FileNotFoundError(f'checkpoint not found: {path}')
    try:
        if re.match(r'(\S+:)?(s3|petrel)://', str(path)):  # mmengine leaves the mode to torch
            content = io.BytesIO(fileio.get(str(path)))
            stored = torch.load(content, map_location='cpu', weights_only=True)
        elif remote:
            stored = CheckpointLoader.load_checkpoint(str(path), 'cpu', 'silent')
        else:
            stored = torch.load(Path(path).expanduser(), map_location='cpu', weights_only=True)
    except Exception as error:  # a file can be broken in any way
        raise ValueError(f'{path} {_reason(error)}') from None
    if not isinstance(stored, dict) or not isinstance(stored.get('meta', {}), dict):
        raise ValueError(
            f'{path} cannot be read as a checkpoint: found {type(stored).__name__}, expected '
            'a state_dict, or a dict with one'
        )
    return stored


def weights_of(stored: dict[str, Any]) -> dict[str, Any]:
    """The weights in a checkpoint, without the ``module.`` that a DDP wrapper puts before names."""
    weights = stored.get('state_dict', stored)
    return {str(key).removeprefix('module.'): value for key, value in weights.items()}


def _reason(error: Exception) -> str:
    """What is wrong with a file; torch's own advice to read it unsafely is left out."""
    text = str(error)
    name = re.search(r'GLOBAL (\S+)', text)
    if name:
        return f'is refused: reading it would call {name[1]}; {WAY_OUT}'
    if 'weights_only' in text and 'Unsupported operand' not in text:
        return f'is refused: it holds more than tensors and plain values; {WAY_OUT}'
    return 'cannot be read as a checkpoint: it is damaged, or another kind of file'
