"""Order and residency of large graphs: a search that keeps the best states of each level.

The states are those of the exact search: executed operators, resident tensors, tensors stored off chip.
Here they advance by number of executed operators, and only the best go on from each number, by cost plus
an estimate of what is still to pay. With an unlimited width nothing is left out and the result is exact.
A part of a graph is searched in the same way: operators that follow each other in some order, from given
states to the least cost of arriving at another.

References
----------
.. [COSMA] Y. Li, A. Gupta, S. Malik, "COSMA", arXiv 2311.18246, 2023: the problem.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accel.schedule._instance import Instance
from accel.schedule._kernels import beam as kernels
from accel.schedule._residency import Residency, all_gaps

_UNLIMITED = 1 << 60
_UNLIMITED_ROWS = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One operator, and the tensors dropped before it runs."""

    operator: int
    dropped: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is in the scratchpad, and what has been stored off chip, among tensors still to be read."""

    resident: frozenset[int] = frozenset()
    stored: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How thorough a search is.

    Attributes
    ----------
    width, most_per_set, most_drops
        States that go on from each level, those of them with the same operators executed, and choices
        of what to drop for an operator; 0: unlimited.
    is_proved
        Run operators at once only where that is proved to lose nothing; else wherever they leave no
        more units behind than they found.
    most_nodes
        Give up after so many states; 0: never.
    progress
        0: states are compared that have as many operators executed; the larger, the more operators
        count that use much of the scratchpad.
    foresight
        Hundredths of the price of making room now for the largest operator to come, added to the rank.
    jitter, seed
        Units of noise on the rank of a state.
    """

    width: int = 400
    most_per_set: int = 40
    most_drops: int = 6
    is_proved: bool = False
    progress: float = 0.0
    most_nodes: int = 0
    foresight: int = 0
    jitter: int = 0
    seed: int = 0


