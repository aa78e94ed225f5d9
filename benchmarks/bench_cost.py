"""How well the cost model agrees with its references, and how fast it is: one table, one run.

``--data DIR`` is a folder of reference tables (``scalesim_compute.csv``, ``timeloop_*.csv``,
``gemmini_rtl_cycles*.csv``, ``gpu_matmul_measured.csv``, ``zigzag_layers.csv``, ``mac_synthesis.csv``,
``sram_cacti.csv``, ...); a check whose table is not there says so. ``--zigzag`` adds the comparison with
ZigZag's own search, which takes minutes and, the first time, installs it in an environment of its own.

Speeds are of one thread, in processor time, after a first call that compiles or loads the kernels;
ZigZag and we are compared in wall-clock time.
"""

from __future__ import annotations

import argparse
import csv
import re
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cost_memories
import cost_nests
import cost_zigzag
import fit_mac
import numpy as np
import pandas as pd
from numba import njit
from timing import machine

from accel import Design, Workload, array_counts, evaluate_many
from accel._units import units_of
from accel.dataflow import DATAFLOWS, FOLD_OVERLAPS
from accel.mapping import _tilings as kernel
from accel.mapping.search import OBJECTIVES, Engine, best_tilings
from accel.mapping.tiling import Layer, candidates, layer_of, product_row

Row = tuple[str, str, str]  # what, found, wanted: "all", "5 %" at most, "at most 1", or "0.95" at least

NETWORK = "resnet50"
TILINGS = 500_000  # per second
DESIGNS = 20  # per second
WIDTH = 96  # of the table's first column


def scalesim(folder: Path) -> list[Row]:
    """Check 1: the array's counts, every dataflow."""
    rows = read(folder / "scalesim_compute.csv")
    names = ("cycles", "input_reads", "weight_reads", "partial_sum_writes")
    columns = ("compute_cycles", "sram_ifmap_reads", "sram_filter_reads", "sram_ofmap_writes")
    exact = dict.fromkeys(names, 0)
    for row in rows:
        (dataflow,) = (name for name in DATAFLOWS if name == row["dataflow"])
        sizes = (int(row[name]) for name in ("array_rows", "array_cols", "M", "N", "K"))
        counts = array_counts(dataflow, *sizes)
        for name, column in zip(names, columns, strict=True):
            # Of outputs that stay in the cells the program counts writes that no array makes.
            if name != "partial_sum_writes" or dataflow != "os":
                exact[name] += getattr(counts, name) == int(row[column])
    stationary = sum(row["dataflow"] != "os" for row in rows)
    return [
        (
            f"SCALE-Sim runs, exact {name.replace('_', ' ')}{' of WS and IS' * (name == names[-1])}",
            f"{exact[name]}/{stationary if name == names[-1] else len(rows)}",
            "all",
        )
        for name in names
    ]


def mac_laws(folder: Path) -> list[Row]:
    """Check 9: each law on cells that it was not fitted on."""
    rows = [r for r in read(folder / "mac_synthesis.csv") if r["lib"].startswith("open_45nm")]
    tops = {top: [row for row in rows if row["top"] == top] for top in ("fp_mac", "fx_mac", "int_mac")}
    floats = fit_mac.float_laws(tops["fp_mac"])
    area, energy = (dict(zip(law.terms, law.fit(), strict=True)) for law in floats[:2])
    multiplier = {
        "area": area["multiplier_bit"],
        "subnormal_area": area["subnormal_bit"],
        "energy": energy["multiplier_bit"],
    }
    laws = (*floats, *fit_mac.fixed_laws(tops["fx_mac"], multiplier), *fit_mac.integer_laws(tops["int_mac"]))
    result: list[Row] = []
    for law in laws:
        if not law.name.endswith(("area_um2", "energy_fj")):
            continue
        for kind, groups in (
            ("cell", [str(i) for i in range(len(law.measured))]),
            ("operand format", law.operands),
        ):
            off = np.abs(law.left_out(groups))
            what = f"MAC {law.name}, each {kind} left out of the fit, {len(off)} cells: mean (worst) error"
            result.append((what, f"{off.mean():.1%} ({off.max():.0%})", "5 %" if kind == "cell" else "-"))
    return result


