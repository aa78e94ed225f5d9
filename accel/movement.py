"""What each operator finds in the scratchpad, and what it moves on and off chip.

The seam between operators and within one: *which* whole tensors stay in the scratchpad is decided
across operators, by a schedule; *how often* a tensor that does not stay is fetched is decided within
the operator, by its tiling. Every byte belongs to one of the two:

- A tensor that lies in the scratchpad moves no byte for the operators that use it there, but for
  what the schedule brings in or takes out at their step.
- A tensor that does not is streamed by the operator's tiling, as often as the tiling says.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from accel.schedule import Schedule
from accel.schedule.streamed import Kept, Streaming, Use
from accel.workload import Operator, Workload

# Operators that read those rows of their first input alone that they give out.
_GATHERS = frozenset({"embedding", "gather", "index_select"})
_NOTHING: Mapping[str, int] = MappingProxyType({})
_DRAINS = frozenset({"store", "spill"})  # kinds of transfer out of the scratchpad


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """Whole-tensor and streamed traffic of one operator, by tensor.

    Attributes
    ----------
    resident
        Tensors that lie in the scratchpad whole while the operator runs.
    read_bytes, written_bytes
        From and to off-chip memory; partial sums are not among them.
    drains
        Whether what is written is read from the scratchpad, rather than written to both at once.
    """

    resident: frozenset[str]
    read_bytes: Mapping[str, int]
    written_bytes: Mapping[str, int]
    drains: bool


def partial_reads(workload: Workload, operator: Operator) -> Mapping[str, int]:
    """Bytes that an operator reads of tensors of which it needs few rows: those it gives out."""
    if operator.kind not in _GATHERS:
        return _NOTHING
    if not operator.inputs or operator.inputs[0] in operator.inputs[1:]:
        return _NOTHING
    table = workload.tensors[operator.inputs[0]]
    rows = sum(workload.tensors[name].elements for name in operator.outputs)
    if rows >= table.elements:
        return _NOTHING
    return {table.name: -(-rows * table.bits // (8 * table.elements))}


def streaming(workload: Workload) -> Streaming:
    """Tensors that may stay between operators, each use at the cost of the whole tensor.

    Of a table of which an operator reads few rows only the uses that need all of it take part.
    """
    sizes = {name: found.bytes for name, found in workload.tensors.items()}
    costs = {}
    for step, operator in enumerate(workload.operators):
        partial = partial_reads(workload, operator)
        for names, writes in ((dict.fromkeys(operator.inputs), False), (operator.outputs, True)):
            for name in names:
                if sizes[name] and name not in partial:
                    costs[Use(name, step, writes)] = sizes[name]
    return Streaming.from_uses(sizes, costs, 0, steps=len(workload.operators), outputs=workload.outputs)


# By id, with the schedule's life: a schedule holds a workload and so has no hash.
_SCHEDULED: dict[int, tuple[weakref.ref[Schedule], Mapping[str, Movement]]] = {}


def scheduled(schedule: Schedule) -> Mapping[str, Movement]:
    """Movements by operator of a schedule that holds all operands of an operator at once; kept."""
    key = id(schedule)
    if (known := _SCHEDULED.get(key)) is not None and known[0]() is schedule:
        return known[1]
    movements = _scheduled(schedule)
    _SCHEDULED[key] = (weakref.ref(schedule), movements)
    weakref.finalize(schedule, _SCHEDULED.pop, key, None)
    return movements


def _scheduled(schedule: Schedule) -> Mapping[str, Movement]:
    moves: dict[str, tuple[dict[str, int], dict[str, int]]] = {name: ({}, {}) for name in schedule.order}
    for transfer in schedule.transfers:
        side = moves[schedule.order[transfer.step]][transfer.kind in _DRAINS]
        side[transfer.tensor] = side.get(transfer.tensor, 0) + transfer.bytes
    operators = {operator.name: operator for operator in schedule.workload.operators}
    return {
        name: Movement(
            resident=frozenset((*operators[name].inputs, *operators[name].outputs)),
            read_bytes=read,
            written_bytes=written,
            drains=True,
        )
        for name, (read, written) in moves.items()
    }


def streamed(workload: Workload, kept: Kept) -> Mapping[str, Movement]:
    """Movements by operator where some whole tensors stay and all others are streamed."""
    resident: list[set[str]] = [set() for _ in workload.operators]
    for stay in kept.residency:
        for step in range(stay.start, stay.end + 1):
            resident[step].add(stay.tensor)
    costs: Mapping[Use, int] = kept.costs
    sides: Sequence[tuple[dict[str, int], dict[str, int]]] = [({}, {}) for _ in workload.operators]
    for use, moved in costs.items():
        if moved:
            sides[use.step][use.writes][use.tensor] = moved
    return {
        operator.name: Movement(
            resident=frozenset(held & {*operator.inputs, *operator.outputs}),
            read_bytes={**read, **partial_reads(workload, operator)},
            written_bytes=written,
            drains=False,
        )
        for operator, held, (read, written) in zip(workload.operators, resident, sides, strict=True)
    }
