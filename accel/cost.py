"""Energy, cycles and area of a workload on a design, by operator and by component.

The workload runs by a schedule, one operator at a time with all its tensors in the scratchpad, so
off-chip traffic is exactly the schedule's. Inside an operator, operands move between scratchpad and
array as ``accel.dataflow`` counts them, and partial sums live in the accumulator buffer at the
accumulator's width.

Latency: an operator takes the longest of four times, each fully overlapped with the others: the
array, the vector unit (one operation per column and cycle), the off-chip transfers of its step, and
the scratchpad's ports (one word per bank and cycle). Operators do not overlap with one another. The
accumulator buffer has a read and a write port per bank and keeps up with the array.

Energy: see the components in :data:`COMPONENTS`. Dynamic logic and memory energy is at 0.9 V, or at
the SRAM table's own voltage; leakage is that of the two memories over the run time.

Not modelled: DRAM pages and refresh, bank conflicts, network-on-chip contention, compression,
sparsity, a control processor, leakage of logic, voltage and temperature. Formats are converted
between tensor, array and vector unit free of charge.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from types import MappingProxyType
from typing import TYPE_CHECKING

from accel._units import Units, area_um2, estimates_of, units_of, violations_of
from accel.dataflow import ArrayCounts, tiled_counts
from accel.design import Design
from accel.workload import Gemm, Operator, Workload

if TYPE_CHECKING:
    import pandas as pd

    from accel.schedule import Schedule

#: Where energy goes:
#:
#: - ``mac``: products and sums in the array
#: - ``registers``: operands passed from cell to cell and the partial sum handed on, per product
#: - ``accumulator``: the partial-sum buffer; sums written, read back and drained once at the end
#: - ``scratchpad``: the array's and the vector unit's accesses, off-chip fills and drains
#: - ``vector``: element-wise arithmetic
#: - ``offchip``: the off-chip memory and its interface
#: - ``leakage``: both on-chip memories
COMPONENTS = ("mac", "registers", "accumulator", "scratchpad", "vector", "offchip", "leakage")

# Share of multiplications among the vector operations of a kind; elsewhere they are additions.
_MULTIPLY_SHARE = {"mul": 1.0, "mul_backward": 1.0, "sgd_momentum": 0.5, "cross_entropy": 0.5}
_DRAINS = frozenset({"store", "spill"})  # kinds of transfer out of the scratchpad


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorCost:
    """One operator of the run.

    Attributes
    ----------
    array_cycles, vector_cycles, offchip_cycles, scratchpad_cycles
        What each part needs; the operator takes the longest.
    energy_pj
        By component, all of :data:`COMPONENTS`.
    """

    name: str
    macs: int
    array_cycles: int
    vector_cycles: int
    offchip_cycles: int
    scratchpad_cycles: int
    offchip_bytes: int
    energy_pj: Mapping[str, float]

    @property
    def cycles(self) -> int:
        """Cycles the operator takes."""
        return max(self.array_cycles, self.vector_cycles, self.offchip_cycles, self.scratchpad_cycles)

    @property
    def bound(self) -> str:
        """The part that takes longest: array, vector, offchip or scratchpad."""
        parts = ("array", "vector", "offchip", "scratchpad")
        return max(parts, key=lambda part: getattr(self, f"{part}_cycles"))


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one workload costs on one design; totals are derived, so they agree with their parts.

    Attributes
    ----------
    operators
        In the order in which they run.
    area_um2
        By component: ``array``, ``vector``, ``scratchpad``, ``accumulator``, ``overhead``.
    cells, clock_mhz
        Of the design: multiply-accumulate cells, and the clock.
    violations
        What a single cycle is too short for; the design must pipeline it, which is not modelled.
    estimates
        Numbers that rest on no measurement or reference run: scaled nodes, recalled energies.
    """

    operators: tuple[OperatorCost, ...]
    area_um2: Mapping[str, float]
    cells: int
    clock_mhz: float
    violations: tuple[str, ...]
    estimates: tuple[str, ...]

    @property
    def cycles(self) -> int:
        """Cycles of the whole run."""
        return sum(operator.cycles for operator in self.operators)

    @property
    def seconds(self) -> float:
        """Run time."""
        return self.cycles / (self.clock_mhz * 1e6)

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return sum(operator.macs for operator in self.operators)

    @property
    def utilization(self) -> float:
        """Share of the array's cell cycles that did a multiply-accumulate; 0 for an empty run."""
        return self.macs / (self.cells * self.cycles) if self.cycles else 0.0

    @property
    def offchip_bytes(self) -> int:
        """Bytes to and from off-chip memory."""
        return sum(operator.offchip_bytes for operator in self.operators)

    @property
    def energy_pj(self) -> Mapping[str, float]:
        """Energy by component, in picojoules."""
        return MappingProxyType(
            {part: sum(operator.energy_pj[part] for operator in self.operators) for part in COMPONENTS}
        )

    @property
    def energy_pj_by_operator(self) -> Mapping[str, float]:
        """Energy by operator, in picojoules."""
        return MappingProxyType(
            {operator.name: sum(operator.energy_pj.values()) for operator in self.operators}
        )

    @property
    def total_energy_pj(self) -> float:
        """Energy of the whole run, in picojoules."""
        return sum(self.energy_pj.values())

    @property
    def total_area_um2(self) -> float:
        """Area of the whole design."""
        return sum(self.area_um2.values())

    def table(self) -> pd.DataFrame:
        """One row per operator in the order of the run; units are in the column names."""
        from accel.tables import cost_table

        return cost_table(self)


