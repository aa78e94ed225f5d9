"""Integer and fixed-point MACs: the laws against synthesised rows, by hand, and their shape."""

from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.hardware.mac import mac_cost
from numerics.formats import FixedFormat, FloatFormat
from numerics.integer import IntegerAccumulator

PJ_PER_FJ = 1e-3 * 0.52 * (0.9 / 1.1) ** 2

# Rows of the 45 nm synthesis (Yosys 0.23, open cells, 1.1 V, random bits): area in um2, energy in fJ.
INTEGERS = [
    ("int2 x int2 + int16", 146, 244),
    ("u1.0 x int8 + int20", 214, 390),
    ("int4 x int4 + int8", 199, 406),
    ("int4 x int4 + int16", 236, 488),
    ("int4 x int8 + int24", 409, 863),
    ("int8 x int8 + int24", 730, 1519),
    ("int8 x int8 + int32", 799, 1620),
    ("int8 x int8 + int48", 887, 1802),
    ("int16 x int16 + int32", 2475, 5149),
    ("int16 x int16 + int48", 2640, 5482),
]
FIXED = [
    ("e2m1 x e2m1 + int16", 237, 537),
    ("e4m3 x e4m3 + int20", 456, 970),
    ("e4m3 x e4m3 + int32", 654, 1414),
    ("e5m2 x e5m2 + int24", 491, 1005),
    ("e5m2 x e5m2 + int40", 731, 1486),
    ("e5m2 x e5m2 + int48", 867, 1773),
]


@pytest.mark.parametrize(("text", "area_um2", "energy_fj"), INTEGERS + FIXED)
def test_a_synthesised_cell_is_predicted_within_the_worst_error_of_the_fit(text, area_um2, energy_fj):
    cost = mac_cost(text)
    assert cost.area_um2 == pytest.approx(area_um2, rel=0.11)
    assert cost.energy_pj == pytest.approx(energy_fj * PJ_PER_FJ, rel=0.1)
    assert not cost.estimated


@pytest.mark.parametrize("rows", [INTEGERS, FIXED])
def test_the_mean_error_over_the_rows_is_a_few_percent(rows):
    area = [abs(mac_cost(text).area_um2 / um2 - 1) for text, um2, _ in rows]
    energy = [abs(mac_cost(text).energy_pj / (fj * PJ_PER_FJ) - 1) for text, _, fj in rows]
    assert sum(area) / len(area) < 0.035
    assert sum(energy) / len(energy) < 0.04


def test_the_integer_law_by_hand():
    cost, z = mac_cost("int4 x int8 + int24"), (15 / 16) * (255 / 256)
    area, energy = cost.area_parts_um2, cost.energy_parts_pj
    assert area.multiplier == pytest.approx(8.726 * 32)
    assert area.adder == pytest.approx(0.5976 * 24 * log2(24))
    assert area.register == pytest.approx(4.522 * 24)
    assert area.alignment == area.normaliser == area.rounding == area.exponent == 0
    assert energy.multiplier == pytest.approx(18.29 * 32 * PJ_PER_FJ)
    assert energy.adder == pytest.approx(0.1912 * 24 * log2(24) * PJ_PER_FJ)
    assert energy.register == pytest.approx((10.19 * 24 + 5.238 * 12 * z) * PJ_PER_FJ)
    assert cost.delay_ns == pytest.approx(0.02812 * 24 + 0.1138 * log2(33))


def test_the_fixed_point_law_by_hand():
    # e4m3 into 32 bits: p = 4, 5 exponent bits of a product, z = (127 / 128)^2.
    cost, z = mac_cost("e4m3 x e4m3 + int32"), (127 / 128) ** 2
    area, energy = cost.area_parts_um2, cost.energy_parts_pj
    assert area.multiplier == pytest.approx(6.416 * 16 + 4.487 * 4 * 3)
    assert area.alignment == pytest.approx(1.047 * 32 * 5)
    assert area.adder == pytest.approx(5.32 * 32)
    assert energy.multiplier == pytest.approx(11.73 * 16 * z * PJ_PER_FJ)
    assert energy.alignment == pytest.approx(4.371 * 8 * 5 * PJ_PER_FJ)
    assert energy.adder == pytest.approx(20.9 * 32 * z * PJ_PER_FJ)
    assert energy.register == pytest.approx(11.14 * 32 * PJ_PER_FJ)
    assert cost.delay_ns == pytest.approx(0.03667 * 32 + 0.1029 * 4 + 0.1262 * 4)


def test_a_shift_beyond_the_register_is_one_stage_whatever_the_exponent():
    # int16: at most 4 stages and one that shifts everything out.
    wide, wider = (mac_cost(f"{f} x {f} + int16").area_parts_um2.alignment for f in ("e5m2", "e8m2"))
    assert wide == wider == pytest.approx(1.047 * 16 * 5)


def test_a_chunk_of_integers_adds_a_register_and_a_share_of_an_addition():
    plain = mac_cost("int8 x int8 + int20")
    chunked = mac_cost("int8 x int8 + int20 chunk=64 outer=int32")
    adder = 0.5976 * (32 * log2(32) - 20 * log2(20))
    assert chunked.area_um2 - plain.area_um2 == pytest.approx(4.522 * 32 + adder)
    once = 0.1912 * 32 * log2(32) + 10.19 * 32
    assert chunked.energy_pj - plain.energy_pj == pytest.approx(once / 64 * PJ_PER_FJ)
    assert chunked.estimated


def test_a_product_that_is_rounded_takes_one_more_adder_bit():
    cut, rounded = (mac_cost(f"e4m3 x e4m3 + s20.4 rounding={m}") for m in ("down", "nearest-even"))
    assert rounded.area_um2 - cut.area_um2 == pytest.approx(5.32)
    assert rounded.energy_pj - cut.energy_pj == pytest.approx(10.33 * PJ_PER_FJ)


def test_saturation_is_not_charged():
    assert mac_cost("int8 x int8 + int32") == mac_cost("int8 x int8 + int32-wrap")


@given(
    a=st.integers(2, 31),
    w=st.integers(2, 31),
    bits=st.integers(2, 63),
    chunk=st.none() | st.integers(1, 512),
)
def test_wider_integers_never_cost_less(a, w, bits, chunk):
    def cost(a_more=0, bits_more=0):
        a_format, w_format = (FixedFormat(int_bits=n - 1, frac_bits=0) for n in (a + a_more, w))
        return mac_cost(a_format, w_format, IntegerAccumulator(bits + bits_more, chunk=chunk))

    for wider in (cost(a_more=1), cost(bits_more=1)):
        assert wider.area_um2 > cost().area_um2
        assert wider.energy_pj > cost().energy_pj
        assert wider.delay_ns >= cost().delay_ns


@given(
    operand=st.tuples(st.integers(2, 7), st.integers(1, 22)),
    bits=st.integers(2, 63),
    exact=st.booleans(),
)
def test_wider_floats_never_cost_less_in_a_fixed_point_register(operand, bits, exact):
    def cost(e=0, m=0, more=0):
        fmt = FloatFormat(exp_bits=operand[0] + e, frac_bits=operand[1] + m)
        register = "exact output=e8m23" if exact else IntegerAccumulator(bits + more)
        return mac_cost(fmt, fmt, register)

    for wider in (cost(e=1), cost(m=1), cost(more=1)):
        assert wider.area_um2 >= cost().area_um2
        assert wider.energy_pj >= cost().energy_pj
        assert wider.delay_ns >= cost().delay_ns
