"""What a design's parts cost: unit energies, area by component, and what to be wary of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from accel.cost import Violation, exactly
from accel.design import Design
from accel.hardware.mac import MacCost, mac_cost
from accel.hardware.offchip import offchip_memory
from accel.hardware.overrides import unused_entries
from accel.hardware.register import register_cost
from accel.hardware.sram import sram_range
from accel.hardware.technology import BASE_NODE_NM, logic_scale
from accel.hardware.vector import lane_cost
from accel.mapping.search import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """Unit energies of a design, in picojoules, beside those of its engine."""

    engine: Engine
    mac_pj: float
    registers_pj: float  # per product
    register_bits: tuple[float, float, float]  # of A, W and the partial sum
    add_pj: float
    multiply_pj: float


@lru_cache(maxsize=1024)
def units_of(design: Design) -> Units:
    """Compute the unit energies and limits of `design`."""
    mac, library = design.mac, design.library
    cell = design.mac_cell()
    bits = (mac.a_bits, mac.w_bits, float(mac.accumulator_bits))
    registers_pj = sum(bits) * register_cost(design.node_nm, library=library).energy_pj
    pad, buffer = design.scratchpad_bank(), design.accumulator_bank()
    lane = lane_cost(design.node_nm, library=library)
    leakage_mw = pad.leakage_mw * design.scratchpad_banks + buffer.leakage_mw * design.accumulator_banks
    engine = Engine(
        rows=design.rows,
        columns=design.columns,
        dataflow=design.dataflow,
        fold_overlap=design.fold_overlap,
        partial_sum_bits=mac.accumulator_bits,
        tile_bytes=design.scratchpad_bytes,
        sums_per_column=design.sums_per_column,
        pad_read_pj_per_bit=pad.read_pj / design.scratchpad_width_bits,
        pad_write_pj_per_bit=pad.write_pj / design.scratchpad_width_bits,
        sum_read_pj=buffer.read_pj / design.columns_per_bank,
        sum_write_pj=buffer.write_pj / design.columns_per_bank,
        offchip_pj_per_bit=offchip_memory(design.offchip, library=library).pj_per_bit,
        mac_pj=cell.energy_pj + registers_pj,
        leakage_pj_per_cycle=leakage_mw * 1e3 / design.clock_mhz,  # 1 mW for 1 us is 1000 pJ
        offchip_bytes_per_cycle=design.offchip_bytes_per_cycle,
        port_bits=design.scratchpad_width_bits * design.scratchpad_banks,
        overlap=design.overlap,
        extra_stages=design.mac_stages - 1,
        least_tile_bytes=sram_range(design.node_nm, design.sram_cells, library=library)[0][0],
    )
    return Units(
        engine=engine,
        mac_pj=cell.energy_pj,
        registers_pj=registers_pj,
        register_bits=bits,
        add_pj=lane.add_pj,
        multiply_pj=lane.multiply_pj,
    )


@lru_cache(maxsize=1024)
def area_um2(design: Design) -> Mapping[str, float]:
    """Area by component: ``R C (A_mac + (b_a + b_w + b_p) a_ff)``, memories, lanes, and overhead."""
    mac, library = design.mac, design.library
    register_bits = mac.a_bits + mac.w_bits + mac.accumulator_bits
    register_um2 = register_cost(design.node_nm, library=library).area_um2
    cell_um2 = design.mac_cell().area_um2 + register_bits * register_um2
    area = {
        "array": design.rows * design.columns * cell_um2,
        "vector": design.columns * lane_cost(design.node_nm, library=library).area_um2,
        "scratchpad": design.scratchpad_banks * design.scratchpad_bank().area_um2,
        "accumulator": design.accumulator_banks * design.accumulator_bank().area_um2,
    }
    area["overhead"] = design.overhead * sum(area.values())
    return MappingProxyType(dict(zip(area, exactly(list(area.values())), strict=True)))


@lru_cache(maxsize=1024)
def timing_of(design: Design) -> tuple[Violation, ...]:
    """Parts that need longer than one cycle of the clock."""
    period_ns = 1e3 / design.clock_mhz
    cell = "the single-cycle MAC" if design.mac_stages == 1 else f"a MAC of {design.mac_stages} stages"
    parts = (
        (cell, design.mac_cell().delay_ns),
        ("a scratchpad bank", design.scratchpad_bank().access_ns),
        ("an accumulator bank", design.accumulator_bank().access_ns),
    )
    return tuple(
        Violation(constraint="clock_mhz", needed=needed, available=period_ns, unit="ns", where=part)
        for part, needed in parts
        if needed > period_ns
    )


@lru_cache(maxsize=1024)
def estimates_of(design: Design) -> tuple[str, ...]:
    """Numbers that were scaled or recalled."""
    library = design.library
    memory = offchip_memory(design.offchip, library=library)
    notes = (
        (
            logic_scale(design.node_nm, library=library).scaled,
            f"logic is scaled from {BASE_NODE_NM} to {design.node_nm} nm",
        ),
        (design.scratchpad_bank().scaled, f"SRAM is scaled to {design.node_nm} nm"),
        *((True, note) for note in _unscaled_cell(design).estimates),
        (memory.recalled, f"{memory.name} energy is recalled: {memory.source}"),
    )
    return tuple(note for holds, note in notes if holds)


def _unscaled_cell(design: Design) -> MacCost:
    """Cell at the node of the laws, whose estimates are not those of scaling."""
    cell = mac_cost(design.mac, node_nm=BASE_NODE_NM, library=design.library)
    return cell.pipelined(design.mac_stages) if design.mac_stages > 1 else cell


@lru_cache(maxsize=1024)
def replaced_in(design: Design) -> tuple[str, ...]:
    """What the design's own tables replace, with those of them that none of its costs rests on."""
    library = design.library
    if not library.replaced:
        return ()
    idle = unused_entries(
        library,
        node_nm=design.node_nm,
        cells=design.sram_cells,
        offchip=design.offchip,
        mac=str(design.mac),
    )
    return tuple(f"{entry} (unused)" if entry in idle else entry for entry in library.replaced)
