"""A placed plan as the models see it: what holds at which step; and whether its blocks stay apart."""

from __future__ import annotations

from dataclasses import dataclass

from accel.schedule._placement import Placed


@dataclass(frozen=True, slots=True)
class PlanSteps:
    """A plan by tensor and step, the start for a solver.

    Attributes
    ----------
    address
        By tensor and step, where the tensor is resident.
    fetched
        Tensors and the steps before which they come from off chip.
    taken_over
        By operator that is written in place: its input whose block the output lies in, and the step.
    """

    address: dict[tuple[int, int], int]
    fetched: frozenset[tuple[int, int]]
    taken_over: dict[int, tuple[int, int]]

    def stays(self, v: int, t: int) -> bool:
        """Whether tensor `v` is resident at steps t - 1 and t without a fetch between."""
        return (v, t) in self.address and (v, t - 1) in self.address and (v, t) not in self.fetched


def plan_steps(placed: Placed) -> PlanSteps:
    """What holds at each step of `placed`."""
    residency = placed.residency
    instance, order = residency.instance, residency.order
    address: dict[tuple[int, int], int] = {}
    fetched: set[tuple[int, int]] = set()
    for block, at in zip(residency.blocks, placed.addresses, strict=True):
        address.update(((block.tensor, t), at) for t in range(block.start, block.end + 1))
        if instance.producer[block.tensor] != order[block.start]:
            fetched.add((block.tensor, block.start))
    last_use = [uses[-1] for uses in instance.uses(order)]
    taken_over: dict[int, tuple[int, int]] = {}
    for t, i in enumerate(order):
        for u in instance.in_place[i]:
            low = address[instance.writes[i][0], t] - address[u, t]
            room = instance.size[u] - instance.size[instance.writes[i][0]]
            if i not in taken_over and last_use[u] == t and 0 <= low <= room:
                taken_over[i] = (u, t)
    return PlanSteps(address, frozenset(fetched), taken_over)


def clash(placed: Placed) -> str:
    """Name the first two blocks of `placed` that share a place at a step, or one out of bounds; or nothing.

    Works on addresses and steps alone, so that it judges what a model makes of its own rules.
    """
    residency = placed.residency
    instance = residency.instance
    steps = plan_steps(placed)
    allowed = {(u, instance.writes[i][0], t) for i, (u, t) in steps.taken_over.items()}
    present: list[list[tuple[int, int, int]]] = [[] for _ in residency.order]
    for block, at in zip(residency.blocks, placed.addresses, strict=True):
        top = at + instance.size[block.tensor]
        if at < 0 or top > instance.capacity:
            return (
                f"{instance.tensors[block.tensor]} at steps {block.start}..{block.end} takes "
                f"[{at}, {top}) of {instance.capacity}"
            )
        for t in range(block.start, block.end + 1):
            present[t].append((at, top, block.tensor))
    for t, blocks in enumerate(present):
        for k, (low, high, v) in enumerate(blocks):
            for below, above, u in blocks[:k]:
                if low < above and below < high and (u, v, t) not in allowed and (v, u, t) not in allowed:
                    first, second = instance.tensors[u], instance.tensors[v]
                    places = f"[{below}, {above}) and [{low}, {high})"
                    return f"{first} and {second} overlap at step {t}: {places}"
    return ""
