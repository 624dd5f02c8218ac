"""What each term contributes to the loss, from the losses that a run has logged."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.logging import MessageHub

Shares = dict[int, dict[str, float]]
"""Percent of the loss by term, after so many steps."""


def logged_losses(message_hub: MessageHub) -> dict[str, np.ndarray[Any, Any]]:
    """Every loss of every step so far by its name, ``loss``, the sum of them, included."""
    return {
        name.removeprefix('train/'): history.data[0]
        for name, history in message_hub.log_scalars.items()
        if name.startswith('train/') and 'loss' in name
    }


def mean_losses(losses: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, float]:
    """Mean of each loss over its steps, without those that were left out as not finite."""
    return {name: float(x[np.isfinite(x)].mean()) for name, x in losses.items()}


def shares_by_epoch(losses: Mapping[str, np.ndarray[Any, Any]], steps: int) -> Shares:
    r"""Share of the loss, :math:`|L_t| / \sum_s |L_s|` in percent, over each whole epoch.

    Args:
        losses: What :func:`logged_losses` returns.
        steps: Steps of an epoch.

    Returns:
        By the number of steps that are over, ``own``, the students' own losses together, and the
        terms of the distiller. Empty where nothing is distilled.

    Example:
        >>> losses = {'student0.loss': [2.0], 'student1.loss': [1.0], 'distill.loss_map': [1.0]}
        >>> shares_by_epoch({name: np.array(x) for name, x in losses.items()}, steps=1)
        {1: {'own': 75.0, 'distill.loss_map': 25.0}}
    """
    terms = {name: x for name, x in losses.items() if name != 'loss'}
    if not any(name.startswith('distill.') for name in terms):
        return {}
    shares = {}
    for over in range(steps, min(map(len, terms.values())) + 1, steps):
        mean = mean_losses({name: np.abs(x[over - steps : over]) for name, x in terms.items()})
        own = sum(x for name, x in mean.items() if not name.startswith('distill.'))
        parts = {'own': own} | {k: x for k, x in mean.items() if k.startswith('distill.')}
        total = sum(parts.values()) or 1.0
        shares[over] = {name: 100 * x / total for name, x in parts.items()}
    return shares


def remarks(losses: Mapping[str, float], taught: bool) -> dict[str, str]:
    """What to say of each term that is lost among the others or drowns the students' own losses.

    Args:
        losses: Every loss by name: ``student0.loss``, ..., ``distill.loss_...``.
        taught: Whether the distillation has its full weight by now.

    Example:
        >>> losses = {'student0.loss': 2.0, 'distill.loss_map': 0.001}
        >>> remarks(losses, taught=True)['distill.loss_map']
        'is 0.05 % of the loss: too little to matter; try a larger loss_weight'
    """
    terms = {name: x for name, x in losses.items() if name != 'loss'}
    own = [x for name, x in terms.items() if not name.startswith('distill.')]
    mean, total = sum(own) / max(1, len(own)), sum(map(abs, terms.values()))
    said = {}
    for name, x in terms.items():
        if not name.startswith('distill.') or x == 0:  # 0 is a term that is switched off
            continue
        if abs(x) > 10 * mean > 0:
            said[name] = (
                f"is {abs(x) / mean:.3g} times the students' own loss: try a smaller loss_weight, "
                'a longer ramp_up_epochs or a lower learning rate'
            )
        elif taught and abs(x) < 0.01 * total:
            said[name] = (
                f'is {100 * abs(x) / total:.2g} % of the loss: too little to matter; try a larger '
                'loss_weight'
            )
    return said
