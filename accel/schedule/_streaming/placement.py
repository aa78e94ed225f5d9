"""The best gaps to keep among those whose residencies can be laid out in the scratchpad.

The optimum without addresses comes first, and mostly it can be placed as it is. Where it cannot, some
set of its gaps already has no placement: a *conflict*, made as small as it goes by leaving out one gap
after another. Every plan drops a gap of each conflict, so a row of the integer program says so, and its
next optimum is tried: the bound stays a bound over all plans with addresses. Before and after that, beams
over layouts look for other plans of the same total.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, product
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from accel.schedule._clock import Clock
from accel.schedule._kernels.streamed import ALWAYS, NEVER
from accel.schedule._streaming.gap_program import SOLVER, Program
from accel.schedule._streaming.kept import Kept
from accel.schedule._streaming.layout import (
    NARROW,
    SHED_S,
    WIDE,
    PlacedKept,
    lay_out,
    place_stretch,
    rectangles,
    stretches,
    without_addresses,
)
from accel.schedule._streaming.problem import Streaming

_BEAM_SHARE = 0.4  # of the time left for beams over layouts, before conflicts are searched for
_SEARCH_SHARE = 0.3  # of the time left after that for conflicts, at least, before the last plan is shed
_ROUNDS = 20  # of other plans of the same total
_CONFLICTS = 3  # most that are noted of one such plan
_COMBINATIONS = 1000  # of equal tensors in place of those of a conflict
_TRIAL_S = 2.0  # of one placement of a whole plan on the way
_TEST_S = 0.1  # of one placement while a conflict is made smaller


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KnownStays:
    """Gaps that are kept, (u,), and an address for each stay, by tensor, then by start."""

    kept: NDArray[np.bool_]
    addresses: NDArray[np.int64]


def keep_placed(
    problem: Streaming,
    capacity_bytes: int,
    clock: Clock,
    *,
    seed: int,
    known: KnownStays | None = None,
) -> PlacedKept:
    """Gaps to keep for the least total of all plans that can be placed, as far as time allows.

    Parameters
    ----------
    problem
        With `capacity_bytes` at every step; each tensor streams at its size.
    clock
        There is a plan in any case, with the bound reached by its deadline.
    known
        Of another plan, which has a placement: this one is not worse.
    """
    started_s = perf_counter()
    relaxed = without_addresses(problem, clock)
    # What a beam finds is the best plan only where the total is known to be the least.
    soon_s = clock.share(_BEAM_SHARE if relaxed.is_optimal else _BEAM_SHARE / 4)
    placed = lay_out(relaxed, capacity_bytes, NARROW, Clock(soon_s, clock), seed=seed)
    if placed is None or not placed.kept.is_optimal:
        search = _Search(problem, capacity_bytes, clock, seed)
        placed = search.best(relaxed, placed, known)
    if placed.kept.bound_bytes == relaxed.total_bytes < placed.kept.total_bytes and not clock.is_over:
        placed = lay_out(relaxed, capacity_bytes, WIDE, clock, seed=seed) or placed
    return PlacedKept(
        kept=replace(placed.kept, seconds=perf_counter() - started_s), addresses=placed.addresses
    )


def _halfway(deadline_s: float) -> float:
    """Half of the time that is left, so that a hard placement leaves some for others."""
    return (perf_counter() + deadline_s) / 2


class _Search:
    def __init__(self, problem: Streaming, capacity_bytes: int, clock: Clock, seed: int) -> None:
        self._problem = problem
        self._capacity_bytes = capacity_bytes
        self._clock = clock
        self._deadline_s = clock.before_end(SHED_S * problem.step.size, _SEARCH_SHARE)
        self._seed = seed
        self._size = problem.size_bytes[problem.owner]  # by use
        self._conflicts: list[tuple[int, ...]] = []
        self._placed: dict[tuple[bytes, bytes, bytes], tuple[NDArray[np.int64] | None, bool]] = {}

    @property
    def _is_late(self) -> bool:
        return perf_counter() >= self._deadline_s

    def place(self, kept: NDArray[np.bool_], *, deadline_s: float) -> tuple[NDArray[np.int64] | None, bool]:
        """Address in bytes of each stay, by tensor, then by start; or none, and whether there is none."""
        start, end, size, _ = rectangles(self._problem, kept)
        offsets = np.zeros(start.size, np.int64)
        is_decided = True
        for part in stretches(start, end):
            found, is_sure = self._place_stretch(start[part], end[part], size[part], deadline_s)
            if found is not None:
                offsets[part] = found
            elif is_sure:
                return None, True
            else:
                is_decided = False
        return (offsets if is_decided else None), is_decided

    def _place_stretch(
        self, start: NDArray[np.int64], end: NDArray[np.int64], size: NDArray[np.int64], deadline_s: float
    ) -> tuple[NDArray[np.int64] | None, bool]:
        key = start.tobytes(), end.tobytes(), size.tobytes()
        if key not in self._placed:
            found = place_stretch(
                start, end, size, self._capacity_bytes, deadline_s=deadline_s, seed=self._seed
            )
            if found[0] is None and not found[1]:
                return found  # with more time there may be one
            self._placed[key] = found
        return self._placed[key]

    def best(self, relaxed: Kept, placed: PlacedKept | None, known: KnownStays | None) -> PlacedKept:
        """Best plan by the deadline, from one without addresses and, if there is one, the same with them."""
        problem = self._problem
        found = [] if placed is None else [placed]
        if known is not None:
            greedy = replace(relaxed, kept=known.kept, method="greedy")
            found.append(PlacedKept(kept=greedy, addresses=known.addresses))
        bound, current = relaxed.bound_bytes, relaxed
        program: Program | None = None
        forbidden = 0
        while placed is None:
            equal = self._equal(current)
            addresses, _ = self.place(equal.kept, deadline_s=self._soon())
            if addresses is not None:
                found.append(PlacedKept(kept=equal, addresses=addresses))
                break
            if program is None:
                fate = np.where(problem.is_gap & (self._size <= self._capacity_bytes), 0, NEVER)
                program = Program(problem, fate, 0)
                least = int(problem.costs(fate != NEVER).sum())
            found.append(self._shed(current))
            best = min(found, key=lambda plan: plan.kept.total_bytes)
            if best.kept.total_bytes <= bound or len(self._conflicts) == forbidden or self._is_late:
                break
            for conflict in self._conflicts[forbidden:]:
                program.forbid(conflict)
            forbidden = len(self._conflicts)
            loss, kept = program.solve(best.kept.total_bytes - least, 0, deadline_s=self._deadline_s)
            bound = max(bound, least + loss)
            if kept is None or bound >= best.kept.total_bytes:
                break
            current = replace(relaxed, kept=kept, method="integer-program", solver=SOLVER)
        best = min(found, key=lambda plan: plan.kept.total_bytes)
        plan = replace(best.kept, bound_bytes=min(bound, best.kept.total_bytes))
        if program is not None:
            plan = replace(plan, solver=SOLVER, method="integer-program" if plan.is_optimal else plan.method)
        return PlacedKept(kept=plan, addresses=best.addresses)

    def _equal(self, plan: Kept) -> Kept:
        """Plan of the same total that can be placed, where it is found; else the plan itself.

        One stretch of steps after the other in which `plan` has no placement chooses its gaps anew.
        """
        problem, kept = self._problem, plan.kept
        following = np.append(problem.step[1:], 0)
        while (stretch := self._unplaceable_stretch(kept)) is not None:
            fits = problem.is_gap & (self._size <= self._capacity_bytes)
            inside = fits & (problem.step >= stretch[0]) & (following < stretch[1])
            program = Program(problem, np.where(inside, 0, np.where(kept, ALWAYS, NEVER)), 0)
            for conflict in self._conflicts:
                if inside[list(conflict)].all():
                    program.forbid(conflict)
            loss = program.loss(kept)
            for _ in range(_ROUNDS):
                found = program.straighten(loss, deadline_s=_halfway(self._deadline_s))
                if found is None:
                    return plan
                conflicts = self._conflicts_of(found)
                if conflicts is None:
                    return plan
                if not conflicts:
                    break
                for conflict in conflicts:
                    program.forbid(conflict)
                self._conflicts += conflicts
            else:
                return plan
            kept = np.where(inside, found, kept)
        kept.setflags(write=False)
        return replace(plan, kept=kept, method="integer-program", solver=SOLVER)

    def _unplaceable_stretch(self, kept: NDArray[np.bool_]) -> tuple[int, int] | None:
        """First and one past the last step of a part of `kept` for which no placement is found."""
        start, end, size, _ = rectangles(self._problem, kept)
        for part in stretches(start, end):
            if self._place_stretch(start[part], end[part], size[part], self._soon())[0] is None:
                return int(start[part].min()), int(end[part].max())
        return None

    def _conflicts_of(self, kept: NDArray[np.bool_]) -> list[tuple[int, ...]] | None:
        """Some conflicts in `kept`, none if it can be placed; ``None`` where time left that open."""
        found: list[tuple[int, ...]] = []
        kept = kept.copy()
        count = 0
        while count < _CONFLICTS:
            addresses, is_decided = self.place(kept, deadline_s=self._soon())
            if addresses is not None:
                break
            conflict = self._conflict(kept) if is_decided and not self._is_late else None
            if conflict is None:
                return found or None
            found += self._alike(conflict)
            count += 1
            kept[max(conflict, key=lambda i: (self._size[i], i))] = False
        return found

    def _shed(self, plan: Kept) -> PlacedKept:
        """Drop gaps until the rest can be placed, then take back what can; conflicts are noted."""
        kept = plan.kept.copy()
        dropped: list[int] = []
        while True:
            addresses, is_decided = self.place(kept, deadline_s=self._soon())
            if addresses is not None:
                break
            conflict = self._conflict(kept) if is_decided and not self._is_late else None
            if conflict is not None:
                self._conflicts += self._alike(conflict)
            gap = self._cheapest(kept, conflict or self._fullest(kept))
            kept[gap] = False
            dropped.append(gap)
        for gap in sorted(dropped, key=lambda i: -self._size[i]):
            if perf_counter() >= self._clock.deadline_s + self._clock.grace_s:
                break
            kept[gap] = True
            at, _ = self.place(kept, deadline_s=self._soon())
            if at is None:
                kept[gap] = False
            else:
                addresses = at
        kept.setflags(write=False)
        return PlacedKept(kept=replace(plan, kept=kept, method="greedy"), addresses=addresses)

    def _soon(self, seconds: float = _TRIAL_S) -> float:
        return min(self._deadline_s, perf_counter() + seconds)

    def _conflict(self, kept: NDArray[np.bool_]) -> tuple[int, ...] | None:
        """Smallest found set of gaps of `kept` without a placement, itself proven to have none."""
        step = self._problem.step
        gaps = np.flatnonzero(kept)
        # The shortest beginning of the plan without a placement, then of that the shortest end.
        ends = np.unique(step[gaps + 1])
        low, high = 0, len(ends) - 1
        while low < high:
            middle = (low + high) // 2
            if self._is_unplaceable(gaps[step[gaps + 1] <= ends[middle]]):
                high = middle
            else:
                low = middle + 1
        gaps = gaps[step[gaps + 1] <= ends[high]]
        starts = np.unique(step[gaps])
        low, high = 0, len(starts) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self._is_unplaceable(gaps[step[gaps] >= starts[middle]]):
                low = middle
            else:
                high = middle - 1
        gaps = gaps[step[gaps] >= starts[low]]
        if not self._is_unplaceable(gaps, _TRIAL_S):  # where a test was out of time
            return None
        # Small ones first: few large blocks make the stronger row.
        for gap in gaps[np.argsort(self._size[gaps], kind="stable")].tolist():
            fewer = gaps[gaps != gap]
            if self._is_unplaceable(fewer):
                gaps = fewer
        return tuple(gaps.tolist())

    def _alike(self, conflict: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """`conflict`, and what is one for the same rectangles: other tensors of equal size and steps."""
        step, owner = self._problem.step, self._problem.owner
        gaps_of: dict[int, list[int]] = {}
        for gap in conflict:
            gaps_of.setdefault(int(owner[gap]), []).append(gap)
        choices = []
        for gaps in gaps_of.values():
            spans = [(int(self._size[i]), int(step[i]), int(step[i + 1])) for i in gaps]
            others = [self._gaps_at.get(span, {}) for span in spans]
            # The conflict's own tensor comes first, so that the first combination is the conflict itself.
            mine = int(owner[gaps[0]])
            shared = [v for v in others[0] if v != mine and all(v in found for found in others)]
            choices.append([(v, [found[v] for found in others]) for v in (mine, *shared)])
        seen: set[frozenset[int]] = set()
        for choice in islice(product(*choices), _COMBINATIONS):
            gaps = [gap for _, found in choice for gap in found]
            if len({v for v, _ in choice}) == len(choice) and (key := frozenset(gaps)) not in seen:
                seen.add(key)
                yield tuple(gaps)

    @cached_property
    def _gaps_at(self) -> dict[tuple[int, int, int], dict[int, int]]:
        """Gaps by tensor, by size and the steps of their ends."""
        problem = self._problem
        found: dict[tuple[int, int, int], dict[int, int]] = {}
        for i in np.flatnonzero(problem.is_gap).tolist():
            span = int(self._size[i]), int(problem.step[i]), int(problem.step[i + 1])
            found.setdefault(span, {})[int(problem.owner[i])] = i
        return found

    def _is_unplaceable(self, gaps: NDArray[np.int64], seconds: float = _TEST_S) -> bool:
        """Whether `gaps` alone have no placement, proven in time."""
        kept = np.zeros(self._problem.step.size, np.bool_)
        kept[gaps] = True
        addresses, is_decided = self.place(kept, deadline_s=self._soon(seconds))
        return addresses is None and is_decided

    def _cheapest(self, kept: NDArray[np.bool_], gaps: Iterable[int]) -> int:
        """Gap whose loss costs least."""

        def total(gap: int) -> int:
            rest = kept.copy()
            rest[gap] = False
            return int(self._problem.costs(rest).sum())

        return min(gaps, key=lambda gap: (total(gap), gap))

    def _fullest(self, kept: NDArray[np.bool_]) -> tuple[int, ...]:
        """Gaps that are kept across the step with the most bytes."""
        at = int(np.argmax(self._problem.resident_bytes(kept)))
        gaps = np.flatnonzero(kept)
        step = self._problem.step
        return tuple(gaps[(step[gaps] <= at) & (at <= step[gaps + 1])].tolist())
