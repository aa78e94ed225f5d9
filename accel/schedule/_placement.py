"""Addresses for residency runs: rectangles of fixed time and free address.

An output that is written in place continues the block of the input that it takes over: both are one
rectangle, as high as the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accel.schedule._residency import Gap, Residency
from accel.schedule.allocation import place_rectangles


@dataclass(frozen=True, slots=True)
class Placed:
    """A residency with the address of each of its blocks, in units."""

    residency: Residency
    addresses: tuple[int, ...]


@dataclass(frozen=True)
class Rectangles:
    """What is to be placed: columns ``start <= step < end``, heights in units.

    Attributes
    ----------
    start, end, size
        (r,)
    of_block
        Rectangle of each block of the residency.
    is_exact
        Whether a residency has a placement only if its rectangles have. Else an input that is taken
        over is larger than the output: the output may lie anywhere in its place, and beside it is room.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    size: NDArray[np.int64]
    of_block: tuple[int, ...]
    is_exact: bool


def rectangles(residency: Residency) -> Rectangles:
    """Blocks of `residency`, those written in place joined to what they take over."""
    size = residency.instance.size
    blocks = residency.blocks
    before = {new: old for old, new in residency.takeovers}
    of_block: dict[int, int] = {}
    columns: list[list[int]] = []
    is_exact = True
    for k in sorted(range(len(blocks)), key=lambda k: (blocks[k].start, blocks[k].end, k)):
        block = blocks[k]
        height = size[block.tensor]
        if k in before:
            of_block[k] = r = of_block[before[k]]
            columns[r][1] = block.end + 1
            is_exact = is_exact and columns[r][2] == height
        else:
            of_block[k] = len(columns)
            columns.append([block.start, block.end + 1, height])
    table = np.array(columns, np.int64).reshape(-1, 3)
    return Rectangles(
        start=np.ascontiguousarray(table[:, 0]),
        end=np.ascontiguousarray(table[:, 1]),
        size=np.ascontiguousarray(table[:, 2]),
        of_block=tuple(of_block[k] for k in range(len(blocks))),
        is_exact=is_exact,
    )


def place(residency: Residency, *, deadline_s: float, seed: int) -> tuple[Placed | None, bool]:
    """Addresses for all blocks, exactly; quick attempts are made even if the deadline has passed.

    Returns
    -------
    placed
        ``None`` where none were found.
    is_decided
        Whether that proves that there are none.
    """
    found = rectangles(residency)
    offsets, is_decided = place_rectangles(
        found.start, found.end, found.size, residency.instance.capacity, deadline_s=deadline_s, seed=seed
    )
    if offsets is None:
        return None, is_decided and found.is_exact
    return _placed(residency, found, offsets.tolist()), True


def place_or_shed(residency: Residency) -> Placed:
    """Placement that gives up kept gaps, the cheapest near each failure, until it succeeds.

    It ends: a rectangle without a hole spans a gap or meets one that does. Those of one step alone
    meet only each other, stack up from address 0 and are no more than one working set.
    """
    while (placed := place(residency, deadline_s=0.0, seed=0)[0]) is None:
        found = rectangles(residency)
        queue = [int(r) for r in np.lexsort((found.end, found.start))]
        offsets = _lowest_holes(found, queue, residency.instance.capacity)
        failed = [r for r in queue if offsets[r] is None]
        if not failed:
            return _placed(residency, found, offsets)
        blocks = residency.blocks
        shed: set[Gap] = set()
        for r in failed:
            nearby = [
                blocks[k]
                for k, other in enumerate(found.of_block)
                if found.start[other] < found.end[r] and found.start[r] < found.end[other]
            ]
            gaps = [gap for gap in residency.kept if any(other.spans(gap) for other in nearby)]
            shed.add(min(gaps, key=lambda gap: (residency.price(gap[0]), gap)))
        residency = Residency(residency.instance, residency.order, residency.kept - shed)
    return placed


def _lowest_holes(found: Rectangles, queue: Sequence[int], capacity: int) -> list[int | None]:
    """Offset of each rectangle, placed in the order of `queue`; ``None`` where no hole takes it."""
    taken: list[list[tuple[int, int]]] = [[] for _ in range(int(found.end.max(initial=0)))]
    offsets: list[int | None] = [None] * len(queue)
    start, end, size = found.start.tolist(), found.end.tolist(), found.size.tolist()
    for r in queue:
        low = 0
        for bottom, top in sorted({span for t in range(start[r], end[r]) for span in taken[t]}):
            if bottom - low >= size[r]:
                break
            low = max(low, top)
        if low + size[r] <= capacity:
            offsets[r] = low
            for t in range(start[r], end[r]):
                taken[t].append((low, low + size[r]))
    return offsets


def _placed(residency: Residency, found: Rectangles, offsets: Sequence[int | None]) -> Placed:
    return Placed(residency, tuple(at for r in found.of_block if (at := offsets[r]) is not None))
