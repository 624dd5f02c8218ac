"""mmrazor's own scripts under the launcher, in one process and in two."""

import json
import sys
from pathlib import Path

import mmrazor
import pytest
import torch
from processes import in_processes, run_python
from torch import distributed

from mfef_mmrazor import run
from mfef_mmrazor.apis import load_config, train

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / 'configs/mfef/mfef_resnet8-x2_1xb32-20e_digits.py'
SHARED = ROOT / 'configs/ffl/ffl_resnet8-x2-shared2_1xb32-20e_digits.py'
MMRAZOR = Path(mmrazor.__file__).parent / '.mim'
SMALL = {
    'train_dataloader.dataset.train_per_class': 4,
    'val_dataloader.dataset.indices': 100,
    'test_dataloader.dataset.indices': 100,
    'train_cfg.max_epochs': 2,
}
OPTIONS = ['--cfg-options', *(f'{key}={value}' for key, value in SMALL.items())]


def start(folder, *args, processes=1):
    """Run the launcher, under torchrun for several processes, from another folder."""
    torchrun = '-m', 'torch.distributed.run', f'--nproc-per-node={processes}', '--standalone'
    launcher = '-m', 'mfef_mmrazor.run', *args
    return run_python(folder, *(torchrun if processes > 1 else ()), *launcher)


def test_mmrazors_scripts_train_and_score_our_configs(tmp_path):
    done = start(tmp_path, MMRAZOR / 'tools/train.py', CONFIG, '--local-rank=0',
                 '--work-dir', 'run', *OPTIONS)  # fmt: skip
    assert done.returncode == 0, done.stderr
    last = json.loads((tmp_path / 'run/results.json').read_text())['history'][-1]

    done = start(tmp_path, MMRAZOR / 'tools/test.py', CONFIG, 'run/epoch_2.pth',
                 '--work-dir', 'test', *OPTIONS)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f'fused.accuracy/top1: {last["fused"]:.4f}' in done.stdout + done.stderr


def test_without_the_launcher_they_do_not_start(tmp_path):
    done = run_python(tmp_path, MMRAZOR / 'tools/train.py', CONFIG)
    assert done.returncode == 1
    assert 'torch>=1.13' in done.stderr or 'MMCV==' in done.stderr  # the first that it refuses


def train_in_one_of_two(config):
    cfg = load_config(config, 'run', SMALL, launcher='pytorch')
    cfg.custom_hooks.append(dict(type='mmrazor.StopDistillHook', stop_epoch=1))
    runner = train(cfg)
    model = runner.model
    assert type(model).__name__ == 'MMDistributedDataParallel' and not model.find_unused_parameters
    assert model.module.distillation_stopped and distributed.get_world_size() == 2
    assert runner.iter == 2  # 40 images, 20 a process, in one batch an epoch
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    both = [torch.empty_like(weights) for _ in range(2)]
    distributed.all_gather(both, weights)
    assert torch.equal(*both)


@pytest.mark.parametrize(
    'config', [CONFIG, pytest.param(SHARED, marks=pytest.mark.slow)], ids=['mfef', 'shared2']
)
def test_two_processes_train_one_model(tmp_path, monkeypatch, config):
    """Also after StopDistillHook, with every parameter used, as DDP wants it."""
    monkeypatch.chdir(tmp_path)
    in_processes(2, train_in_one_of_two, config)
    assert (tmp_path / 'run/results.json').is_file()


@pytest.mark.slow  # as ours, above
def test_mmrazors_train_script_in_two_processes(tmp_path):
    done = start(tmp_path, MMRAZOR / 'tools/train.py', CONFIG, '--launcher', 'pytorch',
                 '--work-dir', 'run', *OPTIONS, processes=2)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'Epoch(train) [2][1/1]' in done.stdout + done.stderr


@pytest.fixture(scope='module')
def kd_config(tmp_path_factory):
    """One of mmrazor's own distillation configs, its `mmcls` renamed, on a few digits."""
    folder = tmp_path_factory.mktemp('kd')
    shipped = MMRAZOR / 'configs/distill/mmcls/kd/kd_logits_resnet34_resnet18_8xb32_in1k.py'
    (folder / 'shipped.py').write_text(shipped.read_text().replace('mmcls::', 'mmpretrain::'))
    (folder / 'kd.py').write_text("""
_base_ = ['shipped.py']
custom_imports = dict(imports=['mfef_mmrazor'])
pipeline = [dict(type='Resize', scale=32), dict(type='PackInputs')]
train_dataloader = dict(_delete_=True, batch_size=10, sampler=dict(type='DefaultSampler'),
    dataset=dict(type='Digits', split='train', train_per_class=2, pipeline=pipeline))
val_dataloader = dict(_delete_=True, batch_size=10, sampler=dict(type='DefaultSampler'),
    dataset=dict(type='Digits', split='test', indices=20, pipeline=pipeline))
model = dict(teacher_ckpt=None)
train_cfg = dict(max_epochs=2)
""")
    return folder / 'kd.py'


@pytest.mark.slow
def test_mmrazors_own_distillation_trains_and_resumes(kd_config, tmp_path):
    train = [MMRAZOR / 'tools/train.py', kd_config, '--work-dir', 'run']
    done = start(tmp_path, *train)
    assert done.returncode == 0, done.stderr
    assert 'distill.loss_kl' in done.stdout + done.stderr
    (tmp_path / 'run/epoch_2.pth').unlink()
    (tmp_path / 'run/last_checkpoint').write_text(str(tmp_path / 'run/epoch_1.pth'))
    done = start(tmp_path, *train, '--resume')
    assert done.returncode == 0, done.stderr
    assert 'resumed epoch: 1' in done.stdout + done.stderr

    checkpoint = tmp_path / 'run/epoch_2.pth'
    convert = MMRAZOR / 'tools/model_converters/convert_kd_ckpt_to_student.py'
    assert start(tmp_path, convert, checkpoint).returncode == 0
    weights = torch.load(tmp_path / 'run/epoch_2_student.pth', weights_only=True)['state_dict']
    assert 'backbone.conv1.weight' in weights and not any('teacher' in key for key in weights)


@pytest.mark.parametrize('launcher', [['--launcher', 'slurm'], ['--launcher=slurm']])
def test_slurms_variables_are_read_where_it_is_the_launcher(launcher, tmp_path, monkeypatch):
    (tmp_path / 'script.py').write_text('')
    asked = []
    monkeypatch.setattr(run.compat, 'init_cpu_processes', asked.append)
    monkeypatch.setattr(run.compat, 'lend_pkg_resources', lambda: None)  # for the whole process
    monkeypatch.setattr(run.mmcls_names, 'use_mmpretrain', lambda: None)
    for args in ([], launcher):
        monkeypatch.setattr(sys, 'path', [*sys.path])
        monkeypatch.setattr(sys, 'argv', ['run.py', str(tmp_path / 'script.py'), *args])
        run.main()
    assert asked == ['pytorch', 'slurm']


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        ([], 'usage: python -m mfef_mmrazor.run SCRIPT ARGS...'),
        (['nowhere.py'], 'error: script not found: nowhere.py'),
    ],
)
def test_wrong_call_is_one_line(args, message, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['run.py', *args])
    with pytest.raises(SystemExit) as stopped:
        run.main()
    assert stopped.value.code == message  # which Python prints, with exit status 1
