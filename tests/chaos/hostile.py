"""How many hostile checkpoints run code, through everything that reads one.

    python tests/chaos/hostile.py

The files are those of tests/apis/test_hostile_files.py. A file is refused if the reader stops with
exit code 2; a hostile config in a checkpoint is of no harm to readers that do not read it.
"""

import contextlib
import importlib
import io
import os
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import torch

from mfef_mmrazor.apis import train, user_errors

sys.path.insert(0, str(Path(__file__).parents[1] / 'apis'))
import test_hostile_files as hostile


def outcome(kind, reader, checkpoint: Path, place: Path) -> str:
    """What came of a file in an empty folder."""
    os.chdir(place)
    module = place / 'modules/canary_module'
    module.mkdir(parents=True)
    for name in ('__init__.py', 'registry.py'):
        (module / name).write_text(hostile.TOUCH)
    for name in [name for name in sys.modules if name.startswith('canary_module')]:
        del sys.modules[name]
    importlib.invalidate_caches()
    kind(torch.load(checkpoint, weights_only=True), place / 'hostile.pth')
    sys.path.insert(0, str(module.parent))
    try:
        with user_errors():
            reader(place / 'hostile.pth', place)
        came = 'read'
    except SystemExit as stopped:
        came = 'refused' if stopped.code == 2 else 'failed'
    except Exception:
        came = 'failed'
    finally:
        sys.path.remove(str(module.parent))
    return 'run' if (place / 'canary').exists() else came


def main() -> None:
    warnings.simplefilter('ignore')
    counts: Counter = Counter()
    folder = Path(tempfile.mkdtemp())
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        train(hostile.digits(folder))
        for kind in (*hostile.PICKLES.values(), *hostile.CFGS.values()):
            for reader in hostile.READERS.values():
                place = Path(tempfile.mkdtemp(dir=folder))
                counts[outcome(kind, reader, folder / 'run/epoch_1.pth', place)] += 1
    print(
        f'{len(hostile.PICKLES) + len(hostile.CFGS)} kinds of files through '
        f'{", ".join(hostile.READERS)}: {counts["run"]} of {counts.total()} run, '
        f'{counts["refused"]} refused, {counts["read"]} read without harm, '
        f'{counts["failed"]} with another error'
    )
    sys.exit(counts['run'] + counts['failed'] > 0)


if __name__ == '__main__':
    main()
