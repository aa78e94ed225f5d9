"""Float MACs: the law against synthesised rows, by hand, and its shape."""

from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.hardware.mac import mac_cost
from numerics.accumulator import Accumulator
from numerics.formats import FloatFormat

PJ_PER_FJ = 1e-3 * 0.52 * (0.9 / 1.1) ** 2

# Rows of the 45 nm synthesis (Yosys 0.23, open cells, 1.1 V, random bits): area in um2, energy in fJ.
# -flush marks cells without subnormal operands.
ROWS = [
    ("e2m1 x e2m1 + e8m23", 1481, 1359),
    ("e3m2 x e3m2 + e8m23", 1493, 1979),
    ("e4m3 x e4m3 + e8m23", 1603, 2459),
    ("e4m3 x e4m3 + e8m18", 1322, 2177),
    ("e4m3 x e4m3 + e8m12", 1122, 1790),
    ("e4m3 x e4m3 + e8m10", 910, 1399),
    ("e4m3 x e4m3 + e6m9", 791, 1358),
    ("e4m3 x e4m3 + e8m5", 753, 1195),
    ("e5m2 x e5m2 + e6m9", 720, 1040),
    ("e5m2 x e5m2 + e8m14", 1117, 1577),
    ("e2m1 x e2m1 + e5m10", 670, 797),
    ("e8m7-flush x e8m7-flush + e8m23", 1847, 2901),
    ("e8m7-flush x e8m7-flush + e8m12", 1446, 2398),
    ("e8m10 x e8m10 + e8m23", 2498, 4359),
    ("e5m10-flush x e5m10-flush + e5m10", 1901, 3716),
    ("e8m23-flush x e8m23-flush + e8m23", 6333, 11827),
]


@pytest.mark.parametrize(("text", "area_um2", "energy_fj"), ROWS)
def test_a_synthesised_cell_is_predicted_within_the_worst_error_of_the_fit(text, area_um2, energy_fj):
    cost = mac_cost(text)
    assert cost.area_um2 == pytest.approx(area_um2, rel=0.09)
    assert cost.energy_pj == pytest.approx(energy_fj * PJ_PER_FJ, rel=0.14)
    assert not cost.estimated


def test_the_mean_error_over_the_rows_is_a_few_percent():
    area = [abs(mac_cost(text).area_um2 / um2 - 1) for text, um2, _ in ROWS]
    energy = [abs(mac_cost(text).energy_pj / (fj * PJ_PER_FJ) - 1) for text, _, fj in ROWS]
    assert sum(area) / len(area) < 0.03
    assert sum(energy) / len(energy) < 0.05


def test_the_law_by_hand():
    # e5m2 into e6m9: p = 3, W = max(4, 9) + 5 = 14, 4 stages, z = (127 / 128)^2.
    cost, z = mac_cost("e5m2 x e5m2 + e6m9"), (127 / 128) ** 2
    area, energy = cost.area_parts_um2, cost.energy_parts_pj
    assert area.multiplier == pytest.approx(6.416 * 9 + 4.487 * 3 * log2(6))
    assert area.alignment == area.normaliser == pytest.approx(5.406 * 14 * 4 / 2)
    assert area.adder == pytest.approx(5.32 * 14)
    assert area.rounding == pytest.approx(8.164 * 10)
    assert area.exponent == pytest.approx(14.12 * (5 + 6))
    assert area.register == pytest.approx(4.522 * 16)
    assert energy.multiplier == pytest.approx((11.73 * 9 + 42.05 * 3) * z * PJ_PER_FJ)
    window, product_shift = 9.032 * 14 * log2(14), 6.812 * 6 * 4 * z
    both = energy.alignment + energy.adder + energy.normaliser
    assert both == pytest.approx((window + product_shift) * PJ_PER_FJ)
    assert energy.adder == pytest.approx(window * PJ_PER_FJ * 5.32 / (5.32 + 5.406 * 4))
    assert energy.alignment - energy.normaliser == pytest.approx(product_shift * PJ_PER_FJ)
    assert energy.rounding == pytest.approx(5 * 10 * PJ_PER_FJ)
    assert energy.exponent == pytest.approx(5 * 11 * PJ_PER_FJ)
    assert energy.register == pytest.approx(11.35 * 16 * PJ_PER_FJ)
    assert cost.delay_ns == pytest.approx(0.1567 * 14 + 0.1817 * 6 + 0.2633)


