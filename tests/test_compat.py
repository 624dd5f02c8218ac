"""Each repair, in a process of its own where it changes what is global."""

import importlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import mmcv
import pytest
import torch
from mmengine.config import Config
from mmengine.utils import digit_version
from processes import in_processes, run_python

from mfef_mmrazor import compat, doctor
from mfef_mmrazor.models.builder import build

ROOT = Path(__file__).parents[1]
needs_torch_2_6 = pytest.mark.skipif(
    digit_version(torch.__version__) < digit_version('2.6'), reason='older torch reads every pickle'
)

needs_mmcv_of_mmrazor = pytest.mark.skipif(
    digit_version(mmcv.__version__) > digit_version(compat.NEWEST_MMCV),
    reason='mmrazor by itself refuses this mmcv: there the plugin has to come first',
)


def python(code):
    """Run code in a process of its own; returns its exit code, output and last line of error."""
    done = run_python(ROOT, '-c', code)
    return done.returncode, done.stdout.strip(), (done.stderr.strip().splitlines() or [''])[-1]


def import_all(names):
    for name in names:
        importlib.import_module(name)


@needs_mmcv_of_mmrazor
def test_mmrazor_imports_with_the_plugin_and_not_without():
    parts = 'mmrazor.models', 'mmrazor.engine', 'mmrazor.datasets'
    code, _, error = python('import ' + ', '.join(parts))
    assert code == 1 and 'torch>=1.13' in error
    in_processes(1, import_all, parts)  # of one that has imported the plugin


def test_what_was_only_needed_for_the_import_is_undone():
    import mmrazor
    from mmrazor.structures.quantization.backend_config import (
        common_operator_config_utils,
        mapping,
    )

    for module in (mmrazor, common_operator_config_utils, mapping):
        assert module.digit_version is digit_version


def test_one_process_joins_no_others_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv('RANK', '0')
    compat.init_cpu_processes('none')
    assert not torch.distributed.is_initialized()


def test_a_second_time_changes_nothing():
    import mmengine.config.config as config
    from mmrazor.models.algorithms.base import BaseAlgorithm

    def state():
        return (
            BaseAlgorithm.set_module_inplace_false.__code__,
            config.is_installed,
            config.FormatCode,
        )

    before = state()
    compat.apply()
    assert state() == before


@needs_mmcv_of_mmrazor
def test_half_imported_mmrazor_is_completed():
    count = 'from mmrazor.registry import MODELS; print(len(MODELS.module_dict))'
    half = 'try:\n    import mmrazor.models\nexcept ImportError:\n    import mfef_mmrazor\n'
    whole = python(f'import mfef_mmrazor\n{count}')
    assert python(half + count) == whole and int(whole[1]) > 100


@needs_mmcv_of_mmrazor
def test_half_filled_registries_are_one_clear_error():
    code, _, error = python(
        'from mmrazor.registry import MODELS\n'
        'MODELS.register_module(name="SingleTeacherDistill", module=type("Half", (), {}))\n'
        'import mfef_mmrazor'
    )
    assert code == 1
    assert error.startswith('ImportError: an import of mmrazor before this one failed half-way')
    assert 'Start a new Python process' in error


@needs_mmcv_of_mmrazor
def test_registry_alone_before_the_plugin_is_fine():
    assert python('import mmrazor.registry; import mfef_mmrazor')[0] == 0


def test_a_torch_whose_safe_mode_reads_no_checkpoint_is_refused():
    code, _, error = python('import torch; torch.__version__ = "1.13.1"; import mfef_mmrazor')
    assert code == 1 and 'torch 1.13.1 is too old, expected 2.1.0 or newer' in error


def test_mmcv_out_of_range_names_the_repair():
    code, _, error = python('import mmcv; mmcv.__version__ = "2.4.0"; import mfef_mmrazor')
    assert code == 1 and 'MMCV==2.4.0' in error
    assert 'Repair: pip' in error and '==2.1.0"' in error


def test_an_mmcv_that_mmrazor_alone_refuses_is_told_as_it_is_and_that_it_is_untested():
    code, out, warning = python(
        'import mmcv; mmcv.__version__ = "2.3.99"; import mfef_mmrazor, mmrazor\n'
        'print(mmcv.__version__, mmrazor.mmcv_version[:3], *mfef_mmrazor.compat.changes, sep="; ")'
    )
    assert code == 0
    assert out.splitlines()[-1].startswith('2.3.99; (2, 3, 99); mmrazor accepts mmcv 2.3.99; ')
    assert warning.startswith('newer than what mfef_mmrazor was tested with: ')
    assert warning.endswith(f'mmcv 2.3.99 (tested up to {compat.NEWEST_TESTED["mmcv"]})')


