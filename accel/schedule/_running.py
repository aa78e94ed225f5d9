"""What room the operators need to run one after the other, each with its own tensors only.

An operator in place needs no room for its result where an input dies there: where all other readers of it
have run. So what an operator needs depends on what has run before, and never grows by it. To run whatever
fits is therefore no mistake, and the least room for all of them is found without search: always run the
ready operator that needs the least.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush

from accel.schedule._instance import Instance


@dataclass(frozen=True, slots=True)
class LeastRoom:
    """Units on which all operators can run, the operator that needs so many, and an order that does."""

    units: int
    operator: int | None
    order: tuple[int, ...]


def least_room(instance: Instance) -> LeastRoom:
    """Room in which the operators can run in some order; the capacity does not matter."""
    n = len(instance.operators)
    following: list[list[int]] = [[] for _ in range(n)]
    missing = [len(before) for before in instance.after]
    for i, before in enumerate(instance.after):
        for p in before:
            following[p].append(i)
    watchers: dict[int, set[int]] = {}  # operators in place that may take over what an operator reads
    for i, over in enumerate(instance.in_place):
        for v in over:
            for reader in instance.consumers[v]:
                watchers.setdefault(reader, set()).add(i)
    executed = 0
    order: list[int] = []
    units, largest = 0, None
    waiting = [(needed_units(instance, i, executed), i) for i in range(n) if not missing[i]]
    heapify(waiting)
    fitting: list[int] = []
    while len(order) < n:
        while waiting and (waiting[0][0] <= units or executed >> waiting[0][1] & 1):
            heappush(fitting, heappop(waiting)[1])
        if not fitting:
            units, largest = waiting[0]
            continue
        i = heappop(fitting)
        if executed >> i & 1:
            continue  # queued again when it came to need less
        executed |= 1 << i
        order.append(i)
        for j in following[i]:
            missing[j] -= 1
        eased = {j for j in watchers.get(i, ()) if not executed >> j & 1}
        for j in eased.union(following[i]):
            if not missing[j]:
                heappush(waiting, (needed_units(instance, j, executed), j))
    return LeastRoom(units, largest, tuple(order))


def needed_units(instance: Instance, i: int, executed: int) -> int:
    """Units in use while operator `i` runs after those of the bit mask `executed`."""
    done = executed | 1 << i
    is_over = any(all(done >> c & 1 for c in instance.consumers[v]) for v in instance.in_place[i])
    return instance.working_set[i] - (instance.size[instance.writes[i][0]] if is_over else 0)


def room_of(instance: Instance, order: Iterable[int]) -> int:
    """Units on which the operators can run in `order`."""
    executed = most = 0
    for i in order:
        most = max(most, needed_units(instance, i, executed))
        executed |= 1 << i
    return most


def in_an_order_that_runs(instance: Instance) -> Instance:
    """`instance`, with its operators listed in an order in which they can run, that of the file if it can.

    Raises
    ------
    ValueError
        They have no room in any order.
    """
    if room_of(instance, range(len(instance.operators))) <= instance.capacity:
        return instance
    least = least_room(instance)
    if least.units > instance.capacity:
        raise ValueError(f"{least.units} units are needed, got a capacity of {instance.capacity}")
    return _reordered(instance, least.order)


def _reordered(instance: Instance, order: tuple[int, ...]) -> Instance:
    position = {i: k for k, i in enumerate(order)}
    return replace(
        instance,
        operators=tuple(instance.operators[i] for i in order),
        reads=tuple(instance.reads[i] for i in order),
        writes=tuple(instance.writes[i] for i in order),
        after=tuple(frozenset(position[p] for p in instance.after[i]) for i in order),
        in_place=tuple(instance.in_place[i] for i in order),
    )
