"""Prediction from few evaluations: samples needed against random sampling, and what transfer adds.

Two protocols on tables of real designs; every median is over seeds, and all methods see the same rows.

- ``samples``: a third of the rows, random per seed, is the test set; 10 random rows are given, and batches of
  10 are chosen. Reported is the number of samples with which the median error of log10(time) first falls to
  that of random sampling and a plain Gaussian process with 150, ingredient by ingredient.
- ``transfer``: 60 random rows of a source and n of the target are given. Reported is R2 on held-out rows.
  Pairs are releases of a tool in both directions, other kernels, and sources whose results are shuffled.

Run ``python benchmarks/dse_prediction.py DATA``, where DATA holds ``spector`` and ``hlsyn``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dse import Space
from dse.objective import Objective
from dse.transfer import Source, tasks

REFERENCE, BATCH, MOST = 150, 10, 150
SOURCE_ROWS = {"samples": 150, "transfer": 60}
INGREDIENTS = (
    "plain, random",
    "plain",
    "+ kernel",
    "+ features",
    "+ committee",
    "+ transfer",
)
WAYS = ("plain", "none", "mean", "icm", "rgpe", "auto")
TIME = Objective("time")


class Table:
    """Rows of one table: a space with features, and the logarithm of time."""

    def __init__(self, path: Path) -> None:
        frame = pd.read_csv(path)
        if "valid" in frame:
            frame = frame[frame["valid"] == 1].reset_index(drop=True)
        knobs = [c for c in frame if c.startswith(("knob_", "PARA_", "TILE_", "PIPE_"))]
        features = [c for c in frame if c.startswith("est_")]
        self.name = f"{path.parent.name}/{path.stem}"
        self.frame = frame[knobs + features].assign(
            time=np.log10(frame["time" if "time" in frame else "cycles"])
        )
        self.knobs = knobs
        self.space = Space.from_table(self.frame, knobs, features=features)
        designs: list = [None] * len(frame)
        for design in self.space.designs():
            designs[self.space.row(design)] = design
        encoded = self.space.encode(designs)
        self.rows = encoded.rows
        from dse._bayes.columns import Columns

        self.columns = Columns(encoded.numeric, encoded.categorical, encoded.features)
        self.y = self.frame["time"].to_numpy()

    def source(self, target: Table, count: int, seed: int, *, shuffled: bool = False) -> list:
        """Random rows of this table, in the columns of another; `shuffled`, with each other's results."""
        from dse._bayes.transfer import fit_sources

        some = np.random.default_rng([seed, 2]).permutation(len(self.frame))[:count]
        frame = self.frame.iloc[some]
        if shuffled:
            times = frame["time"].to_numpy()
            frame = frame.assign(time=times[np.random.default_rng([seed, 3]).permutation(count)])
        found = tasks([Source(self.name, frame)], target.space, TIME)
        return list(fit_sources(found, target.columns, seed))


def model_of(ingredient: str, table: Table, sources: Sequence) -> Callable:
    """Function of rows, targets and a seed that fits what the ingredients so far make."""
    from dse._bayes.committee import fit_committee
    from dse._bayes.surrogates import fit_gp
    from dse._bayes.transfer import fit_transfer

    knobs, everything = table.columns.without_features(), table.columns

    def fit(rows, y, seed):
        if ingredient == "+ committee":
            return fit_committee(rows, y, everything, seed)
        if ingredient == "+ transfer":
            return fit_transfer(rows, y, everything, sources, seed)
        columns = everything if ingredient == "+ features" else knobs
        return fit_gp(rows, y, columns, family="rbf" if ingredient.startswith("plain") else "matern32")

    return fit


