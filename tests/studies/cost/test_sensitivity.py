"""The tornado: neighbours by hand, and changes that evaluations one by one confirm."""

from math import inf

import pandas as pd
import pytest

from accel import Design, evaluate
from studies.cost.sensitivity import COLUMNS, neighbours, sensitivity
from studies.cost.source import store
from studies.model import Model, open_model

WORDS = {
    "rows", "columns", "dataflow", "operand", "accumulator", "scratchpad_bytes", "accumulator_bytes",
    "offchip", "offchip_bytes_per_cycle", "clock_mhz", "node_nm", "sram_cells", "fold_overlap",
    "scratchpad_width_bits", "scratchpad_banks", "mac_stages", "overlap", "overhead",
}  # fmt: skip


def values(design, parameter):
    return [n.value for n in neighbours(design) if n.parameter == parameter]


def test_every_parameter_is_varied(design):
    chip = Design.from_file(design)
    # `weight` goes with `operand`, and tables of constants are no parameter of the design.
    assert {n.parameter for n in neighbours(chip)} == WORDS == set(Design.keys()) - {"weight", "library"}


def test_sizes_halve_and_double_and_formats_lose_and_gain_a_bit(design):
    chip = Design.from_file(design)
    assert values(chip, "rows") == ["8", "32"]
    assert values(chip, "offchip_bytes_per_cycle") == ["8", "32"]
    assert values(chip, "operand") == ["e4m2fn", "e4m4fn"]
    assert values(chip, "accumulator") == ["e6m8", "e6m10"]
    assert values(chip, "dataflow") == ["os", "is"]
    assert values(chip, "fold_overlap") == ["pipelined"]
    assert values(chip, "overlap") == ["1", "2"]
    assert values(chip, "node_nm") == ["32"]  # nothing above 45 nm has a memory table
    assert values(chip, "mac_stages") == ["2"]  # half a stage is none
    assert "LPDDR4" not in values(chip, "offchip")
    assert "HBM2" in values(chip, "offchip")


def test_whole_numbers_and_two_formats_change_on_their_own(changed):
    chip = Design.from_file(changed("int", operand="int8", weight="int4", accumulator="int32"))
    assert values(chip, "operand") == ["s6.0", "s8.0"]
    assert values(chip, "weight") == ["s2.0", "s4.0"]
    assert values(chip, "accumulator") == ["int31", "int33"]


def test_what_is_without_end_is_not_doubled(changed):
    path = changed("free", offchip_bytes_per_cycle=inf)
    assert values(Design.from_file(path), "offchip_bytes_per_cycle") == []


def run(design, layers, **options):
    chip, workload = Design.from_file(design), open_model(Model(text=str(layers)))

    def stored(other):
        return store(workload, other)

    return chip, stored, sensitivity(chip, stored, cost=evaluate(chip, stored(chip)), **options)


def test_changes_are_those_of_designs_evaluated_one_by_one(design, layers):
    chip, stored, table = run(design, layers)
    base = evaluate(chip, stored(chip))
    assert tuple(table.columns) == COLUMNS
    assert table["feasible"].all()
    changes = {n.parameter + n.value: n.settings for n in neighbours(chip)}
    for _, row in table.iterrows():
        other = Design.from_mapping({**chip.settings(), **changes[row["parameter"] + row["value"]]})
        cost = evaluate(other, stored(other))
        assert row["energy_pj"] == cost.total_energy_pj
        assert row["energy_change"] == pytest.approx(cost.total_energy_pj / base.total_energy_pj - 1)
        assert row["time_change"] == pytest.approx(cost.seconds / base.seconds - 1)
        assert row["area_change"] == pytest.approx(cost.total_area_um2 / base.total_area_um2 - 1)


def test_a_clock_of_half_the_speed_takes_twice_the_time_and_leaks_for_it(design, layers):
    _, _, table = run(design, layers)
    slower = table[(table["parameter"] == "clock_mhz") & (table["direction"] == "down")].iloc[0]
    assert slower["time_change"] == pytest.approx(1.0)
    assert slower["area_change"] == 0
    assert slower["energy_change"] > 0


def test_a_narrower_operand_is_stored_in_fewer_bytes(design, layers):
    chip, stored, table = run(design, layers)
    narrower = table[table["value"] == "e4m2fn"].iloc[0]
    eighth_less = evaluate(chip, stored(chip)).energy_pj["offchip"] / 8
    assert narrower["energy_pj"] < evaluate(chip, stored(chip)).total_energy_pj - eighth_less


def test_parameters_with_most_effect_come_first(design, layers):
    _, _, table = run(design, layers, objective="energy")
    effect = []
    for _, rows in table.groupby("parameter", sort=False):
        ratios = pd.concat([1 + rows["energy_change"], 1 + rows["time_change"]])
        effect.append(max(max(ratio, 1 / ratio) for ratio in ratios))
    assert effect == sorted(effect, reverse=True)
    assert len(effect) == table["parameter"].nunique()  # the rows of a parameter are together


def test_an_impossible_neighbour_has_a_reason_and_no_numbers(changed, layers):
    _, _, table = run(changed("small", scratchpad_bytes=1024, scratchpad_banks=1), layers)
    half = table[(table["parameter"] == "scratchpad_bytes") & (table["direction"] == "down")].iloc[0]
    assert not half["feasible"]
    assert half["violation"] == "scratchpad_bytes must be at least 1024, got 512"
    assert half[["energy_pj", "energy_change", "time_change", "area_change"]].isna().all()
    double = table[(table["parameter"] == "scratchpad_bytes") & (table["direction"] == "up")].iloc[0]
    assert double["feasible"]
    assert double["violation"] == ""
