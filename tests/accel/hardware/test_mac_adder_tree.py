"""Fused adders: their cost by hand, and its shape."""

from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.hardware.mac import mac_cost
from numerics.formats import FloatFormat
from numerics.fused import FusedAdder

PJ_PER_FJ = 1e-3 * 0.52 * (0.9 / 1.1) ** 2


def test_the_unit_by_hand():
    # 4 products of e5m2 kept to 12 bits: terms of A = 14 bits, 3 levels, sums of 18 bits, output e5m10.
    cost = mac_cost("e5m2 x e5m2 + fused products=4 align_bits=12 output=fp16 rounding=nearest-even")
    area, energy, z = cost.area_parts_um2, cost.energy_parts_pj, (127 / 128) ** 2
    mux = 5.406 / 2
    assert area.multiplier == pytest.approx(6.416 * 9 + 4.487 * 3 * log2(6))
    assert area.alignment == pytest.approx(5 * 14 * 4 * mux / 4)
    assert area.adder == pytest.approx(4 * 18 * 5.32 / 4)
    assert area.normaliser == pytest.approx(18 * 5 * mux / 4)
    assert area.rounding == pytest.approx(8.164 * 11 / 4)
    largest = 4 * 6 * (5.32 + mux) + 5 * 6 * 5.32
    assert area.exponent == pytest.approx((largest + 14.12 * (4 * 5 + 5)) / 4)
    assert area.register == pytest.approx(4.522 * 16 / 4)
    activity = 9.032 * log2(14) / (5.32 + 5.406 * log2(14))
    assert energy.adder == pytest.approx(area.adder * activity * PJ_PER_FJ)
    assert energy.normaliser == pytest.approx(area.normaliser * activity * PJ_PER_FJ)
    assert energy.alignment == pytest.approx((area.alignment * activity + 6.812 * 6 * 4 * z) * PJ_PER_FJ)
    assert cost.per == "product of a fused unit that adds 4 at once"
    assert cost.estimated


def test_halves_are_a_unit_of_half_the_products():
    whole = mac_cost("e4m3 x e4m3 + fused products=16 align_bits=13 output=e8m13")
    halves = mac_cost("e4m3 x e4m3 + fused products=32 align_bits=13 output=e8m13 halves=true")
    assert halves.area_um2 == whole.area_um2
    assert halves.energy_pj == whole.energy_pj


def test_promotion_adds_a_binary32_adder_that_works_rarely():
    plain, promoted = mac_cost("e4m3 x e4m3 + hopper-fp8"), mac_cost("e4m3 x e4m3 + hopper-fp8 promote=128")
    window = 28
    adder = window * (5.32 + 5.406 * 5) + 8.164 * 24 + 14.12 * 16 + 4.522 * 32
    assert promoted.area_um2 - plain.area_um2 == pytest.approx(adder / 32)
    once = 9.032 * window * log2(window) + 5 * 24 + 5 * 16 + 11.35 * 32
    assert promoted.energy_pj - plain.energy_pj == pytest.approx(once / 128 * PJ_PER_FJ)


def test_a_pass_that_holds_a_block_applies_its_scales_once():
    element, block = (mac_cost(f"{f} x {f} + hopper-fp8") for f in ("e2m1", "mxfp4"))
    assert block.area_um2 - element.area_um2 == pytest.approx(2 * 8 * 14.12 / 32)
    small = mac_cost("e2m1 block=8 scale=e8m0 x e2m1 block=8 scale=e8m0 + hopper-fp8")
    assert small.area_um2 - element.area_um2 == pytest.approx(2 * 8 * 14.12 * ceil(32 / 8) / 32)


def test_many_products_share_the_normaliser_and_the_register():
    few, many = (mac_cost(f"e4m3 x e4m3 + fused products={n} align_bits=13 output=e8m13") for n in (4, 32))
    for part in ("normaliser", "register"):
        assert getattr(many.area_parts_um2, part) < getattr(few.area_parts_um2, part)
    assert many.area_um2 < few.area_um2
    single = mac_cost("e4m3 x e4m3 + e8m13")
    assert many.area_um2 < single.area_um2


@given(
    operand=st.tuples(st.integers(2, 7), st.integers(1, 22)),
    products=st.sampled_from([1, 2, 4, 16, 32]),
    align_bits=st.integers(1, 40),
    output=st.tuples(st.integers(2, 7), st.integers(1, 22)),
)
def test_more_bits_never_cost_less(operand, products, align_bits, output):
    def cost(e=0, m=0, align=0, out_e=0, out_m=0):
        fmt = FloatFormat(exp_bits=operand[0] + e, frac_bits=operand[1] + m)
        register = FloatFormat(exp_bits=output[0] + out_e, frac_bits=output[1] + out_m)
        return mac_cost(
            fmt, fmt, FusedAdder(products=products, align_bits=align_bits + align, output=register)
        )

    base = cost()
    for wider in (cost(e=1), cost(m=1), cost(align=1), cost(out_e=1), cost(out_m=1)):
        assert wider.area_um2 >= base.area_um2
        assert wider.energy_pj >= base.energy_pj
        assert wider.delay_ns >= base.delay_ns
