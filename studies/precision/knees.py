"""How metric and final training loss follow a swept number, and from where on more of it gains nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from studies.precision.results import Results
from studies.precision.table import interval

_NO_KNEE = ("chunk",)  # last words of paths of which more is not always better


@dataclass(frozen=True)
class Line:
    """Policies that differ by one number alone.

    Attributes
    ----------
    name
        What they share: the policy that was swept, and the other swept values.
    points
        One row per value, ascending: ``value``, ``policy``, and the columns of
        `studies.precision.table.summary`.
    knee
        See `knee`; ``None`` if there is none to tell.
    """

    name: str
    points: pd.DataFrame
    knee: float | None


@dataclass(frozen=True)
class Sweep:
    """All lines of one swept path.

    Attributes
    ----------
    path
        As `Policy.replace` knows it.
    has_knee
        Whether more of it is never coarser, so that a knee means something: not of chunks.
    """

    path: str
    lines: tuple[Line, ...]
    has_knee: bool

    @property
    def values(self) -> list[float]:
        """Values of all lines, in the order in which they are drawn: no chunks (0) come last."""
        found = sorted({float(value) for line in self.lines for value in line.points["value"]})
        return [*found[1:], 0.0] if self.is_chunk and found[0] == 0.0 else found

    @property
    def is_chunk(self) -> bool:
        """Whether it is the number of products in a chunk, of which 0 stands for plain sums."""
        return self.path.rpartition(".")[2] == "chunk"


def sweeps(results: Results) -> list[Sweep]:
    """Sweeps over numbers, in the order of their paths in the study; texts are never on an axis."""
    table = results.table.set_index("policy")
    paths = dict.fromkeys(path for values in results.swept.values() for path in values)
    found = []
    for path in paths:
        groups: dict[str, dict[float, str]] = {}
        for name, values in results.swept.items():
            if name in table.index and _is_number(values.get(path)):
                others = {key: value for key, value in values.items() if key != path}
                groups.setdefault(_title(results.bases[name], others), {})[float(values[path])] = name
        has_knee = path.rpartition(".")[2] not in _NO_KNEE
        lines = []
        for title, policies in groups.items():
            if len(policies) < 2:
                continue
            points = pd.DataFrame(
                [{"value": value, **table.loc[name], "policy": name} for value, name in policies.items()]
            ).sort_values("value", ignore_index=True)
            lines.append(Line(title, points, knee(points, results.compared) if has_knee else None))
        if lines:
            found.append(Sweep(path, tuple(lines), has_knee))
    return found


def knee(points: pd.DataFrame, runs: pd.DataFrame) -> float | None:
    """Smallest value from which on a larger one gains nothing that the seeds can tell.

    A value is as good as the largest one of its line if none of its runs diverged and the 95 % interval of
    the differences of the logarithm of the final training loss from that with the largest value, paired by
    seed, does not lie above zero altogether. The knee is the smallest value that is as good and above which
    all are. (Where a loss is not positive, differences of the losses themselves.) An interval of few seeds is
    wide: the true knee may be higher.

    Parameters
    ----------
    points
        ``value`` and ``policy``, ascending.
    runs
        One row per run: ``policy``, ``seed``, ``training_loss``, ``diverged``.

    Returns
    -------
    ``None`` if the largest value has fewer than two runs that did not diverge, or any that did.
    """
    of = {name: mine.set_index("seed") for name, mine in runs.groupby("policy")}
    best = of[points["policy"].iloc[-1]]
    if len(best) < 2 or best["diverged"].notna().any():
        return None
    found = float(points["value"].iloc[-1])
    for value, name in zip(points["value"][-2::-1], points["policy"][-2::-1], strict=True):
        mine = of[name]
        seeds = best.index.intersection(mine.index)
        losses = np.array([mine.loc[seeds, "training_loss"], best.loc[seeds, "training_loss"]], np.float64)
        if mine["diverged"].notna().any() or len(seeds) < 2:
            break
        losses = np.log(losses) if (losses > 0).all() else losses
        mean, half = interval((losses[0] - losses[1]).tolist())
        if mean > half:
            break
        found = float(value)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _title(base: str, others: Mapping[str, Any]) -> str:
    return ", ".join((base, *(f"{path} = {value}" for path, value in others.items())))