def test_missing_packages_are_named_with_two_ways_out():
    code = 'import sys; sys.path.append("."); from mfef_mmrazor import compat'
    done = subprocess.run(
        [sys.executable, '-I', '-S', '-c', code], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1,
        'ImportError: torch, mmengine, mmcv, mmpretrain, mmrazor are not installed. In a fresh '
        'environment, in a clone of mfef_mmrazor: pip install ".[openmmlab]"; else '
        'python -m mfef_mmrazor.doctor names the command for each',
    )


@pytest.mark.parametrize('part', ['mmrazor', 'mmcv'])
def test_one_missing_package_is_repaired_by_its_own_command(part):
    hide = f'import importlib.util as u; find = u.find_spec; part = {part!r}\n'
    hide += 'u.find_spec = lambda name, *args: None if name == part else find(name, *args)\n'
    code, _, error = python(hide + 'import mfef_mmrazor')
    assert (code, error) == (
        1,
        f'ImportError: {part} is not installed. Repair: pip install {doctor.WANTED[part]}',
    )


def test_mmrazor_switches_in_place_activations_off():
    network = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='ResNet', depth=18),
        head=dict(type='LinearClsHead', num_classes=2, in_channels=512),
    )
    model = build(
        dict(
            type='SingleTeacherDistill',
            architecture=build(network),
            teacher=build(network),
            distiller=dict(type='ConfigurableDistiller'),
        )
    )
    switches = [module.inplace for module in model.modules() if hasattr(module, 'inplace')]
    assert len(switches) == 2 * 9 and not any(switches)


@pytest.fixture
def log_checkpoint(tmp_path):
    """What mmengine writes: a log buffer, with numpy arrays and methods pickled by name."""
    from mmengine.logging import MessageHub

    hub = MessageHub('checkpoint')
    hub.update_scalar('train/loss', 0.5)
    path = tmp_path / 'log.pth'
    torch.save(dict(message_hub=hub.state_dict()), path)
    return path


@needs_torch_2_6
def test_checkpoints_are_read_in_safe_mode(log_checkpoint):
    read = f'print(torch.load({str(log_checkpoint)!r})["message_hub"]["log_scalars"])'
    assert python(f'import torch; {read}')[0] == 1
    for mode in ({}, dict(weights_only=True)):  # here the plugin is there
        buffer = torch.load(log_checkpoint, **mode)['message_hub']['log_scalars']
        assert buffer['train/loss'].mean() == 0.5


@needs_torch_2_6
def test_no_loader_of_mmengines_reads_what_is_refused(tmp_path):
    from mmengine.runner.checkpoint import load_checkpoint

    torch.save(dict(state_dict={}, meta=Attack(os.getenv, 'HOME')), tmp_path / 'bad.pth')
    with pytest.raises(pickle.UnpicklingError):
        load_checkpoint(torch.nn.Identity(), str(tmp_path / 'bad.pth'))


class Attack:
    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@needs_torch_2_6
@pytest.mark.parametrize(
    'attack', [Attack(getattr, torch.nn.Module, 'train'), Attack(os.getenv, 'HOME')]
)
def test_nothing_else_is_allowed_in_a_checkpoint(attack, tmp_path):
    torch.save(dict(state_dict={}, meta=attack), tmp_path / 'bad.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'bad.pth')


def test_getattr_in_a_checkpoint_reaches_only_the_log_buffer():
    from mmengine.logging import HistoryBuffer

    assert compat.history_buffer_method(HistoryBuffer, 'mean') is HistoryBuffer.mean
    for owner, name in ((HistoryBuffer, '__class__'), (os, 'system'), (HistoryBuffer(), 'mean')):
        with pytest.raises(pickle.UnpicklingError, match='refused'):
            compat.history_buffer_method(owner, name)


def test_configs_of_installed_packages_are_found(tmp_path):
    (tmp_path / 'config.py').write_text("_base_ = ['mmpretrain::_base_/default_runtime.py']")
    assert Config.fromfile(tmp_path / 'config.py').default_scope == 'mmpretrain'


def test_installed_packages_by_distribution_and_by_module():
    import mmpretrain
    import yaml

    assert compat.is_installed('mmpretrain') and compat.is_installed('PyYAML')
    assert not compat.is_installed('no-such-package') and not compat.is_installed('nosuchmodule')
    assert compat.get_installed_path('mmpretrain') == str(Path(mmpretrain.__file__).parent)
    assert compat.get_installed_path('PyYAML') == str(Path(yaml.__file__).parent)
    with pytest.raises(compat.metadata.PackageNotFoundError):
        compat.get_installed_path('no-such-package')