@dataclass(frozen=True, slots=True)
class _Demand:
    """What an operator asks of any design."""

    gemm: Gemm | None
    macs: int
    input_bits: int  # per element of operand A
    weight_bits: int  # per element of operand W
    vector_read_bits: int  # of all tensors that do not pass through the array
    write_bits: int  # of all results
    additions: float
    multiplications: float
    vector_ops: int


def evaluate(design: Design, workload: Workload, schedule: Schedule | None = None) -> Cost:
    """Cost of `workload` on `design`.

    Parameters
    ----------
    schedule
        Order and off-chip transfers; without one, ``accel.schedule`` makes one for the design's
        scratchpad. What depends on the workload alone is kept, so that many designs are quick.

    Raises
    ------
    ValueError
        The schedule is of another workload or needs a larger scratchpad, or (from the scheduler) an
        operator's tensors do not fit the scratchpad.
    """
    if schedule is None:
        from accel.schedule import schedule as make_schedule

        schedule = make_schedule(workload, design.scratchpad_bytes)
    _check_schedule(design, workload, schedule)
    demands, units = _demands(workload), units_of(design)
    fills, drains = [0] * len(schedule.order), [0] * len(schedule.order)
    for transfer in schedule.transfers:
        moved = drains if transfer.kind in _DRAINS else fills
        moved[transfer.step] += transfer.bytes
    return Cost(
        operators=tuple(
            _operator_cost(design, units, name, demands[name], fill, drain)
            for name, fill, drain in zip(schedule.order, fills, drains, strict=True)
        ),
        area_um2=area_um2(design),
        cells=design.rows * design.columns,
        clock_mhz=design.clock_mhz,
        violations=violations_of(design),
        estimates=estimates_of(design),
    )


def _check_schedule(design: Design, workload: Workload, schedule: Schedule) -> None:
    if schedule.workload is not workload and schedule.workload != workload:
        raise ValueError(
            f"the schedule is of workload {schedule.workload.name}, or of other formats or sizes, "
            f"not of the {workload.name} given"
        )
    if schedule.scratchpad_bytes > design.scratchpad_bytes and schedule.peak_bytes > design.scratchpad_bytes:
        raise ValueError(
            f"the schedule needs {schedule.peak_bytes} bytes of scratchpad, "
            f"the design has {design.scratchpad_bytes}"
        )


