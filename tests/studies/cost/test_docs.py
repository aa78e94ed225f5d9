"""What the guide to costs shows works as written, and the designs that it points to are sound."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from accel import Design, Library, Workload, evaluate
from accel.hardware.library import LibraryError
from studies.cli import main

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "cost.md").read_text()
DESIGNS = sorted((ROOT / "studies" / "configs" / "designs").glob("*.toml"))


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_the_python_example_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    (block,) = blocks("python")
    names = {}
    exec(compile(block, "docs/cost.md", "exec"), names)
    chosen = {operator.name: operator.tiling for operator in names["by_hand"].operators}
    assert chosen["layer1.0.conv1"] == names["mine"]
    assert names["many"]["feasible"].all()
    assert names["step"].batch == 32


def test_every_key_of_a_design_is_in_the_table():
    rows = [line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `")]
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == set(Design.keys())


def test_the_list_of_layers_is_read(tmp_path):
    text = next(block for block in blocks("toml") if "[[conv]]" in block)
    (tmp_path / "layers.toml").write_text(text)
    workload = Workload.from_toml(tmp_path / "layers.toml")
    assert workload.macs == 12 * 1576 * 1152 * 384 + 8 * 112 * 112 * 64 * 3 * 49


def test_the_tables_of_constants_are_read_but_for_the_rows_left_out(tmp_path):
    text = next(block for block in blocks("toml") if "[[sram]]" in block)
    memory = text[text.index("[[sram]]") : text.index("[[cell]]")]
    (tmp_path / "foundry.toml").write_text(text.replace(memory, ""))
    library = Library.from_toml(tmp_path / "foundry.toml")
    assert library.name == "foundry X, 12 nm"
    assert "offchip.LPDDR4.pj_per_bit" in library.replaced
    (tmp_path / "foundry.toml").write_text(text)
    with pytest.raises(LibraryError, match="sram"):  # one row is no table
        Library.from_toml(tmp_path / "foundry.toml")


def test_formats_by_role_and_pattern_are_those_of_the_guide():
    text = next(block for block in blocks("toml") if "optimizer_state" in block)
    step = Workload.named("resnet8", fold_batch_norm=False).training(2)
    stored = step.with_formats(tomllib.loads(text))
    assert stored.tensors["layer1.conv1.weight"].format.bits == 8
    assert stored.tensors["fc.weight"].format.bits == 16


def test_options_in_the_guide_exist():
    (shell,) = re.findall(r"```\n(bitfront.*?)```", TEXT, flags=re.DOTALL)
    known = {option for parameter in main.commands["cost"].params for option in parameter.opts}
    used = {
        word for line in shell.splitlines() for word in shlex.split(line, comments=True) if word[:2] == "--"
    }
    assert used
    assert used <= known
    assert CliRunner().invoke(main, ["cost", "--help"]).exit_code == 0


@pytest.mark.parametrize("path", DESIGNS, ids=lambda path: path.stem)
def test_example_designs_meet_their_clock_and_run(path):
    design = Design.from_file(path)
    cost = evaluate(design, Workload.named("resnet8").with_formats(design.operand))
    assert cost.feasible
    assert cost.timing == ()


def test_there_are_example_designs():
    assert {"edge-fp8", "edge-int8", "tpu-bf16"} <= {path.stem for path in DESIGNS}
