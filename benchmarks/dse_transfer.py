"""Search with transfer: what a source saves in the first evaluations, and that a wrong one costs little.

60 random rows of a source and 5 random rows of the target are given, and every campaign goes on from there
with models. Four campaigns per seed share them: without a source (``none``), with it (``transfer``),
and with two that no longer tell anything: its results shuffled over its designs (``shuffled``), and every
other one of its parameters shuffled (``mixed``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from dse_tables import Problem, load

import dse

#: Source and target: related ones in both directions, then tables that share the names of some parameters.
PAIRS = (
    ("bfs_dense", "bfs_sparse"),
    ("bfs_sparse", "bfs_dense"),
    ("hlsyn/v18/stencil", "hlsyn/v20/stencil"),
    ("hlsyn/v20/stencil", "hlsyn/v18/stencil"),
    ("hlsyn/v18/gemm-ncubed", "hlsyn/v20/gemm-ncubed"),
    ("hlsyn/v20/gemm-ncubed", "hlsyn/v18/gemm-ncubed"),
    ("mm", "hist"),
    ("fir", "sobel"),
)
VARIANTS = ("none", "transfer", "shuffled", "mixed")
SOURCE_ROWS, GIVEN, BUDGET, LOOKS = 60, 5, 20, (8, 10, 15, 20)
_TOLERATED = 1.1  # median regret with a source over that without
_RESOLVED = 0.001  # regret below which ratios mean nothing


def source_of(source: Problem, target: Problem, variant: str, seed: int) -> pd.DataFrame:
    """Given rows of a source, with the target's names of the objectives."""
    some = np.random.default_rng([seed, 31]).permutation(len(source.frame))[:SOURCE_ROWS]
    names = dict(zip(source.objectives, target.objectives, strict=True))
    columns = [*source.columns, *source.objectives]
    frame = source.frame.loc[some, columns].rename(columns=names).reset_index(drop=True)
    rng = np.random.default_rng([seed, 32])
    if variant == "shuffled":
        results = list(target.objectives)
        frame[results] = frame[results].to_numpy()[rng.permutation(len(frame))]
    if variant == "mixed":
        for column in source.columns[::2]:
            frame[column] = frame[column].to_numpy()[rng.permutation(len(frame))]
    return frame


def search(source: Problem, target: Problem, variant: str, seed: int) -> dict[int, float]:
    """Regret by number of evaluations."""
    options: dict[str, Any] = {}
    if variant != "none":
        options["transfer"] = [source_of(source, target, variant, seed)]
    wanted = [dse.Objective(name) for name in target.objectives]
    campaign = dse.Campaign(target.space, wanted, seed=seed, initial=GIVEN, **options)
    rows = target.given(seed, GIVEN)
    campaign.attach(target.frame.loc[rows, [*target.columns, *target.objectives]])
    found = {}
    while len(rows) < BUDGET:
        (trial,) = campaign.ask()
        rows.append(trial.row)
        campaign.tell(trial, target.told(trial.row))
        if len(rows) in LOOKS:
            found[len(rows)] = target.regret(rows)
    return found


def report(data: Path, seeds: Sequence[int], pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Print median regrets, and the ratio of medians to no transfer, by pair; return every result."""
    found: list[dict[str, Any]] = []
    for names in pairs:
        source, target = (load(data, name) for name in names)
        if source is None or target is None:
            print(f"skipped: no tables {' and '.join(names)} in {data} (--data DIR)")
            continue
        if not set(source.columns) & set(target.columns):
            print(f"transfer: {names[0]} -> {names[1]}: {refused(source, target)}")
            continue
        medians: dict[str, dict[int, float]] = {}
        for variant in VARIANTS:
            results = [search(source, target, variant, seed) for seed in seeds]
            medians[variant] = {look: float(np.median([r[look] for r in results])) for look in LOOKS}
            found += [
                {
                    "part": "transfer",
                    "table": f"{names[0]} -> {names[1]}",
                    "method": variant,
                    "seed": seed,
                    "evaluations": look,
                    "regret": result[look],
                }
                for seed, result in zip(seeds, results, strict=True)
                for look in LOOKS
            ]
            ratios = {
                look: (medians[variant][look] + _RESOLVED) / (medians["none"][look] + _RESOLVED)
                for look in LOOKS
            }
            cells = ", ".join(
                f"{medians[variant][look]:.3f} at {look} (x {ratios[look]:.2f})" for look in LOOKS
            )
            worse = [look for look in LOOKS if ratios[look] > _TOLERATED]
            verdict = f"; WORSE at {', '.join(map(str, worse))}" if worse else ""
            print(f"transfer: {names[0]} -> {names[1]}: {variant:<9} regret {cells}{verdict}", flush=True)
    return found


def refused(source: Problem, target: Problem) -> str:
    """How a campaign answers to a source that has nothing in common with it."""
    try:
        search(source, target, "transfer", 0)
    except ValueError as error:
        return f"refused: {error}"
    return "NOT REFUSED"
