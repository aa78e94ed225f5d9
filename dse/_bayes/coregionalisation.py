"""One Gaussian process over a target and its sources: intrinsic coregionalisation.

The covariance of row x of task t with row x' of task t' is ``k(x, x') B[t, t']`` with
``B = w w' + diag(v)`` [Bonilla07]_. A priori tasks agree; a source that runs against the target is of
use as well, with its sign turned.

References
----------
.. [Bonilla07] E. Bonilla, K. M. Chai, C. Williams, "Multi-task Gaussian Process Prediction", NIPS 2007.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from dse._bayes.columns import Columns, Rows, check_training
from dse._bayes.families import Block, Family, Kernel
from dse._bayes.loo import LeaveOneOut
from dse._bayes.surrogates import NO_TREND, GaussianProcess, fit_kernel

SOURCE_ROWS = 100  #: the cost grows with the cube of all rows, so of more a random part is used


class _TaskKernel(Kernel):
    """A kernel over rows whose last column is the number of their task."""

    def __init__(
        self, family: Family, ordered: tuple[int, ...], categorical: tuple[int, ...], tasks: int
    ) -> None:
        super().__init__(family, ordered, categorical)
        # A correlation of 0.9 a priori, and as good as never below -0.5.
        own = math.log(0.1)
        self.blocks += [
            Block("loadings", tasks, 0.9, 0.3, 0.9, signed=True),
            Block("own", tasks, own, 1.0, own),
        ]

    def distances(self, a: Rows, b: Rows) -> tuple[torch.Tensor, ...]:
        tasks = np.broadcast_arrays(a[..., -1], b[..., -1])
        return *super().distances(a, b), *(torch.from_numpy(task.astype(np.int64)) for task in tasks)

    def constant(self, a: Rows, b: Rows) -> Float[np.ndarray, "n m"]:
        """Every task has a mean of its own."""
        result: Float[np.ndarray, "n m"] = super().constant(a, b) * (a[:, None, -1] == b[None, :, -1])
        return result

    def __call__(
        self, parameters: dict[str, torch.Tensor], distances: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        return super().__call__(parameters, distances) * tasks(parameters)[distances[2], distances[3]]


def tasks(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
    """Covariance of the tasks B, (t, t)."""
    loadings = parameters["loadings"]
    return torch.outer(loadings, loadings) + torch.diag(parameters["own"])


class Coregionalised:
    """The target's part of a process over several tasks.

    Attributes
    ----------
    correlations
        Of the target's function with that of each source, in -1..1, (s,).
    """

    def __init__(
        self,
        process: GaussianProcess,
        y: Float[np.ndarray, " n"],
        scale: tuple[float, float],
        signs: Sequence[int],
    ) -> None:
        self._process, (self._centre, self._spread) = process, scale
        self.noise = process.noise * self._spread**2
        loo, count = process.loo, len(y)
        self.loo = LeaveOneOut(
            y, loo.mean[:count] * self._spread + self._centre, loo.variance[:count] * self._spread**2
        )
        covariance = tasks(process.parameters).detach().numpy()
        root = np.sqrt(np.diagonal(covariance))
        self.correlations = (covariance[0] / root[0] / root)[1:] * np.array(signs)

    def predict(self, rows: Rows) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Mean and standard deviation of a new measurement of each row, (n,) each."""
        mean, deviation = self._process.predict(_of_task(rows, 0))
        return mean * self._spread + self._centre, deviation * self._spread

    def covariance(self, rows_a: Rows, rows_b: Rows) -> Float[np.ndarray, "n m"]:
        """Posterior covariance of the function between rows, without noise, (n, m)."""
        return self._spread**2 * self._process.covariance(_of_task(rows_a, 0), _of_task(rows_b, 0))


def _of_task(rows: Rows, task: int) -> Rows:
    return np.column_stack([rows, np.full(len(rows), float(task))])


def fit_coregionalised(
    rows: Rows,
    y: Float[np.ndarray, " n"],
    columns: Columns,
    sources: Sequence[tuple[Rows, Float[np.ndarray, " m"]]],
    seed: int,
    *,
    family: Family = "additive",
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
    scale = (float(y.mean()), float(y.std()) or 1.0)
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
    varied = columns.varied(joint)
    kernel = _TaskKernel(family, varied.ordered, varied.categorical, 1 + len(sources))
    process = fit_kernel(kernel, joint, np.concatenate(targets), NO_TREND, (0.0, 1.0))
    return Coregionalised(process, y, scale, signs)
