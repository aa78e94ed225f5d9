"""The run table that is shipped: data sets by configurations of training numerics."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class RunTable:
    """Test errors of really emulated training runs, see ``benchmarks/peppp_table.py``.

    Attributes
    ----------
    data_sets
        Names of the d rows, see `studies.accuracy.peppp.tasks.TASKS`.
    configurations
        (operand, accumulator, update) of the n columns, see `studies.accuracy.peppp.runs.Configuration`.
    errors : (d, n)
        Share of the test samples that are misclassified.
    memory_bytes : (d, n)
        Of training, see `studies.accuracy.peppp.runs.memory_bytes`.
    float32 : (d,)
        Test errors of the twins in full precision.
    """

    data_sets: tuple[str, ...]
    configurations: tuple[tuple[str, str, str], ...]
    errors: Float[np.ndarray, "d n"]
    memory_bytes: Float[np.ndarray, "d n"]
    float32: Float[np.ndarray, " d"]


def read_runs() -> pd.DataFrame:
    """The runs, one line each: ``data_set, operand, accumulator, update, memory_bytes, test_error, ...``."""
    import pandas as pd

    with as_file(files("studies.accuracy") / "data" / "peppp.csv.gz") as path:
        return pd.read_csv(path)


def run_table() -> RunTable:
    """The shipped runs as a table."""
    runs = read_runs()
    columns = ["operand", "accumulator", "update"]
    configurations = tuple(dict.fromkeys(runs[columns].itertuples(index=False, name=None)))
    data_sets = tuple(dict.fromkeys(runs["data_set"]))
    place = runs.set_index(["data_set", *columns])
    order = [(name, *configuration) for name in data_sets for configuration in configurations]
    ordered, shape = place.loc[order], (len(data_sets), len(configurations))
    return RunTable(
        data_sets,
        configurations,
        ordered["test_error"].to_numpy().reshape(shape),
        ordered["memory_bytes"].to_numpy().reshape(shape),
        ordered["test_error_float32"].to_numpy().reshape(shape)[:, 0],
    )
