"""What must be paid at single steps, in every order: a lower bound that adds up over operators.

When operator i runs, the operators done are a set D that is closed under "runs before" and holds all
ancestors of i, but neither i nor a descendant. The tensors that D has touched and other operators still
read are live; all that are resident beside i fit into the room that its working set leaves. A least cut
between ancestors and descendants bounds what is live from below, whatever D is: the flow behind it takes a
part f_v of the price of each tensor v, and the parts of the live ones are the value of the flow or more. What
stays is whole tensors: their parts are no more than those of the best choice that has room, a knapsack. The
parts of all others are paid. They are left out of the prices when the next operator is looked at, so the
bounds of all operators add up; the dearest operator comes first, or the cheapest, whichever gives more.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from operator import add
from time import perf_counter

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from accel.schedule._instance import Instance

_MOST_CHOICES = 500  # choices in one knapsack that are told apart
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
    whole = tuple(
        units * (1 if free else 2) for units, free in zip(instance.size, instance.always_backed, strict=True)
    )
    alone: dict[int, tuple[int, dict[int, int]]] = {}
    for i in cuts.candidates():
        if perf_counter() > deadline_s:
            break
        if (first := cuts.paid(i, whole))[0] > 0:
            alone[i] = first
    orders = [sorted(alone, key=lambda i: (-alone[i][0], i)), sorted(alone, key=lambda i: (alone[i][0], i))]
    found = [_add_up(instance, cuts, order, alone, deadline_s) for order in orders]
    return max(found, key=lambda steps: sum(step.units for step in steps))


def _add_up(
    instance: Instance,
    cuts: Cuts,
    order: Sequence[int],
    alone: Mapping[int, tuple[int, dict[int, int]]],
    deadline_s: float,
) -> tuple[StepBound, ...]:
    """Bounds of operators, each without what those before it in `order` rest on."""
    size, backed = instance.size, instance.always_backed
    store_left = [0 if free else units for units, free in zip(size, backed, strict=True)]
    counted: list[list[tuple[int, int]]] = [[] for _ in size]  # by tensor: operator, units of a refetch
    found: list[StepBound] = []
    for i in order:
        if found and perf_counter() > deadline_s:
            break
        # A refetch can be counted at two operators if a read of the tensor lies between them in any order.
        refetch_left = [
            max(units - sum(taken for j, taken in counted[v] if not cuts.separates(v, i, j)), 0)
            for v, units in enumerate(size)
        ]
        prices = tuple(map(add, refetch_left, store_left))
        if cuts.can_be_free(i, prices):
            continue
        units, share = cuts.paid(i, prices) if found else alone[i]
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
            if sum(size[v] for v in self._live(i, before)) > self._room[i]:
                yield i

    def can_be_free(self, i: int, prices: Sequence[int]) -> bool:
        """Whether tensors of price 0 make the room in one of two states: all done that can be, or least."""
        size = self._instance.size
        everything = (1 << len(self._before)) - 1
        return any(
            sum(size[v] for v in self._live(i, done) if prices[v]) <= self._room[i]
            for done in (self._before[i], everything & ~(self._after[i] | 1 << i))
        )

    def _live(self, i: int, done: int) -> Iterator[int]:
        """Tensors that are live when `done` have run, but for those that operator `i` touches."""
        touched = self._instance.touched(i)
        for v, (openers, readers) in enumerate(zip(self._openers, self._readers, strict=True)):
            if openers & done and readers & ~done and v not in touched:
                yield v

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
        cut, flow = self._cut(i, prices)
        return cut - weight * self._room[i], flow

    def paid(self, i: int, prices: Sequence[int]) -> tuple[int, dict[int, int]]:
        """Units paid at `i` if tensors leave whole, and the units that rest on each tensor.

        Two flows are tried: the one behind the cut in prices, and in prices no dearer than the sizes.
        """
        size = self._instance.size
        found = []
        for limited in (dict(enumerate(map(min, prices, size))), dict(enumerate(prices))):
            cut, flow = self._cut(i, limited)
            spared = most_within([(size[v], taken) for v, taken in flow.items()], self._room[i])
            found.append((cut - spared, flow))
        return max(found, key=lambda option: option[0])

    def _cut(self, i: int, prices: Mapping[int, int]) -> tuple[int, dict[int, int]]:
        """Least price of all that is live beside `i`, and the flow through each tensor."""
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
        return cut, flow

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


def most_within(items: Sequence[tuple[int, int]], room: int) -> int:
    """Largest value of a choice of `items`, (units, value) each, of no more than `room` units.

    A bound on it where there are very many different choices: the last items may then be divided.
    """
    ordered = sorted(
        (item for item in items if item[0] <= room), key=lambda item: Fraction(item[1], item[0]), reverse=True
    )
    units_to, value_to = (
        ([0, *accumulate(column)] for column in zip(*ordered, strict=True)) if ordered else ([0], [0])
    )

    def divided(at: int, left: int) -> int:
        """Value of the items from `at` on that `left` units hold if the last one is divided, rounded down."""
        k = bisect_right(units_to, units_to[at] + left) - 1
        total = value_to[k] - value_to[at]
        if k < len(ordered):
            total += (units_to[at] + left - units_to[k]) * ordered[k][1] // ordered[k][0]
        return total

    choices = {room: 0}  # value by room left, larger where less is left
    best = 0
    for at, (units, value) in enumerate(ordered):
        merged = dict(choices)
        for left, reached in choices.items():
            if units <= left:
                merged[left - units] = max(merged.get(left - units, 0), reached + value)
        best = max(best, *merged.values())
        hopes: list[int] = []
        choices = {}
        top = -1
        for left in sorted(merged, reverse=True):
            if merged[left] > top:
                top = merged[left]
                if top + divided(at + 1, left) > best:
                    choices[left] = top
                    hopes.append(top + divided(at + 1, left))
        if not choices:
            break
        if len(choices) > _MOST_CHOICES:
            return max(hopes)
    return best


def _mask(indices: tuple[int, ...]) -> int:
    return sum(1 << k for k in indices)


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
