"""Completion of a partly observed table of errors by a nuclear norm.

References
----------
.. [Mazumder10] R. Mazumder, T. Hastie, R. Tibshirani, "Spectral Regularization Algorithms for Learning Large
   Incomplete Matrices", Journal of Machine Learning Research 11, 2010 (Soft-Impute).
.. [ODonoghue15] B. O'Donoghue, E. Candes, "Adaptive Restart for Accelerated Gradient Schemes", Foundations of
   Computational Mathematics 15, 2015, arXiv 1204.3982.
.. [Yang21] C. Yang et al., "How Low Can We Go: Trading Memory for Error in Low-Precision Training",
   arXiv 2106.09686.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

TOLERANCE = 1e-5
MAX_ITERATIONS = 20_000
STEPS = 12  #: of the path of penalties
SMALLEST = 3e-3  #: of the path, as a share of the largest


@dataclass(frozen=True, slots=True)
class Completion:
    """A completed table, the minimiser of ``0.5 ||P_obs(X - E)||_F^2 + lam ||X||_*``.

    Attributes
    ----------
    values : (d, n)
        The minimiser X.
    lam
        Penalty, in units of the errors.
    iterations
        Singular value decompositions that it took.
    violation
        How far X is from the optimality conditions, as a share of `lam`. With the compact X = U S V', X is
        optimal if and only if P_obs(E - X) is lam times a subgradient of the nuclear norm, U V' + W with
        U'W = 0, W V = 0 and a spectral norm of W of at most 1.
    """

    values: Float[np.ndarray, "d n"]
    lam: float
    iterations: int
    violation: float


def soft_impute(
    errors: ArrayLike,
    lam: float,
    *,
    start: ArrayLike | None = None,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> Completion:
    """Complete a table by Soft-Impute [Mazumder10]_, the completion of [Yang21]_.

    Each iteration fills the gaps of the table with the present estimate and subtracts `lam` from all singular
    values, the smaller ones become 0. The estimate is extrapolated by momentum, from rest again where it
    would lead uphill [ODonoghue15]_: a table with few observations takes hundreds of iterations in place of
    thousands, and the minimiser is the same.

    It ends where what fills the gaps and what comes out differ there by at most ``tolerance * lam`` (in the
    Frobenius norm), which bounds the `violation` of the result.

    Parameters
    ----------
    errors : (d, n)
        Errors of d data sets under n configurations; NaN where nothing was measured.
    lam
        Penalty on the sum of the singular values, positive. From the largest singular value of the table
        with zeros in its gaps on, X is 0.
    start : (d, n)
        Where to begin, 0 if not given: the solution for a neighbouring `lam` saves iterations.

    Raises
    ------
    ValueError
        A table without an observation or with an infinite entry, or a value that is out of range.
    RuntimeError
        It did not converge.
    """
    table = as_table(errors)
    if not (np.isfinite(lam) and lam > 0):
        raise ValueError(f"lam must be positive and finite, got {lam}")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be at least 1, got {max_iterations}")
    observed = ~np.isnan(table)
    known = np.where(observed, table, 0.0)
    values = np.zeros_like(table) if start is None else np.array(start, dtype=np.float64)
    if values.shape != table.shape:
        raise ValueError(f"start must have the shape of the table, {table.shape}, got {values.shape}")
    filling, momentum = values, 1.0
    for iteration in range(1, max_iterations + 1):
        before = values
        values = _shrunk(np.where(observed, known, filling), lam)
        # The filled table less X is lam times a subgradient at X, P_obs(E - X) but for this.
        moved = float(np.linalg.norm((values - filling)[~observed]))
        if moved <= tolerance * lam:
            return Completion(values, lam, iteration, optimality_violation(table, values, lam))
        if np.vdot(filling - values, values - before) > 0:
            momentum = 1.0
        following = (1.0 + np.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        filling = values + (momentum - 1.0) / following * (values - before)
        momentum = following
    raise RuntimeError(
        f"the completion did not converge in {max_iterations} iterations with lam {lam:.3g}: "
        f"it moved by {moved / lam:.1e} lam, {tolerance:.1e} is wanted; a larger lam converges sooner"
    )


def _shrunk(matrix: Float[np.ndarray, "d n"], lam: float) -> Float[np.ndarray, "d n"]:
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    rank = int((values > lam).sum())
    shrunk: Float[np.ndarray, "d n"] = (left[:, :rank] * (values[:rank] - lam)) @ right[:rank]
    return shrunk


def optimality_violation(
    errors: Float[np.ndarray, "d n"], values: Float[np.ndarray, "d n"], lam: float
) -> float:
    """Distance of `values` from the optimality conditions of `Completion`, as a share of `lam`."""
    residual = np.where(np.isnan(errors), 0.0, errors - values)
    left, singular, right = np.linalg.svd(values, full_matrices=False)
    rank = int((singular > 1e-9 * max(singular[0], lam)).sum())
    u, v = left[:, :rank], right[:rank].T
    # Off the compact factors Z must be W alone; on them lam times the identity.
    inside = np.concatenate([u.T @ residual - lam * v.T, (residual @ v - lam * u).T], axis=1)
    outside = residual - u @ (u.T @ residual)
    outside -= (outside @ v) @ v.T
    excess = max(0.0, float(np.linalg.norm(outside, 2)) - lam)
    return max(excess, float(np.abs(inside).max(initial=0.0))) / lam


def largest_penalty(errors: ArrayLike) -> float:
    """The least `lam` whose completion is 0: the largest singular value of the table, its gaps 0."""
    return float(np.linalg.norm(np.nan_to_num(as_table(errors), nan=0.0), 2))


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Squared errors on entries that were left out of the completion.

    Attributes
    ----------
    lams : (p,)
        Penalties, descending.
    ranks : (q,)
        Ranks 1, 2, ... to which completions were cut.
    scores : (p, q)
        Mean squared error over all observed entries, each predicted without its fold.
    """

    lams: Float[np.ndarray, " p"]
    ranks: np.ndarray
    scores: Float[np.ndarray, "p q"]

    @property
    def best(self) -> tuple[float, int]:
        """Penalty and rank with the least score."""
        return self.conditional(None, None)

    def conditional(self, lam: float | None, rank: int | None) -> tuple[float, int]:
        """Penalty and rank with the least score, where one of them may be given.

        A given penalty has the scores of the nearest one on the path, a rank beyond the largest those of it.
        """
        scores = self.scores
        if lam is not None:
            nearest = np.argmin(np.abs(np.log(self.lams / lam)))
            scores = np.where((np.arange(len(self.lams)) == nearest)[:, None], scores, np.inf)
        if rank is not None:
            scores = np.where(self.ranks == min(rank, self.ranks[-1]), scores, np.inf)
        row, column = np.unravel_index(int(np.argmin(scores)), scores.shape)
        best_lam, best_rank = float(self.lams[row]), int(self.ranks[column])
        return (best_lam if lam is None else lam, best_rank if rank is None else rank)


