"""What must be paid at single steps, in every order: a lower bound that adds up over operators.

When operator i runs, the operators done are a set D that is closed under "runs before" and holds all
ancestors of i, but neither i nor a descendant. The tensors that D has touched and other operators still
read are live; all that are resident beside i fit into the room that its working set leaves. A least cut
between ancestors and descendants bounds what is live from below, whatever D is, and what exceeds the room
is paid for. The flow behind the cut says which tensors the bound rests on: what it takes of their prices
is left out when the next operator is looked at, so the bounds of all operators add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from accel.schedule._instance import Instance

_ENDLESS = 1 << 30  # capacity of an arc that no cut may cross; flows are 32-bit integers


@dataclass(frozen=True, slots=True)
class StepBound:
    """At least `units` are paid for tensors that are out of the scratchpad while `operator` runs.

    Attributes
    ----------
    share
        By tensor: what the bound counts at most on it. A tensor that has left already no longer counts.
    """

    operator: int
    units: int
    share: Mapping[int, int]


def step_bounds(instance: Instance, *, deadline_s: float) -> tuple[StepBound, ...]:
    """Bounds of the operators beside which not all that is live fits; their sum bounds the traffic.

    Parameters
    ----------
    deadline_s
        Reading of `time.perf_counter` after which no further operator is looked at.
    """
    cuts = Cuts(instance)
    size, backed = instance.size, instance.always_backed
    dearest: list[tuple[int, int]] = []
    for i in cuts.candidates():
        if perf_counter() > deadline_s:
            break
        units = max(cuts.least(i, dict(enumerate(size)))[0], 0)
        if all(not backed[v] for v in cuts.crossing(i)):
            units *= 2
        if units:
            dearest.append((-units, i))
    store_left = [0 if free else units for units, free in zip(size, backed, strict=True)]
    counted: list[list[tuple[int, int]]] = [[] for _ in size]  # by tensor: operator, units of a refetch
    found: list[StepBound] = []
    for _, i in sorted(dearest):
        if perf_counter() > deadline_s:
            break
        # A refetch can be counted at two operators if a read of the tensor lies between them in any order.
        refetch_left = [
            max(units - sum(taken for j, taken in counted[v] if not cuts.separates(v, i, j)), 0)
            for v, units in enumerate(size)
        ]
        options = []
        for weight in (1, 2):
            prices = {v: min(weight * size[v], refetch_left[v] + store_left[v]) for v in range(len(size))}
            options.append(cuts.least(i, prices, weight))
        units, share = max(options, key=lambda option: option[0])
        if units <= 0:
            continue
        for v, taken in share.items():
            refetch = min(taken, refetch_left[v])
            counted[v].append((i, refetch))
            store_left[v] -= taken - refetch
        found.append(StepBound(i, units, share))
    return tuple(found)


class Cuts:
    """Least cuts of the graph at one operator, on bit masks over operators."""

    def __init__(self, instance: Instance) -> None:
        n = len(instance.operators)
        self._instance = instance
        self._before = instance.ancestors
        self._after = [0] * n
        for i, mask in enumerate(self._before):
            for p in _bits(mask):
                self._after[p] |= 1 << i
        self._readers = [_mask(found) for found in instance.consumers]
        self._openers = [
            readers if made is None else 1 << made
            for made, readers in zip(instance.producer, self._readers, strict=True)
        ]
        self._room = [instance.capacity - used for used in instance.working_set]
        for i, over in enumerate(instance.in_place):
            if any(not self._readers[v] & self._after[i] for v in over):
                self._room[i] += instance.size[instance.writes[i][0]]

    def candidates(self) -> Iterator[int]:
        """Operators beside which not all fits that is live once just their ancestors have run."""
        size = self._instance.size
        for i, before in enumerate(self._before):
            live = sum(
                size[v]
                for v, (openers, readers) in enumerate(zip(self._openers, self._readers, strict=True))
                if openers & before and readers & ~before
            )
            live -= sum(
                size[v]
                for v in self._instance.touched(i)
                if self._openers[v] & before and self._readers[v] & ~before
            )
            if live > self._room[i]:
                yield i

    def crossing(self, i: int) -> tuple[int, ...]:
        """Tensors that may be live while `i` runs and are not touched by it."""
        before, after = self._before[i], self._after[i] | 1 << i
        touched = self._instance.touched(i)
        return tuple(
            v
            for v, (openers, readers) in enumerate(zip(self._openers, self._readers, strict=True))
            if openers & ~after and readers & ~before and v not in touched
        )

    def separates(self, v: int, i: int, j: int) -> bool:
        """Whether a read of `v` lies between operators `i` and `j` in every order."""
        between = self._after[i] & self._before[j] | self._after[j] & self._before[i]
        return bool(self._readers[v] & between)

    def least(self, i: int, prices: Mapping[int, int], weight: int = 1) -> tuple[int, dict[int, int]]:
        """Units paid at `i` if dropping tensor v costs ``prices[v]``, and the units that rest on each tensor.

        No price exceeds `weight` times the size: then what stays in the room spares no more than `weight`
        times the room, and the cut in prices less this is a bound.
        """
        before, after = self._before[i], self._after[i] | 1 << i
        cut = 0
        flow: dict[int, int] = {}
        edges: list[int] = []
        for v in self.crossing(i):
            if prices[v] <= 0:
                continue
            if self._openers[v] & before and self._readers[v] & after:
                cut += prices[v]
                flow[v] = prices[v]
            else:
                edges.append(v)
        if edges:
            value, found = self._maximum_flow(i, edges, prices)
            cut += value
            flow |= found
        return cut - weight * self._room[i], flow

    def _maximum_flow(
        self, i: int, edges: list[int], prices: Mapping[int, int]
    ) -> tuple[int, dict[int, int]]:
        """Flow from the ancestors of `i` to its descendants, over what can run on either side of it."""
        before, after = self._before[i], self._after[i] | 1 << i
        free = ((1 << len(self._before)) - 1) & ~before & ~after
        node = {o: k for k, o in enumerate(_bits(free), start=2)}
        node |= dict.fromkeys(_bits(before), 0) | dict.fromkeys(_bits(after), 1)
        scale = 1  # prices are rounded down to it
        while sum(prices[v] // scale for v in edges) >= _ENDLESS // 2:
            scale *= 2
        capacity: dict[tuple[int, int], int] = {}

        def connect(tail: int, head: int, units: int) -> None:
            if tail != head and tail != 1 and head != 0:
                capacity[tail, head] = units

        for o in _bits(free):
            for p in self._instance.after[o]:
                connect(node[o], node[p], _ENDLESS)
        nodes = 2 + free.bit_count()
        arc: dict[int, tuple[int, int]] = {}
        for v in edges:
            arc[v] = nodes, nodes + 1
            nodes += 2
            for o in _bits(self._openers[v]):
                connect(node[o], arc[v][0], _ENDLESS)
            connect(*arc[v], prices[v] // scale)
            for o in _bits(self._readers[v]):
                connect(arc[v][1], node[o], _ENDLESS)
        tails, heads = zip(*capacity, strict=True)
        matrix = csr_array((np.array([*capacity.values()], np.int32), (tails, heads)), shape=(nodes, nodes))
        result = maximum_flow(matrix, 0, 1)
        used = {v: int(result.flow[ends]) * scale for v, ends in arc.items()}
        return int(result.flow_value) * scale, {v: units for v, units in used.items() if units}


def _mask(indices: tuple[int, ...]) -> int:
    return sum(1 << k for k in indices)


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
