"""Plans of large graphs, made better part by part, and placed.

A plan is cut open for some tens of consecutive operators, which are searched again with everything
outside fixed: the state before them is given, and the state after them has to be arrived at. A found
part that costs less takes the place of the old one. After each pass the replacement of the whole order
is decided anew, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from accel.schedule._atomic.beam import EXACT, Move, Options, Part, State, residency_of
from accel.schedule._atomic.contraction import contracted
from accel.schedule._atomic.gap_model import replace_optimally, room_by_step
from accel.schedule._clock import stop_at
from accel.schedule._instance import Instance
from accel.schedule._placement import Placed, Rectangles, rectangles
from accel.schedule._residency import Residency

#: Searches of the whole graph, two at a time, from quick to thorough.
_SEARCHES = (
    Options(width=20, most_per_set=5, most_drops=3, foresight=100),
    Options(width=20, most_per_set=5, most_drops=3, foresight=30),
    Options(width=60, most_per_set=3, most_drops=3, foresight=100),
    Options(width=60, most_per_set=3, most_drops=3, foresight=30, progress=2.0),
    Options(width=100, most_per_set=3, most_drops=3, foresight=100, progress=2.0),
    Options(width=100, most_per_set=10, most_drops=4, progress=1.0),
    Options(width=200, most_per_set=20, most_drops=12, is_proved=True, most_nodes=50_000),
    Options(width=150, most_per_set=20, most_drops=6, foresight=100, progress=2.0),
)
#: Lengths of windows, and how each is searched.
_WINDOWS = (
    (30, Options(width=100, most_per_set=10, most_drops=6)),
    (60, Options(width=60, most_per_set=5, most_drops=4, foresight=30)),
    (45, Options(width=100, most_per_set=10, most_drops=4, foresight=50, progress=1.0)),
)
_MOST_PASSES = 12


def improve_large(
    instance: Instance, start: Residency, *, deadline_s: float, seed: int, lower: int = 0
) -> Residency:
    """Best residency found, placement left out; never worse than `start`.

    The result depends on `seed` alone unless the deadline is met: then the search under way ends early.

    Parameters
    ----------
    deadline_s
        Reading of `time.perf_counter` at which to stop.
    lower
        Units; a residency that costs no more is good enough.
    """
    smaller = contracted(instance)
    first = smaller.contract(start)
    best = smaller.expand(first) if first.cost < start.cost else start
    for found in _candidates(smaller.instance, first, deadline_s=deadline_s, seed=seed, lower=lower):
        best = smaller.expand(found)
    return best


def _candidates(
    instance: Instance, best: Residency, *, deadline_s: float, seed: int, lower: int
) -> Iterator[Residency]:
    """Residencies, each better than the one before."""
    if not instance.operators:
        return
    part = Part(instance, range(len(instance.operators)))
    with stop_at(deadline_s) as stop, ThreadPoolExecutor(2) as pool:
        for k in range(0, len(_SEARCHES), 2):
            if best.cost <= lower or stop[0]:
                return
            upper = best.cost
            pair = [replace(options, seed=seed) for options in _SEARCHES[k : k + 2]]
            before = best.cost
            for found in pool.map(partial(part.search, upper=upper, stop=stop), pair):
                if found is not None and found.cost < best.cost:
                    best = residency_of(instance, found.moves)
                    best = _replaced(best, deadline_s)
            if best.cost < before:
                yield best
                lower = max(lower, lower_bound(instance, best.order, upper=best.cost, deadline_s=deadline_s))
        better = improve_by_windows(best, deadline_s=deadline_s, stop=stop, seed=seed, lower=lower)
        if better.cost < best.cost:
            yield better


def improve_by_windows(
    residency: Residency, *, deadline_s: float, stop: NDArray[np.int64], seed: int, lower: int = 0
) -> Residency:
    """Search windows of consecutive operators again until no length of them gains."""
    best = _replaced(residency, deadline_s)
    idle = 0
    for k in range(_MOST_PASSES):
        if idle == 2 * len(_WINDOWS) or best.cost <= lower or stop[0]:
            break
        length, options = _WINDOWS[k % len(_WINDOWS)]
        options = replace(options, seed=seed + k)
        # What leaves may leave at once after its use, or only where room runs out. The latter brings
        # decisions nearer to their cause.
        found = _pass(best, length, options, is_late=k // len(_WINDOWS) % 2 == 0, stop=stop)
        found = _replaced(found, deadline_s)
        idle = 0 if found.cost < best.cost else idle + 1
        if found.cost < best.cost:
            best = found
    return best


def lower_bound(
    instance: Instance, order: Sequence[int], *, upper: int, deadline_s: float, most_states: int = 20_000
) -> int:
    """Units that no residency of the graph undercuts, from its first operators alone.

    Other operators only add to what has to be held. The part taken grows until the bound reaches
    `upper`, or until so many states of a level have to be left out that the bound does not rise.

    Parameters
    ----------
    order
        Every prefix of it is a part that can run alone.
    upper
        Cost of a known residency.
    most_states
        Effort, as a number of states of one part. Those left out of a full level count with what they
        have cost and must still cost.
    """
    smaller = contracted(instance)
    instance, order = smaller.instance, smaller.contract_order(order)
    bound = 0
    n = len(order)
    options = replace(EXACT, width=2000, most_nodes=most_states)
    with stop_at(deadline_s) as stop:
        for count in sorted({*range(min(32, n), n, 32), n}):
            part = Part(instance, tuple(sorted(order[:count])), is_alone=True)
            found = part.search(options, upper=upper + 1, floor=bound, stop=stop)
            if found is None or stop[0]:
                break
            bound = max(bound, found.bound)
            if bound >= upper:
                break
    return bound


def place_adjusted(
    residency: Residency,
    place: Callable[[Residency], Placed | None],
    *,
    deadline_s: float,
    most_rounds: int = 200,
) -> Placed | None:
    """Place `residency`, or one with slightly less to hold where blocks find no room.

    Around a rectangle that finds no hole the capacity of the fullest step is lowered just below what is held
    there, and the replacement of the whole order is decided anew under those capacities.
    """
    instance = residency.instance
    capacity = np.full(len(residency.order), instance.capacity, np.int64)
    least = capacity - room_by_step(instance, residency.order)
    for _ in range(most_rounds):
        if (placed := place(residency)) is not None:
            return placed
        if perf_counter() > deadline_s:
            return None
        found = rectangles(residency)
        load = _load(found, len(residency.order))
        # Greedy placement may well succeed where the placer gave up: then the fullest steps are to blame.
        crowded = _without_hole(found, instance.capacity) or [int(np.argmax(found.size))]
        is_lower = False
        for r in crowded:
            steps = np.arange(found.start[r], found.end[r])
            steps = steps[np.minimum(load, capacity)[steps] > least[steps]]
            if steps.size:
                t = int(steps[np.argmax(load[steps])])
                capacity[t] = max(int(least[t]), min(int(capacity[t]), int(load[t])) - 1)
                is_lower = True
        if not is_lower:
            return None
        residency, _ = replace_optimally(instance, residency.order, deadline_s=deadline_s, capacity=capacity)
    return None


@dataclass(frozen=True, slots=True)
class _Trace:
    """Moves of a plan, and before each of them, and at the end, the state and the units paid."""

    moves: tuple[Move, ...]
    states: tuple[State, ...]
    paid: tuple[int, ...]


def _pass(
    residency: Residency, length: int, options: Options, *, is_late: bool, stop: NDArray[np.int64]
) -> Residency:
    """Search every window of `length` operators once, at steps of half of it."""
    instance = residency.instance
    trace = _traced(instance, _moves(residency, is_late=is_late))
    n = len(trace.moves)
    for first in range(0, max(1, n - length // 2), max(1, length // 2)):
        if stop[0]:
            break
        end = min(n, first + length)
        now = trace.paid[end] - trace.paid[first]
        if now == 0:
            continue
        order = [move.operator for move in trace.moves]
        part = Part(instance, order[first:end], executed=order[:first], start=trace.states[first])
        found = part.search(options, target=trace.states[end], upper=now, stop=stop)
        if found is None:
            continue
        held = _after(instance, frozenset(order[:end]), trace.states[first], found.moves)
        rest = list(trace.moves[end:])
        if rest:
            extra = tuple(sorted(held.resident - trace.states[end].resident))
            rest[0] = Move(
                operator=rest[0].operator, dropped=tuple(dict.fromkeys((*extra, *rest[0].dropped)))
            )
        moves = (*trace.moves[:first], *found.moves, *rest)
        trace = _traced(instance, _moves(residency_of(instance, moves), is_late=is_late))
    found_all = residency_of(instance, trace.moves)
    return found_all if found_all.cost < residency.cost else residency


def _moves(residency: Residency, *, is_late: bool) -> tuple[Move, ...]:
    """Operators with what is dropped before each: as soon as it may go, or once room runs out."""
    instance, order = residency.instance, residency.order
    uses = instance.uses(order)
    room = room_by_step(instance, order).tolist()
    resident: dict[int, int] = {}  # tensor that will be read again -> its next use
    leaving: set[int] = set()
    moves: list[Move] = []
    position = [0] * len(uses)
    for t, i in enumerate(order):
        touched = instance.touched(i)
        others = [v for v in resident if v not in touched]
        excess = sum(instance.size[v] for v in others) - room[t]
        dropped: list[int] = []
        for v in sorted(leaving, key=lambda v: (-resident[v], -instance.size[v], v)):
            if v in touched:
                # Another use comes before room runs out: it leaves in time, to pay as the plan does.
                dropped.append(v)
            elif not is_late or excess > 0:
                dropped.append(v)
                excess -= instance.size[v]
        for v in dropped:
            leaving.discard(v)
            del resident[v]
        moves.append(Move(operator=i, dropped=tuple(dropped)))
        for v in touched:
            position[v] += 1
            if position[v] < len(uses[v]):
                resident[v] = uses[v][position[v]]
                if (v, t) not in residency.kept:
                    leaving.add(v)
            else:
                resident.pop(v, None)
    return tuple(moves)


def _traced(instance: Instance, moves: tuple[Move, ...]) -> _Trace:
    waiting = [len(found) for found in instance.consumers]
    resident: set[int] = set()
    stored: set[int] = set()
    states = [State()]
    paid = [0]
    for move in moves:
        units = 0
        for v in move.dropped:
            if v in resident:
                resident.discard(v)
                units += instance.size[v]
                if not instance.always_backed[v] and v not in stored:
                    units += instance.size[v]
                    stored.add(v)
        for v in instance.reads[move.operator]:
            waiting[v] -= 1
        resident.update(instance.touched(move.operator))
        for v in instance.touched(move.operator):
            if not waiting[v]:
                resident.discard(v)
                stored.discard(v)
        states.append(State(resident=frozenset(resident), stored=frozenset(stored)))
        paid.append(paid[-1] + units)
    return _Trace(moves, tuple(states), tuple(paid))


def _after(instance: Instance, executed: frozenset[int], state: State, moves: Sequence[Move]) -> State:
    """State after `moves`, which leave `executed` behind."""
    resident, stored = set(state.resident), set(state.stored)
    for move in moves:
        resident.difference_update(move.dropped)
        stored.update(v for v in move.dropped if not instance.always_backed[v])
        resident.update(instance.touched(move.operator))
    needed = {v for v in resident | stored if any(c not in executed for c in instance.consumers[v])}
    return State(resident=frozenset(resident & needed), stored=frozenset(stored & needed))


def _replaced(residency: Residency, deadline_s: float) -> Residency:
    """Best replacement for the order, or `residency` itself where nothing better is found in time."""
    found, _ = replace_optimally(residency.instance, residency.order, deadline_s=deadline_s)
    return found if found.cost < residency.cost else residency


def _load(found: Rectangles, steps: int) -> NDArray[np.int64]:
    """Units held at each step."""
    change = np.zeros(steps + 1, np.int64)
    np.add.at(change, found.start, found.size)
    np.add.at(change, found.end, -found.size)
    return np.cumsum(change[:-1])


def _without_hole(found: Rectangles, capacity: int) -> list[int]:
    """Rectangles for which lowest-hole placement, large areas first, finds no room."""
    area = found.size * (found.end - found.start)
    low = np.full(area.size, -1, np.int64)
    failed: list[int] = []
    for r in np.lexsort((found.start, -area)).tolist():
        meets = (found.start < found.end[r]) & (found.end > found.start[r]) & (low >= 0)
        at = 0
        for other in sorted(np.flatnonzero(meets).tolist(), key=lambda k: int(low[k])):
            if low[other] - at >= found.size[r]:
                break
            at = max(at, int(low[other] + found.size[other]))
        if at + found.size[r] <= capacity:
            low[r] = at
        else:
            failed.append(r)
    return failed
