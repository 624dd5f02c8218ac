"""SafeCheckpointHook: no moment at which a killed run would be lost."""

import re
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner
from processes import in_processes

from mfef_mmrazor.apis import load_config, train
from mfef_mmrazor.engine.checkpoint_files import CheckpointBackend, check_intact, newest_checkpoint
from mfef_mmrazor.engine.hooks.checkpoint_hook import checkpoint_size

CONFIG = Path(__file__).parents[2] / 'configs/mfef/mfef_resnet8-x2_1xb32-20e_digits.py'
SMALL = {
    'train_dataloader.dataset.train_per_class': 4,
    'val_dataloader.dataset.indices': 40,
    'train_cfg.max_epochs': 3,
}


def config(work_dir, **checkpoint):
    cfg = load_config(CONFIG, work_dir, SMALL)
    cfg.default_hooks.checkpoint = {'type': 'CheckpointHook', 'interval': 1, **checkpoint}
    cfg.custom_hooks = [x for x in cfg.custom_hooks if x.type != 'mmrazor.ResultsHook']
    return cfg


def test_at_every_save_a_whole_checkpoint_is_there(tmp_path, monkeypatch):
    """A user's CheckpointHook with one kept file, watched between all of its steps."""
    seen = []

    def watch(name):
        original = getattr(CheckpointBackend, name)

        def watched(self, *args):
            if seen or name == 'put':
                seen.append(
                    (name, Path(args[-1]).name, sorted(p.name for p in tmp_path.glob('*.pth')))
                )
            found = original(self, *args)
            if newest_checkpoint(tmp_path) is None:
                seen.append(('LOST', name, None))
            return found

        monkeypatch.setattr(CheckpointBackend, name, watched)

    watch('put')
    watch('remove')
    train(config(tmp_path, max_keep_ckpts=1, save_best='auto'))
    assert not [entry for entry in seen if entry[0] == 'LOST']
    removed = [name for action, name, _ in seen if action == 'remove' and name[0] == 'e']
    assert removed == ['epoch_1.pth', 'epoch_2.pth']
    for action, name, there in seen:
        if action == 'remove':  # the file that takes its place is there
            assert len([x for x in there if x.startswith(name.split('_')[0])]) == 2
    (best,) = tmp_path.glob('best_*.pth')
    for path in (best, tmp_path / 'epoch_3.pth'):
        check_intact(path)
    assert (tmp_path / 'last_checkpoint').read_text() == 'epoch_3.pth'
    assert sorted(p.name for p in tmp_path.glob('epoch_*')) == ['epoch_3.pth']


def test_a_moved_run_goes_on_from_the_newest_intact_checkpoint(tmp_path, capsys):
    train(config(tmp_path / 'first'))
    weights = torch.load(tmp_path / 'first/epoch_3.pth')['state_dict']
    shutil.move(tmp_path / 'first', tmp_path / 'moved')
    damaged = bytearray((tmp_path / 'moved/epoch_3.pth').read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / 'moved/epoch_3.pth').write_bytes(damaged)
    runner = train(config(tmp_path / 'moved'), resume=True)
    assert runner.cfg.load_from == str(tmp_path / 'moved/epoch_2.pth')
    assert 'epoch_3.pth is damaged' in capsys.readouterr().out
    again = torch.load(tmp_path / 'moved/epoch_3.pth')['state_dict']
    assert all(torch.equal(weights[key], again[key]) for key in weights)
    assert not (tmp_path / 'first').exists()

    # scripts that leave the choice to mmengine
    cfg = config(tmp_path / 'moved')
    cfg.default_hooks.checkpoint.type = 'mmrazor.SafeCheckpointHook'
    cfg.resume = True
    (tmp_path / 'moved/last_checkpoint').unlink()
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner._load_from == str(tmp_path / 'moved/epoch_3.pth')

    for path in (tmp_path / 'moved').glob('*.pth'):
        path.write_bytes(b'')
    with pytest.raises(ValueError, match=r'no checkpoint of the run can be read: .*epoch_3\.pth'):
        train(config(tmp_path / 'moved'), resume=True)


