"""Turns a user's mistake into one clear line; leaves everything else as it is."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from ..datasets import BrokenImageError

# where mistakes in a config come to light: here, where mmengine reads and builds it, and where
# mmpretrain reads the data that it names
OWN = (
    'mfef_mmrazor', 'mmengine.registry', 'mmengine.config', 'mmengine.fileio', 'mmengine.optim',
    'mmengine.utils.path', 'mmpretrain.datasets',
)  # fmt: skip
OF_FILES = ('os', 'pathlib', 'shutil', 'tempfile')


@contextmanager
def user_errors() -> Iterator[None]:
    """Exit with status 2 and the message alone, for the errors that a user's input causes.

    Those are the ``ValueError``, ``TypeError``, ``KeyError``, ``OSError``, ``RuntimeError``,
    ``ImportError`` and, with a message, ``AssertionError`` that this package, mmengine's config
    reading and building or mmpretrain's data sets raise themselves, or the file system does when
    they ask it. They also include a broken image that a data loader's worker met, and an argument
    that some class does not know.
    Any other exception keeps its traceback: it is a bug, or a problem of the environment.
    """
    try:
        yield
    except (
        ValueError, TypeError, KeyError, OSError, RuntimeError, ImportError, AssertionError
    ) as error:  # fmt: skip
        frames = traceback.walk_tb(error.__traceback__)
        names = [frame.f_globals.get('__name__', '') for frame, _ in frames]
        if isinstance(error, OSError):  # of a file: who asked for it?
            names = [name for name in names if name.partition('.')[0] not in OF_FILES]
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        if isinstance(error, BrokenImageError):
            # torch raises it again here, with the worker's whole traceback before the message
            message = str(error).strip().rpartition(f'{BrokenImageError.__name__}: ')[2]
        elif 'unexpected keyword argument' not in str(message) and not (
            names[-1].startswith(OWN) and str(message)
        ):
            raise
        print(f'error: {message}', file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(
            'interrupted: --resume goes on from the last checkpoint. `kill`, in place of Ctrl-C, '
            'saves one first',
            file=sys.stderr,
        )
        raise SystemExit(130) from None