def memories(folder: Path | None) -> list[Row]:
    """Check 8, and the sources of other tables."""
    rows = cost_memories.sram_hold_out(folder)
    if folder is not None and (folder / "published_unit_costs.csv").is_file():
        rows += cost_memories.sources(folder)
    return rows


# --- Speed -------------------------------------------------------------------------------------------


def random_designs(n: int, seed: int, **settings: object) -> pd.DataFrame:
    """Designs of which no two share array, memories or bandwidth."""
    rng = np.random.default_rng(seed)
    edges = rng.choice(121 * 121, n, replace=False)
    scratchpad = rng.choice(np.arange(32 << 10, 4 << 20, 512), n, replace=False)
    accumulators = rng.choice(np.arange(64 << 10, 512 << 10, 512), n, replace=False)
    return pd.DataFrame(
        {
            "rows": 8 + edges // 121,
            "columns": 8 + edges % 121,
            "dataflow": rng.choice(DATAFLOWS, n),
            "scratchpad_bytes": scratchpad,
            "accumulator_bytes": accumulators,
            "offchip_bytes_per_cycle": rng.uniform(4, 64, n),
            "operand": "int8",
            "accumulator": "int32",
            "offchip": "LPDDR4",
            "clock_mhz": 250.0,
            **settings,
        }
    )


