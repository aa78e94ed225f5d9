"""How well the accuracy model predicts runs that it has not seen.

    python benchmarks/bench_accuracy.py [--draws 3] [--folds 3] [--runs FILE] [--out FILE]

Two questions, of the run table that comes with the package:

* a new task, of whose runs 0, 2, 4, 8 or 16 are known (drawn at random, several times). Of the other tasks
  all runs are known, or, with new configurations, only those of configurations that are not predicted;
* new configurations: folds of configurations that no task has run.

Methods: the accuracy model; Gaussian processes on the raw configuration, of this task's runs alone and with
the other tasks' runs joined in the same way as the model's; the nearest configuration that was run; PEPPP,
the completion of the matrix of tasks and configurations, which has no answer for a configuration that no task
has run. PEPPP may choose its runs by D-optimality; then the model is given the same ones. Errors are of the
share kept of what the float32 twin learns (`studies.accuracy.scale`), for whole runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from studies.accuracy.model import AccuracyModel, Inputs, configuration
from studies.accuracy.peppp import Peppp
from studies.accuracy.policies import NAMES, NumericsChoice
from studies.accuracy.runs import TABLE, read_runs
from studies.accuracy.scale import kept_share
from studies.accuracy.statistics import known

KNOWN = (0, 2, 4, 8, 16)  # runs of the new task
LEVEL = 0.9


@dataclass(frozen=True)
class Predicted:
    """Shares kept, (n,): means, and ends of the interval where there is one."""

    mean: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


#: From runs of other tasks, or of all, runs of the task, and the runs to predict; ``None`` where it has no
#: answer.
Method = Callable[[pd.DataFrame, pd.DataFrame, pd.DataFrame], Predicted | None]


class Process:
    """A Gaussian process, fitted to all that is known.

    For a new task, hyper-parameters are those of the others alone, which are fitted once; all else is fitted
    to its runs too.
    """

    def __init__(self, inputs: Inputs, *, joined: bool = True) -> None:
        self.inputs, self.joined = inputs, joined
        self._fitted: dict[tuple[int, ...], AccuracyModel] = {}

    def __call__(self, source: pd.DataFrame, target: pd.DataFrame, test: pd.DataFrame) -> Predicted | None:
        """Fit and predict."""
        if self.joined:
            model = self.others(source)
            if not target.index.isin(source.index).all():
                both = pd.concat([source, target])
                model = AccuracyModel(inputs=self.inputs).fit(both, like=model)
        elif len(target) < 5:
            return None
        else:
            model = AccuracyModel(inputs=self.inputs).fit(target)
        mean, low, high = (np.empty(len(test)) for _ in range(3))
        for task in test["task"].unique():
            rows = (test["task"] == task).to_numpy()
            policies = choices_of(test[rows])
            mean[rows], _ = model.predict(task, policies)
            low[rows], high[rows] = model.interval(task, policies, level=LEVEL)
        return Predicted(*(shares(test, pd.Series(found)) for found in (mean, low, high)))

    def others(self, source: pd.DataFrame) -> AccuracyModel:
        """Fitted to runs of other tasks, once."""
        key = tuple(source.index)
        if key not in self._fitted:
            self._fitted[key] = AccuracyModel(inputs=self.inputs).fit(source)
        return self._fitted[key]


def nearest(source: pd.DataFrame, target: pd.DataFrame, test: pd.DataFrame) -> Predicted:
    """Mean of the nearest whole runs, of this task if there are any."""
    runs = whole(target if len(target) else source)
    spread = np.ptp(raw(whole(pd.concat([source, target, test]))), axis=0)
    distances = np.abs(raw(test)[:, None] - raw(runs)[None]) / np.where(spread > 0, spread, 1.0)
    total = distances.sum(axis=2)
    near = total <= total.min(axis=1, keepdims=True) + 1e-9
    return Predicted((near * kept(runs)).sum(axis=1) / near.sum(axis=1))


class Completed:
    """PEPPP: shares lost by the matrix of tasks and configurations, whole runs of the first seed in it."""

    def __init__(self, *, centred: bool) -> None:
        self.centred = centred
        self._fitted: dict[tuple[int, ...], tuple[Peppp, list[int]]] = {}

    def __call__(self, source: pd.DataFrame, target: pd.DataFrame, test: pd.DataFrame) -> Predicted | None:
        """Complete and predict; nothing where no other task has run all configurations of the task."""
        peppp, columns = self.fitted(source)
        measured = first_seed(target)
        if not set(test["configuration"]) | set(measured["configuration"]) <= set(columns):
            return None
        place = {number: index for index, number in enumerate(columns)}
        lost = 1.0 - kept(measured)
        known_errors = {
            place[number]: float(error) for number, error in zip(measured["configuration"], lost, strict=True)
        }
        errors = peppp.predict(known_errors)[[place[number] for number in test["configuration"]]]
        return Predicted(np.clip(1.0 - errors, 0.0, 1.0))

    def fitted(self, source: pd.DataFrame) -> tuple[Peppp, list[int]]:
        """Fitted to runs of the other tasks, and the configurations that are its columns; a run costs 1."""
        key = tuple(source.index)
        if key not in self._fitted:
            ends = first_seed(source)
            table = ends.assign(lost=1.0 - kept(ends)).pivot_table(
                index="task", columns="configuration", values="lost"
            )
            peppp = Peppp(table.to_numpy(), np.ones(table.shape[1]), centred=self.centred).fit()
            self._fitted = {key: (peppp, table.columns.to_list())}
        return self._fitted[key]


METHODS: dict[str, Method] = {
    "accuracy model": Process("features"),
    "raw GP, joined": Process("configuration"),
    "raw GP, this task": Process("configuration", joined=False),
    "nearest": nearest,
    "PEPPP": Completed(centred=False),
    "PEPPP, centred": Completed(centred=True),
}


def whole(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs at full fidelity."""
    return runs[runs["fidelity"] == 1.0]


