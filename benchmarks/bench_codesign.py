"""Search methods on a co-design campaign, replayed on a table of all its numerics.

    python benchmarks/bench_codesign.py benchmarks/data/codesign-ablation.toml \
        benchmarks/data/codesign_digits-cnn.csv

For each method and seed: hypervolume against seconds of training and against full trainings. Training is
looked up in the table that ``codesign_table.py`` makes, with the seconds it took there; energy is exact.
Numerics that were trained before, at that level or higher, are not trained again, as in a campaign.

``--source CONFIG TABLE`` adds the method with transfer: first a campaign on that table, by the same seed.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import exp, isfinite, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from dse import Campaign, Fidelity, Space, hypervolume
from studies.codesign.campaign import objectives_of, space_of
from studies.codesign.config import CampaignConfig
from studies.codesign.features import features_for, fitted_model, statistics_of
from studies.codesign.pricing import Pricing, numerics_names
from studies.config import load
from studies.tasks import build_task
from studies.training import guessing_loss

if TYPE_CHECKING:
    from studies.accuracy.model import AccuracyModel
    from studies.accuracy.statistics import TaskStatistics


@dataclass(frozen=True)
class Variant:
    """A way to search.

    Attributes
    ----------
    method, initial
        Of `dse.Campaign`.
    features
        The learnt objective reads features.
    brief
        Part of the steps, as a divisor, after which a candidate may be judged.
    transfer
        From a campaign on another task.
    """

    method: str = "auto"
    initial: int | None = None
    features: bool = False
    brief: int | None = None
    transfer: bool = False


#: What is compared.
METHODS: dict[str, Variant] = {
    "random": Variant(method="random"),
    "nsga2": Variant(method="nsga2"),
    "plain": Variant(initial=10),
    "start 5": Variant(),
    "+features": Variant(features=True),
    "+fidelity 1/4": Variant(brief=4),
    "+fidelity 1/16": Variant(brief=16),
    "+transfer": Variant(transfer=True),
    "features+transfer": Variant(features=True, transfer=True),
    "full 1/4": Variant(features=True, transfer=True, brief=4),
    "full 1/16": Variant(features=True, transfer=True, brief=16),
}
SHARES = (0.8, 0.9, 0.95, 0.98, 1.0)  # of the plain method's final hypervolume


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
    """A campaign and what its numerics measured; numerics that are not in the table are no candidates."""

    def __init__(self, config: Path, table: Path, *, left_out: Collection[str] = ()) -> None:
        self.config = load(config, CampaignConfig)
        self.names = numerics_names(self.config.space)
        self.looks = read(table, self.names)
        task = build_task(self.config.training.table)
        data = task.load()
        self.pricing = Pricing.of(self.config, task, data)
        self.pricing.prepare()
        whole = space_of(self.config, self.pricing)
        self.space = Space(whole.parameters, constraints=[self._why_not])
        self.full = self.config.training.steps

        def prepare() -> tuple[TaskStatistics, AccuracyModel]:
            statistics = statistics_of(self.config, task, data)
            return statistics, fitted_model(statistics, left_out=left_out)

        features = features_for(self.config, prepare)
        guess = guessing_loss(task, data)
        self.objectives = {
            False: objectives_of(self.config, self.pricing, guess),
            True: objectives_of(self.config, self.pricing, guess, features),
        }
        self.corner = self._corner()

    def key(self, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """Numerics of a candidate as the table has them."""
        return tuple(str(parameters[name]) for name in self.names)

    def at(self, parameters: Mapping[str, Any], steps: int) -> Look:
        """What numerics measured after some steps."""
        return self.looks[self.key(parameters)][steps]

    def _why_not(self, parameters: dict[str, Any]) -> str | None:
        if self.key(parameters) not in self.looks:
            return "is not in the table"
        return self.pricing.why_infeasible(parameters)

    def _corner(self) -> np.ndarray:
        """Worst loss of interest, and the energy of the median of 256 designs drawn at random."""
        rng = np.random.default_rng(0)
        drawn = []
        for design in self.space.sequence(rng, sobol=False):
            drawn.append(self.pricing.cost(self.space.parameters_of(design)).total_energy_pj)
            if len(drawn) == 256:
                break
        threshold = self.objectives[False][0].threshold
        assert threshold is not None
        return np.log10([threshold, np.median(drawn)])


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
    table: Table, variant: Variant, seed: int, budget: int, transfer: list[pd.DataFrame]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One campaign: its trace (seconds, trainings, hypervolume), and its trials."""
    trained: dict[tuple[str, ...], int] = {}
    trace: list[dict[str, float]] = []
    points: list[list[float]] = []
    seconds = 0.0
    levels = [table.full // (variant.brief or 1), table.full]

    def evaluate(parameters: dict[str, Any]) -> dict[str, float]:
        nonlocal seconds
        key, steps = table.key(parameters), parameters.get("steps", table.full)
        look = table.looks[key][steps]
        if trained.get(key, 0) < steps:
            trained[key] = steps
            seconds += look.seconds
        if isfinite(look.loss) and steps == table.full:
            points.append([look.loss, table.pricing.cost(parameters).total_energy_pj])
        volume = hypervolume(np.log10(points), table.corner) if points else 0.0
        full = sum(reached == table.full for reached in trained.values())
        trace.append({"seconds": seconds, "trainings": full, "hypervolume": volume})
        if not isfinite(look.loss):
            raise ValueError("the training diverged")
        return {"training_loss": look.loss}

    with Campaign(
        table.space,
        table.objectives[variant.features],
        seed=seed,
        method=variant.method,
        initial=variant.initial,
        fidelity=None if variant.brief is None else Fidelity("steps", levels, prices=levels),
        transfer=transfer,
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
    parser.add_argument(
        "--left-out",
        nargs="*",
        default=[],
        help="tasks of the accuracy model's run table that it is not to know",
    )
    parser.add_argument("--out", type=Path, help="CSV of all traces; those in it are not searched again")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    traces: dict[str, dict[int, pd.DataFrame]] = {name: {} for name in options.methods}
    if options.out is not None and options.out.exists():
        for (name, seed), rows in pd.read_csv(options.out).groupby(["method", "seed"]):
            if name in traces and seed < options.seeds:
                traces[name][seed] = rows
    run(options, traces)
    report({name: list(found.values()) for name, found in traces.items() if found})


def run(options: argparse.Namespace, traces: Mapping[str, dict[int, pd.DataFrame]]) -> None:
    """Search with every method and seed whose trace is missing."""
    wanted = [
        (seed, name) for seed in range(options.seeds) for name in options.methods if seed not in traces[name]
    ]
    if not wanted:
        return
    table = Table(options.config, options.table, left_out=options.left_out)
    source = Table(*options.source) if options.source else None
    print(
        f"{len(table.looks)} numerics, {table.space.size} designs, corner {table.corner.round(3)}", flush=True
    )
    earlier: dict[int, list[pd.DataFrame]] = {}
    for seed, name in wanted:
        variant = METHODS[name]
        if variant.transfer and source is None:
            continue
        if variant.transfer and seed not in earlier:
            assert source is not None
            trials = search(source, METHODS["start 5"], seed, options.budget, [])[1]
            done = trials.loc[trials["state"] == "done", [*table.names, "training_loss"]]
            earlier[seed] = [done.drop_duplicates(list(table.names))]
        begin = time.process_time()
        sources = earlier[seed] if variant.transfer else []
        trace, _ = search(table, variant, seed, options.budget, sources)
        traces[name][seed] = trace
        last = trace.iloc[-1]
        print(
            f"{name:<18} seed {seed}: hypervolume {last['hypervolume']:.4f}, {last['seconds']:.1f} s, "
            f"{last['trainings']:.0f} trainings; searched in {time.process_time() - begin:.1f} s",
            flush=True,
        )
        if options.out is not None:
            rows = trace.round({"seconds": 3, "hypervolume": 6}).assign(method=name, seed=seed)
            rows.to_csv(options.out, mode="a", header=not options.out.exists(), index=False)


def report(traces: Mapping[str, list[pd.DataFrame]]) -> None:
    """Medians over the seeds: final hypervolume, seconds and trainings to shares of the plain one's."""
    goal = float(np.median([trace["hypervolume"].iloc[-1] for trace in traces["plain"]]))
    print(f"\nmedian final hypervolume of plain: {goal:.4f}; all hypervolumes are shares of it")
    for column in ("seconds", "trainings"):
        heads = "".join(f"{f'{share:.0%}':>8}" for share in SHARES)
        print(f"\nmedian {column} to a share\n{'method':<18} {'final':>6} {'in all':>7}{heads}")
        for name, found in traces.items():
            final = np.median([trace["hypervolume"].iloc[-1] / goal for trace in found])
            spent = np.median([trace[column].iloc[-1] for trace in found])
            cells = [
                np.median([first_at(trace, column, share * goal) for trace in found]) for share in SHARES
            ]
            print(f"{name:<18} {final:>6.3f} {spent:>7.1f}" + "".join(f"{cell:>8.1f}" for cell in cells))
    needed = {name: [first_at(trace, "seconds", goal) for trace in found] for name, found in traces.items()}
    spent = float(np.median([trace["seconds"].iloc[-1] for trace in traces["plain"]]))
    plain = float(np.median(needed["plain"]))
    print(f"\nseconds to plain's final hypervolume, as a share of what plain needs ({plain:.1f} s)")
    print(f"and of all that plain trained ({spent:.1f} s), and seeds that came there")
    for name, seconds in needed.items():
        median = float(np.median(seconds))
        print(f"{name:<18} {median / plain:>6.2f} {median / spent:>6.2f} {sum(map(isfinite, seconds)):>4}")


if __name__ == "__main__":
    main()
