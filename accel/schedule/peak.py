"""The order of operators that needs the least memory: minimal peak of live bytes over all orders.

What is live depends on the set of executed operators alone, so an order is a path through such sets,
and the minimal peak is the least bottleneck of a path from none to all of them. It lies between

- a lower bound: whatever the order, an operator runs in some set that holds its ancestors and none of its
  descendants, and the fewest bytes live beside it over all such sets are a minimum cut;
- an upper bound: the best of the file order and of a beam of sets.

Where they differ a bottleneck shortest path search decides. Operators that run right before the reader of
their result, with no more room than it, are left out (``_atomic.contraction``). Two facts keep the search
small. Live bytes are a submodular function of the executed set: an operator that can run within the peak
reached so far and leaves no more live than before may run at once, since every completion without it stays as
low with it done. And a set that every order passes parts the problem in two.

References
----------
.. [Liu87] J. W. H. Liu, "An application of generalized tree pebbling to sparse matrix factorization",
   SIAM J. Algebraic Discrete Methods 8(3), 1987: orders of minimal peak by segments that end low.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import product
from time import perf_counter

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_flow

from accel.schedule._atomic.contraction import contracted
from accel.schedule._instance import Instance
from accel.schedule._options import seconds
from accel.schedule._weights import Weights, plan_weights
from accel.workload import Workload

BEAM_WIDTHS = (1, 4, 16)  # wider ones seldom lower the peak before the exact search does
FIRST_TRIES = 1000  # sets per search, four times as many in each further round
DESCENT_TRIES = 12  # enough for the branches of search-derived cells and for gradients with their updates
_UNCUT = 2**31 - 1  # capacities of `maximum_flow` are 32-bit
_LARGEST_FLOW = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakOrder:
    """An order of low peak.

    Attributes
    ----------
    order
        Operator indices by step.
    peak
        Units of the instance that are live at its worst step.
    bound
        No order has a lower peak: ``bound == peak`` unless time ran out.
    """

    order: tuple[int, ...]
    peak: int
    bound: int


def peak_minimum(
    graph: Workload,
    *,
    weights: Weights = "streamed",
    resident: Collection[str] | None = None,
    alignment: int = 1,
    time_limit_s: float = 60.0,
) -> int:
    """Bytes of the smallest scratchpad in which some order keeps all live tensors: M_P.

    A tensor lives from its production, a graph input from its first use, to its last use. Fragmentation
    is left out: it can ask for more.

    Parameters
    ----------
    weights, resident
        What becomes of parameters: streamed ones need no room, tracked ones are tensors like others,
        resident ones have theirs for the whole run; see :func:`accel.schedule.schedule`.
    alignment
        Sizes are rounded up to it.
    time_limit_s
        Seconds, by the clock. Where they run out, a `RuntimeWarning` says what has been proved, and the
        result is the peak of the best order found.

    Raises
    ------
    TypeError, ValueError
        An option is of the wrong kind, or out of range.

    Examples
    --------
    >>> from accel.workload import Operator, Tensor
    >>> tensors = {
    ...     name: Tensor(name=name, shape=(size,), role="activation", format="int8")
    ...     for name, size in {"x": 1, "a": 2, "b": 3, "c": 3, "d": 2}.items()
    ... }
    >>> edges = (("x",), "a"), (("a",), "b"), (("b",), "c"), (("a", "c"), "d")
    >>> steps = tuple(Operator(name=out, kind="op", inputs=read, outputs=(out,)) for read, out in edges)
    >>> graph = Workload(name="skip", operators=steps, tensors=tensors, inputs=("x",), outputs=("d",))
    >>> peak_minimum(graph)  # a, b and c while c is made
    8
    """
    deadline_s = perf_counter() + seconds(time_limit_s)
    plan = plan_weights(graph, weights, resident=resident, alignment=alignment)
    instance = plan.instance(graph, fixed_order=False)
    found = minimal_peak_order(instance, deadline_s=deadline_s)
    peak_bytes, bound_bytes = (
        units * instance.unit_bytes + plan.resident_bytes for units in (found.peak, found.bound)
    )
    if bound_bytes < peak_bytes:
        warnings.warn(
            f"time_limit_s={time_limit_s} ran out: the minimal peak of {graph.name} is in "
            f"{bound_bytes}..{peak_bytes} bytes",
            RuntimeWarning,
            stacklevel=2,
        )
    return peak_bytes


def minimal_peak_order(instance: Instance, *, deadline_s: float) -> PeakOrder:
    """Order of minimal peak; `instance.capacity` does not matter.

    Parameters
    ----------
    deadline_s
        Reading of `time.perf_counter` at which to stop with the best order and bound so far.
    """
    # No order needs less than its largest operator, so what fits into that does not raise the peak.
    forward = _Moves(instance)
    least = max(map(forward.alone, range(forward.n)), default=0)
    smaller = contracted(replace(instance, capacity=least))
    found = _minimal_peak_order(smaller.instance, deadline_s)
    return PeakOrder(
        order=smaller.expand_order(found.order),
        peak=max(found.peak, least),
        bound=max(found.bound, least),
    )


def _minimal_peak_order(instance: Instance, deadline_s: float) -> PeakOrder:
    forward = _Moves(instance)
    directions = [forward] if any(instance.in_place) else [forward, _Moves(instance, backward=True)]
    best = tuple(range(forward.n))
    peak = max(forward.steps(best), default=0)
    bound = max((forward.alone(i) for i in best), default=0)
    for width, moves in product(BEAM_WIDTHS, directions):
        if bound < peak and (order := _beam(moves, width, deadline_s)) is not None:
            best, peak = min((best, peak), (order, max(forward.steps(order))), key=lambda found: found[1])
    if bound < peak:
        bound = _bound_by_cuts(forward, best, bound, deadline_s)
    tries = FIRST_TRIES
    while bound < peak and perf_counter() < deadline_s:
        for moves, halfway in product(directions, (False, True)):
            # The minimum is asked for first; after that anything below the middle is welcome.
            start = (bound + peak) // 2 if halfway else bound
            if bound == peak or (halfway and (tries == FIRST_TRIES or start == bound)):
                continue
            reached, order = _search(moves, start, peak, tries, deadline_s)
            if reached > start:
                bound = reached
            if order is not None:
                best, peak = order, max(forward.steps(order))
                bound = max(bound, peak) if start == bound else bound
        tries *= 4
    return PeakOrder(order=best, peak=peak, bound=min(bound, peak))


class _Moves:
    """Live units before, during and after operators, for sets of executed ones as bit masks.

    A tensor is live from the first to the last of the operators that touch it, so running all of them
    backward is the same kind of problem; the peak is the same, but what is low or narrow early is then so
    late. In place, though, goes forward alone: that an input dies depends on what ran before.
    """

    def __init__(self, instance: Instance, *, backward: bool = False) -> None:
        n = self.n = len(instance.operators)
        size = instance.size
        self.instance = instance
        self.backward = backward
        self.before = [_mask(found) for found in instance.after]
        self.successors: list[list[int]] = [[] for _ in range(n)]
        for i, found in enumerate(instance.after):
            for p in sorted(found):
                self.successors[p].append(i)
        if backward:
            self.before, self.successors = (
                [_mask(found) for found in self.successors],
                [sorted(found) for found in instance.after],
            )
        self.ancestors = [0] * n
        for i in reversed(range(n)) if backward else range(n):
            for p in _bits(self.before[i]):
                self.ancestors[i] |= self.ancestors[p] | 1 << p
        self.start = _mask(i for i in range(n) if not self.before[i])
        touching = [0] * len(instance.tensors)
        for i in range(n):
            for v in instance.touched(i):
                touching[v] |= 1 << i
        # A tensor that one operator alone touches is live at its step only.
        lasting = [mask.bit_count() > 1 for mask in touching]
        self._lasting = [
            [(size[v], touching[v]) for v in instance.touched(i) if lasting[v]] for i in range(n)
        ]
        self._momentary = [sum(size[v] for v in instance.touched(i) if not lasting[v]) for i in range(n)]
        self._overwritten = [[_mask(instance.consumers[v]) for v in found] for found in instance.in_place]
        self._written = [sum(size[v] for v in written) for written in instance.writes]

    def alone(self, i: int) -> int:
        """Units that operator `i` itself cannot do without, in place where it may be."""
        return self.instance.working_set[i] - (self._written[i] if self._overwritten[i] else 0)

    def run(self, executed: int, live: int, i: int) -> tuple[int, int]:
        """Units live during and after operator `i`, run when `executed` are done and `live` is live."""
        lasting = self._lasting[i]
        for units, touching in lasting:
            if not touching & executed:
                live += units
        during = live + self._momentary[i]
        waiting = ~(executed | 1 << i)
        for readers in self._overwritten[i]:
            if not readers & waiting:
                during -= self._written[i]
                break
        for units, touching in lasting:
            if not touching & waiting:
                live -= units
        return during, live

    def ready(self, executed: int, ready: int, i: int) -> int:
        """Operators that can run once `i` is done as well."""
        executed |= 1 << i
        ready &= ~(1 << i)
        for j in self.successors[i]:
            if not self.before[j] & ~executed:
                ready |= 1 << j
        return ready

    def descent(self, executed: int, live: int, i: int, limit: int) -> tuple[int, ...]:
        """Operators from `i` on, each reading the one before, after which no more is live than now.

        Empty if there are none within `limit`. Of several the first found; no shorter part would do.
        """
        stack: list[tuple[int, int, tuple[int, ...]]] = [(executed, live, (i,))]
        tries = 0
        while stack:
            done, now, chain = stack.pop()
            last = chain[-1]
            during, after = self.run(done, now, last)
            if during > limit:
                continue
            if after <= live:
                return chain
            tries += 1
            if tries == DESCENT_TRIES:
                break
            done |= 1 << last
            stack.extend(
                (done, after, (*chain, j)) for j in self.successors[last] if not self.before[j] & ~done
            )
        return ()

    def forward(self, order: Sequence[int]) -> tuple[int, ...]:
        """An order in this direction as one in which the operators run."""
        return tuple(reversed(order) if self.backward else order)

    def steps(self, order: Sequence[int]) -> list[int]:
        """Units live at each step of `order`."""
        found, executed, live = [], 0, 0
        for i in order:
            during, live = self.run(executed, live, i)
            executed |= 1 << i
            found.append(during)
        return found


def _beam(moves: _Moves, width: int, deadline_s: float) -> tuple[int, ...] | None:
    """Order found by keeping, per number of executed operators, the sets of least peak, then live units."""
    # executed -> peak so far, live, ready, and the way here as nested pairs
    level: dict[int, tuple[int, int, int, object]] = {0: (0, 0, moves.start, None)}
    for _ in range(moves.n):
        if perf_counter() > deadline_s:
            return None
        following: dict[int, tuple[int, int, int, object]] = {}
        for executed, (peak, live, ready, way) in level.items():
            for i in _bits(ready):
                during, after = moves.run(executed, live, i)
                done, worst = executed | 1 << i, max(peak, during)
                if done not in following or worst < following[done][0]:
                    following[done] = (worst, after, moves.ready(executed, ready, i), (way, i))
        level = dict(sorted(following.items(), key=lambda item: item[1][:2])[:width])
    order: list[int] = []
    way = next(iter(level.values()))[3]
    while isinstance(way, tuple):
        way, i = way
        order.append(i)
    return moves.forward(order[::-1])


def _search(
    moves: _Moves, start: int, below: int, tries: int, deadline_s: float
) -> tuple[int, tuple[int, ...] | None]:
    """Order whose peak is the least one of at least `start` and less than `below`, by shortest path.

    Returns
    -------
    The peak that orders are proved to need, unless it equals `start`; and the order, or ``None`` where
    none is below `below`, or `tries` sets or the time ran out.
    """
    everything = (1 << moves.n) - 1
    passes = iter(_passes(moves))
    gate = next(passes, everything)
    threshold = start
    ways: list[tuple[int, tuple[int, ...]]] = []  # previous way, operators run since

    def settle(executed: int, ready: int, live: int, limit: int, way: int, first: tuple[int, ...]) -> None:
        """Run what may run at once, and queue the set that it leads to."""
        run, more = list(first), True
        while more:
            more = False
            for i in _bits(ready):
                if not ready >> i & 1:
                    continue
                for j in moves.descent(executed, live, i, limit):
                    live = moves.run(executed, live, j)[1]
                    ready = moves.ready(executed, ready, j)
                    executed |= 1 << j
                    run.append(j)
                    more = True
        if len(run) > len(first):
            if seen.get(executed, below) <= limit:
                return
            seen[executed] = limit
        ways.append((way, tuple(run)))
        # Of the sets within one limit the fullest goes first: a path to the end is found soon.
        heappush(queue, (limit, -executed.bit_count(), live, len(ways) - 1, executed, ready))

    seen: dict[int, int] = {}
    queue: list[tuple[int, int, int, int, int, int]] = []
    settle(0, moves.start, 0, threshold, -1, ())
    while queue:
        limit, _, live, way, executed, ready = heappop(queue)
        threshold = max(threshold, limit)
        if executed == everything:
            order: list[int] = []
            while way >= 0:
                way, run = ways[way]
                order.extend(reversed(run))
            return threshold, moves.forward(order[::-1])
        tries -= 1
        if tries < 0 or perf_counter() > deadline_s:
            return threshold, None
        while not gate & ~executed:
            # Every order passes the gate, and this is one way through it at the least peak.
            queue.clear()
            seen.clear()
            gate = next(passes, everything)
        for i in _bits(ready):
            during, after = moves.run(executed, live, i)
            limit = max(threshold, during)
            if limit < below and seen.get(executed | 1 << i, below) > limit:
                seen[executed | 1 << i] = limit
                settle(executed | 1 << i, moves.ready(executed, ready, i), after, limit, way, (i,))
    return below, None


def _passes(moves: _Moves) -> list[int]:
    """Sets of executed operators that every order passes: ancestors of all the others; ascending."""
    ancestors = moves.ancestors
    ascending = sorted(range(moves.n), key=lambda i: (ancestors[i].bit_count(), i))
    common, found = -1, []
    executed = (1 << moves.n) - 1
    for i in reversed(ascending):
        common &= ancestors[i]
        executed &= ~(1 << i)
        if executed and not executed & ~common:
            found.append(executed)
    return found[::-1]


def _bound_by_cuts(moves: _Moves, order: tuple[int, ...], bound: int, deadline_s: float) -> int:
    """Raise `bound` by the least context of each operator that needs more than it in `order`."""
    descendants = [0] * moves.n
    for i in reversed(range(moves.n)):
        for j in moves.successors[i]:
            descendants[i] |= descendants[j] | 1 << j
    worst = sorted(zip(moves.steps(order), order, strict=True), reverse=True)
    for during, i in worst:
        if during <= bound or perf_counter() > deadline_s:
            break
        bound = max(bound, _least_context(moves, i, descendants[i]))
    return bound


def _least_context(moves: _Moves, i: int, descendants: int) -> int:
    """Fewest units live while operator `i` runs, over all sets that may be executed by then.

    A minimum cut: executed operators are on the source's side. Per tensor there is one edge of its size,
    cut if it is live, from its producer to a node that may join the source's side only with all its
    readers; for a graph input the edge comes from a node that any executed reader pulls over.
    """
    instance = moves.instance
    ancestors = moves.ancestors[i]
    source, sink, nodes = moves.n, moves.n + 1, moves.n + 2
    tails: list[int] = []
    heads: list[int] = []
    units: list[int] = []

    def edge(tail: int, head: int, capacity: int) -> None:
        tails.append(tail)
        heads.append(head)
        units.append(capacity)

    def side(j: int) -> int:
        if ancestors >> j & 1:
            return source
        return sink if j == i or descendants >> j & 1 else j

    for j in range(moves.n):
        if side(j) == j:
            for p in sorted(instance.after[j]):
                if side(p) == p:
                    edge(j, p, -1)
    touched = frozenset(instance.touched(i))
    certain = moves.alone(i)
    for v, readers in enumerate(instance.consumers):
        sides = sorted({side(c) for c in readers})
        producer = instance.producer[v]
        if v in touched or not readers or sides == [source] or (producer is None and len(sides) == 1):
            continue
        if producer is not None:
            made = side(producer)
        elif source in sides:
            made = source
        else:
            made, nodes = nodes, nodes + 1
            for c in sides:
                if c != sink:
                    edge(c, made, -1)
        if made == sink:
            continue
        if sink in sides and made == source:
            certain += instance.size[v]
        elif sink in sides:
            edge(made, sink, instance.size[v])
        else:
            edge(made, nodes, instance.size[v])
            for c in sides:
                if c != source:
                    edge(nodes, c, -1)
            nodes += 1
    if not tails:
        return certain
    # Rounding capacities down where they are too large keeps the cut a lower bound.
    scale = -(-sum(u for u in units if u > 0) // _LARGEST_FLOW) or 1
    capacities = np.array([_UNCUT if u < 0 else u // scale for u in units], dtype=np.int32)
    network = coo_array((capacities, (tails, heads)), shape=(nodes, nodes)).tocsr()
    return certain + int(maximum_flow(network, source, sink).flow_value) * scale


def _mask(indices: Iterator[int] | Collection[int]) -> int:
    mask = 0
    for k in indices:
        mask |= 1 << k
    return mask


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
