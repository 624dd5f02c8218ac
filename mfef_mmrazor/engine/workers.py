"""The processes in which a run's data loaders read images."""

import multiprocessing
import signal
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.runner import Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator

from .position import by_iterations


def restart_workers(runner: Runner) -> None:
    """Start workers anew that have started already, before signals were kept from them.

    They are those of persistent loaders, and of a training by iterations, which start with it.
    """
    loop: Any = runner.train_loop
    for loader in (loop.dataloader, *([runner.val_loop.dataloader] if runner.val_loop else [])):
        loader._iterator = None
    if not by_iterations(runner) or not loop.dataloader.num_workers:
        return
    for sampler in (loop.dataloader.sampler, loop.dataloader.batch_sampler.sampler):
        if isinstance(sampler, InfiniteSampler):
            sampler.indices = sampler._indices_of_rank()
    loop.dataloader_iterator = _InfiniteDataloaderIterator(loop.dataloader)


def end_workers(runner: Runner) -> None:
    """End what still loads images for a run that is over.

    A runner, its loops and their loaders refer to each other. Python's garbage collector, which
    would free them later on, frees the workers' queues first; torch then waits ten seconds for each
    worker.
    """
    for loop in (runner._train_loop, runner._val_loop):
        if hasattr(loop, 'dataloader_iterator'):
            del loop.dataloader_iterator
        if hasattr(loop, 'dataloader'):  # it was built
            loop.dataloader._iterator = None


def kill_workers() -> None:
    """End the workers of data loaders that something has interrupted, as the process ends."""
    if hasattr(signal, 'SIGCHLD'):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would take it for a failure
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
