"""Ends a run at a signal, with a checkpoint of that very iteration, and takes it up from there."""

import functools
import itertools
import multiprocessing.util
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, barrier, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmrazor.registry import HOOKS

from ..position import by_iterations
from ..random_state import random_state, set_random_state
from ..same_run import changed, identity
from ..unwrap import averaging_hook, is_accumulating
from ..workers import kill_workers, restart_workers
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
    (``epoch_3_iter_137.pth``: three epochs and some iterations; in a training by iterations
    ``iter_137.pth``) or of a validation, which the resumed run repeats. With ``--resume`` it goes
    on with the next batch as if nothing had happened: the checkpoint has the random states of all
    processes. Batches that were seen are loaded again only in a training by iterations, and where
    workers load them: there, loading advances the workers' random numbers to where they were.
    """

    priority = 'LOWEST'  # when all others have done their part of the iteration

    def __init__(self) -> None:
        self.received = 0
        self.stopped_at: dict[str, Any] | None = None
        self.resumed_at: dict[str, Any] | None = None
        # batches seen in the epoch that was stopped, if its batches have changed since; else None
        self.given_up: int | None = None
        self.ahead = 0  # iterations beyond those of the finished epochs, at their present length
        self.former: dict[signal.Signals, Any] = {}
        self.first_pass = True  # mmpretrain's EMAHook can make a second one, with other weights
        self.common_batches = 0  # of a pass, that all processes have

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Remember where in the epoch the run was stopped; it means nothing to other batches."""
        if not runner._resume:
            return
        self.resumed_at, self.ahead = checkpoint.get('mid_epoch'), checkpoint.get('ahead', 0)
        was = checkpoint.get('meta', {}).get('run', {})
        if {'batch_size', 'processes'} & {*changed(was, identity(runner))}:
            self.given_up, self.resumed_at = (self.resumed_at or {}).get('batches', 0), None
        elif self.resumed_at and not by_iterations(runner):
            loop: Any = runner.train_loop
            loop.run_epoch = functools.partial(run_rest_of_epoch, loop, self.resumed_at)

    def before_train(self, runner: Runner) -> None:
        """Listen to the signals (only the main thread can).

        Signals are let through only after iterations. So workers, which start in between, never
        get one: a cluster signals all processes of a job, and torch's workers would die of it. When
        Python ends, its signal to terminate does not reach the workers either, so they are killed.
        """
        if not by_iterations(runner):
            self._count_from_here(runner)
        if threading.current_thread() is not threading.main_thread():
            return
        self.former = {
            each: signal.signal(each, self._note)
            for each in SIGNALS
            if signal.getsignal(each) != signal.SIG_IGN  # as nohup's
        }
        let_through(False)
        multiprocessing.util.Finalize(None, kill_workers, exitpriority=0)
        restart_workers(runner)

    def _count_from_here(self, runner: Runner) -> None:
        seen = self.resumed_at['batches'] if self.resumed_at else 0
        ahead = runner.iter - runner.epoch * len(runner.train_dataloader) - seen
        if ahead:  # or behind; mmengine ends an accumulation at the iteration it expects to be last
            last = runner.max_iters + ahead
            runner.optim_wrapper.initialize_count_status(runner.model, runner.iter, last)
        twice = ahead - self.ahead if self.given_up is None else self.given_up
        self.ahead = ahead
        if twice > 0:
            runner.logger.warning(
                f'resumed from within an epoch, which starts over; steps trained twice: {twice}. '
                'Checkpoints of whole epochs, and of a stop by a signal, go on exactly'
            )

    def _note(self, number: int, frame: Any) -> None:
        self.received = number

    def before_train_epoch(self, runner: Runner) -> None:
        """In a training by iterations, go on with the random numbers as well."""
        if self.resumed_at and by_iterations(runner):
            loop: Any = runner.train_loop
            loop.dataloader_iterator = batches_after(
                loop.dataloader_iterator, self.resumed_at['batches'], self.resumed_at['random']
            )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stop within the epoch."""
        last = not by_iterations(runner) and batch_idx + 1 == len(runner.train_dataloader)
        if is_accumulating(runner) or last or not self._told():
            return
        self.stopped_at = dict(batches=batch_idx + 1, random=all_gather_object(random_state()))
        self._stop(runner, dict(epoch=runner.epoch, iter=runner.iter + 1))

    def after_train_epoch(self, runner: Runner) -> None:
        """Stop at the end of an epoch."""
        if self._told():
            over = runner.epoch + (not by_iterations(runner))
            self._stop(runner, dict(epoch=over, iter=runner.iter))

    def before_val_epoch(self, runner: Runner) -> None:
        """Expect a pass with the weights, or the average, that the hooks have put in."""
        self.first_pass = True
        batches = torch.tensor(len(runner.val_dataloader))
        all_reduce(batches, op='min')  # some samplers give one process a batch more
        self.common_batches = int(batches)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stop while the epoch is scored."""
        if self.first_pass and batch_idx < self.common_batches and self._told():
            averaging = averaging_hook(runner)
            # mmpretrain's hook can be told not to put the average in the place of the weights
            if averaging and getattr(averaging, 'evaluate_on_ema', True):
                averaging._swap_ema_parameters()
            self._stop(runner, dict(epoch=runner.epoch, iter=runner.iter))
        if batch_idx + 1 == len(runner.val_dataloader):
            self.first_pass = False

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Put in where in the epoch the run was stopped, and what was trained twice before."""
        checkpoint['ahead'] = self.ahead
        if self.stopped_at:
            checkpoint['mid_epoch'] = self.stopped_at

    def after_train(self, runner: Runner) -> None:
        """Leave the signals as they were, once."""
        if self.former:
            let_through(True)
        for number, handler in self.former.items():
            signal.signal(number, handler)
        self.former = {}

    def _told(self) -> bool:
        """Whether any process has received a signal; all of them stop at the same iteration."""
        if self.former:
            let_through(True)
            let_through(False)
        if get_world_size() > 1:
            received = torch.tensor(self.received)
            all_reduce(received, op='max')
            self.received = int(received)
        return self.received > 0

    def _stop(self, runner: Runner, meta: dict[str, int]) -> None:
        """Save, and end the process.

        Args:
            runner: The runner.
            meta: The numbers of epochs and iterations that are over, ``epoch`` and ``iter``.
        """
        hooks = [hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)]
        for hook in hooks:
            if self.stopped_at and hook.by_epoch:
                hook.save(runner, f'epoch_{meta["epoch"]}_iter_{meta["iter"]}.pth', dict(meta))
            elif self.stopped_at:  # it may just have been saved, without where in an epoch it is
                hook._save_checkpoint_with_step(runner, meta['iter'], dict(meta))
            else:
                hook.save_unless_saved(runner, meta)
        runner.logger.info(
            f'stopped by {signal.Signals(self.received).name} after iteration {meta["iter"]}; '
            + ('go on with --resume' if hooks else 'nothing is saved: there is no checkpoint hook')
        )
        barrier()  # a launcher ends the others, also the one that still writes, when one has ended
        self.after_train(runner)
        raise SystemExit(128 + self.received)


def let_through(through: bool) -> None:
    """Let the signals through to this thread, or hold them back (Windows cannot)."""
    if hasattr(signal, 'pthread_sigmask'):
        signal.pthread_sigmask(signal.SIG_UNBLOCK if through else signal.SIG_BLOCK, SIGNALS)


def batches_after(
    batches: Iterator[Any], number: int, states: list[dict[str, Any]]
) -> Iterator[Any]:
    """All batches; after the first ``number`` of them, the random state is restored.

    To resume, mmengine's loop takes as many batches as have been trained, and drops them.
    """
    yield from itertools.islice(batches, number)
    set_random_state(states[get_rank()])
    yield from batches


def run_rest_of_epoch(loop: EpochBasedTrainLoop, state: dict[str, Any]) -> None:
    """mmengine's ``run_epoch``, from the batch after the last one that was seen.

    Args:
        loop: The training's loop, which gets its own ``run_epoch`` back.
        state: ``batches``, the number of those that were seen, and ``random``, every process's
            random state after them.
    """
    del loop.run_epoch
    loop.runner.call_hook('before_train_epoch')
    loop.runner.model.train()
    batches = iter(loop.dataloader)
    skip(batches, state['batches'])
    set_random_state(state['random'][get_rank()])
    for i, data_batch in enumerate(batches, start=state['batches']):
        loop.run_iter(i, data_batch)
    loop.runner.call_hook('after_train_epoch')
    loop._epoch += 1


def skip(batches: Iterator[Any], number: int) -> None:
    """Go on to a later batch of a data loader, without loading those before if nobody needs to."""
    workers = getattr(batches, '_num_workers', 1)
    for _ in range(number):
        if workers:
            next(batches)
        else:
            batches._next_index()  # type: ignore[attr-defined]
