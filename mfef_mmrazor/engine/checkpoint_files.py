"""Checkpoint files that a crash, a full disk or a bad disk cannot turn into a wrong run.

A checkpoint ends in a seal, the SHA-256 digest of all that comes before it. The seal is the comment
of the zip archive that ``torch.save`` writes, so every reader of checkpoints still reads the file.
"""

import hashlib
import logging
import os
import re
import struct
import zipfile
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log

POINTER = 'last_checkpoint'
SEAL = re.compile(rb'sha256:([0-9a-f]{64})')
SEAL_LENGTH = 71
ZIP_END = b'PK\x05\x06'  # of the record at the end of a zip archive, which has 22 bytes


class DamagedCheckpointError(ValueError):
    """A checkpoint is not what was once saved under its name."""


def seal(content: bytes) -> tuple[bytes | memoryview, bytes]:
    """A saved checkpoint with its digest at the end, in two parts (it may be large).

    Example:
        >>> import io
        >>> import torch
        >>> file = io.BytesIO()
        >>> torch.save({'weight': torch.zeros(2)}, file)
        >>> sealed = seal(file.getvalue())
        >>> torch.load(io.BytesIO(b''.join(sealed)))
        {'weight': tensor([0., 0.])}
    """
    if content[-22:-18] != ZIP_END:
        return content, b''  # not torch's zip format, or sealed already
    body, comment_length = memoryview(content)[:-2], struct.pack('<H', SEAL_LENGTH)
    digest = hashlib.sha256(body)
    digest.update(comment_length)
    return body, comment_length + b'sha256:' + digest.hexdigest().encode()


def check_intact(path: str | Path) -> None:
    """Raise if a local checkpoint is torn or altered.

    A file without a seal, as other programs write it, is checked by the archive's own checksums.

    Raises:
        DamagedCheckpointError: Names the file and what is wrong with it.
    """
    path = Path(path)
    content = path.read_bytes()
    found = SEAL.fullmatch(content[-SEAL_LENGTH:])
    if found:
        if hashlib.sha256(memoryview(content)[:-SEAL_LENGTH]).hexdigest().encode() != found[1]:
            raise DamagedCheckpointError(
                f'{path} is damaged: its digest is not that of its content'
            )
    elif not content:
        raise DamagedCheckpointError(f'{path} is damaged: it is empty')
    elif content.startswith(b'PK'):
        if content[-22:-18] != ZIP_END or content[-2:] != b'\0\0':
            raise DamagedCheckpointError(f'{path} is damaged: its end is missing or altered')
        try:
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
        except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError) as error:
            broken = str(error)
        if broken:
            raise DamagedCheckpointError(f'{path} is damaged: {broken}')


def write_atomically(path: str | Path, *parts: bytes | memoryview) -> None:
    """Write a file so that, whatever happens, there is either the old or the new one, and whole.

    Raises:
        OSError: It could not be written (a full disk, for one); what was there is still there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'{path.name}.partial')
    try:
        with open(partial, 'wb') as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(
            f'{path} could not be written ({error.strerror}); the files that were there before are '
            'intact. Make room and try again'
        ) from None


def _sync_folder(folder: Path) -> None:
    """Make a renaming last; some file systems cannot, and need not."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


class CheckpointBackend(LocalBackend):
    """mmengine's local files, of which those that are put are sealed and written atomically."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a checkpoint."""
        write_atomically(filepath, *seal(obj))


register_backend('checkpoint', CheckpointBackend, force=True)


def newest_checkpoint(work_dir: str | Path, out_dir: str | None = None) -> Path | str | None:
    """The checkpoint that a run goes on from, None where there is no run yet.

    It is the one that ``last_checkpoint`` names, or else the newest in the folder. A damaged one is
    named in a warning, and the next one is tried. A name that is not a local file (``s3://...``) is
    returned unchecked.

    Args:
        work_dir: Work dir of the run.
        out_dir: ``CheckpointHook``'s argument: a folder with a folder of checkpoints per work dir.

    Raises:
        DamagedCheckpointError: There are checkpoints, but none that can be read.
    """
    work_dir = Path(work_dir)
    pointer = work_dir / POINTER
    named = pointer.read_text(errors='replace').strip('\0 \n') if pointer.is_file() else ''
    if '://' in named:
        return named
    problems = []
    elsewhere = Path(out_dir, work_dir.absolute().name) if out_dir else work_dir
    for path in _candidates(work_dir, elsewhere, named):
        try:
            check_intact(path)
        except FileNotFoundError:
            problems.append(f'{path}, which {POINTER} names, is not there')
        except OSError as error:
            problems.append(f'{path} cannot be read ({error.strerror})')
        except DamagedCheckpointError as error:
            problems.append(str(error))
        else:
            for problem in problems:
                print_log(f'{problem}; going on from {path.name}', 'current', logging.WARNING)
            return path
    if problems:
        raise DamagedCheckpointError(
            f'no checkpoint of the run can be read: {"; ".join(problems)}. To start anew, choose '
            'another work dir or leave out --resume'
        )
    return None


def _candidates(work_dir: Path, elsewhere: Path, named: str) -> list[Path]:
    """Checkpoints by where to look first: the named one, then from the newest to the oldest."""
    first = []
    if named:
        # as it stands, or, if the work dir was moved, under the same name here
        here = work_dir / Path(named).name
        moved = Path(named).is_absolute() and here.is_file()
        first = [here if moved else work_dir / named]  # joining keeps an absolute path
    folders = dict.fromkeys([work_dir, elsewhere, *(path.parent for path in first)])
    found = [
        path
        for folder in folders
        for path in folder.glob('*_*.pth')
        if re.fullmatch(r'(epoch|iter)_\d+(_iter_\d+)?\.pth', path.name)
    ]
    if len({path.name.split('_')[0] for path in found}) > 1:
        found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    else:
        found.sort(key=lambda path: [int(n) for n in re.findall(r'\d+', path.name)], reverse=True)
    return list(dict.fromkeys([*first, *found]))
