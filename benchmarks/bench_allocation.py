"""Seconds to place the buffers of MiniMalloc's instances, and what greedy placement would need.

    python benchmarks/bench_allocation.py FOLDER [--seconds 60] [--seed 0] [--peer]

FOLDER holds files ``name.capacity.csv`` with the columns id, lower, upper and size. The greedy height is
that of largest-first, lowest-hole placement. ``--peer`` also gives each instance to CP-SAT as a no-overlap
problem in two dimensions with a cumulative of the capacity, on two threads and with the same time.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
from ortools.sat.python import cp_model
from timing import machine

from accel.schedule._kernels.greedy_allocation import place_in_order
from accel.schedule._packer.search import load_kernels
from accel.schedule.allocation import Lifetime, allocate, read_lifetimes


def greedy_height_bytes(lifetimes: Sequence[Lifetime]) -> int:
    start, end, size = np.array([(a.start, a.end, a.bytes) for a in lifetimes], np.int64).T.copy()
    offset = np.zeros(size.size, np.int64)
    order = np.lexsort((start - end, -size))
    place_in_order(order, start, end, size, 1 << 61, offset, np.zeros(size.size, np.int64))
    return int((offset + size).max())


def peer_seconds(
    lifetimes: Sequence[Lifetime], capacity: int, seconds: float, seed: int
) -> tuple[str, float]:
    """What CP-SAT says of the same instance in units of the common divisor, and how long it took."""
    began = perf_counter()
    unit = int(np.gcd.reduce([a.bytes for a in lifetimes]))
    model = cp_model.CpModel()
    top = capacity // unit
    times, spaces = [], []
    for a in lifetimes:
        height = a.bytes // unit
        at = model.new_int_var(0, max(top - height, 0), a.name)
        times.append(model.new_fixed_size_interval_var(a.start, a.end - a.start, f"{a.name} time"))
        spaces.append(model.new_fixed_size_interval_var(at, height, f"{a.name} space"))
    model.add_no_overlap_2d(times, spaces)
    model.add_cumulative(times, [a.bytes // unit for a in lifetimes], top)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 2
    solver.parameters.random_seed = seed
    status = solver.solve(model)
    return solver.status_name(status), perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer", action="store_true")
    options = parser.parse_args()
    files = sorted(options.folder.glob("*.*.csv")) if options.folder.is_dir() else []
    if not files:
        print(f"no instances: {options.folder} is no folder with files name.capacity.csv")
        return
    print(machine())
    load_kernels()
    header = f"{'instance':<12}{'buffers':>8}{'capacity':>10}{'greedy':>8}  {'status':<11}{'method':<8}"
    print(f"{header}{'nodes':>9}{'seconds':>9}{'  CP-SAT' if options.peer else ''}")
    placed = 0
    for file in files:
        name, capacity = file.name.removesuffix(".csv").rsplit(".", 1)
        lifetimes = read_lifetimes(file)
        found = allocate(lifetimes, int(capacity), time_limit_s=options.seconds, seed=options.seed)
        if found.is_placed:
            found.check()
            placed += 1
        ratio = greedy_height_bytes(lifetimes) / int(capacity)
        row = f"{name:<12}{len(lifetimes):>8}{capacity:>10}{ratio:>8.2f}"
        row += f"  {found.status:<11}{found.method:<8}{found.nodes:>9}{found.seconds:>9.2f}"
        if options.peer:
            status, seconds = peer_seconds(lifetimes, int(capacity), options.seconds, options.seed)
            row += f"  {status} {seconds:.2f}"
        print(row, flush=True)
    print(f"placed {placed} of {len(files)}; greedy is its height over the capacity")


if __name__ == "__main__":
    main()
