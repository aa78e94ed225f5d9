"""The kernels that measure a tiling against the engine that counts any loop nest.

They share no code: one has closed formulas for three tile loops around an array, the other walks the
loops of every level. Sizes are products of tiles, tiles of folds, so that nothing is rounded.
"""

from __future__ import annotations

from math import prod

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from accel.mapping.search import Engine, Tiled, measure_tiling
from accel.mapping.tiled_nest import Moved, moved_by, nest_of, problem_of
from accel.mapping.tiling import LOOP_ORDERS, Axis, Geometry, Layer, Tiling

FIELDS = tuple(Moved.__slots__)


def engine(dataflow: str, rows: int, columns: int) -> Engine:
    return Engine(
        rows=rows,
        columns=columns,
        dataflow=dataflow,  # type: ignore[arg-type]
        fold_overlap="serial",
        partial_sum_bits=24,
        tile_bytes=1 << 20,
        sums_per_column=1 << 20,
        pad_read_pj_per_bit=0.3,
        pad_write_pj_per_bit=0.4,
        sum_read_pj=1.5,
        sum_write_pj=1.7,
        offchip_pj_per_bit=8.0,
        mac_pj=0.25,
        leakage_pj_per_cycle=0.0,
        offchip_bytes_per_cycle=16.0,
        port_bits=256,
    )


def plain(m: int, n: int, k: int) -> Layer:
    return layer(Geometry(1, Axis(m, m), Axis(1, 1), n, k, 1, 1.0))


def layer(geometry: Geometry) -> Layer:
    return Layer(geometry=geometry, count=1, a_bits=8.0, w_bits=16.0, o_bits=8.0, w_share=1.0, o_share=1.0)


def both(some: Layer, tiling: Tiling, on: Engine) -> tuple[Tiled, Moved]:
    return measure_tiling(tiling, some, on), moved_by(problem_of(some), nest_of(some, tiling, on), some, on)


FACTOR = st.sampled_from([1, 2, 3, 4])


@st.composite
def products(draw: st.DrawFn) -> tuple[Layer, Tiling, Engine, tuple[int, int, int], tuple[int, ...]]:
    """A product, its tiling, an engine; tiles of m, n and k; folds that a tile of each takes.

    The loops of an axis that lies across the array fold, the others stream.
    """
    dataflow = draw(st.sampled_from(["os", "ws", "is"]))
    rows, columns = draw(st.sampled_from([(2, 4), (4, 2), (4, 4), (1, 3)]))
    edges = {"os": (rows, columns, 0), "ws": (0, columns, rows), "is": (columns, 0, rows)}[dataflow]
    tiles, tile, folds = [], [], []
    for edge in edges:
        fold = draw(FACTOR)
        # Either a part of the edge, or whole multiples of it.
        inside = draw(st.integers(1, max(1, edge))) if fold == 1 else max(1, edge)
        tiles.append(draw(FACTOR))
        tile.append(fold * inside)
        folds.append(fold if edge else 1)
    m, n, k = (count * size for count, size in zip(tiles, tile, strict=True))
    tiling = Tiling(rows=tile[0], n=tile[1], k=tile[2], order=draw(st.sampled_from(LOOP_ORDERS)))
    return (
        plain(m, n, k),
        tiling,
        engine(dataflow, rows, columns),
        (tiles[0], tiles[1], tiles[2]),
        tuple(folds),
    )


def array_keeps(tiling: Tiling, tiles: tuple[int, int, int], folds: tuple[int, ...], dataflow: str) -> bool:
    """Whether what the cells hold stays there from one tile to the next.

    One fold holds a whole tile of it, and the innermost tile loop does not change it. A nest counts no
    load then; the array of the kernels is loaded, and drained, for every tile.
    """
    turns = dict(zip("mnk", tiles, strict=True))
    innermost = next((axis for axis in reversed(tiling.order) if turns[axis] > 1), None)
    return prod(folds) == 1 and innermost == {"ws": "m", "is": "n", "os": "k"}[dataflow]


