"""Leave one data set out: the frontier of a data set that the table does not know.

References
----------
.. [Yang21] C. Yang et al., "How Low Can We Go: Trading Memory for Error in Low-Precision Training",
   arXiv 2106.09686 (leave-one-out cross-validation of the meta-learner).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from studies.accuracy.peppp.completion import as_table
from studies.accuracy.peppp.frontier import convergence, frontier, hypervolume_difference
from studies.accuracy.peppp.method import Choice, Peppp, Selection

if TYPE_CHECKING:
    import pandas as pd

METHODS: tuple[Choice, ...] = get_args(Choice)
UNMODELLED = "random, unmodelled"  #: the frontier of the measured configurations alone


def sample_entries(shape: tuple[int, int], share: float, *, seed: int) -> Bool[np.ndarray, "d n"]:
    """Entries that are measured: a share of the table, at random, at least one in each row and column.

    Parameters
    ----------
    shape
        Data sets and configurations, (d, n).
    share
        Above 0 and at most 1. The number of entries is rounded to nearest; more are taken where rows or
        columns are left without one.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in 0..1, and not 0, got {share}")
    random = np.random.default_rng(seed)
    taken = np.zeros(shape, dtype=bool)
    taken.flat[random.permutation(taken.size)[: round(share * taken.size)]] = True
    for row in np.flatnonzero(~taken.any(axis=1)):
        taken[row, random.integers(shape[1])] = True
    for column in np.flatnonzero(~taken.any(axis=0)):
        taken[random.integers(shape[0]), column] = True
    return taken


def leave_one_out(
    errors: ArrayLike,
    memory: ArrayLike,
    *,
    budgets: Sequence[float],
    share: float = 1.0,
    seeds: Sequence[int] = (0,),
    methods: Sequence[Choice] = METHODS,
    **options: Any,
) -> pd.DataFrame:
    """Estimate the frontier of each data set from the table of all others, and compare with the true one.

    An estimated frontier is the set of configurations that seem not dominated; its points count where they
    truly are.

    Parameters
    ----------
    errors : (d, n)
        True errors, all of them.
    memory : (d, n)
        Of each configuration on each data set.
    budgets
        Memory for measurements, as a share of the memory of all configurations on that data set.
    share
        Of the other data sets' entries that are observed, see `sample_entries`.
    seeds
        One repetition for each: of the observed entries and of the random choice. With all entries observed,
        the embeddings are fitted once.
    options
        Of `Peppp`, without its seed.

    Returns
    -------
    One row for each data set, seed, budget and method (the random choice twice: its frontier is estimated by
    the embeddings, and of what was measured alone): ``measured`` (number of configurations), ``convergence``,
    ``hypervolume_difference``, ``relative_error`` (of all predicted errors, by the Frobenius norm),
    ``log_det``, ``bound``, ``rank``, ``ridge``, and ``completion_error`` (relative, of the entries that were
    not observed; NaN if there are none).

    Raises
    ------
    ValueError
        Other shapes, an unknown error, or what `Peppp` refuses.
    """
    import pandas as pd

    table, sizes = as_table(errors), np.asarray(memory, dtype=np.float64)
    if table.shape != sizes.shape:
        raise ValueError(f"errors and memory must have one shape, got {table.shape} and {sizes.shape}")
    if np.isnan(table).any():
        row, column = np.argwhere(np.isnan(table))[0]
        raise ValueError(f"errors must all be known to compare with, got NaN in row {row}, column {column}")
    if len(table) < 2:
        raise ValueError(f"errors must have at least 2 rows to leave one out, got {len(table)}")
    rows: list[dict[str, Any]] = []
    for out in range(len(table)):
        others, peppp, missed = np.delete(table, out, axis=0), None, float("nan")
        designs: dict[tuple[float, Choice], Selection] = {}
        for seed in seeds:
            if peppp is None or share < 1.0:
                seen = sample_entries(others.shape, share, seed=seed * len(table) + out)
                peppp = Peppp(np.where(seen, others, np.nan), sizes[out], seed=seed, **options).fit()
                designs = {}
                missed = _relative((peppp.offsets + peppp.completion.values)[~seen], others[~seen])
            fit = {"rank": peppp.rank, "ridge": peppp.ridge, "completion_error": missed}
            estimates = _measure(peppp, table[out], budgets, methods, seed, designs)
            rows += [{"data_set": out, "seed": seed, "share": share, **row, **fit} for row in estimates]
    return pd.DataFrame(rows)


def _measure(
    peppp: Peppp,
    truth: Float[np.ndarray, " n"],
    budgets: Sequence[float],
    methods: Sequence[Choice],
    seed: int,
    designs: dict[tuple[float, Choice], Selection],
) -> Iterator[dict[str, Any]]:
    """Rows of one fit; `designs` keeps the choices that depend on it alone."""
    memory = peppp.memory
    for budget in budgets:
        for method in methods:
            chosen = designs.get((budget, method))
            if chosen is None:
                chosen = peppp.choose(budget * float(memory.sum()), method=method, seed=seed)
            if method != "random":
                designs[budget, method] = chosen
            measured = {int(j): float(truth[j]) for j in chosen.indices}
            common = {"budget": budget, "measured": len(measured)}
            estimates: dict[str, Any] = {method: peppp.pareto(measured).indices}
            if method == "random":
                alone = frontier(memory[chosen.indices], truth[chosen.indices]).indices
                estimates[UNMODELLED] = chosen.indices[alone]
            predicted = peppp.predict(measured)
            for name, indices in estimates.items():
                is_model = name != UNMODELLED
                yield {
                    **common,
                    "method": name,
                    "convergence": convergence(indices, memory, truth),
                    "hypervolume_difference": hypervolume_difference(indices, memory, truth),
                    "relative_error": _relative(predicted, truth) if is_model else float("nan"),
                    "log_det": chosen.log_det,
                    "bound": float("nan") if chosen.bound is None else chosen.bound,
                }


def _relative(found: Float[np.ndarray, " k"], truth: Float[np.ndarray, " k"]) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth)) if truth.size else float("nan")
