"""A quality oracle that is asked a limited number of times: counted, remembered, and kept in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isnan, log10
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from dse.allocate import Choice
from studies.allocation.groups import TensorGroup, bits_per_value, traffic_table

#: Quality of an assignment: a metric to be kept, or an error to be kept small.
Oracle: TypeAlias = Callable[[dict[str, str]], float]


class BudgetSpentError(Exception):
    """A new assignment was to be asked about when the budget was spent."""


class SearchError(ValueError):
    """A search that cannot be made, in one line."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An assignment that the oracle was asked about; `error` is in units of what the threshold admits."""

    choice: Choice
    quality: float
    error: float
    traffic_bytes: float

    @property
    def feasible(self) -> bool:
        """Whether the threshold is kept."""
        return self.error <= 1.0


class Asking:
    """Groups, formats, and an oracle with a budget.

    Errors are measured from the reference, which has the widest format everywhere, in units of what the
    threshold admits: 0 at the reference, 1 at the threshold, infinite where the quality is NaN.

    Parameters
    ----------
    groups, formats
        What is assigned to what; formats are sorted by their bits, the widest first.
    threshold, higher_is_better
        Qualities at least (or at most) the threshold are admitted.
    budget
        Different assignments that are asked about, answers from `store` included.
    store
        File to which each answer is appended as a line of JSON, and from which answers are taken.
    identity
        Of the oracle; a store of another one is refused.

    Raises
    ------
    SearchError
        Bad groups, formats, budget or threshold, a threshold that the reference does not keep, or a store
        of another oracle's groups and formats.
    """

    def __init__(
        self,
        groups: Sequence[TensorGroup],
        formats: Sequence[str],
        oracle: Oracle,
        *,
        threshold: float,
        budget: int,
        higher_is_better: bool = False,
        store: str | Path | None = None,
        identity: str = "",
    ) -> None:
        self.groups = tuple(groups)
        names = [group.name for group in self.groups]
        if not names or len(set(names)) != len(names):
            raise SearchError(f"groups must have distinct names, at least one, got {names}")
        if len(set(formats)) != len(formats) or len(formats) < 2:
            raise SearchError(f"formats must be at least two different ones, got {list(formats)}")
        if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
            raise SearchError(f"budget must be at least 1, got {budget!r}")
        if isnan(threshold):
            raise SearchError(f"threshold must be a number, got {threshold}")
        try:
            self.formats = tuple(sorted(formats, key=bits_per_value, reverse=True))
        except ValueError as error:
            raise SearchError(str(error)) from None
        self.traffic: Float[np.ndarray, "g o"] = traffic_table(self.groups, self.formats)
        self.budget, self.calls = budget, 0
        self._oracle, self._threshold, self._higher = oracle, float(threshold), higher_is_better
        self.asked: dict[Choice, Asked] = {}
        self._store = None if store is None else _Store(Path(store), names, identity)
        self._base: float | None = None
        self.reference = self.ask((0,) * len(names))

    def ask(self, choice: Sequence[int]) -> Asked:
        """Quality of an assignment, given as the index of each group's format.

        Raises
        ------
        BudgetSpentError
            It is a new one, and the budget is spent.
        """
        key = tuple(int(o) for o in choice)
        if key in self.asked:
            return self.asked[key]
        if len(self.asked) >= self.budget:
            raise BudgetSpentError
        assignment = self.named(key)
        quality = None if self._store is None else self._store.known(assignment)
        if quality is None:
            self.calls += 1
            quality = float(self._oracle(assignment))
            if self._store is not None:
                self._store.add(assignment, quality)
        asked = Asked(key, quality, self._error(quality), self.traffic_of(key))
        self.asked[key] = asked
        return asked

    def _error(self, quality: float) -> float:
        worse = -quality if self._higher else quality
        limit = -self._threshold if self._higher else self._threshold
        if self._base is None:
            if not worse <= limit:
                side = "at most" if self._higher else "at least"
                raise SearchError(
                    f"threshold must be {side} {quality:g}, the quality in {self.formats[0]} throughout, "
                    f"got {self._threshold:g}"
                )
            self._base = worse
        if isnan(quality):
            return inf
        if limit == self._base:
            return 0.0 if worse <= limit else inf
        # Compared as given, for a quotient may round to 1 beyond the threshold.
        error = (worse - self._base) / (limit - self._base)
        return min(error, 1.0) if worse <= limit else max(error, float(np.nextafter(1.0, 2.0)))

    def decades(self, quality: float) -> float:
        """Quality on the scale that models see: at most 0 if admitted, errors in decades of the threshold."""
        if self._higher or self._threshold <= 0:
            return min(self._error(quality), 1e3) - 1.0
        return log10(min(max(quality, self._threshold * 1e-6), self._threshold * 1e6) / self._threshold)

    def traffic_of(self, choice: Sequence[int]) -> float:
        """Bytes moved, added in the order of the groups."""
        total = 0.0
        for row, o in zip(self.traffic, choice, strict=True):
            total += float(row[o])
        return total

    def named(self, choice: Sequence[int]) -> dict[str, str]:
        """Format of each group by name."""
        return {group.name: self.formats[o] for group, o in zip(self.groups, choice, strict=True)}

    @property
    def best(self) -> Asked:
        """Admitted assignment of least traffic; of equal ones that with the smaller error."""
        kept = [asked for asked in self.asked.values() if asked.feasible]
        return min(kept, key=lambda asked: (asked.traffic_bytes, asked.error))

    @property
    def left(self) -> int:
        """Assignments that may still be asked about."""
        return self.budget - len(self.asked)


class _Store:
    """Answers as lines of JSON: the oracle, an assignment and its quality."""

    def __init__(self, path: Path, names: Sequence[str], identity: str) -> None:
        self._path, self._names, self._identity = path, list(names), identity
        self._known: dict[str, float] = {}
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise SearchError(f"{path}: cannot be read: {error}") from None
        whole = text[: text.rfind("\n") + 1]  # an interrupted write leaves part of a line
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = json.loads(line)
                assignment, quality = dict(row["assignment"]), float(row["quality"])
            except (ValueError, KeyError, TypeError):
                raise SearchError(f"{path}: line {number} is no answer of an oracle: {line[:60]!r}") from None
            if (oracle := row.get("oracle", "")) != identity:
                raise SearchError(f"{path}: line {number} must be of the oracle {identity!r}, got {oracle!r}")
            if list(assignment) != self._names:
                raise SearchError(f"{path}: line {number} must have the groups {', '.join(self._names)}")
            self._known[json.dumps(assignment)] = quality
        if whole != text:
            path.write_text(whole, encoding="utf-8")

    def known(self, assignment: dict[str, str]) -> float | None:
        return self._known.get(json.dumps(assignment))

    def add(self, assignment: dict[str, str], quality: float) -> None:
        row = {"oracle": self._identity, "assignment": assignment, "quality": quality}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
