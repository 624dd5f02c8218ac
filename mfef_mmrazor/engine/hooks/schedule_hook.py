"""Tells the distiller how far the training is."""

from mmengine.hooks import Hook
from mmrazor.registry import HOOKS

from ...models.algorithms.online_distill import OnlineDistill
from ...models.distillers.online_distiller import Progress
from ..unwrap import unwrapped


@HOOKS.register_module()
class ScheduleHook(Hook):
    """Before every step, the distiller gets the epoch and the iteration of its own runner.

    The ramp-up goes by them. A model that is trained without a distiller is left alone.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Say how far the training is."""
        model = unwrapped(runner.model)
        if isinstance(model, OnlineDistill):
            model.distiller.progress = Progress(epoch=runner.epoch, iteration=runner.iter)

    def after_train(self, runner) -> None:
        """Let the model go: its next runner may be without this hook."""
        model = unwrapped(runner.model)
        if isinstance(model, OnlineDistill):
            model.distiller.progress = None
