"""Tells the distiller how far the training is."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmrazor.registry import HOOKS

from ...models.algorithms.online_distill import OnlineDistill
from ...models.distillers.online_distiller import Progress
from ..position import by_iterations, epochs_over, steps_per_epoch
from ..unwrap import unwrapped


@HOOKS.register_module()
class RampUpHook(Hook):
    """Before every step, the distiller gets the epoch and the iteration of its own runner.

    The ramp-up goes by them. In a training by iterations, an epoch is one pass of all processes
    over the data. A model that is trained without a distiller is left alone.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Warn if the distillation does not get to its full weight in this training."""
        model, steps = unwrapped(runner.model), steps_per_epoch(runner)
        if not isinstance(model, OnlineDistill):
            return
        iterations = runner.max_iters
        epochs = iterations / steps if by_iterations(runner) else runner.max_epochs
        distiller = model.distiller
        if distiller.ramp_up_iters is not None:
            given, length, unit = 'ramp_up_iters', iterations, 'iterations'
        else:
            given, length, unit = 'ramp_up_epochs', epochs, 'epochs'
        if getattr(distiller, given) > length:
            runner.logger.warning(
                f'{given}={getattr(distiller, given)}, but the training has {length:.6g} {unit}: '
                'the distillation never gets to its full weight. About a quarter is usual'
            )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Say how far the training is."""
        model = unwrapped(runner.model)
        if isinstance(model, OnlineDistill):
            model.distiller.progress = Progress(epochs_over(runner), runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Let the model go: its next runner may be without this hook."""
        model = unwrapped(runner.model)
        if isinstance(model, OnlineDistill):
            model.distiller.progress = None
