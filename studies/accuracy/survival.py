"""A first guess of the share that training keeps: it survives every way in which numerics can break it.

    kept = product over m of  1 / (1 + exp(s_m (f_m - c_m) / w_m))

A feature f_m far on the good side of its threshold c_m costs nothing; beyond it nothing is left; w_m is how
gradual that is, and s_m the sign: noise hurts where it is large, a margin where it is small. Signs are known,
and so is roughly where a threshold lies: noise as large as the signal, sums as large as the register, errors
of which most are clipped, changes of which none is made. Runs say the rest. Two dozen numbers can be
fitted to few runs, and a task that is new has the same thresholds, for features mean the same for every task.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float
from scipy.optimize import least_squares

from studies.accuracy.scale import modelled, modelled_slope


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """A way in which training breaks.

    Attributes
    ----------
    feature
        Of `studies.accuracy.features`.
    sign
        1 where large values hurt, -1 where small ones do.
    threshold, reach
        Where half is lost, and by how much that may be wrong: mean and deviation of the prior.
    width
        Over what the loss is spread, expected within a factor of 2.
    """

    feature: str
    sign: int
    threshold: float
    reach: float
    width: float


def _noise(feature: str, threshold: float) -> Mode:
    return Mode(feature=feature, sign=1, threshold=threshold, reach=0.5, width=0.25)


def _margin(feature: str) -> Mode:
    return Mode(feature=feature, sign=-1, threshold=1.0, reach=2.0, width=1.0)


MODES = (
    _noise("forward_operand_mean", -0.2),
    _noise("forward_accumulator_mean", -0.7),
    _noise("backward_operand_worst", -0.1),
    _noise("backward_accumulator_worst", -0.4),
    _noise("gradient_operand_mean", -0.1),
    _noise("gradient_accumulator_mean", -0.4),
    _margin("forward_overflow_margin"),
    _margin("gradient_overflow_margin"),
    Mode(feature="error_clipped_worst", sign=1, threshold=0.7, reach=0.3, width=0.2),
    Mode(feature="update_lost", sign=1, threshold=1.0, reach=0.3, width=0.2),
    Mode(feature="update_walk", sign=1, threshold=0.5, reach=1.0, width=0.5),
    Mode(feature="momentum_lost", sign=1, threshold=0.7, reach=0.3, width=0.2),
)
_WIDTH_REACH = 0.3  # deviation of the logarithm of a width
_BELIEF = 1.2  # weight of the prior beside a run, whose target is uncertain by about one unit
FOLDS = 5  #: of groups that are guessed without each other
_CALLS = 60  # of least squares
_FARTHEST = 30.0  # widths beyond a threshold; further out nothing changes

Features: TypeAlias = Mapping[str, Float[np.ndarray, " n"]]


class Survival:
    """Thresholds and widths of all modes; construct it by `fit_survival`."""

    def __init__(self, place: Float[np.ndarray, " p"]) -> None:
        self.place = place

    @property
    def thresholds(self) -> dict[str, tuple[float, float]]:
        """Threshold and width by feature."""
        thresholds, widths = _numbers(self.place)
        pairs = zip(thresholds.tolist(), widths.tolist(), strict=True)
        return dict(zip((mode.feature for mode in MODES), pairs, strict=True))

    def predict(self, features: Features) -> Float[np.ndarray, " n"]:
        """Share kept, on the scale of the model (`studies.accuracy.scale.modelled`), (n,)."""
        return modelled(_kept(self.place, _matrix(features)))

    def limiting(self, features: Features) -> list[str]:
        """The feature that costs each run most."""
        return [MODES[index].feature for index in _survived(self.place, _matrix(features)).argmin(axis=1)]


class CrossedSurvival:
    """Thresholds fitted to all runs, and to those without a part of the groups; of `fit_crossed`.

    What is off in a guess that did not know a group is off for a new one as well: where something learns from
    errors of guesses, a run of a group that is known must be guessed without it, and a run of another group
    by all that is known.
    """

    def __init__(self, whole: Survival, without: Mapping[Hashable, Survival]) -> None:
        self.whole, self._without = whole, dict(without)

    def predict(self, features: Features, groups: Sequence[Hashable]) -> Float[np.ndarray, " n"]:
        """Share kept, on the scale of the model, of runs by their group, (n,)."""
        guess = self.whole.predict(features)
        by_fold: dict[Survival, list[int]] = {}
        for row, group in enumerate(groups):
            if group in self._without:
                by_fold.setdefault(self._without[group], []).append(row)
        for survival, rows in by_fold.items():
            guess[rows] = survival.predict({name: values[rows] for name, values in features.items()})
        return guess


def fit_survival(
    features: Features, z: Float[np.ndarray, " n"], *, start: Survival | None = None
) -> Survival:
    """Fit to runs by penalised least squares, with all runs alike.

    Parameters
    ----------
    features
        By name, (n,) each.
    z : (n,)
        Shares kept, on the scale of the model.
    start
        Where to begin, by default at the prior.
    """
    rows, count = _matrix(features), 2 * len(MODES)

    def residuals(place: Float[np.ndarray, " p"]) -> Float[np.ndarray, " r"]:
        return np.concatenate([modelled(_kept(place, rows)) - z, _BELIEF * place])

    def jacobian(place: Float[np.ndarray, " p"]) -> Float[np.ndarray, "r p"]:
        return np.concatenate([_slopes(place, rows), _BELIEF * np.eye(count)])

    begin = np.zeros(count) if start is None else start.place
    return Survival(least_squares(residuals, begin, jac=jacobian, max_nfev=_CALLS).x)


def fit_crossed(
    features: Features,
    z: Float[np.ndarray, " n"],
    groups: Sequence[Hashable],
    *,
    start: Survival | None = None,
) -> CrossedSurvival:
    """Fit to all runs, and once without each of `FOLDS` parts of the groups."""
    numbers = {group: index % FOLDS for index, group in enumerate(dict.fromkeys(groups))}
    fold = np.array([numbers[group] for group in groups])
    whole = fit_survival(features, z, start=start)
    by_fold = {}
    for index in np.unique(fold).tolist():
        others = fold != index
        some = {name: values[others] for name, values in features.items()}
        by_fold[index] = fit_survival(some, z[others], start=whole)
    return CrossedSurvival(whole, {group: by_fold[number] for group, number in numbers.items()})


def _matrix(features: Features) -> Float[np.ndarray, "n m"]:
    return np.column_stack([features[mode.feature] for mode in MODES])


def _numbers(place: Float[np.ndarray, " p"]) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Thresholds and widths, of parameters that are standard normal a priori."""
    count = len(MODES)
    thresholds = np.array([mode.threshold for mode in MODES])
    reach = np.array([mode.reach for mode in MODES])
    widths = np.log([mode.width for mode in MODES])
    return thresholds + reach * place[:count], np.exp(widths + _WIDTH_REACH * place[count:])