def test_few_exponent_bits_switch_few_stages_of_the_shifters():
    # e2m1 into e8m23: W = 28 has log2 28 = 4.81 stages, products of 3 exponent bits switch 3.
    energy = mac_cost("e2m1 x e2m1 + e8m23").energy_parts_pj
    window = 9.032 * 28 * 3
    assert energy.adder == pytest.approx(window * PJ_PER_FJ * 5.32 / (5.32 + 5.406 * 5))


def test_flushed_operands_need_no_leading_zero_count_and_are_zero_more_often():
    with_subnormals, flush = mac_cost("e4m3 x e4m3 + e8m23"), mac_cost("e4m3-flush x e4m3-flush + e8m23")
    assert with_subnormals.area_um2 - flush.area_um2 == pytest.approx(4.487 * 4 * 3)
    product = flush.energy_parts_pj.multiplier
    assert product == pytest.approx(11.73 * 16 * (15 / 16) ** 2 * PJ_PER_FJ)


def test_a_multiplier_is_rectangular():
    mixed = mac_cost("e4m3-flush x e4m7-flush + e8m23")
    assert mixed.area_parts_um2.multiplier == pytest.approx(6.416 * 4 * 8)
    assert mixed == mac_cost("e4m7-flush x e4m3-flush + e8m23")
    assert mixed.estimates == ("no cell was synthesised with two operand formats",)
    low, high = (mac_cost(f"{f} x {f} + e8m23").area_um2 for f in ("e4m3-flush", "e4m7-flush"))
    assert low < mixed.area_um2 < high


def test_an_integer_weight_is_a_significand_without_exponent():
    cost = mac_cost("int4 x fp16 + fp32")
    assert cost.area_parts_um2.multiplier == pytest.approx(
        6.416 * 4 * 11 + 4.487 * (4 * log2(8) + 11 * log2(22)) / 2
    )
    assert cost.area_parts_um2.exponent == pytest.approx(14.12 * (5 + 8))
    assert mac_cost("int4 x fp16 + fp32").area_um2 < mac_cost("int8 x fp16 + fp32").area_um2
    assert "integer operands of a float sum" in cost.estimates[0]


def test_cutting_saves_the_increment_and_nothing_else():
    nearest, cut = mac_cost("e4m3 x e4m3 + e6m9"), mac_cost("e4m3 x e4m3 + e6m9 rounding=toward-zero")
    assert nearest.area_um2 - cut.area_um2 == pytest.approx(8.164 * 10)
    assert nearest.energy_pj - cut.energy_pj == pytest.approx(5 * 10 * PJ_PER_FJ)
    assert cut.estimated
    up = mac_cost("e4m3 x e4m3 + e6m9 rounding=up")
    assert up.area_um2 == nearest.area_um2


def test_random_bits_take_adder_bits_a_share_of_a_generator_and_places_below_the_sum():
    nearest, three = mac_cost("e4m3 x e4m3 + e6m9"), mac_cost("e4m3 x e4m3 + e6m9 rounding=stochastic:3")
    assert three.area_um2 - nearest.area_um2 == pytest.approx(3 * (5.32 + 4.522 / 16))
    assert three.energy_pj - nearest.energy_pj == pytest.approx(3 * (10.33 + 11.35 / 16) * PJ_PER_FJ)
    own = mac_cost("e4m3 x e4m3 + e6m9 rounding=stochastic:3", cells_per_generator=1)
    assert own.area_parts_um2.random_generator == pytest.approx(3 * 4.522)
    # Ten random bits are added to seven places below guard, round and sticky: W = 9 + 7 + 5 = 21.
    ten = mac_cost("e4m3 x e4m3 + e6m9 rounding=stochastic:10")
    assert ten.area_parts_um2.adder == pytest.approx(5.32 * 21)
    assert ten.delay_ns > three.delay_ns > nearest.delay_ns
    assert "10 random bits of a generator that 16 cells share" in ten.estimates[0]


