"""A run that was killed, resumed, told to stop and resumed again ends as one that was left alone.

To the bit, in weights, averaged weights, optimizer, loss scaler, schedules, losses and results. As
a script, this file is the training of one of several processes.
"""

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
from mmengine.hooks import Hook
from mmrazor.registry import HOOKS
from sklearn.datasets import load_digits

from mfef_mmrazor.apis import load_config, train

CONFIGS = Path(__file__).parents[2] / 'configs'
MFEF = CONFIGS / 'mfef/mfef_resnet8-x2_1xb32-20e_digits.py'
HELD_OUT = CONFIGS / 'kdcl/kdcl-general_resnet8-x2_1xb32-20e_digits.py'
STEPS = 4  # of the two epochs each


class Killed(BaseException):
    """What no ``except Exception`` takes for an error: nothing can be saved any more."""


@HOOKS.register_module()
class StopHook(Hook):
    """Ends the run before an iteration is over, or tells it to stop; the first iteration is 1."""

    def __init__(self, at, number):
        self.at, self.number = at, number

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.at and runner.rank == runner.world_size - 1:
            if not self.number:
                raise Killed
            os.kill(os.getpid(), self.number)


def config(work_dir, *, data='digits', by='epochs', stop=(), launcher='none', **options):
    """A run of eight steps; ``data`` is ``'digits'``, ``'memory'`` or a folder of pictures."""
    held_out = options.pop('held_out', False)
    cfg = load_config(
        HELD_OUT if held_out else MFEF,
        work_dir,
        {
            'train_dataloader.batch_size': 20 // (2 if launcher != 'none' else 1),
            'val_dataloader.dataset.indices': 30,
            'val_dataloader.batch_size': 20,
            'train_cfg.max_epochs': 2,
            **{key.replace('__', '.'): value for key, value in options.items()},
        },
        launcher=launcher,
    )
    images = cfg.train_dataloader.dataset.dataset if held_out else cfg.train_dataloader.dataset
    images.train_per_class = 10 if held_out else 2 * STEPS
    if held_out:
        cfg.train_dataloader.dataset.num_splits = 5
    if data == 'memory':
        whole = dict(images, pipeline=[dict(type='Resize', scale=16)])
        images = dict(type='InMemory', dataset=whole, padding=2)
        val = dict(cfg.val_dataloader.dataset, pipeline=whole['pipeline'])
        cfg.val_dataloader.dataset = dict(type='InMemory', dataset=val, test_mode=True)
        kind = 'mmpretrain.InMemoryDataPreprocessor'
        cfg.model.data_preprocessor = dict(cfg.data_preprocessor, type=kind, crop_size=16)
    elif data != 'digits':
        load, val = dict(type='LoadImageFromFile'), cfg.val_dataloader.dataset
        folder = dict(type='ImageFolder', data_root=str(data))
        images = dict(folder, pipeline=[load, *images.pipeline])
        # held-out images are read as these are
        cfg.val_dataloader.dataset = dict(folder, indices=30, pipeline=[load, *val.pipeline])
    if held_out:
        cfg.train_dataloader.dataset.dataset = images
    else:
        cfg.train_dataloader.dataset = images
    if by != 'epochs':
        cfg.train_cfg = dict(by_epoch=False, max_iters=2 * STEPS, val_interval=STEPS)
        cfg.param_scheduler = dict(type='CosineAnnealingLR', by_epoch=False, T_max=2 * STEPS)
        if by == 'endless iterations':
            cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    if stop:
        cfg.custom_hooks.append(dict(type='mmrazor.StopHook', at=stop[0], number=stop[1]))
    return cfg


def end(work_dir):
    """What a run has come to: everything but times and paths."""
    (path,) = (*work_dir.glob('epoch_2.pth'), *work_dir.glob(f'iter_{2 * STEPS}.pth'))
    stored = torch.load(path, weights_only=True)
    losses = {
        name: log
        for name, log in stored['log_history'].items()
        if name.startswith('train/') and 'time' not in name
    }
    assert all(len(values) == 2 * STEPS for values, _ in losses.values()) and 'train/loss' in losses
    kept = (
        'state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers', 'buffers', 'ema_buffers',
    )  # fmt: skip
    history = json.loads((work_dir / 'results.json').read_text())['history']
    return {key: stored.get(key) for key in kept}, losses, history


def assert_same(a, b, where=''):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f'{where}.{key}')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f'{where}.{i}')
    else:
        assert a == b, where


def pictures(folder, number):
    """So many pictures of each digit, as files."""
    digits = load_digits()
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
        for i, image in enumerate(digits.images[digits.target == label][:number]):
            cv2.imwrite(str(folder / f'{label}/{i}.png'), (image * 15).astype('uint8'))
    return folder


