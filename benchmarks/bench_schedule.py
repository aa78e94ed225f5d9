"""Optimal schedules of networks on a scratchpad: seconds, status and traffic against every baseline.

    python benchmarks/bench_schedule.py [--data DIR] [--graphs PATTERN] [--quick]

The graphs are those inside the ``onnx`` package, element-wise operators fused, one byte per element, and
the JSON graphs of a folder. Everything is computed in one run: (1) atomic mode at the working-set minimum
M_R, the minimal peak M_P and halfway between, M_H, with activations alone and with weights too; (2) streamed
mode over powers of two; (3) mean reductions against each baseline.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from time import perf_counter, process_time

import pandas as pd
from timing import machine

from accel.networks import zoo
from accel.schedule import Schedule, schedule, sweep, working_set_minimum
from accel.schedule._weights import Weights
from accel.schedule.baselines import baselines
from accel.schedule.peak import peak_minimum
from accel.workload import Workload

TRACKED: dict[Weights, str] = {"streamed": "activations", "tracked": "activations + weights"}
SWEEP_BYTES = tuple(2**k for k in range(16, 23))  # 64 KiB .. 4 MiB
QUICK_SWEEP_BYTES = (2**16, 2**19, 2**22)
ATOMIC_GOAL_S, SWEEP_GOAL_S = 5.0, 20.0
LARGE_OPERATORS = 600  # of graphs for which an upper bound is what is asked for
SHOWN = {
    "mpmf belady online": ("mpmf", "belady", "online"),
    "default lru online": ("default", "lru", "online"),
    "mpmf belady offline": ("mpmf", "belady", "offline"),
    "layer by layer": ("default", "layer-by-layer", "none"),
}
RULES = ["order", "replacement", "allocation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One schedule in atomic mode and its baselines."""

    plan: Schedule
    size: str
    tracked: str
    table: pd.DataFrame

    def reductions(self) -> Iterator[tuple[tuple[str, str, str], int, int]]:
        """Baseline with its non-compulsory bytes and those of the plan."""
        for row in self.table.itertuples():
            key = (str(row.order), str(row.replacement), str(row.allocation))
            yield key, int(row.noncompulsory_bytes), self.plan.noncompulsory_bytes


def graphs(data: Path | None, pattern: str, *, quick: bool) -> Iterator[Workload]:
    """Graphs whose name matches `pattern`; the large ones are left out where it must be `quick`."""
    for name in zoo():
        if fnmatch(name, pattern):
            yield Workload.named(name, fuse="elementwise").with_formats("int8")
    if data is None:
        print("no folder of JSON graphs given (--data): the graphs of the onnx package alone are measured")
        return
    paths = sorted(data.glob("*.json"))
    if not paths:
        print(f"no JSON graphs in {data}: the graphs of the onnx package alone are measured")
    for path in paths:
        if fnmatch(path.stem, pattern):
            graph = Workload.from_json(path)
            if quick and len(graph.operators) > LARGE_OPERATORS:
                print(f"{graph.name}: left out by --quick, {len(graph.operators)} operators")
                continue
            yield graph


