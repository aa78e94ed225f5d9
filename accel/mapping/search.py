"""The best tiling of a product on an engine: exhaustive over stated candidates, pruned by bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float

from accel.dataflow import DATAFLOWS, Dataflow, FoldOverlap
from accel.mapping import _tilings as kernel
from accel.mapping.tiling import (
    LOOP_ORDERS,
    Layer,
    Tiling,
    candidates,
    m_rows,
    plain_rows,
    product_row,
)

Objective: TypeAlias = Literal["balanced", "offchip", "energy", "cycles", "edp"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
Stays: TypeAlias = tuple[bool, bool, bool]

# Array cycles, relative to the fewest, that a tiling may take to spare traffic, level by level.
_SLACKS = (1.5, 4.0, inf)
_KERNEL_OBJECTIVES = ("offchip", "energy", "cycles", "edp")

NOTHING_STAYS: Stays = (False, False, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What a design offers one product, with what its parts cost.

    Attributes
    ----------
    rows, columns, dataflow, fold_overlap
        Of the array.
    partial_sum_bits
        Of the accumulator.
    tile_bytes
        Scratchpad for tiles.
    sums_per_column
        Of the accumulator buffer.
    pad_read_pj_per_bit, pad_write_pj_per_bit, sum_read_pj, sum_write_pj, offchip_pj_per_bit, mac_pj
        Energies; `mac_pj` with the registers that it clocks.
    leakage_pj_per_cycle
        Of both memories.
    offchip_bytes_per_cycle, port_bits
        Bandwidths, `port_bits` that of the scratchpad in bits per cycle.
    overlap
        Exponent of ``(compute**p + transfer**p)**(1/p)``: infinity is perfect overlap, 1 is none.
    extra_stages
        Stages of a pipelined cell beyond the first; each fold fills them once.
    least_tile_bytes
        Of any scratchpad: no tiling is chosen for the sake of a smaller one.
    """

    rows: int
    columns: int
    dataflow: Dataflow
    fold_overlap: FoldOverlap
    partial_sum_bits: int
    tile_bytes: int
    sums_per_column: int
    pad_read_pj_per_bit: float
    pad_write_pj_per_bit: float
    sum_read_pj: float
    sum_write_pj: float
    offchip_pj_per_bit: float
    mac_pj: float
    leakage_pj_per_cycle: float
    offchip_bytes_per_cycle: float
    port_bits: int
    overlap: float = inf
    extra_stages: int = 0
    least_tile_bytes: int = 0

    def row(self) -> Float[np.ndarray, " 18"]:
        """Row as the kernels read it."""
        return np.array(
            [
                self.rows,
                self.columns,
                DATAFLOWS.index(self.dataflow),
                self.fold_overlap == "pipelined",
                8.0 * self.tile_bytes,
                self.sums_per_column,
                self.pad_read_pj_per_bit,
                self.pad_write_pj_per_bit,
                self.sum_read_pj,
                self.sum_write_pj,
                self.offchip_pj_per_bit,
                self.leakage_pj_per_cycle,
                self.offchip_bytes_per_cycle,
                self.port_bits,
                self.overlap,
                self.extra_stages,
                self.mac_pj,
                8.0 * self.least_tile_bytes,
            ],
            dtype=np.float64,
        )


@dataclass(frozen=True, slots=True)
class Tiled:
    """A tiling with what it moves; bytes and counts are those of the whole operator.

    Attributes
    ----------
    input_bytes, weight_bytes
        Fetched from off-chip memory, 0 for an operand that stays in the scratchpad.
    result_bytes
        Stored off chip, 0 for a result that stays.
    spill_bytes
        Partial sums that leave unfinished; as many bytes come back.
    array_cycles
        On the array alone.
    input_reads, weight_reads
        Elements from the scratchpad into the array.
    sum_writes, sum_reads
        Sums into and out of the accumulator buffer.
    first_load_bytes, last_drain_bytes
        That nothing can overlap.
    cycles
        With transfers and ports.
    dynamic_pj
        Energy without leakage.
    tile_bytes, sums_per_column
        Needed of the scratchpad and of the accumulator buffer.
    looked_at
        Tilings that the search measured or bounded.
    stays
        Which of A, W and the result lie in the scratchpad as whole tensors.
    """

    tiling: Tiling
    input_bytes: int
    weight_bytes: int
    result_bytes: int
    spill_bytes: int
    array_cycles: int
    input_reads: int
    weight_reads: int
    sum_writes: int
    sum_reads: int
    first_load_bytes: int
    last_drain_bytes: int
    cycles: int
    dynamic_pj: float
    tile_bytes: int
    sums_per_column: int
    looked_at: int = 0
    stays: Stays = (False, False, False)

    @property
    def offchip_bytes(self) -> int:
        """All bytes to and from off-chip memory."""
        return self.input_bytes + self.weight_bytes + self.result_bytes + 2 * self.spill_bytes


def best_tiling(
    layer: Layer,
    engine: Engine,
    objective: Objective = "balanced",
    *,
    stays: Stays = NOTHING_STAYS,
    vector_cycles: int = 0,
) -> Tiled | None:
    """Best tiling of `layer` that fits `engine`, ``None`` if none does; see :func:`best_tilings`."""
    (found,) = best_tilings(
        layer, engine, objective, (engine.tile_bytes,), stays=stays, vector_cycles=vector_cycles
    )
    return found


