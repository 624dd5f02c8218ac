"""What is inside of a runner's wrappers."""

from typing import Any

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
