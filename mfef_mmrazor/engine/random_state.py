"""The state of all generators of random numbers of a process."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """Python's, NumPy's and torch's, as what a checkpoint can hold."""
    kind, keys, *rest = np.random.get_state()
    return dict(
        python=random.getstate(),
        numpy=(kind, np.asarray(keys).tolist(), *rest),
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    )


def set_random_state(state: dict[str, Any]) -> None:
    """Set what :func:`random_state` gave."""
    random.setstate(state['python'])
    np.random.set_state(state['numpy'])
    torch.set_rng_state(state['torch'].cpu())
    if state['cuda'] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Leave the random numbers that follow as if nothing inside had drawn any."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)
