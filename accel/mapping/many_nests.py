"""Counts of many nests of one problem, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np

from accel.mapping import _nest_kernels
from accel.mapping.nest import HALOS, Counts, Halo, Nest, TensorCounts
from accel.mapping.problem import Problem

Integers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyCounts:
    """What `n` nests do: the fields of :class:`~accel.mapping.nest.Counts` as arrays.

    Attributes
    ----------
    levels, tensors
        Names along the axes: levels outermost first, tensors with the output last.
    macs
        Multiply-accumulates.
    cycles, units : (n,)
    instances : (n, levels)
    tile_words, reads, fills, updates, drains : (n, levels, tensors)
        Zero where a level does not keep the tensor. Words of all instances, as in
        :class:`~accel.mapping.nest.TensorCounts`; `tile_words` of one.
    """

    levels: tuple[str, ...]
    tensors: tuple[str, ...]
    keeps: tuple[tuple[str, ...], ...]
    macs: int
    cycles: Integers
    units: Integers
    instances: Integers
    tile_words: Integers
    reads: Integers
    fills: Integers
    updates: Integers
    drains: Integers

    def __len__(self) -> int:
        return len(self.cycles)

    def __getitem__(self, i: int) -> Counts:
        """Counts of nest `i`."""
        table: dict[str, dict[str, TensorCounts]] = {}
        for j, (level, keeps) in enumerate(zip(self.levels, self.keeps, strict=True)):
            table[level] = {
                tensor: TensorCounts(
                    tile_words=int(self.tile_words[i, j, t]),
                    instances=int(self.instances[i, j]),
                    reads=int(self.reads[i, j, t]),
                    fills=int(self.fills[i, j, t]),
                    updates=int(self.updates[i, j, t]),
                    drains=int(self.drains[i, j, t]),
                )
                for t, tensor in enumerate(self.tensors)
                if tensor in keeps
            }
        return Counts(macs=self.macs, cycles=int(self.cycles[i]), units=int(self.units[i]), levels=table)


def analyse_many(problem: Problem, nests: Sequence[Nest], *, halo: Halo = "kept") -> ManyCounts:
    """Count reads, fills and updates of nests whose levels have equal names and keep equal tensors.

    Equals :func:`~accel.mapping.nest.analyse` of each, some ten times faster.

    Raises
    ------
    ValueError
        As :func:`~accel.mapping.nest.analyse`; levels that differ; no nest; or counts beyond 64 bits.
    """
    if halo not in HALOS:
        raise ValueError(f"halo must be one of {', '.join(HALOS)}; got {halo!r}")
    if not nests:
        raise ValueError("there must be at least 1 nest, got none")
    shape = [(level.name, frozenset(level.keeps)) for level in nests[0].levels]
    for nest in nests:
        if [(level.name, frozenset(level.keeps)) for level in nest.levels] != shape:
            raise ValueError(f"levels must be as those of the first nest, got {nest}")
        nest.check(problem)
    # No count exceeds this: a box is at most the turns inside it times the coefficients.
    bound = max(prod(max(step for _, step in rank) for rank in tensor.ranks) for tensor in problem.tensors)
    if problem.macs * bound >= 2**62:
        raise ValueError(f"counts of {problem.macs} multiply-accumulates may not fit in 64 bits")
    index = {loop: i for i, loop in enumerate(problem.sizes)}
    depths = [
        (
            max(len(nest.levels[i].temporal) for nest in nests),
            max(len(nest.levels[i].spatial) for nest in nests),
        )
        for i in range(len(shape))
    ]
    slots = sum(map(sum, depths))
    loops = np.zeros((len(nests), slots), np.int64)
    turns = np.ones((len(nests), slots), np.int64)
    for row, nest in enumerate(nests):
        slot = 0
        for level, depth in zip(nest.levels, depths, strict=True):
            for some, room in zip((level.temporal, level.spatial), depth, strict=True):
                for offset, (loop, count) in enumerate(some):
                    loops[row, slot + offset], turns[row, slot + offset] = index[loop], count
                slot += room
    slot_level = np.repeat(np.arange(len(shape)), [sum(depth) for depth in depths])
    slot_spatial = np.repeat(np.arange(2 * len(shape)) % 2 == 1, [room for depth in depths for room in depth])
    tensors = problem.tensors
    ranks = max(len(tensor.ranks) for tensor in tensors)
    coefficients = np.zeros((len(tensors), ranks, len(index)), np.int64)
    for t, tensor in enumerate(tensors):
        for r, rank in enumerate(tensor.ranks):
            for loop, step in rank:
                coefficients[t, r, index[loop]] = step
    keeps = np.array([[tensor.name in names for tensor in tensors] for _, names in shape])
    moved = np.zeros((len(nests), 4, len(shape), len(tensors)), np.int64)
    tile_words = np.zeros((len(nests), len(shape), len(tensors)), np.int64)
    instances = np.empty((len(nests), len(shape) + 1), np.int64)
    cycles = np.empty(len(nests), np.int64)
    _nest_kernels.count_nests(
        loops,
        turns,
        slot_level,
        slot_spatial,
        coefficients,
        keeps,
        halo == "kept",
        moved,
        tile_words,
        instances,
        cycles,
    )
    reads, fills, updates, drains = moved.swapaxes(0, 1)
    return ManyCounts(
        levels=tuple(name for name, _ in shape),
        tensors=tuple(tensor.name for tensor in tensors),
        keeps=tuple(level.keeps for level in nests[0].levels),
        macs=problem.macs,
        cycles=cycles,
        units=instances[:, -1],
        instances=instances[:, :-1],
        tile_words=tile_words,
        reads=reads,
        fills=fills,
        updates=updates,
        drains=drains,
    )
