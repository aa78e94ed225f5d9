"""What one operator costs, from its tiling and from what it finds in the scratchpad."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from accel._units import Units
from accel.cost import Access, OperatorCost
from accel.mapping._tilings import together
from accel.mapping.search import Tiled, measure_tiling
from accel.mapping.tiling import Layer, layer_of
from accel.movement import Movement, partial_reads, streaming
from accel.schedule.streamed import Streaming
from accel.workload import Operator, Role, Workload

# Share of multiplications among the vector operations of a kind; elsewhere they are additions.
_MULTIPLY_SHARE = {
    "mul": 1.0,
    "div": 1.0,
    "mul_backward": 1.0,
    "sgd_momentum": 0.5,
    "adam": 8 / 12,  # a root and a division among them
    "cross_entropy": 0.5,
    "batch_norm": 0.5,
    "layer_norm": 0.5,
    "rms_norm": 0.5,
    "gelu": 0.5,
    "silu": 0.5,
}


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What an evaluation needs of a workload, whatever the design."""

    workload: Workload
    layers: tuple[Layer | None, ...]  # by operator
    streaming: Streaming  # with tensors' sizes as costs
    a_use: NDArray[np.int64]  # index of the use of A, W and the result of each operator, or -1
    w_use: NDArray[np.int64]
    o_use: NDArray[np.int64]
    stored_bits: Mapping[str, float]  # of an element of each operand of a product


# By id, with the workload's life: a workload holds a mapping and so has no hash.
_WORKS: dict[int, tuple[weakref.ref[Workload], Work]] = {}


def work_of(workload: Workload) -> Work:
    """Computed once per workload object."""
    key = id(workload)
    if (known := _WORKS.get(key)) is not None and known[0]() is workload:
        return known[1]
    problem = streaming(workload)
    place = {(use.step, use.tensor): index for index, use in enumerate(problem.uses)}
    layers = tuple(
        layer_of(workload, operator) if operator.gemm is not None else None for operator in workload.operators
    )
    uses = np.full((3, len(layers)), -1, dtype=np.int64)
    for step, (operator, layer) in enumerate(zip(workload.operators, layers, strict=True)):
        if layer is not None:
            for row, name in zip(uses, (*operator.inputs[:2], operator.outputs[0]), strict=True):
                row[step] = place.get((step, name), -1)
    operands = (workload.tensors[name] for operator in workload.gemms() for name in operator.inputs[:2])
    stored_bits = {found.name: found.bits / found.elements for found in operands if found.elements}
    a_use, w_use, o_use = uses
    work = Work(workload, layers, problem, a_use, w_use, o_use, stored_bits)
    _WORKS[key] = (weakref.ref(workload), work)
    weakref.finalize(workload, _WORKS.pop, key, None)
    return work


def operator_cost(
    work: Work, units: Units, step: int, tiled: Tiled | None, movement: Movement
) -> OperatorCost:
    """Traffic, cycles and energy of the operator at `step`, its product cut as `tiled` says.

    Of `tiled` only the tiling counts where other tensors stay than it was measured for.
    """
    operator, layer = work.workload.operators[step], work.layers[step]
    engine = units.engine
    traffic: dict[tuple[str, str], list[float]] = {}

    def access(level: str, operand: str, read: float, written: float) -> None:
        if read or written:
            both = traffic.setdefault((level, operand), [0.0, 0.0])
            both[0] += read
            both[1] += written

    if layer is not None and tiled is not None:
        names = (*operator.inputs[:2], operator.outputs[0])
        a_stays, w_stays, o_stays = (name in movement.resident for name in names)
        if tiled.stays != (stays := (a_stays, w_stays, o_stays)):
            tiled = measure_tiling(tiled.tiling, layer, engine, stays=stays)
        access("scratchpad", "input", tiled.input_reads * layer.a_bits / 8, 0)
        access("scratchpad", "weight", tiled.weight_reads * layer.w_bits / 8, 0)
        sum_bytes = engine.partial_sum_bits / 8
        access("accumulator", "partial_sum", tiled.sum_reads * sum_bytes, tiled.sum_writes * sum_bytes)
        access("offchip", "partial_sum", tiled.spill_bytes, tiled.spill_bytes)
        macs = operator.macs
        for operand, bits in zip(("input", "weight", "partial_sum"), units.register_bits, strict=True):
            access("registers", operand, macs * bits / 8, macs * bits / 8)
    partial = partial_reads(work.workload, operator)
    for name in dict.fromkeys(operator.inputs):
        operand = _operand(work.workload, operator, name)
        fetched = movement.read_bytes.get(name, 0)
        access("offchip", operand, fetched, 0)
        access("scratchpad", operand, 0, fetched)
        if tiled is None or name not in operator.inputs[:2]:
            access("scratchpad", operand, partial.get(name, work.workload.tensors[name].bits / 8), 0)
    for name in operator.outputs:
        stored = movement.written_bytes.get(name, 0)
        access("offchip", "output", 0, stored)
        access("scratchpad", "output", stored if movement.drains else 0, 0)
        if name in movement.resident:
            access("scratchpad", "output", 0, work.workload.tensors[name].bits / 8)
    frozen: dict[tuple[str, str], Access] = {key: (read, written) for key, (read, written) in traffic.items()}
    return _timed(units, operator, tiled, frozen)


