"""Search with and without cheap evaluations: hypervolume against cost, and cost of the plain search's result.

Three synthetic problems, one of them with cheap evaluations that run against the full ones, and a table whose
cheap evaluation is real: a compiler's estimates before synthesis.

    python benchmarks/dse_fidelity.py [--seeds 10] [--budget 16] [--data FOLDER with spector/sobel.csv]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dse_synthetic
import numpy as np
import pandas as pd

import dse


@dataclass(frozen=True)
class Problem:
    """What is searched, at which levels, and how results are compared."""

    name: str
    space: dse.Space
    objectives: list[dse.Objective]
    fidelity: dse.Fidelity
    evaluate: Callable[[dict[str, Any]], dict[str, float]]
    reference: dict[str, float]


def array(*, misleading: bool) -> Problem:
    """The synthetic array: short runs see the rounding terms fully and the traffic only in part."""
    steps = dse.Fidelity("steps", (4, 16))

    def evaluate(p: dict[str, Any]) -> dict[str, float]:
        rng = np.random.default_rng(list(repr(sorted(p.items())).encode()))
        loss = dse_synthetic.loss(p, rng)
        if p.get("steps", 16) < 16:
            loss = 1.0 / loss if misleading else 1.5 * loss**0.8 + 0.3 + 0.01 * p["exp_bits"]
        return {"loss": loss}

    return Problem(
        f"array, {'misleading' if misleading else 'biased'} steps",
        dse_synthetic.space(),
        dse_synthetic.objectives(),
        steps,
        evaluate,
        dse_synthetic.REFERENCE,
    )


def branin_currin() -> Problem:
    """Two learnt objectives with the usual low fidelity of both: shifted inputs, smoothed."""
    space = dse.Space([dse.Ordinal("x", range(32)), dse.Ordinal("y", range(32))])

    def branin(x: float, y: float) -> float:
        a, b = 15 * x - 5, 15 * y
        inner = b - 5.1 * a**2 / (4 * math.pi**2) + 5 * a / math.pi - 6
        return inner**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(a) + 10

    def currin(x: float, y: float) -> float:
        left = 1 - math.exp(-1 / (2 * y)) if y > 0 else 1.0
        return left * (2300 * x**3 + 1900 * x**2 + 2092 * x + 60) / (100 * x**3 + 500 * x**2 + 4 * x + 20)

    def evaluate(p: dict[str, Any]) -> dict[str, float]:
        x, y = p["x"] / 31, p["y"] / 31
        if p.get("effort", 10) == 10:
            return {"branin": branin(x, y), "currin": currin(x, y)}
        near = [
            (x + 0.05, y + 0.05),
            (x + 0.05, max(0.0, y - 0.05)),
            (x - 0.05, y + 0.05),
            (x - 0.05, y - 0.05),
        ]
        return {
            "branin": 10 * math.sqrt(max(branin(x - 0.1, y - 0.1), 0.0)) + 5 * x,
            "currin": sum(currin(*each) for each in near) / 4,
        }

    return Problem(
        "Branin and Currin",
        space,
        [dse.Objective("branin"), dse.Objective("currin")],
        dse.Fidelity("effort", (1, 10)),
        evaluate,
        {"branin": 320.0, "currin": 14.0},
    )


def estimates(data: Path) -> Problem:
    """Sobel filters on an FPGA: the compiler's estimates for a twentieth of a synthesis."""
    table = pd.read_csv(data / "spector" / "sobel.csv")
    knobs = [name for name in table.columns if name.startswith("knob_")]
    rows = {tuple(row[name] for name in knobs): row for row in table.to_dict("records")}
    space = dse.Space.from_table(table[knobs], knobs)

    def evaluate(p: dict[str, Any]) -> dict[str, float]:
        row = rows[tuple(p[name] for name in knobs)]
        if p.get("stage", 2) == 2:
            return {"time": row["time"], "logic": row["logic"]}
        return {"time": 1.0 / row["est_throughput"], "logic": row["est_logic_pct"]}

    worst = {"time": 1.1 * float(table["time"].max()), "logic": 1.1 * float(table["logic"].max())}
    wanted = [dse.Objective("time", transform="log"), dse.Objective("logic")]
    stage = dse.Fidelity("stage", (1, 2), prices=(0.05, 1.0))
    return Problem("sobel, estimates", space, wanted, stage, evaluate, worst)


def search(problem: Problem, seed: int, budget: int, *, cheap: bool) -> tuple[dict[int, float], float, float]:
    """Hypervolume by cost 1..budget, seconds per proposal, and the share that was spent cheaply."""
    fidelity = problem.fidelity if cheap else None
    campaign = dse.Campaign(problem.space, problem.objectives, seed=seed, fidelity=fidelity)
    volumes, seconds = {}, []
    while campaign.spent < budget - 1e-9:
        begin = time.process_time()
        asked = campaign.ask()
        seconds.append(time.process_time() - begin)
        if not asked:
            break
        campaign.tell(asked[0], problem.evaluate(asked[0].settings))
        volumes[math.ceil(campaign.spent - 1e-9)] = campaign.hypervolume(problem.reference)
    low = sum(trial.price for trial in campaign.trials if trial.price < 1)
    found, last = {}, 0.0
    for cost in range(1, budget + 1):
        last = volumes.get(cost, last)
        found[cost] = last
    return found, statistics.fmean(seconds), low / campaign.spent


def report(problem: Problem, seeds: int, budget: int) -> None:
    """Print median hypervolumes at some costs, and at which cost the plain search's last one is reached."""
    medians = {}
    for cheap in (False, True):
        results = [search(problem, seed, budget, cheap=cheap) for seed in range(seeds)]
        traces = np.array([list(found.values()) for found, _, _ in results])
        medians[cheap] = np.median(traces, axis=0)
        at = [budget // 4, budget // 2, budget]
        share = statistics.fmean(low for _, _, low in results)
        volumes = ", ".join(f"{medians[cheap][cost - 1]:.4g} at {cost}" for cost in at)
        print(
            f"{problem.name}: {'with' if cheap else 'without'} {problem.fidelity.name}: "
            f"median hypervolume {volumes}; "
            f"{share:.0%} spent cheaply, {statistics.fmean(s for _, s, _ in results):.2f} s per proposal",
            flush=True,
        )
    reached = np.flatnonzero(medians[True] >= medians[False][-1])
    cost = f"{reached[0] + 1} of {budget}" if len(reached) else f"more than {budget}"
    print(f"{problem.name}: plain search's final median is reached at a cost of {cost}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budget", type=int, default=16)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    problems = [branin_currin(), array(misleading=False), array(misleading=True)]
    if options.data is not None:
        problems.insert(1, estimates(options.data))
    for problem in problems:
        report(problem, options.seeds, options.budget)


if __name__ == "__main__":
    main()
