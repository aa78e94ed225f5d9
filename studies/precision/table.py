"""What a study found: means and intervals over the seeds, differences from the twin, and a verdict.

All intervals are 95 % intervals of Student's t over the seeds; differences are paired, policy minus twin of
the same seed. Runs that diverged are counted and take no part in means, intervals and differences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

TWIN = "float32"  #: name of the full-precision twin
CONFIDENCE = 0.95


def interval(values: Sequence[float], *, resolution: float = 0.0) -> tuple[float, float]:
    """Mean, and half the width of its interval; NaN where there are too few values.

    Parameters
    ----------
    resolution
        Of each number whose differences the values are: three equal differences of one test sample are no
        proof, so the standard deviation counts as at least that of two rounding errors, resolution / sqrt(6).

    Examples
    --------
    >>> mean, half = interval([1.0, 2.0, 3.0])
    >>> mean, round(half, 3)  # 4.303 / sqrt(3)
    (2.0, 2.484)
    """
    count = len(values)
    mean = float(np.mean(values)) if count else math.nan
    if count < 2:
        return mean, math.nan
    quantile = float(stdtrit(count - 1, 0.5 + CONFIDENCE / 2))
    deviation = max(float(np.std(values, ddof=1)), resolution / math.sqrt(6.0))
    return mean, quantile * deviation / math.sqrt(count)


def summary(
    runs: pd.DataFrame, *, metric: str, larger_is_better: bool, resolution: float = 0.0
) -> pd.DataFrame:
    """One row per policy, in the order of `runs`.

    Parameters
    ----------
    runs
        One row per run with the columns ``policy``, ``seed``, ``training_loss``, ``metric``, ``diverged`` (a
        text if it has), ``skipped_steps`` and ``step_seconds``; the twin's policy is `TWIN`.
    metric
        Its name, for the verdict.
    larger_is_better, resolution
        Of the metric; the resolution is that of one run, 0 if it may be any number.

    Returns
    -------
    Columns ``policy``, ``seeds``, ``training_loss``, ``metric``, ``loss_difference``, ``metric_difference``,
    each of the last four with its ``..._interval``, ``diverged``, ``skipped_steps`` (of all seeds),
    ``relative_step_time`` (median step against the twin's) and ``verdict`` (see `verdict`).
    """
    sign = 1.0 if larger_is_better else -1.0
    twin = runs[runs["policy"] == TWIN].set_index("seed")
    rows = []
    for name in runs["policy"].unique():
        mine = runs[runs["policy"] == name].set_index("seed")
        done = mine[mine["diverged"].isna()]
        row: dict[str, Any] = {"policy": name, "seeds": len(mine)}
        for column in ("training_loss", "metric"):
            row[column], row[f"{column}_interval"] = interval(done[column].tolist())
        pairs = [seed for seed in done.index if seed in twin.index and pd.isna(twin.loc[seed, "diverged"])]
        for column, short in (("training_loss", "loss"), ("metric", "metric")):
            differences = (done.loc[pairs, column] - twin.loc[pairs, column]).tolist() if name != TWIN else []
            row[f"{short}_difference"], row[f"{short}_difference_interval"] = interval(
                differences, resolution=resolution if short == "metric" else 0.0
            )
        row["diverged"] = len(mine) - len(done)
        row["skipped_steps"] = int(mine["skipped_steps"].sum())
        row["relative_step_time"] = _ratio(mine["step_seconds"], twin["step_seconds"])
        row["verdict"] = verdict(row, metric=metric, sign=sign, pairs=len(pairs))
        rows.append(row)
    return pd.DataFrame(rows)


def verdict(row: dict[str, Any], *, metric: str, sign: float, pairs: int) -> str:
    """Judge a policy against its twin.

    ``diverged k of n`` if any run did. Else by the paired intervals of the two differences: ``worse by x in
    ...`` if one of them lies on its bad side of zero altogether, the metric being asked first; else
    ``better by x in ...`` if one lies on the good side; ``matches`` if both hold zero, which means that so
    many seeds show no difference, not that there is none. ``one seed``, ``twin diverged``: nothing to
    compare.

    Parameters
    ----------
    sign
        +1 if a larger metric is better, -1 if a smaller one is.
    pairs
        Number of seeds with which both the policy and the twin were trained to the end.
    """
    if row["diverged"]:
        return f"diverged {row['diverged']} of {row['seeds']}"
    if row["policy"] == TWIN:
        return "twin"
    if pairs < 2:
        return "one seed" if row["seeds"] == pairs else "twin diverged"
    gains = {
        metric: (sign * row["metric_difference"], row["metric_difference_interval"]),
        "training loss": (-row["loss_difference"], row["loss_difference_interval"]),
    }
    for word, side in (("worse", -1.0), ("better", 1.0)):
        for name, (gain, half) in gains.items():
            if side * gain > half:
                return f"{word} by {abs(gain):.3g} in {name}"
    return "matches"


def _ratio(seconds: pd.Series[Any], reference: pd.Series[Any]) -> float:
    of_twin = float(reference.median()) if len(reference) else math.nan
    return float(seconds.median()) / of_twin if of_twin > 0 else math.nan
