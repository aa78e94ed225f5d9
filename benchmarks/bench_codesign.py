"""Search methods on a co-design campaign, replayed on a table of all its numerics.

    python benchmarks/bench_codesign.py studies/configs/digits.toml benchmarks/data/codesign_digits-cnn.csv

For each method and seed: hypervolume (share of the true one) against seconds of training and against full
trainings. Training is looked up in the table that ``codesign_table.py`` makes, with the seconds it took
there; energy is exact. Numerics that were trained before are not trained again, as in a campaign. The true
front has every numerics on the hardware of least energy.

``--source CONFIG TABLE`` adds the method with transfer: first a campaign on that table, by the same seed.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import exp, isfinite, log
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from dse import Campaign, hypervolume
from studies.codesign.campaign import objectives_of, space_of
from studies.codesign.config import CampaignConfig
from studies.codesign.pricing import HARDWARE, Pricing, numerics_names
from studies.config import load
from studies.tasks import build_task
from studies.training import guessing_loss

#: Options of `dse.Campaign` by the name of the method.
METHODS: dict[str, dict[str, Any]] = {
    "random": {"method": "random"},
    "nsga2": {"method": "nsga2"},
    "plain": {"method": "auto"},
    "+transfer": {"method": "auto"},
}
SHARES = (0.5, 0.8, 0.9, 0.95, 0.98)  # of the true hypervolume


@dataclass(frozen=True)
class Look:
    """Replicates of one numerics after some steps."""

    losses: tuple[float, ...]
    seconds: float

    @property
    def loss(self) -> float:
        """Geometric mean over the replicates; infinite or NaN if one is."""
        logs = [log(max(loss, 1e-12)) if isfinite(loss) else float("nan") for loss in self.losses]
        return exp(sum(logs) / len(logs))


class Table:
    """A campaign and what its numerics measured."""

    def __init__(self, config: Path, table: Path) -> None:
        self.config = load(config, CampaignConfig)
        self.names = numerics_names(self.config.space)
        self.looks = read(table, self.names)
        task = build_task(self.config.training.table)
        self.pricing = Pricing.of(self.config, task)
        self.pricing.prepare()
        self.space = space_of(self.config, self.pricing)
        self.objectives = objectives_of(self.config, self.pricing, guessing_loss(task, task.load()))
        self.full = self.config.training.steps
        self.corner = self._corner()

    def at(self, parameters: Mapping[str, Any], steps: int | None = None) -> Look:
        """What numerics measured after some steps, all if not given."""
        key = tuple(str(parameters[name]) for name in self.names)
        return self.looks[key][self.full if steps is None else steps]

    def _corner(self) -> np.ndarray:
        """Worst loss of interest, and the energy of the median of 256 designs drawn at random."""
        rng = np.random.default_rng(0)
        drawn = []
        for design in self.space.sequence(rng, sobol=False):
            drawn.append(self.pricing.cost(self.space.parameters_of(design)).total_energy_pj)
            if len(drawn) == 256:
                break
        threshold = self.objectives[0].threshold
        assert threshold is not None
        return np.log10([threshold, np.median(drawn)])

    def truth(self) -> float:
        """Hypervolume of the true front."""
        lists = [getattr(self.config.space, name) for name in HARDWARE]
        hardware = [dict(zip(HARDWARE, values, strict=True)) for values in product(*lists)]
        best: dict[tuple[Any, ...], float] = {}
        rows = []
        for key, looks in self.looks.items():
            parameters = dict(zip(self.names, key, strict=True))
            for name in ("accumulator_exp_bits", "accumulator_frac_bits", "chunk"):
                parameters[name] = int(parameters[name])
            priced = tuple(value for name, value in parameters.items() if name != "update_rounding")
            if priced not in best:
                candidates = ({**parameters, **chosen} for chosen in hardware)
                best[priced] = min(
                    (
                        self.pricing.cost(candidate).total_energy_pj
                        for candidate in candidates
                        if self.pricing.why_infeasible(candidate) is None
                    ),
                    default=float("inf"),
                )
            if isfinite(looks[self.full].loss) and isfinite(best[priced]):
                rows.append([looks[self.full].loss, best[priced]])
        return hypervolume(np.log10(rows), self.corner)


def read(path: Path, names: tuple[str, ...]) -> dict[tuple[str, ...], dict[int, Look]]:
    """Looks by numerics and steps; numerics of which a replicate is missing are left out."""
    found: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row[names[1]]:  # not the twin
                found[tuple(row[name] for name in names)].append(row)
    most = max(map(len, found.values()))
    steps = [
        int(name.rsplit("_", 1)[1]) for name in next(iter(found.values()))[0] if name.startswith("metric_")
    ]
    return {
        key: {
            step: Look(
                losses=tuple(float(row[f"training_loss_{step}"]) for row in rows),
                seconds=sum(float(row[f"seconds_{step}"]) for row in rows),
            )
            for step in steps
        }
        for key, rows in found.items()
        if len(rows) == most
    }


def search(
    table: Table, options: dict[str, Any], seed: int, budget: int, transfer: list[pd.DataFrame]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One campaign: its trace (seconds, trainings, hypervolume), and its trials."""
    trained: set[tuple[Any, ...]] = set()
    trace: list[dict[str, float]] = []
    points: list[list[float]] = []
    seconds = 0.0

    def evaluate(parameters: dict[str, Any]) -> dict[str, float]:
        nonlocal seconds
        look = table.at(parameters)
        key = tuple(parameters[name] for name in table.names)
        if key not in trained:
            trained.add(key)
            seconds += look.seconds
        if isfinite(look.loss):
            points.append([look.loss, table.pricing.cost(parameters).total_energy_pj])
        volume = hypervolume(np.log10(points), table.corner) if points else 0.0
        trace.append({"seconds": seconds, "trainings": len(trained), "hypervolume": volume})
        if not isfinite(look.loss):
            raise ValueError("the training diverged")
        return {"training_loss": look.loss}

    with Campaign(
        table.space,
        table.objectives,
        seed=seed,
        initial=table.config.search.initial,
        transfer=transfer,
        **options,
    ) as campaign:
        campaign.run(evaluate, budget=budget)
        return pd.DataFrame(trace), campaign.frame()