def designs_per_second(workload: Workload, n: int) -> list[Row]:
    """Full designs, the best mapping searched for every layer of every design."""
    result: list[Row] = []
    for overlap in FOLD_OVERLAPS:
        for objective in OBJECTIVES:
            some = n if objective == OBJECTIVES[0] else max(1, n // 5)
            frame = random_designs(some, 1, fold_overlap=overlap)
            costs, seconds = clocked(
                lambda frame=frame, objective=objective: evaluate_many(frame, workload, objective=objective)
            )
            note = "" if costs.feasible.all() else f", {(~costs.feasible).sum()} infeasible"
            what = f"designs per second, {some} random{note}, folds {overlap}, best in {objective}"
            found = f"{some / seconds:.1f}"
            result.append((what, found, str(DESIGNS) if objective == OBJECTIVES[0] else "-"))
    return result


def mappings_per_second(workload: Workload) -> list[Row]:
    """Tilings of single layers: those that searches decide, and with every one measured."""
    layers = list(dict.fromkeys(layer_of(workload, operator) for operator in workload.gemms()))
    result: list[Row] = []
    designs = [Design.from_mapping(settings) for settings in random_designs(6, 2).to_dict("records")]
    engines = [units_of(design).engine for design in designs]
    for objective in ("energy", "edp"):
        searches = [(layer, engine) for engine in engines for layer in layers]
        for layer, engine in searches:
            candidates(layer.geometry, engine.rows, engine.columns)
        found, seconds = clocked(
            lambda searches=searches, objective=objective: [
                best_tilings(layer, engine, objective, (engine.tile_bytes,)) for layer, engine in searches
            ]
        )
        space = sum(tilings_of(layer, engine) for layer, engine in searches)
        past = sum(best.looked_at for (best,) in found if best is not None)
        each = f"{space / len(searches):,.0f} a layer"
        how = "measured, too large, or ruled out by a bound"
        result += [
            (
                f"tilings per second, best in {objective}, {each}: {how}",
                f"{space / seconds:,.0f}",
                f"{TILINGS:,}",
            ),
            (
                f"the same, those alone that no bound ruled out, {past / space:.2%}",
                f"{past / seconds:,.0f}",
                "-",
            ),
        ]
    measured = seconds = 0.0
    for layer in layers:
        count, took = all_measured(layer, engines[0])
        measured, seconds = measured + count, seconds + took
    what = "tilings per second, every one measured: all counts, energy and cycles"
    result.append((what, f"{measured / seconds:,.0f}", f"{TILINGS:,}"))
    return result


@njit
def measure_each(product, engine, ms, ns, ks, places, out):
    """Sum of the cycles of every candidate, so that no measurement is optimised away."""
    total = 0.0
    for i in range(ms.shape[0]):
        for j in range(ns.shape[0]):
            for c in range(ks.shape[0]):
                for order in range(places.shape[0]):
                    kernel.measure(product, engine, ms[i], ns[j], ks[c], order, places, out)
                    total += out[kernel.CYCLES]
    return total


def all_measured(layer: Layer, engine: Engine) -> tuple[int, float]:
    """Tilings, every fourth candidate for m, and seconds."""
    tried = candidates(layer.geometry, engine.rows, engine.columns)
    ms = tried.ms[::4]
    out = np.empty(kernel.RESULTS)
    product = product_row(layer, engine.partial_sum_bits)
    work = (product, engine.row(), ms, tried.ns, tried.ks, kernel.PLACES, out)
    if not measure_each.signatures:
        measure_each(*work)
    _, seconds = clocked(lambda: measure_each(*work))
    return len(ms) * len(tried.ns) * len(tried.ks) * len(kernel.PLACES), seconds


def tilings_of(layer: Layer, engine: Engine) -> int:
    """Candidates of one search: tile sizes and orders."""
    tried = candidates(layer.geometry, engine.rows, engine.columns)
    return len(tried.ms) * len(tried.ns) * len(tried.ks) * len(kernel.PLACES)


def speed(n: int) -> list[Row]:
    """Tilings and designs per second."""
    workload = Workload.named(NETWORK).with_formats("int8")
    start = time.perf_counter()
    for overlap in FOLD_OVERLAPS:
        for objective in OBJECTIVES:
            evaluate_many(random_designs(1, 0, fold_overlap=overlap), workload, objective=objective)
    first = time.perf_counter() - start
    return [
        (f"first evaluations of {NETWORK}, kernels compiled or loaded, s", f"{first:.1f}", "-"),
        *mappings_per_second(workload),
        *designs_per_second(workload, n),
    ]


def clocked(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


# --- The table ---------------------------------------------------------------------------------------


def verdict(found: str, wanted: str) -> str:
    """Whether the first number of `found` is what is wanted."""
    if wanted in ("", "-"):
        return ""
    if found.startswith(("skipped", "not run")):
        return ""
    if wanted == "all":
        exact, total = found.split("/")
        return "ok" if int(exact) == int(total) > 0 else "MISSED"
    value, goal = (
        float(match[0].replace(",", ""))
        for match in (re.search(r"-?[\d,]*\.?\d+", text) for text in (found, wanted))
        if match
    )
    most = wanted.endswith("%") or wanted.startswith("at most")
    return "ok" if (value <= goal if most else value >= goal) else "MISSED"


def needing(folder: Path | None, check: Callable[[Path], list[Row]]) -> list[Row]:
    """Rows of a check, or one that says why there are none."""
    name = check.__name__.replace("_", " ")
    if folder is None and check is not cost_nests.eyeriss:  # its published numbers are in the script
        return [(name, "skipped: no --data folder was given", "")]
    try:
        return check(folder or Path())
    except FileNotFoundError as error:
        return [(name, f"skipped: no {error.filename}", "")]


def rows_of(options: argparse.Namespace) -> Iterator[Row]:
    for check in (scalesim, *cost_nests.CHECKS):
        yield from needing(options.data, check)
    yield from memories(options.data)
    yield from needing(options.data, mac_laws)
    yield from speed(options.designs)
    if options.zigzag:
        rows, lines = cost_zigzag.compare(cost_zigzag.design())
        options.details.extend(lines)
        yield from rows
    else:
        yield ("ZigZag's own search of the same network", "not run: --zigzag was not given", "")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the reference tables")
    parser.add_argument("--zigzag", action="store_true", help="compare with ZigZag's search, in minutes")
    parser.add_argument(
        "--designs", type=int, default=200, metavar="N", help="random designs to evaluate (%(default)s)"
    )
    options = parser.parse_args(namespace=argparse.Namespace(details=[]))
    print(machine())
    table = list(rows_of(options))
    print(f"{'check':{WIDTH}}  {'found':>16}  {'wanted':14}")
    missed = 0
    for what, found, wanted in table:
        judged = verdict(found, wanted)
        missed += judged == "MISSED"
        *lines, last = textwrap.wrap(what, WIDTH, subsequent_indent="  ")
        for line in lines:
            print(line)
        print(f"{last:{WIDTH}}  {found:>16}  {wanted:14}  {judged}".rstrip())
    print(f"{missed} missed")
    if options.details:
        print("\nleast energy of each layer: our tiling and ZigZag's mapping, both by our accounting")
        print("\n".join(options.details))


if __name__ == "__main__":
    main()
