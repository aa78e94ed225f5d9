"""The scale on which accuracies of different tasks compare: the share that is kept of what the twin learns.

``kept = (accuracy - guess) / (twin - guess)``, 1 where numerics cost nothing and 0 where nothing was learnt,
with the twin's accuracy at the same fidelity. Close to either end a difference means more, so what is
modelled is

    z = log((kept + e) / (1 + e - kept)),   e = 0.05

kept in 0..1: what a seed changes is about e.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from studies.accuracy.statistics import TaskStatistics

_END = 0.05
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(32)


def kept_share(
    statistics: TaskStatistics, accuracy: Float[np.ndarray, " n"], fidelity: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Share of the twin's accuracy above guessing, (n,), in 0..1; 0 for a NaN, of a run that diverged."""
    twin = twin_accuracy(statistics, fidelity)
    kept = (np.asarray(accuracy) - statistics.guess_accuracy) / (twin - statistics.guess_accuracy)
    result: Float[np.ndarray, " n"] = np.clip(np.nan_to_num(kept, nan=0.0), 0.0, 1.0)
    return result


def twin_accuracy(statistics: TaskStatistics, fidelity: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Accuracy of the float32 twin after shares of its steps, (n,), between those measured."""
    known = statistics.twin_curve
    fidelities = np.log([share for share, _ in known])
    result: Float[np.ndarray, " n"] = np.interp(np.log(fidelity), fidelities, [value for _, value in known])
    return result


def modelled(kept: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Shares kept, (n,), on the scale of the model."""
    result: Float[np.ndarray, " n"] = np.log((kept + _END) / (1.0 + _END - kept))
    return result


def modelled_slope(kept: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Derivative of `modelled` by the share kept."""
    slope: Float[np.ndarray, "..."] = 1.0 / (kept + _END) + 1.0 / (1.0 + _END - kept)
    return slope


def kept_of(z: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """The inverse, cut to 0..1."""
    share: Float[np.ndarray, "..."] = np.clip((1.0 + 2.0 * _END) / (1.0 + np.exp(-z)) - _END, 0.0, 1.0)
    return share


def moments(
    mean: Float[np.ndarray, " n"], deviation: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Mean and standard deviation of the share kept, (n,) each, of normal numbers on the model's scale."""
    shares = kept_of(mean[:, None] + deviation[:, None] * _NODES)
    weights = _WEIGHTS / _WEIGHTS.sum()
    first = shares @ weights
    second = ((shares - first[:, None]) ** 2) @ weights
    return first, np.sqrt(second)
