"""Train every numerics of a co-design campaign once, with looks on the way: a table to replay searches on.

    python benchmarks/codesign_table.py studies/configs/digits.toml benchmarks/data/codesign_digits-cnn.csv

One row per numerics and seed (the first row of each seed is the float32 twin): training loss, metric and
processor seconds after each look. Interrupted, the same command goes on. The rows come in an order drawn at
random, so that an unfinished table is a sample of the whole.
"""

from __future__ import annotations

import argparse
import csv
from itertools import product
from pathlib import Path

import numpy as np
import torch

from numerics import threads
from studies.codesign.config import CampaignConfig
from studies.codesign.evaluate import numerics_of, recipe_of
from studies.codesign.pricing import numerics_names
from studies.config import load
from studies.training import watched

TWIN = "float32"
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)  # of the steps, after which the run is looked at


def looks_of(steps: int) -> list[int]:
    return sorted({max(1, round(share * steps)) for share in SHARES})


def every_numerics(config: CampaignConfig) -> list[dict[str, object]]:
    names = numerics_names(config.space)
    return [
        dict(zip(names, values, strict=True))
        for values in product(*(getattr(config.space, name) for name in names))
    ]


def make(config: CampaignConfig, path: Path) -> None:
    """Append what is missing."""
    recipe, names = recipe_of(config), numerics_names(config.space)
    looks = looks_of(config.training.steps)
    measured = [f"{what}_{look}" for look in looks for what in ("training_loss", "metric", "seconds")]
    done = set()
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            done = {tuple(row[name] for name in (*names, "seed")) for row in csv.DictReader(file)}
    else:
        path.write_text(",".join([*names, "seed", *measured]) + "\n", encoding="utf-8")
    seeds = range(config.seed, config.seed + config.training.replicates)
    wanted = [(numerics, seed) for numerics in every_numerics(config) for seed in seeds]
    order = np.random.default_rng(0).permutation(len(wanted))
    twins = [(None, seed) for seed in seeds]
    for parameters, seed in [*twins, *(wanted[place] for place in order)]:
        values = [TWIN, *[""] * (len(names) - 1)] if parameters is None else list(parameters.values())
        if (key := tuple(map(str, (*values, seed)))) in done:
            continue
        numerics = None if parameters is None else numerics_of(config, parameters)
        cells = [
            f"{value:.9g}"
            for outcome in watched(recipe, numerics, seed=seed, steps=looks)
            for value in (outcome.training_loss, outcome.metric, outcome.seconds)
        ]
        with path.open("a", encoding="utf-8") as file:
            file.write(",".join([*key, *cells]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("table", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    threads.limit(1)
    make(load(options.config, CampaignConfig), options.table)


if __name__ == "__main__":
    main()
