"""Exact order and residency by best-first search over machine states, placement left out.

A state is (executed operators, resident tensors, tensors with an off-chip copy). Dropping a tensor
that is still needed is paid at once: its later refetch, and its store where no copy exists yet. A
fetch is then free when it happens, so of two states at one price the one that holds less is as good.

States are taken by what was paid plus what must still be paid (`step_bounds`), so the first complete one is
optimal. Four things keep them few. Of tensors that can be exchanged without a difference, such as the
operands of the same concatenations, one is evicted first. Of others those stay that are read first. Operators
that only take up room wait until right before a reader of their result (`contraction`, `late_operators`). And
safe chains run without a choice.

Read first. Let two states with the same operators done differ in that one holds v where the other holds w: v
is read once more, w never before that in any order, v is no larger than w and no dearer to drop. Then the
one that holds v is as good, if it cost no more. It can go on as the other does: v stays where w does, and is
dropped when w is. Once v has been read, which the other fetched for that, w is out at no further cost until
it is read, whatever becomes of it in the other. For several such pairs the same holds.

Safe chains. Let operators c_1 .. c_k be ready one after the other, each reading a result of the one before,
fit without evictions, and leave resident: of what was resident before them all but K, and in addition W, all
written by c_k, of no more bytes than K. At any point of a plan that goes on differently, some c_1 .. c_j are
done; let L_j be the tensors of K, and of those that live only inside the chain, that can be resident there.
Suppose that for every j < k and every choice of tensors to drop, the rest of L_j has the bytes of W or more,
or the dropped ones cost as much as dropping W. Then some optimal plan runs the chain first: take an optimal
plan, move the chain to its front, and keep every other tensor as long as it was. Where a part of L_j stays
that is as large as W, W takes its room. Where it does not, W stays out from the end of the chain to its
next use, which is after c_k in the old plan too, and costs no more than what the old plan dropped. A gap
between uses of a tensor that the chain reads too is now the union of old ones, or a later part of one: it is
dropped only where one of those was. Where the result of an operator took over a block it still can, since
no operator is left to read the input there that was not left before. No chain ends in a late operator, and
none runs while one waits for its reader: what runs between the two does not change then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import numpy.typing as npt

from accel.schedule._atomic import step_bounds as bounds
from accel.schedule._atomic.contraction import contracted
from accel.schedule._atomic.late_operators import late_operators, late_targets
from accel.schedule._instance import Instance
from accel.schedule._kernels import search as kernels
from accel.schedule._kernels import search_moves as moves
from accel.schedule._residency import Residency, all_gaps

_BUDGET = 1 << 16  # eviction sets and comparisons of states between two looks at the clock
_IS_EXCHANGED = True  # whether those tensors stay that are read first
_PATIENCE = 1 << 17  # of them, for one state
_CHAIN_LIMIT = moves.MAX_CHAIN
_MAX_POOL_BYTES = 1 << 30  # the search ends as if out of time when its states take more


@dataclass(frozen=True, slots=True)
class Relaxed:
    """Outcome of a capacity model: no plan has less than `bound` units of non-compulsory traffic.

    `residency` is the best one found below the upper limit of the call, if any.
    """

    bound: int
    residency: Residency | None


def search(instance: Instance, *, upper: int, deadline_s: float) -> Relaxed:
    """Least non-compulsory traffic below `upper` over all orders and residencies.

    Parameters
    ----------
    upper
        Units; only cheaper residencies are looked for.
    deadline_s
        Reading of `time.perf_counter` at which to stop with the bound reached.
    """
    smaller = contracted(instance)
    steps = bounds.step_bounds(smaller.instance, deadline_s=deadline_s)
    numbering = range(len(smaller.instance.operators))
    found = _search(smaller.instance, steps, numbering, upper=upper, deadline_s=deadline_s)
    return Relaxed(found.bound, None if found.residency is None else smaller.expand(found.residency))


def optimal_residencies(
    instance: Instance, optimum: int, *, tries: int, seed: int, deadline_s: float
) -> Iterator[Residency]:
    """Different residencies of `optimum` units, the least there is: other orders, other kept tensors.

    Every try numbers the operators anew, which decides between equally good ways.

    Parameters
    ----------
    tries
        Searches at most.
    deadline_s
        Reading of `time.perf_counter` after which none is looked for.
    """
    smaller = contracted(instance)
    steps = bounds.step_bounds(smaller.instance, deadline_s=deadline_s)
    random = np.random.default_rng(seed)
    seen: set[tuple[tuple[int, ...], frozenset[tuple[int, int]]]] = set()
    for k in range(tries):
        n = len(smaller.instance.operators)
        numbering = [int(i) for i in random.permutation(n)] if k else range(n)
        outcome = _search(smaller.instance, steps, numbering, upper=optimum + 1, deadline_s=deadline_s)
        found = outcome.residency
        if found is not None and (found.order, found.kept) not in seen:
            seen.add((found.order, found.kept))
            yield smaller.expand(found)
        if perf_counter() > deadline_s:
            return


def _search(
    instance: Instance,
    steps: Sequence[bounds.StepBound],
    numbering: Sequence[int],
    *,
    upper: int,
    deadline_s: float,
) -> Relaxed:
    """Search with operators numbered as in `numbering`."""
    bound = sum(step.units for step in steps)
    if bound >= upper:
        return Relaxed(upper, None)
    arrays = _Arrays(instance, steps, numbering)
    pool = arrays.pool(bound)
    counts = np.array([1, 1, 1, bound, -1, 0], np.int64)
    patience = _PATIENCE
    while counts[2]:
        if perf_counter() > deadline_s or sum(part.nbytes for part in pool) > _MAX_POOL_BYTES:
            return Relaxed(int(counts[3]), None)
        pool = kernels.search_states(arrays.problem, pool, counts, _BUDGET, patience, upper)
        if counts[4] >= 0:
            return Relaxed(int(counts[3]), arrays.residency(pool, int(counts[4])))
        patience <<= int(counts[5])
    return Relaxed(upper, None)


class _Arrays:
    """An instance as arrays, its operators renumbered; only tensors that can stay anywhere take part."""

    def __init__(
        self, instance: Instance, steps: Sequence[bounds.StepBound], numbering: Sequence[int]
    ) -> None:
        self._instance = instance
        self._operators = tuple(numbering)
        at = {i: k for k, i in enumerate(self._operators)}
        made_by, consumers = instance.producer, instance.consumers
        self._tensors = tuple(
            v for v, readers in enumerate(consumers) if len(readers) + (made_by[v] is not None) > 1
        )
        index = {v: k for k, v in enumerate(self._tensors)}
        before = [[at[p] for p in sorted(instance.after[i])] for i in self._operators]
        following: list[list[int]] = [[] for _ in before]
        for i, waits in enumerate(before):
            for p in waits:
                following[p].append(i)
        over = [[index.get(v, -1) for v in instance.in_place[i]] for i in self._operators]
        taken = {v for row in over for v in row}
        late = late_operators(instance)
        targets = late_targets(instance, late)
        needed = [0] * len(self._operators)
        earlier = [
            1 << k | sum(1 << at[p] for p in range(len(at)) if instance.ancestors[i] >> p & 1)
            for k, i in enumerate(self._operators)
        ]
        for i in {c for found in targets for c in found}:
            waiting = {j for j in late if i in targets[j]}
            needed[at[i]] = earlier[at[i]] & ~sum(1 << at[j] for j in (*waiting, i))
        self._free_copy = np.array([instance.always_backed[v] for v in self._tensors], np.bool_)
        self.problem = moves.Problem(
            instance.capacity,
            _CHAIN_LIMIT,
            *_flat(before),
            *_flat(following),
            *_flat([[index[v] for v in instance.touched(i) if v in index] for i in self._operators]),
            *_flat([sorted(at[i] for i in consumers[v]) for v in self._tensors]),
            _integers(instance.size[v] for v in self._tensors),
            _integers(-1 if (maker := made_by[v]) is None else at[maker] for v in self._tensors),
            self._free_copy,
            np.array([k not in taken for k in range(len(index))], np.bool_),
            _integers(instance.working_set[i] for i in self._operators),
            _integers(sum(instance.size[v] for v in instance.writes[i][:1]) for i in self._operators),
            *_flat(over),
            np.array([i in late for i in self._operators], np.bool_),
            *_flat([[at[c] for c in targets[i]] for i in self._operators]),
            _rows(earlier if _IS_EXCHANGED else [0] * len(earlier)),
            _rows(needed),
            _integers(at[step.operator] for step in steps),
            _integers(step.units for step in steps),
            *_flat([[index[v] for v in step.share] for step in steps]),
            _integers(units for step in steps for units in step.share.values()),
        )

    def pool(self, bound: int) -> kernels.Pool:
        """Pool of the one state in which nothing has run."""
        rows = 1024
        n_words, words = (-(-max(len(found), 1) // 64) for found in (self._operators, self._tensors))
        pool = kernels.Pool(
            done=np.zeros((rows, n_words), np.uint64),
            first_of=np.zeros(rows, np.int64),
            table=np.full(4 * rows, -1, np.int64),
            group=np.zeros(rows, np.int64),
            resident=np.zeros((rows, words), np.uint64),
            backed=np.zeros((rows, words), np.uint64),
            evicted=np.zeros((rows, words), np.uint64),
            cost=np.zeros(rows, np.int64),
            units=np.zeros(rows, np.int64),
            parent=np.full(rows, -1, np.int64),
            operator=np.full(rows, -1, np.int64),
            older=np.full(rows, -1, np.int64),
            dead=np.zeros(rows, np.bool_),
            keys=np.full(rows, bound, np.int64),
            marks=np.full(rows, len(self._operators) << 32, np.int64),
        )
        for k in np.flatnonzero(self._free_copy):
            pool.backed[0, k >> 6] |= np.uint64(1) << np.uint64(k & 63)
        return pool

    def residency(self, pool: kernels.Pool, state: int) -> Residency:
        """Order and kept gaps on the way to `state`, by running its operators again."""
        p, instance = self.problem, self._instance
        way: list[int] = []
        while pool.parent[state] >= 0:
            way.append(state)
            state = int(pool.parent[state])
        path, ready = (np.empty(len(self._operators) + 1, np.int64) for _ in range(2))
        trail = np.empty((moves.MAX_CHAIN + 1, pool.resident.shape[1]), np.uint64)
        chain, held = np.empty(moves.MAX_CHAIN, np.int64), np.empty(moves.MAX_DROPPABLE, np.int64)
        order: list[int] = []
        last_use: dict[int, int] = {}
        dropped: set[tuple[int, int]] = set()
        for s in reversed(way):
            start, first = int(pool.parent[s]), int(pool.operator[s])
            evicted = [k for k in range(len(self._tensors)) if moves.has(pool.evicted[s], k)]
            dropped.update((self._tensors[k], last_use[self._tensors[k]]) for k in evicted)
            done = pool.done[pool.group[start]].copy()
            count = moves.list_ready(done, ready, p.before_at, p.before)
            resident = pool.resident[start] & ~pool.evicted[s]
            backed = pool.backed[start] | pool.evicted[s]
            units = int(pool.units[start]) - sum(int(p.size[k]) for k in evicted)
            units += moves.run_operator(
                first, done, resident, p.touched_at, p.touched, p.size, p.readers_at, p.readers
            )
            count = moves.update_ready(first, done, ready, count, p.before_at, p.before, p.next_at, p.next)
            ran = 0
            if not p.late[first]:
                _, _, ran = moves.run_safe_chains(
                    p, done, resident, backed, units, ready, count, path, trail, chain, held
                )
            for k in (first, *path[:ran]):
                i = self._operators[k]
                last_use.update(dict.fromkeys(instance.touched(i), len(order)))
                order.append(i)
        return Residency(instance, tuple(order), all_gaps(instance, order) - dropped)


def _rows(sets: Sequence[int]) -> npt.NDArray[np.uint64]:
    """Bit sets as rows of words, one set per operator."""
    words = -(-max(len(sets), 1) // 64)
    low = (1 << 64) - 1
    rows = [[found >> 64 * w & low for w in range(words)] for found in sets]
    return np.array(rows, np.uint64).reshape(len(sets), words)


def _integers(values: Iterator[int]) -> npt.NDArray[np.int64]:
    return np.fromiter(values, np.int64)


def _flat(rows: Sequence[Sequence[int]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Bounds of the rows, and their items one after the other."""
    ends = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return ends, _integers(item for row in rows for item in row)
