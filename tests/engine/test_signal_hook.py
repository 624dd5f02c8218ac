"""SignalHook: a run that is told to stop goes on from that very iteration, whatever the method."""

import os
import signal
import time
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmrazor.registry import HOOKS
from processes import in_processes

from mfef_mmrazor.apis import load_config, train

CONFIGS = Path(__file__).parents[2] / 'configs'
# one of every method; the shortest name is the plain variant
METHODS = {
    path.parent.name: path
    for path in sorted(
        CONFIGS.glob('*/*_resnet8-x[23]_1xb32-20e_digits.py'), key=lambda p: -len(p.name)
    )
}
METHODS['kdcl-general'] = CONFIGS / 'kdcl/kdcl-general_resnet8-x2_1xb32-20e_digits.py'


@HOOKS.register_module()
class SendHook(Hook):
    """Sends a signal to its own process at a moment; notes when checkpoints were saved."""

    saved = []

    def __init__(self, number, moment, at):
        self.number, self.moment, self.at = number, moment, at
        self.passes = 0  # over the validation data, at that moment
        self.saved.clear()

    def before_save_checkpoint(self, runner, checkpoint):
        self.saved.append((checkpoint['meta']['epoch'], checkpoint['meta']['iter']))

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.moment == 'train' and runner.iter + 1 == self.at:
            os.kill(os.getpid(), self.number)

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if runner.epoch == self.at and batch_idx == 0:
            self.passes += 1
            if self.moment == {1: 'val', 2: 'second val'}[self.passes]:
                os.kill(os.getpid(), self.number)


@pytest.fixture(autouse=True)
def not_under_nohup():
    """Under it, the hook would leave its signal ignored."""
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, former)


def config(path, work_dir, stop=None, **options):
    cfg = load_config(
        path,
        work_dir,
        {
            'train_dataloader.dataset.train_per_class': 10,
            'train_dataloader.batch_size': 20,  # 5 steps an epoch
            'val_dataloader.dataset.indices': 40,
            'val_dataloader.batch_size': 20,
            'train_cfg.max_epochs': 2,
            **{key.replace('__', '.'): value for key, value in options.items()},
        },
    )
    if path == METHODS['kdcl-general']:
        cfg.train_dataloader.dataset.dataset.train_per_class = 11
        cfg.train_dataloader.dataset.pop('train_per_class')
        cfg.train_dataloader.dataset.num_splits = 11
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook.type != 'mmrazor.SignalHook']
    if stop:
        number, moment, at = stop
        cfg.custom_hooks.append(dict(type='mmrazor.SendHook', number=number, moment=moment, at=at))
    return cfg


def end(work_dir):
    """What a run has come to: everything but times."""
    name = (work_dir / 'last_checkpoint').read_text()
    stored = torch.load(work_dir / name, weights_only=True)
    history = stored['results']['history']
    return stored['state_dict'], stored['optimizer'], stored['param_schedulers'], history


