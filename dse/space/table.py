"""A table of candidate designs: the space is its rows, and every row is one design.

What the parameters are is decided from the values of each column alone. Nothing depends on the
order of the rows: where an order is needed, the rows are sorted by their values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from dse.space.listed import Categorical, Ordinal
from dse.space.parameter import Design, is_number, plain
from dse.space.scale import is_geometric, to_unit
from dse.space.sequences import unit_points

if TYPE_CHECKING:
    import pandas as pd

_SPREAD = 1024  # rows of a sequence that follow Sobol points; the rest come in random order

_LISTED = 64  # choices of a column that are described one by one


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of a table as designs.

    Attributes
    ----------
    parameters
        What the columns hold.
    rows
        Number of the row of each design, counted from 0.
    designs
        The designs, sorted by their values.
    places : (n, d)
        Of each of `designs` and each parameter: the middle of its choice's share of the unit
        interval, or the code of a category.
    features : (n, f)
        In [0, 1], by row.
    feature_names
        Of the features that are not constant.
    digest
        SHA-256 of the sorted rows and their features.
    """

    parameters: Sequence[Ordinal | Categorical]
    rows: Mapping[Design, int]
    designs: Sequence[Design]
    places: Float[np.ndarray, "n d"]
    features: Float[np.ndarray, "n f"]
    feature_names: Sequence[str]
    digest: str

    def features_of(self, designs: Sequence[Design]) -> Float[np.ndarray, "n f"]:
        """Features of some rows, (n, f)."""
        if not self.feature_names:
            return np.empty((len(designs), 0))
        return self.features[[self.row(design) for design in designs]]

    def describe(self) -> dict[str, object]:
        """What identifies the table, as plain JSON data; of long lists of choices the ends only."""
        described = [parameter.describe() for parameter in self.parameters]
        for parameter, found in zip(self.parameters, described, strict=True):
            if parameter.size > _LISTED:
                first, last = parameter.choices[0], parameter.choices[-1]
                found["choices"] = {"number": parameter.size, "first": first, "last": last}
        table = {"rows": len(self.designs), "features": list(self.feature_names), "sha256": self.digest}
        return {"parameters": described, "table": table}

    def row(self, design: Design) -> int:
        """Row of a design, counted from 0; ``ValueError`` if the table does not have it."""
        if design not in self.rows:
            raise ValueError(f"a design must be a row of the table, got {design}")
        return self.rows[design]

    def differing(self, design: Design) -> Iterator[Design]:
        """Rows that differ in exactly one parameter."""
        place = self._place(design)
        near = np.flatnonzero((self.places != place).sum(axis=1) == 1)
        return (self.designs[index] for index in near.tolist())

    def _place(self, design: Design) -> Float[np.ndarray, " d"]:
        pairs = zip(self.parameters, design, strict=True)
        return np.array([_places(parameter)[parameter.position(value)] for parameter, value in pairs])

    def nearest(self, design: Design, rng: np.random.Generator, without: Design) -> Design | None:
        """Row nearest to a combination of values, another than `without`; ties at random."""
        distances = self._distances(self._place(design))
        own = self._distances(self._place(without)) == 0
        distances[own] = np.inf
        if np.isinf(distances.min()):
            return None
        ties = np.flatnonzero(distances <= distances.min() * (1 + 1e-12))
        return self.designs[int(rng.choice(ties))]

    def _distances(self, place: Float[np.ndarray, " d"]) -> Float[np.ndarray, " n"]:
        """Squared distances from every design; two different categories are 1 apart."""
        coded = np.array([parameter.is_categorical for parameter in self.parameters])
        apart = np.where(coded, self.places != place, self.places - place)
        distances: Float[np.ndarray, " n"] = np.einsum("nd,nd->n", apart, apart)
        return distances

    def sequence(self, rng: np.random.Generator, *, sobol: bool) -> Iterator[Design]:
        """Every row once: at first the nearest to each of 1024 Sobol points, or at random at once."""
        left = np.ones(len(self.designs), dtype=bool)
        if sobol:
            coded = [i for i, parameter in enumerate(self.parameters) if parameter.is_categorical]
            blocks = unit_points(len(self.parameters), rng, sobol=True)
            points = (point for block in blocks for point in block)
            for point in islice(points, min(_SPREAD, len(self.designs))):
                place = point.copy()
                for i in coded:
                    place[i] = np.floor(point[i] * self.parameters[i].size)
                distances = np.where(left, self._distances(place), np.inf)
                index = int(distances.argmin())
                left[index] = False
                yield self.designs[index]
        for index in rng.permutation(np.flatnonzero(left)).tolist():
            yield self.designs[index]


def _places(parameter: Ordinal | Categorical) -> Float[np.ndarray, " k"]:
    codes = np.arange(parameter.size, dtype=np.float64)
    return codes if parameter.is_categorical else (codes + 0.5) / parameter.size


