"""Workers end with their run, however it ends."""

import multiprocessing
import re
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from mmrazor.registry import HOOKS

from mfef_mmrazor.apis import load_config, train
from mfef_mmrazor.engine.hooks.signal_hook import SIGNALS

CONFIG = Path(__file__).parents[2] / 'configs/mfef/mfef_resnet8-x2_1xb32-20e_digits.py'


class Interrupted(Exception):
    pass


def blocked_by(pid):
    """Which signals are kept from a process, as Linux tells."""
    status = Path(f'/proc/{pid}/status')
    if not status.exists():
        return {*SIGNALS}
    mask = int(re.search(r'SigBlk:\s*(\w+)', status.read_text())[1], 16)
    return {number for number in SIGNALS if mask >> (number - 1) & 1}


@HOOKS.register_module()
class InterruptHook(Hook):
    """Notes the workers that are there, and may interrupt the run."""

    workers: list = []

    def __init__(self, interrupt):
        self.interrupt = interrupt

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        InterruptHook.workers = multiprocessing.active_children()
        InterruptHook.masks = [blocked_by(worker.pid) for worker in InterruptHook.workers]
        if self.interrupt:
            raise Interrupted


@pytest.mark.parametrize('interrupt', [False, True], ids=['to the end', 'interrupted'])
@pytest.mark.parametrize('sampler', ['InfiniteSampler', 'DefaultSampler'])
def test_no_worker_outlives_its_run(sampler, interrupt, tmp_path):
    options = {
        'train_dataloader.dataset.train_per_class': 4,
        'train_dataloader.batch_size': 20,
        'train_dataloader.sampler.type': sampler,
        'train_dataloader.num_workers': 1,
        'train_dataloader.persistent_workers': True,
        'val_dataloader.dataset.indices': 20,
        'val_dataloader.num_workers': 1,
        'val_dataloader.persistent_workers': True,
    }
    cfg = load_config(CONFIG, tmp_path, options)
    cfg.train_cfg = dict(by_epoch=False, max_iters=2, val_interval=1)
    cfg.param_scheduler = None
    cfg.custom_hooks.append(dict(type='mmrazor.InterruptHook', interrupt=interrupt))
    before = {*multiprocessing.active_children()}
    if interrupt:
        with pytest.raises(Interrupted):
            train(cfg)
    else:
        train(cfg)
    assert {*InterruptHook.workers} > before
    own = zip(InterruptHook.workers, InterruptHook.masks, strict=True)
    assert all(mask == {*SIGNALS} for worker, mask in own if worker not in before)
    assert {*multiprocessing.active_children()} <= before
