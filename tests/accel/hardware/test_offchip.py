"""Off-chip memories: energies as published, bandwidths from data rate and pins."""

import pytest

from accel.hardware.library import DEFAULT
from accel.hardware.offchip import offchip_memory


def test_energies_and_which_of_them_are_recalled():
    assert {name: offchip_memory(name).pj_per_bit for name in ("LPDDR4", "HBM2", "GDDR6", "DDR3")} == {
        "LPDDR4": 8.0,
        "HBM2": 3.9,
        "GDDR6": 7.5,
        "DDR3": 70.0,
    }
    assert offchip_memory("DDR4").recalled
    assert not offchip_memory("lpddr4").recalled


# Gb/s per pin and pins of the speed grade that each row names.
@pytest.mark.parametrize(
    ("name", "gbit_s", "pins"),
    [
        ("DDR3", 1.6, 64),
        ("DDR4", 3.2, 64),
        ("LPDDR", 0.4, 32),
        ("LPDDR4", 4.266, 32),
        ("LPDDR5", 6.4, 32),
        ("GDDR5", 8, 32),
        ("GDDR6", 16, 32),
        ("GDDR6X", 21, 32),
        ("HBM2", 2, 1024),
        ("HBM2E", 3.6, 1024),
        ("HMC", 10, 2 * 4 * 16),
    ],
)
def test_bandwidth_is_data_rate_times_pins(name, gbit_s, pins):
    memory = offchip_memory(name)
    assert memory.bandwidth_gb_s == pytest.approx(gbit_s * pins / 8)
    assert f"{gbit_s:g} Gb/s" in memory.bandwidth_source


def test_every_memory_says_what_has_its_bandwidth_and_where_it_comes_from():
    for name in DEFAULT.section("offchip"):
        memory = offchip_memory(name)
        assert memory.unit.startswith("one ")
        assert memory.source
        assert memory.bandwidth_source


def test_bytes_per_cycle_by_hand():
    # Two stacks of 256 GB/s are 512 000 MB/s; at 500 MHz that is 1024 bytes per cycle.
    assert offchip_memory("HBM2").bytes_per_cycle(500, units=2) == 1024


@pytest.mark.parametrize(
    ("clock_mhz", "units", "message"),
    [(0, 1, "clock_mhz must be above 0 and finite, got 0"), (500, 0, "units must be at least 1, got 0")],
)
def test_no_clock_or_no_memory_is_refused(clock_mhz, units, message):
    with pytest.raises(ValueError, match=message):
        offchip_memory("HBM2").bytes_per_cycle(clock_mhz, units)


@pytest.mark.parametrize("name", [None, 3, ["DDR4"]])
def test_a_memory_is_named_by_text(name):
    with pytest.raises(TypeError) as error:
        offchip_memory(name)
    assert str(error.value) == f"offchip must be a name, got {name!r}"


def test_an_unknown_memory_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"offchip must be one of LPDDR4.*got 'SDRAM'"):
        offchip_memory("SDRAM")
