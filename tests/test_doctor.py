"""The doctor in broken environments: real folders on PYTHONPATH, and no site-packages."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mfef_mmrazor.doctor import again, repair_of

ROOT = Path(__file__).parents[1]
TORCH = """
__version__ = '2.14.1'
class version: cuda = None
class cuda: device_count = staticmethod(lambda: 0)
class cpu: pass
rand = lambda *shape: None
"""
HEALTHY = {
    'numpy': ('2.4.6', 'class zeros:\n    def __init__(self, n): pass\n    numpy = lambda self: 0'),
    'torch': ('2.14.1', TORCH + 'from_numpy = lambda x: x'),
    'torchvision': ('0.29.1', 'class ops:\n    nms = staticmethod(lambda *args: None)'),
    'mmengine': ('0.10.7', ''),
    'mmcv': ('2.1.0', ''),
    'mmpretrain': ('1.2.0', ''),
    'mmrazor': ('1.0.0', ''),
}


def install(folder, part, version, code, owner=None, requires=(), lost=()):
    """What pip would leave in the folder, without the files that are ``lost``."""
    (folder / part).mkdir(exist_ok=True)
    (folder / part / '__init__.py').write_text(f'__version__ = {version!r}\n{code}')
    owner = owner or part
    info = folder / f'{owner}-{version}.dist-info'
    info.mkdir()
    needs = ''.join(f'Requires-Dist: {requirement}\n' for requirement in requires)
    info.joinpath('METADATA').write_text(
        f'Metadata-Version: 2.1\nName: {owner}\nVersion: {version}\n{needs}'
    )
    files = [f'{part}/__init__.py', *lost]
    info.joinpath('RECORD').write_text(''.join(f'{file},,\n' for file in files))


def doctor(*args, path=(), options=()):
    return subprocess.run(
        [sys.executable, *options, '-m', 'mfef_mmrazor.doctor', *args],
        capture_output=True, text=True, timeout=550,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, [*path, ROOT]))),
    )  # fmt: skip


def examined(path):
    """Exit code and troubles, by part, where nothing but the folder is there."""
    done = doctor('--json', path=[path], options=['-S'])
    report = json.loads(done.stdout)
    assert not report['training_step']['ok'] and report['training_step']['error']
    return done.returncode, {trouble.pop('part'): trouble for trouble in report['troubles']}


def environment(folder, **changed):
    for part, (version, code) in HEALTHY.items():
        if part not in changed:
            install(folder, part, version, code)
        elif changed[part] is not None:
            install(folder, part, **{**dict(version=version, code=code), **changed[part]})
    return folder


def test_no_torch(tmp_path):
    code, troubles = examined(environment(tmp_path, torch=None))
    assert code == 1
    torch = dict(trouble='not installed', repair='pip install torch torchvision')
    assert troubles == dict(torch=torch)


def test_nothing_at_all(tmp_path):
    done = doctor(path=[tmp_path], options=['-S'])
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith('TROUBLE')] == [
        f'TROUBLE {part}: not installed' for part in HEALTHY
    ]
    assert done.stdout.count('repair: pip install ') == len(HEALTHY)
    assert done.stdout.splitlines()[-1] == 'training step: FAILED: not tried: see the troubles'


def test_half_an_mmrazor(tmp_path):
    lost = ['mmrazor/models/__init__.py', 'mmrazor/registry/__init__.py']
    code, troubles = examined(environment(tmp_path, mmrazor=dict(lost=lost)))
    assert code == 1 and troubles['mmrazor'] == dict(
        trouble='2 files are gone, such as mmrazor/models/__init__.py',
        repair='pip install --force-reinstall --no-deps "mmrazor==1.0.0"',
    )


def test_a_folder_without_its_init(tmp_path):
    environment(tmp_path, mmrazor=None)
    (tmp_path / 'mmrazor' / 'models').mkdir(parents=True)
    _, troubles = examined(tmp_path)
    assert f'{tmp_path}/mmrazor is a folder without' in troubles['mmrazor']['trouble']


def test_two_packages_own_mmcv(tmp_path):
    environment(tmp_path)
    install(tmp_path, 'mmcv', '2.1.0', '', owner='mmcv-lite')
    code, troubles = examined(tmp_path)
    assert code == 1 and troubles['mmcv'] == dict(
        trouble=f'mmcv and mmcv-lite own the same folder {tmp_path}/mmcv',
        repair='pip uninstall -y mmcv mmcv-lite && pip install "mmcv-lite==2.1.0"',
    )


def test_a_package_that_hides_another_does_not_own_its_folder(tmp_path):
    (tmp_path / 'hidden').mkdir()
    environment(tmp_path)
    install(tmp_path / 'hidden', 'mmcv', '2.0.0', '', owner='mmcv-lite')
    done = doctor('--json', path=[tmp_path, tmp_path / 'hidden'], options=['-S'])
    assert 'mmcv' not in [trouble['part'] for trouble in json.loads(done.stdout)['troubles']]


def test_a_numpy_too_new_for_torch(tmp_path):
    refuses = TORCH + 'def from_numpy(x): raise RuntimeError("Numpy is not available")'
    code, troubles = examined(environment(tmp_path, torch=dict(code=refuses)))
    assert code == 1 and troubles['torch'] == dict(
        trouble='RuntimeError: Numpy is not available', repair='pip install "numpy<2"'
    )


@pytest.mark.parametrize(
    'code, trouble',
    [
        ('raise RuntimeError("operator torchvision::nms does not exist")', 'nms does not exist'),
        (HEALTHY['torchvision'][1], 'made for torch 2.13.0, but torch is 2.14.1'),
    ],
    ids=['breaks', 'imports'],
)
def test_a_torchvision_of_another_torch(tmp_path, code, trouble):
    other = dict(code=code, requires=['torch (==2.13.0)'])
    found, troubles = examined(environment(tmp_path, torchvision=other))
    assert found == 1 and trouble in troubles['torchvision']['trouble']
    repair = 'pip install --upgrade "torch==2.14.1" torchvision'
    assert troubles['torchvision']['repair'] == repair


def test_an_import_that_kills_the_process_is_survived(tmp_path):
    crash = dict(code='import os, signal; os.kill(os.getpid(), signal.SIGSEGV)')
    _, troubles = examined(environment(tmp_path, mmengine=crash))
    assert troubles['mmengine']['trouble'] == 'exit code -11'


def test_a_failure_of_unknown_cause_gets_no_repair(tmp_path):
    """These parts have nothing in them, so the step cannot work."""
    environment(tmp_path)
    code, troubles = examined(tmp_path)
    assert code == 1 and list(troubles) == ['training step']
    assert list(troubles['training step']) == ['trouble']
    shown = doctor(path=[tmp_path], options=['-S']).stdout
    assert 'repair:' not in shown and 'no repair is known; the whole error: python ' in shown


@pytest.mark.parametrize('version', ["__version__ = '1.0.0'\n", None])
def test_an_mmrazor_that_is_a_folder_of_sources(tmp_path, version):
    environment(tmp_path, mmrazor=None)
    (tmp_path / 'mmrazor').mkdir()
    (tmp_path / 'mmrazor/__init__.py').touch()
    if version is not None:
        (tmp_path / 'mmrazor/version.py').write_text(version)
    done = doctor('--json', path=[tmp_path], options=['-S'])
    assert done.stderr == ''
    found = json.loads(done.stdout)['parts']['mmrazor']
    assert found['version'] == (version and '1.0.0')
    assert found['path'] == f'{tmp_path}/mmrazor/__init__.py'


@pytest.mark.slow
def test_a_healthy_environment(tmp_path):
    done = doctor('--json')
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report['training_step']['ok'] and report['troubles'] == []
    assert set(report['parts']) == set(HEALTHY)
    assert report['parts']['mmrazor']['version'] == '1.0.0' and report['compat']
    roots = {row['config']: row['folder'] for row in report['data']}
    assert roots['cifar10.py'] == 'data/cifar10' and roots['imagenet.py'] == 'data/imagenet'


def test_what_is_there_is_installed_once_more_and_not_another_package_of_its_kind():
    full = SimpleNamespace(metadata=dict(Name='mmcv'), version='2.1.0')
    assert again('mmcv', [full]).endswith('--no-deps "mmcv==2.1.0"')
    assert again('mmrazor', []).endswith('--no-deps mmrazor==1.0.0')


@pytest.mark.parametrize(
    ('part', 'error', 'repair'),
    [
        ('mmcv', "No module named 'cv2'", 'pip install opencv-python'),
        ('mmengine', "No module named 'yaml'", 'pip install pyyaml'),
        ('mmpretrain', "No module named 'mmcv.ops'", 'pip install "mmcv-lite'),
        ('mmcv', 'libGL.so.1: cannot open shared object file', 'opencv-python-headless'),
        (
            'torch',
            'libcudart.so.12: cannot open',
            'pip install --force-reinstall torch torchvision',
        ),
    ],
)
def test_the_repair_of_an_import_that_fails(part, error, repair):
    found = repair_of(part, f'ImportError: {error}', {})
    assert repair in found and '--no-deps torch' not in found
