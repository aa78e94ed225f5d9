"""What the columns of encoded rows are, and what rows and targets a fit accepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float

Rows: TypeAlias = Float[np.ndarray, "n c"]


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns that a model reads; it ignores all others.

    Attributes
    ----------
    numeric, features
        Columns in [0, 1]: knobs with an order, and numbers known of every candidate beforehand.
    categorical
        Columns of codes 0..k-1, compared for equality alone.
    trend
        Columns of standardised predictions of models of related outcomes.
    """

    numeric: tuple[int, ...]
    categorical: tuple[int, ...] = ()
    features: tuple[int, ...] = ()
    trend: tuple[int, ...] = ()

    def __len__(self) -> int:
        """Number of columns whose values are compared: all but the predictions."""
        return len(self.ordered) + len(self.categorical)

    @property
    def ordered(self) -> tuple[int, ...]:
        """Numeric columns and features."""
        return (*self.numeric, *self.features)

    def varied(self, rows: Rows) -> Columns:
        """Only columns that take more than one value: the lengthscale of another is arbitrary."""
        return self.where((rows != rows[:1]).any(axis=0))

    def where(self, kept: Bool[np.ndarray, " c"]) -> Columns:
        """Only the compared columns j with ``kept[j]``, and all predictions."""

        def only(part: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(j for j in part if kept[j])

        return Columns(only(self.numeric), only(self.categorical), only(self.features), self.trend)

    def without_features(self) -> Columns:
        """Only the knobs, and the predictions."""
        return Columns(self.numeric, self.categorical, trend=self.trend)


def check_training(rows: Rows, y: Float[np.ndarray, " n"]) -> None:
    """Raise ``ValueError`` unless rows are (n, c) and y (n,), finite, with at least two rows."""
    if rows.ndim != 2 or y.shape != (len(rows),):
        raise ValueError(f"rows must be (n, c) and y (n,), got {rows.shape} and {y.shape}")
    if len(rows) < 2:
        raise ValueError(f"a fit needs at least 2 rows, got {len(rows)}")
    if not (np.isfinite(rows).all() and np.isfinite(y).all()):
        raise ValueError("rows and y must be finite")
