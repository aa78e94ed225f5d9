"""Exact placement of residency runs: rectangles of fixed time and free address, by CP-SAT.

The steps are split where nothing is live across, each part is divided by the common divisor of its
sizes, and its time is renumbered to the steps at which a block begins or ends. An output that may be
written in place is free to lie in the block of its input or beside it.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from math import gcd
from typing import Any

from ortools.sat.python import cp_model

from accel.schedule._placement import Placed
from accel.schedule._residency import Residency
from accel.schedule._solvers.cpsat import new_solver


def pack(residency: Residency, *, deadline_s: float, seed: int) -> Placed | None:
    """Addresses for all blocks, or ``None`` where none exist or none were found by the deadline."""
    return pack_or_refute(residency, deadline_s=deadline_s, seed=seed)[0]


def pack_or_refute(residency: Residency, *, deadline_s: float, seed: int) -> tuple[Placed | None, bool]:
    """Addresses for all blocks, and whether the question is decided.

    Returns
    -------
    ``(placed, True)``, or ``(None, True)`` where there is proof that no addresses exist, or
    ``(None, False)`` where the deadline came first.
    """
    over = _may_lie_over(residency)
    addresses: dict[int, int] = {}
    is_decided = True
    for part in _parts(residency):
        found, is_part_decided = _pack_part(residency, part, over, deadline_s=deadline_s, seed=seed)
        if found is None and is_part_decided:
            return None, True
        if found is None:
            is_decided = False  # another part may still be refuted
        else:
            addresses.update(found)
    if not is_decided:
        return None, False
    return Placed(residency, tuple(addresses[k] for k in range(len(residency.blocks)))), True


def _may_lie_over(residency: Residency) -> dict[int, list[int]]:
    """By block: the blocks in which it may lie at its first step, which is their last."""
    instance, order = residency.instance, residency.order
    last_use = [uses[-1] for uses in instance.uses(order)]
    ends = {(block.tensor, block.end): k for k, block in enumerate(residency.blocks)}
    found: dict[int, list[int]] = {}
    for k, block in enumerate(residency.blocks):
        i = order[block.start]
        if instance.producer[block.tensor] == i:
            found[k] = [ends[u, block.start] for u in instance.in_place[i] if last_use[u] == block.start]
    return {k: below for k, below in found.items() if below}


def _parts(residency: Residency) -> list[list[int]]:
    """Blocks in groups that no step has in common."""
    blocks = residency.blocks
    parts: list[list[int]] = []
    end = -1
    for k in sorted(range(len(blocks)), key=lambda k: (blocks[k].start, k)):
        if blocks[k].start > end:
            parts.append([])
        parts[-1].append(k)
        end = max(end, blocks[k].end)
    return parts


def _pack_part(
    residency: Residency, part: list[int], over: dict[int, list[int]], *, deadline_s: float, seed: int
) -> tuple[dict[int, int] | None, bool]:
    """Addresses by block of one part, and whether they, or their absence, are certain."""
    blocks = residency.blocks
    unit = gcd(*(residency.instance.size[blocks[k].tensor] for k in part))
    height = {k: residency.instance.size[blocks[k].tensor] // unit for k in part}
    capacity = residency.instance.capacity // unit
    if sum(height.values()) <= capacity:
        tops = [0]
        for k in part:
            tops.append(tops[-1] + height[k])
        return dict(zip(part, (low * unit for low in tops), strict=False)), True
    if max(height.values()) > capacity:
        return None, True
    events = {t: e for e, t in enumerate(sorted({t for k in part for t in _span(blocks[k], k in over)}))}
    model = cp_model.CpModel()
    low = {k: model.new_int_var(0, capacity - height[k], "") for k in part}
    rows, steps, room = [], [], []
    for k in part:
        start, end = events[blocks[k].start], events[blocks[k].end + 1]
        row = model.new_fixed_size_interval_var(low[k], height[k], "")
        if k not in over:
            rows.append(row)
            steps.append(model.new_fixed_size_interval_var(start, end - start, ""))
            room.append(height[k])
            continue
        # The first step apart from the rest: there the block may lie in that of an input.
        inside = [_inside(model, low[k], low[u], height[u] - height[k]) for u in over[k]]
        beside = model.new_bool_var("")
        model.add_exactly_one([beside, *inside])
        later = events[blocks[k].start + 1]
        rows.append(model.new_optional_fixed_size_interval_var(low[k], height[k], beside, ""))
        steps.append(model.new_optional_fixed_size_interval_var(start, later - start, beside, ""))
        room.append(height[k])
        if end > later:
            rows.append(row)
            steps.append(model.new_fixed_size_interval_var(later, end - later, ""))
            room.append(height[k])
    model.add_no_overlap_2d(steps, rows)
    model.add_cumulative(steps, room, capacity)
    _order_twins(model, residency, part, over, low, height)
    solver = new_solver(deadline_s=deadline_s, seed=seed)
    status = solver.solve(model)
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return {k: solver.value(low[k]) * unit for k in part}, True
    return None, status == cp_model.INFEASIBLE


def _span(block: Any, is_split: bool) -> tuple[int, ...]:
    split = (block.start + 1,) if is_split else ()
    return (block.start, *split, block.end + 1)


def _inside(model: cp_model.CpModel, low: Any, below: Any, room: int) -> Any:
    """Whether a block lies in another one, which is larger by `room`."""
    inside = model.new_bool_var("")
    model.add(low >= below).only_enforce_if(inside)
    model.add(low <= below + room).only_enforce_if(inside)
    return inside


def _order_twins(
    model: cp_model.CpModel,
    residency: Residency,
    part: list[int],
    over: dict[int, list[int]],
    low: dict[int, Any],
    height: dict[int, int],
) -> None:
    """Blocks of equal steps and height can be swapped: the first lies lowest."""
    tied = {*over, *(u for below in over.values() for u in below)}
    twins: defaultdict[tuple[int, int, int], list[int]] = defaultdict(list)
    for k in part:
        block = residency.blocks[k]
        if k not in tied:
            twins[block.start, block.end, height[k]].append(k)
    for group in twins.values():
        for first, second in pairwise(group):
            model.add(low[first] + height[first] <= low[second])
