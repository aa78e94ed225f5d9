"""Best gaps to keep without addresses, and the addresses of their stays, stretch by stretch.

A *stretch* is a time in which something always stays. Where the stays of a stretch as they are have no
placement, or none that is found at once, a beam over layouts chooses its gaps anew for the same total.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from math import inf
from time import perf_counter
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from accel.schedule._clock import Clock
from accel.schedule._kernels.streamed import ALWAYS, NEVER
from accel.schedule._packer.search import load_kernels as load_placer
from accel.schedule._streaming import dynamic_program, gap_program
from accel.schedule._streaming.kept import KeepMethod, Kept
from accel.schedule._streaming.problem import Streaming
from accel.schedule._streaming.window import Counted, Window
from accel.schedule.allocation import place_rectangles
from accel.schedule.streamed import keep

_MOST_WORK = 50_000  # states of the dynamic program over named tensors, before those alike are counted
_COUNT_SHARE = 0.6  # of that for counting
SHED_S = 0.001  # for each use: to shed gaps of a plan that cannot be placed, and to take some back
_RELAXED_SHARE = 0.7  # of the time left for plans without addresses, at least
_FIRST_TRIAL_S = 0.05  # of a placement of stays as they are
NARROW, WIDE = ((10, 64), (10, 256), (50, 256)), ((200, 256),)  # width, and children of each state

Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]
Beams: TypeAlias = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedKept:
    """A plan of streamed operands, and an address for each stay of ``kept.residency``."""

    kept: Kept
    addresses: NDArray[np.int64]


def without_addresses(problem: Streaming, clock: Clock) -> Kept:
    """Least total of what fits by bytes, as far as time allows.

    `problem` streams each tensor at its size and has one capacity.
    """
    started_s = perf_counter()
    kept, fate, is_left = dynamic_program.solve(
        problem.size_bytes,
        problem.first,
        problem.step,
        problem.streamed_bytes,
        problem.is_produced,
        problem.is_output,
        problem.capacity_bytes,
        _MOST_WORK,
    )
    method: KeepMethod = "fits" if is_left.size == 0 else "dynamic-program"
    solver, missing = "none", 0
    parts = np.flatnonzero(is_left).tolist()
    if parts:
        clock.load(_load_windows)
    deadline_s = clock.before_end(SHED_S * problem.step.size, _RELAXED_SHARE)
    everything = fate != NEVER
    least = int(problem.costs(everything).sum())
    open_parts: dict[int, int] = {}  # and a bound on the loss of each
    for done, part in enumerate(parts):
        is_open = fate == part
        now_s = perf_counter()
        soon_s = now_s + _COUNT_SHARE * (deadline_s - now_s) / (len(parts) - done)
        window = Window(problem, is_open, fate == ALWAYS, deadline_s=soon_s)
        kept = min(kept, window.filled(kept), key=lambda gaps: int(problem.costs(gaps).sum()))
        upper = int(problem.costs(np.where(is_open, kept, everything)).sum()) - least
        counted = window.optimum(upper // window.unit_bytes, deadline_s=soon_s)
        if isinstance(counted, Counted):
            kept = np.where(is_open, window.kept(counted), kept)
        else:
            open_parts[part] = counted * window.unit_bytes
    for done, (part, loss) in enumerate(open_parts.items()):
        now_s = perf_counter()
        chosen = gap_program.solve_parts(
            problem,
            kept,
            fate,
            np.array([part]),
            deadline_s=now_s + (deadline_s - now_s) / (len(open_parts) - done),
            tolerance=0.0,
        )
        kept, solver = chosen.kept, gap_program.SOLVER
        found = int(problem.costs(np.where(fate == part, kept, everything)).sum()) - least
        missing += min(chosen.missing_bytes, found - loss)
        method = "greedy" if chosen.is_greedy or method == "greedy" else "integer-program"
    kept.setflags(write=False)
    return Kept(
        problem=problem,
        kept=kept,
        bound_bytes=int(problem.costs(kept).sum()) - missing,
        method=method,
        solver=solver,
        seconds=perf_counter() - started_s,
    )


def rectangles(
    problem: Streaming, kept: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """First step, end (excluded), bytes and first use of each stay, by tensor, then by start."""
    before = np.concatenate(([False], kept[:-1]))
    first = np.flatnonzero(kept & ~before)
    after = np.flatnonzero(~kept & before)  # the use that ends a stay
    return problem.step[first], problem.step[after] + 1, problem.size_bytes[problem.owner[first]], first


def stretches(start: NDArray[np.int64], end: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Sets of rectangles between which there is a moment at which none is live, by index."""
    by_start = np.argsort(start, kind="stable")
    if not by_start.size:
        return []
    latest = np.maximum.accumulate(end[by_start])
    return np.split(by_start, np.flatnonzero(start[by_start][1:] >= latest[:-1]) + 1)


