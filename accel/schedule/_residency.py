"""A plan without addresses: the order, and which tensors stay between two uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from accel.schedule._instance import Instance

Gap = tuple[int, int]  # a tensor and the step of the use after which the gap begins


@dataclass(frozen=True, slots=True)
class Block:
    """A residency run: `tensor` stays from step `start` to `end`, both included."""

    tensor: int
    start: int
    end: int

    def meets(self, other: Block) -> bool:
        """Whether both are resident at some step."""
        return self.start <= other.end and other.start <= self.end

    def spans(self, gap: Gap) -> bool:
        """Whether the block carries its tensor across `gap`."""
        return gap[0] == self.tensor and self.start <= gap[1] < self.end


@dataclass(frozen=True)
class Residency:
    """Order and kept gaps; between two uses a tensor stays throughout or leaves at once.

    Staying for a part of a gap saves nothing: the tensor must be fetched again all the same.

    Attributes
    ----------
    order
        Operator indices by step.
    kept
        The tensor of such a gap stays from its use at that step until its next one.
    """

    instance: Instance
    order: tuple[int, ...]
    kept: frozenset[Gap]

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Residency runs by tensor, then by start."""
        found: list[Block] = []
        for v, uses in enumerate(self.instance.uses(self.order)):
            start = uses[0]
            for here, following in pairwise(uses):
                if (v, here) not in self.kept:
                    found.append(Block(v, start, here))
                    start = following
            found.append(Block(v, start, uses[-1]))
        return tuple(found)

    @cached_property
    def takeovers(self) -> tuple[tuple[int, int], ...]:
        """Pairs of `blocks`: the second is written in place over the first, at the first one's last step."""
        instance = self.instance
        ends = {(block.tensor, block.end): k for k, block in enumerate(self.blocks)}
        starts = {(block.tensor, block.start): k for k, block in enumerate(self.blocks)}
        return tuple(
            (ends[u, t], starts[instance.writes[i][0], t])
            for t, i in enumerate(self.order)
            for u in self._dying(i, t)[:1]
        )

    def _dying(self, i: int, t: int) -> tuple[int, ...]:
        """Inputs of operator `i`, run at step `t`, whose block its output may take."""
        return tuple(u for u in self.instance.in_place[i] if self._last_step[u] == t)

    @cached_property
    def _last_step(self) -> tuple[int, ...]:
        return tuple(uses[-1] for uses in self.instance.uses(self.order))

    @cached_property
    def first_step(self) -> tuple[int, ...]:
        """Step of the first use of each tensor."""
        return tuple(uses[0] for uses in self.instance.uses(self.order))

    @cached_property
    def _runs(self) -> tuple[int, ...]:
        runs = [0] * len(self.instance.tensors)
        for block in self.blocks:
            runs[block.tensor] += 1
        return tuple(runs)

    @property
    def cost(self) -> int:
        """Non-compulsory traffic in units: every run after a tensor's first, and its one spill."""
        instance = self.instance
        return sum(
            instance.size[v] * (runs - 1 + (runs > 1 and not instance.always_backed[v]))
            for v, runs in enumerate(self._runs)
        )

    def price(self, v: int) -> int:
        """Units that giving up one more gap of tensor `v` costs."""
        unbacked = self._runs[v] == 1 and not self.instance.always_backed[v]
        return self.instance.size[v] * (1 + unbacked)


def all_gaps(instance: Instance, order: Sequence[int]) -> frozenset[Gap]:
    """Every gap between two uses of a tensor under `order`."""
    return frozenset((v, step) for v, uses in enumerate(instance.uses(order)) for step in uses[:-1])


def kept_gaps(instance: Instance, order: Sequence[int], stays: Callable[[int, int], bool]) -> frozenset[Gap]:
    """Gaps through which a tensor stays: ``stays(v, t)`` says so from step t - 1 to t."""
    return frozenset(
        (v, here)
        for v, uses in enumerate(instance.uses(order))
        for here, following in pairwise(uses)
        if all(stays(v, t) for t in range(here + 1, following + 1))
    )
