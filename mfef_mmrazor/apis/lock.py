"""One run at a time in a work dir."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# where launchers say which of the processes this is; the first one holds the lock for all of them
RANKS = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')


@contextmanager
def locked(work_dir: str | Path, launcher: str = 'none') -> Iterator[None]:
    """Keep other runs out of a work dir.

    The lock is the operating system's: it ends with the process, however that ends, and processes
    that are forked from it do not hold it. The file ``.lock`` stays; it says who was there last.

    Args:
        work_dir: Made if it is not there.
        launcher: As in :func:`load_config`; with one, only the first process locks.

    Raises:
        RuntimeError: Another process is at work there.
    """
    rank = os.environ.get(RANKS.get(launcher, ''), '0')
    if fcntl is None or rank != '0':
        yield
        return
    Path(work_dir).mkdir(parents=True, exist_ok=True)
    with open(Path(work_dir, '.lock'), 'a+') as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise RuntimeError(
                f'{work_dir} is in use by {file.read() or "another process"}: wait for it to end, '
                'or choose another work dir'
            ) from None
        except OSError:  # a file system without locks
            yield
            return
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}')
        file.flush()
        yield
