"""What a design's parts cost: unit energies, area by component, and what to be wary of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from accel.design import Design
from accel.hardware.mac import mac_cost, register_cost
from accel.hardware.offchip import offchip_memory
from accel.hardware.technology import BASE_NODE_NM, logic_scale
from accel.hardware.vector import lane_cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """Unit energies of a design, in picojoules, with what limits a cycle or a tile."""

    mac_pj: float
    registers_pj: float  # per product
    sum_read_pj: float
    sum_write_pj: float
    sums_per_column: int
    read_pj_per_bit: float
    write_pj_per_bit: float
    scratchpad_port_bits: int  # per cycle, all banks
    add_pj: float
    multiply_pj: float
    offchip_pj_per_bit: float
    leakage_pj_per_cycle: float


@lru_cache(maxsize=1024)
def units_of(design: Design) -> Units:
    """Compute the unit energies and limits of `design`."""
    operand_bits, sum_bits = design.operand.bits, design.accumulator.format.bits
    pad, buffer = design.scratchpad_bank(), design.accumulator_bank()
    lane = lane_cost(design.node_nm)
    leakage_mw = pad.leakage_mw * design.scratchpad_banks + buffer.leakage_mw * design.accumulator_banks
    return Units(
        mac_pj=mac_cost(design.operand, design.operand, design.accumulator, design.node_nm).energy_pj,
        registers_pj=(2 * operand_bits + sum_bits) * register_cost(design.node_nm).energy_pj,
        sum_read_pj=buffer.read_pj / design.columns_per_bank,
        sum_write_pj=buffer.write_pj / design.columns_per_bank,
        sums_per_column=design.sums_per_column,
        read_pj_per_bit=pad.read_pj / design.scratchpad_width_bits,
        write_pj_per_bit=pad.write_pj / design.scratchpad_width_bits,
        scratchpad_port_bits=design.scratchpad_width_bits * design.scratchpad_banks,
        add_pj=lane.add_pj,
        multiply_pj=lane.multiply_pj,
        offchip_pj_per_bit=offchip_memory(design.offchip).pj_per_bit,
        leakage_pj_per_cycle=leakage_mw * 1e3 / design.clock_mhz,  # 1 mW for 1 us is 1000 pJ
    )


@lru_cache(maxsize=1024)
def area_um2(design: Design) -> Mapping[str, float]:
    """Area by component: ``R C (A_mac + (b_a + b_w + b_p) a_ff)``, memories, lanes, and overhead."""
    mac = mac_cost(design.operand, design.operand, design.accumulator, design.node_nm)
    register_bits = 2 * design.operand.bits + design.accumulator.format.bits
    cell = mac.area_um2 + register_bits * register_cost(design.node_nm).area_um2
    area = {
        "array": design.rows * design.columns * cell,
        "vector": design.columns * lane_cost(design.node_nm).area_um2,
        "scratchpad": design.scratchpad_banks * design.scratchpad_bank().area_um2,
        "accumulator": design.accumulator_banks * design.accumulator_bank().area_um2,
    }
    area["overhead"] = design.overhead * sum(area.values())
    return MappingProxyType(area)


@lru_cache(maxsize=1024)
def violations_of(design: Design) -> tuple[str, ...]:
    """Parts that need longer than one cycle of the clock."""
    period_ns = 1e3 / design.clock_mhz
    mac = mac_cost(design.operand, design.operand, design.accumulator, design.node_nm)
    parts = (
        ("the single-cycle MAC", mac.delay_ns),
        ("a scratchpad bank", design.scratchpad_bank().access_ns),
        ("an accumulator bank", design.accumulator_bank().access_ns),
    )
    return tuple(
        f"{part} needs {needed:.2f} ns, a cycle at {design.clock_mhz:g} MHz is {period_ns:.2f} ns"
        for part, needed in parts
        if needed > period_ns
    )


@lru_cache(maxsize=1024)
def estimates_of(design: Design) -> tuple[str, ...]:
    """Numbers that were scaled or recalled."""
    memory = offchip_memory(design.offchip)
    notes = (
        (logic_scale(design.node_nm).scaled, f"logic is scaled from {BASE_NODE_NM} to {design.node_nm} nm"),
        (design.scratchpad_bank().scaled, f"SRAM is scaled to {design.node_nm} nm"),
        (design.accumulator.rounding.is_stochastic, "no MAC with stochastic rounding was synthesised"),
        (memory.recalled, f"{memory.name} energy is recalled: {memory.source}"),
    )
    return tuple(note for holds, note in notes if holds)