def _operand(workload: Workload, operator: Operator, name: str) -> str:
    """What an input is to its operator."""
    if operator.gemm is not None:
        return (
            ("input", "weight")[operator.inputs[:2].index(name)] if name in operator.inputs[:2] else "other"
        )
    return "weight" if workload.tensors[name].role is Role.WEIGHT else "input"


def _timed(
    units: Units, operator: Operator, tiled: Tiled | None, traffic: Mapping[tuple[str, str], Access]
) -> OperatorCost:
    """Cycles and energy of one operator from its traffic."""
    engine = units.engine

    pad_read = pad_written = offchip_bytes = 0.0
    for (level, _), (read, written) in traffic.items():
        if level == "scratchpad":
            pad_read, pad_written = pad_read + read, pad_written + written
        elif level == "offchip":
            offchip_bytes += read + written
    array_cycles = tiled.array_cycles if tiled else 0
    sum_writes, sum_reads = (tiled.sum_writes, tiled.sum_reads) if tiled else (0, 0)
    edge_bytes = min(offchip_bytes, tiled.first_load_bytes + tiled.last_drain_bytes) if tiled else 0
    vector_cycles = -(-operator.vector_ops // engine.columns)
    scratchpad_cycles = ceil(8 * (pad_read + pad_written) / engine.port_bits)
    accumulator_cycles = -(-max(sum_writes, sum_reads) // engine.columns)
    work_cycles = max(array_cycles, vector_cycles, scratchpad_cycles, accumulator_cycles)
    bandwidth = engine.offchip_bytes_per_cycle
    transfer_cycles = (offchip_bytes - edge_bytes) / bandwidth
    joined = together(float(work_cycles), transfer_cycles, engine.overlap)
    cycles = max(work_cycles, ceil(joined + edge_bytes / bandwidth))
    macs = operator.macs
    multiplications = operator.vector_ops * _MULTIPLY_SHARE.get(operator.kind, 0.0)
    return OperatorCost(
        name=operator.name,
        kind=operator.kind,
        phase=operator.phase,
        macs=macs,
        tiling=tiled.tiling if tiled else None,
        array_cycles=array_cycles,
        vector_cycles=vector_cycles,
        scratchpad_cycles=scratchpad_cycles,
        accumulator_cycles=accumulator_cycles,
        offchip_cycles=ceil(offchip_bytes / bandwidth),
        cycles=cycles,
        traffic=traffic,
        energy_pj={
            "mac": macs * units.mac_pj,
            "registers": macs * units.registers_pj,
            "accumulator": sum_writes * engine.sum_write_pj + sum_reads * engine.sum_read_pj,
            "scratchpad": 8
            * (pad_read * engine.pad_read_pj_per_bit + pad_written * engine.pad_write_pj_per_bit),
            "vector": (operator.vector_ops - multiplications) * units.add_pj
            + multiplications * units.multiply_pj,
            "offchip": 8 * offchip_bytes * engine.offchip_pj_per_bit,
            "leakage": cycles * engine.leakage_pj_per_cycle,
        },
    )
