"""Offsets for rectangles of fixed times below a capacity: greedy first, then a complete search with restarts.

The search of `accel.schedule._kernels.allocation_search` is run again and again, by another rule and another
order each time, with limits that follow Luby's sequence; what it has proved to fail it keeps. Two searches
run side by side on two threads, and a round ends when both have, so that a seed gives one result whatever
the machine does, unless time runs out.

References
----------
.. [Moffitt23] M. D. Moffitt, "MiniMalloc: A Lightweight Memory Allocator for Hardware-Accelerated Machine
   Learning", ASPLOS 2023, doi 10.1145/3623278.3624752: canonical positions and inference by section.
.. [LSZ93] M. Luby, A. Sinclair, D. Zuckerman, "Optimal Speedup of Las Vegas Algorithms", Information
   Processing Letters 47, 1993.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import count
from math import inf
from time import perf_counter
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from accel.schedule._clock import stop_at
from accel.schedule._kernels.allocation import INFEASIBLE, LIMIT, PLACED, Problem
from accel.schedule._kernels.allocation_search import FEWEST, FEWEST_BLAMED, LOWEST, TIGHTEST, search
from accel.schedule._kernels.greedy_allocation import place_greedily, place_in_order

Status: TypeAlias = Literal["PLACED", "INFEASIBLE", "UNDECIDED"]
Integers: TypeAlias = NDArray[np.int64]

_RULES = (FEWEST, LOWEST, FEWEST_BLAMED, TIGHTEST)
_ORDERS = 3  # by area, length and size
_ROUND = 100_000  # evaluations of sections in the shortest search, about a twentieth of a second
_NOISE = 0.05  # standard deviation of the places that a later order moves a rectangle by, as part of all
_FAILED = 1 << 20  # failed parts that are remembered


class Outcome(NamedTuple):
    """Offsets if placed; which engine decided; nodes of the search."""

    status: Status
    offset: Integers | None
    method: str
    nodes: int


@cache
def load_kernels() -> None:
    """Load the kernels, so that no time limit counts what compiling takes once after an installation."""
    rows = [(0, 2, 2), (0, 3, 4), (2, 4, 1), (3, 4, 1), (2, 5, 1), (3, 5, 3), (4, 6, 2), (5, 6, 2), (5, 6, 2)]
    start, end, size = np.array(rows).T  # full at all times, and yet no placement: greedy ones do not end it
    place_units(start, end, size, 6, deadline_s=inf)


def peak_load(start: Integers, end: Integers, size: Integers) -> int:
    """Largest sum of sizes that are live at once."""
    if start.size == 0:
        return 0
    times, where = np.unique(np.concatenate((start, end)), return_inverse=True)
    change = np.zeros(times.size, np.int64)
    np.add.at(change, where, np.concatenate((size, -size)))
    return int(change.cumsum().max())


def place_units(
    start: Integers,
    end: Integers,
    size: Integers,
    capacity: int,
    *,
    deadline_s: float,
    seed: int = 0,
    workers: int = 2,
    rounds: int = 24,
) -> Outcome:
    """Offsets of rectangles with positive sizes below `capacity`, or whether there are none.

    Parameters
    ----------
    start, end, size : (n,)
        Live in ``[start, end)``, not empty.
    deadline_s
        On the clock of `time.perf_counter`.
    workers
        Threads that search at once.
    rounds
        Greedy attempts in which those that found no room move forward.
    """
    start, end, size = (np.ascontiguousarray(values, np.int64) for values in (start, end, size))
    offset = np.zeros(start.size, np.int64)
    orders = _orders(start, end, size)
    if place_greedily(orders, start, end, size, capacity, rounds, offset):
        return Outcome("PLACED", offset, "greedy", 0)
    if peak_load(start, end, size) > capacity:
        return Outcome("INFEASIBLE", None, "peak load", 0)
    nodes = 0
    is_placed = True
    # Smallest first: a part that has no room ends it all.
    for part in sorted(_parts(start, end), key=len):
        found = np.zeros(part.size, np.int64)
        columns = start[part], end[part], size[part]
        if place_greedily(_orders(*columns), *columns, capacity, 0, found):
            offset[part] = found
            continue
        problem, order = problem_of(*columns, capacity)
        portfolio = _Portfolio(problem, seed=seed, workers=workers)
        outcome, low = portfolio.run(deadline_s)
        nodes += portfolio.nodes
        if outcome == INFEASIBLE:
            return Outcome("INFEASIBLE", None, "search", nodes)
        is_placed &= outcome == PLACED
        offset[part[order]] = low
    if is_placed:
        return Outcome("PLACED", offset, "search", nodes)
    return Outcome("UNDECIDED", None, "search", nodes)


def _orders(start: Integers, end: Integers, size: Integers) -> Integers:
    """Rectangles by area, size, length, the largest first, and by start, one order a row."""
    length = end - start
    return np.stack(
        [np.argsort(key, kind="stable") for key in (-size * length.astype(float), -size, -length, start)]
    )


def _parts(start: Integers, end: Integers) -> Iterator[Integers]:
    """Indices of rectangles, cut wherever no rectangle is live across."""
    order = np.lexsort((end, start))
    reach = np.maximum.accumulate(end[order])
    yield from np.split(order, np.flatnonzero(start[order][1:] >= reach[:-1]) + 1)


def problem_of(start: Integers, end: Integers, size: Integers, capacity: int) -> tuple[Problem, Integers]:
    """The search's view, and which rectangle is at each of its positions.

    Sections are the intervals between events that have a largest set of live rectangles: a start before
    them and an end after them. All other sets are parts of one of these.
    """
    times = np.unique(np.concatenate((start, end)))
    is_section = np.isin(times[:-1], start) & np.isin(times[1:], end)
    section_at = np.concatenate(([0], is_section.cumsum()))
    first = section_at[np.searchsorted(times, start)]
    last = section_at[np.searchsorted(times, end)]
    order = np.lexsort((size, last, first))
    first, last, height = first[order], last[order], size[order]
    n = order.size
    meets = (first[:, None] < last) & (first < last[:, None])
    np.fill_diagonal(meets, val=False)
    section = np.arange(section_at[-1])
    is_live = (first <= section[:, None]) & (section[:, None] < last)
    slot_at = np.concatenate(([0], (last - first).cumsum()))
    slot = np.empty(slot_at[-1], np.int64)
    live_section, live = np.nonzero(is_live)
    slot[slot_at[live] + live_section - first[live]] = np.arange(live.size)
    twin = np.full(n, -1, np.int64)
    same = (first[1:] == first[:-1]) & (last[1:] == last[:-1]) & (height[1:] == height[:-1])
    twin[:-1][same] = np.flatnonzero(same) + 1
    problem = Problem(
        capacity,
        first,
        last,
        height,
        np.concatenate(([0], meets.sum(1).cumsum())),
        np.nonzero(meets)[1],
        np.concatenate(([0], is_live.sum(1).cumsum())),
        live,
        slot_at,
        slot,
        twin,
    )
    return problem, order


class _Searcher:
    """One thread's searches over one set of rectangles, and what it keeps from one to the next."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self._problem = problem
        self._seed = seed
        self._failed = np.zeros(_FAILED, np.uint64)
        self._blame = np.ones(problem.live_at.size - 1)
        self._counts = np.array([0, 0, -1])
        self.low = np.zeros(problem.size.size, np.int64)

    @property
    def nodes(self) -> int:
        return int(self._counts[0])

    def run(self, attempt: int, limit: int, stop: Integers) -> int:
        """INFEASIBLE, PLACED with offsets `low`, or LIMIT."""
        self.low = _above_twins(self._problem)
        rank = _rank(self._problem, attempt, self._seed)
        rule = _RULES[attempt % len(_RULES)]
        return int(
            search(self._problem, self.low, rank, rule, limit, stop, self._failed, self._blame, self._counts)
        )


