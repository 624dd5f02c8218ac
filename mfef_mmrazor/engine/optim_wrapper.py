"""Mixed precision where mmengine's own wrapper refuses to work."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import autocast
from mmrazor.registry import OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Trains under bf16 autocast, on any device, the CPU included.

    bfloat16 has the range of float32, so that no loss scaling is needed. ``tools/train.py --amp``
    chooses it on the CPU, and mmengine's ``AmpOptimWrapper`` elsewhere.

    Args:
        **kwargs: As in :class:`mmengine.optim.OptimWrapper`.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass under autocast."""
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield


def has_bf16(device: str | None = None) -> bool:
    """Whether a device has instructions for bf16: by default the GPU, or without one the CPU.

    Without them it is emulated, many times slower. Of CPUs that are not x86, true is assumed.
    """
    if device != 'cpu' and torch.cuda.is_available():
        return torch.cuda.get_device_capability() >= (8, 0)
    supported = getattr(torch.cpu, '_is_avx512_bf16_supported', bool)  # not in torch < 2.5
    return bool(supported()) or platform.machine() not in ('x86_64', 'AMD64')