def errors(ingredient: str, table: Table, sibling: Table | None, seed: int, most: int = MOST) -> list[float]:
    """Test error after 10, 20, ... samples."""
    from dse._bayes.active import choose

    order = np.random.default_rng(seed).permutation(len(table.y))
    test, pool = order[: len(order) // 3], order[len(order) // 3 :].tolist()
    sources = [] if sibling is None else sibling.source(table, SOURCE_ROWS["samples"], seed)
    fit = model_of(ingredient, table, sources)
    known, rest = pool[:BATCH], pool[BATCH:]
    found = []
    while True:
        model = fit(table.rows[known], table.y[known], seed)
        mean, _ = model.predict(table.rows[test])
        found.append(float(np.sqrt(np.mean((mean - table.y[test]) ** 2))))
        if len(known) >= most:
            return found
        if ingredient == "plain, random":
            picks = list(range(BATCH))
        else:
            picks = choose([model], table.rows[rest], BATCH, seed=seed).tolist()
        known = known + [rest[i] for i in picks]
        rest = [row for i, row in enumerate(rest) if i not in set(picks)]


def samples(paths: Sequence[Path], seeds: Sequence[int], ingredients: Sequence[str], most: int) -> None:
    """Print samples needed by ingredient, and the share saved of 150."""
    every = [Table(path) for path in paths]
    saved: dict[str, list[float]] = {name: [] for name in ingredients}
    for table in every:
        siblings = [t for t in every if t is not table and t.knobs == table.knobs]
        sibling = siblings[0] if siblings else None
        target = float("nan")
        for ingredient in ingredients:
            if ingredient == "+ transfer" and sibling is None:
                saved[ingredient].append(saved["+ committee"][-1])
                continue
            begin = time.process_time()
            end = REFERENCE if ingredient == "plain, random" else most
            curves = np.array(
                [
                    errors(ingredient, table, sibling if ingredient == "+ transfer" else None, seed, end)
                    for seed in seeds
                ]
            )
            median = np.median(curves, axis=0)
            if ingredient == "plain, random":
                target = median[-1]
            reached = np.flatnonzero(median <= target)
            needed = BATCH * (1 + int(reached[0])) if len(reached) else None
            saved[ingredient].append(1 - needed / REFERENCE if needed else 0.0)
            quartiles = np.percentile(curves[:, min(6, curves.shape[1] - 1)], [25, 50, 75])
            print(
                f"{table.name:18s} {ingredient:13s} reaches {target:.4f} with "
                f"{needed or f'over {end}':>8} samples"
                f" ({saved[ingredient][-1]:4.0%} fewer); at 70: {quartiles[1]:.4f} "
                f"[{quartiles[0]:.4f}, {quartiles[2]:.4f}]; "
                f"{(time.process_time() - begin) / len(seeds) / curves.shape[1]:.2f} s per batch",
                flush=True,
            )
    for ingredient, shares in saved.items():
        if shares:
            print(f"median table: {ingredient:14s} {statistics.median(shares):4.0%} fewer samples")


def transfer(
    pairs: Sequence[tuple[Path, Path, bool]],
    seeds: Sequence[int],
    counts: Sequence[int],
    ways: Sequence[str],
) -> None:
    """Print R2 by number of target rows, and the ratio of auto's error to that of no transfer.

    The third of a pair is whether the source's results are shuffled.
    """
    from dse._bayes.surrogates import fit_gp
    from dse._bayes.transfer import fit_transfer

    for source_path, target_path, shuffled in pairs:
        source, target = Table(source_path), Table(target_path)
        scores: dict[tuple[str, int], list[float]] = {(way, n): [] for way in ways for n in counts}
        weights = []
        for seed in seeds:
            order = np.random.default_rng(seed).permutation(len(target.y))
            test, pool = order[: len(order) // 3], order[len(order) // 3 :]
            sources = source.source(
                target, min(SOURCE_ROWS["transfer"], len(source.y)), seed, shuffled=shuffled
            )
            for n in counts:
                rows, y = target.rows[pool[:n]], target.y[pool[:n]]
                knobs = target.columns.without_features()
                for way in ways:
                    if way == "plain":
                        model = fit_gp(rows, y, knobs, family="rbf")
                    else:
                        model = fit_transfer(rows, y, knobs, sources, seed, way=way)
                    if way == "auto":
                        weights.append(1 - sum(model.report.weights.get(k, 0) for k in OWN))
                    error = model.predict(target.rows[test])[0] - target.y[test]
                    scores[way, n].append(float(np.mean(error**2) / target.y[test].var()))
        for way in ways:
            cells = " ".join(
                f"n={n}: R2 {1 - np.mean(scores[way, n]):5.2f},"
                f" rmse/sd {np.sqrt(np.median(scores[way, n])):.3f};"
                for n in counts
            )
            name = source.name + " shuffled" * shuffled
            print(f"{name} -> {target.name:20s} {way:6s} {cells}", flush=True)
        if {"auto", "none"} <= set(ways):
            ratios = [np.median(np.sqrt(np.divide(scores["auto", n], scores["none", n]))) for n in counts]
            print(
                f"    error of auto over none: {', '.join(f'{ratio:.3f}' for ratio in ratios)}; "
                f"mean weight of transfer {np.mean(weights):.2f}",
                flush=True,
            )


OWN = ("matern32", "product32", "additive", "linear", "forest")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--parts", default="samples,transfer")
    parser.add_argument("--tables", default="", help="names of Spector's tables; default: all")
    parser.add_argument(
        "--kernels", default="", help="names of HLSyn's kernels in both releases; default: all"
    )
    parser.add_argument("--ingredients", default=";".join(INGREDIENTS), help="separated by semicolons")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--pairs", default="same,reverse,shuffled,unrelated", help="kinds of pairs")
    parser.add_argument("--counts", default="5,10,20", help="numbers of target rows")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=MOST)
    options = parser.parse_args()
    spector, old, new = (options.data / part for part in ("spector", "hlsyn/v18", "hlsyn/v20"))
    if not spector.is_dir() and not new.is_dir():
        parser.exit(0, f"the shared data is absent: neither {spector} nor {new} is a folder\n")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    if "samples" in options.parts:
        names = (
            options.tables.split(",") if options.tables else [p.stem for p in sorted(spector.glob("*.csv"))]
        )
        samples(
            [spector / f"{name}.csv" for name in names], seeds, options.ingredients.split(";"), options.most
        )
    if "transfer" in options.parts:
        both = sorted({p.stem for p in old.glob("*.csv")} & {p.stem for p in new.glob("*.csv")})
        names = options.kernels.split(",") if options.kernels else both
        wanted = options.pairs.split(",")
        pairs: list[tuple[Path, Path, bool]] = []
        dense, sparse = spector / "bfs_dense.csv", spector / "bfs_sparse.csv"
        same = [(old / f"{name}.csv", new / f"{name}.csv") for name in names]
        same += [(dense, sparse)] if dense.exists() and sparse.exists() else []
        if "same" in wanted:
            pairs += [(source, target, False) for source, target in same]
        if "reverse" in wanted:
            pairs += [(target, source, False) for source, target in same]
        if "shuffled" in wanted:
            pairs += [(source, target, True) for source, target in same]
        if "unrelated" in wanted:
            # The next kernel's designs as source, where knobs agree in name alone.
            following = zip(names, names[1:] + names[:1], strict=True)
            pairs += [(old / f"{a}.csv", new / f"{b}.csv", False) for a, b in following]
        counts = [int(count) for count in options.counts.split(",")]
        transfer(pairs, seeds, counts, options.ways.split(","))


if __name__ == "__main__":
    main()