def first_at(trace: pd.DataFrame, column: str, volume: float) -> float:
    """Value of a column when the hypervolume first reaches a volume, infinite if it never does."""
    reached = trace[trace["hypervolume"] >= volume]
    return float("inf") if reached.empty else float(reached[column].iloc[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--source", type=Path, nargs=2, metavar=("CONFIG", "TABLE"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(options.config, options.table)
    source = Table(*options.source) if options.source else None
    true = table.truth()
    print(f"{len(table.looks)} numerics, true hypervolume {true:.4f}, corner {table.corner.round(3)}")
    traces: dict[str, list[pd.DataFrame]] = defaultdict(list)
    for seed in range(options.seeds):
        for name in options.methods:
            if name == "+transfer" and source is None:
                continue
            earlier = []
            if name == "+transfer":
                assert source is not None
                trials = search(source, METHODS["plain"], seed, options.budget, [])[1]
                earlier = [trials.loc[trials["state"] == "done", [*table.names, "training_loss"]]]
            trace, _ = search(table, METHODS[name], seed, options.budget, earlier)
            traces[name].append(trace)
            last = trace.iloc[-1]
            print(
                f"{name:<12} seed {seed}: {last['hypervolume'] / true:.4f} of the true hypervolume, "
                f"{last['seconds']:.1f} s, {last['trainings']:.0f} trainings",
                flush=True,
            )
    report(traces, true)


def report(traces: Mapping[str, list[pd.DataFrame]], true: float) -> None:
    """Medians over the seeds: final hypervolume, and seconds and trainings to shares of it."""
    for column in ("seconds", "trainings"):
        heads = "".join(f"{f'{share:.0%}':>9}" for share in SHARES)
        print(f"\nmedian {column} to a share of the true hypervolume\n{'method':<12} {'final':>7}{heads}")
        for name, found in traces.items():
            final = np.median([trace["hypervolume"].iloc[-1] / true for trace in found])
            cells = [
                np.median([first_at(trace, column, share * true) for trace in found]) for share in SHARES
            ]
            print(f"{name:<12} {final:>7.4f}" + "".join(f"{cell:>9.1f}" for cell in cells))
    if "plain" not in traces:
        return
    goal = float(np.median([trace["hypervolume"].iloc[-1] for trace in traces["plain"]]))
    plain = float(np.median([first_at(trace, "seconds", goal) for trace in traces["plain"]]))
    print(f"\nseconds to plain's final hypervolume ({goal / true:.4f}), as a share of its {plain:.1f} s")
    for name, found in traces.items():
        print(f"{name:<12} {np.median([first_at(trace, 'seconds', goal) for trace in found]) / plain:>7.2f}")


if __name__ == "__main__":
    main()