def _operator_cost(
    design: Design, units: Units, name: str, demand: _Demand, fill_bytes: int, drain_bytes: int
) -> OperatorCost:
    macs = demand.macs
    counts, sums = _NO_COUNTS, 0
    if (gemm := demand.gemm) is not None:
        counts = tiled_counts(
            design.dataflow,
            design.rows,
            design.columns,
            gemm.m,
            gemm.n,
            gemm.k,
            stream_limit=units.sums_per_column,
            fold_overlap=design.fold_overlap,
        )
        if gemm.count > 1:
            counts = counts * gemm.count
        sums = gemm.m * gemm.n * gemm.count
    read_bits = (
        counts.input_reads * demand.input_bits
        + counts.weight_reads * demand.weight_bits
        + demand.vector_read_bits
        + 8 * drain_bytes
    )
    write_bits = demand.write_bits + 8 * fill_bytes
    offchip_bytes = fill_bytes + drain_bytes
    array_cycles = counts.cycles
    vector_cycles = -(-demand.vector_ops // design.columns)
    offchip_cycles = ceil(offchip_bytes / design.offchip_bytes_per_cycle)
    scratchpad_cycles = -(-(read_bits + write_bits) // units.scratchpad_port_bits)
    cycles = max(array_cycles, vector_cycles, offchip_cycles, scratchpad_cycles)
    return OperatorCost(
        name=name,
        macs=macs,
        array_cycles=array_cycles,
        vector_cycles=vector_cycles,
        offchip_cycles=offchip_cycles,
        scratchpad_cycles=scratchpad_cycles,
        offchip_bytes=offchip_bytes,
        energy_pj={
            "mac": macs * units.mac_pj,
            "registers": macs * units.registers_pj,
            "accumulator": counts.partial_sum_writes * units.sum_write_pj
            + (counts.partial_sum_reads + sums) * units.sum_read_pj,
            "scratchpad": read_bits * units.read_pj_per_bit + write_bits * units.write_pj_per_bit,
            "vector": demand.additions * units.add_pj + demand.multiplications * units.multiply_pj,
            "offchip": 8 * offchip_bytes * units.offchip_pj_per_bit,
            "leakage": cycles * units.leakage_pj_per_cycle,
        },
    )


_NO_COUNTS = ArrayCounts(0, 0, 0, 0, 0)


# By id, with the workload's life: a workload holds a mapping and so has no hash.
_DEMANDS: dict[int, tuple[weakref.ref[Workload], Mapping[str, _Demand]]] = {}


def _demands(workload: Workload) -> Mapping[str, _Demand]:
    """Demand by operator name, computed once per workload object."""
    key = id(workload)
    if (kept := _DEMANDS.get(key)) is not None and kept[0]() is workload:
        return kept[1]
    demands = {operator.name: _demand(workload, operator) for operator in workload.operators}
    _DEMANDS[key] = (weakref.ref(workload), demands)
    weakref.finalize(workload, _DEMANDS.pop, key, None)
    return demands


def _demand(workload: Workload, operator: Operator) -> _Demand:
    def bits(names: tuple[str, ...]) -> int:
        return sum(workload.tensors[name].elements * workload.tensors[name].format.bits for name in names)

    if operator.gemm is None:
        through_array: tuple[str, ...] = ()
        input_bits, weight_bits = 0, 0
    else:
        if len(operator.inputs) < 2:
            raise ValueError(f"operator {operator.name} has a matrix product but not two operands")
        through_array = operator.inputs[:2]
        input_bits, weight_bits = (workload.tensors[name].format.bits for name in through_array)
    multiplications = operator.vector_ops * _MULTIPLY_SHARE.get(operator.kind, 0.0)
    return _Demand(
        gemm=operator.gemm,
        macs=operator.gemm.macs if operator.gemm else 0,
        input_bits=input_bits,
        weight_bits=weight_bits,
        vector_read_bits=bits(operator.inputs[len(through_array) :]),
        write_bits=bits(operator.outputs),
        additions=operator.vector_ops - multiplications,
        multiplications=multiplications,
        vector_ops=operator.vector_ops,
    )
