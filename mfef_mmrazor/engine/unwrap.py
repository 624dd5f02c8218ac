"""Return the model inside its wrapper for several processes."""

from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn


def unwrapped(model: nn.Module) -> Any:
    """Return the model inside its DDP wrapper, if there is one."""
    return model.module if is_model_wrapper(model) else model