def assert_same(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def stopped_and_resumed(path, folder, number, moment, at, **options):
    """The checkpoint's name when it was stopped; the run in ``folder/stopped`` is finished."""
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    with pytest.raises(SystemExit) as stopped:
        train(config(path, folder / 'stopped', stop=(number, moment, at), **options))
    assert stopped.value.code == 128 + number
    assert len({*SendHook.saved}) == len(SendHook.saved)  # none is saved twice
    assert before == {each: signal.getsignal(each) for each in before}
    name = (folder / 'stopped/last_checkpoint').read_text()
    train(config(path, folder / 'stopped', **options), resume=True)
    return name


def test_a_signal_that_is_ignored_as_by_nohup_stays_ignored(tmp_path):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = (signal.SIGHUP, 'train', 2)
    train(config(METHODS['mfef'], tmp_path, stop=stop, train_cfg__max_epochs=1))
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert (tmp_path / 'epoch_1.pth').exists()


FAST = ('mfef', 'pcl', 'okdph')  # the others take as long and are alike


@pytest.mark.parametrize(
    'method',
    [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in METHODS],
)
def test_every_method_goes_on_from_the_very_iteration(method, tmp_path):
    path = METHODS[method]
    options = dict(train_cfg__max_epochs=1)
    train(config(path, tmp_path / 'straight', **options))
    name = stopped_and_resumed(path, tmp_path, signal.SIGTERM, 'train', 3, **options)
    assert name == 'epoch_0_iter_3.pth'
    assert_same(end(tmp_path / 'straight'), end(tmp_path / 'stopped'))
    assert not (tmp_path / 'stopped' / name).exists()  # the epoch's own has taken its place


def averaging(**options):
    hook = dict(type='mmpretrain.EMAHook', momentum=0.05, **options)
    return dict(
        custom_hooks=[dict(type='mmrazor.EpochSeedHook'), hook],
        default_hooks__checkpoint__interval=5,  # none is saved before the stop
    )


CASES = {
    'last batch': (signal.SIGTERM, 'train', 5, {}, 'epoch_1.pth'),
    'scoring': (signal.SIGHUP, 'val', 1, {}, 'epoch_1.pth'),
    'rare checkpoints': (
        signal.SIGUSR1, 'val', 1, dict(default_hooks__checkpoint__interval=5), 'epoch_1.pth'
    ),
    'averaged weights, scoring': (signal.SIGTERM, 'val', 1, averaging(), 'epoch_1.pth'),
    'scoring, checkpoints by iterations': (
        signal.SIGTERM, 'val', 1,
        dict(default_hooks__checkpoint__by_epoch=False, default_hooks__checkpoint__interval=5),
        'iter_5.pth',
    ),
    'averaged weights, not scored': (
        signal.SIGTERM, 'val', 1, averaging(evaluate_on_ema=False, evaluate_on_origin=True),
        'epoch_1.pth',
    ),
    'averaged weights, scoring the others': (
        signal.SIGTERM, 'second val', 1, averaging(evaluate_on_origin=True), 'epoch_1_iter_6.pth'
    ),
    'accumulating': (
        signal.SIGTERM, 'train', 7, dict(optim_wrapper__accumulative_counts=2),
        'epoch_1_iter_8.pth',
    ),
}  # fmt: skip


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
    """Gives what an uninterrupted run with some options comes to; it is trained once."""

    ends = {}

    def end_of_a_run(options):
        if str(options) not in ends:
            work_dir = tmp_path_factory.mktemp('straight')
            train(config(METHODS['mfef'], work_dir, **options))
            ends[str(options)] = end(work_dir)
        return ends[str(options)]

    return end_of_a_run


@pytest.mark.parametrize('case', CASES)
def test_at_every_moment(case, straight, tmp_path):
    number, moment, at, options, expected = CASES[case]
    name = stopped_and_resumed(METHODS['mfef'], tmp_path, number, moment, at, **options)
    assert name == expected
    assert_same(straight(options), end(tmp_path / 'stopped'))


def test_mean_teachers_between_the_batches_of_a_step(tmp_path):
    options = dict(optim_wrapper__accumulative_counts=3)  # an epoch has five batches
    train(config(METHODS['pcl'], tmp_path / 'straight', **options))
    stopped_and_resumed(METHODS['pcl'], tmp_path, signal.SIGTERM, 'train', 5, **options)
    assert_same(end(tmp_path / 'straight'), end(tmp_path / 'stopped'))


def test_another_batch_size_begins_the_epoch_again(tmp_path):
    def run(stop=None, batch_size=20, epochs=3):
        options = dict(
            optim_wrapper__accumulative_counts=2,
            default_hooks__checkpoint__allow_changes=True,
            train_dataloader__batch_size=batch_size,
            train_cfg__max_epochs=epochs,
        )
        return train(config(METHODS['dml'], tmp_path, stop, **options), resume=True)

    with pytest.raises(SystemExit):
        run((signal.SIGTERM, 'train', 8))  # in the second epoch, of five batches
    with pytest.raises(SystemExit):
        run((signal.SIGTERM, 'train', 13), batch_size=25)
    assert (tmp_path / 'last_checkpoint').read_text() == 'epoch_2_iter_14.pth'
    assert run(batch_size=25).iter == 8 + 2 * 4
    assert run(batch_size=100, epochs=4).iter == 8 + 2 * 4 + 1
    logs = ''.join(path.read_text() for path in tmp_path.rglob('*.log'))
    assert logs.count('starts over') == logs.count('starts over; steps trained twice: 3.') == 1


def train_in_each(work_dir, stop=None):
    """Train in one of several processes, or go on."""
    cfg = config(
        METHODS['dml'], work_dir, stop,
        train_dataloader__batch_size=10,
        val_dataloader__dataset__indices=41,  # two batches of one process, and one of the other
        val_dataloader__sampler__round_up=False,
    )  # fmt: skip
    cfg.launcher = 'pytorch'
    if stop:
        save = Runner.save_checkpoint

        def save_late(*args, **kwargs):
            time.sleep(1)
            save(*args, **kwargs)

        with patch.object(Runner, 'save_checkpoint', save_late), pytest.raises(SystemExit):
            train(cfg)
        # a launcher would end the process that writes as soon as the other one has ended
        assert (work_dir / 'last_checkpoint').read_text().startswith('epoch_')
    else:
        train(cfg, resume=True)


def test_two_processes_stopped_while_they_score(tmp_path):
    in_processes(2, train_in_each, tmp_path / 'straight')
    in_processes(2, train_in_each, tmp_path / 'stopped', (signal.SIGTERM, 'val', 1))
    in_processes(2, train_in_each, tmp_path / 'stopped')
    assert_same(end(tmp_path / 'straight'), end(tmp_path / 'stopped'))
    straight, stopped = (
        torch.load(tmp_path / name / 'epoch_2.pth', weights_only=True)['buffers']
        for name in ('straight', 'stopped')
    )
    name = 'architecture.backbone.bn1.running_mean'
    assert not torch.equal(*(own[name] for own in straight))
    assert_same(straight, stopped)
