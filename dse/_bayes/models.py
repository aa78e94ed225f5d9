"""Model of one outcome for the search: a transform, and a committee of Gaussian processes.

No kernel is best on every problem, and tens of points do not tell which is. So several are fitted and
weighted by how well each predicts the points it has not seen, by closed-form leave-one-out.

Hyper-parameters are fitted from scratch at every tenth observation, and from there in a few steps: from
the first ten, twenty, ... observations of the history, whoever fitted them when. A campaign that was
resumed has the same models as one that was not; the cache only saves the work.

References
----------
.. [Yao18] Y. Yao, A. Vehtari, D. Simpson, A. Gelman, "Using Stacking to Average Bayesian Predictive
   Distributions", Bayesian Analysis 2018, arXiv 1704.02030: pseudo-BMA weights.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular

from dse._bayes.columns import Columns
from dse._bayes.gp import GaussianProcess, fit
from dse._bayes.kernels import Inputs, Kernel
from dse._bayes.loo import LeaveOneOut

__all__ = ["Cache", "Columns", "ModelError", "OutcomeModel", "SampledModel", "Transform", "transformed"]

Transform: TypeAlias = Literal["none", "log", "neglog"]
Cache: TypeAlias = MutableMapping[Any, Any]

KERNELS = (Kernel("matern52"), Kernel("matern52", linear=True), Kernel("matern52", levels=True))

_TREND = Kernel("matern52", trend=True)  # joins the committee where there are predictions to build on

_EVERY = 10  # observations between fits from scratch
_STEPS, _WARM_STEPS = 60, 12
_FEW = 12  # values of a numeric column that may also be levels
_TEMPER = 0.5  # leave-one-out densities of neighbours are not independent: less evidence than their sum
# Of log density per outcome, by which the member that builds on predictions has to be the better: tens of
# outcomes agree a little with almost anything, and the more of them there are, the less they need it.
_LEAD = 0.2
_LEAST_VARIANCE = 1e-8  # of a standardised outcome


class ModelError(RuntimeError):
    """No model can be fitted to the data."""


def transformed(transform: Transform, y: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Minimised costs on the scale they are modelled on, order kept; NaN outside its domain.

    ``"log"`` is for positive costs, ``"neglog"``, minus the logarithm of their negative, for negative
    ones: maximised objectives that are positive.
    """
    y = np.asarray(y, dtype=np.float64)
    if transform == "none":
        return y
    sign = 1.0 if transform == "log" else -1.0
    domain = sign * y > 0
    return np.where(domain, sign * np.log(np.where(domain, sign * y, 1.0)), np.nan)


def _candidates(y: Float[np.ndarray, " n"]) -> tuple[Transform, ...]:
    return ("none", "log") if (y > 0).all() else ("none", "neglog") if (y < 0).all() else ("none",)


