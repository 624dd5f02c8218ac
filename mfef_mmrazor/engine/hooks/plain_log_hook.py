"""Stores the log in checkpoints as plain tensors."""

from typing import Any

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner
from mmengine.utils import apply_to
from mmrazor.registry import HOOKS


@HOOKS.register_module()
class PlainLogHook(Hook):
    """Keeps classes out of checkpoints, so that reading one needs no list of allowed classes.

    mmengine pickles its message hub's ``HistoryBuffer`` objects. They are stored under
    ``log_history`` instead, as two tensors each, values and their counts.
    Checkpoints of runs without this hook are read as before.
    """

    priority = 'VERY_LOW'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Replace the buffers by tensors, and numpy's numbers by Python's."""
        hub = checkpoint['message_hub']
        # to resume, a checkpoint is read onto the device, and Apple's GPUs have no float64
        dtype = torch.float32 if get_device() == 'mps' else None
        checkpoint['log_history'] = {
            name: tuple(torch.tensor(part, dtype=dtype) for part in buffer.data)
            for name, buffer in hub['log_scalars'].items()
        }
        checkpoint['message_hub'] = apply_to(
            dict(hub, log_scalars={}),
            lambda value: isinstance(value, np.generic),
            lambda value: value.item(),
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Make the buffers again, as resuming expects them."""
        for name, parts in checkpoint.get('log_history', {}).items():
            values, counts = (part.cpu().numpy() for part in parts)
            checkpoint['message_hub']['log_scalars'][name] = HistoryBuffer(values, counts)
