"""The lines of ``bitfront mac``."""

import re

import pytest
from click.testing import CliRunner

from accel import mac_cost
from accel.hardware.library import Library
from accel.hardware.mac import Mac
from studies.cli import main
from studies.mac import KNOWN, describe, sweep


def rows(lines: list[str], header: str) -> dict[str, list[str]]:
    """Cells of the table below a header, by its first column."""
    start = next(i for i, line in enumerate(lines) if line.startswith(header))
    table = lines[start + 1 : lines.index("", start)]
    return {line[:26].strip(): line[26:].split() for line in table}


def test_totals_and_split_are_those_of_the_cost():
    lines, cost = describe("e4m3xe4m3+e6m9"), mac_cost("e4m3 x e4m3 + e6m9")
    assert lines[0] == "e4m3fn x e4m3fn + e6m9, 45 nm, per cell"
    assert f"area            {cost.area_um2:.4g} um2" in lines
    table = rows(lines, "part")
    assert list(table) == [
        "multiplier", "alignment", "adder", "normaliser", "rounding", "exponent", "register", "total",
    ]  # fmt: skip
    for part, um2 in cost.area_parts_um2.items():
        if um2:
            assert float(table[part][0]) == pytest.approx(um2, rel=1e-3)
            assert float(table[part][1].rstrip("%")) == pytest.approx(100 * um2 / cost.area_um2, abs=0.06)
    assert sum(float(row[3].rstrip("%")) for name, row in table.items() if name != "total") == (
        pytest.approx(100, abs=0.5)
    )


def test_well_known_cells_stand_beside_it_with_ratios():
    lines, cost = describe("e4m3xe4m3+e6m9"), mac_cost("e4m3 x e4m3 + e6m9")
    table = rows(lines, "beside")
    assert list(table) == list(KNOWN)
    for name in KNOWN:
        assert float(table[name][1].rstrip("x")) == pytest.approx(
            cost.area_um2 / mac_cost(name).area_um2, abs=0.006
        )


def test_every_number_of_stages_is_shown():
    lines, cost = describe("int8xint8+int32"), mac_cost("int8 x int8 + int32")
    table = rows(lines, "pipeline stages")
    assert list(table) == ["1", "2"]
    assert float(table["2"][2]) == pytest.approx(cost.pipelined(2).delay_ns, rel=1e-2)


def test_bars_are_as_long_as_the_areas():
    lines = describe("e4m3xe4m3+e6m9")
    bars = [line for line in lines if "█" in line]
    assert len(bars) == 22
    (asked,) = (line for line in bars if line.startswith(">"))
    assert " e6m9 " in asked
    lengths = [line.count("█") for line in bars]
    areas = [float(line.split()[-1]) for line in bars]
    assert lengths == sorted(lengths)
    assert max(lengths) == 48
    for length, area in zip(lengths, areas, strict=True):
        assert length == pytest.approx(48 * area / max(areas), abs=1.01)


@pytest.mark.parametrize(
    ("text", "first", "last", "asked"),
    [
        ("e4m3 x e4m3 + e6m9 chunk=64", ("e6m2", 9), ("e6m23", 30), "e6m9"),
        ("int8 x int8 + int30", ("int8", 8), ("int48", 48), "int30"),
        ("e4m3 x e4m3 + exact output=fp32", ("1 terms", 37), ("1048576 terms", 57), "1024 terms"),
        ("e4m3 x e4m3 + hopper-fp8", ("align 4", 22), ("align 28", 22), "align 13"),
    ],
)
def test_each_kind_of_accumulator_has_its_sweep(text, first, last, asked):
    points = sweep(Mac.parse(text))
    assert (points[0].label, points[0].bits) == first
    assert (points[-1].label, points[-1].bits) == last
    assert [point.label for point in points if point.is_asked] == [asked]
    areas = [point.area_um2 for point in points]
    assert areas == sorted(areas)
    (found,) = (point for point in points if point.is_asked)
    assert found.area_um2 == mac_cost(text).area_um2


def test_estimates_scaling_and_sources_are_named():
    text = "\n".join(describe("e4m3 x e4m3 + e6m9 rounding=stochastic:8", 7, cells_per_generator=8))
    assert "8 random bits of a generator that 8 cells share" in text
    assert "scaled from 45 nm to 7 nm" in text
    assert re.search(r"logic x 0\.0847, registers x 0\.0645, .* general scaling is x 0\.059", text)
    assert "clamp" in "\n".join(describe("int8 x int8 + int32"))
    assert "nothing: cells of this kind were synthesised" in "\n".join(describe("int8 x int8 + int32-wrap"))


def test_a_users_tables_are_named(tmp_path):
    path = tmp_path / "ours.toml"
    path.write_text('name = "foundry X"\n[mac.float.area_um2]\nexponent_bit = 11.0\n', encoding="utf-8")
    text = "\n".join(describe("e4m3 x e4m3 + e6m9", library=Library.from_toml(path)))
    assert "tables foundry X" in text
    assert "replaced        mac.float.area_um2.exponent_bit" in text


@pytest.mark.parametrize("text", ["e4m3", "e4m3xe4m3+e6m99", "mxfp4 x mxfp4 + int32", "a x b + c"])
def test_bad_text_is_one_line(text):
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        describe(text)


def test_the_command_prints_a_cell_and_refuses_in_one_line(tmp_path):
    runner = CliRunner()
    found = runner.invoke(main, ["mac", "e4m3xe4m3+e6m9", "--node", "7"])
    assert found.exit_code == 0
    assert found.output.startswith("e4m3fn x e4m3fn + e6m9, 7 nm")
    tables = tmp_path / "tables.toml"
    tables.write_text("[register]\narea_um2 = -1\n")
    for arguments, message in (
        (["mac", "e4m3xe4m3"], "a MAC is written"),
        (["mac", "e4m3xe4m3+e6m9", "--node", "3"], "node_nm must be in 7..130, got 3"),
        (["mac", "mxfp4xmxfp4+int32"], "block"),
        (["mac", "e4m3xe4m3+e6m9", "--library", str(tables)], "register.area_um2"),
        (["mac", "e4m3xe4m3+e6m9", "--library", str(tmp_path / "none.toml")], "No such file"),
    ):
        refused = runner.invoke(main, arguments)
        assert refused.exit_code == 2
        assert refused.stderr.count("\n") == 1
        assert message in refused.stderr
