"""Replaces parts of mmengine by faster ones that do the same.

A run with many predictors, processes or steps waits for them.
"""

import importlib
import io
import itertools
import pickle
from typing import Any

import numpy as np
import torch
from mmengine import dist
from mmengine.evaluator import metric
from mmengine.logging import HistoryBuffer


def apply() -> None:
    """Put the faster parts in. ``import mfef_mmrazor`` calls it."""
    format_configs_once()
    metric.collect_results = collect_results
    HistoryBuffer.update = update


def format_configs_once() -> None:
    """Let mmengine format the text of a config once.

    It does so four times before the first iteration and again for every checkpoint, which took more
    of a short run than its training.
    """
    config: Any = importlib.import_module('mmengine.config.config')
    if not hasattr(config, 'FormatCode') or hasattr(config.FormatCode, 'formatted'):
        return

    def format_code(text: str, **options: Any) -> Any:
        if text not in formatted:
            formatted.clear()  # a run has one config
            formatted[text] = format_anew(text, **options)
        return formatted[text]

    format_anew: Any = config.FormatCode
    formatted: dict[str, Any] = {}
    format_code.formatted = formatted  # type: ignore
    config.FormatCode = format_code


class ArrayPickler(pickle.Pickler):
    """Pickles tensors as NumPy arrays: faster, and without the memory that a view is of."""

    def reducer_override(self, value: Any) -> Any:
        """How a value is pickled; of what is not a tensor on the CPU as by default."""
        if type(value) is not torch.Tensor:
            return NotImplemented
        try:
            return torch.from_numpy, (value.numpy(),)
        except (TypeError, RuntimeError):  # bf16, on a GPU
            return NotImplemented


def collect_results(
    results: list[Any], size: int, device: str = 'cpu', tmpdir: str | None = None
) -> list[Any] | None:
    """Results of all processes in the main one, else None: as mmengine's of this name.

    mmengine pickles the scores of each image as a tensor, which keeps the memory of its whole
    batch. With seven predictors and 10,000 images this took a minute.
    """
    if dist.get_world_size() == 1:
        return results[:size]
    packed = io.BytesIO()
    ArrayPickler(packed).dump(results)
    parts = dist.collect_results([packed.getvalue()], dist.get_world_size(), device, tmpdir)
    if parts is None:
        return None
    in_turn = itertools.zip_longest(*map(pickle.loads, parts))
    return [one for turn in in_turn for one in turn if one is not None][:size]


def update(self: Any, log_val: float, count: int = 1) -> None:
    """Add a number to a log: as the method of mmengine's ``HistoryBuffer``.

    mmengine copies each scalar's whole history at every step: after 250,000 steps this took 10 ms a
    step.
    """
    if not (isinstance(log_val, (int, float)) and isinstance(count, (int, float))):
        raise TypeError(
            f'expected a number and how many it stands for, got {log_val!r} and {count!r}'
        )
    self._log_history = appended(self._log_history, log_val)[-self.max_length :]
    self._count_history = appended(self._count_history, count)[-self.max_length :]


def appended(history: Any, value: float) -> Any:
    """A history with one value more: the used part of an array that grows by doubling."""
    if history.dtype != np.float64:
        return np.append(history, value)
    store, first = history, 0
    if history.base is not None:
        store = history.base
        first = (history.ctypes.data - store.ctypes.data) // history.itemsize
    end = first + len(history)
    if end == len(store):
        store = np.empty(2 * len(history) + 16)
        store[: len(history)] = history
        first, end = 0, len(history)
    store[end] = value
    return store[first : end + 1]