def test_a_chunk_adds_one_outer_register_and_a_share_of_one_addition():
    plain, chunked = mac_cost("e5m2 x e5m2 + e6m9"), mac_cost("e5m2 x e5m2 + e6m9 chunk=64")
    assert chunked.area_um2 - plain.area_um2 == pytest.approx(16 * 4.522)
    outer_fj = 9.032 * 14 * log2(14) + 5 * 10 + 5 * 12 + 11.35 * 16
    assert chunked.energy_pj - plain.energy_pj == pytest.approx(outer_fj / 64 * PJ_PER_FJ)


def test_a_wider_outer_register_widens_the_adder_and_not_the_energy_of_a_product():
    chunked = mac_cost("e5m2 x e5m2 + e6m9 chunk=64")
    wide = mac_cost("e5m2 x e5m2 + e6m9 chunk=64 outer=e8m23")
    fp32 = mac_cost("e5m2 x e5m2 + e8m23")
    assert wide.area_um2 == pytest.approx(fp32.area_um2 + 16 * 4.522)
    outer_fj = 9.032 * 28 * log2(28) + 5 * 24 + 5 * 16 + 11.35 * 32
    plain = mac_cost("e5m2 x e5m2 + e6m9")
    assert wide.energy_pj - plain.energy_pj == pytest.approx(outer_fj / 64 * PJ_PER_FJ)
    assert chunked.energy_pj < wide.energy_pj < fp32.energy_pj


def test_lanes_and_trees_add_registers():
    plain, lanes = mac_cost("e5m2 x e5m2 + e6m9"), mac_cost("e5m2 x e5m2 + e6m9 lanes=4")
    assert lanes.area_um2 - plain.area_um2 == pytest.approx(3 * 16 * 4.522)
    assert lanes.energy_pj == plain.energy_pj
    chunk, tree = (mac_cost(f"e5m2 x e5m2 + e6m9 chunk=16{o}") for o in ("", " order=pairwise"))
    assert tree.area_um2 - chunk.area_um2 == pytest.approx((4 - 1) * 16 * 4.522)


def test_a_rounded_product_narrows_the_window():
    exact, rounded = (mac_cost(f"e5m10 x e5m10 + e6m9{o}") for o in ("", " product=e6m9"))
    assert exact.area_parts_um2.adder == pytest.approx(5.32 * 25)
    assert rounded.area_parts_um2.adder == pytest.approx(5.32 * 14)
    assert rounded.area_parts_um2.rounding == pytest.approx(8.164 * (10 + 10))


def test_block_scales_add_exponents_once_per_block():
    element, block = mac_cost("e2m1 x e2m1 + fp32"), mac_cost("mxfp4 x mxfp4 + fp32")
    assert block.area_um2 - element.area_um2 == pytest.approx(2 * 8 * 14.12)
    assert block.energy_pj - element.energy_pj == pytest.approx(2 * 8 * 5 / 32 * PJ_PER_FJ)