class _Portfolio:
    """Searches with restarts over one set of rectangles, on one or more threads."""

    def __init__(self, problem: Problem, *, seed: int, workers: int) -> None:
        self._searchers = [_Searcher(problem, seed) for _ in range(workers)]

    @property
    def nodes(self) -> int:
        """Nodes of all searches so far."""
        return sum(searcher.nodes for searcher in self._searchers)

    def run(self, deadline_s: float) -> tuple[int, Integers]:
        """INFEASIBLE, PLACED or, at the deadline, LIMIT; and offsets if placed."""
        first = self._searchers[0]
        with stop_at(deadline_s) as stop, ThreadPoolExecutor(len(self._searchers)) as threads:
            for attempt in range(len(_RULES)):  # most need no more, and no second thread
                if (outcome := first.run(attempt, _ROUND // 20, stop)) != LIMIT:
                    return outcome, first.low
            for attempt in count(0, len(self._searchers)):
                limit = _ROUND * _luby(1 + attempt // (len(_RULES) * _ORDERS))
                runs = [
                    threads.submit(searcher.run, attempt + i, limit, stop)
                    for i, searcher in enumerate(self._searchers)
                ]
                # The first that decided, not the fastest.
                for searcher, run in zip(self._searchers, runs, strict=True):
                    if (outcome := run.result()) != LIMIT:
                        stop[0] = 1
                        return outcome, searcher.low
                if stop[0]:
                    break
        return LIMIT, first.low


def _above_twins(problem: Problem) -> Integers:
    """Lowest offsets: twins, alike in times and size, lie one above the other."""
    low = np.zeros(problem.size.size, np.int64)
    for j in np.flatnonzero(problem.twin >= 0):
        low[problem.twin[j]] = low[j] + problem.size[j]
    return low


def _rank(problem: Problem, attempt: int, seed: int) -> Integers:
    """Order of rectangles: by area, length or size, the largest first; later attempts disturb it."""
    length = problem.end - problem.start
    kind, turn = attempt // len(_RULES) % _ORDERS, attempt // (len(_RULES) * _ORDERS)
    keys = ((length * problem.size, length), (length, problem.size), (problem.size, length))[kind]
    order = np.lexsort((-keys[1], -keys[0]))
    if turn > 0:
        noise = np.random.default_rng((seed, attempt)).normal(scale=_NOISE * order.size, size=order.size)
        order = order[np.argsort(np.arange(order.size) + noise, kind="stable")]
    rank = np.empty(order.size, np.int64)
    rank[order] = np.arange(order.size)
    return rank


def _luby(i: int) -> int:
    """Element `i`, from 1, of 1 1 2 1 1 2 4 1 1 2 ..."""
    size = i.bit_length()
    return 1 << (size - 1) if i == (1 << size) - 1 else _luby(i - (1 << (size - 1)) + 1)


def lowest_height(
    start: Integers, end: Integers, size: Integers, *, deadline_s: float, seed: int = 0
) -> tuple[Outcome, int]:
    """Placement of the least height that was found, and a proved bound on it.

    The bound is tried first; then heights between what is proved, or was undecided, and what was found,
    each with half of the time that is left.
    """
    bound = peak_load(start, end, size)
    offset = greedy_offsets(start, end, size)
    height = int((offset + size).max(initial=0))
    best = Outcome("PLACED", offset, "greedy", 0)
    nodes = 0
    undecided = bound - 1  # the highest that is proved infeasible, or that ran out of time
    capacity = bound
    while undecided < height - 1:
        now = perf_counter()
        found = place_units(start, end, size, capacity, deadline_s=now + (deadline_s - now) / 2, seed=seed)
        nodes += found.nodes
        if found.offset is not None:
            best = found
            height = int((found.offset + size).max())
        else:
            undecided = capacity
            if found.status == "INFEASIBLE":
                bound = capacity + 1
        if perf_counter() >= deadline_s - 1e-3:
            break
        capacity = (undecided + height) // 2
    return best._replace(nodes=nodes), bound


def greedy_offsets(start: Integers, end: Integers, size: Integers) -> Integers:
    """The lowest of the greedy placements, largest area, size or length first, with room for all."""
    length = end - start
    best: Integers = np.zeros(size.size, np.int64)
    least = None
    for keys in ((length * size, size), (size, length), (length, size)):
        offset = np.zeros(size.size, np.int64)
        order = np.lexsort((-keys[1], -keys[0]))
        place_in_order(order, start, end, size, 1 << 61, offset, np.zeros(size.size, np.int64))
        if least is None or (offset + size).max(initial=0) < least:
            best, least = offset, (offset + size).max(initial=0)
    return best
