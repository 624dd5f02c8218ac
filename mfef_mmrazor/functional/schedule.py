"""How the weight of the distillation rises in the first epochs."""

import math


def sigmoid_ramp_up(epoch: float, length: float) -> float:
    r"""Weight that rises from 0.0067 to 1 over the first ``length`` epochs, or iterations.

    .. math:: w(e) = \exp\big(-5 (1 - \min(e, R) / R)^2\big)

    Of Temporal Ensembling (https://arxiv.org/abs/1610.02242), as most online methods use it.

    Args:
        epoch: Epochs finished so far, from 0.
        length: R, in epochs; 0 switches the ramp-up off (always 1).

    Raises:
        ValueError: ``length`` is not a number, or is negative.

    Example:
        >>> [round(sigmoid_ramp_up(e, 80), 7) for e in (0, 40, 80)]
        [0.0067379, 0.2865048, 1.0]
    """
    if not isinstance(length, (int, float)) or not length >= 0:
        raise ValueError(f'the ramp-up length is {length!r} epochs, expected a number, 0 or more')
    if length == 0:
        return 1.0
    return math.exp(-5.0 * (1.0 - min(epoch, length) / length) ** 2)
