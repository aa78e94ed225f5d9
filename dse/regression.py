"""Regression over several tasks: numbers that are known of every candidate, and a measurement of some.

A campaign models objectives of one space (`dse.prediction`). Here the inputs are any named columns, features
that a person derived among them, and observations belong to tasks that share what the columns say. A task
without observations is predicted from the others.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from dse._threads import one_thread

if TYPE_CHECKING:
    from dse._bayes.gp import GaussianProcess

MOST_ROWS = 300  #: to which hyper-parameters are fitted; the process itself has all observations


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A smooth function of some columns, of Matern-5/2 kind.

    Attributes
    ----------
    columns
        Names; none makes it a constant.
    own
        Whether each task has one of its own, rather than all one together.
    variance
        Expected a priori, where that of the target is 1.
    lengthscale
        Expected a priori, where that of a column alone has the deviation of its observations as unit; it
        grows with the square root of the number of columns. Far below 1 only equal rows have much in common.
    """

    columns: tuple[str, ...]
    own: bool = False
    variance: float = 1.0
    lengthscale: float = 3.0

    def __post_init__(self) -> None:
        for name in ("variance", "lengthscale"):
            if not 0.0 < (value := getattr(self, name)) < np.inf:
                raise ValueError(f"{name} must be positive and finite, got {value}")