def place_stretch(
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    size: NDArray[np.int64],
    capacity_bytes: int,
    *,
    deadline_s: float,
    seed: int,
) -> tuple[NDArray[np.int64] | None, bool]:
    """Addresses, or none, and whether there are none."""
    # If there is a placement, there is one at sums of sizes: their divisor is the unit.
    unit = int(np.gcd.reduce(size))
    offsets, is_sure = place_rectangles(
        start, end, size // unit, capacity_bytes // unit, deadline_s=deadline_s, seed=seed
    )
    return None if offsets is None else offsets * unit, is_sure


def lay_out(plan: Kept, capacity_bytes: int, beams: Beams, clock: Clock, *, seed: int) -> PlacedKept | None:
    """Plan with addresses of the same total as `plan`, where one is found."""
    problem, kept = plan.problem, plan.kept.copy()
    address = np.full(kept.size, -1)  # of each kept gap at which a stay begins
    start, end, size, first = rectangles(problem, plan.kept)
    for stretch in stretches(start, end):
        mine = start[stretch], end[stretch], size[stretch], capacity_bytes
        found, _ = place_stretch(*mine, deadline_s=0.0, seed=seed)  # greedily: no clock decides
        if found is not None:
            address[first[stretch]] = found
            continue
        soon_s = min(clock.deadline_s, perf_counter() + _FIRST_TRIAL_S)
        found, _ = place_stretch(*mine, deadline_s=soon_s, seed=seed)
        if found is not None:
            address[first[stretch]] = found
            continue
        clock.load(_load_windows)
        window, is_open, total = _window_of(
            problem, kept, capacity_bytes, start[stretch], end[stretch], clock.deadline_s
        )
        chosen = _laid_out(window, total, beams, deadline_s=clock.deadline_s)
        if chosen is None:
            return None
        kept[is_open] = chosen[is_open] >= 0
        address[is_open] = chosen[is_open]
    kept.setflags(write=False)
    _, _, _, first = rectangles(problem, kept)
    return PlacedKept(kept=replace(plan, kept=kept), addresses=address[first])


def _window_of(
    problem: Streaming, kept: Bools, capacity_bytes: int, start: Ints, end: Ints, deadline_s: float
) -> tuple[Window, Bools, int]:
    """All gaps in the time of a stretch; which they are, (u,); and what `kept` drops of them, in units."""
    following = np.append(problem.step[1:], 0)
    is_open = problem.is_gap & (problem.size_bytes[problem.owner] <= capacity_bytes)
    is_open &= (problem.step >= start.min()) & (following < end.max())
    window = Window(problem, is_open, kept & ~is_open, deadline_s=deadline_s)
    total = int(problem.costs(kept).sum()) - int(problem.costs(kept | is_open).sum())
    return window, is_open, total // window.unit_bytes


def _laid_out(window: Window, total: int, beams: Beams, *, deadline_s: float) -> Ints | None:
    """Address of each gap that is kept of a window, (u,), for the least cost `total`, in units."""
    counted = window.count(total, deadline_s=deadline_s)
    if isinstance(counted, Counted):
        for width, children in beams:
            found = window.lay_out(counted, total, width=width, children=children, deadline_s=deadline_s)
            if found is not None:
                return found
    return None


@cache
def load_first() -> None:
    """Kernels that every plan needs."""
    keep(_one_of_two(), backend="greedy")
    load_placer()


@cache
def _load_windows() -> None:
    """Kernels of windows."""
    problem = _one_of_two()
    window = Window(problem, problem.is_gap, np.zeros(4, np.bool_), deadline_s=inf)
    counted = window.count(2, deadline_s=inf)
    assert isinstance(counted, Counted)
    window.kept(counted)
    window.lay_out(counted, 1, width=1, children=4, deadline_s=inf)


def _one_of_two() -> Streaming:
    """Two tensors of which one fits."""
    return Streaming(
        tensors=("a", "b"),
        size_bytes=np.array([1, 1]),
        first=np.array([0, 2, 4]),
        step=np.array([0, 1, 0, 1]),
        streamed_bytes=np.ones(4, np.int64),
        is_produced=np.zeros(2, np.bool_),
        is_output=np.zeros(2, np.bool_),
        capacity_bytes=np.ones(2, np.int64),
    )
