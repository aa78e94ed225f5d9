"""A plan of streamed operands: the gaps that are kept, and whatever follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from accel.schedule._streaming.problem import Streaming, Use

KeepMethod: TypeAlias = Literal["fits", "dynamic-program", "integer-program", "greedy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Residency:
    """A stay of a whole tensor in the scratchpad, from step `start` to `end`, both included."""

    tensor: str
    start: int
    end: int
    bytes: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Kept:
    """A plan; whatever follows from the gaps it keeps is derived from them.

    Attributes
    ----------
    kept
        (u,): whether the gap that follows each use of `problem` is kept.
    bound_bytes
        No plan has a smaller total.
    method
        What chose: ``"fits"`` where every gap fits beside all others or fits nowhere; the exact dynamic
        or integer program; or a ``"greedy"`` plan, where the time limit left no better one.
    solver
        Name and version of the integer program's solver, ``"none"`` without one.
    seconds
        Time spent.
    """

    problem: Streaming
    kept: NDArray[np.bool_]
    bound_bytes: int
    method: KeepMethod
    solver: str
    seconds: float = field(repr=False)

    @cached_property
    def cost_bytes(self) -> NDArray[np.int64]:
        """Bytes that each use costs, (u,)."""
        return self.problem.costs(self.kept)

    @cached_property
    def total_bytes(self) -> int:
        """Bytes moved on and off chip."""
        return int(self.cost_bytes.sum())

    @property
    def is_optimal(self) -> bool:
        """Whether no plan has a smaller total, proven."""
        return self.bound_bytes == self.total_bytes

    @property
    def gap(self) -> float:
        """Share of the total that a better plan might save, 0 if optimal."""
        return (self.total_bytes - self.bound_bytes) / max(1, self.total_bytes)

    @cached_property
    def resident_bytes(self) -> NDArray[np.int64]:
        """Bytes of whole tensors at each step, (T,)."""
        return self.problem.resident_bytes(self.kept)

    @property
    def peak_bytes(self) -> int:
        """Most bytes of whole tensors at any step."""
        return int(self.resident_bytes.max(initial=0))

    @property
    def byte_steps(self) -> int:
        """Resident bytes summed over all steps."""
        return int(self.resident_bytes.sum())

    @cached_property
    def costs(self) -> Mapping[Use, int]:
        """Bytes by use."""
        return MappingProxyType(dict(zip(self.problem.uses, self.cost_bytes.tolist(), strict=True)))

    @cached_property
    def gaps(self) -> Mapping[str, tuple[tuple[int, int], ...]]:
        """Kept gaps by tensor, each from the step of one use to that of the next."""
        found: dict[str, list[tuple[int, int]]] = {name: [] for name in self.problem.tensors}
        for i in np.flatnonzero(self.kept):
            name = self.problem.tensors[self.problem.owner[i]]
            found[name].append((int(self.problem.step[i]), int(self.problem.step[i + 1])))
        return MappingProxyType({name: tuple(gaps) for name, gaps in found.items()})

    @cached_property
    def residency(self) -> tuple[Residency, ...]:
        """Stays by tensor, then by start; kept gaps that meet are one stay."""
        found = []
        for v, (name, gaps) in enumerate(self.gaps.items()):
            starts = [start for i, (start, _) in enumerate(gaps) if i == 0 or gaps[i - 1][1] != start]
            ends = [here[1] for here, following in pairwise(gaps) if here[1] != following[0]]
            ends += [gaps[-1][1]] if gaps else []
            size = int(self.problem.size_bytes[v])
            found += [
                Residency(tensor=name, start=start, end=end, bytes=size)
                for start, end in zip(starts, ends, strict=True)
            ]
        return tuple(found)