def test_early_stopping_goes_on_counting(tmp_path):
    def run(work_dir, epochs, resume=False):
        cfg = load_config(CONFIG, work_dir, {**SMALL, 'train_cfg.max_epochs': epochs})
        patience = dict(monitor='accuracy/top1', min_delta=100.0, patience=2)
        cfg.custom_hooks.append(dict(type='EarlyStoppingHook', **patience))
        return train(cfg, resume=resume).epoch

    assert run(tmp_path / 'straight', 9) == 3  # the first, and two that are no better
    assert run(tmp_path / 'stopped', 2) == 2
    assert run(tmp_path / 'stopped', 9, resume=True) == 3


@pytest.mark.parametrize('unit', ['epoch', 'iter'])
def test_the_end_of_a_training_that_stops_early_is_saved_and_stays_the_end(tmp_path, unit):
    def run(patience, resume=False):
        cfg = load_config(CONFIG, tmp_path, {**SMALL, 'train_cfg.max_epochs': 9})
        cfg.train_dataloader.batch_size = 10
        cfg.default_hooks.checkpoint = dict(
            type='CheckpointHook', interval=5, by_epoch=unit == 'epoch'
        )
        if unit == 'iter':
            cfg.train_cfg = dict(by_epoch=False, max_iters=9, val_interval=1)
            cfg.param_scheduler = dict(type='ConstantLR', by_epoch=False)
        no_better = dict(monitor='accuracy/top1', min_delta=100.0, patience=patience)
        cfg.custom_hooks.append(dict(type='EarlyStoppingHook', **no_better))
        runner = train(cfg, resume=resume)
        return getattr(runner, unit), [path.name for path in tmp_path.glob('*.pth')]

    assert run(patience=2) == (3, [f'{unit}_3.pth'])
    saved = (tmp_path / f'{unit}_3.pth').read_bytes()
    history = torch.load(tmp_path / f'{unit}_3.pth')['results']['history']
    assert [entry[unit] for entry in history] == [1, 2, 3]
    assert run(patience=2, resume=True) == (3, [f'{unit}_3.pth'])
    assert (tmp_path / f'{unit}_3.pth').read_bytes() == saved
    assert run(patience=3, resume=True)[0] == 4


def test_the_end_of_a_training_that_is_the_best_is_not_saved_once_more(tmp_path, monkeypatch):
    saved, real = [], Runner.save_checkpoint

    def note(*args, **kwargs):
        saved.append(kwargs.get('filename') or args[2])
        real(*args, **kwargs)

    monkeypatch.setattr(Runner, 'save_checkpoint', note)
    cfg = load_config(CONFIG, tmp_path, {**SMALL, 'train_cfg.max_epochs': 9})
    cfg.default_hooks.checkpoint.update(save_best='auto')
    reached = dict(monitor='accuracy/top1', stopping_threshold=0.0)
    cfg.custom_hooks.append(dict(type='EarlyStoppingHook', **reached))
    assert train(cfg).epoch == 1
    assert saved == ['epoch_1.pth', 'best_accuracy_top1_epoch_1.pth', 'epoch_1.pth']


def test_a_checkpoint_saved_again_for_the_best_has_the_validation_once(tmp_path):
    def run(resume=False):
        cfg = load_config(CONFIG, tmp_path, SMALL)
        cfg.default_hooks.checkpoint.update(save_best='auto', max_keep_ckpts=-1)
        monitored = dict(monitor='accuracy/top1', rule='greater')
        cfg.param_scheduler = dict(type='ReduceOnPlateauLR', patience=0, **monitored)
        patience = dict(min_delta=100.0, patience=9)
        cfg.custom_hooks.append(dict(type='EarlyStoppingHook', **monitored, **patience))
        train(cfg, resume=resume)
        return [torch.load(tmp_path / f'epoch_{epoch}.pth') for epoch in (1, 3)]

    def scored(saved):
        results = saved['results']
        counts = saved['param_schedulers'], saved['early_stopping']
        return counts, results['history'], results['calibration']

    first, straight = run()
    _, history, calibration = scored(first)
    assert [entry['epoch'] for entry in history] == [1] == [entry['epoch'] for entry in calibration]
    (tmp_path / 'last_checkpoint').write_text('epoch_1.pth')
    _, resumed = run(resume=True)
    assert scored(straight) == scored(resumed)
    weights = straight['state_dict']
    assert all(torch.equal(weights[key], resumed['state_dict'][key]) for key in weights)


