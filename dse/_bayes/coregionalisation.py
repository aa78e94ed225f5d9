"""One Gaussian process over a target and its sources: intrinsic coregionalisation.

The covariance of row x of task t with row x' of task t' is ``k(x, x') B[t, t']`` with
``B = w w' + diag(v)`` [Bonilla07]_, and 1 more within a task, whose mean is unknown. A priori tasks agree;
a source that runs against the target is of use as well, with its sign turned.

References
----------
.. [Bonilla07] E. Bonilla, K. M. Chai, C. Williams, "Multi-task Gaussian Process Prediction", NIPS 2007.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np
from jaxtyping import Float, Int

from dse._bayes.columns import Columns, Rows, check_training
from dse._bayes.correlations import Pull, Shape
from dse._bayes.kernels import MEAN_VARIANCE, Inputs, Pairs, Prior
from dse._bayes.surrogates import SingleTarget, fit_process, kernel_of, standardising

SOURCE_ROWS = 100  #: the cost grows with the cube of all rows, so of more a random part is used


class TaskInputs:
    """A kernel over rows whose last column is the number of their task.

    Its hyper-parameters are those of `inputs`, the loadings w and the logarithms of v.
    """

    def __init__(self, inputs: Inputs, tasks: int) -> None:
        self._inputs, self._tasks = inputs, tasks
        self._loadings = inputs.scale + 1  # the place of the first
        # A correlation of 0.9 a priori, and as good as never a negative one: the sign is the caller's.
        own = log(0.1)
        self.prior = inputs.prior + Prior.of(tasks, 0.9, 0.2, 0.9, -3.0, 3.0)
        self.prior += Prior.of(tasks, own, 0.6, own, -9.0, 3.0)

    def tasks(self, theta: Float[np.ndarray, " h"]) -> Float[np.ndarray, "t t"]:
        """Covariance of the tasks B."""
        loadings, own = np.split(theta[self._loadings : self._loadings + 2 * self._tasks], 2)
        covariance: Float[np.ndarray, "t t"] = np.outer(loadings, loadings) + np.diag(np.exp(own))
        return covariance

    def cross(self, a: Rows, b: Rows, theta: Float[np.ndarray, " h"]) -> Float[np.ndarray, "n k"]:
        """Covariance of the function between rows `a` and rows `b`, without noise."""
        left, right = a[:, -1].astype(np.intp), b[:, -1].astype(np.intp)
        value = self._inputs.correlated(a, b, theta)
        value *= self.tasks(theta)[np.ix_(left, right)]
        value += MEAN_VARIANCE * np.equal.outer(left, right)
        return value

    def diagonal(self, rows: Rows, theta: Float[np.ndarray, " h"]) -> Float[np.ndarray, " n"]:
        """Prior variance of the function at each row."""
        variance = self._inputs.diagonal(rows, theta) - MEAN_VARIANCE
        own = np.diagonal(self.tasks(theta))[rows[:, -1].astype(np.intp)]
        result: Float[np.ndarray, " n"] = variance * own + MEAN_VARIANCE
        return result

    def pairs(self, rows: Rows, left: Int[np.ndarray, " p"], right: Int[np.ndarray, " p"]) -> Pairs:
        """Covariance between rows `left` and rows `right`, one by one."""
        correlated = self._inputs.correlated_pairs(rows, left, right)
        first, second = rows[left, -1].astype(np.intp), rows[right, -1].astype(np.intp)
        cell, same = first * self._tasks + second, MEAN_VARIANCE * (first == second)

        def covariances(theta: Float[np.ndarray, " h"]) -> tuple[Float[np.ndarray, " p"], Pull]:
            value, pull_correlated = correlated(theta)
            tasks = self.tasks(theta)
            between = tasks.reshape(-1)[cell]

            def pull(by_pair: Float[np.ndarray, " p"]) -> Float[np.ndarray, " h"]:
                by_tasks = np.bincount(cell, by_pair * value, self._tasks**2).reshape(tasks.shape)
                loadings, own = np.split(theta[self._loadings : self._loadings + 2 * self._tasks], 2)
                by_loadings = (by_tasks + by_tasks.T) @ loadings
                by_own = np.exp(own) * np.diagonal(by_tasks)
                return np.concatenate([pull_correlated(by_pair * between), by_loadings, by_own])

            return value * between + same, pull

        return covariances


class Coregionalised(SingleTarget):
    """The target's part of a process over several tasks.

    Attributes
    ----------
    correlations
        Of the target's function with that of each source, in -1..1, (s,).
    """

    correlations: Float[np.ndarray, " s"]


def _of_task(rows: Rows, task: int) -> Rows:
    return np.column_stack([rows, np.full(len(rows), float(task))])


def fit_coregionalised(
    rows: Rows,
    y: Float[np.ndarray, " n"],
    columns: Columns,
    sources: Sequence[tuple[Rows, Float[np.ndarray, " m"]]],
    seed: int,
    *,
    family: Shape = "additive",
    signs: Sequence[int] | None = None,
) -> Coregionalised:
    """Fit one process to a target and its sources, each standardised by its own mean and spread.

    Parameters
    ----------
    rows, y
        Of the target, (n, c) and (n,).
    columns
        What the columns are.
    sources
        Rows (m, c) and targets (m,) of each source. A column that a source does not have is NaN: there
        it is taken to be at the median of the target's rows.
    seed
        Of the part that is taken of large sources.
    family
        As in `fit_gp`.
    signs
        -1 for each source that is expected to run against the target, else 1; without them, all are 1.
    """
    check_training(rows, y)
    if not sources:
        raise ValueError("there must be at least one source, got none")
    rng = np.random.default_rng([seed, 2])
    scale = standardising(y)
    parts, targets = [_of_task(rows, 0)], [(y - scale[0]) / scale[1]]
    fill = np.quantile(rows, 0.5, axis=0, method="nearest")
    signs = [1] * len(sources) if signs is None else signs
    for task, (sign, (source_rows, source_y)) in enumerate(zip(signs, sources, strict=True), start=1):
        kept = np.arange(len(source_y))
        if len(kept) > SOURCE_ROWS:
            kept = np.sort(rng.choice(len(kept), SOURCE_ROWS, replace=False))
        there = source_rows[kept]
        parts.append(_of_task(np.where(np.isnan(there), fill, there), task))
        spread = float(source_y.std()) or 1.0
        targets.append(sign * (source_y[kept] - source_y.mean()) / spread)
    joint = np.concatenate(parts)
    inputs = TaskInputs(kernel_of(family, columns.varied(joint)), 1 + len(sources))
    process = fit_process(inputs, joint, np.concatenate(targets))
    fitted = Coregionalised(process, y, scale, lambda at: _of_task(at, 0))
    covariance = inputs.tasks(process.theta)
    root = np.sqrt(np.diagonal(covariance))
    fitted.correlations = (covariance[0] / root[0] / root)[1:] * np.array(signs)
    return fitted
