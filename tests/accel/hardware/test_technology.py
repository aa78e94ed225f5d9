"""Node scaling and off-chip memories."""

import pytest

from accel.hardware.offchip import offchip_memory
from accel.hardware.technology import logic_scale


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
    scales = [logic_scale(node) for node in (20, 22, 28, 32)]
    assert [s.area for s in scales] == sorted(s.area for s in scales)
    assert [s.energy for s in scales] == sorted(s.energy for s in scales)
    # 22 nm is at log(32/22) / log(32/20) = 0.79720 of the way from 32 to 20 nm.
    assert scales[1].area == pytest.approx(0.46 * (0.21 / 0.46) ** 0.79720, rel=1e-4)


@pytest.mark.parametrize("node_nm", [5, 180])
def test_a_node_outside_the_table_is_refused(node_nm):
    with pytest.raises(ValueError, match=rf"node_nm must be in 7\.\.130, got {node_nm}"):
        logic_scale(node_nm)


def test_off_chip_energies_and_which_of_them_are_recalled():
    assert {name: offchip_memory(name).pj_per_bit for name in ("LPDDR4", "HBM2", "GDDR6", "DDR3")} == {
        "LPDDR4": 8.0,
        "HBM2": 3.9,
        "GDDR6": 7.5,
        "DDR3": 70.0,
    }
    assert offchip_memory("DDR4").recalled
    assert not offchip_memory("lpddr4").recalled


def test_an_unknown_memory_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"offchip must be one of LPDDR4.*got 'SDRAM'"):
        offchip_memory("SDRAM")
