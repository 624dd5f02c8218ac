"""The precision that losses are taken in."""

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """At least float32: losses are not taken in the half precision of autocast."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