class TaskRegression:
    """A Gaussian process that is a sum of terms, over several tasks.

    Parameters
    ----------
    terms
        Of which the function is the sum.
    seed
        Of the part of the observations that hyper-parameters are fitted to, where there are more than
        `MOST_ROWS`.

    Examples
    --------
    >>> x = np.linspace(-1.0, 1.0, 12)
    >>> model = TaskRegression([Term(columns=("x",)), Term(columns=(), own=True, variance=0.3)])
    >>> known = model.fit({"x": x}, ["a"] * 12, np.sin(3.0 * x))
    >>> mean, deviation = known.predict({"x": np.array([0.5, 0.5])}, ["a", "never seen"])
    >>> bool(abs(mean[0] - np.sin(1.5)) < 0.1), bool(deviation[1] > deviation[0])
    (True, True)
    """

    def __init__(self, terms: Sequence[Term], *, seed: int = 0) -> None:
        if not terms:
            raise ValueError("a regression must have at least one term, got none")
        self.terms, self._seed = tuple(terms), seed
        self.columns = tuple(dict.fromkeys(name for term in self.terms for name in term.columns))
        self._process: GaussianProcess | None = None

    @one_thread()
    def fit(
        self,
        columns: Mapping[str, Float[np.ndarray, " n"]],
        tasks: Sequence[str],
        y: Float[np.ndarray, " n"],
        *,
        hyperparameters_of: TaskRegression | None = None,
    ) -> TaskRegression:
        """Fit to observations; gives a fitted copy.

        Parameters
        ----------
        columns
            By name, (n,) each; others than those of the terms are ignored.
        tasks, y : (n,)
            Task and target of each observation.
        hyperparameters_of
            A fitted regression with the same terms whose hyper-parameters and scales are kept: new
            observations take milliseconds.

        Raises
        ------
        ValueError
            Fewer than 2 observations, a number that is not finite, or an unknown column.
        """
        from dse._bayes.pooled import Part, fit_pooled

        rows, y = self._rows(columns), np.asarray(y, dtype=np.float64)
        if len(y) < 2 or y.shape != (len(rows),) or len(tasks) != len(rows):
            raise ValueError(
                f"a regression needs at least 2 observations, and as many rows and tasks, "
                f"got {y.shape}, {rows.shape} and {len(tasks)}"
            )
        if not np.isfinite(y).all():
            raise ValueError(f"targets must be finite, got {y[~np.isfinite(y)][0]}")
        fitted = TaskRegression(self.terms, seed=self._seed)
        if hyperparameters_of is not None:
            old = hyperparameters_of
            if old._process is None or old.terms != self.terms:
                raise ValueError("hyperparameters_of must be fitted, with the same terms")
            fitted._numbers = dict(old._numbers)
            fitted._centre, fitted._spread = old._centre, old._spread
            fitted._mean, fitted._scale = old._mean, old._scale
            fitted._process = _conditioned(
                old._process, fitted._inputs(rows, tasks), (y - old._mean) / old._scale
            )
            return fitted
        fitted._centre = rows.mean(axis=0)
        fitted._spread = np.where(np.ptp(rows, axis=0) > 0.0, rows.std(axis=0), 1.0)
        fitted._mean, fitted._scale = float(y.mean()), float(y.std()) or 1.0
        place = {name: index for index, name in enumerate(self.columns)}
        parts = [
            Part(
                columns=tuple(place[name] for name in term.columns),
                own=term.own,
                variance=term.variance,
                lengthscale=term.lengthscale,
            )
            for term in self.terms
        ]
        inputs, target = fitted._inputs(rows, tasks), (y - fitted._mean) / fitted._scale
        some = np.arange(len(y))
        if len(y) > MOST_ROWS:
            some = np.sort(np.random.default_rng([self._seed, 3]).choice(len(y), MOST_ROWS, replace=False))
        process = fit_pooled(parts, inputs[some], target[some])
        fitted._process = process if len(some) == len(y) else _conditioned(process, inputs, target)
        return fitted

    @one_thread()
    def predict(
        self, columns: Mapping[str, Float[np.ndarray, " k"]], tasks: Sequence[str]
    ) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """Mean and standard deviation of the function for each row, (k,) each, without noise.

        Raises
        ------
        ValueError
            It is not fitted, or a number is not finite.
        """
        process = self._fitted()
        mean, variance = process.predict(self._inputs(self._rows(columns), tasks))
        return mean * self._scale + self._mean, np.sqrt(variance) * self._scale

    @one_thread()
    def left_out(
        self, groups: Sequence[Hashable], beside: Sequence[Hashable] | None = None
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """How every observation departs from its prediction from those of other groups, (n,) each.

        Parameters
        ----------
        groups : (n,)
            What is left out together.
        beside : (n,)
            Further groups: then an observation is predicted from those that share neither.

        Returns
        -------
        residuals, deviations
            Measured minus predicted, and the standard deviation that the process gives a measurement.
        """
        from dse._bayes.pooled import left_out

        process = self._fitted()
        codes = []
        for name, given in (("groups", groups), ("beside", groups if beside is None else beside)):
            if len(given) != len(process.rows):
                raise ValueError(f"{name} must have {len(process.rows)} entries, got {len(given)}")
            numbers = {group: index for index, group in enumerate(dict.fromkeys(given))}
            codes.append(np.array([numbers[group] for group in given]))
        residual, variance = left_out(process, *codes)
        return residual * self._scale, np.sqrt(variance) * self._scale

    @property
    def noise(self) -> float:
        """Standard deviation of a measurement around the function."""
        return float(np.sqrt(self._fitted().noise)) * self._scale

    _numbers: dict[str, int]
    _centre: Float[np.ndarray, " c"]
    _spread: Float[np.ndarray, " c"]
    _mean: float
    _scale: float

    def _fitted(self) -> GaussianProcess:
        if self._process is None:
            raise ValueError("the regression must be fitted before it predicts")
        return self._process

    def _codes(self, tasks: Sequence[str]) -> np.ndarray:
        """Numbers of tasks, in the order in which they are met."""
        if "_numbers" not in self.__dict__:
            self._numbers = {}
        for task in tasks:
            self._numbers.setdefault(task, len(self._numbers))
        return np.array([self._numbers[task] for task in tasks], dtype=np.int64)

    def _rows(self, columns: Mapping[str, Float[np.ndarray, " n"]]) -> Float[np.ndarray, "n c"]:
        if missing := [name for name in self.columns if name not in columns]:
            raise ValueError(f"columns must have {', '.join(self.columns)}, got none called {missing[0]}")
        if not self.columns:
            raise ValueError("a regression must have a term with columns")
        rows = np.column_stack([np.asarray(columns[name], dtype=np.float64) for name in self.columns])
        if not np.isfinite(rows).all():
            column = self.columns[int(np.flatnonzero(~np.isfinite(rows).all(axis=0))[0])]
            raise ValueError(f"column {column} must be finite")
        return rows

    def _inputs(self, rows: Float[np.ndarray, "n c"], tasks: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """Standardised columns, and then the number of the task."""
        return np.column_stack([(rows - self._centre) / self._spread, self._codes(tasks)])


def _conditioned(
    process: GaussianProcess, inputs: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"]
) -> GaussianProcess:
    """The process with the same hyper-parameters and other observations."""
    from dse._bayes.gp import GaussianProcess

    return GaussianProcess(process.inputs, inputs, y, process.theta)
