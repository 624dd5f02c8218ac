"""Lets a distiller act right before and right after each step of the optimizer."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmrazor.registry import HOOKS
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from ...models.algorithms.online_distill import OnlineDistill
from ..unwrap import unwrapped


@HOOKS.register_module()
class DistillerUpdateHook(Hook):
    """Calls the distiller's ``before_update`` and ``after_update``.

    SwitOKD drops the gradients of a student that is to stand still; OKDPH averages the students'
    weights. Both happen at a step of the optimizer: after the gradients of several processes have
    become one, not at all where mixed precision or ``FiniteHook`` leaves the step out, and once
    where gradients of several batches are accumulated. Methods without such a need are left alone.

    Raises:
        ValueError: Gradients are accumulated, and the method decides batch by batch.
    """

    def before_train(self, runner: Runner) -> None:
        """Follow the optimizer."""
        model = unwrapped(runner.model)
        self.handles: list[RemovableHandle] = []
        if not isinstance(model, OnlineDistill) or not model.distiller.acts_on_updates:
            return
        batches = runner.optim_wrapper._accumulative_counts
        if model.distiller.decides_by_batch and batches > 1:
            raise ValueError(
                f'optim_wrapper.accumulative_counts={batches}: {type(model.distiller).__name__} '
                'decides batch by batch who learns, so a step must be of one batch: set it to 1'
            )
        self.handles = announce_updates(model, runner.optim_wrapper.optimizer)

    def after_train(self, runner: Runner) -> None:
        """Leave the optimizer and the distiller as they were."""
        for handle in self.handles:
            handle.remove()
        if self.handles:
            unwrapped(runner.model).distiller.updates_announced = False


def announce_updates(model: OnlineDistill, optimizer: Optimizer) -> list[RemovableHandle]:
    """Tell the model's distiller of every step of the optimizer, from now on.

    Args:
        model: The model, unwrapped.
        optimizer: What moves its weights.

    Returns:
        Handles that end it.
    """
    distiller = model.distiller
    distiller.updates_announced = True

    counts = False

    def before(*_: Any) -> None:
        nonlocal counts
        moves = any(p.grad is not None for group in optimizer.param_groups for p in group['params'])
        counts = moves and not (model.distillation_stopped or overflows(optimizer))
        if counts:
            distiller.before_update(model.students)

    def after(*_: Any) -> None:
        if counts:
            distiller.after_update(model.students)

    return [optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)]


def overflows(optimizer: Optimizer) -> bool:
    """Whether a fused optimizer leaves this step out because float16 overflowed. For other
    optimizers, the gradient scaler leaves out such a step by itself."""
    found = getattr(optimizer, 'found_inf', None)
    return found is not None and bool(found)