def _few_valued(rows: Float[np.ndarray, "n c"], columns: Columns) -> tuple[int, ...]:
    """Numeric columns each of whose values was seen twice or more on average, and which have few."""
    most = min(_FEW, len(rows) // 2)
    return tuple(j for j in columns.ordered if len(np.unique(rows[:, j])) <= most)


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """Choices made from the first observations."""

    transform: Transform
    columns: Columns
    few: tuple[int, ...]
    thetas: tuple[Float[np.ndarray, " p"], ...]


class OutcomeModel:
    """Committee of Gaussian processes of one outcome.

    Parameters
    ----------
    rows : (n, c)
    y : (n,)
        Outcomes, any scale.
    columns
        What the outcome may depend on.
    transform
        ``"auto"`` takes logarithms where that predicts better.
    cache
        Fits of earlier calls.

    Attributes
    ----------
    members, weights
        Gaussian processes of the standardised, transformed outcome, and their weights.
    transform, centre, scale
        From outcomes to that scale.
    loo
        Leave-one-out quality of the committee, on the transformed, not standardised scale.

    Raises
    ------
    ModelError
        None of the columns varies.
    """

    def __init__(
        self,
        rows: Float[np.ndarray, "n c"],
        y: Float[np.ndarray, " n"],
        columns: Columns,
        *,
        transform: Transform | Literal["auto"] = "auto",
        kernels: Sequence[Kernel] = KERNELS,
        cache: Cache | None = None,
    ) -> None:
        n = len(y)
        if columns.trend:
            kernels = (*kernels, _TREND)
        seen = columns.varied(rows)
        if not len(seen):
            raise ModelError("none of its inputs varies over the finished designs")
        point = _checkpoint(rows, y, columns, transform, tuple(kernels), {} if cache is None else cache)
        scaled = transformed(point.transform, y)
        # A later observation may leave the domain that all earlier ones were in.
        self.transform: Transform = "none" if np.isnan(scaled).any() else point.transform
        scaled = transformed(self.transform, y)
        self.centre = float(scaled.mean())
        self.scale = float(scaled.std()) or 1.0
        z = (scaled - self.centre) / self.scale
        few = _few_valued(rows, seen)
        warm = (seen, few, self.transform) == (point.columns, point.few, point.transform)
        try:
            self.members = tuple(
                fit(
                    Inputs(kernel, seen, few),
                    rows,
                    z,
                    start=theta if warm else None,
                    steps=_WARM_STEPS if warm else _STEPS,
                )
                for kernel, theta in zip(kernels, point.thetas, strict=True)
            )
        except LinAlgError as error:
            raise ModelError(f"the fit failed: {error}") from error
        each = [member.leave_one_out() for member in self.members]
        density = np.array(
            [loo.log_density - _LEAD * kernel.trend for loo, kernel in zip(each, kernels, strict=True)]
        )
        evidence = _TEMPER * n * density
        weights = np.exp(evidence - evidence.max())
        self.weights: Float[np.ndarray, " k"] = weights / weights.sum()
        means, variances = np.stack([loo.mean for loo in each]), np.stack([loo.variance for loo in each])
        mean = self.weights @ means
        variance = self.weights @ (variances + (means - mean) ** 2)
        self.loo = LeaveOneOut(scaled, self.centre + self.scale * mean, self.scale**2 * variance)

    def standardised(self, y: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Outcomes on the scale of the members; NaN outside the domain of the transform."""
        result: Float[np.ndarray, "..."] = (transformed(self.transform, y) - self.centre) / self.scale
        return result

    def predict(
        self, rows: Float[np.ndarray, "k c"]
    ) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """Mean and variance of the committee's mixture, standardised, without noise, (k,) each."""
        each = [member.predict(rows) for member in self.members]
        means, variances = (np.stack(part) for part in zip(*each, strict=True))
        mean = self.weights @ means
        return mean, self.weights @ (variances + (means - mean) ** 2)


def _checkpoint(
    rows: Float[np.ndarray, "n c"],
    y: Float[np.ndarray, " n"],
    columns: Columns,
    transform: Transform | Literal["auto"],
    kernels: tuple[Kernel, ...],
    cache: Cache,
) -> _Checkpoint:
    first = _EVERY * (len(y) // _EVERY) or len(y)
    rows, y = np.ascontiguousarray(rows[:first]), np.ascontiguousarray(y[:first])
    seen = columns.varied(rows)
    if not len(seen):
        return _Checkpoint("none", seen, (), tuple(np.empty(0) for _ in kernels))
    key = (rows.tobytes(), y.tobytes(), columns, transform, kernels)
    if key not in cache:
        cache[key] = _from_scratch(rows, y, seen, transform, kernels)
    found: _Checkpoint = cache[key]
    return found


def _from_scratch(
    rows: Float[np.ndarray, "n c"],
    y: Float[np.ndarray, " n"],
    seen: Columns,
    transform: Transform | Literal["auto"],
    kernels: tuple[Kernel, ...],
) -> _Checkpoint:
    few = _few_valued(rows, seen)

    def fitted(kernel: Kernel, z: Float[np.ndarray, " n"]) -> GaussianProcess:
        return fit(Inputs(kernel, seen, few), rows, z, steps=_STEPS)

    tried: list[tuple[float, Transform, GaussianProcess]] = []
    for option in _candidates(y) if transform == "auto" else (transform,):
        scaled = transformed(option, y)
        if np.isnan(scaled).any():
            raise ModelError(f"outcomes leave the domain of the transform {option}")
        scale = float(scaled.std()) or 1.0
        model = fitted(kernels[0], (scaled - scaled.mean()) / scale)
        # Densities of the outcomes themselves: d log(y) / dy = 1 / y.
        jacobian = 0.0 if option == "none" else -float(np.log(np.abs(y)).mean())
        tried.append((model.leave_one_out().log_density - np.log(scale) + jacobian, option, model))
    _, best, first = max(tried, key=lambda entry: entry[0])
    others = (fitted(kernel, first.y).theta for kernel in kernels[1:])
    return _Checkpoint(best, seen, few, (first.theta, *others))


class SampledModel:
    """Draws of an outcome at given rows, and what the outcome elsewhere is, given each draw.

    Parameters
    ----------
    model
    rows : (r, c)
        Designs, evaluated or pending.
    normals : (r, s)
        Standard normal variables, a column per draw: the first rows keep their draws where others follow.
    chosen : (s,)
        Member of the committee that each draw is from.

    Attributes
    ----------
    values : (s, r)
        The draws, standardised, without noise.
    """

    def __init__(
        self,
        model: OutcomeModel,
        rows: Float[np.ndarray, "r c"],
        normals: Float[np.ndarray, "r s"],
        chosen: Int[np.ndarray, " s"],
    ) -> None:
        self._model, self._rows = model, rows
        self._draws = {int(k): np.flatnonzero(chosen == k) for k in np.unique(chosen)}
        self._gain: dict[int, tuple[Float[np.ndarray, "b b"], Float[np.ndarray, "b s"]]] = {}
        self.values: Float[np.ndarray, "s r"] = np.empty((len(chosen), len(rows)))
        for k, draws in self._draws.items():
            member = model.members[k]
            mean, _ = member.predict(rows)
            factor = _factor(member.covariance(rows, rows))
            self.values[draws] = mean + (factor @ normals[:, draws]).T

    def condition(self, kept: Int[np.ndarray, " b"]) -> None:
        """Condition on the draws at these rows only; the others tell nothing about improvements."""
        self._rows = self._rows[kept]
        for k, draws in self._draws.items():
            member = self._model.members[k]
            mean, _ = member.predict(self._rows)
            factor = _factor(member.covariance(self._rows, self._rows))
            residual = (self.values[np.ix_(draws, kept)] - mean).T
            self._gain[k] = factor, cho_solve((factor, True), residual)

    def predict(
        self, rows: Float[np.ndarray, "k c"], count: int
    ) -> tuple[Float[np.ndarray, "s k"], Float[np.ndarray, "s k"]]:
        """Mean and standard deviation at each row given each of the first `count` draws, (count, k) each."""
        mean, deviation = np.empty((count, len(rows))), np.empty((count, len(rows)))
        for k, every in self._draws.items():
            draws = every[every < count]
            if not len(draws):
                continue
            member = self._model.members[k]
            factor, gain = self._gain[k]
            plain, variance, cross = member.predict_beside(rows, self._rows)
            mean[draws] = plain + gain[:, : len(draws)].T @ cross
            half = solve_triangular(factor, cross, lower=True)
            deviation[draws] = np.sqrt(np.maximum(variance - (half**2).sum(axis=0), _LEAST_VARIANCE))
        return mean, deviation


def _factor(covariance: Float[np.ndarray, "r r"]) -> Float[np.ndarray, "r r"]:
    """Cholesky factor of a posterior covariance, which is singular to rounding where data determine it."""
    jitter = _LEAST_VARIANCE
    while True:
        try:
            result: Float[np.ndarray, "r r"] = cholesky(
                covariance + jitter * np.eye(len(covariance)), lower=True
            )
        except LinAlgError:
            jitter *= 10.0
            if jitter > 1.0:
                raise
        else:
            return result
