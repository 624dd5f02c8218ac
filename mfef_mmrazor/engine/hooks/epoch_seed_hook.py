"""Reseeds all random number generators at the start of every epoch."""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner, set_random_seed
from mmrazor.registry import HOOKS

from ...models.data_preprocessor import InMemoryDataPreprocessor
from ..position import by_iterations, epochs_over, is_infinite
from ..unwrap import unwrapped


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds crops, flips, dropout and the like anew at the start of each epoch.

    So a run that was stopped goes on as if it had not been, and methods that are compared at a
    seed see the same augmented images, however many random numbers their initial weights took.
    Workers that load data are seeded when they start: it needs ``persistent_workers=False``.

    In a training by iterations, where a run may be stopped within an epoch, the seed depends on
    the iteration as well. The images of an epoch and their order are those of a training by epochs,
    and resuming does not read again what earlier epochs have read.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed this process, and the workers that the epoch will start."""
        loader = runner.train_dataloader
        if not by_iterations(runner):
            seed_workers(runner, runner.epoch)
            set_random_seed(seed_of(runner, runner.epoch))
        elif is_infinite(loader):
            started = runner.train_loop.dataloader_iterator
            runner.train_loop.dataloader_iterator = seeded(runner, started, 0)
        else:
            runner.train_loop.dataloader_iterator = epoch_after_epoch(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Pass seed and epoch to a data preprocessor that draws crops and flips per image."""
        preprocessor = unwrapped(runner.model).data_preprocessor
        if isinstance(preprocessor, InMemoryDataPreprocessor):
            preprocessor.seed_and_epoch = runner.seed, int(epochs_over(runner))

    def after_train(self, runner: Runner) -> None:
        """Leave the data preprocessor as it was."""
        preprocessor = unwrapped(runner.model).data_preprocessor
        if isinstance(preprocessor, InMemoryDataPreprocessor):
            preprocessor.seed_and_epoch = None


def seed_of(runner: Runner, epoch: int, step: int = 0) -> int:
    """Of this process, for a step of an epoch."""
    entropy = (runner.seed, epoch, get_rank(), step)
    # divided by two, so that there is room for the workers' numbers
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] // 2)


def seed_workers(runner: Runner, epoch: int) -> None:
    """Seed the workers that will load the epoch's data."""
    loader = runner.train_dataloader
    if isinstance(loader.worker_init_fn, functools.partial):
        loader.worker_init_fn = functools.partial(
            loader.worker_init_fn, seed=seed_of(runner, epoch)
        )


def seeded(runner: Runner, batches: Iterator[Any], epoch: int) -> Iterator[Any]:
    """The batches of an epoch, with a seed for each: for its images and for its training step."""
    for step in itertools.count():
        set_random_seed(seed_of(runner, epoch, step))
        try:
            batch = next(batches)
        except StopIteration:
            return
        yield batch


def epoch_after_epoch(runner: Runner) -> Iterator[Any]:
    """All batches of a training by iterations, from its first; None for those of epochs before.

    To resume, mmengine's loop takes as many batches as have been trained, and drops them.
    """
    loader = runner.train_dataloader
    resumed = runner.iter // len(loader)
    yield from itertools.repeat(None, resumed * len(loader))
    for epoch in itertools.count(resumed):
        for holder in (loader, loader.batch_sampler):
            set_epoch = getattr(getattr(holder, 'sampler', None), 'set_epoch', None)
            if set_epoch is not None:
                set_epoch(epoch)
        seed_workers(runner, epoch)
        yield from seeded(runner, iter(loader), epoch)
