"""Tables of designs that are measured already: a search among their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dse import Space
from studies.campaigns.config import ObjectiveTable

if TYPE_CHECKING:
    import pandas as pd

KNOB = "knob_"  #: columns that begin with this are the parameters, unless others are named

_TRUE, _FALSE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")


class TableError(ValueError):
    """A table that cannot be searched; the message is one line."""


@dataclass(frozen=True, eq=False)
class DesignTable:
    """Rows with parameters and measured values.

    Attributes
    ----------
    columns
        The parameters.
    valid : (n,)
        Which rows have a result; the others fail when they are evaluated.
    digest
        SHA-256 of the file.
    """

    frame: pd.DataFrame
    columns: tuple[str, ...]
    space: Space
    measured: tuple[str, ...]
    valid: np.ndarray
    digest: str

    def evaluate(self, parameters: Mapping[str, Any]) -> dict[str, float]:
        """Measured values of a row.

        Raises
        ------
        InvalidDesign
            The table says that it has none.
        """
        row = self.space.row(self.space.design(parameters))
        if not self.valid[row]:
            raise InvalidDesign(f"row {row} is not valid")
        return {name: float(self.frame[name].iloc[row]) for name in self.measured}


class InvalidDesign(Exception):  # noqa: N818  shown to the user, as the reason of a failed trial
    """A design that the table marks as not valid."""


def read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV file, in which a category may be called "None" or "NA": what is missing is empty or NaN.

    Raises
    ------
    TableError
        No such file, an empty one, or no table.
    """
    import pandas as pd

    try:
        return pd.read_csv(path, keep_default_na=False, na_values=["", "nan", "NaN", "NAN"])
    except FileNotFoundError:
        raise TableError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise TableError(f"{path}: is a folder, a CSV file is wanted") from None
    except pd.errors.EmptyDataError:
        raise TableError(f"{path}: is not a CSV table: it is empty") from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError) as error:
        raise TableError(f"{path}: is not a CSV table: {str(error).splitlines()[0]}") from None


def read_table(
    path: Path,
    objectives: Sequence[ObjectiveTable],
    *,
    columns: Sequence[str] | None = None,
    features: Sequence[str] = (),
    valid: str | None = None,
    outcomes: Sequence[str] = (),
) -> DesignTable:
    """Read a CSV file of designs.

    Parameters
    ----------
    columns
        Parameters; by default the columns that begin with ``knob_``, or where there is none, all that
        are nothing else.
    features
        Columns known beforehand for every row, such as a compiler's estimates.
    valid
        Column of 0 and 1: whether a row has a result.
    outcomes
        Columns of outcome constraints.

    Raises
    ------
    TableError
        No such file, no table, a column that is missing, constant, no number or holds NaN, two equal
        designs, no valid row.
    """
    frame = read_csv(path)
    measured = tuple(objective.name for objective in objectives if objective.known is None)
    others = [*measured, *outcomes, *features, *([valid] if valid else [])]
    for name in [*others, *(columns or [])]:
        if name not in frame.columns:
            raise TableError(f"{path}: there is no column {name!r} (columns: {', '.join(frame.columns)})")
    if columns is None:
        free = [name for name in frame.columns if name not in others]
        columns = [name for name in free if name.startswith(KNOB)] or free
    if both := [name for name in columns if name in others]:
        raise TableError(f"{path}: column {both[0]!r} cannot be both a parameter and something else")
    mask = _valid_rows(frame, valid, path)
    _check_measured(frame, measured, mask, path)
    for name in outcomes:
        _numbers(frame, name, mask, path)
    try:
        space = Space.from_table(frame, list(columns), features=list(features))
    except (ValueError, TypeError) as error:
        raise TableError(f"{path}: {error}") from None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return DesignTable(frame, tuple(columns), space, (*measured, *outcomes), mask, digest)


def _valid_rows(frame: pd.DataFrame, valid: str | None, path: Path) -> np.ndarray:
    if valid is None:
        return np.ones(len(frame), dtype=bool)
    texts = frame[valid].astype(str).str.lower()
    for row, text in enumerate(texts):
        if text not in (*_TRUE, *_FALSE):
            raise TableError(f"{path}: column {valid!r} must hold 0 or 1, got {text!r} in row {row}")
    mask: np.ndarray = texts.isin(_TRUE).to_numpy()
    if not mask.any():
        raise TableError(f"{path}: no row is feasible: column {valid!r} is 0 everywhere")
    return mask


def _numbers(frame: pd.DataFrame, name: str, mask: np.ndarray, path: Path) -> np.ndarray:
    import pandas as pd

    numbers: np.ndarray = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64)
    bad = mask & ~np.isfinite(numbers)
    if bad.any():
        row = int(bad.argmax())
        raise TableError(f"{path}: column {name!r} must be finite, got {frame[name].iloc[row]} in row {row}")
    return numbers


def _check_measured(frame: pd.DataFrame, measured: Sequence[str], mask: np.ndarray, path: Path) -> None:
    for name in measured:
        numbers = _numbers(frame, name, mask, path)[mask]
        if len(numbers) > 1 and np.ptp(numbers) == 0:
            raise TableError(f"{path}: objective {name!r} is constant, {numbers[0]:g} in every row")
