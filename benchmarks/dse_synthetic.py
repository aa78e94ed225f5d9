"""A synthetic search problem: hypervolume and seconds per proposal.

Six ordinal parameters and one categorical one, a constraint, a known objective and a noisy learnt one.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

import dse

REFERENCE = {"area": 1e6, "loss": 10.0}


def space() -> dse.Space:
    return dse.Space(
        [
            dse.Ordinal("rows", [2**i for i in range(2, 9)], log=True),
            dse.Ordinal("columns", [2**i for i in range(2, 9)], log=True),
            dse.Ordinal("buffer", [2**i for i in range(10, 21)], log=True),
            dse.Ordinal("exp_bits", range(2, 9)),
            dse.Ordinal("frac_bits", range(1, 11)),
            dse.Ordinal("chunk", [2**i for i in range(3, 10)], log=True),
            dse.Categorical("dataflow", ("output", "weight", "input")),
        ],
        constraints=[lambda p: None if p["rows"] * p["columns"] <= 16_384 else "array too large"],
    )


def area(p: dict) -> float:
    unit = 1 + 0.05 * p["frac_bits"] ** 2 + 0.2 * p["exp_bits"]
    return p["rows"] * p["columns"] * unit + 0.02 * p["buffer"]


def loss(p: dict, rng: np.random.Generator) -> float:
    """A smooth sum of rounding, range, swamping and traffic terms, with 3 % noise."""
    swamping = 0.02 * abs(math.log2(p["chunk"]) - 6) ** 1.5
    precision = 2.0 ** -p["frac_bits"] + 4.0 * 2.0 ** -p["exp_bits"] + swamping
    reuse = {"output": 1.0, "weight": 1.4, "input": 2.0}[p["dataflow"]]
    traffic = 8.0 * reuse / math.sqrt(p["rows"] * p["columns"]) * (1 + 2.0**14 / p["buffer"]) ** 0.25
    return (precision + traffic) * math.exp(0.03 * rng.standard_normal())


def objectives() -> list[dse.Objective]:
    return [
        dse.Objective("area", known=area, transform="log"),
        dse.Objective("loss", transform="log"),
    ]


def search(method: str, seed: int, budget: int) -> tuple[float, dict[int, float]]:
    """Hypervolume of a whole campaign, and seconds per proposal by trial."""
    rng = np.random.default_rng(seed)
    seconds = {}
    campaign = dse.Campaign(space(), objectives(), seed=seed, method=method)
    while campaign.finished < budget:
        begin = time.perf_counter()
        (trial,) = campaign.ask()
        seconds[trial.id] = time.perf_counter() - begin
        campaign.tell(trial, {"loss": loss(trial.parameters, rng)})
    for _, note in campaign.notes:
        print("  note:", note)
    return campaign.hypervolume(REFERENCE), seconds


def report(methods: Sequence[str], seeds: int, budget: int = 51) -> list[dict[str, Any]]:
    """Print hypervolumes after `budget` evaluations, their ratios to the first method, and return them."""
    medians: dict[str, float] = {}
    found = []
    for method in methods:
        results = [search(method, seed, budget) for seed in range(seeds)]
        volumes = [volume for volume, _ in results]
        medians[method] = statistics.median(volumes)
        late = statistics.median(seconds[budget - 1] for _, seconds in results)
        print(
            f"synthetic: {method}: median hypervolume {medians[method]:.3f} of {seeds} seeds, "
            f"ratio of {methods[0]} to it {medians[methods[0]] / medians[method]:.3f}, "
            f"{late:.2f} s per proposal after {budget - 1} evaluations"
        )
        found += [
            {"part": "synthetic", "table": "synthetic", "method": method, "seed": seed, "hypervolume": volume}
            for seed, volume in enumerate(volumes)
        ]
    return found
