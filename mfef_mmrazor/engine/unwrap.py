"""What is inside of a runner: the model, its optimizers, the average of its weights."""

from typing import Any

from mmengine.hooks import EMAHook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn


def unwrapped(model: nn.Module) -> Any:
    """Return the model inside its DDP wrapper, if there is one."""
    return model.module if is_model_wrapper(model) else model


def optim_wrappers(runner: Runner) -> list[OptimWrapper]:
    """The runner's optimizers: mostly one, or several by name."""
    wrapper = runner.optim_wrapper
    return [*wrapper.values()] if isinstance(wrapper, OptimWrapperDict) else [wrapper]


def is_accumulating(runner: Runner) -> bool:
    """Whether there are gradients of iterations after the last step of an optimizer."""
    return any(not wrapper.should_update() for wrapper in optim_wrappers(runner))


def averaging_hook(runner: Runner) -> EMAHook | None:
    """The hook that keeps a running average of the model, if there is one."""
    return next((hook for hook in runner.hooks if isinstance(hook, EMAHook)), None)
