"""`bitfront cost`: what it prints and writes, and one line for bad input."""

import csv
import io
import json
import re

import pytest
from click.testing import CliRunner
from rich.console import Console

from accel import COMPONENTS, Design, evaluate
from studies.cli import main
from studies.cost.run import Request, answer
from studies.cost.source import store
from studies.cost.terminal import show
from studies.model import Model, open_model


def run(*arguments):
    return CliRunner().invoke(main, ["cost", *map(str, arguments)])


def refused(*arguments):
    """The one line that is printed in place of a result."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr.strip()


def expected(design, layers, objective="offchip"):
    chip = Design.from_file(design)
    return evaluate(chip, store(open_model(Model(text=str(layers))), chip), objective=objective)


def test_it_prints_totals_tables_layers_and_limits(design, layers):
    result = run(design, layers)
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert "two layers, inference, batch 1: 2 operators, 17.3 MMAC, 67.6 k parameters in 67.6 kB" in text
    cost = expected(design, layers)
    assert f"{cost.total_energy_pj * 1e-6:.3g} uJ" in text
    assert f"{cost.seconds * 1e6:.0f} us" in text
    assert f"{100 * cost.utilization:.1f} %" in text
    row = next(line for line in text.splitlines() if line.startswith("fc1 "))
    assert str(cost.operators[0].tiling) in row
    for title in ("by component", "by level", "what bounds the layers", "one parameter changed at a time"):
        assert title in text
    assert "not modelled: " in text
    # A memory has no cycles of a vector unit, an overhead no energy: dashes, not zeros.
    assert re.search(r"^overhead +- +- +\d", text, re.MULTILINE)
    assert re.search(r"^mac +\d.* +- +- +- +-$", text.replace(" \n", "\n"), re.MULTILINE)
    assert re.search(r"^registers .* +- +\d[^-]*/[^-]*$", text, re.MULTILINE)


def test_by_prints_these_tables_alone(design, layers):
    text = run(design, layers, "--by", "kind", "--by", "operand").stdout
    assert "by kind of operator" in text
    assert "by operand, bytes read / written" in text
    for title in ("by component", "by level", "what bounds", "one parameter changed"):
        assert title not in text


def test_a_narrow_terminal_has_fewer_columns_of_layers(design, layers):
    found = answer(Request(designs=(design,), model=Model(text=str(layers)), sensitivity=False))
    lines = {}
    for width in (100, 160):
        console = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
        show(found, console=console)
        lines[width] = console.file.getvalue().splitlines()
    narrow, wide = (next(line for line in lines[width] if " tiling" in line) for width in (100, 160))
    assert "MACs" in wide
    assert "MACs" not in narrow
    # All of a layer is in one line, its name and its tiling.
    assert any(line.startswith("fc1 ") and "order=" in line for line in lines[100])


def test_a_graph_that_tells_bytes_alone_is_no_silent_zero(design, tmp_path):
    path = tmp_path / "plain.json"
    layers = [
        {"name": f"fc{n}", "kind": "linear", "inputs": [x], "outputs": [y], "weight_bytes": 512}
        for n, x, y in ((1, "x", "h"), (2, "h", "y"))
    ]
    graph = {"name": "plain", "inputs": ["x"], "outputs": ["y"], "tensors": {"x": 16, "h": 32, "y": 16}}
    path.write_text(json.dumps({**graph, "operators": layers}))
    text = run(design, path).stdout
    assert "note: fc1 and 1 more: the graph does not give the matrix product" in text
    assert re.search(r"utilisation +-", text)
    assert re.search(r"TOPS/W +- ", text)


def test_the_json_file_adds_up(design, layers, tmp_path):
    path = tmp_path / "cost.json"
    assert run(design, layers, "--json", path, "--no-sensitivity").exit_code == 0
    found = json.loads(path.read_text())
    (chip,) = found["designs"]
    cost = expected(design, layers)
    assert chip["totals"]["energy_pj"] == cost.total_energy_pj
    assert chip["totals"]["cycles"] == cost.cycles
    for by in ("component", "level", "operator", "phase", "kind"):
        assert sum(row["energy_pj"] for row in chip["by"][by]) == cost.total_energy_pj
    assert sum(row["total_pj"] for row in chip["operators"]) == cost.total_energy_pj
    assert sum(chip["area_um2"].values()) == chip["totals"]["area_um2"]
    assert (chip["design"]["rows"], chip["design"]["overlap"]) == (16, "inf")
    assert found["sensitivity"] is None


def test_the_csv_file_has_a_row_per_design_and_layer(design, changed, layers, tmp_path):
    path, wide = tmp_path / "cost.csv", changed("wide", columns=32)
    assert run(design, layers, "--csv", path, "--no-sensitivity", "--compare", wide).exit_code == 0
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [(row["design"], row["operator"]) for row in rows] == [
        ("chip", "fc1"), ("chip", "fc2"), ("wide", "fc1"), ("wide", "fc2"),
    ]  # fmt: skip
    cost = expected(wide, layers)
    assert sum(float(row["total_pj"]) for row in rows[2:]) == pytest.approx(cost.total_energy_pj, rel=1e-12)
    assert float(rows[2]["utilization"]) == cost.operators[0].macs / cost.operators[0].cycles / (16 * 32)


def test_a_comparison_has_a_column_per_design_with_ratios(design, changed, layers):
    fast = changed("fast", clock_mhz=500)
    text = run(design, layers, "--compare", fast, "--no-sensitivity").stdout
    below = text[text.index("beside chip") :].splitlines()
    assert below[1].split() == ["chip", "fast"]
    time = next(line for line in below if line.startswith("time")).split()
    assert time[-1] == "0.500x"
    assert next(line for line in below if line.startswith("cycles")).split()[-1] == "1.00x"


def test_designs_of_one_file_name_are_told_apart(design, layers, tmp_path):
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / design.name
    twin.write_text(design.read_text())
    text = run(design, layers, "--compare", twin, "--no-sensitivity").stdout
    assert f"beside {tmp_path.name}/chip\n" in text
    assert re.search(rf"^ +{tmp_path.name}/chip +other/chip$", text, re.MULTILINE)


def test_a_training_step_is_split_by_phase(design, layers, tmp_path):
    path = tmp_path / "cost.json"
    result = run(design, layers, "--training", "--batch", 1, "--json", path, "--no-sensitivity")
    assert result.exit_code == 0, result.output
    assert "two layers, training step, batch 1" in result.stdout
    assert "by phase" in result.stdout
    phases = [row["phase"] for row in json.loads(path.read_text())["designs"][0]["by"]["phase"]]
    assert phases == ["forward", "backward", "gradient", "update"]


def test_another_format_of_storage_changes_bytes_and_no_arithmetic(design, layers, tmp_path):
    found = []
    for name, options in (("a", ()), ("b", ("--format", "bf16"))):
        path = tmp_path / f"{name}.json"
        result = run(design, layers, "--json", path, "--no-sensitivity", "--objective", "energy", *options)
        assert result.exit_code == 0, result.output
        parts = json.loads(path.read_text())["designs"][0]["by"]["component"]
        found.append({row["component"]: row["energy_pj"] for row in parts})
    narrow, wide = found
    assert wide["offchip"] > 1.5 * narrow["offchip"]
    assert wide["mac"] == pytest.approx(narrow["mac"])
    assert set(COMPONENTS) <= set(narrow)


def test_a_users_tables_are_named(design, layers, tmp_path):
    tables = tmp_path / "foundry.toml"
    tables.write_text(
        'name = "foundry X"\n[offchip.LPDDR4]\npj_per_bit = 0.5\n[offchip.DDR4]\npj_per_bit = 9\n'
    )
    design.write_text(design.read_text() + 'library = "foundry.toml"\n')
    text = run(design, layers, "--no-sensitivity").stdout
    assert "tables of foundry X" in text
    assert "replaced: offchip.LPDDR4.pj_per_bit\n" in text
    assert "replaced: offchip.DDR4.pj_per_bit (unused)" in text


WIDE = """\
[[conv]]
name = "wide"
channels = 8
height = 64
width = 64
filters = 8
kernel = 31

