"""Exact order and residency by shortest path over machine states, placement left out.

A state is (executed operators, resident tensors, tensors with an off-chip copy). Dropping a tensor
that is still needed is paid at once: its later refetch, and its store where no copy exists yet. A
fetch is then free when it happens, so of two states at one price the one that holds less is as good,
and few states survive: tens to thousands for networks of practical size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from time import perf_counter

from accel.schedule._instance import Instance
from accel.schedule._residency import Residency, all_gaps


@dataclass(frozen=True, slots=True)
class Relaxed:
    """Outcome of a capacity model: no plan has less than `bound` units of non-compulsory traffic.

    `residency` is the best one found below the upper limit of the call, if any.
    """

    bound: int
    residency: Residency | None


@dataclass(frozen=True, slots=True)
class _State:
    """Bit masks over operators (executed) and tensors, the units paid, and the way here."""

    executed: int
    resident: int
    backed: int
    cost: int
    operator: int
    evicted: int
    previous: _State | None


def search(instance: Instance, *, upper: int, deadline_s: float) -> Relaxed:
    """Least non-compulsory traffic below `upper` over all orders and residencies.

    Parameters
    ----------
    upper
        Units; only cheaper residencies are looked for.
    deadline_s
        Reading of `time.perf_counter` at which to stop with the bound reached.
    """
    moves = _Moves(instance)
    everything = (1 << len(instance.operators)) - 1
    queue = [(0, 0, 0, _State(0, 0, moves.always_backed, 0, -1, 0, None))]
    settled: dict[int, list[_State]] = {}
    serial = 0  # makes the order of equal entries, and with it the plan, reproducible
    while queue:
        cost, _, _, state = heappop(queue)
        if state.executed == everything:
            return Relaxed(cost, _residency(instance, state))
        if perf_counter() > deadline_s:
            return Relaxed(cost, None)
        rivals = settled.setdefault(state.executed, [])
        if any(moves.at_least_as_good(rival, state) for rival in rivals):
            continue
        rivals.append(state)
        for successor in moves.successors(state):
            if successor.cost < upper:
                serial += 1
                depth = successor.executed.bit_count()
                heappush(queue, (successor.cost, -depth, serial, successor))
    return Relaxed(upper, None)


class _Moves:
    """Transitions between states, on bit masks."""

    def __init__(self, instance: Instance) -> None:
        self._size = instance.size
        self._ancestors = instance.ancestors
        self._touched = [_mask(instance.touched(i)) for i in range(len(instance.operators))]
        self._readers = [_mask(found) for found in instance.consumers]
        self._room = [instance.capacity - used for used in instance.working_set]
        self._alive: dict[int, int] = {}
        self._sums: dict[int, int] = {}
        self.always_backed = _mask(v for v, backed in enumerate(instance.always_backed) if backed)

    def successors(self, state: _State) -> Iterator[_State]:
        """States after one more operator, for every choice of operator and of least evictions."""
        waiting = ~state.executed
        for i, ancestors in enumerate(self._ancestors):
            if not waiting >> i & 1 or ancestors & waiting:
                continue
            executed = state.executed | 1 << i
            needed = self._needed(executed)
            others = state.resident & ~self._touched[i]
            for evicted in self._least_evictions(others, self._units(others) - self._room[i]):
                yield _State(
                    executed,
                    (others & ~evicted | self._touched[i]) & needed,
                    (state.backed | evicted) & needed | self.always_backed,
                    state.cost + self._units(evicted) + self._units(evicted & ~state.backed),
                    i,
                    evicted,
                    state,
                )

    def at_least_as_good(self, rival: _State, state: _State) -> bool:
        """Whether `rival`, with the same operators executed, can become `state` at no higher price.

        It drops what only it holds and stores what only `state` has stored; what only `state` holds
        it fetches, and has paid for that already.
        """
        extra = rival.resident & ~state.resident
        unstored = (extra | rival.resident & state.backed) & ~rival.backed
        return rival.cost + self._units(extra) + self._units(unstored) <= state.cost

    def _least_evictions(self, pool: int, need: int) -> Iterator[int]:
        """Subsets of `pool` of at least `need` units of which no tensor could stay."""
        if need <= 0:
            yield 0
            return
        items = sorted(_bits(pool), key=lambda v: -self._size[v])
        left = [0] * (len(items) + 1)
        for k in range(len(items) - 1, -1, -1):
            left[k] = left[k + 1] + self._size[items[k]]
        # Sizes fall, so the tensor that completes a set is its smallest and no other can stay either.
        stack = [(0, 0, need)]
        while stack:
            k, chosen, missing = stack.pop()
            if left[k] < missing:
                continue
            stack.append((k + 1, chosen, missing))
            chosen |= 1 << items[k]
            if self._size[items[k]] >= missing:
                yield chosen
            else:
                stack.append((k + 1, chosen, missing - self._size[items[k]]))

    def _needed(self, executed: int) -> int:
        """Tensors that an operator not yet executed reads."""
        if (found := self._alive.get(executed)) is None:
            found = _mask(v for v, readers in enumerate(self._readers) if readers & ~executed)
            self._alive[executed] = found
        return found

    def _units(self, tensors: int) -> int:
        if (found := self._sums.get(tensors)) is None:
            found = self._sums[tensors] = sum(self._size[v] for v in _bits(tensors))
        return found


def _residency(instance: Instance, state: _State) -> Residency:
    """Order and kept gaps on the way to `state`."""
    path: list[_State] = []
    while state.previous is not None:
        path.append(state)
        state = state.previous
    path.reverse()
    order = tuple(step.operator for step in path)
    dropped: set[tuple[int, int]] = set()
    last_use: dict[int, int] = {}
    for t, step in enumerate(path):
        dropped.update((v, last_use[v]) for v in _bits(step.evicted))
        last_use.update((v, t) for v in instance.touched(step.operator))
    return Residency(instance, order, all_gaps(instance, order) - dropped)


def _mask(indices: Iterator[int] | tuple[int, ...]) -> int:
    mask = 0
    for k in indices:
        mask |= 1 << k
    return mask


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
