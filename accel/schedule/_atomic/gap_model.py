"""Exact replacement for a fixed order: which tensors stay between two uses, placement left out.

Keeping a tensor through a part of a gap is useless, so one decision per gap is exact: the plan of least
traffic keeps gaps whose sizes fit beside the working set at every step between their uses. The decisions
are made by a dynamic program over the steps, and where that grows too large by an integer program.

References
----------
.. [COSMA] Y. Li, A. Gupta, S. Malik, "COSMA", arXiv 2311.18246, 2023: the problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from accel.schedule._instance import Instance
from accel.schedule._kernels import gap_model as kernels
from accel.schedule._residency import Gap, Residency
from accel.schedule._solvers.quiet import without_stray_lines

_MOST_WORK = 200_000  # states of the dynamic program, some hundredths of a second


def room_by_step(instance: Instance, order: Sequence[int]) -> NDArray[np.int64]:
    """Units beside the working set at each step, (n,); a block that is taken over in place counts once."""
    step = {i: t for t, i in enumerate(order)}
    room = []
    for t, i in enumerate(order):
        units = instance.capacity - instance.working_set[i]
        if any(all(step[c] <= t for c in instance.consumers[v]) for v in instance.in_place[i]):
            units += instance.size[instance.writes[i][0]]
        room.append(units)
    return np.array(room, np.int64)


def replace_optimally(
    instance: Instance,
    order: Sequence[int],
    *,
    deadline_s: float,
    capacity: NDArray[np.int64] | None = None,
    most_work: int = _MOST_WORK,
) -> tuple[Residency, int]:
    """Residency of least traffic under `order`, and a bound below it: equal unless time ran out.

    Parameters
    ----------
    deadline_s
        Reading of `time.perf_counter` after which the best residency so far is returned.
    capacity
        Units by step, (n,), no more than the instance has: less where blocks must have some play.
    most_work
        States of the dynamic program before the integer program takes over.

    Raises
    ------
    ValueError
        `capacity` has not one entry per step, or an operator does not fit.
    """
    order = tuple(order)
    room = room_by_step(instance, order)
    if capacity is not None:
        if capacity.shape != room.shape:
            raise ValueError(
                f"capacity must have shape {room.shape}, one entry per step, got {capacity.shape}"
            )
        room += np.minimum(capacity, instance.capacity) - instance.capacity
    if room.size and room.min() < 0:
        t = int(room.argmin())
        given = instance.capacity if capacity is None else min(int(capacity[t]), instance.capacity)
        raise ValueError(
            f"capacity at step {t} must be at least {given - int(room[t])} units, what operator "
            f"{instance.operators[order[t]]} needs, got {given}"
        )
    problem = _gaps(instance, order, room)
    if not problem.tensor.size:
        return Residency(instance, order, problem.always), _cost(instance, order, problem.always)
    known = _furthest(problem)
    dropped, loss, outcome = kernels.solve(
        problem.tensor,
        problem.size,
        problem.start,
        problem.end,
        problem.has_copy,
        problem.is_last,
        problem.room,
        _loss(problem, known),
        most_work,
    )
    least_loss = float(loss)
    if outcome < 0:
        dropped, least_loss = _by_program(problem, known, deadline_s)
    residency = Residency(instance, order, problem.keeping(~dropped))
    return residency, residency.cost - _loss(problem, dropped) + ceil(least_loss - 1e-6)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problem:
    """Gaps open to choice, as arrays; `always` are kept in any case."""

    always: frozenset[Gap]
    gaps: tuple[Gap, ...]
    tensor: NDArray[np.int64]
    size: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    is_last: NDArray[np.bool_]
    has_copy: NDArray[np.bool_]
    room: NDArray[np.int64]

    def keeping(self, kept: NDArray[np.bool_]) -> frozenset[Gap]:
        return self.always.union(gap for gap, stays in zip(self.gaps, kept.tolist(), strict=True) if stays)


def _gaps(instance: Instance, order: tuple[int, ...], room: NDArray[np.int64]) -> _Problem:
    """Sort the gaps: those that never fit, those in nobody's way, and those open to choice."""
    load = np.zeros(room.size + 1, np.int64)
    has_copy = np.array(instance.always_backed, np.bool_)
    always: list[Gap] = []
    candidates: list[tuple[int, int, int]] = []
    for v, uses in enumerate(instance.uses(order)):
        for here, following in pairwise(uses):
            if following == here + 1:
                always.append((v, here))
            elif room[here + 1 : following].min() < instance.size[v]:
                has_copy[v] = True  # its store is paid in any case
            else:
                candidates.append((v, here, following))
                load[here + 1] += instance.size[v]
                load[following] -= instance.size[v]
    tight = np.flatnonzero(np.cumsum(load[:-1]) > room)
    chosen: list[tuple[int, int, int, int]] = []
    for v, here, following in candidates:
        first, last = np.searchsorted(tight, (here + 1, following))
        if first == last:
            always.append((v, here))
        else:
            chosen.append((v, here, int(tight[first]), int(tight[last - 1])))
    later = {v: here for v, here, _, _ in chosen}  # the last one stands
    columns = np.array([(v, instance.size[v], start, end) for v, _, start, end in chosen], np.int64)
    columns = columns.reshape(-1, 4)
    limited = np.full(room.size, np.iinfo(np.int64).max)
    limited[tight] = room[tight]
    return _Problem(
        always=frozenset(always),
        gaps=tuple((v, here) for v, here, _, _ in chosen),
        tensor=np.ascontiguousarray(columns[:, 0]),
        size=np.ascontiguousarray(columns[:, 1]),
        start=np.ascontiguousarray(columns[:, 2]),
        end=np.ascontiguousarray(columns[:, 3]),
        is_last=np.array([later[v] == here for v, here, _, _ in chosen], np.bool_),
        has_copy=has_copy,
        room=limited,
    )