def _survived(place: Float[np.ndarray, " p"], rows: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
    """Share that is left by each mode."""
    thresholds, widths = _numbers(place)
    signs = np.array([mode.sign for mode in MODES])
    left: Float[np.ndarray, "n m"] = 1.0 / (
        1.0 + np.exp(np.clip(signs * (rows - thresholds) / widths, -_FARTHEST, _FARTHEST))
    )
    return left


def _slopes(place: Float[np.ndarray, " p"], rows: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n p"]:
    """Derivatives of the guess, on the scale of the model, by the parameters."""
    thresholds, widths = _numbers(place)
    signs = np.array([mode.sign for mode in MODES])
    reach = np.array([mode.reach for mode in MODES])
    left = _survived(place, rows)
    kept = np.prod(left, axis=1, keepdims=True)
    # The logarithm of a share left falls by what is lost, for each unit of its exponent.
    lost = modelled_slope(kept) * kept * (1.0 - left)
    inside = np.abs(exponents := signs * (rows - thresholds) / widths) < _FARTHEST
    lost = np.where(inside, lost, 0.0)
    return np.concatenate([lost * signs * reach / widths, lost * exponents * _WIDTH_REACH], axis=1)


def _kept(place: Float[np.ndarray, " p"], rows: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
    kept: Float[np.ndarray, " n"] = np.prod(_survived(place, rows), axis=1)
    return kept