[[conv]]
name = "wider"
channels = 8
height = 64
width = 64
filters = 8
kernel = 41
"""


def test_an_infeasible_design_is_one_line_per_constraint(changed, tmp_path):
    layers, small = tmp_path / "wide.toml", changed("small", scratchpad_bytes=1024, accumulator_bytes=1024)
    layers.write_text(WIDE)
    line = refused(small, layers)
    needed = re.search(r"wider needs (\d+) bytes, scratchpad_bytes gives 1024: (\d+) bytes short", line)
    assert needed is not None, line
    assert int(needed[2]) == int(needed[1]) - 1024
    # Two buffers each for one window of one channel and for the weights of one fold, in bytes.
    assert int(needed[1]) == 2 * (41 * 41 + 16 * 16)
    assert line.startswith(f"error: {small}: ")
    assert line.endswith("1 more operator does not fit either")


def test_an_infeasible_one_beside_others_is_shown_and_refused(design, changed, tmp_path):
    layers, small = tmp_path / "wide.toml", changed("small", scratchpad_bytes=1024, accumulator_bytes=1024)
    layers.write_text(WIDE)
    page = tmp_path / "page.html"
    result = run(design, layers, "--compare", small, "--no-sensitivity", "--html", page)
    assert result.exit_code == 2
    assert re.search(r"^energy +\d.* -$", result.stdout.replace(" \n", "\n"), re.MULTILINE)
    assert re.search(r"^area +\d.*x$", result.stdout.replace(" \n", "\n"), re.MULTILINE)
    assert result.stderr.startswith(f"error: {small}: wider needs")
    assert "<b>Infeasible:</b>" in page.read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"row": 3}, "design has no key 'row'; did you mean 'rows'?"),
        ({"rows": 0}, "rows must be at least 1, got 0"),
        ({"clock_mhz": -1}, "clock_mhz must be above 0 and finite, got -1"),
        ({"dataflow": "rs"}, "dataflow must be one of"),
        ({"operand": "e9m3"}, "exp_bits must be in 1..8, got 9"),
        ({"operand": "mxfp8", "accumulator": "int32"}, "block formats are summed by a float accumulator"),
        ({"operand": "int8", "accumulator": "volta"}, "a fused adder takes float operands"),
        ({"offchip": "DDR9"}, "offchip must be one of"),
        ({"scratchpad_bytes": 100}, "scratchpad_bytes must be at least 1024, got 100"),
        ({"library": "none.toml"}, "none.toml"),
    ],
)
def test_a_wrong_design_is_one_line(settings, message, changed, layers):
    path = changed("wrong", **settings)
    line = refused(path, layers)
    assert line.startswith(f"error: {path}: ")
    assert message in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[gemm]]\nname = 'a'\nm = 0\nn = 4\nk = 4\n", "gemm[0].m must be at least 1, got 0"),
        ("[[gemm]]\nname = 'a'\nm = 4\nn = -4\nk = 4\n", "gemm[0].n must be at least 1, got -4"),
        ("[[gem]]\nname = 'a'\nm = 4\nn = 4\nk = 4\n", "gem"),
        ("name = = 3\n", "is not TOML"),
        ("", "must list at least one [[gemm]] or [[conv]]"),
    ],
)
def test_a_wrong_list_of_layers_is_one_line(text, message, design, tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    line = refused(design, path)
    assert line.startswith(f"error: {path}: ")
    assert message in line


def test_a_table_with_a_wrong_unit_is_one_line(design, layers, tmp_path):
    units = {"size": "KiB", "width": "bit", "read": "eV", "write": "fJ"}
    units |= {"area": "um2", "leakage": "uW", "access": "ps"}
    lines = ["[[sram]]", "node_nm = 12", "cells = 'lop'", *(f"units.{k} = '{v}'" for k, v in units.items())]
    (tmp_path / "foundry.toml").write_text("\n".join([*lines, "rows = [[1, 32, 310, 290, 800, 21, 240]]"]))
    design.write_text(design.read_text() + 'library = "foundry.toml"\n')
    line = refused(design, layers)
    assert "units.read must be one of" in line
    assert "'eV'" in line


def test_an_onnx_graph_that_cannot_be_costed_is_one_line(design, tmp_path):
    from onnx import TensorProto, helper, save

    def graph(kind, size):
        node = helper.make_node(kind, ["x"], ["y"], name="odd", domain="my.own" if kind == "Odd" else "")
        floats = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, size]) for n in "xy"]
        path = tmp_path / f"{kind}.onnx"
        model = helper.make_model(helper.make_graph([node], "g", floats[:1], floats[1:]))
        save(model, path)
        return path

    line = refused(design, graph("Relu", "length"))
    assert "length" in line
    line = refused(design, graph("STFT", 4))
    assert "STFT" in line or "odd" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--format", "e9"), "--format: format must be"),
        (("--tokens", 4), "--tokens is for a network that is known by name"),
        (("--csv", "/nowhere/at/all.csv"), "/nowhere/at/all.csv: there is no folder /nowhere/at"),
        (("--compare", "none.toml"), "none.toml: No such file or directory"),
        (("--formats", "none.toml"), "none.toml: No such file or directory"),
    ],
)
def test_a_wrong_option_is_one_line(options, message, design, layers):
    assert message in refused(design, layers, *options)


def test_an_unknown_role_names_the_file(design, layers, tmp_path):
    path = tmp_path / "formats.toml"
    path.write_text("weigth = 'int8'\n")
    line = refused(design, layers, "--formats", path)
    assert line.startswith(f"error: {path}: a format is given by role (input, ")
    assert line.endswith("got 'weigth'")


def test_an_unknown_name_has_close_ones(design):
    line = refused(design, "resnet81")
    assert "got 'resnet81', did you mean resnet8" in line
