"""When a training run has diverged."""

from __future__ import annotations

import math
from collections.abc import Sequence

LOSS_RATIO = 3.0  #: a loss above its start by more than this factor is bad
EVALUATIONS = 3  #: so many bad evaluations in a row are a divergence


def divergence(losses: Sequence[float], evaluations: Sequence[float]) -> str | None:
    """Say why a run has diverged, or ``None``.

    It has if the last training loss of a batch or the last evaluated loss is not finite, or if each of the
    last `EVALUATIONS` evaluated losses is above `LOSS_RATIO` times the first.

    Parameters
    ----------
    losses
        Of the batches, so far.
    evaluations
        Losses of the fixed training samples so far; the first is that of the initial weights.

    Examples
    --------
    >>> divergence([2.3, 2.9], [2.3, 7.5, 8.0])
    >>> divergence([2.3, 2.9], [2.3, 7.5, 8.0, 9.0])
    'the loss of 3 evaluations in a row is above 3 times its start of 2.3, the last is 9'
    >>> divergence([2.3, float("nan")], [2.3])
    'the loss of a batch is nan'
    """
    for what, values in (("the loss of a batch", losses), ("the evaluated loss", evaluations)):
        if values and not math.isfinite(values[-1]):
            return f"{what} is {values[-1]}"
    last = evaluations[1:][-EVALUATIONS:]
    if len(last) < EVALUATIONS:
        return None
    # Three times a loss that is positive; as far above one that may be negative.
    limit = evaluations[0] + (LOSS_RATIO - 1.0) * abs(evaluations[0])
    if all(loss > limit for loss in last):
        return (
            f"the loss of {EVALUATIONS} evaluations in a row is above {LOSS_RATIO:g} times "
            f"its start of {evaluations[0]:.4g}, the last is {last[-1]:.4g}"
        )
    return None
