"""Orders of operators that are likely to keep much of what streams between them, and a bound for them all.

Each order is judged by its greedy plan without addresses, which takes well under a millisecond for a
hundred operators; the best one is then improved by moving one operator at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import ceil, gcd
from time import perf_counter

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from accel.schedule._solvers.quiet import without_stray_lines
from accel.schedule.streamed import Streaming, keep
from accel.workload import Workload

Order = tuple[int, ...]

_SHUFFLED = 8  # depth-first orders with the inputs of each operator in random order
_MOVES = 3000  # most moves that are judged
_BEST = 3  # orders that are given out
_BOUND_NODES = 200  # of the bound's integer program; a count keeps it reproducible


def likely_orders(
    graph: Workload, problem: Streaming, given: Sequence[Order], *, seed: int, deadline_s: float
) -> list[Order]:
    """Up to a few orders, the most promising first; the first of `given` is always among them.

    Parameters
    ----------
    problem
        Of `graph` in the order in which it is listed.
    given
        Orders to try beside our own; the first is that of the list.
    """
    before = _makers(graph)
    judge = _Judge(problem)
    ranked: dict[Order, int] = {}
    for order in (*given, *_own_orders(graph, problem, before, seed)):
        if order not in ranked:
            ranked[order] = judge.total_bytes(order)
        if perf_counter() >= deadline_s:
            break
    best = min(ranked, key=lambda order: ranked[order])
    improved, total = _improved(judge, best, ranked[best], before, seed=seed, deadline_s=deadline_s)
    ranked[improved] = total
    chosen = sorted(ranked, key=lambda order: ranked[order])[:_BEST]
    return list(dict.fromkeys((*chosen, given[0])))


class _Judge:
    """Greedy totals of one problem in any order."""

    def __init__(self, problem: Streaming) -> None:
        self._problem = problem
        self.least_bytes = problem.compulsory_bytes

    def total_bytes(self, order: Sequence[int]) -> int:
        """Bytes of the greedy plan if the operators run in `order`."""
        problem = self._problem
        position = np.empty(len(order), np.int64)
        position[list(order)] = np.arange(len(order))
        step = position[problem.step]
        sort = np.lexsort((step, problem.owner))
        reordered = replace(problem, step=step[sort], streamed_bytes=problem.streamed_bytes[sort])
        return keep(reordered, backend="greedy").total_bytes


def _makers(graph: Workload) -> list[set[int]]:
    """Operators whose results each operator reads."""
    maker = {name: i for i, operator in enumerate(graph.operators) for name in operator.outputs}
    return [{maker[name] for name in operator.inputs if name in maker} for operator in graph.operators]


def _own_orders(
    graph: Workload, problem: Streaming, before: Sequence[set[int]], seed: int
) -> Iterator[Order]:
    """Depth-first orders, then one of least live bytes."""
    size = dict(zip(problem.tensors, problem.size_bytes.tolist(), strict=True))
    written = [sum(size.get(name, 0) for name in operator.outputs) for operator in graph.operators]
    n = len(graph.operators)
    yield _depth_first(before, [sorted(makers) for makers in before], range(n))
    for sign in (1, -1):
        yield _depth_first(
            before, [sorted(makers, key=lambda i: (sign * written[i], i)) for makers in before], range(n)
        )
    rng = np.random.default_rng(seed)
    for _ in range(_SHUFFLED):
        yield _depth_first(before, [rng.permutation(sorted(makers)).tolist() for makers in before], range(n))
    yield _least_live(graph, size, before)


def _depth_first(before: Sequence[set[int]], makers: Sequence[Sequence[int]], roots: Iterable[int]) -> Order:
    """Each operator right after what it still needs, last operators of the graph first to ask."""
    read = set().union(*before) if before else set()
    order: list[int] = []
    done = [False] * len(before)
    for root in (i for i in roots if i not in read):
        stack = [(root, iter(makers[root]))]
        while stack:
            i, rest = stack[-1]
            following = next((p for p in rest if not done[p]), None)
            if following is not None:
                stack.append((following, iter(makers[following])))
                continue
            stack.pop()
            if not done[i]:
                done[i] = True
                order.append(i)
    return tuple(order)


def _least_live(graph: Workload, size: dict[str, int], before: Sequence[set[int]]) -> Order:
    """Of the operators that can run always the one that adds the fewest live bytes, first listed first."""
    readers = {name: len(found) for name, found in graph.consumers.items()}
    waiting = [len(makers) for makers in before]
    after: list[list[int]] = [[] for _ in before]
    for i, makers in enumerate(before):
        for p in makers:
            after[p].append(i)
    live: set[str] = set()
    ready = [i for i, count in enumerate(waiting) if not count]
    order: list[int] = []
    while ready:

        def growth(i: int) -> int:
            operator = graph.operators[i]
            inputs = set(operator.inputs)
            gone = sum(size.get(name, 0) for name in inputs if readers[name] == 1 and name in live)
            new = sum(size.get(name, 0) for name in inputs if readers[name] > 1 and name not in live)
            return new - gone + sum(size.get(name, 0) for name in operator.outputs if readers[name])

        i = min(ready, key=lambda i: (growth(i), i))
        ready.remove(i)
        order.append(i)
        operator = graph.operators[i]
        live.update(operator.inputs, operator.outputs)
        for name in set(operator.inputs):
            readers[name] -= 1
            if not readers[name]:
                live.discard(name)
        for later in after[i]:
            waiting[later] -= 1
            if not waiting[later]:
                ready.append(later)
    return tuple(order)


def _improved(
    judge: _Judge, order: Order, total: int, before: Sequence[set[int]], *, seed: int, deadline_s: float
) -> tuple[Order, int]:
    """Better order by moving single operators as far as the graph lets them, or to a place between."""
    after: list[set[int]] = [set() for _ in before]
    for i, makers in enumerate(before):
        for p in makers:
            after[p].add(i)
    rng = np.random.default_rng(seed)
    moves = idle = 0
    current = list(order)
    while idle < 2 * len(current) and moves < _MOVES and total > judge.least_bytes:
        i = int(rng.integers(len(current)))
        place = {j: at for at, j in enumerate(current)}
        low = max((place[p] for p in before[i]), default=-1) + 1
        high = min((place[s] for s in after[i]), default=len(current)) - 1
        to = {low, high, int(rng.integers(low, high + 1))} - {place[i]}
        idle += 1
        for at in sorted(to):
            moved = [j for j in current if j != i]
            moved.insert(at, i)
            moves += 1
            found = judge.total_bytes(moved)
            if found <= total:
                idle = 0 if found < total else idle
                current, total = moved, found
                break
        if perf_counter() >= deadline_s:
            break
    return tuple(current), total


def free_bound_bytes(problem: Streaming, *, time_limit_s: float) -> int:
    """Bytes that every plan moves beyond the compulsory ones, in whatever order its operators run.

    Of a plan only this is asked: the tensors that stay and that one operator uses fit the capacity
    together, and a tensor that stays at r of its uses keeps at most r - 1 gaps. What lies between two uses,
    and so the order, does not matter. `problem` has the same capacity at every step.
    """
    size, owner, uses = problem.size_bytes, problem.owner, problem.step.size
    gaps = np.diff(problem.first) - 1
    is_unstored = problem.is_produced & ~problem.is_output & (gaps > 0)
    most = int((size * (gaps + is_unstored)).sum())
    if not most:
        return 0
    room = int(problem.capacity_bytes[0])
    if not room:
        return most
    # Columns: whether a use is one of a stay, (u,); whether a tensor stays at any; and at all its uses.
    n = len(problem.tensors)
    anywhere, throughout = uses + np.arange(n), uses + n + np.arange(n)
    use = np.arange(uses)
    unit = gcd(*size.tolist())
    is_full = np.bincount(problem.step, size[owner], minlength=problem.capacity_bytes.size) > room
    full = np.flatnonzero(is_full[problem.step])
    rows = np.concatenate([use, use, uses + use, uses + use, 2 * uses + problem.step[full]])
    columns = np.concatenate([use, anywhere[owner], throughout[owner], use, full])
    values = np.concatenate([np.tile([1.0, -1.0], 2).repeat(uses), size[owner[full]] / room])
    count = 2 * uses + problem.capacity_bytes.size
    high = np.zeros(count)
    high[2 * uses :] = 1.0
    gain = np.concatenate([size[owner], -size, size * is_unstored]) // unit
    fits = (size <= room) & (gaps > 0)
    with without_stray_lines():
        result = milp(
            c=-gain.astype(float),
            integrality=np.ones(gain.size, np.int64),
            bounds=Bounds(0, np.concatenate([fits[owner], fits, fits & is_unstored]).astype(float)),
            constraints=LinearConstraint(
                csr_array((values, (rows, columns)), shape=(count, gain.size)), -np.inf, high
            ),
            options={"time_limit": time_limit_s, "node_limit": _BOUND_NODES},
        )
    dual = result.mip_dual_bound
    if dual is None or not np.isfinite(dual):
        return int((size * (gaps + is_unstored))[~fits].sum())
    # A bound a hair above an integer is that integer.
    return max(0, most + ceil(dual - 1e-9 * abs(dual) - 1e-6) * unit)
