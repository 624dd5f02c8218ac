"""What a user gets from `pip install`."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

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


def test_the_model_index_lists_every_config_once_under_its_card(wheel):
    def content(path):
        return yaml.safe_load(wheel.read(f'mfef_mmrazor/.mim/{path}'))

    metafiles = [content(path) for path in content('model-index.yml')['Import']]
    models = [model for metafile in metafiles for model in metafile['Models']]
    leaves = (p.relative_to(ROOT) for p in (ROOT / 'configs').rglob('*.py'))
    leaves = sorted(str(p) for p in leaves if '_base_' not in p.parts)
    assert sorted(model['Config'] for model in models) == leaves
    for metafile in metafiles:
        (collection,) = metafile['Collections']
        assert f'mfef_mmrazor/.mim/{collection["README"]}' in wheel.namelist()
        assert {model['In Collection'] for model in metafile['Models']} == {collection['Name']}
    found = {model['Name']: model['Metadata'] for model in models}
    assert found['mfef_resnet18-x2_8xb32-100e_in1k'] == {
        'Training Data': 'ImageNet-1k',
        'Epochs': 100,
        'Batch Size': 256,
    }
    (mfef,) = (x for m in metafiles for x in m['Collections'] if x['Name'] == 'MFEF')
    assert mfef['Paper']['URL'] == 'https://arxiv.org/abs/2206.08224'


@pytest.mark.slow
def test_mim_trains_from_the_wheel(wheel, tmp_path):
    pytest.importorskip('mim')
    wheel.extractall(tmp_path / 'installed')
    done = subprocess.run(
        [sys.executable, '-m', 'mim', 'train', 'mfef_mmrazor',
         'dml_resnet8-x2_1xb32-20e_digits.py', '--gpus', '0', '--work-dir', 'run', '--cfg-options',
         'train_dataloader.dataset.train_per_class=4', 'val_dataloader.dataset.indices=50',
         'train_cfg.max_epochs=1'],
        cwd=tmp_path, capture_output=True, text=True,
        env=dict(os.environ, PYTHONPATH=str(tmp_path / 'installed')),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / 'run/results.json').read_text())['history']) == 1


def test_the_classifiers_are_the_pythons_of_the_readmes_table(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith('/METADATA'))
    metadata = wheel.read(name).decode()
    found = re.findall(r'^Classifier: Programming Language :: Python :: (3\.\d+)$', metadata, re.M)
    rows = re.findall(r'^\| [\w.-]+ \| (3\.\d+) \|', (ROOT / 'README.md').read_text(), re.M)
    assert found == sorted(set(rows)) and 'Operating System :: POSIX :: Linux' in metadata


def test_core_dependencies_replace_no_part_of_openmmlab(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith('/METADATA'))
    required = [
        line.removeprefix('Requires-Dist: ')
        for line in wheel.read(name).decode().splitlines()
        if line.startswith('Requires-Dist: ')
    ]
    core = [requirement for requirement in required if 'extra ==' not in requirement]
    assert 'scikit-learn' in core and not any('mm' in r for r in core)
    assert not {'torch', 'torchvision'} & set(core)
    assert any(r.startswith('mmrazor==1.0.0') and 'openmmlab' in r for r in required)