def best_tilings(
    layer: Layer,
    engine: Engine,
    objective: Objective,
    reserves_bytes: Sequence[int],
    *,
    stays: Stays = NOTHING_STAYS,
    vector_cycles: int = 0,
) -> tuple[Tiled | None, ...]:
    """Best tiling for each of several tile reserves, in place of the engine's; ``None`` if none fits.

    Parameters
    ----------
    objective
        ``"balanced"``: of the tilings that take at most 1.5 times the fewest cycles on the array that of
        least off-chip traffic, and then of least dynamic energy times array cycles. Slower tilings (up
        to 4 times, then any) are allowed where they need less scratchpad than any quicker one, and
        nowhere else. ``"offchip"``: of all tilings that of least traffic, and so on. Neither choice
        depends on bandwidth, and with both a larger reserve never moves more.
        ``"energy"``: dynamic energy and leakage; ``"cycles"``; or ``"edp"``, their product.
    reserves_bytes
        Scratchpad for tiles, ascending.
    stays
        Whether A, W and the result lie in the scratchpad as whole tensors.
    vector_cycles
        Of the vector unit, which works beside the array.
    """
    tried = candidates(layer.geometry, engine.rows, engine.columns)
    places, ks = kernel.PLACES, tried.ks
    if all(stays):  # tiles serve the accumulator buffer alone, and cutting k never helps it
        places, ks = places[:1], ks[-1:]
    product = product_row(layer, engine.partial_sum_bits, stays=stays, vector_cycles=vector_cycles)
    row = engine.row()
    picks = np.empty((len(reserves_bytes), 4), dtype=np.int64)
    looked_at = kernel.search(
        product,
        row,
        tried.ms,
        tried.ns,
        ks,
        places,
        _KERNEL_OBJECTIVES.index("offchip" if objective == "balanced" else objective),
        np.array(_SLACKS if objective == "balanced" else (inf,)),
        8.0 * np.array(reserves_bytes, dtype=np.float64),
        picks,
    )
    found: dict[tuple[int, ...], Tiled | None] = {(-1, -1, -1, -1): None}
    for pick in map(tuple, picks.tolist()):
        if pick not in found:
            i, j, c, order = pick
            out = np.empty(kernel.RESULTS)
            kernel.measure(product, row, tried.ms[i], tried.ns[j], ks[c], order, places, out)
            samples, rows, columns = tried.tiles[i]
            tiling = Tiling(
                samples=samples,
                rows=rows,
                columns=columns,
                n=int(tried.ns[j, kernel.T_LARGEST]),
                k=int(ks[c, kernel.T_LARGEST]),
                order=LOOP_ORDERS[order],
            )
            found[pick] = _tiled(tiling, out, looked_at, stays)
    return tuple(found[pick] for pick in map(tuple, picks.tolist()))


def measure_tiling(
    tiling: Tiling,
    layer: Layer,
    engine: Engine,
    *,
    stays: Stays = NOTHING_STAYS,
    vector_cycles: int = 0,
) -> Tiled:
    """What a given tiling moves, whether or not it fits.

    Raises
    ------
    ValueError
        A tile is larger than the product, or k cuts an input channel.
    """
    geometry = layer.geometry
    for name, most in (
        ("samples", geometry.samples),
        ("rows", geometry.rows.output),
        ("columns", geometry.columns.output),
        ("n", geometry.n),
        ("k", geometry.k),
    ):
        if (size := getattr(tiling, name)) > most:
            raise ValueError(f"{name} of a tile must be in 1..{most}, got {size}")
    if tiling.k % geometry.taps:
        raise ValueError(f"k of a tile must be a multiple of the window's {geometry.taps}, got {tiling.k}")
    out = np.empty(kernel.RESULTS)
    kernel.measure(
        product_row(layer, engine.partial_sum_bits, stays=stays, vector_cycles=vector_cycles),
        engine.row(),
        m_rows(geometry, [(tiling.samples, tiling.rows, tiling.columns)], engine.rows, engine.columns)[0],
        plain_rows(geometry.n, [tiling.n], engine.columns)[0],
        plain_rows(geometry.k, [tiling.k], engine.rows)[0],
        LOOP_ORDERS.index(tiling.order),
        kernel.PLACES,
        out,
    )
    return _tiled(tiling, out, 1, stays)


def least_tile_bytes(layer: Layer, engine: Engine, stays: Stays = NOTHING_STAYS) -> int:
    """Scratchpad bytes that the smallest tile of `layer` needs."""
    tried = candidates(layer.geometry, engine.rows, engine.columns)
    bits: float = kernel.least_held_bits(
        product_row(layer, engine.partial_sum_bits, stays=stays),
        engine.row(),
        tried.ms,
        tried.ns,
        tried.ks,
        kernel.PLACES,
    )
    return ceil(bits / 8)


def _tiled(tiling: Tiling, out: Float[np.ndarray, " 15"], looked_at: int, stays: Stays) -> Tiled:
    numbers = [int(value) for value in out]
    return Tiled(
        tiling,
        numbers[kernel.FILL_A],
        numbers[kernel.FILL_W],
        numbers[kernel.STORE],
        numbers[kernel.SPILL],
        numbers[kernel.ARRAY_CYCLES],
        numbers[kernel.READS_A],
        numbers[kernel.READS_W],
        numbers[kernel.SUM_WRITES],
        numbers[kernel.SUM_READS],
        numbers[kernel.FIRST_LOAD],
        numbers[kernel.LAST_DRAIN],
        numbers[kernel.CYCLES],
        float(out[kernel.DYNAMIC_PJ]),
        numbers[kernel.TILE_BYTES],
        numbers[kernel.SUMS_NEEDED],
        looked_at,
        stays,
    )