def held_out(
    errors: ArrayLike,
    *,
    seed: int,
    folds: int = 3,
    steps: int = STEPS,
    max_rank: int = 10,
    tolerance: float = 1e-2,
) -> HeldOut:
    """Score penalties and ranks by cross-validation over the observed entries.

    The penalties fall from the largest that says anything by a constant factor to `SMALLEST` of it, each
    completion starts from the one before.

    Parameters
    ----------
    errors : (d, n)
        NaN where nothing was measured.
    seed
        Of the split into folds.
    tolerance
        Of these completions, see `soft_impute`: scores need no more.

    Raises
    ------
    ValueError
        Less than two observations for each fold, or a value that is out of range.
    """
    table = as_table(errors)
    count = int((~np.isnan(table)).sum())
    if folds < 2 or count < 2 * folds:
        raise ValueError(f"folds must be in 2..{count // 2} with {count} observations, got {folds}")
    if steps < 1 or max_rank < 1:
        raise ValueError(f"steps and max_rank must be at least 1, got {steps} and {max_rank}")
    ranks = np.arange(1, min(max_rank, *table.shape) + 1)
    lams = largest_penalty(table) * np.geomspace(1.0, SMALLEST, steps + 1)[1:]
    sums = np.zeros((steps, len(ranks)))
    for left_out in _folds(~np.isnan(table), folds, seed):
        kept = np.where(left_out, np.nan, table)
        values: Float[np.ndarray, "d n"] | None = None
        for index, lam in enumerate(lams):
            values = soft_impute(kept, lam, start=values, tolerance=tolerance).values
            left, singular, right = np.linalg.svd(values, full_matrices=False)
            partial = np.zeros_like(values)
            for column, rank in enumerate(ranks):
                partial = partial + singular[rank - 1] * np.outer(left[:, rank - 1], right[rank - 1])
                sums[index, column] += float(((partial - table)[left_out] ** 2).sum())
    return HeldOut(lams, ranks, sums / count)


def _folds(observed: Bool[np.ndarray, "d n"], folds: int, seed: int) -> Iterator[Bool[np.ndarray, "d n"]]:
    entries = np.flatnonzero(observed)
    np.random.default_rng(seed).shuffle(entries)
    for part in np.array_split(entries, folds):
        left_out = np.zeros(observed.size, dtype=bool)
        left_out[part] = True
        yield left_out.reshape(observed.shape)


def as_table(errors: ArrayLike) -> Float[np.ndarray, "d n"]:
    """Check a table of errors.

    Raises
    ------
    ValueError
        Not a table, an empty one, an infinite entry, or nothing observed.
    """
    table = np.asarray(errors, dtype=np.float64)
    if table.ndim != 2 or table.size == 0:
        raise ValueError(f"errors must be a table (data sets, configurations), got the shape {table.shape}")
    if np.isinf(table).any():
        row, column = np.argwhere(np.isinf(table))[0]
        raise ValueError(
            f"errors must be finite or NaN, got {table[row, column]} in row {row}, column {column}"
        )
    if np.isnan(table).all():
        raise ValueError(f"errors must have at least one observation, got {table.size} NaN")
    return table
