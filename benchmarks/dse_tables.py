"""Tables of measured designs as search problems, and how far a search of them came.

A table is a CSV file below the data folder. What its columns are follows from their names: parameters
begin with ``knob_``, ``PARA_``, ``PIPE_`` or ``TILE_``, a compiler's early estimates, known before an
evaluation, with ``est_``; objectives are the first pair of `OBJECTIVES` that it has. No method sees any of
this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

import dse
from dse.metrics import adrs, hypervolume_regret, non_dominated

DATA = Path(__file__).parents[2] / "shared" / "data"  #: default data folder: beside the repository
KNOBS = ("knob_", "PARA_", "PIPE_", "TILE_")
ESTIMATES = "est_"
#: Pairs to minimise; the first of each, a time, is scored in log10.
OBJECTIVES = (("time", "logic"), ("time", "error"), ("cycles", "ALMs"), ("cycles", "total_LUT"))
SPECTOR = ("mm", "sobel", "fir", "hist", "bfs_dense", "bfs_sparse")
SEARCHED = (
    *SPECTOR,
    "orbslam2",
    "hlsyn/v18/gemm-p",
    "hlsyn/v18/stencil",
    "hlsyn/v18/2mm",
    "hlsyn/v20/mvt",
    "hlsyn/v20/gemm-ncubed",
)
CONSTRAINED = ("blackscholes",)


@dataclass(frozen=True, eq=False)
class Problem:
    """A table, its two objectives, and the rows that have a result.

    Attributes
    ----------
    valid : (N,)
        Rows with a result; all others fail.
    values : (N, 2)
        Objectives as measured.
    """

    name: str
    frame: pd.DataFrame
    columns: tuple[str, ...]
    objectives: tuple[str, str]
    valid: np.ndarray
    values: np.ndarray

    @cached_property
    def space(self) -> dse.Space:
        """The rows as a space."""
        return dse.Space.from_table(self.frame, self.columns)

    @property
    def estimates(self) -> tuple[str, ...]:
        """Columns of early estimates."""
        return tuple(column for column in self.frame if str(column).startswith(ESTIMATES))

    @cached_property
    def estimated(self) -> dse.Space:
        """The rows as a space whose early estimates are features."""
        return dse.Space.from_table(self.frame, self.columns, features=self.estimates)

    @cached_property
    def scored(self) -> np.ndarray:
        """Objectives as they are scored, (N, 2): the first in log10."""
        scored = self.values.copy()
        scored[self.valid, 0] = np.log10(scored[self.valid, 0])
        return scored

    @cached_property
    def front(self) -> np.ndarray:
        """Measured objectives of the true front, (p, 2)."""
        values = self.values[self.valid]
        return values[non_dominated(values)]

    def given(self, seed: int, count: int) -> list[int]:
        """Rows that every method starts from."""
        return np.random.default_rng(seed).permutation(len(self.frame))[:count].tolist()

    def regret(self, rows: Sequence[int]) -> float:
        """Hypervolume regret of some rows, of which those that fail count for nothing."""
        return hypervolume_regret(self._found(rows, self.scored), self.scored[self.valid])

    def adrs(self, rows: Sequence[int]) -> float:
        """Average distance from the true front of some rows; NaN where its relative distances have a zero."""
        if not (self.front > 0).all():
            return float("nan")
        return adrs(self._found(rows, self.values), self.front)

    def _found(self, rows: Sequence[int], values: np.ndarray) -> np.ndarray:
        indices = np.array(rows, dtype=np.intp)
        return values[indices[self.valid[indices]]]

    def told(self, row: int) -> dict[str, float]:
        """What an evaluation of a valid row returns."""
        return dict(zip(self.objectives, self.values[row].tolist(), strict=True))


def find(data: Path, name: str) -> Path | None:
    """File of a table: by its path below the data folder, or by its name where that is unique enough."""
    candidates = [data / f"{name}.csv", *sorted(data.glob(f"*/{name}.csv"))]
    return next((path for path in candidates if path.is_file()), None)


def load(data: Path, name: str, *, failures: bool = False) -> Problem | None:
    """Problem of a table, or ``None`` where the data folder lacks it.

    Parameters
    ----------
    failures
        Keep the rows without a result, which then fail; otherwise they are left out.
    """
    path = find(data, name)
    if path is None:
        return None
    frame = pd.read_csv(path, keep_default_na=False)
    columns = tuple(column for column in frame if str(column).startswith(KNOBS))
    frame = frame.drop_duplicates(list(columns), ignore_index=True)
    objectives = next((pair for pair in OBJECTIVES if set(pair) <= set(frame)), None)
    if objectives is None:
        raise SystemExit(f"{path}: has none of the pairs of objectives {OBJECTIVES}")
    valid = frame["valid"].to_numpy() == 1 if "valid" in frame else np.ones(len(frame), dtype=bool)
    if not failures:
        frame, valid = frame[valid].reset_index(drop=True), valid[valid]
    return Problem(
        name, frame, columns, objectives, valid, frame[list(objectives)].to_numpy(dtype=np.float64)
    )
