"""A lane of the vector unit."""

import pytest

from accel.hardware.vector import lane_cost


def test_a_lane_is_an_fp32_adder_and_multiplier():
    lane = lane_cost()
    assert (lane.add_pj, lane.multiply_pj, lane.scaled) == (0.9, 3.7, False)  # Horowitz, ISSCC 2014
    assert lane.area_um2 == pytest.approx(1369.6 + 4097.2)


def test_a_lane_scales_as_logic():
    lane, at16 = lane_cost(), lane_cost(16)
    assert at16.multiply_pj / lane.multiply_pj == pytest.approx(0.1873, abs=5e-4)
    assert at16.area_um2 / lane.area_um2 == pytest.approx(0.19)
    assert at16.scaled