def train_for_the_best(work_dir):
    """Train in one of several processes; keep its batch-norm statistics."""
    options = {**SMALL, 'train_cfg.max_epochs': 1, 'default_hooks.checkpoint.save_best': 'auto'}
    options['train_dataloader.batch_size'] = 10
    runner = train(load_config(CONFIG, work_dir, options, launcher='pytorch'))
    mean = runner.model.module.architecture.backbone.bn1.running_mean
    torch.save(mean, work_dir / f'mean{runner.rank}.pt')


def test_a_checkpoint_saved_again_for_the_best_has_the_buffers_of_each_process(tmp_path):
    in_processes(2, train_for_the_best, tmp_path)
    saved = torch.load(tmp_path / 'epoch_1.pth')
    assert saved['message_hub']['runtime_info']['best_ckpt']  # it is the one saved again
    means = [own['architecture.backbone.bn1.running_mean'] for own in saved['buffers']]
    assert not torch.equal(*means)
    for rank, mean in enumerate(means):
        assert torch.equal(mean, torch.load(tmp_path / f'mean{rank}.pt'))


def test_checkpoints_elsewhere_are_found_without_the_pointer(tmp_path):
    train(config(tmp_path / 'run', out_dir=str(tmp_path / 'elsewhere')))
    (tmp_path / 'run/last_checkpoint').unlink()
    newest = tmp_path / 'elsewhere/run/epoch_3.pth'
    cfg = config(tmp_path / 'run', out_dir=str(tmp_path / 'elsewhere'))
    assert train(cfg, resume=True).cfg.load_from == str(newest)


def test_an_epoch_that_starts_over_is_warned_of(tmp_path, capsys):
    options = dict(by_epoch=False, interval=1, max_keep_ckpts=-1)
    cfg = config(tmp_path, **options)
    cfg.train_dataloader.batch_size = 20  # two steps an epoch
    train(cfg)
    for step in (3, 4):  # the latter is then of the epoch that has started over
        (tmp_path / 'last_checkpoint').write_text(f'iter_{step}.pth')
        train(cfg, resume=True)
        assert 'starts over; steps trained twice: 1.' in capsys.readouterr().out
    cfg.default_hooks.checkpoint.interval = 100
    (tmp_path / 'last_checkpoint').write_text('iter_3.pth')
    assert train(cfg, resume=True).iter == 7  # three epochs have six
    assert (tmp_path / 'last_checkpoint').read_text() == 'iter_7.pth'
    capsys.readouterr()
    train(config(tmp_path / 'whole'))
    (tmp_path / 'whole/last_checkpoint').write_text('epoch_2.pth')
    train(config(tmp_path / 'whole'), resume=True)
    assert 'starts over' not in capsys.readouterr().out


def test_a_save_that_fails_ends_the_run_with_the_earlier_ones_intact(tmp_path, monkeypatch):
    from mfef_mmrazor.engine import checkpoint_files

    def full(descriptor, real=checkpoint_files.os.fsync):
        if list(tmp_path.glob('epoch_2.pth.partial')):
            raise OSError(28, 'No space left on device')
        real(descriptor)

    monkeypatch.setattr(checkpoint_files.os, 'fsync', full)
    with pytest.raises(OSError, match=r'epoch_2\.pth could not be written \(No space left'):
        train(config(tmp_path, max_keep_ckpts=1))
    assert [path.name for path in tmp_path.glob('*epoch_*')] == ['epoch_1.pth']
    check_intact(tmp_path / 'epoch_1.pth')


def test_a_disk_that_is_too_small_is_said_before_the_run(tmp_path, monkeypatch, capsys):
    usage = namedtuple('usage', 'free')
    free = 10 * 2**20
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(free))
    train(config(tmp_path / 'none', interval=0, save_last=False))  # never
    assert not list((tmp_path / 'none').glob('*.pth'))
    cfg = config(tmp_path)
    cfg.train_cfg.max_epochs = 1
    runner = train(cfg)
    assert 'will take' not in capsys.readouterr().out
    size = (tmp_path / 'epoch_1.pth').stat().st_size
    assert checkpoint_size(runner) == pytest.approx(size, rel=0.15)
    free = size // 2
    train(config(tmp_path), resume=True)
    found = re.search(r'will take about (\d+) MiB', capsys.readouterr().out)
    assert int(found[1]) == pytest.approx(3 * checkpoint_size(runner) / 2**20, abs=0.5)
