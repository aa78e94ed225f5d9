"""Addresses for residency runs, quickly: each block in turn goes into its lowest hole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from accel.schedule._residency import Block, Gap, Residency


@dataclass(frozen=True, slots=True)
class Placed:
    """A residency with the address of each of its blocks, in units."""

    residency: Residency
    addresses: tuple[int, ...]


def place(residency: Residency, *, rounds: int = 40) -> Placed | None:
    """Addresses for all blocks, or ``None`` where none were found in `rounds` attempts.

    Blocks of large area go first; those that found no room move to the front half by half, so that
    the ones in trouble are soon placed early.
    """
    size = residency.instance.size
    queue = sorted(
        residency.blocks, key=lambda b: (-size[b.tensor] * (b.end - b.start + 1), b.start, b.tensor)
    )
    for _ in range(rounds):
        addresses = _lowest_holes(residency, queue)
        late = [block for block in queue if addresses[block] is None]
        if not late:
            return _placed(residency, addresses)
        for block in late:
            position = queue.index(block)
            queue.insert(position // 2, queue.pop(position))
    return None


def place_or_shed(residency: Residency) -> Placed:
    """Placement that gives up kept gaps, the cheapest near each failure, until it succeeds.

    It ends: a block without a hole spans a gap or meets a block that does. Blocks of one step alone
    meet only each other, stack up from address 0 and are no more than one working set.
    """
    while (placed := place(residency, rounds=8)) is None:
        addresses = _lowest_holes(residency, sorted(residency.blocks, key=lambda b: (b.start, b.end)))
        failed = [block for block, address in addresses.items() if address is None]
        if not failed:
            return _placed(residency, addresses)
        shed: set[Gap] = set()
        for block in failed:
            nearby = [other for other in residency.blocks if other.meets(block)]
            gaps = [gap for gap in residency.kept if any(other.spans(gap) for other in nearby)]
            shed.add(min(gaps, key=lambda gap: (residency.price(gap[0]), gap)))
        residency = Residency(residency.instance, residency.order, residency.kept - shed)
    return placed


def _lowest_holes(residency: Residency, queue: Sequence[Block]) -> dict[Block, int | None]:
    """Address of each block, placed in the order of `queue`; ``None`` where no hole takes it."""
    size, capacity = residency.instance.size, residency.instance.capacity
    taken: list[list[tuple[int, int]]] = [[] for _ in residency.order]
    addresses: dict[Block, int | None] = {}
    for block in queue:
        height = size[block.tensor]
        steps = range(block.start, block.end + 1)
        low = 0
        for start, end in sorted({span for t in steps for span in taken[t]}):
            if start - low >= height:
                break
            low = max(low, end)
        addresses[block] = low if low + height <= capacity else None
        if addresses[block] is not None:
            for t in steps:
                taken[t].append((low, low + height))
    return addresses


def _placed(residency: Residency, addresses: Mapping[Block, int | None]) -> Placed:
    return Placed(residency, tuple(at for block in residency.blocks if (at := addresses[block]) is not None))
