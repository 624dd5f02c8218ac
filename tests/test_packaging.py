"""What a user gets from `pip install`."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The wheel, built from a copy, so that nothing is left in the source tree."""
    folder = tmp_path_factory.mktemp('wheel')
    ignore = shutil.ignore_patterns('.*', 'build', 'data', 'work_dirs', '*.egg-info', '__pycache__')
    shutil.copytree(ROOT, folder / 'source', ignore=ignore)
    pip = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation']
    subprocess.run([*pip, '-w', folder, folder / 'source'], check=True)
    (path,) = folder.glob('*.whl')
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_wheel_has_every_config_and_tool_where_mim_looks(wheel):
    names = set(wheel.namelist())
    for folder in ('configs', 'tools'):
        for path in (ROOT / folder).rglob('*.py'):
            assert f'mfef_mmrazor/.mim/{path.relative_to(ROOT)}' in names
    assert not any(name.startswith('tests') for name in names)


def test_core_dependencies_replace_no_part_of_openmmlab(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith('/METADATA'))
    required = [
        line.removeprefix('Requires-Dist: ')
        for line in wheel.read(name).decode().splitlines()
        if line.startswith('Requires-Dist: ')
    ]
    core = [requirement for requirement in required if 'extra ==' not in requirement]
    assert 'scikit-learn' in core and not any('mm' in r or r.startswith('torch') for r in core)
    assert any(r.startswith('mmrazor==1.0.0') and 'openmmlab' in r for r in required)
