"""A run goes on as the run that it was, in every process; or is told that it would not."""

import os
from pathlib import Path

import pytest
import torch
from processes import in_processes

from mfef_mmrazor.apis import load_config, train
from mfef_mmrazor.engine.same_run import identity

CONFIGS = Path(__file__).parents[2] / 'configs'


def config(work_dir, method='dml', epochs=1, **options):
    small = {
        'train_dataloader.dataset.train_per_class': 4,
        'val_dataloader.dataset.indices': 20,
        'train_cfg.max_epochs': epochs,
    }
    path = CONFIGS / f'{method}/{method}_resnet8-x2_1xb32-20e_digits.py'
    cfg = load_config(path, work_dir, {**small, **options})
    cfg.param_scheduler = None  # mmengine's end with max_epochs, which changes here
    return cfg


def test_another_run_is_refused(tmp_path):
    runner = train(config(tmp_path))
    assert len(identity(runner)['students']) == 2
    before = (tmp_path / 'epoch_1.pth').read_bytes()
    batch = {'train_dataloader.batch_size': 16}
    with pytest.raises(ValueError, match=r'batch size of each process 32, this one has 16'):
        train(config(tmp_path, epochs=2, **batch), resume=True)
    with pytest.raises(ValueError, match=r'DMLDistiller, this one has \w+ with KDCLDistiller'):
        train(config(tmp_path, 'kdcl', epochs=2), resume=True)
    assert not (tmp_path / 'epoch_2.pth').exists()
    assert (tmp_path / 'epoch_1.pth').read_bytes() == before
    allowed = {**batch, 'default_hooks.checkpoint.allow_changes': True}
    runner = train(config(tmp_path, epochs=2, **allowed), resume=True)
    assert runner.epoch == 2
    with pytest.raises(ValueError, match='batch size of each process 16, this one has 32'):
        train(config(tmp_path, epochs=3), resume=True)


def train_with_statistics(work_dir, epochs, resume=False):
    """Train in one of several processes, and write what this one has come to."""
    cfg = config(work_dir, epochs=epochs, **{'train_dataloader.batch_size': 10})
    cfg.launcher = 'pytorch'
    runner = train(cfg, resume=resume)
    torch.save(runner.model.module.state_dict(), work_dir / f'end_of_rank{runner.rank}.pt')


def test_two_processes_go_on_each_with_its_own_statistics(tmp_path):
    in_processes(2, train_with_statistics, tmp_path / 'straight', 2)
    in_processes(2, train_with_statistics, tmp_path / 'stopped', 1)
    in_processes(2, train_with_statistics, tmp_path / 'stopped', 2, True)
    ends = [
        [torch.load(tmp_path / folder / f'end_of_rank{rank}.pt') for rank in (0, 1)]
        for folder in ('straight', 'stopped')
    ]
    for straight, stopped in zip(*ends, strict=True):
        assert all(torch.equal(straight[name], stopped[name]) for name in straight)
    differ = {name for name in ends[0][0] if not torch.equal(ends[0][0][name], ends[0][1][name])}
    assert differ and all('running' in name for name in differ)

    with pytest.raises(ValueError, match='number of processes 2, this one has 1'):
        batch = {'train_dataloader.batch_size': 10}
        train(config(tmp_path / 'stopped', epochs=3, **batch), resume=True)


def train_in_a_folder_of_its_own(work_dir):
    """Train in one of several processes, whose disks are not the same, and go on."""
    cfg = config(work_dir / os.environ['RANK'], **{'train_dataloader.batch_size': 10})
    cfg.launcher = 'pytorch'
    train(cfg)
    with pytest.raises(ValueError, match='different checkpoints .*process 1: none.*disk that they'):
        train(cfg, resume=True)


def test_processes_that_find_different_checkpoints_all_stop(tmp_path):
    in_processes(2, train_in_a_folder_of_its_own, tmp_path)
    assert [path.parent.name for path in tmp_path.rglob('*.pth')] == ['0']
