"""The model inside what several processes wrap it in."""

from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn


def unwrapped(model: nn.Module) -> Any:
    """The model itself, of a runner's model that may be wrapped for several processes."""
    return model.module if is_model_wrapper(model) else model