def _furthest(problem: _Problem) -> NDArray[np.bool_]:
    """Gaps that furthest-next-use replacement drops."""
    dropped = np.zeros(problem.size.size, np.bool_)
    for t in np.flatnonzero(problem.room < np.iinfo(np.int64).max):
        here = np.flatnonzero((problem.start <= t) & (problem.end >= t) & ~dropped)
        here = here[np.lexsort((here, -problem.size[here], -problem.end[here]))]
        excess = int(problem.size[here].sum() - problem.room[t])
        for g in here:
            if excess <= 0:
                break
            dropped[g] = True
            excess -= int(problem.size[g])
    return dropped


def _loss(problem: _Problem, dropped: NDArray[np.bool_]) -> int:
    """Units that dropping gaps costs."""
    stored = {v for v in problem.tensor[dropped].tolist() if not problem.has_copy[v]}
    size = dict(zip(problem.tensor.tolist(), problem.size.tolist(), strict=True))
    return int(problem.size[dropped].sum() + sum(size[v] for v in stored))


def _by_program(
    problem: _Problem, known: NDArray[np.bool_], deadline_s: float
) -> tuple[NDArray[np.bool_], float]:
    """Gaps to drop and a bound on the loss, by HiGHS; those of `known` where it finds nothing better."""
    remaining_s = deadline_s - perf_counter()
    if remaining_s <= 0:
        return known, 0.0
    # Imported late: most orders never need it.
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array, csr_array, vstack

    gaps = problem.size.size
    tensors, column = np.unique(problem.tensor, return_inverse=True)
    unstored = np.flatnonzero(~problem.has_copy[problem.tensor])
    steps = np.flatnonzero(problem.room < np.iinfo(np.int64).max)
    at, gap = np.nonzero((problem.start <= steps[:, None]) & (problem.end >= steps[:, None]))
    shape = (steps.size, gaps + tensors.size)
    relief = coo_array((problem.size[gap].astype(float), (at, gap)), shape)
    excess = relief @ np.ones(shape[1]) - problem.room[steps]
    rows = np.arange(unstored.size)
    stored = coo_array(
        (
            np.concatenate([np.ones(rows.size), -np.ones(rows.size)]),
            (np.concatenate([rows, rows]), np.concatenate([gaps + column[unstored], unstored])),
        ),
        (rows.size, shape[1]),
    )
    spill = np.zeros(tensors.size)
    spill[column] = problem.size
    scale = float(problem.size.max())  # keeps the tolerances of the solver far below a unit
    least = np.concatenate([excess / scale, np.zeros(rows.size)])
    with without_stray_lines():
        result = milp(
            np.concatenate([problem.size, spill]) / scale,
            constraints=LinearConstraint(csr_array(vstack([relief / scale, stored])), least),
            integrality=np.concatenate([np.ones(gaps), np.zeros(tensors.size)]),
            bounds=Bounds(0, 1),
            options={"time_limit": remaining_s, "mip_rel_gap": 0.0},
        )
    bound = 0.0 if result.mip_dual_bound is None else max(0.0, result.mip_dual_bound * scale)
    if result.x is not None:
        dropped = result.x[:gaps] > 0.5
        load = relief @ np.concatenate([1.0 * dropped, np.zeros(tensors.size)])
        if (load >= excess).all() and _loss(problem, dropped) <= _loss(problem, known):
            known = dropped
            if result.status == 0:
                return known, float(_loss(problem, known))
    return known, min(bound, _loss(problem, known))


def _cost(instance: Instance, order: tuple[int, ...], kept: frozenset[Gap]) -> int:
    return Residency(instance, order, kept).cost