def first_seed(runs: pd.DataFrame) -> pd.DataFrame:
    """Whole runs without repeats."""
    return whole(runs[runs["seed"] == 0])


def choices_of(runs: pd.DataFrame) -> list[NumericsChoice]:
    return [NumericsChoice.of(row) for row in runs[list(NAMES)].to_dict("records")]


def raw(runs: pd.DataFrame) -> np.ndarray:
    """Configurations as numbers, (n, 11)."""
    return np.array([list(configuration(choice).values()) for choice in choices_of(runs)])


def kept(runs: pd.DataFrame) -> np.ndarray:
    """Shares kept, measured."""
    return shares(runs, runs["test_accuracy"])


def shares(runs: pd.DataFrame, accuracy: pd.Series) -> np.ndarray:
    """Shares kept of accuracies of runs."""
    found = np.empty(len(runs))
    for task in runs["task"].unique():
        rows = (runs["task"] == task).to_numpy()
        fidelity = runs["fidelity"].to_numpy()[rows]
        found[rows] = kept_share(known()[task], accuracy.to_numpy()[rows], fidelity)
    return found


def score(test: pd.DataFrame, predicted: Predicted) -> dict[str, float]:
    """Rank correlation, root mean square and mean absolute error, coverage and width of the interval."""
    y = kept(test)
    flat = np.ptp(predicted.mean) == 0 or np.ptp(y) == 0
    result = {
        "rank": 0.0 if flat else float(spearmanr(y, predicted.mean)[0]),
        "rmse": float(np.sqrt(np.mean((y - predicted.mean) ** 2))),
        "mae": float(np.mean(np.abs(y - predicted.mean))),
    }
    if predicted.low is not None and predicted.high is not None:
        # An accuracy is a count: a run is inside if less than half a sample of the test set is missing.
        inside = (y >= predicted.low - 0.002) & (y <= predicted.high + 0.002)
        result |= {"coverage": float(inside.mean()), "width": float(np.mean(predicted.high - predicted.low))}
    return result


