"""The scheduling problem in integers: operators and tensors by index, sizes in a common unit.

Models, search and placement all work on this one view of a workload.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd

from accel.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Instance:
    """What a scheduler needs to know of a workload; sizes are in units of `unit_bytes`.

    Attributes
    ----------
    operators, tensors
        Names. Only tensors take part that have bytes and that some operator reads or writes.
    reads, writes
        Tensor indices by operator, each at most once.
    after
        Operators whose results each operator reads, empty ones included; in a fixed order also the
        operator listed before it.
    size, is_input, is_output
        By tensor. A graph input has an off-chip copy from the start, a graph output from its
        production on.
    in_place
        By operator: inputs, in operand order, whose block its one output may take where no operator that
        runs later reads them. None of them is a graph output or smaller than the output.
    capacity
        Scratchpad in units, rounded down. Every set of blocks that fits can be laid out at sums of
        sizes, which are multiples of their common divisor, so nothing is lost.
    """

    operators: tuple[str, ...]
    tensors: tuple[str, ...]
    reads: tuple[tuple[int, ...], ...]
    writes: tuple[tuple[int, ...], ...]
    after: tuple[frozenset[int], ...]
    size: tuple[int, ...]
    is_input: tuple[bool, ...]
    is_output: tuple[bool, ...]
    in_place: tuple[tuple[int, ...], ...]
    unit_bytes: int
    capacity: int

    @cached_property
    def producer(self) -> tuple[int | None, ...]:
        """Producer by tensor, ``None`` for a graph input."""
        found: list[int | None] = [None] * len(self.tensors)
        for i, written in enumerate(self.writes):
            for v in written:
                found[v] = i
        return tuple(found)

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """Operators that read a tensor, in file order."""
        found: list[list[int]] = [[] for _ in self.tensors]
        for i, read in enumerate(self.reads):
            for v in read:
                found[v].append(i)
        return tuple(map(tuple, found))

    @cached_property
    def always_backed(self) -> tuple[bool, ...]:
        """Whether a tensor has an off-chip copy that no one pays for: graph inputs and outputs."""
        return tuple(map(any, zip(self.is_input, self.is_output, strict=True)))

    @cached_property
    def working_set(self) -> tuple[int, ...]:
        """Units in use while an operator runs."""
        return tuple(sum(self.size[v] for v in self.touched(i)) for i in range(len(self.operators)))

    def touched(self, i: int) -> tuple[int, ...]:
        """Tensors operator `i` reads or writes."""
        return (*self.reads[i], *self.writes[i])

    @cached_property
    def ancestors(self) -> tuple[int, ...]:
        """Operators that must run before each operator, as a bit mask."""
        masks: list[int] = []
        for before in self.after:
            mask = 0
            for p in before:
                mask |= masks[p] | 1 << p
            masks.append(mask)
        return tuple(masks)

    @cached_property
    def is_in_order(self) -> bool:
        """Whether the operators can run in the listed order alone."""
        return all(i - 1 in before for i, before in enumerate(self.after) if i)

    @cached_property
    def windows(self) -> tuple[range, ...]:
        """Steps at which each operator may run, by the number of its ancestors and descendants."""
        n = len(self.operators)
        follow = [0] * n
        for mask in self.ancestors:
            for p in range(n):
                follow[p] += mask >> p & 1
        return tuple(
            range(mask.bit_count(), n - later) for mask, later in zip(self.ancestors, follow, strict=True)
        )

    def uses(self, order: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Return the steps at which operators touch each tensor under `order`, ascending."""
        found: list[list[int]] = [[] for _ in self.tensors]
        for step, i in enumerate(order):
            for v in self.touched(i):
                found[v].append(step)
        return tuple(map(tuple, found))


def weights_of(graph: Workload) -> tuple[str, ...]:
    """Parameters that the graph reads and that have bytes: its inputs of a parameter's role."""
    read = {name for operator in graph.operators for name in operator.inputs}
    return tuple(
        name
        for name in dict.fromkeys(graph.inputs)
        if name in read and graph.tensors[name].role.is_parameter and graph.tensors[name].bytes
    )


def build_instance(
    graph: Workload,
    scratchpad_bytes: int,
    *,
    alignment: int,
    fixed_order: bool,
    left_out: Collection[str] = (),
) -> Instance:
    """Integer view of `graph`, with sizes rounded up to `alignment`.

    Parameters
    ----------
    left_out
        Graph inputs that take no part, such as streamed weights.
    """
    padded = {
        name: 0 if name in left_out else -(-tensor.bytes // alignment) * alignment
        for name, tensor in graph.tensors.items()
    }
    reads = [[t for t in dict.fromkeys(op.inputs) if padded[t]] for op in graph.operators]
    writes = [[t for t in op.outputs if padded[t]] for op in graph.operators]
    names = tuple(dict.fromkeys(t for both in zip(reads, writes, strict=True) for part in both for t in part))
    unit_bytes = gcd(*(padded[name] for name in names)) or alignment
    index = {name: v for v, name in enumerate(names)}
    position = {t: i for i, op in enumerate(graph.operators) for t in op.outputs}
    after = [{position[t] for t in op.inputs if t in position} for op in graph.operators]
    if fixed_order:
        for i in range(1, len(after)):
            after[i].add(i - 1)
    outputs = frozenset(graph.outputs)
    overwritten = [
        [t for t in read if t not in outputs and padded[t] >= padded[written[0]]]
        if op.in_place and written
        else []
        for op, read, written in zip(graph.operators, reads, writes, strict=True)
    ]
    return Instance(
        operators=tuple(op.name for op in graph.operators),
        tensors=names,
        reads=tuple(tuple(index[t] for t in found) for found in reads),
        writes=tuple(tuple(index[t] for t in found) for found in writes),
        after=tuple(map(frozenset, after)),
        size=tuple(padded[name] // unit_bytes for name in names),
        is_input=tuple(name in graph.inputs for name in names),
        is_output=tuple(name in graph.outputs for name in names),
        in_place=tuple(tuple(index[t] for t in found) for found in overwritten),
        unit_bytes=unit_bytes,
        capacity=scratchpad_bytes // unit_bytes,
    )