@given(products())
def test_a_product_moves_what_its_nest_moves(
    case: tuple[Layer, Tiling, Engine, tuple[int, int, int], tuple[int, ...]],
) -> None:
    some, tiling, on, tiles, folds = case
    measured, moved = both(some, tiling, on)
    held = {"ws": {"weight_reads"}, "is": {"input_reads"}, "os": {"sum_writes", "sum_reads"}}[on.dataflow]
    stays = array_keeps(tiling, tiles, folds, on.dataflow)
    for name in FIELDS:
        if stays and name in held:
            assert getattr(moved, name) < getattr(measured, name)
        else:
            assert getattr(moved, name) == getattr(measured, name), name
    if not stays:
        energy = moved.dynamic_pj(some, on, some.macs)
        assert energy == pytest.approx(measured.dynamic_pj, rel=1e-12)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Layer, Tiling, Engine]:
    """Convolutions without padding whose windows overlap or meet, on a weight-stationary engine."""
    rows = columns = 4
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (2, 3), (1, 4)]))
    stride = draw(st.integers(1, kernel[0])), draw(st.integers(1, kernel[1]))
    tile = [draw(FACTOR) for _ in range(3)]
    turns = [draw(FACTOR) for _ in range(3)]
    outputs = [count * size for count, size in zip(turns, tile, strict=True)]
    axes = [
        Axis(output, (output - 1) * step + window, window, step)
        for output, step, window in zip(outputs[1:], stride, kernel, strict=True)
    ]
    # Two folds or more, so that the array is loaded for every tile in a nest, too.
    channels, tiles_k = rows * draw(st.integers(2, 3)), draw(FACTOR)
    filters, tiles_n = columns * draw(FACTOR), draw(FACTOR)
    # Samples are cut alone, rows within one sample, columns within rows.
    assume(tile[1:] == outputs[1:] or tile[0] == 1)
    taps = prod(kernel)
    geometry = Geometry(outputs[0], axes[0], axes[1], filters * tiles_n, channels * tiles_k * taps, taps, 1.0)
    tiling = Tiling(
        samples=tile[0],
        rows=tile[1],
        columns=tile[2],
        n=filters,
        k=channels * taps,
        order=draw(st.sampled_from(LOOP_ORDERS)),
    )
    return layer(geometry), tiling, engine("ws", rows, columns)


def nest_keeps_as_much(some: Layer, tiling: Tiling) -> bool:
    """Whether a nest reuses the lines that windows share where the kernels do.

    Both do if the innermost tile loop slides, and none if other channels come between two tiles. If only
    the filters change between them the tile is still there, and the kernels alone reuse it.
    """
    geometry, order = some.geometry, tiling.order
    turns = {
        "m": geometry.m // tiling.m,
        "n": geometry.n // tiling.n,
        "k": geometry.k // tiling.k,
    }
    innermost = next((axis for axis in reversed(order) if turns[axis] > 1), "m")
    return innermost == "m" or (turns["k"] > 1 and order.index("k") > order.index("m"))


@given(convolutions())
@example(
    (
        layer(Geometry(1, Axis(8, 10, 3), Axis(8, 10, 3), 4, 36, 9, 1.0)),
        Tiling(rows=2, columns=8, n=4, k=36, order="mnk"),
        engine("ws", 4, 4),
    )
)
def test_windows_that_slide_fetch_the_lines_that_are_new(case: tuple[Layer, Tiling, Engine]) -> None:
    some, tiling, on = case
    measured, moved = both(some, tiling, on)
    for name in set(FIELDS) - {"input_bytes"}:
        assert getattr(moved, name) == getattr(measured, name), name
    if nest_keeps_as_much(some, tiling):
        assert moved.input_bytes == measured.input_bytes
    else:
        assert moved.input_bytes >= measured.input_bytes


def test_tiles_and_folds_must_divide() -> None:
    some, on = plain(6, 6, 6), engine("ws", 4, 2)
    with pytest.raises(ValueError, match="tiles of P do not divide: 6 by 4"):
        nest_of(some, Tiling(rows=4, n=2, k=2), on)
    with pytest.raises(ValueError, match="folds of C do not divide: 6 by 4"):
        nest_of(some, Tiling(rows=3, n=2, k=6), on)


def test_the_nest_of_a_tiling_can_be_read() -> None:
    nest = nest_of(plain(64, 16, 32), Tiling(rows=16, n=8, k=32, order="nmk"), engine("ws", 4, 4))
    assert str(nest) == (
        "Offchip[WIO] K2 N1 P4 Q1 C1 - Sums[O] - Pad[WI] K2 R1 S1 C8 - Cells[W] N1 P16 Q1 R1X S1X C4X K4X"
    )
