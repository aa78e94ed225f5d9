"""Tilings: what the kernels count against an element-by-element walk of the same loops."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.dataflow import array_counts
from accel.mapping.search import Engine, best_tiling, best_tilings, least_tile_bytes, measure_tiling
from accel.mapping.tiling import LOOP_ORDERS, Axis, Geometry, Layer, Tiling, candidates
from oracles import tiles

ENGINE = Engine(
    rows=4,
    columns=3,
    dataflow="ws",
    fold_overlap="serial",
    partial_sum_bits=16,
    tile_bytes=1 << 20,
    sums_per_column=1 << 20,
    pad_read_pj_per_bit=0.1,
    pad_write_pj_per_bit=0.2,
    sum_read_pj=0.6,
    sum_write_pj=0.7,
    offchip_pj_per_bit=8.0,
    mac_pj=1.0,
    leakage_pj_per_cycle=3.0,
    offchip_bytes_per_cycle=4.0,
    port_bits=64,
)


def plain(m, n, k, **change):
    geometry = Geometry(1, Axis(m, m), Axis(1, 1), n, k, 1, 1.0)
    settings = {"count": 1, "a_bits": 8.0, "w_bits": 8.0, "o_bits": 8.0, "w_share": 1.0, "o_share": 1.0}
    return Layer(geometry=geometry, **{**settings, **change})


@st.composite
def axes(draw):
    kernel, stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    padding = draw(st.integers(0, kernel - 1))
    extent = (kernel - 1) * dilation + 1
    size = draw(st.integers(max(1, extent - 2 * padding), 12))
    return Axis((size + 2 * padding - extent) // stride + 1, size, kernel, stride, dilation, padding)


@st.composite
def geometries(draw):
    rows, columns = draw(axes()), draw(axes())
    taps = rows.kernel * columns.kernel
    channels = draw(st.integers(1, 4))
    return Geometry(
        draw(st.integers(1, 3)), rows, columns, draw(st.integers(1, 6)), channels * taps, taps, 1.0
    )


@st.composite
def tilings(draw, geometry):
    whole = draw(st.booleans())  # samples are cut, or one sample is
    rows, columns = geometry.rows.output, geometry.columns.output
    return Tiling(
        samples=draw(st.integers(1, geometry.samples)) if whole else 1,
        rows=rows if whole else draw(st.integers(1, rows)),
        columns=columns if whole else draw(st.integers(1, columns)),
        n=draw(st.integers(1, geometry.n)),
        k=draw(st.integers(1, geometry.k // geometry.taps)) * geometry.taps,
        order=draw(st.sampled_from(LOOP_ORDERS)),
    )


@settings(max_examples=300, deadline=None)
@given(st.data(), geometries(), st.sampled_from(["os", "ws", "is"]), st.integers(1, 5), st.integers(1, 5))
def test_counts_equal_a_walk_of_the_loops(data, geometry, dataflow, rows, columns):
    tiling = data.draw(tilings(geometry))
    layer = Layer(geometry, 1, 8.0, 4.0, 16.0, 1.0, 1.0)
    engine = replace(ENGINE, dataflow=dataflow, rows=rows, columns=columns)
    found = measure_tiling(tiling, layer, engine)
    counts = tiles.walk(geometry, tiling, rows, columns, dataflow)
    assert found.weight_bytes == tiles.rounded(counts["w"], 4)
    assert found.input_bytes == counts["a"]
    assert found.result_bytes == 2 * geometry.m * geometry.n
    assert found.spill_bytes == 2 * counts["spilled"]
    assert found.array_cycles == counts["cycles"]
    assert (found.input_reads, found.weight_reads) == (counts["a_reads"], counts["w_reads"])
    assert (found.sum_writes, found.sum_reads) == (counts["sum_writes"], counts["sum_reads"])
    # A single tile needs one buffer; a stationary operand of which each fetched element is read once
    # needs two loads of the array.
    a_bytes = (1 if counts["a_fetches"] == 1 else 2) * counts["a_tile"]
    w_bits = (1 if counts["w_fetches"] == 1 else 2) * counts["w_tile"] * 4
    if dataflow == "ws" and counts["w"] == counts["w_reads"]:
        w_bits = min(w_bits, 2 * rows * columns * 4)
    if dataflow == "is" and counts["a_used"] == counts["a_reads"] and geometry.taps == 1:
        a_bytes = min(a_bytes, 2 * rows * columns)
    assert found.tile_bytes == a_bytes + -(-w_bits // 8)


@given(
    st.sampled_from(["os", "ws", "is"]),
    st.sampled_from(["serial", "pipelined"]),
    *(st.integers(1, 9) for _ in range(5)),
)
def test_one_tile_is_what_the_array_does(dataflow, overlap, rows, columns, m, n, k):
    engine = replace(ENGINE, dataflow=dataflow, fold_overlap=overlap, rows=rows, columns=columns)
    found = measure_tiling(Tiling(rows=m, n=n, k=k), plain(m, n, k), engine)
    counts = array_counts(dataflow, rows, columns, m, n, k, overlap)
    assert found.array_cycles == counts.cycles
    assert (found.input_reads, found.weight_reads) == (counts.input_reads, counts.weight_reads)
    assert found.sum_writes == counts.partial_sum_writes
    assert found.sum_reads == counts.partial_sum_reads + m * n


@given(st.data(), geometries(), st.sampled_from(["os", "ws", "is"]))
def test_pipelined_tiles_add_up(data, geometry, dataflow):
    tiling = data.draw(tilings(geometry))
    engine = replace(ENGINE, dataflow=dataflow, fold_overlap="pipelined")
    found = measure_tiling(tiling, Layer(geometry, 2, 8.0, 8.0, 8.0, 1.0, 1.0), engine)
    m_parts = [
        len(b) * len(p) * len(q)
        for b in tiles.chunks(geometry.samples, tiling.samples)
        for p in tiles.chunks(geometry.rows.output, tiling.rows)
        for q in tiles.chunks(geometry.columns.output, tiling.columns)
    ]
    assert found.array_cycles == 2 * sum(
        array_counts(dataflow, 4, 3, m, len(n), len(k), "pipelined").cycles
        for m in m_parts
        for n in tiles.chunks(geometry.n, tiling.n)
        for k in tiles.chunks(geometry.k, tiling.k)
    )


def test_the_six_orders_by_hand():
    # 4 x 3 x 5 tiles of 2 x 3 x 4.
    layer = plain(8, 9, 20)
    a, w, o = 8 * 20, 9 * 20, 8 * 9
    expected = {
        "mnk": (a * 3, w * 4, 0),
        "nmk": (a * 3, w * 4, 0),
        "mkn": (a, w * 4, o * 4),
        "nkm": (a * 3, w, o * 4),
        "kmn": (a, w * 4, o * 4),
        "knm": (a * 3, w, o * 4),
    }
    for order, (a_words, w_words, spilled) in expected.items():
        found = measure_tiling(Tiling(rows=2, n=3, k=4, order=order), layer, ENGINE)
        assert (found.input_bytes, found.weight_bytes, found.spill_bytes) == (a_words, w_words, 2 * spilled)
        assert found.result_bytes == o


def test_a_loop_of_one_turn_is_no_loop():
    found = measure_tiling(Tiling(rows=2, n=9, k=20, order="mnk"), plain(8, 9, 20), ENGINE)
    assert (found.input_bytes, found.weight_bytes) == (160, 180)


def test_partial_sums_travel_at_the_accumulators_width():
    tiling = Tiling(rows=2, n=3, k=4, order="kmn")
    narrow, wide = (
        measure_tiling(tiling, plain(8, 9, 20), replace(ENGINE, partial_sum_bits=bits)) for bits in (16, 32)
    )
    assert wide.spill_bytes == 2 * narrow.spill_bytes > 0
    assert wide.result_bytes == narrow.result_bytes


def test_a_tensor_that_stays_moves_nothing():
    tiling = Tiling(rows=2, n=3, k=4)
    for place, name in enumerate(("input_bytes", "weight_bytes", "result_bytes")):
        stays = tuple(i == place for i in range(3))
        found = measure_tiling(tiling, plain(8, 9, 20), ENGINE, stays=stays)
        assert getattr(found, name) == 0
        assert found.offchip_bytes < measure_tiling(tiling, plain(8, 9, 20), ENGINE).offchip_bytes


def test_sums_that_wait_need_room():
    def sums(dataflow, tiling):
        return measure_tiling(tiling, plain(40, 30, 20), replace(ENGINE, dataflow=dataflow)).sums_per_column

    assert sums("ws", Tiling(rows=10, n=30, k=20)) == 10  # five folds of k, one group of columns at a time
    assert sums("is", Tiling(rows=10, n=30, k=20)) == 30
    assert sums("os", Tiling(rows=10, n=30, k=20)) == 0
    assert sums("ws", Tiling(rows=10, n=30, k=4)) == 100  # ten groups of three columns wait for the next k
    assert sums("is", Tiling(rows=10, n=30, k=4)) == 120


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 9}, "rows of a tile must be in 1..8, got 9"),
        ({"n": 10}, "n of a tile must be in 1..9, got 10"),
        ({"columns": 2}, "columns of a tile must be in 1..1, got 2"),
    ],
)
def test_tiles_beyond_the_product_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        measure_tiling(Tiling(**{"rows": 8, "n": 9, "k": 20, **change}), plain(8, 9, 20), ENGINE)


def test_a_tile_of_k_holds_whole_channels():
    geometry = Geometry(1, Axis(4, 6, 3), Axis(4, 6, 3), 2, 18, 9, 1.0)
    with pytest.raises(ValueError, match="multiple of the window's 9, got 10"):
        measure_tiling(
            Tiling(rows=4, columns=4, n=2, k=10), Layer(geometry, 1, 8.0, 8.0, 8.0, 1.0, 1.0), ENGINE
        )


@pytest.mark.parametrize(("field", "value"), [("n", 0), ("order", "abc")])
def test_a_bad_tiling_is_refused(field, value):
    with pytest.raises(ValueError, match=f"{field}.* got {value!r}"):
        Tiling(**{"rows": 1, "n": 1, "k": 1, field: value})


KEYS = {
    "energy": lambda found: found.dynamic_pj + 3.0 * found.cycles,
    "cycles": lambda found: found.cycles,
    "edp": lambda found: (found.dynamic_pj + 3.0 * found.cycles) * found.cycles,
}


@settings(max_examples=40, deadline=None)
@given(
    geometries(),
    st.sampled_from(["os", "ws", "is"]),
    st.sampled_from(["serial", "pipelined"]),
    st.integers(20, 400),
    st.integers(1, 20),
    st.sampled_from(["balanced", "offchip", "energy", "cycles", "edp"]),
    st.sampled_from([1.0, 1.4, inf]),
)
def test_the_best_is_the_best_of_all_candidates(geometry, dataflow, folds, size, sums, objective, overlap):
    layer = Layer(geometry, 1, 8.0, 8.0, 8.0, 1.0, 1.0)
    engine = replace(
        ENGINE, dataflow=dataflow, fold_overlap=folds, tile_bytes=size, sums_per_column=sums, overlap=overlap
    )
    tried = candidates(geometry, engine.rows, engine.columns)
    everything = [
        measure_tiling(
            Tiling(samples=b, rows=p, columns=q, n=int(n[0]), k=int(k[0]), order=order), layer, engine
        )
        for b, p, q in tried.tiles
        for n in tried.ns
        for k in tried.ks
        for order in LOOP_ORDERS
    ]
    room = [found for found in everything if found.sums_per_column <= sums]
    fitting = [found for found in room if found.tile_bytes <= size]
    best = best_tiling(layer, engine, objective)
    if not fitting:
        assert best is None
        return
    assert best.tile_bytes <= size
    assert best.sums_per_column <= sums
    assert measure_tiling(best.tiling, layer, engine) == replace(best, looked_at=1)
    if objective in KEYS:
        assert KEYS[objective](best) == pytest.approx(min(map(KEYS[objective], fitting)), rel=1e-12)
        return
    quick = min(found.array_cycles for found in room)
    allowed, below, above = [], inf, 0
    for slack in (
        (1.5, 4, inf) if objective == "balanced" else (inf,)
    ):  # slower ones only where they need less than any quicker one
        level = [found for found in room if above < found.array_cycles <= slack * quick]
        allowed += [found for found in level if found.tile_bytes < below and found.tile_bytes <= size]
        below = min([below, *(found.tile_bytes for found in level)])
        above = slack * quick
    assert allowed
    assert best.offchip_bytes == min(found.offchip_bytes for found in allowed)
    ties = [found for found in allowed if found.offchip_bytes == best.offchip_bytes]
    dynamic = [(found.dynamic_pj) * found.array_cycles for found in ties]
    assert best.dynamic_pj * best.array_cycles == pytest.approx(min(dynamic), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(geometries(), st.lists(st.integers(10, 600), min_size=2, max_size=6, unique=True))
def test_reserves_together_are_reserves_alone(geometry, sizes):
    layer, sizes = Layer(geometry, 1, 8.0, 8.0, 8.0, 1.0, 1.0), sorted(sizes)
    for objective in ("balanced", "offchip", "energy"):
        together = best_tilings(layer, ENGINE, objective, sizes)
        for size, found in zip(sizes, together, strict=True):
            (alone,) = best_tilings(layer, ENGINE, objective, [size])
            assert (found is None) == (alone is None)
            if found is not None:
                assert found.offchip_bytes == alone.offchip_bytes
                assert found.dynamic_pj == pytest.approx(alone.dynamic_pj)
        moved = [found.offchip_bytes for found in together if found is not None]
        assert objective == "energy" or moved == sorted(moved, reverse=True)


@settings(max_examples=60, deadline=None)
@given(geometries())
def test_the_smallest_tile_fits_and_nothing_smaller_does(geometry):
    layer = Layer(geometry, 1, 8.0, 8.0, 8.0, 1.0, 1.0)
    least = least_tile_bytes(layer, ENGINE)
    assert best_tiling(layer, replace(ENGINE, tile_bytes=least), "energy") is not None
    assert best_tiling(layer, replace(ENGINE, tile_bytes=least - 1), "energy") is None


@settings(max_examples=60)
@given(
    *(st.integers(1, 60) for _ in range(3)), st.integers(100, 5000), st.sampled_from(["offchip", "energy"])
)
def test_traffic_is_never_below_the_bounds_of_a_matrix_product(m, n, k, size, objective):
    found = best_tiling(plain(m, n, k), replace(ENGINE, tile_bytes=size), objective)
    if found is None:
        return
    words = found.input_bytes + found.weight_bytes + found.result_bytes + found.spill_bytes
    assert words >= m * k + k * n + m * n
    # Smith et al., arXiv 1702.02017: 2 m n k / sqrt(Z) - 2 Z, Z words on chip, sums among them.
    onchip = size + found.tiling.m * found.tiling.n
    assert words >= 2 * m * n * k / onchip**0.5 - 2 * onchip


def test_products_that_share_a_weight_fetch_it_once_if_it_is_held():
    # Twelve steps of a recurrent layer: 4 x 20 times 20 x 30, one weight of 600 bytes.
    layer = plain(4, 30, 20, count=12, w_repeat=12)
    held = measure_tiling(Tiling(rows=4, n=30, k=20), layer, ENGINE)
    assert held.weight_bytes == 600
    assert held.tile_bytes == 600 + 2 * 4 * 20
    cut = measure_tiling(Tiling(rows=4, n=15, k=20), layer, ENGINE)
    assert cut.weight_bytes == 12 * 600
    assert best_tiling(layer, replace(ENGINE, tile_bytes=760)).weight_bytes == 600
    assert best_tiling(layer, replace(ENGINE, tile_bytes=759)).weight_bytes == 12 * 600
    alone = plain(4, 30, 20, count=12)
    assert best_tiling(alone, ENGINE).weight_bytes == 12 * 600


def test_products_that_share_an_input_fetch_it_once_if_it_is_held():
    layer = plain(4, 30, 20, count=12, a_repeat=12)
    assert measure_tiling(Tiling(rows=4, n=30, k=20), layer, ENGINE).input_bytes == 80
    assert measure_tiling(Tiling(rows=2, n=30, k=20), layer, ENGINE).input_bytes == 12 * 80


@settings(max_examples=150, deadline=None)
@given(
    *(st.integers(1, 300) for _ in range(3)),
    st.integers(40, 3000),
    st.integers(1, 3000),
    st.sampled_from(["os", "ws", "is"]),
    st.sampled_from(["serial", "pipelined"]),
    st.integers(1, 64),
)
def test_a_larger_reserve_never_moves_more(m, n, k, size, more, dataflow, folds, sums):
    engine = replace(ENGINE, rows=8, columns=16, dataflow=dataflow, fold_overlap=folds, sums_per_column=sums)
    small, large = (
        best_tiling(plain(m, n, k), replace(engine, tile_bytes=found)) for found in (size, size + more)
    )
    if small is not None:
        assert large.offchip_bytes <= small.offchip_bytes
