"""Ends a run at a signal, with a checkpoint of that very iteration, and takes it up from there."""

import functools
import random
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmrazor.registry import HOOKS

from .checkpoint_hook import SafeCheckpointHook

SIGNALS = [
    getattr(signal, name) for name in ('SIGTERM', 'SIGUSR1', 'SIGHUP') if hasattr(signal, name)
]  # Windows has the first one only


@HOOKS.register_module()
class SignalHook(Hook):
    """Saves a checkpoint and ends the process, with status 128 + signal, when it is told to stop.

    Clusters send SIGTERM, or SIGUSR1 on demand, shortly before they take a machine away; a terminal
    that is closed sends SIGHUP. The run ends after the iteration that it is in (with gradients that
    are accumulated: after the optimizer's next step), in the middle of an epoch
    (``epoch_3_iter_137.pth``: three epochs and some iterations) or of a validation, which is made
    up for. With ``--resume`` it goes on with the next batch as if nothing had been: random states
    are in the checkpoint, of every process. Batches that were seen are not loaded again, except by
    workers, whose random numbers they use up.
    """

    priority = 'LOWEST'  # when all others have done their part of the iteration

    def __init__(self) -> None:
        self.received = 0
        self.mid_epoch: dict | None = None
        self.former: dict = {}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember where in the epoch the run was stopped."""
        if runner._resume and isinstance(runner.train_loop, EpochBasedTrainLoop):
            state = checkpoint.get('mid_epoch')
            if state:
                loop: Any = runner.train_loop
                loop.run_epoch = functools.partial(run_rest_of_epoch, loop, state)

    def before_train(self, runner: Runner) -> None:
        """Listen to the signals (only the main thread can)."""
        if threading.current_thread() is threading.main_thread():
            self.former = {each: signal.signal(each, self._note) for each in SIGNALS}

    def _note(self, number: int, frame: Any) -> None:
        self.received = number

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Stop within the epoch."""
        wrapper: Any = runner.optim_wrapper
        accumulating = wrapper._inner_count % wrapper._accumulative_counts
        last = batch_idx + 1 == len(runner.train_dataloader)
        if accumulating or (last and isinstance(runner.train_loop, EpochBasedTrainLoop)):
            return
        if self._told():
            meta = dict(epoch=runner.epoch, iter=runner.iter + 1)
            name = f'iter_{runner.iter + 1}.pth'
            if isinstance(runner.train_loop, EpochBasedTrainLoop):
                self.mid_epoch = dict(
                    batches=batch_idx + 1, random=all_gather_object(random_state())
                )
                name = f'epoch_{runner.epoch}_{name}'
            self._stop(runner, lambda hook: hook.save(runner, name, meta))

    def after_train_epoch(self, runner: Runner) -> None:
        """Stop at the end of an epoch."""
        if self._told():
            meta = dict(epoch=runner.epoch + 1, iter=runner.iter)
            self._stop(
                runner, lambda hook: hook._save_checkpoint_with_step(runner, meta['epoch'], meta)
            )

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stop while the epoch is scored."""
        if self._told():
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            self._stop(
                runner, lambda hook: hook._save_checkpoint_with_step(runner, runner.epoch, meta)
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put in where in the epoch the run was stopped."""
        if self.mid_epoch:
            checkpoint['mid_epoch'] = self.mid_epoch

    def after_train(self, runner: Runner) -> None:
        """Leave the signals as they were."""
        for number, handler in self.former.items():
            signal.signal(number, handler)

    def _told(self) -> bool:
        """Whether any process has received a signal; all of them stop at the same iteration."""
        if get_world_size() > 1:
            received = torch.tensor(self.received)
            all_reduce(received, op='max')
            self.received = int(received)
        return self.received > 0

    def _stop(self, runner: Runner, save: Any) -> None:
        name = signal.Signals(self.received).name
        saved = [save(hook) for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)]
        runner.logger.info(
            f'stopped by {name} at iteration {runner.iter + 1}; '
            + ('go on with --resume' if saved else 'nothing is saved: there is no checkpoint hook')
        )
        self.after_train(runner)
        raise SystemExit(128 + self.received)


def run_rest_of_epoch(loop: EpochBasedTrainLoop, state: dict) -> None:
    """mmengine's ``run_epoch``, from the batch after the last one that was seen.

    Args:
        loop: The training's loop, which gets its own ``run_epoch`` back.
        state: ``batches``, the number of those that were seen, and ``random``, every process's
            random state after them.
    """
    del loop.run_epoch  # type: ignore[method-assign]
    loop.runner.call_hook('before_train_epoch')
    loop.runner.model.train()
    batches = iter(loop.dataloader)
    skip(batches, state['batches'])
    set_random_state(state['random'][get_rank()])
    for i, data_batch in enumerate(batches, start=state['batches']):
        loop.run_iter(i, data_batch)
    loop.runner.call_hook('after_train_epoch')
    loop._epoch += 1


def skip(batches: Iterator, number: int) -> None:
    """Go on to a later batch of a data loader, without loading those before if nobody needs to."""
    workers = getattr(batches, '_num_workers', 1)
    for _ in range(number):
        if workers:
            next(batches)
        else:
            batches._next_index()  # type: ignore[attr-defined]


def random_state() -> dict:
    """The state of all generators of random numbers of this process."""
    kind, keys, *rest = np.random.get_state()
    return dict(
        python=random.getstate(),
        numpy=(kind, np.asarray(keys).tolist(), *rest),
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    )


def set_random_state(state: dict) -> None:
    """Set what :func:`random_state` gave."""
    random.setstate(state['python'])
    np.random.set_state(state['numpy'])
    torch.set_rng_state(state['torch'].cpu())
    if state['cuda'] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())
