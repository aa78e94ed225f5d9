"""Small problems, and a way to run the command."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

PROGRAM = """
import json, sys
p = json.load(open(sys.argv[1]))
if p["rows"] == 32 and p["flow"] == "is":
    sys.exit("does not fit")
time = 1e4 / (p["rows"] * p["columns"]) * (1 + 0.1 * (p["depth"] or 0)) * (1 + p["loops"].index("k"))
json.dump({"time": time, "heat": p["rate"] * p["rows"], "note": "measured"}, open(sys.argv[2], "w"))
"""

TOML = """
seed = 3
budget = {budget}
method = "sobol"
constraints = ["rows * columns <= 512"]

[program]
command = ["{python}", "simulate.py", "{{parameters}}", "{{metrics}}"]
time_limit_s = 60
cache = "cache"

[[parameters]]
name = "rows"
kind = "power-of-two"
low = 4
high = 32

[[parameters]]
name = "columns"
kind = "ordinal"
choices = [4, 8, 16, 32]
log = true

[[parameters]]
name = "flow"
kind = "categorical"
choices = ["os", "ws", "is"]

[[parameters]]
name = "depth"
kind = "integer"
low = 1
high = 9
active_if = {{ flow = ["ws"] }}

[[parameters]]
name = "rate"
kind = "real"
low = 0.1
high = 1.0

[[parameters]]
name = "loops"
kind = "permutation"
items = ["m", "k"]

[[objectives]]
name = "time"
unit = "s"

[[objectives]]
name = "area"
known = "rows * columns * 2"
"""


@pytest.fixture
def program_file(tmp_path: Path) -> Path:
    """Campaign file of an outside program, in a folder of its own."""
    folder = tmp_path / "problem"
    folder.mkdir()
    (folder / "simulate.py").write_text(PROGRAM)
    path = folder / "chip.toml"
    path.write_text(TOML.format(python=sys.executable, budget=12))
    return path


@pytest.fixture
def frame() -> pd.DataFrame:
    """Measured designs: two knobs, two objectives, an estimate, and whether a row is valid."""
    rows = [(x, y, mode) for x in (1, 2, 4, 8, 16) for y in range(6) for mode in ("off", "NA")]
    table = pd.DataFrame(rows, columns=["knob_size", "knob_depth", "knob_mode"])
    size, depth = table["knob_size"].to_numpy(), table["knob_depth"].to_numpy()
    table["time"] = 100.0 / size + depth + 3.0 * (table["knob_mode"] == "NA")
    table["area"] = size * 10 + 40 - 5 * depth
    table["estimate"] = np.sqrt(table["area"])
    table["valid"] = (size * depth < 60).astype(int)
    return table


@pytest.fixture
def table_file(tmp_path: Path, frame: pd.DataFrame) -> Path:
    """The same as a CSV file."""
    path = tmp_path / "designs.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def bitfront(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Call the command in a temporary folder."""
    from studies.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call
