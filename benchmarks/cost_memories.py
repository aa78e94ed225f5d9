"""How well the tables of memories and technology agree with their references.

Run with ``--data DIR``, a folder of reference tables (``sram_cacti.csv``, ``published_unit_costs.csv``,
``technology_scaling.csv``). Without it only what the package itself carries is checked.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from accel.hardware._sram_grids import complete
from accel.hardware.library import DEFAULT
from accel.hardware.sram import sram_cost, sram_range
from accel.hardware.technology import logic_scale

Row = tuple[str, str, str]

GOALS = {"read_pj": "10 %", "write_pj": "10 %", "area_mm2": "7 %", "leakage_mw": "", "access_ns": ""}
CSV_COLUMNS = ("read_pJ", "write_pJ", "area_mm2", "leak_total_mW", "access_ns")


def sram_hold_out(data: Path | None = None) -> list[Row]:
    """Errors of points that the completion has not seen, and our table against its source.

    The table lacks the third of each node's grid where log2 size + log2 width + node index is a
    multiple of 3. A second third, of another remainder and for all cell types of the node, is left
    out in turn and predicted from what remains; that is harder than the real holes, which have more
    known neighbours. Rows of ``sram_cacti.csv`` that the table lacks are judged as they are.
    """
    found = _class_errors()
    rows = [
        (f"SRAM {name}, second third left out, {len(found)} points, mean (worst) error", spread(errors), goal)
        for (name, goal), errors in zip(GOALS.items(), found.T, strict=True)
    ]
    if data is not None and (data / "sram_cacti.csv").is_file():
        rows += _against_source(data / "sram_cacti.csv")
    return rows


def _class_errors() -> np.ndarray:
    """Relative errors: (points, columns)."""
    section = DEFAULT.section("sram")
    tables = {(t["node_nm"], t["cells"]): np.array(t["rows"]) for t in section["table"]}
    classes = {key: np.rint(np.log2(rows[:, :2]).sum(axis=1)).astype(int) % 3 for key, rows in tables.items()}
    errors = []
    for node in {key[0] for key in tables}:
        keys = [key for key in tables if key[0] == node]
        for remainder in set(classes[keys[0]].tolist()):
            left = {key: classes[key] == remainder for key in keys}
            rest = {key: rows[~left[key]] if key in left else rows for key, rows in tables.items()}
            grids = complete(rest, section["completion"])
            for key in keys:
                for size, width, *values in tables[key][left[key]]:
                    logs = grids[key].at(size, width)
                    errors.append(np.abs(np.exp(logs) / values - 1))
    return np.array(errors)


def _against_source(path: Path) -> list[Row]:
    ours = {
        (table["node_nm"], table["cells"], *row[:2]): tuple(row[2:])
        for table in DEFAULT.section("sram")["table"]
        for row in table["rows"]
    }
    equal, shared, unseen = 0, 0, []
    for row in read(path):
        node, cells = int(row["tech_nm"]), row["cell"].removeprefix("itrs-")
        size, width = int(row["size_bytes"]), int(row["width_bits"])
        values = tuple(float(row[name]) for name in CSV_COLUMNS)
        if (node, cells, size, width) in ours:
            shared += 1
            equal += ours[node, cells, size, width] == values
            continue
        (low, high), (narrow, wide) = sram_range(node, cells)
        if low <= size <= high and narrow <= width <= wide:
            cost = sram_cost(size, width, node, cells)
            found = (cost.read_pj, cost.write_pj, cost.area_um2 * 1e-6, cost.leakage_mw, cost.access_ns)
            unseen.append(np.abs(np.array(found) / values - 1))
    rows = [(f"SRAM rows equal to {path.name}, of ours", f"{equal}/{len(ours)}", "all")]
    if unseen:
        rows += [
            (f"SRAM {name}, {len(unseen)} held-out rows, mean (worst) error", spread(errors), goal)
            for (name, goal), errors in zip(GOALS.items(), np.array(unseen).T, strict=True)
        ]
    return rows


def sources(data: Path) -> list[Row]:
    """Off-chip energies and node factors against the tables they were taken from."""
    published = {row["item"]: row for row in read(data / "published_unit_costs.csv")}
    memories = DEFAULT.section("offchip")
    items = {name: [f"{name} read or write", f"{name} device power", name] for name in memories}
    right = 0
    for name, row in memories.items():
        (source,) = (published[item] for item in items[name] if item in published)
        low, *high = map(float, source["value"].split("-"))
        middle = (low + high[0]) / 2 if high else low
        right += (row["pj_per_bit"], row["status"]) == (middle, source["status"])
    factors = read(data / "technology_scaling.csv")
    worst = max(
        abs(logic_scale(int(row["node_nm"])).energy / float(row["energy_rel_45nm_0.9V"]) - 1)
        for row in factors
    )
    return [
        (
            "off-chip energies and statuses equal to published_unit_costs.csv",
            f"{right}/{len(memories)}",
            "all",
        ),
        (f"energy at 0.9 V of {len(factors)} nodes, worst difference", f"{100 * worst:.2f} %", "0.1 %"),
    ]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def spread(errors: Iterable[float]) -> str:
    values = list(errors)
    return f"{100 * sum(values) / len(values):.1f} % ({100 * max(values):.0f} %)"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the reference tables")
    folder = parser.parse_args().data
    table = sram_hold_out(folder)
    if folder is None:
        table.append(("off-chip memories and nodes", "skipped: no --data folder was given", ""))
    else:
        table += sources(folder)
    width = max(len(what) for what, _, _ in table)
    for what, found, wanted in table:
        print(f"{what:{width}}  {found:>24}  {wanted}")


if __name__ == "__main__":
    main()
