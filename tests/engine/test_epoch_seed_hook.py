"""What is random in an epoch depends on the seed and the epoch, and on nothing else."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import Runner
from processes import in_processes
from torch import distributed

from mfef_mmrazor.apis import load_config
from mfef_mmrazor.engine.hooks.epoch_seed_hook import seed_of

CONFIGS = Path(__file__).parents[2] / 'configs'


def batches(work_dir, method='mfef', epoch=0, seed=0, workers=0):
    """All training images of an epoch, as the students get them."""
    cfg = load_config(
        CONFIGS / f'{method}/{method}_resnet8-x2_1xb32-20e_digits.py',
        work_dir,
        {'train_dataloader.num_workers': workers},
        seed=seed,
    )
    runner = Runner.from_cfg(cfg)
    runner.train_loop._epoch = epoch
    torch.rand(100 * epoch)  # whatever went before
    runner.call_hook('before_train_epoch')
    return torch.stack([image for batch in runner.train_dataloader for image in batch['inputs']])


@pytest.mark.parametrize('workers', [0, 2])
def test_every_method_sees_the_same_images_at_a_seed_and_epoch(tmp_path, workers):
    images = batches(tmp_path, workers=workers, epoch=1)
    assert torch.equal(images, batches(tmp_path, 'independent', workers=workers, epoch=1))
    for changed in (dict(epoch=0), dict(epoch=2), dict(epoch=1, seed=1)):
        assert not torch.equal(images, batches(tmp_path, workers=workers, **changed))


def test_crops_are_others_in_the_next_epoch_though_the_order_be_the_same(tmp_path, monkeypatch):
    """Also in workers, which mmengine seeds alike each time they start."""
    from mmengine.dataset import DefaultSampler

    monkeypatch.setattr(DefaultSampler, '__iter__', lambda self: iter(range(self.num_samples)))
    first, second = (batches(tmp_path, epoch=epoch, workers=2) for epoch in (0, 1))
    assert not torch.equal(first, second)


def keep_seed(folder):
    """The seed of one of several processes, as a file."""
    distributed.init_process_group('gloo')
    rank = distributed.get_rank()
    (folder / str(rank)).write_text(str(seed_of(SimpleNamespace(seed=0), epoch=1)))


def test_processes_draw_other_crops(tmp_path):
    in_processes(2, keep_seed, tmp_path)
    first, second = ((tmp_path / rank).read_text() for rank in '01')
    assert first != second
    assert first == str(seed_of(SimpleNamespace(seed=0), epoch=1))


def test_every_step_has_a_seed_of_its_own_with_room_for_the_workers_numbers():
    run = SimpleNamespace(seed=0)
    seeds = [seed_of(run, epoch, step) for epoch in range(10) for step in range(10)]
    assert len(set(seeds)) == 100 and max(seeds) < 2**31
