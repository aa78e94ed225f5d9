"""Queues against Erlang's formula, the speed of the simulation, and schedules of a network in time.

    python benchmarks/bench_events.py

The published model of such a simulator (STOMP, arXiv 2007.14371) is validated the same way, against
closed forms of open queues. The goal is a mean response within 2 % of Erlang C.
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import accumulate
from math import factorial

import numpy as np
from timing import machine

from accel.schedule import Schedule, schedule, working_set_minimum
from accel.schedule.events import POLICIES, Channel, Resources, Server, open_queue, simulate
from accel.workload import Workload

TASKS = 4_000_000
SEEDS = 3
SERVERS = (1, 2, 4, 16)
UTILIZATIONS = (0.3, 0.5, 0.7, 0.8, 0.9)
MACS_PER_CYCLE = 64


def erlang_c(servers: int, load: float) -> float:
    none = sum(load**k / factorial(k) for k in range(servers))
    all_busy = load**servers / factorial(servers) * servers / (servers - load)
    return all_busy / (none + all_busy)


def queues() -> None:
    print(f"M/M/c: mean response over mean service time, {SEEDS} seeds of {TASKS:,} tasks")
    print(f"{'c':>3} {'load':>5} {'Erlang C':>9} {'simulated':>9} {'mean error':>11} {'worst':>7}")
    spent, worst = 0.0, 0.0
    for servers in SERVERS:
        for utilization in UTILIZATIONS:
            load = servers * utilization
            expected = 1 + erlang_c(servers, load) / (servers - load)
            found = []
            for seed in range(SEEDS):
                began = time.process_time()
                trace = open_queue(
                    [Server(name="unit", count=servers)],
                    arrival_rate=load,
                    mean_service={"task": {"unit": 1.0}},
                    tasks=TASKS,
                    seed=seed,
                )
                spent += time.process_time() - began
                found.append(trace.mean_response)
            errors = np.array(found) / expected - 1
            worst = max(worst, float(np.abs(errors).max()))
            print(
                f"{servers:>3} {utilization:>5} {expected:>9.4f} {np.mean(found):>9.4f} "
                f"{100 * errors.mean():>9.2f} % {100 * np.abs(errors).max():>5.2f} %"
            )
    speed = len(SERVERS) * len(UTILIZATIONS) * SEEDS * TASKS / spent / 1e6
    print(f"worst {100 * worst:.2f} %; {speed:.1f} M tasks in a second, arrivals included\n")


def apart(plan: Schedule) -> Schedule:
    """Copy whose runs share no address, as in a scratchpad without end."""
    ends = [0, *accumulate(run.bytes for run in plan.residency)]
    runs = tuple(replace(run, address=end) for run, end in zip(plan.residency, ends, strict=False))
    return replace(plan, residency=runs, scratchpad_bytes=ends[-1])


def schedules() -> None:
    graph = Workload.named("resnet50").with_formats("int8")
    size = working_set_minimum(graph)
    plan = schedule(graph, size, weights="streamed")
    print(f"{graph.name} on {size:,} bytes: {len(plan.order)} operators, {len(plan.transfers)} transfers")
    print("(apart: no two stays of tensors share addresses, so memory never holds up an operator)")
    print(f"units ahead blocks {'policy':<15} {'cycles':>10} {'bound':>10}  stalls (cycles)")
    cases = (
        (1, 0, "packed"),
        (1, 1, "packed"),
        (1, 4, "packed"),
        (2, 4, "packed"),
        (2, 1, "apart"),
        (2, 4, "apart"),
    )
    for units, ahead, blocks in cases:
        for policy in POLICIES:
            resources = Resources(
                compute_units=units,
                channels=(Channel(bytes_per_cycle=16, latency_cycles=100),),
                double_buffering=ahead,
            )
            began = time.process_time()
            run = simulate(
                plan if blocks == "packed" else apart(plan),
                resources,
                compute_cycles=lambda op: -(-max(op.macs, op.vector_ops) // MACS_PER_CYCLE),
                policy=policy,
            )
            spent = time.process_time() - began
            stalls = ", ".join(f"{cause} {cycles:,}" for cause, cycles in run.stalls.items() if cycles)
            print(
                f"{units:>5} {ahead:>5} {blocks:<6} {policy:<15} {run.makespan_cycles:>10,} "
                f"{max(run.bounds.values()):>10,}  {stalls}  [{1e3 * spent:.0f} ms]"
            )


def main() -> None:
    print(machine(), "\n")
    queues()
    schedules()


if __name__ == "__main__":
    main()
