"""One flip-flop bit."""

import pytest

from accel.hardware.register import register_cost


def test_a_bit_at_45_nm():
    bit = register_cost()
    assert (bit.area_um2, bit.energy_pj, bit.scaled) == (4.5, 0.008, False)


def test_a_bit_scales_as_logic():
    bit = register_cost(7)
    assert bit.area_um2 == pytest.approx(4.5 * 0.059)
    assert bit.energy_pj == pytest.approx(0.008 * 0.1024, rel=1e-3)
    assert bit.scaled
