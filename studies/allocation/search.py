"""The formats of tensor groups that move the fewest bytes at a quality that is good enough."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from studies.allocation import methods
from studies.allocation.asking import Asked, Asking, BudgetSpentError, Oracle, SearchError
from studies.allocation.groups import TensorGroup, traffic_bytes
from studies.allocation.learned import learned

#: By name; the last one is what is recommended.
METHODS: dict[str, Callable[[Asking, int], None]] = {
    "exhaustive": methods.exhaustive,
    "random": methods.random,
    "by-size": methods.by_size,
    "additive": methods.additive,
    "bayesian": methods.bayesian,
    "learned": learned,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The best assignment that a search asked about.

    Attributes
    ----------
    assignment
        Format of each group.
    quality
        What the oracle said of it.
    traffic_bytes
        Moved by it, and by one format for all groups: see `saved`.
    asked
        All that the oracle was asked about, in order; each counts once.
    calls
        Of the oracle: without the answers that the store had.
    """

    groups: tuple[TensorGroup, ...]
    method: str
    assignment: dict[str, str]
    quality: float
    traffic_bytes: float
    asked: tuple[Asked, ...]
    calls: int

    def saved(self, fmt: str) -> float:
        """Share of the traffic that is saved of that with one format for all groups."""
        return 1.0 - self.traffic_bytes / traffic_bytes(self.groups, fmt)

    def within(self, traffic: float, share: float = 0.02) -> int | None:
        """Number of questions until an admitted assignment had at most (1 + `share`) times a traffic."""
        for number, asked in enumerate(self.asked, start=1):
            if asked.feasible and asked.traffic_bytes <= (1 + share) * traffic:
                return number
        return None


def search_precision(
    groups: Sequence[TensorGroup],
    formats: Sequence[str],
    oracle: Oracle,
    *,
    threshold: float,
    budget: int = 200,
    method: str = "learned",
    higher_is_better: bool = False,
    seed: int = 0,
    store: str | Path | None = None,
    identity: str = "",
) -> Found:
    """Search the formats of tensor groups that move the fewest bytes and keep a threshold of quality.

    Parameters
    ----------
    groups
        With their sizes and accesses.
    formats
        At least two; the widest, for all groups, must keep the threshold.
    oracle
        Quality of an assignment, format by name of the group; NaN is never admitted.
    threshold, higher_is_better
        Qualities of at most `threshold` are admitted, or of at least.
    budget
        Assignments that the oracle may be asked about.
    method
        ``"learned"``: `studies.allocation.learned`. ``"exhaustive"``, ``"random"``, ``"by-size"``,
        ``"additive"``, ``"bayesian"``: `studies.allocation.methods`.
    seed
        Of the methods that draw.
    store
        File of answers: they are appended, and a search begun again takes them from there.
    identity
        Of the oracle, such as its name and options: a store of another one is refused.

    Raises
    ------
    SearchError
        A bad argument, in one line.

    Examples
    --------
    >>> groups = [TensorGroup(name="map", elements=900), TensorGroup(name="state", elements=100)]
    >>> error = {"binary16": 0.0, "e4m3fn": 0.01, "e2m1": 0.2}
    >>> found = search_precision(
    ...     groups, ["binary16", "e4m3fn", "e2m1"],
    ...     lambda formats: error[formats["map"]] + 9 * error[formats["state"]],
    ...     threshold=0.25, budget=20,
    ... )
    >>> found.assignment, found.traffic_bytes, round(found.saved("binary32"), 2)
    ({'map': 'e2m1', 'state': 'binary16'}, 650.0, 0.84)
    """
    if method not in METHODS:
        close = difflib.get_close_matches(str(method), METHODS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise SearchError(f"method must be one of {', '.join(METHODS)}, got {method!r}{hint}")
    asking = Asking(
        groups,
        formats,
        oracle,
        threshold=threshold,
        budget=budget,
        higher_is_better=higher_is_better,
        store=store,
        identity=identity,
    )
    with suppress(BudgetSpentError):  # the best so far is the answer
        METHODS[method](asking, seed)
    best = asking.best
    return Found(
        groups=asking.groups,
        method=method,
        assignment=asking.named(best.choice),
        quality=best.quality,
        traffic_bytes=best.traffic_bytes,
        asked=tuple(asking.asked.values()),
        calls=asking.calls,
    )
