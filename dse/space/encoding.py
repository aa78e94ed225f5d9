"""Designs as rows of numbers for a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dse.space.parameter import Design, Parameter, Value


@dataclass(frozen=True, eq=False, slots=True)
class Encoded:
    """Designs as rows, and what the columns mean.

    Attributes
    ----------
    rows : (n, c)
        A row per design, float64.
    numeric
        Columns in [0, 1].
    categorical
        Columns of codes 0, 1, ..., of which only equality means anything.
    features
        Columns in [0, 1] that come with the candidates of a table and are no parameters.
    names
        Of the columns: a parameter's or a feature's, for a permutation ``name[item]``.
    """

    rows: Float[np.ndarray, "n c"]
    numeric: tuple[int, ...]
    categorical: tuple[int, ...]
    features: tuple[int, ...]
    names: tuple[str, ...]


def encode(
    parameters: Sequence[Parameter],
    designs: Sequence[Design],
    features: Float[np.ndarray, "n f"],
    feature_names: Sequence[str],
) -> Encoded:
    """Encode the searched parameters, and append the features.

    An inactive parameter is encoded as its default: its parent tells that it is inactive.
    """
    values: list[tuple[Value, ...]] = list(zip(*designs, strict=True)) or [()] * len(parameters)
    if len(values) != len(parameters):
        raise ValueError(f"a design must have {len(parameters)} values, got {len(values)}")
    blocks: list[Float[np.ndarray, "n c"]] = []
    names: list[str] = []
    numeric: list[int] = []
    categorical: list[int] = []
    for parameter, column in zip(parameters, values, strict=True):
        if parameter.size == 1:
            continue
        if parameter.active_if is not None:
            default = parameter.default
            column = tuple(default if value is None else value for value in column)
        blocks.append(parameter.encode(column))
        where = categorical if parameter.is_categorical else numeric
        where += range(len(names), len(names) + len(parameter.columns))
        names += parameter.columns
    known = tuple(range(len(names), len(names) + len(feature_names)))
    rows = np.column_stack([*blocks, features]) if blocks else features.astype(np.float64)
    return Encoded(rows, tuple(numeric), tuple(categorical), known, (*names, *feature_names))
