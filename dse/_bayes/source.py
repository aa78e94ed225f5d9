"""Model of one outcome of an earlier campaign, whose predictions a search of a related space reads.

The same committee of Gaussian processes that models the search's own outcomes, fitted once.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from jaxtyping import Float

from dse._bayes.models import Columns, OutcomeModel

_MOST = 200  # rows that are fitted, a random part of more: a fit of thousands would take minutes


class Results(Protocol):
    """Results of a source: its name, its rows in the target's columns, NaN where it has none, and costs."""

    @property
    def name(self) -> str: ...
    @property
    def rows(self) -> Float[np.ndarray, "m c"]: ...
    @property
    def y(self) -> Float[np.ndarray, " m"]: ...


class SourceOutcome:
    """Predictions of a source, from the columns that it has.

    Parameters
    ----------
    results
        Of the source.
    columns
        Of the target's rows, numeric and categorical.
    seed
        Of the choice of rows where there are many.

    Attributes
    ----------
    name
        Of the source.
    quality
        Share of the variance of its own results that is predicted where they are left out, R2.

    Raises
    ------
    ModelError
        None of the columns that it has varies.
    """

    def __init__(self, results: Results, columns: Columns, seed: int) -> None:
        self.name = results.name
        kept = np.arange(len(results.y))
        if len(kept) > _MOST:
            kept = np.sort(np.random.default_rng([seed, 4]).choice(len(kept), _MOST, replace=False))
        rows = results.rows[kept]
        has = ~np.isnan(rows).any(axis=0)
        shared = Columns(
            tuple(j for j in columns.numeric if has[j]), tuple(j for j in columns.categorical if has[j])
        )
        self._model = OutcomeModel(np.where(has, rows, 0.0), results.y[kept], shared)
        self.quality = 1.0 - (self._model.loo.rmse / self._model.scale) ** 2

    def predict(self, rows: Float[np.ndarray, "k c"]) -> Float[np.ndarray, " k"]:
        """Mean on the source's own standardised, transformed scale, (k,)."""
        return self._model.predict(rows)[0]
