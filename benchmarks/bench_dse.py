"""Bayesian search against random and Sobol search: seconds per proposal, and hypervolume per budget.

The problem is synthetic and mixed: six ordinal parameters and one categorical one, a constraint, a
known objective and a noisy learnt one. Run ``python benchmarks/bench_dse.py``.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import numpy as np

import dse

REFERENCE = {"area": 1e6, "loss": 10.0}
METHODS = ("qlognehvi", "sobol", "random")


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
    return [dse.Objective("area", known=area, log=True), dse.Objective("loss", log=True)]


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=51)
    options = parser.parse_args()

    search("qlognehvi", 0, 11)  # imports PyTorch
    volumes: dict[str, list[float]] = {}
    for method in METHODS:
        results = [search(method, seed, options.budget) for seed in range(options.seeds)]
        volumes[method] = [volume for volume, _ in results]
        print(f"{method}: hypervolume {', '.join(f'{volume:.3f}' for volume in volumes[method])}")
        if method == "qlognehvi":
            for n in (10, 30, 50):
                if n < options.budget:
                    median = statistics.median(seconds[n] for _, seconds in results)
                    print(f"  {median:.2f} s per proposal after {n} evaluations")
    ours = statistics.median(volumes["qlognehvi"])
    for method in METHODS:
        median = statistics.median(volumes[method])
        print(f"median {median:.3f} {method}, ratio of qlognehvi to it {ours / median:.3f}")


if __name__ == "__main__":
    main()
