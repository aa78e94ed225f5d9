"""The SRAM table: exact where it is smooth, monotone everywhere, refused outside."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.hardware.sram import build_table, sram_cost, sram_range

NODES_CELLS = st.tuples(st.sampled_from([45, 32, 28, 22, 7]), st.sampled_from(["lop", "hp", "lstp"]))
LOG2_SIZES = st.floats(10, 24)
LOG2_WIDTHS = st.floats(3, 9)


# Printed by CACTI 7 for 45 nm low-operating-power cells: size, width, read pJ, write pJ, leakage mW.
@pytest.mark.parametrize(
    ("size_bytes", "width_bits", "read_pj", "write_pj", "leakage_mw"),
    [
        (1024, 16, 0.57384, 0.57488, 0.057402),
        (8192, 64, 3.1622, 3.2442, 0.344276),
        (65536, 64, 10.789, 8.1954, 2.183494),
        (1048576, 512, 205.53, 214.9, 30.59745),
    ],
)
def test_a_point_of_the_table_is_returned_as_printed(size_bytes, width_bits, read_pj, write_pj, leakage_mw):
    cost = sram_cost(size_bytes, width_bits)
    assert cost.read_pj == pytest.approx(read_pj)
    assert cost.write_pj == pytest.approx(write_pj)
    assert cost.leakage_mw == pytest.approx(leakage_mw, rel=0.15)  # falls a little with width: levelled
    assert not cost.scaled


def test_a_held_out_point_lies_between_its_neighbours():
    # 64 KB x 32 bit is absent; CACTI's neighbours along width read 7.7069 and 10.789 pJ.
    assert 7.7069 < sram_cost(65536, 32).read_pj < 10.789


def test_between_grid_points_energy_is_a_straight_line_in_logarithms():
    low, mid, high = (sram_cost(65536, width).read_pj for width in (64, 64 * math.sqrt(2), 128))
    assert mid == pytest.approx(math.sqrt(low * high))


@given(NODES_CELLS, LOG2_SIZES, LOG2_WIDTHS, st.floats(0, 3))
def test_a_larger_memory_never_costs_less(node_cells, log2_size, log2_width, step):
    small = sram_cost(2.0**log2_size, 2.0**log2_width, *node_cells)
    large = sram_cost(2.0 ** min(24, log2_size + step), 2.0**log2_width, *node_cells)
    for name in ("read_pj", "write_pj", "area_um2", "leakage_mw", "access_ns"):
        assert getattr(large, name) >= getattr(small, name) * (1 - 1e-9)


@given(NODES_CELLS, LOG2_SIZES, LOG2_WIDTHS, st.floats(0, 3))
def test_a_wider_word_never_costs_less(node_cells, log2_size, log2_width, step):
    narrow = sram_cost(2.0**log2_size, 2.0**log2_width, *node_cells)
    wide = sram_cost(2.0**log2_size, 2.0 ** min(9, log2_width + step), *node_cells)
    for name in ("read_pj", "write_pj", "area_um2", "leakage_mw"):
        assert getattr(wide, name) >= getattr(narrow, name) * (1 - 1e-9)


def test_below_22_nm_energy_scales_with_the_root_of_the_node_and_area_with_the_node():
    at22, at7 = sram_cost(65536, 64, 22), sram_cost(65536, 64, 7)
    assert at7.read_pj / at22.read_pj == pytest.approx(math.sqrt(7 / 22))
    assert at7.area_um2 / at22.area_um2 == pytest.approx(7 / 22)
    assert (at22.scaled, at7.scaled) == (False, True)


def test_between_two_nodes_of_the_table_the_value_lies_between_theirs_and_is_flagged():
    at32, at28, at22 = (sram_cost(65536, 64, node) for node in (32, 28, 22))
    assert at22.read_pj < at28.read_pj < at32.read_pj
    assert at28.scaled


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((512, 64), r"size_bytes of an SRAM must be in 1024\.\.16777216, got 512"),
        ((65536, 1024), r"width_bits of an SRAM must be in 8\.\.512, got 1024"),
        ((65536, 64, 65), r"node_nm of an SRAM must be in 7\.\.45, got 65"),
        ((65536, 64, 45, "sram"), r"cells must be one of hp, lop, lstp; got 'sram'"),
    ],
)
def test_a_value_outside_the_table_is_named_with_the_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        sram_cost(*arguments)


def test_every_corner_of_the_range_has_a_cost():
    (small, large), (narrow, wide) = sram_range()
    for size in (small, large):
        for width in (narrow, wide):
            assert sram_cost(size, width).read_pj > 0


def test_the_laws_behind_the_table_survive_holes_and_the_monotone_projection():
    # Area = size^0.5 width^0.7 is straight in logarithms, and energy follows the two-term law, so
    # every absent point must come back.
    full = np.array(
        [
            (s, w, *[s**0.5 * (62 + w)] * 2, *[s**0.5 * w**0.7] * 3)
            for s in 2.0 ** np.arange(10, 15)
            for w in 2.0 ** np.arange(3, 8)
        ]
    )
    keep = np.arange(len(full)) % 3 != 0  # the first corner and the interior lose points
    table = build_table(full[keep])
    assert np.allclose(table.grids["read_pj"], np.log(full[:, 2]).reshape(5, 5))
    assert np.allclose(table.grids["area_mm2"], np.log(full[:, 4]).reshape(5, 5))


def test_a_dip_is_levelled_halfway():
    rows = [
        (s, w, *[v] * 5) for (s, w, v) in ((1024, 8, 1.0), (2048, 8, 4.0), (4096, 8, 1.0), (8192, 8, 16.0))
    ]
    rows += [(s, 16, *[v] * 5) for s, _, v, *_ in rows]
    grid = build_table(np.array(rows, dtype=float)).grids["access_ns"]
    assert np.allclose(np.exp(grid[:, 0]), [1.0, 2.0, 2.0, 16.0])
