"""Replacement by a rule, operator by operator: what an allocator without a schedule would do.

Before each operator dead tensors are freed, missing inputs are loaded in operand order, then outputs
are allocated. Where a block finds no room, tensors that the operator does not use leave one after the
other. A tensor that leaves unbacked is stored, once in the whole run.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from accel.schedule._instance import Instance

Replacement: TypeAlias = Literal["lru", "belady", "greedy"]
EventKind: TypeAlias = Literal["load", "refetch", "allocate", "overwrite", "spill", "evict", "free", "move"]


@dataclass(frozen=True, slots=True)
class Event:
    """What happens to the block of `tensor` before or while the operator of `step` runs.

    Attributes
    ----------
    kind
        ``"load"`` is the first of a graph input. ``"overwrite"``: an output takes the address of a dead
        input. ``"spill"``: the first store of a tensor that nobody else pays for. ``"evict"`` and
        ``"free"`` end a stay, with and without later use. ``"move"``: to `address`, through off-chip memory.
    address
        In units; 0 throughout where memory has no addresses.
    charged
        Units of traffic beyond the compulsory.
    """

    step: int
    kind: EventKind
    tensor: int
    address: int
    charged: int


@dataclass(frozen=True, slots=True)
class Trace:
    """What a run did.

    Attributes
    ----------
    events
        In the order they happened.
    relocations
        Times that the working set was moved to the bottom of the memory.
    peak
        Most units in use at once that did not exceed the capacity, -1 if there were none. Any capacity from
        here to that of the run gives the same trace.
    """

    events: tuple[Event, ...]
    relocations: int
    peak: int


def replace_by_rule(
    instance: Instance, order: Sequence[int], capacity: int, replacement: Replacement, *, addressed: bool
) -> Trace:
    """Run `order` in `capacity` units.

    Parameters
    ----------
    addressed
        Blocks lie at addresses, each in its lowest hole, and stay there. If no hole is large enough one
        more tensor leaves; if none is left the working set is moved so that it lies contiguous from 0.
        Otherwise only the sum of sizes counts, and it exceeds `capacity` where a working set does.
    """
    return _Run(instance, order, capacity, replacement, addressed=addressed).run()


class _Run:
    def __init__(
        self,
        instance: Instance,
        order: Sequence[int],
        capacity: int,
        replacement: Replacement,
        *,
        addressed: bool,
    ) -> None:
        self._instance = instance
        self._order = order
        self._capacity = capacity
        self._replacement = replacement
        self._addressed = addressed
        self._uses = instance.uses(order)
        self._backed = list(instance.always_backed)
        self._resident: dict[int, int] = {}  # tensor -> address; least recently used first
        self._used = 0
        self._peak = -1
        self._relocations = 0
        self._events: list[Event] = []
        self._step = 0

    def run(self) -> Trace:
        """Serve every operator in turn."""
        for step, i in enumerate(self._order):
            self._step = step
            for v in [v for v in self._resident if self._uses[v][-1] < self._step]:
                self._leave(v, "free")
            for v in self._instance.reads[i]:
                if v in self._resident:
                    self._resident[v] = self._resident.pop(v)  # now the most recently used
                elif self._uses[v][0] == self._step:
                    self._enter(v, "load")
                else:
                    self._enter(v, "refetch")
            dying = [v for v in self._instance.in_place[i] if self._uses[v][-1] == self._step]
            for v in self._instance.writes[i]:
                if dying:
                    self._overwrite(v, dying[0])
                else:
                    self._enter(v, "allocate")
        return Trace(tuple(self._events), self._relocations, self._peak)

    def _log(self, kind: EventKind, v: int, charged: int = 0) -> None:
        self._events.append(Event(self._step, kind, v, self._resident[v], charged))

    def _enter(self, v: int, kind: EventKind) -> None:
        size = self._instance.size[v]
        while (address := self._hole(size)) is None:
            i = self._order[self._step]
            touched = frozenset(self._instance.touched(i))
            candidates = [u for u in self._resident if u not in touched]
            if candidates:
                for u in self._victims(candidates, self._used + size - self._capacity):
                    self._leave(u, "evict")
            elif self._addressed:
                self._relocate(frozenset(self._instance.writes[i]))
            else:
                address = 0
                break
        self._resident[v] = address
        self._used += size
        if self._used <= self._capacity:
            self._peak = max(self._peak, self._used)
        self._log(kind, v, size if kind == "refetch" else 0)

    def _overwrite(self, v: int, dead: int) -> None:
        self._resident[v] = self._resident.pop(dead)
        self._used += self._instance.size[v] - self._instance.size[dead]
        self._log("overwrite", v)

    def _leave(self, v: int, kind: EventKind) -> None:
        if kind == "evict" and not self._backed[v]:
            self._backed[v] = True
            self._log("spill", v, self._instance.size[v])
        self._log(kind, v)
        del self._resident[v]
        self._used -= self._instance.size[v]

    def _hole(self, size: int) -> int | None:
        """Lowest address with `size` free units; without addresses 0 if there are as many."""
        if self._used + size > self._capacity:
            return None
        low = 0
        if self._addressed:
            for address, v in sorted((address, v) for v, address in self._resident.items()):
                if address - low >= size:
                    break
                low = address + self._instance.size[v]
        return low if low + size <= self._capacity else None

    def _victims(self, candidates: list[int], missing: int) -> Sequence[int]:
        """Tensors to give up next; `missing` is not positive where the free units are in pieces."""
        size = self._instance.size
        if self._replacement == "lru":
            return candidates[:1]
        if self._replacement == "belady":
            uses, now = self._uses, self._step
            following = {v: uses[v][bisect_right(uses[v], now)] for v in candidates}
            return (min(candidates, key=lambda v: (-following[v], -size[v], v)),)
        items = [(size[v] * (1 if self._backed[v] else 2), size[v], v) for v in candidates]
        return cheapest_cover(items, max(missing, 1))

    def _relocate(self, written: frozenset[int]) -> None:
        """Move the blocks down, in the order of their addresses.

        Outputs of the operator that is about to run hold nothing yet, so their blocks move for free.
        """
        self._relocations += 1
        low = 0
        for address, v in sorted((address, v) for v, address in self._resident.items()):
            if address != low:
                charged = 0
                if v not in written:
                    charged = self._instance.size[v] * (1 if self._backed[v] else 2)
                    self._backed[v] = True
                self._resident[v] = low
                self._log("move", v, charged)
            low += self._instance.size[v]


def cheapest_cover(items: Sequence[tuple[int, int, int]], need: int) -> tuple[int, ...]:
    """Set of items of least cost whose sizes sum to at least `need`; all of them if they do not.

    Of sets of one cost the one that frees most is taken, then the one of the lowest numbers.

    Parameters
    ----------
    items
        ``(cost, size, number)``, all positive but the number.

    Returns
    -------
    Numbers, ascending.
    """
    if sum(size for _, size, _ in items) <= need:
        return tuple(sorted(number for *_, number in items))
    # (cost, -size, numbers) of the sets that may still grow into the best: none frees as much as another
    # and costs as much. Of two such sets of one cost and size the first stays first with an item more.
    frontier: list[tuple[int, int, tuple[int, ...]]] = [(0, 0, ())]
    best: tuple[int, int, tuple[int, ...]] | None = None
    left = sum(size for _, size, _ in items)
    for cost, size, number in sorted(items, key=lambda item: (-item[1], item[0], item[2])):
        left -= size
        grown = [
            (paid + cost, less - size, tuple(sorted((*chosen, number)))) for paid, less, chosen in frontier
        ]
        covers = [found for found in grown if -found[1] >= need]
        best = min(covers if best is None else [best, *covers], default=None)
        merged = sorted([*frontier, *(found for found in grown if -found[1] < need)])
        frontier = []
        most = -1
        for found in merged:
            if -found[1] > most and left - found[1] >= need and (best is None or found[0] < best[0]):
                frontier.append(found)
                most = -found[1]
    if best is None:
        raise AssertionError("the sizes add up to more than is needed, so some set covers it")
    return best[2]
