"""The run table of ``studies.accuracy.peppp``: every data set trained under every configuration.

    python benchmarks/peppp_table.py runs/peppp.csv                  # train; may be killed and started again
    python benchmarks/peppp_table.py runs/peppp.csv --pack           # write what the package ships

One line is appended for each run, and runs that the file has are not trained again; one process takes about
ten minutes of processor time. ``--pack`` writes the rows that are complete, sorted and compressed.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy

import argparse
import csv
import gzip
import io
import time
from pathlib import Path

from studies.accuracy.peppp.runs import (
    CONFIGURATIONS,
    emulated_error,
    full_precision_error,
    memory_bytes,
    sizes,
)
from studies.accuracy.peppp.tasks import TASKS

COLUMNS = ("data_set", "operand", "accumulator", "update", "memory_bytes", "test_error", "test_error_float32")
SEED = 0
SHIPPED = Path(__file__).parents[1] / "studies" / "accuracy" / "data" / "peppp.csv.gz"


def read(path: Path) -> list[dict[str, str]]:
    """Complete lines of a table that may have been cut off while it was written."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row[COLUMNS[-1]]]


def train(path: Path) -> None:
    """Append all runs that are missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = read(path)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
        done = {(row["data_set"], row["operand"], row["accumulator"], row["update"]) for row in rows}
        for task in TASKS:
            begin, split = time.process_time(), task.load()
            held, best = sizes(task, split), full_precision_error(task, split, seed=SEED)
            for configuration in CONFIGURATIONS:
                key = (configuration.operand, configuration.accumulator, configuration.update)
                if (task.name, *key) in done:
                    continue
                error = emulated_error(task, split, configuration, seed=SEED)
                memory = memory_bytes(configuration, held)
                values = (task.name, *key, f"{memory}", f"{error:.5f}", f"{best:.5f}")
                writer.writerow(dict(zip(COLUMNS, values, strict=True)))
                file.flush()
            print(f"{task.name:24} float32 {best:.3f}  {time.process_time() - begin:6.1f} s", flush=True)


def pack(path: Path) -> None:
    """Write the data sets that every configuration has been run on."""
    rows = read(path)
    whole = [
        row
        for task in TASKS
        if len(own := [row for row in rows if row["data_set"] == task.name]) == len(CONFIGURATIONS)
        for row in own
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(whole)
    # Without a time in the header: equal tables are equal files.
    SHIPPED.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
    print(f"{SHIPPED.name}: {len(whole)} runs, {SHIPPED.stat().st_size} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--pack", action="store_true")
    chosen = parser.parse_args()
    (pack if chosen.pack else train)(chosen.path)


if __name__ == "__main__":
    main()
