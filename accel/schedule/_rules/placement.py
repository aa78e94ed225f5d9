"""Residency by a rule without addresses, then addresses for it: the offline kind of memory planner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from accel.schedule._instance import Instance
from accel.schedule._rules.replacement import Event, Replacement, replace_by_rule

ENTERING = ("load", "refetch", "allocate", "overwrite")


@dataclass(frozen=True, slots=True)
class Stay:
    """A tensor in memory from step `start` to `end`, both included."""

    tensor: int
    start: int
    end: int


def replace_and_place(
    instance: Instance, order: Sequence[int], replacement: Replacement
) -> tuple[Event, ...] | None:
    """Events of the address-free run of the largest budget whose stays can be placed largest first.

    A stay ends with its last use, and so do the events that end it. A budget below a working set leaves
    nothing beside it. ``None`` where no budget places.
    """
    budget = instance.capacity
    while budget >= 0:
        trace = replace_by_rule(instance, order, budget, replacement, addressed=False)
        events = _leave_early(instance, order, trace.events)
        stacks = _stacks(instance, order, events)
        addresses = place_largest_first(instance, stacks)
        if addresses is not None:
            return _addressed(events, stacks, addresses)
        budget = trace.peak - 1  # every budget between gives the same trace
    return None


def place_largest_first(instance: Instance, stacks: Sequence[Sequence[Stay]]) -> tuple[int, ...] | None:
    """Lowest holes, larger blocks first, then longer, earlier and lower-numbered ones.

    Parameters
    ----------
    stacks
        Stays at one address, one after the other and none larger than the one before.

    Returns
    -------
    Address by stack, or ``None`` where one finds no hole.
    """
    size = instance.size
    steps = 1 + max((stay.end for stack in stacks for stay in stack), default=0)
    taken: list[list[tuple[int, int]]] = [[] for _ in range(steps)]
    addresses = [0] * len(stacks)

    def rank(k: int) -> tuple[int, int, int, int]:
        first, last = stacks[k][0], stacks[k][-1]
        return -size[first.tensor], first.start - last.end, first.start, first.tensor

    for k in sorted(range(len(stacks)), key=rank):
        # A block placed at start..end forbids the addresses between start less our size and end.
        forbidden = {
            (start - size[stay.tensor], end)
            for stay in stacks[k]
            for t in range(stay.start, stay.end + 1)
            for start, end in taken[t]
        }
        low = 0
        for below, above in sorted(forbidden):
            if below >= low:
                break
            low = max(low, above)
        if low + size[stacks[k][0].tensor] > instance.capacity:
            return None
        addresses[k] = low
        for stay in stacks[k]:
            for t in range(stay.start, stay.end + 1):
                taken[t].append((low, low + size[stay.tensor]))
    return tuple(addresses)


def _leave_early(instance: Instance, order: Sequence[int], events: Sequence[Event]) -> list[Event]:
    """Date evictions back to the step after the tensor's last use before."""
    uses = instance.uses(order)
    dated = [
        replace(event, step=1 + max(u for u in uses[event.tensor] if u < event.step))
        if event.kind in ("spill", "evict")
        else event
        for event in events
    ]
    return sorted(dated, key=lambda event: (event.step, event.kind in ENTERING))


def _stacks(instance: Instance, order: Sequence[int], events: Sequence[Event]) -> list[list[Stay]]:
    """Stays, in stacks of those that overwrite each other, in the order in which they begin.

    While an operator overwrites its input, the output's block is inside that of the input and does not
    count.
    """
    uses = instance.uses(order)
    stacks: list[list[Stay]] = []
    stack_of: dict[int, int] = {}
    for event in events:
        v, step = event.tensor, event.step
        if event.kind == "overwrite":
            dead = next(u for u in instance.in_place[order[step]] if uses[u][-1] == step)
            stack_of[v] = stack_of[dead]
            stacks[stack_of[v]].append(Stay(v, step + 1, uses[v][-1]))
        elif event.kind in ENTERING:
            stack_of[v] = len(stacks)
            stacks.append([Stay(v, step, uses[v][-1])])
        elif event.kind == "evict":
            stack = stacks[stack_of[v]]
            stack[-1] = replace(stack[-1], end=step - 1)
    return stacks


def _addressed(
    events: Sequence[Event], stacks: Sequence[Sequence[Stay]], addresses: Sequence[int]
) -> tuple[Event, ...]:
    """The same events with the addresses of their stays."""
    beginning = {
        (stay.tensor, stay.start): address
        for stack, address in zip(stacks, addresses, strict=True)
        for stay in stack
    }
    current: dict[int, int] = {}
    found: list[Event] = []
    for event in events:
        if event.kind in ENTERING:
            current[event.tensor] = beginning[event.tensor, event.step + (event.kind == "overwrite")]
        found.append(replace(event, address=current[event.tensor]))
    return tuple(found)