def new_task(
    runs: pd.DataFrame, methods: dict[str, Method], *, folds: int, draws: int, fresh: bool
) -> Iterator[dict[str, object]]:
    """Every task in turn is new; `fresh` leaves out the configurations that are predicted everywhere.

    Folds share the draws: each has at least one.
    """
    draws = max(1, draws // folds) if fresh else draws
    numbers = np.random.default_rng(0).permutation(sorted(runs["configuration"].unique()))
    for task in runs["task"].unique():
        mine, others = runs[runs["task"] == task], runs[runs["task"] != task]
        first = whole(mine[mine["seed"] == 0])
        for fold in range(folds if fresh else 1):
            held = set(numbers[fold::folds]) if fresh else set()
            source = others[~others["configuration"].isin(held)]
            pool = first[~first["configuration"].isin(held)]["configuration"].to_numpy()
            for count in KNOWN:
                for draw in range(draws if count else 1):
                    drawn = np.random.default_rng([draw, count, fold]).permutation(pool)[:count]
                    # Lower fidelities of a run come with it.
                    target = mine[(mine["seed"] == 0) & mine["configuration"].isin(drawn)]
                    rest = held if fresh else set(pool) - set(drawn)
                    test = first[first["configuration"].isin(rest)]
                    for name, method in methods.items():
                        predicted = method(source, target, test)
                        if predicted is not None:
                            yield {"method": name, "task": task, "runs": count, **score(test, predicted)}


def chosen_runs(runs: pd.DataFrame, methods: dict[str, Method]) -> Iterator[dict[str, object]]:
    """Every task in turn is new; its runs are those that PEPPP chooses by D-optimality, greedily."""
    for task in runs["task"].unique():
        mine, source = runs[runs["task"] == task], runs[runs["task"] != task]
        peppp, columns = Completed(centred=False).fitted(source)
        for count in KNOWN[1:]:
            chosen = {columns[index] for index in peppp.choose(float(count), method="greedy").indices}
            target = mine[(mine["seed"] == 0) & mine["configuration"].isin(chosen)]
            ends = first_seed(mine)
            test = ends[~ends["configuration"].isin(chosen)]
            for name, method in methods.items():
                predicted = method(source, target, test)
                if predicted is not None:
                    yield {"method": name, "task": task, "runs": count, **score(test, predicted)}


def new_configurations(
    runs: pd.DataFrame, methods: dict[str, Method], *, folds: int
) -> Iterator[dict[str, object]]:
    """Every fold of configurations in turn is new, to all tasks at once."""
    numbers = np.random.default_rng(1).permutation(sorted(runs["configuration"].unique()))
    for fold in range(folds):
        held = runs["configuration"].isin(numbers[fold::folds])
        test = whole(runs[held & (runs["seed"] == 0)])
        for name, method in methods.items():
            for task, rows in test.groupby("task", sort=False):
                mine = runs[~held & (runs["task"] == task)]
                predicted = method(runs[~held], mine, rows)
                if predicted is not None:
                    yield {"method": name, "task": task, **score(rows, predicted)}


def show(title: str, results: pd.DataFrame, by: list[str]) -> None:
    print(f"\n{title}")
    numbers = [name for name in results.columns if name not in ("method", "task", "runs")]
    print(results.groupby(by, sort=False)[numbers].mean().round(3).to_string())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=Path, default=TABLE)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="a CSV file with one row per split and method")
    options = parser.parse_args()
    table = read_runs(options.runs)
    runs = table[table["configuration"] >= 0].reset_index(drop=True)
    noise = repeats(runs)
    print(
        f"{len(table[table['fidelity'] == 1.0])} runs of {table['task'].nunique()} tasks, "
        f"{runs['configuration'].nunique()} configurations; another seed changes the share kept by "
        f"{noise:.3f} (root mean square)"
    )
    tables = []
    begin = time.process_time()
    chooses = {name: METHODS[name] for name in ("accuracy model", "raw GP, joined", "PEPPP")}
    for title, results in (
        ("new task, runs that PEPPP chooses", chosen_runs(runs, chooses)),
        (
            "new task",
            new_task(runs, METHODS, folds=options.folds, draws=options.draws, fresh=False),
        ),
        (
            "new task and new configurations",
            new_task(runs, METHODS, folds=options.folds, draws=options.draws, fresh=True),
        ),
        ("new configurations", new_configurations(runs, METHODS, folds=5)),
    ):
        found = pd.DataFrame(results)
        by = ["method", "runs"] if "runs" in found.columns else ["method"]
        show(title, found, by)
        tables.append(found.assign(split=title))
    print(f"\n{time.process_time() - begin:.0f} s of processor time")
    if options.out is not None:
        pd.concat(tables).to_csv(options.out, index=False)


def repeats(runs: pd.DataFrame) -> float:
    """Root mean square difference of the shares kept of a run and its repeat, over the square root of 2."""
    ends = whole(runs).assign(kept=kept(whole(runs)))
    pairs = ends.pivot_table(index=["task", "configuration"], columns="seed", values="kept")
    change = (pairs[0] - pairs[1]).dropna()
    return float(np.sqrt(np.mean(change**2) / 2.0))


if __name__ == "__main__":
    main()