EXACT = Options(width=0, most_per_set=0, most_drops=0, is_proved=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Cheapest way found through a part: its cost in units, and what no way undercuts.

    The bound does not count the way to a target. It is 0 unless the options are proved to lose nothing.
    """

    cost: int
    moves: tuple[Move, ...]
    bound: int


class Part:
    """Operators to be run between two states, as arrays for the kernels.

    Parameters
    ----------
    operators
        Every operator they need is among them or in `executed`.
    executed
        Operators that have run before.
    start
        State before the first of them.
    is_alone
        As if there were no other operators: a relaxation.
    """

    def __init__(
        self,
        instance: Instance,
        operators: Sequence[int],
        *,
        executed: Collection[int] = (),
        start: State | None = None,
        is_alone: bool = False,
    ) -> None:
        self._instance = instance
        self._operators = tuple(operators)
        self._start = start = start or State()
        inside = {i: k for k, i in enumerate(self._operators)}
        past = frozenset(executed)
        self._tensors = tuple(
            dict.fromkeys(
                [*sorted(start.resident | start.stored), *(v for i in operators for v in instance.touched(i))]
            )
        )
        self._local = local = {v: k for k, v in enumerate(self._tensors)}
        users = [[inside[c] for c in instance.consumers[v] if c in inside] for v in self._tensors]
        kept_on = [
            not is_alone and any(c not in inside and c not in past for c in instance.consumers[v])
            for v in self._tensors
        ]
        after = [sorted(inside[p] for p in instance.after[i] if p in inside) for i in operators]
        follow: list[list[int]] = [[] for _ in operators]
        for k, before in enumerate(after):
            for p in before:
                follow[p].append(k)
        self._reads = _lists([local[v] for v in instance.reads[i]] for i in operators)
        self._writes = _lists([local[v] for v in instance.writes[i]] for i in operators)
        self._after, self._next, self._users = _lists(after), _lists(follow), _lists(users)
        self._overwritten = _lists([local[v] for v in instance.in_place[i]] for i in operators)
        self._is_kept_on = np.array(kept_on, np.bool_)
        self._has_copy = np.array([instance.always_backed[v] for v in self._tensors], np.bool_)
        self._size = np.array([instance.size[v] for v in self._tensors], np.int64)
        self._room = np.array([instance.capacity - instance.working_set[i] for i in operators], np.int64)
        self._apart = _apart(instance, self._tensors, inside)
        self._use = np.array([instance.working_set[i] for i in operators], np.float64)
        self._across = self._passed(instance, inside)

    def search(
        self,
        options: Options,
        *,
        target: State | None = None,
        upper: int = _UNLIMITED,
        floor: int = -1,
        stop: NDArray[np.int64] | None = None,
    ) -> Found | None:
        """Least cost below `upper` of running all operators and arriving at `target`, if any was found.

        Parameters
        ----------
        target
            The state to become at the end, by drops and stores at their price; anything if absent.
        floor
            Give up once a state is left out that this or less may be the cost of.
        stop
            One number; once it is set, the search comes to a quick and poor end.
        """
        row = self._row(self._start)
        last, outcome, nodes, dropped, left_out = kernels.search_levels(
            *self._reads,
            *self._writes,
            *self._after,
            *self._next,
            *self._users,
            *self._overwritten,
            *self._apart,
            self._across,
            self._is_kept_on,
            self._has_copy,
            self._size,
            self._room,
            1 + np.rint(options.progress * self._use / max(1.0, self._use.mean())).astype(np.int64),
            row[None],
            np.zeros(1, np.int64),
            options.width or _UNLIMITED_ROWS,
            options.most_per_set or _UNLIMITED_ROWS,
            options.most_drops,
            options.is_proved,
            options.most_nodes,
            floor,
            options.foresight,
            upper,
            options.jitter,
            options.seed,
            np.zeros(1, np.int64) if stop is None else stop,
        )
        ends = [
            (int(cost) + (0 if target is None else self._conversion(state, target)), k)
            for k, (state, (cost, _)) in enumerate(zip(last, outcome, strict=True))
        ]
        if not ends or min(ends)[0] >= upper:
            return None
        cost, best = min(ends)
        path: list[int] = []
        node = int(outcome[best, 1])
        while node >= 0 and nodes[node, 1] >= 0:
            path.append(node)
            node = int(nodes[node, 0])
        path.reverse()
        drops = [dropped[nodes[k, 2] : nodes[k, 2] + nodes[k, 3]] for k in path]
        drops_at = np.concatenate(([0], np.cumsum([d.size for d in drops]))).astype(np.int64)
        order, origin = kernels.replay(
            *self._reads,
            *self._writes,
            *self._after,
            *self._next,
            *self._users,
            *self._overwritten,
            self._is_kept_on,
            self._has_copy,
            self._size,
            self._room,
            row,
            options.is_proved,
            nodes[path, 1].astype(np.int64),
            drops_at,
            np.concatenate([np.zeros(0, np.int64), *drops]),
        )
        moves = tuple(
            Move(
                operator=self._operators[i],
                dropped=tuple(self._tensors[v] for v in drops[k]) if k >= 0 else (),
            )
            for i, k in zip(order.tolist(), origin.tolist(), strict=True)
        )
        is_bound = options.is_proved and not options.foresight and not options.jitter
        return Found(cost=cost, moves=moves, bound=min(cost, int(left_out)) if is_bound else 0)

    def _passed(self, instance: Instance, inside: dict[int, int]) -> NDArray[np.uint64]:
        """By tensor, the operators with no room for it of which one of its readers needs the result."""
        op_words = -(-len(self._operators) // 64)
        found = np.zeros((len(self._tensors), op_words), np.uint64)
        apart = {self._tensors[k] for k in (*self._apart[0], *self._apart[1]) if k >= 0}
        least = _least_working_sets(instance)
        room = [instance.capacity - least[i] for i in self._operators]
        for k, v in enumerate(self._tensors):
            if v in apart or not any(beside < instance.size[v] for beside in room):
                continue
            before = 0
            for c in instance.consumers[v]:
                before |= instance.ancestors[c]
            found[k] = _bits(
                [
                    j
                    for i, j in inside.items()
                    if before >> i & 1 and room[j] < instance.size[v] and v not in instance.touched(i)
                ],
                op_words,
            )
            if (made := instance.producer[v]) is not None and made in inside:
                # What has run before the tensor exists does not matter.
                ancestors = instance.ancestors[made]
                found[k] &= ~_bits([j for i, j in inside.items() if ancestors >> i & 1], op_words)
        return found

    def _row(self, state: State) -> NDArray[np.uint64]:
        """State as the bits of the kernels."""
        n, m = len(self._operators), len(self._tensors)
        op_words, tensor_words = -(-n // 64), -(-m // 64)
        before = self._after[0]
        ready = [k for k in range(n) if before[k] == before[k + 1]]
        stored = [self._local[v] for v in state.stored if not self._instance.always_backed[v]]
        return np.concatenate(
            [
                np.zeros(op_words, np.uint64),
                _bits(ready, op_words),
                _bits([self._local[v] for v in state.resident], tensor_words),
                _bits(stored, tensor_words),
            ]
        )

    def _conversion(self, row: NDArray[np.uint64], target: State) -> int:
        """Units it costs to turn the state `row` after all operators into `target`."""
        op_words, tensor_words = -(-len(self._operators) // 64), -(-len(self._tensors) // 64)
        resident = set(_members(row[2 * op_words : 2 * op_words + tensor_words]))
        stored = set(_members(row[2 * op_words + tensor_words :]))
        units = 0
        for v in resident:
            is_extra = self._tensors[v] not in target.resident
            is_unstored = (is_extra or self._tensors[v] in target.stored) and v not in stored
            units += int(self._size[v]) * (is_extra + (is_unstored and not self._has_copy[v]))
        return units


def residency_of(instance: Instance, moves: Sequence[Move]) -> Residency:
    """Order and kept gaps of a complete plan."""
    order = tuple(move.operator for move in moves)
    dropped: set[tuple[int, int]] = set()
    last_use: dict[int, int] = {}
    for t, move in enumerate(moves):
        dropped.update((v, last_use[v]) for v in move.dropped)
        last_use.update((v, t) for v in instance.touched(move.operator))
    return Residency(instance, order, all_gaps(instance, order) - dropped)


def _apart(
    instance: Instance, tensors: Sequence[int], inside: dict[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tensors that cannot stay from one of their readers to the next; by use, the result in question or -1.

    After reader ``c`` of ``v`` its result ``r`` is read next, by an operator that has no room for ``v``,
    and no other reader of ``v`` has room for ``r``. So one of the two leaves, unless ``c`` is the last.
    A result stands for one tensor only, and is none of these tensors itself, so that no transfer of it
    counts twice: large tensors choose first.
    """
    local = {v: k for k, v in enumerate(tensors)}
    least = _least_working_sets(instance)
    chosen: dict[tuple[int, int], int] = {}
    found: set[int] = set()
    results: set[int] = set()
    for v in sorted(tensors, key=lambda v: (-instance.size[v], v)):
        if v in results:
            continue
        for c in instance.consumers[v]:
            others = [other for other in instance.consumers[v] if other != c]
            if c not in inside or not others:
                continue
            fitting = [
                r
                for r in instance.writes[c]
                if r not in results
                and r not in found
                and any(
                    v not in instance.touched(d) and instance.size[v] + least[d] > instance.capacity
                    for d in instance.consumers[r]
                    if d in inside
                )
                and not any(
                    r in instance.touched(o) or least[o] + instance.size[r] <= instance.capacity
                    for o in others
                )
            ]
            if fitting:
                chosen[v, c] = max(fitting, key=lambda r: (instance.size[r], r))
        if any((v, c) in chosen for c in instance.consumers[v]):
            found.add(v)
            results.update(chosen[v, c] for c in instance.consumers[v] if (v, c) in chosen)
    uses = [(v, c) for v in tensors for c in instance.consumers[v] if c in inside]
    by_use = [local[chosen[use]] if use in chosen else -1 for use in uses]
    return np.array([local[v] for v in tensors if v in found], np.int64), np.array(by_use, np.int64)


def _least_working_sets(instance: Instance) -> tuple[int, ...]:
    """Units in use while an operator runs, should it write in place."""
    return tuple(
        units - (instance.size[instance.writes[i][0]] if instance.in_place[i] else 0)
        for i, units in enumerate(instance.working_set)
    )


def _lists(lists: Iterable[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start of each list, and one for the end, and all members."""
    held = list(lists)
    at = np.concatenate(([0], np.cumsum([len(found) for found in held]))).astype(np.int64)
    return at, np.array([k for found in held for k in found], np.int64)


def _bits(members: Sequence[int], words: int) -> NDArray[np.uint64]:
    row = [0] * words
    for k in members:
        row[k >> 6] |= 1 << (k & 63)
    return np.array(row, np.uint64)


def _members(row: NDArray[np.uint64]) -> Iterator[int]:
    for word, bits in enumerate(row.tolist()):
        while bits:
            low = bits & -bits
            yield 64 * word + low.bit_length() - 1
            bits ^= low