def loss_scaler_on_the_cpu(monkeypatch):
    """mmengine's wrapper asks for a GPU; torch's scaler works on the CPU as well."""
    module = 'mmengine.optim.optimizer.amp_optimizer_wrapper'
    monkeypatch.setattr(f'{module}.is_cuda_available', lambda: True)
    scaler = functools.partial(torch.amp.GradScaler, 'cpu')
    monkeypatch.setattr(f'{module}.GradScaler', scaler)


EXTRAS = {
    'plain': {},
    'accumulated': dict(optim_wrapper__accumulative_counts=3),  # over the end of an epoch
    'averaged': dict(custom_hooks=[dict(type='EMAHook')]),
    'scaled': dict(
        optim_wrapper__type='AmpOptimWrapper',
        optim_wrapper__dtype='bfloat16',
        optim_wrapper__loss_scale=dict(init_scale=64.0, growth_interval=3),
    ),
    'held out': dict(held_out=True),
}
TABLE = [
    (data, by, workers, extra)
    for data in ('digits', 'memory', 'folder')
    for by in ('epochs', 'iterations', 'endless iterations')
    for workers in (0, 2)
    for extra in EXTRAS
    # an endless epoch has no start at which to look at the held-out images
    if (by, extra) != ('endless iterations', 'held out')
]
FAST = [
    ('digits', 'epochs', 0, 'averaged'),
    ('folder', 'epochs', 2, 'scaled'),
    ('memory', 'iterations', 0, 'accumulated'),
    ('folder', 'endless iterations', 2, 'plain'),
]


@pytest.mark.parametrize(
    'data, by, workers, extra',
    [pytest.param(*row, marks=[] if row in FAST else pytest.mark.slow) for row in TABLE],
)
def test_resumed_is_as_never_stopped(data, by, workers, extra, tmp_path, monkeypatch):
    options = dict(EXTRAS[extra], train_dataloader__num_workers=workers, by=by)
    if extra == 'averaged':
        options['custom_hooks'] = [*load_config(MFEF).custom_hooks, *options['custom_hooks']]
    if extra == 'scaled':
        loss_scaler_on_the_cpu(monkeypatch)
    if data == 'folder':
        options['data'] = pictures(tmp_path / 'pictures', 10 if extra == 'held out' else 2 * STEPS)
    train(config(tmp_path / 'straight', **options))
    expected = end(tmp_path / 'straight')
    if extra == 'scaled':
        assert expected[0]['optimizer']['loss_scaler']['scale'] > 64

    with pytest.raises(Killed):
        train(config(tmp_path / 'run', stop=(6, 0), **options))
    name = (tmp_path / 'run/last_checkpoint').read_text()
    assert name == ('epoch_1.pth' if by == 'epochs' else f'iter_{STEPS}.pth')
    with pytest.raises(SystemExit):
        train(config(tmp_path / 'run', stop=(6, signal.SIGUSR1), **options), resume=True)
    name = (tmp_path / 'run/last_checkpoint').read_text()
    assert name == ('epoch_1_iter_6.pth' if by == 'epochs' else 'iter_6.pth')
    train(config(tmp_path / 'run', **options), resume=True)
    assert_same(expected, end(tmp_path / 'run'))


@pytest.mark.slow
@pytest.mark.parametrize('by', ['epochs', 'iterations'])
@pytest.mark.parametrize('extra', ['plain', 'accumulated', 'averaged', 'held out'])
def test_of_two_processes(by, extra, tmp_path):
    """Each has batch-norm statistics and random numbers of its own; the second gets the signal."""

    def run(name, *stop):
        torchrun = '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2'
        script = __file__, tmp_path / name, by, extra, *stop
        done = subprocess.run(
            [str(part) for part in (sys.executable, *torchrun, *script)],
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert (done.returncode != 0) == bool(stop), done.stderr[-3000:]

    run('straight')
    run('run', STEPS + 2, int(signal.SIGTERM))
    pointer = (tmp_path / 'run/last_checkpoint').read_text()
    assert pointer == ('epoch_1_iter_6.pth' if by == 'epochs' else 'iter_6.pth')
    run('run')
    expected = end(tmp_path / 'straight')
    first, second = expected[0]['buffers']
    assert not torch.equal(*(x['architecture.backbone.bn1.running_mean'] for x in (first, second)))
    assert_same(expected, end(tmp_path / 'run'))


if __name__ == '__main__':
    work_dir, by, extra, *stop = sys.argv[1:]
    options = dict(EXTRAS[extra], by=by, launcher='pytorch', stop=tuple(map(int, stop)))
    if extra == 'averaged':
        averaging = dict(type='EMAHook', update_buffers=True)  # of each process's own
        options['custom_hooks'] = [*load_config(MFEF).custom_hooks, averaging]
    train(config(Path(work_dir), **options), resume=True)