def test_float_scales_multiply_the_sum_of_a_block():
    # e4m3 scales: 4 x 4 with each other, 8 bits of their product with a sum of 12 bits (16 products of at
    # most 8 bits: 2^2 * 1.5 each, in quarters); a register and an addition for the sum of the block.
    element, block = mac_cost("e2m1 x e2m1 + fp32"), mac_cost("nvfp4 x nvfp4 + fp32")
    scale = 2 * 4 * 14.12 + 6.416 * (4 * 4 + 8 * 12)
    assert block.area_parts_um2.scale == pytest.approx(scale)
    assert block.area_um2 - element.area_um2 == pytest.approx(scale + 32 * 4.522)
    addition_fj = 9.032 * 28 * log2(28) + 5 * 24 + 5 * 16 + 11.35 * 32
    scale_fj = 2 * 4 * 5 + 11.73 * (4 * 4 + 8 * 12)
    assert block.energy_pj - element.energy_pj == pytest.approx((addition_fj + scale_fj) / 16 * PJ_PER_FJ)


def test_wider_formats_never_cost_less_on_the_whole_grid():
    fracs = (*range(1, 12), 16, 22, 23)
    exps, acc_exps, acc_fracs = (2, 5, 8), (2, 5, 8), fracs
    registers = [[Accumulator(FloatFormat(exp_bits=e, frac_bits=m)) for m in acc_fracs] for e in acc_exps]
    operands = [[FloatFormat(exp_bits=e, frac_bits=m) for m in fracs] for e in exps]
    costs = np.array(
        [
            [
                [
                    [
                        (c.area_um2, c.energy_pj, c.delay_ns)
                        for register in row
                        for c in [mac_cost(x, x, register)]
                    ]
                    for row in registers
                ]
                for x in column
            ]
            for column in operands
        ]
    )
    assert costs.shape == (3, 14, 3, 14, 3)
    for axis in range(4):
        assert (np.diff(costs, axis=axis) >= -1e-9).all()


@given(
    a=st.tuples(st.integers(2, 7), st.integers(1, 22)),
    w=st.tuples(st.integers(2, 7), st.integers(1, 22)),
    acc=st.tuples(st.integers(2, 7), st.integers(1, 22)),
    outer=st.none() | st.tuples(st.integers(2, 7), st.integers(1, 22)),
    product=st.none() | st.tuples(st.integers(2, 7), st.integers(1, 22)),
    chunk=st.none() | st.integers(1, 512),
    lanes=st.sampled_from([1, 1, 4]),
    random_bits=st.integers(0, 31),
)
def test_a_wider_operand_accumulator_product_or_random_word_never_costs_less(
    a, w, acc, outer, product, chunk, lanes, random_bits
):
    def fmt(pair, e=0, m=0):
        return FloatFormat(exp_bits=pair[0] + e, frac_bits=pair[1] + m)

    def cost(*, a_wider=(0, 0), acc_wider=(0, 0), outer_wider=(0, 0), product_wider=(0, 0), more=0):
        rounding = f"stochastic:{random_bits + more}" if random_bits + more else "nearest-even"
        return mac_cost(
            fmt(a, *a_wider),
            fmt(w),
            Accumulator(
                fmt(acc, *acc_wider),
                rounding=rounding,
                product=None if product is None else fmt(product, *product_wider),
                chunk=chunk,
                outer=None if outer is None or chunk is None else fmt(outer, *outer_wider),
                lanes=lanes,
            ),
        )

    base = cost()
    wider = [cost(more=1)]
    for step in ((1, 0), (0, 1)):
        wider += [cost(a_wider=step), cost(acc_wider=step), cost(outer_wider=step)]
        wider.append(cost(product_wider=step))
    for other in wider:
        assert other.area_um2 >= base.area_um2 - 1e-9
        assert other.energy_pj >= base.energy_pj - 1e-12
        assert other.delay_ns >= base.delay_ns - 1e-9
    cut = mac_cost(fmt(a), fmt(w), Accumulator(fmt(acc), rounding="toward-zero"))
    nearest = mac_cost(fmt(a), fmt(w), Accumulator(fmt(acc)))
    assert cut.area_um2 < nearest.area_um2
    assert cut.energy_pj < nearest.energy_pj
