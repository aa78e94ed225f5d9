"""The recommended designs are those that they claim to be, and the limits follow from the models."""

from dataclasses import replace

import numpy as np
import pytest

from numerics.theory import required_bits
from studies.codesign.recommend import cheapest_within, knee, limits_of, most_accurate, recommended, sums_of


def test_the_cheapest_is_the_cheapest_of_those_within_the_margin(found):
    picked = cheapest_within(found, 0.01)
    good = found.done[found.done["test_accuracy"] >= found.reference["test_accuracy"] - 0.01]
    assert picked["energy_pj"] == good["energy_pj"].min()
    assert len(good) < len(found.done)
    assert cheapest_within(found, -0.5) is None


def test_the_most_accurate_is_cheapest_among_equals(found):
    best = most_accurate(found)
    done = found.done
    assert best["test_accuracy"] == done["test_accuracy"].max()
    ties = done[done["test_accuracy"] == done["test_accuracy"].max()]
    ties = ties[ties["training_loss"] == ties["training_loss"].min()]
    assert best["energy_pj"] == ties["energy_pj"].min()


def test_the_knee_is_furthest_below_the_chord_of_the_front(found):
    picked = knee(found)
    costs = np.log10(found.front[["training_loss", "energy_pj"]].to_numpy(dtype=float))
    inside = found.front["training_loss"].to_numpy(dtype=float) <= found.objectives[0].threshold
    costs, ids = costs[inside], found.front["id"].to_numpy()[inside]
    unit = (costs - costs.min(axis=0)) / np.ptp(costs, axis=0)
    below = 1.0 - unit.sum(axis=1)  # times sqrt(1/2): the distance to the line through (0, 1) and (1, 0)
    assert picked["id"] == ids[below.argmax()]
    assert 0 < below.max() < 1


def test_a_front_of_two_has_no_knee(found):
    assert knee(replace(found, front=found.front.head(2))) is None


def test_three_designs_come_with_parameters_saving_and_limits(found):
    designs = recommended(found)
    assert [design.title for design in designs] == [
        "cheapest within 1 % of full precision", "knee of the front", "most accurate"]  # fmt: skip
    for design in designs:
        assert found.pricing.cost(design.parameters).total_energy_pj == design.row["energy_pj"]
        assert design.saving == found.reference["energy_pj"] / design.row["energy_pj"]
        assert [line.split(":")[0] for line in design.limits.lines()] == [
            "time",
            "energy",
            "traffic",
            "accuracy",
        ]


def parameters_of(found, **changes):
    return {**found.trials[0].parameters, "format": "e5m2", "chunk": 0, **changes}


def test_what_limits_time_and_energy_is_the_largest_part_of_the_cost_model(found):
    parameters = parameters_of(found)
    cost, limits = found.pricing.cost(parameters), limits_of(found.pricing, parameters)
    assert sum(limits.time.values()) == pytest.approx(1.0)
    assert next(iter(limits.time)) == max(cost.cycle_parts, key=cost.cycle_parts.get)
    assert next(iter(limits.energy)) == max(cost.energy_pj, key=cost.energy_pj.get)


def test_less_bandwidth_makes_bandwidth_the_limit(found):
    slow = parameters_of(found, offchip_bytes_per_cycle=0.1)
    assert next(iter(limits_of(found.pricing, slow).time)) == "offchip"


def test_a_scratchpad_limits_where_its_schedule_spills(found):
    tight = limits_of(found.pricing, parameters_of(found, scratchpad_bytes=81920))
    wide = limits_of(found.pricing, parameters_of(found, scratchpad_bytes=1 << 20))
    assert tight.avoidable > 0
    assert wide.avoidable == 0
    assert "compulsory" in wide.lines()[2]


def test_the_sums_are_those_of_the_network_and_their_bits_those_of_the_theory(found):
    """By hand: the longest sums of the first convolution's gradient run over batch and pixels."""
    sums = {found.operator: found for found in sums_of(found.pricing, parameters_of(found))}
    assert sums["conv1"].length == 9
    assert sums["conv1.gradient"].length == 64 * 64
    assert sums["fc.backward"].length == 10
    assert sums["conv1.gradient"].bits == required_bits(4096, 5, rule="emulated", minimum=1)
    assert len(sums) == 8


def test_few_accumulator_bits_limit_accuracy_and_many_do_not(found):
    few = limits_of(found.pricing, parameters_of(found, accumulator_frac_bits=3))
    many = limits_of(found.pricing, parameters_of(found, accumulator_frac_bits=12))
    assert few.short > 0
    assert "accumulator precision" in few.lines()[3]
    assert many.short == 0
    assert "operand formats" in many.lines()[3]
    chunked = limits_of(found.pricing, parameters_of(found, accumulator_frac_bits=3, chunk=64))
    assert chunked.worst.need < few.worst.need
