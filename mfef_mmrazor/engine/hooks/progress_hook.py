"""A progress bar on a terminal; nothing anywhere else."""

import logging
import math
import sys
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmrazor.registry import HOOKS
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..position import by_iterations, steps_per_epoch
from ..results import accuracies


@HOOKS.register_module()
class ProgressHook(Hook):
    """One bar over all iterations, with the time left, the loss and the last accuracies.

    While it is shown, the log's lines go to the log file alone. Where the output is not a terminal
    (a file, a cluster's log), mmengine's plain lines are printed and this hook does nothing.
    """

    priority = 'LOW'

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self.accuracy = ''

    def before_train(self, runner: Runner) -> None:
        """Show the bar, if there is a terminal to show it on."""
        if not (sys.stdout.isatty() and is_main_process()):
            return
        self.console_handlers = [
            handler
            for handler in runner.logger.handlers
            if isinstance(handler, logging.StreamHandler)
            and not isinstance(handler, logging.FileHandler)
        ]
        self.levels = [handler.level for handler in self.console_handlers]
        for handler in self.console_handlers:
            handler.setLevel(logging.WARNING)
        self.progress = Progress(
            TextColumn('epoch {task.fields[epoch]}'),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn('{task.fields[loss]}  {task.fields[accuracy]}'),
            console=Console(),
        )
        self.task = self.progress.add_task(
            '', total=runner.max_iters, completed=runner.iter, epoch='', loss='', accuracy=''
        )
        self.progress.start()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Advance the bar."""
        if self.progress:
            self.progress.update(
                self.task,
                completed=runner.iter + 1,
                epoch=self.epoch(runner),
                loss=f'loss {outputs["loss"].item():.3f}',
            )

    @staticmethod
    def epoch(runner: Runner) -> str:
        """The epoch the training is in, of how many."""
        if not by_iterations(runner):
            return f'{runner.epoch + 1}/{runner.max_epochs}'
        steps = steps_per_epoch(runner)
        return f'{runner.iter // steps + 1}/{math.ceil(runner.max_iters / steps)}'

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Show the accuracies."""
        if self.progress:
            found = accuracies(metrics or {})
            shown = ' '.join(f'{name} {value:.1f}%' for name, value in found.items())
            self.progress.update(self.task, accuracy=shown)

    def after_train(self, runner: Runner) -> None:
        """Remove the progress bar and restore the log level."""
        self.stop()

    def stop(self) -> None:
        """The same, also for a training that has failed: the bar hides the terminal's cursor."""
        if self.progress:
            self.progress.stop()
            self.progress = None
            for handler, level in zip(self.console_handlers, self.levels, strict=True):
                handler.setLevel(level)
