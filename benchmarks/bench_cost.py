"""How well the cost model agrees with its references, and how fast it is.

Run with ``--data DIR``, a folder of reference tables (``scalesim_compute.csv`` of SCALE-Sim 3.0.0
runs, ``mac_synthesis.csv`` of synthesised MACs). Without it the checks that need it are skipped, and
say so.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from math import exp
from pathlib import Path
from typing import TypeVar

import numpy as np

from accel import Design, Gemm, Operator, Role, Tensor, Workload, array_counts, evaluate, mac_cost
from accel.dataflow import DATAFLOWS
from accel.hardware._data import load
from accel.hardware.sram import _interpolate, build_table
from accel.schedule import schedule
from numerics.formats import E4M3, FloatFormat

Row = tuple[str, str, str]
T = TypeVar("T")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def scalesim(folder: Path) -> list[Row]:
    rows = read(folder / "scalesim_compute.csv")
    exact = 0
    for row in rows:
        (dataflow,) = (name for name in DATAFLOWS if name == row["dataflow"])
        edges = int(row["array_rows"]), int(row["array_cols"])
        counts = array_counts(dataflow, *edges, int(row["M"]), int(row["N"]), int(row["K"]))
        exact += (counts.cycles, counts.input_reads, counts.weight_reads) == tuple(
            int(row[name]) for name in ("compute_cycles", "sram_ifmap_reads", "sram_filter_reads")
        ) and (dataflow == "os" or counts.partial_sum_writes == int(row["sram_ofmap_writes"]))
    return [("SCALE-Sim runs with exact cycles, reads and WS/IS partial sums", f"{exact}/{len(rows)}", "all")]


def mac_laws(folder: Path) -> list[Row]:
    rows = [
        row
        for row in read(folder / "mac_synthesis.csv")
        if row["top"] == "fp_mac" and row["lib"].startswith("open_45nm")
    ]
    area, energy = [], []
    for row in rows:
        operand, register = (
            FloatFormat(exp_bits=int(row[e]), frac_bits=int(row[m]), subnormals=row["SUBN"] == "1")
            for e, m in (("EM", "MM"), ("EA", "MA"))
        )
        cost = mac_cost(operand, operand, str(register))
        area.append(abs(cost.area_um2 / float(row["area_um2"]) - 1))
        energy.append(abs(cost.energy_pj / (float(row["e_zero_bits_fJ"]) * 0.52e-3 * (0.9 / 1.1) ** 2) - 1))
    return [
        (f"MAC {name}, {len(rows)} synthesised cells, mean (worst) error", spread(errors), goal)
        for name, errors, goal in (("area", area, "2.3 %"), ("energy", energy, "5.9 %"))
    ]


def sram_leave_one_out() -> list[Row]:
    goals = {"read_pj": "10 %", "write_pj": "10 %", "area_mm2": "7 %"}
    errors: dict[str, list[float]] = {"read_pj": [], "write_pj": [], "area_mm2": [], "leakage_mw": []}
    for table in load("sram")["table"]:
        points = np.array(table["rows"], dtype=np.float64)
        for i, point in enumerate(points):
            rest = build_table(np.delete(points, i, axis=0))
            try:
                found = _interpolate(rest, point[0], point[1])
            except ValueError:  # the only point at the edge of its range
                continue
            for column, name in enumerate(errors, start=2):
                errors[name].append(abs(exp(found[name]) / point[column] - 1))
    return [
        (
            f"SRAM {name}, leave one of {len(found)} out, mean (worst) error",
            spread(found),
            goals.get(name, ""),
        )
        for name, found in errors.items()
    ]


def spread(errors: list[float]) -> str:
    return f"{100 * sum(errors) / len(errors):.1f} % ({100 * max(errors):.0f} %)"


def chain(layers: int) -> Workload:
    """Square matrix products one after another."""
    names = [f"x{i}" for i in range(layers + 1)]
    weights = [f"w{i}" for i in range(layers)]
    tensors = {
        n: Tensor(name=n, shape=(256, 256), role=Role.ACTIVATION, format=E4M3) for n in names + weights
    }
    operators = tuple(
        Operator(
            name=f"layer{i}",
            kind="linear",
            inputs=(names[i], weights[i]),
            outputs=(names[i + 1],),
            gemm=Gemm(m=256, n=256, k=256),
            vector_ops=256 * 256,
        )
        for i in range(layers)
    )
    return Workload(
        name="chain",
        operators=operators,
        tensors=tensors,
        inputs=(names[0], *weights),
        outputs=(names[-1],),
    )


def speed() -> list[Row]:
    workload = chain(16)
    plan = schedule(workload, 1 << 20)

    def designs() -> list[Design]:
        return [
            Design(
                rows=4 + i % 60,
                columns=4 + i // 60,
                dataflow=DATAFLOWS[i % 3],
                operand="e4m3",
                accumulator="e6m9 chunk=64",
                scratchpad_bytes=1 << 20,
                accumulator_bytes=1 << 16,
                offchip="LPDDR4",
                offchip_bytes_per_cycle=16,
                clock_mhz=250,
            )
            for i in range(2000)
        ]

    made, making = clocked(designs)
    _, evaluating = clocked(lambda: [evaluate(design, workload, plan).total_energy_pj for design in made])
    return [
        ("new designs made per second", f"{len(made) / making:,.0f}", ""),
        ("new designs evaluated per second, 16 operators each", f"{len(made) / evaluating:,.0f}", "1,000"),
    ]


def clocked(work: Callable[[], list[T]]) -> tuple[list[T], float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the reference tables")
    folder = parser.parse_args().data
    table = [*sram_leave_one_out(), *speed()]
    for check, file in ((scalesim, "scalesim_compute.csv"), (mac_laws, "mac_synthesis.csv")):
        if folder is not None and (folder / file).is_file():
            table += check(folder)
        else:
            where = "no --data folder was given" if folder is None else f"{folder} has no {file}"
            table.append((check.__name__, f"skipped: {where}", ""))
    width = max(len(what) for what, _, _ in table)
    print(f"{'check':{width}}  {'found':>24}  wanted")
    for what, found, wanted in table:
        print(f"{what:{width}}  {found:>24}  {wanted}")


if __name__ == "__main__":
    main()
