"""Installs each supported stack in an environment of its own, as the README says, and tests it.

    make matrix                   the rows that have not passed yet, then a table of all
    make matrix ROWS="onedl"      these rows, again

A row's environment is deleted when its tests have ended; its log and outcome stay in ``.matrix``.
"""

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / '.matrix'
TESTS = (
    'tests/test_compat.py tests/test_fast_mmengine.py tests/test_run.py tests/models '
    'tests/apis/test_train.py'
)
NEWEST = 'torch torchvision'

# name: Python, then what pip installs, step by step
ROWS = {
    'torch-2.1': (
        '3.10',
        'torch==2.1.2 torchvision==0.16.2 numpy<2 opencv-python<4.12',
        '.[openmmlab] mmcv-lite==2.1.0 numpy<2 opencv-python<4.12',
    ),
    'default': ('3.11', 'torch==2.14.1 torchvision==0.29.1', '.[openmmlab]'),
    'mmcv-2.2': (
        '3.12',
        NEWEST,
        'mmengine mmpretrain mmcv-lite==2.2.0 .',
        '--no-deps mmrazor==1.0.0',
    ),
    'onedl': (
        '3.12',
        NEWEST,
        'onedl-mmengine onedl-mmpretrain opencv-python .',
        '--no-deps mmcv-lite==2.2.0 mmrazor==1.0.0',
    ),
    'newest': (
        '3.13',
        NEWEST,
        'mmengine mmpretrain mmcv-lite .',
        '--no-deps mmrazor==1.0.0',
    ),
}
SHOWN = (
    'torch', 'torchvision', 'numpy', 'mmengine', 'onedl-mmengine', 'mmcv-lite', 'mmpretrain',
    'onedl-mmpretrain',
)  # fmt: skip
VERSIONS = f"""
import json
from importlib import metadata
found = {{d.metadata['Name']: d.version for d in metadata.distributions()}}
print(json.dumps({{name: found[name] for name in {SHOWN!r} if name in found}}))
"""


def interpreter(version: str) -> str:
    """Path of that Python: pyenv's, or the one on the path."""
    pyenv = Path(os.environ.get('PYENV_ROOT', '~/.pyenv')).expanduser()
    found = sorted(pyenv.glob(f'versions/{version}.*/bin/python'))
    path = str(found[-1]) if found else shutil.which(f'python{version}')
    if path is None:
        raise FileNotFoundError(f'Python {version} is not installed')
    return path


def run_row(name: str, tests: str, limit: int) -> dict:
    """Install and test one row; what came of it, in words."""
    version, *installs = ROWS[name]
    environment = FOLDER / name
    python = environment / 'bin/python'
    shutil.rmtree(environment, ignore_errors=True)
    result = dict(
        python=version, installs=installs, date=str(datetime.date.today()), versions={}, tests=tests
    )
    started = time.monotonic()
    with open(FOLDER / f'{name}.log', 'w') as log:

        def call(*command: object) -> int:
            return subprocess.run(
                [str(part) for part in command],
                cwd=ROOT, stdout=log, stderr=log, timeout=limit,
                env={
                    **os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': '',
                    'PYTHONWARNINGS': 'ignore::SyntaxWarning',  # of packages' first import
                },
            ).returncode  # fmt: skip

        try:
            call(interpreter(version), '-m', 'venv', environment)
            for packages in (*installs, 'pytest tensorboard'):
                if call(python, '-m', 'pip', 'install', '-q', '--no-compile', *packages.split()):
                    return dict(result, outcome=f'pip install {packages} failed')
            versions = subprocess.check_output([python, '-c', VERSIONS], text=True)
            result['versions'] = json.loads(versions)
            # the checked-out package is tested, not a copy that may be older
            call(python, '-m', 'pip', 'install', '-q', '--no-deps', '-e', '.')
            code = call(
                python, '-m', 'pytest', '-v', '-p', 'no:cacheprovider', '-m', 'not slow',
                *tests.split(),
            )  # fmt: skip
        except FileNotFoundError as error:
            return dict(result, outcome=str(error))
        except subprocess.TimeoutExpired:
            return dict(result, outcome=f'stopped after {limit} s')
        finally:
            shutil.rmtree(environment, ignore_errors=True)
    last = (FOLDER / f'{name}.log').read_text().strip().splitlines()[-1].strip('= ')
    minutes = round((time.monotonic() - started) / 60)
    return dict(result, passed=code == 0, outcome=last, minutes=minutes)


def table() -> str:
    """The outcomes of all rows so far, as the README has them."""
    lines = ['| row | Python | packages | tests | date |', '|---|---|---|---|---|']
    for name in ROWS:
        path = FOLDER / f'{name}.json'
        if path.is_file():
            row = json.loads(path.read_text())
            versions = ', '.join(f'{k} {v}' for k, v in row['versions'].items())
            counts = re.findall(r'\d+ (?:failed|passed|skipped|errors?)\b', row['outcome'])
            outcome = ', '.join(counts) or row['outcome']
            lines.append(f'| {name} | {row["python"]} | {versions} | {outcome} | {row["date"]} |')
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('rows', nargs='*', help=f'of {", ".join(ROWS)}; run even if they passed')
    parser.add_argument('--tests', default=TESTS, help=f'what pytest runs: {TESTS}')
    parser.add_argument('--limit', type=int, default=3600, help='seconds for each command')
    args = parser.parse_args()
    unknown = set(args.rows) - set(ROWS)
    if unknown:
        parser.error(f'no row {", ".join(unknown)}; there are {", ".join(ROWS)}')
    FOLDER.mkdir(exist_ok=True)
    passed = []
    for name in args.rows or ROWS:
        path = FOLDER / f'{name}.json'
        if args.rows or not (path.is_file() and json.loads(path.read_text()).get('passed')):
            print(f'{name} ...', flush=True)
            path.write_text(json.dumps(run_row(name, args.tests, args.limit), indent=1))
        passed.append(json.loads(path.read_text()).get('passed', False))
    print(table())
    sys.exit(not all(passed))


if __name__ == '__main__':
    main()
