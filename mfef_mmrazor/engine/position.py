"""How far a run is, in the unit that it goes by: epochs or iterations."""

import math
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader


def by_iterations(runner: Runner) -> bool:
    """Whether the runner's training goes by iterations."""
    return isinstance(runner.train_loop, IterBasedTrainLoop)


def is_infinite(dataloader: DataLoader[Any]) -> bool:
    """Whether a data loader never comes to an end."""
    return any(
        isinstance(getattr(holder, 'sampler', None), InfiniteSampler)
        for holder in (dataloader, dataloader.batch_sampler)
    )


def steps_per_epoch(runner: Runner) -> int:
    """Steps in which all processes together see as many images as there are."""
    loader = runner.train_dataloader
    # an infinite sampler's length is that of the whole data set, in every process
    return math.ceil(len(loader) / runner.world_size) if is_infinite(loader) else len(loader)


def epochs_over(runner: Runner) -> float:
    """Epochs that are over; in a training by iterations, with fractions."""
    return runner.iter / steps_per_epoch(runner) if by_iterations(runner) else runner.epoch


def position(runner: Runner) -> dict[str, int]:
    """``{'epoch': 3}``, or in a training by iterations ``{'iter': 300}``: what is over."""
    return dict(iter=runner.iter) if by_iterations(runner) else dict(epoch=runner.epoch)