def interesting_sizes(graph: Workload, weights: Weights) -> tuple[dict[int, str], float]:
    """M_R, M_H and M_P by size, those that coincide joined; and the processor seconds they took."""
    started_s = process_time()
    low, high = working_set_minimum(graph, weights=weights), peak_minimum(graph, weights=weights)
    seconds = process_time() - started_s
    names: dict[int, str] = {}
    for name, size in (("M_R", low), ("M_H", (low + high) // 2), ("M_P", high)):
        names[size] = f"{names[size]}={name}" if size in names else name
    return names, seconds


def atomic(graph: Workload, *, time_limit_s: float, quick: bool) -> list[Case]:
    """Print and return the cases of one graph."""
    cases: list[Case] = []
    for weights, tracked in TRACKED.items():
        sizes, peak_s = interesting_sizes(graph, weights)
        print(f"\n{graph.name}, {tracked}: {len(graph.operators)} operators, sizes found in {peak_s:.2f} s")
        print(
            f"  {'size':12}{'bytes':>12}  {'status':9}{'method':12}{'seconds':>8}{'NC':>12}{'bound':>12}  "
            + "".join(f"{rule:>20}" for rule in SHOWN)
        )
        for size, name in list(sizes.items())[: 1 if quick else None]:
            started_s = perf_counter()
            plan = schedule(graph, size, weights=weights, time_limit_s=time_limit_s)
            seconds = perf_counter() - started_s
            case = Case(plan=plan, size=name, tracked=tracked, table=baselines(graph, size, weights=weights))
            cases.append(case)
            found = {key: (theirs, ours) for key, theirs, ours in case.reductions()}
            print(
                f"  {name:12}{size:12d}  {plan.status:9}{plan.method:12}{seconds:8.2f}"
                f"{plan.noncompulsory_bytes:12d}{plan.bound_bytes:12d}  "
                + "".join(f"{percent(*found[key]):>20}" for key in SHOWN.values()),
                flush=True,
            )
    return cases


def percent(theirs: int, ours: int) -> str:
    """Part of the baseline's non-compulsory bytes that the schedule saves; a dash where there are none."""
    return f"{100 * (1 - ours / theirs):.1f} %" if theirs else "-"


def streamed(graph: Workload, *, sizes: Sequence[int], time_limit_s: float) -> tuple[bool, bool, float]:
    """Print one sweep; return whether all is proved, whether traffic never rises, and the seconds."""
    started_s = perf_counter()
    plans = sweep(graph, sizes, mode="streamed", time_limit_s=time_limit_s)
    seconds = perf_counter() - started_s
    proved = all(plan.status == "OPTIMAL" for plan in plans)
    traffic = [plan.noncompulsory_bytes for plan in plans]
    falling = traffic == sorted(traffic, reverse=True)
    print(
        f"  {graph.name:24}{seconds:8.2f} s  {'proved' if proved else 'NOT PROVED':10}"
        f"  {'non-increasing' if falling else 'INCREASING':14}  " + " ".join(f"{nc:>11d}" for nc in traffic),
        flush=True,
    )
    return proved, falling, seconds


def reductions(cases: Sequence[Case]) -> pd.DataFrame:
    """One row per case and baseline."""
    rows = [
        (case.plan.workload.name, *key, theirs, ours)
        for case in cases
        for key, theirs, ours in case.reductions()
    ]
    return pd.DataFrame(rows, columns=["graph", *RULES, "baseline_bytes", "optimal_bytes"])


def report_means(cases: Sequence[Case]) -> None:
    """Mean reductions graph by graph and over all, and what the numbers mean."""
    table = reductions(cases)
    table["reduction"] = 1 - table.optimal_bytes / table.baseline_bytes.where(table.baseline_bytes > 0)
    for allocation, part in table.groupby("allocation", sort=False):
        rules = part.order + " " + part.replacement
        wide = part.assign(rule=rules).pivot_table(
            index="graph", columns="rule", values="reduction", aggfunc="mean", sort=False, dropna=False
        )
        print(f"\nallocation {allocation}: mean reduction of non-compulsory bytes, %")
        print((100 * wide).round(1).to_string(na_rep="-"))
    print("\nover all graphs, %")
    print(f"{'order':9}{'replacement':16}{'allocation':12}{'macro':>7}{'micro':>7}{'cases':>7}{'zero':>6}")
    for key, part in table.groupby(RULES, sort=False):
        order, replacement, allocation = key
        by_graph = part.groupby("graph").reduction.mean()  # skips cases without baseline traffic
        total = part.baseline_bytes.sum()
        micro = 100 * (1 - part.optimal_bytes.sum() / total) if total else float("nan")
        zero = int((part.baseline_bytes == 0).sum())
        print(
            f"{order:9}{replacement:16}{allocation:12}{100 * by_graph.mean():7.1f}{micro:7.1f}"
            f"{len(part) - zero:7d}{zero:6d}"
        )
    names = table.graph.nunique()
    print(
        f"\nA reduction is 1 - optimal / baseline in non-compulsory bytes (spills, refetches, relocations)"
        f"\nof one case: a graph, activations alone or with weights, one of the sizes M_R, M_H, M_P (equal"
        f"\nsizes are one case); {len(cases)} cases of {names} graphs. 'macro' is the mean over graphs"
        f"\nof each graph's mean over its cases; 'micro' is that of the bytes of all cases summed, which"
        f"\nlarge graphs rule. Where the baseline moves no avoidable byte ('zero') a case has none: it is"
        f"\nleft out of 'macro', and adds what the schedule moves to 'micro'. Numbers are negative only where"
        f"\na plan is not proved optimal, or against 'none', which knows no fragmentation."
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="folder of JSON graphs")
    parser.add_argument("--graphs", default="*", help="pattern of graph names, such as 'zoo:*' or '*resnet*'")
    parser.add_argument(
        "--quick", action="store_true", help="M_R alone, three streamed sizes, no large graph"
    )
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds per schedule")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all three parts."""
    options = parse(arguments)
    print(machine())
    chosen = list(graphs(options.data, options.graphs, quick=options.quick))
    if not chosen:
        raise SystemExit(f"no graph is called {options.graphs!r}")
    print("\n(1) atomic mode, order, residency and addresses free")
    cases: list[Case] = []
    for graph in chosen:
        cases += atomic(graph, time_limit_s=options.time_limit, quick=options.quick)
    hand = [case for case in cases if len(case.plan.order) < LARGE_OPERATORS]
    proved = [case for case in hand if case.plan.status == "OPTIMAL"]
    fast = [case for case in proved if case.plan.seconds <= ATOMIC_GOAL_S]
    print(
        f"\n{len(proved)} of {len(hand)} cases below {LARGE_OPERATORS} operators proved optimal, {len(fast)} "
        f"within {ATOMIC_GOAL_S:g} s; slowest {max((c.plan.seconds for c in hand), default=0.0):.2f} s"
    )
    for case in cases:
        if case.plan.status != "OPTIMAL" or case not in hand:
            print(
                f"  {case.plan.workload.name}, {case.tracked}, {case.size}: {case.plan.status}, "
                f"{case.plan.noncompulsory_bytes} bytes, bound {case.plan.bound_bytes}, "
                f"{case.plan.seconds:.1f} s"
            )
    sizes = QUICK_SWEEP_BYTES if options.quick else SWEEP_BYTES
    print("\n(2) streamed mode, given order: NC bytes at " + ", ".join(f"{size >> 10} KiB" for size in sizes))
    found = [streamed(graph, sizes=sizes, time_limit_s=options.time_limit) for graph in chosen]
    print(
        f"\n{sum(proved for proved, _, _ in found)} of {len(found)} sweeps proved optimal, "
        f"{sum(falling for _, falling, _ in found)} non-increasing, "
        f"{sum(seconds <= SWEEP_GOAL_S for *_, seconds in found)} within {SWEEP_GOAL_S:g} s; "
        f"slowest {max(seconds for *_, seconds in found):.2f} s"
    )
    print("\n(3) reductions")
    report_means(cases)


if __name__ == "__main__":
    main()
