"""The run table: what training gave under drawn numerics, one row per run and fidelity."""

from __future__ import annotations

import gzip
import io
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.accuracy.policies import NAMES

if TYPE_CHECKING:
    import pandas as pd

DATA = Path(str(resources.files("studies.accuracy") / "data"))
TABLE = DATA / "runs.csv.gz"


def frame_of(parts: list[dict[str, Any]]) -> pd.DataFrame:
    """Table of finished runs as `studies.accuracy.collect` stores them."""
    import pandas as pd

    rows = [
        {
            "task": part["task"],
            "configuration": part["configuration"],
            "seed": part["seed"],
            **(part["parameters"] or dict.fromkeys(NAMES)),
            **measured,
        }
        for part in parts
        for measured in part["measured"]
    ]
    return pd.DataFrame(rows)


def write_runs(table: pd.DataFrame, path: Path) -> None:
    """Write a run table; equal tables give equal files."""
    text = table.to_csv(index=False, float_format="%.6g")
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", filename="", mtime=0) as stream:
        stream.write(text.encode())
    path.write_bytes(buffer.getvalue())


def read_runs(path: Path = TABLE) -> pd.DataFrame:
    """Run table of a file, by default the one that comes with the package.

    Columns: ``task``, ``configuration`` (a number; -1 for the float32 twin), ``seed``, the parameters of
    `studies.accuracy.policies` (absent for the twin), and the fields of
    `studies.accuracy.training.Measured`.
    """
    import pandas as pd

    return pd.read_csv(path)
