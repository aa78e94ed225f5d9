"""Scaling of logic between nodes and voltages."""

import pytest

from accel.hardware.technology import logic_nodes, logic_scale


# Relative energy at 0.9 V as printed beside the polynomials of Stillmaker and Baas; area likewise.
@pytest.mark.parametrize(
    ("node_nm", "area", "energy"),
    [
        (130, 6.4, 3.1675),
        (65, 1.5, 1.2535),
        (45, 1, 1),
        (32, 0.46, 0.641),
        (16, 0.19, 0.1873),
        (7, 0.059, 0.1024),
    ],
)
def test_factors_of_the_table(node_nm, area, energy):
    scale = logic_scale(node_nm)
    assert scale.area == pytest.approx(area)
    assert scale.energy == pytest.approx(energy, abs=5e-4)
    assert scale.scaled == (node_nm != 45)


def test_an_untabled_node_lies_between_its_neighbours():
    assert logic_nodes(22) == (20, 32)
    scales = [logic_scale(node) for node in (20, 22, 28, 32)]
    assert [s.area for s in scales] == sorted(s.area for s in scales)
    assert [s.energy for s in scales] == sorted(s.energy for s in scales)
    # 22 nm is at log(32/22) / log(32/20) = 0.79720 of the way from 32 to 20 nm.
    assert scales[1].area == pytest.approx(0.46 * (0.21 / 0.46) ** 0.79720, rel=1e-4)


def test_energy_at_another_voltage_by_hand():
    # 7 nm: 0.1776 V^2 - 0.09097 V + 0.02447 is 0.04781 at 0.7 V; 45 nm at 0.9 V is 0.84433.
    scale = logic_scale(7, 0.7)
    assert scale.energy == pytest.approx(0.047815 / 0.84433, rel=1e-4)
    assert scale.area == logic_scale(7).area
    assert logic_scale(45, 0.7).scaled


def test_from_another_node_the_factors_are_a_quotient():
    there, back = logic_scale(16, from_nm=32), logic_scale(32, from_nm=16)
    assert there.area == pytest.approx(0.19 / 0.46)
    assert there.energy * back.energy == pytest.approx(1)
    assert not logic_scale(12, from_nm=12).scaled


@pytest.mark.parametrize("node_nm", [5, 180])
def test_a_node_outside_the_table_is_refused(node_nm):
    with pytest.raises(ValueError, match=rf"node_nm must be in 7\.\.130, got {node_nm}"):
        logic_scale(node_nm)


@pytest.mark.parametrize("voltage_v", [0.5, 1.2, float("nan")])
def test_a_voltage_outside_the_polynomials_is_refused(voltage_v):
    with pytest.raises(ValueError, match=rf"voltage_v must be in 0\.6\.\.1\.1, got {voltage_v:g}"):
        logic_scale(45, voltage_v)