def read(frame: pd.DataFrame, columns: Sequence[str], features: Sequence[str]) -> Table:
    """Read a data frame.

    Raises
    ------
    TypeError
        No data frame.
    ValueError
        No column or no row, a column that is missing or twice there, a value that is missing,
        infinite or neither number, text nor boolean, or two rows of the same design.
    """
    _check_names(frame, columns, features)
    parameters, codes = zip(*(_column(frame[name], name) for name in columns), strict=True)
    code_rows = np.column_stack(codes)
    values = [
        [parameter.choices[index] for index in code.tolist()]
        for parameter, code in zip(parameters, codes, strict=True)
    ]
    by_row = list(zip(*values, strict=True))
    rows: dict[Design, int] = {}
    for row, design in enumerate(by_row):
        if (first := rows.setdefault(design, row)) != row:
            named = dict(zip(columns, design, strict=True))
            raise ValueError(f"rows {first} and {row} of the table are the same design {named}")
    order = np.lexsort(code_rows.T[::-1]).tolist()
    found = [(name, _feature(frame[name], name)) for name in features]
    kept = [(name, column) for name, column in found if np.ptp(column) > 0]
    feature_rows = np.column_stack([np.empty((len(by_row), 0)), *(column for _, column in kept)])
    designs = [by_row[row] for row in order]
    digest = hashlib.sha256(json.dumps([designs, feature_rows[order].tolist()]).encode()).hexdigest()
    places = np.column_stack([_places(p)[code] for p, code in zip(parameters, codes, strict=True)])[order]
    names = [name for name, _ in kept]
    return Table(parameters, rows, designs, places, feature_rows, names, digest)


def _check_names(frame: pd.DataFrame, columns: Sequence[str], features: Sequence[str]) -> None:
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"a table must be a pandas DataFrame, got {type(frame).__name__}")
    for what, names in (("columns", columns), ("features", features)):
        if isinstance(names, str):
            raise ValueError(f"{what} must be a list of names, got the text {names!r}")
    if not len(columns):
        raise ValueError("a table must have at least one column of parameters, got none")
    if not len(frame):
        raise ValueError("a table must have at least one row, got none")
    every = [*columns, *features]
    for position, name in enumerate(every):
        there = int((frame.columns == name).sum())
        if not there:
            raise ValueError(
                f"columns of the table must be among {', '.join(map(str, frame.columns))}, got {name!r}"
            )
        if there > 1 or name in every[:position]:
            raise ValueError(f"columns of a table must be distinct, got {name!r} twice")


def _check_there(series: pd.Series[Any], name: str) -> None:
    missing = series.isna().to_numpy()
    if missing.any():
        row = int(missing.argmax())
        raise ValueError(
            f"column {name} of the table must have no missing value, got {series.iloc[row]} in row {row}"
        )


def _numbers(series: pd.Series[Any], name: str) -> Float[np.ndarray, " n"]:
    numbers = series.to_numpy(dtype=np.float64)
    if not np.isfinite(numbers).all():
        row = int((~np.isfinite(numbers)).argmax())
        raise ValueError(f"column {name} of the table must be finite, got {numbers[row]} in row {row}")
    return numbers


def _column(series: pd.Series[Any], name: str) -> tuple[Ordinal | Categorical, Int[np.ndarray, " n"]]:
    """Parameter of a column and the choice of each row.

    Numbers are ordinal, in the logarithm where that spaces them more evenly; text in an order that
    the table states (an ordered categorical of pandas) is ordinal, and all else categorical.
    """
    import pandas as pd

    _check_there(series, name)
    if isinstance(series.dtype, pd.CategoricalDtype):
        if series.dtype.ordered and all(isinstance(value, str) for value in series.dtype.categories):
            used = series.cat.remove_unused_categories()
            return Ordinal(name, used.cat.categories.tolist()), used.cat.codes.to_numpy().astype(np.intp)
        series = series.astype(series.dtype.categories.dtype)
    if pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series):
        if pd.api.types.is_complex_dtype(series):
            raise ValueError(f"column {name} of the table must hold real numbers, got {series.iloc[0]}")
        numbers = _numbers(series, name)
        whole = pd.api.types.is_integer_dtype(series)
        choices, code = np.unique(series.to_numpy(dtype=np.int64) if whole else numbers, return_inverse=True)
        return Ordinal(name, choices.tolist(), log=is_geometric(choices.astype(np.float64))), code
    values = [plain(value) for value in series.tolist()]
    for row, value in enumerate(values):
        if not isinstance(value, str | bool) and not is_number(value):
            raise ValueError(
                f"column {name} of the table must hold numbers, text or booleans, got {value!r} in row {row}"
            )
    distinct = sorted(set(values), key=lambda value: (isinstance(value, str), value))
    index = {value: position for position, value in enumerate(distinct)}
    if all(is_number(value) for value in distinct):
        scale = np.array(distinct, dtype=np.float64)
        found: Ordinal | Categorical = Ordinal(name, distinct, log=is_geometric(scale))
    else:
        found = Categorical(name, distinct)
    return found, np.array([index[value] for value in values], dtype=np.intp)


def _feature(series: pd.Series[Any], name: str) -> Float[np.ndarray, " n"]:
    """Feature of every row in [0, 1], in the logarithm where that spaces the values more evenly."""
    import pandas as pd

    _check_there(series, name)
    if not pd.api.types.is_numeric_dtype(series) or pd.api.types.is_complex_dtype(series):
        raise ValueError(f"feature {name} of the table must be numeric, got {series.iloc[0]!r}")
    numbers = _numbers(series, name)
    distinct = np.unique(numbers)
    if len(distinct) == 1:
        return np.zeros(len(numbers))
    return to_unit(numbers, distinct[0], distinct[-1], log=is_geometric(distinct))
