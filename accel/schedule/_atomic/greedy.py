"""A plan without a solver, so that there is one whatever the time limit."""

from __future__ import annotations

from accel.schedule._instance import Instance
from accel.schedule._placement import Placed, place_or_shed
from accel.schedule._residency import Residency, all_gaps
from accel.schedule._running import room_of


def greedy(instance: Instance) -> Placed:
    """Cheapest of the plans that furthest-next-use replacement gives for a few orders."""
    orders = {tuple(range(len(instance.operators)))}  # the instance lists them in an order that runs
    if room_of(instance, order := _least_live_order(instance)) <= instance.capacity:
        orders.add(order)
    plans = [place_or_shed(_replace_furthest(instance, order)) for order in sorted(orders)]
    return min(plans, key=lambda plan: plan.residency.cost)


def _least_live_order(instance: Instance) -> tuple[int, ...]:
    """Take always the ready operator after which the fewest units are still needed."""
    order: list[int] = []
    executed = 0
    live: set[int] = set()
    while len(order) < len(instance.operators):
        candidates: list[tuple[int, int, set[int]]] = []
        for i, ancestors in enumerate(instance.ancestors):
            if executed >> i & 1 or ancestors & ~executed:
                continue
            done = executed | 1 << i
            after = {
                v
                for v in live.union(instance.touched(i))
                if any(not done >> c & 1 for c in instance.consumers[v])
            }
            candidates.append((sum(instance.size[v] for v in after), i, after))
        _, i, live = min(candidates, key=lambda candidate: candidate[:2])
        executed |= 1 << i
        order.append(i)
    return tuple(order)


def _replace_furthest(instance: Instance, order: tuple[int, ...]) -> Residency:
    """Keep what fits; where an operator needs room, drop what is used again last."""
    uses = instance.uses(order)
    dropped: set[tuple[int, int]] = set()
    resident: dict[int, int] = {}  # tensor that will be read again -> its last use so far
    for t, i in enumerate(order):
        touched = instance.touched(i)
        others = {v: last for v, last in resident.items() if v not in touched}
        room = instance.capacity - instance.working_set[i]
        if any(uses[u][-1] == t for u in instance.in_place[i]):
            room += instance.size[instance.writes[i][0]]
        excess = sum(instance.size[v] for v in others) - room
        for v in sorted(others, key=lambda v: (-next(u for u in uses[v] if u > t), -instance.size[v], v)):
            if excess <= 0:
                break
            dropped.add((v, others.pop(v)))
            excess -= instance.size[v]
        resident = others | {v: t for v in touched if uses[v][-1] > t}
    return Residency(instance, order, all_gaps(instance, order) - dropped)
