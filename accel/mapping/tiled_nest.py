"""A tiling of one product as a loop nest, and what a nest moves in the terms of a tiling.

The kernels behind :mod:`accel.mapping.search` know one product, three tile loops and one array;
:mod:`accel.mapping.nest` knows any nest. This is the same tiling in its words::

    Offchip[WIO] <tile loops> - Sums[O] - Pad[WI] <folds of the array> - Cells[W] <streamed loops> <array>

What stays in the cells of the array is kept by one level around all of them, with the array's loops
innermost: a weight that several columns share would be one read, and the sums of a column's cells
are one write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from accel.mapping.nest import Level, Nest, analyse
from accel.mapping.problem import Problem
from accel.mapping.search import Engine
from accel.mapping.tiling import Layer, Tiling

Loops = tuple[tuple[str, int], ...]

_HELD = {"ws": "W", "os": "O", "is": "I"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What one product of a layer moves; fields as those of ``accel.mapping.search.Tiled``."""

    input_bytes: float
    weight_bytes: float
    result_bytes: float
    spill_bytes: float
    input_reads: int
    weight_reads: int
    sum_writes: int
    sum_reads: int

    @property
    def offchip_bytes(self) -> float:
        """All bytes to and from off-chip memory."""
        return self.input_bytes + self.weight_bytes + self.result_bytes + 2 * self.spill_bytes

    def dynamic_pj(self, layer: Layer, engine: Engine, macs: int) -> float:
        """Energy without leakage of `macs` products, by the unit energies of `engine`."""
        read_bits = self.input_reads * layer.a_bits + self.weight_reads * layer.w_bits
        written_bits = 8 * (self.input_bytes + self.weight_bytes)
        return (
            macs * engine.mac_pj
            + read_bits * engine.pad_read_pj_per_bit
            + written_bits * engine.pad_write_pj_per_bit
            + self.sum_writes * engine.sum_write_pj
            + self.sum_reads * engine.sum_read_pj
            + 8 * self.offchip_bytes * engine.offchip_pj_per_bit
        )


def problem_of(layer: Layer) -> Problem:
    """One product of `layer` as loops; windows see the padding as input.

    Raises
    ------
    ValueError
        The layer is a convolution of three axes or more.
    """
    geometry = layer.geometry
    rows, columns = geometry.rows, geometry.columns
    if columns.stride == 0:
        raise ValueError("a convolution of three axes has no nest of two")
    return Problem.convolution(
        n=geometry.samples,
        k=geometry.n,
        c=geometry.k // geometry.taps,
        p=rows.output,
        q=columns.output,
        r=rows.kernel,
        s=columns.kernel,
        stride=(rows.stride, columns.stride),
        dilation=(rows.dilation, columns.dilation),
    )


def nest_of(layer: Layer, tiling: Tiling, engine: Engine) -> Nest:
    """Nest of a tiling whose tiles divide the product, and whose folds divide the tiles.

    Raises
    ------
    ValueError
        A size does not divide.
    """
    geometry = layer.geometry
    channels = tiling.k // geometry.taps
    tile = {
        "N": tiling.samples,
        "P": tiling.rows,
        "Q": tiling.columns,
        "K": tiling.n,
        "C": channels,
        "R": geometry.rows.kernel,
        "S": geometry.columns.kernel,
    }
    sizes = problem_of(layer).sizes
    turns = {loop: _divided(sizes[loop], tile[loop], f"tiles of {loop}") for loop in tile}
    loops = {
        "m": tuple((loop, turns[loop]) for loop in "NPQ"),
        "n": (("K", turns["K"]),),
        "k": (("C", turns["C"]),),
    }
    held = _HELD[engine.dataflow]
    folds, streamed, array = _array(tile, engine)
    return Nest(
        (
            Level("Offchip", ("W", "I", "O"), tuple(turn for axis in tiling.order for turn in loops[axis])),
            Level("Sums", ("O",)),
            Level("Pad", ("W", "I"), folds),
            Level("Cells", (held,), streamed, array),
        )
    )


def _array(tile: Mapping[str, int], engine: Engine) -> tuple[Loops, Loops, Loops]:
    """Folds of one tile, loops that a fold streams, and those that the array unrolls."""
    rows, columns = engine.rows, engine.columns
    if engine.dataflow == "os":
        m_folds, m_array = _unrolled(tile, "QPN", rows)
        n_folds, n_array = _unrolled(tile, "K", columns)
        return m_folds + n_folds, tuple((loop, tile[loop]) for loop in "CRS"), m_array + n_array
    k_folds, k_array = _unrolled(tile, "CSR", rows)
    across, streamed = ("K", "NPQ") if engine.dataflow == "ws" else ("QPN", "K")
    held_folds, held_array = _unrolled(tile, across, columns)
    return held_folds + k_folds, tuple((loop, tile[loop]) for loop in streamed), k_array + held_array


def _unrolled(tile: Mapping[str, int], loops: str, edge: int) -> tuple[Loops, Loops]:
    """Folds and array loops of `loops`, innermost first, flattened over one edge of the array."""
    folds, array, free = [], [], min(edge, prod(tile[loop] for loop in loops))
    for loop in loops:
        inside = min(tile[loop], free)
        folds.append((loop, _divided(tile[loop], inside, f"folds of {loop}")))
        array.append((loop, inside))
        free = _divided(free, inside, f"cells for {loop}")
    return tuple(reversed(folds)), tuple(reversed(array))


def _divided(whole: int, part: int, what: str) -> int:
    if whole % part:
        raise ValueError(f"{what} do not divide: {whole} by {part}")
    return whole // part


def moved_by(problem: Problem, nest: Nest, layer: Layer, engine: Engine) -> Moved:
    """What `nest` moves, at the widths of `layer`.

    The first level is off-chip memory; the next one that keeps a tensor is its on-chip memory, and
    those further in are registers. Partial sums that stay in the cells do not reach it.
    """
    counts = analyse(problem, nest)
    inputs, weights, sums = (list(_keepers(nest, name)) for name in ("I", "W", "O"))
    outside, pad_i, pad_w, buffer = (
        counts.levels[nest.levels[0].name],
        counts.levels[inputs[0]]["I"],
        counts.levels[weights[0]]["W"],
        counts.levels[sums[0]]["O"],
    )
    outputs = problem.output.words(problem.sizes)
    spilled = outside["O"].updates - outputs
    return Moved(
        input_bytes=pad_i.fills * layer.a_bits / 8,
        weight_bytes=pad_w.fills * layer.w_bits / 8,
        result_bytes=outputs * layer.o_bits / 8,
        spill_bytes=spilled * engine.partial_sum_bits / 8,
        input_reads=pad_i.reads,
        weight_reads=pad_w.reads,
        sum_writes=buffer.updates + buffer.fills,
        sum_reads=buffer.reads + buffer.drains,
    )


def _keepers(nest: Nest, tensor: str) -> Iterator[str]:
    return (level.name for level in nest.levels[1:] if tensor in level.keeps)
