"""What is saved splits exactly, and each factor gets what it saves."""

from itertools import pairwise

import pytest

from numerics import BINARY32, Accumulator
from studies.codesign.pricing import Storage
from studies.codesign.savings import FACTORS, rows_of, savings_of, split
from studies.codesign.schedules import layer_by_layer

PARAMETERS = {
    "format": "e5m2",
    "accumulator_exp_bits": 6,
    "accumulator_frac_bits": 6,
    "chunk": 64,
    "update_rounding": "stochastic",
    "rows": 8,
    "columns": 16,
    "dataflow": "os",
    "scratchpad_bytes": 131072,
    "offchip_bytes_per_cycle": 8,
}


@pytest.fixture(scope="module")
def savings(found):
    twin, _ = found.pricing.full_precision()
    return savings_of(found.pricing, PARAMETERS, twin)


def test_the_shares_add_up_to_what_is_saved(savings, found):
    assert sum(savings.saved_pj.values()) == pytest.approx(savings.start_pj - savings.end_pj, rel=1e-12)
    assert sum(savings.share(factor) for factor in FACTORS) == pytest.approx(1.0, rel=1e-12)
    assert savings.end_pj == found.pricing.cost(PARAMETERS).total_energy_pj
    for factor in FACTORS:
        assert savings.least_pj[factor] <= savings.saved_pj[factor] <= savings.most_pj[factor]


def test_the_start_is_full_precision_layer_by_layer_on_the_hardware_of_the_twin(savings, found):
    pricing = found.pricing
    twin, optimal = pricing.full_precision()
    storage = Storage.uniform(BINARY32)
    plan = layer_by_layer(pricing.workload(storage), twin.scratchpad_bytes)
    assert savings.start_pj == pricing.price(twin, storage, plan=plan).total_energy_pj
    assert savings.start_pj > optimal.total_energy_pj


def test_formats_and_schedule_save_and_rows_are_sorted_by_it(savings):
    assert savings.saved_pj["formats"] > 0
    assert savings.saved_pj["schedule"] > 0
    assert savings.saved_pj["accumulator"] > 0
    assert all(a["saved_uj"] >= b["saved_uj"] for a, b in pairwise(rows_of(savings)))


def test_float32_in_a_narrow_candidates_scratchpad_enlarges_it(savings, found):
    # Without the formats the hardware's 131072 bytes are too few; two of four such sets have the hardware.
    assert found.pricing.working_set(Storage.uniform(BINARY32)) > PARAMETERS["scratchpad_bytes"]
    assert savings.enlarged == 4


def test_a_candidate_that_changes_nothing_but_the_schedule_saves_by_the_schedule_alone(found):
    """By hand: of a game in which one player does everything the others get nothing."""
    start, end, gains = split(lambda changed: 10.0 - 4.0 * ("schedule" in changed), FACTORS)
    assert (start, end) == (10.0, 6.0)
    assert {factor: set(found) for factor, found in gains.items()} == {
        "formats": {0.0}, "accumulator": {0.0}, "hardware": {0.0}, "schedule": {4.0}}  # fmt: skip


def test_two_that_save_only_together_share_alike():
    together = split(lambda changed: 1.0 - ({"a", "b"} <= changed), ("a", "b", "c"))[2]
    means = {factor: sum(found) / len(found) for factor, found in together.items()}
    assert means == {"a": 0.5, "b": 0.5, "c": 0.0}
    assert all(len(found) == 6 for found in together.values())


def test_an_accumulator_of_float32_saves_nothing(found):
    twin, _ = found.pricing.full_precision()
    storage = found.pricing.storage(PARAMETERS)
    wide = found.pricing.design_of(storage, Accumulator(BINARY32), PARAMETERS)
    narrow = found.pricing.design(PARAMETERS)
    assert (
        found.pricing.price(wide, storage).total_energy_pj
        > found.pricing.price(narrow, storage).total_energy_pj
    )
    assert twin.operand == BINARY32
