"""What the guide to precision studies shows works as written, and nothing is left out of it."""

import contextlib
import io
import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from numerics import Rounding
from numerics.accumulate import parse_accumulator
from numerics.block import parse_any_format
from numerics.torch import PRESETS, Policy, Scaling
from numerics.torch.interception import PRODUCT_NAMES
from numerics.torch.layer_policy import PRODUCTS, TENSORS
from numerics.torch.modules import COMPOSITE, FLOAT32_PARTS, LAYERS
from numerics.torch.statistics import COLUMNS
from numerics.torch.update_policy import UpdatePolicy
from studies.cli import main
from studies.precision.optimizer import Optimizer
from studies.precision.predicted import Prediction
from studies.precision.settings import Settings
from studies.precision.study import Study
from studies.tasks import task_names
from studies.tasks.named import _TABLES

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "training.md").read_text()


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_the_python_examples_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for block in blocks("python"):
            exec(compile(block, "docs/training.md", "exec"), names)
    assert len(blocks("python")) == 5
    assert list(names["table"]["policy"]) == ["float32", "FP8", "OFP8"]
    assert str(names["narrow"].layer("body").forward) == "e6m5 chunk=64"
    assert Policy.from_toml(names["recipe"].to_toml()) == Policy.preset("wang2018")
    assert "e5m10 e6m9 chunk=64" in printed.getvalue()
    frame = names["statistics"].frame()
    assert list(frame.columns) == list(COLUMNS)
    assert set(frame["step"]) == {0, 5, 10, 15}
    assert names["accuracy"] > 0.3  # of 4 classes at random, on samples that it has seen
    assert "absolute" not in printed.getvalue()
    assert "matches" in printed.getvalue() or "worse" in printed.getvalue() or "better" in printed.getvalue()


def test_the_loop_has_five_added_and_two_changed_lines():
    loop = next(block for block in blocks("python") if "scaler.backward" in block)
    assert [int(number) for number in re.findall(r"# (\d)", loop)] == [1, 2, 3, 4, 5]
    assert loop.count("# was ") == 2


def test_the_quick_start_trains_and_leaves_a_report(tmp_path):
    study = blocks("toml")[0]
    file = tmp_path / "study.toml"
    file.write_text(study)
    assert Study.from_toml(file).steps == 100
    small = (
        study.replace("steps = 100", "steps = 2")
        .replace("[0, 1, 2]", "[0]")
        .replace("[2, 3, 4, 6]", "[2, 6]")
    )
    assert small.count("2, 6") == 1
    file.write_text(small)
    result = CliRunner().invoke(main, ["train", str(file), "--run", str(tmp_path / "run"), "--workers", "1"])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "run" / "report.html").read_text()
    assert "narrow sums frac_bits=6 chunk=64" in page
    described = set(re.findall(r"`([\w.]+\.(?:html|csv|parquet|toml|json))`", TEXT))
    assert {"report.html", "table.csv", "runs.parquet", "bits.parquet", "study.json"} <= described
    files = {path.name for path in (tmp_path / "run").iterdir() if path.is_file() and path.suffix != ".lock"}
    assert files <= described


def test_the_other_files_are_read(tmp_path):
    _, predicted, policy = blocks("toml")
    (tmp_path / "study.toml").write_text(predicted)
    assert len(Study.from_toml(tmp_path / "study.toml").policies) == 6
    read = Policy.from_toml(policy)
    assert read.loss_scale == 1000
    assert str(read.layer("head", last=True).error) == "e6m9 scaling=tensor"
    assert str(read.layer("body").tensor("weight")) == "e4m3fn scaling=tensor rounding=nearest-even"


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(PRESETS, id="presets"),
        pytest.param(tuple(name for name in Settings.model_fields if name != "optimizer"), id="settings"),
        pytest.param(tuple(Optimizer.model_fields), id="optimizer"),
        pytest.param(task_names(), id="tasks"),
        pytest.param(tuple({key for table in _TABLES.values() for key in table.model_fields}), id="options"),
        pytest.param(tuple(field.name for field in fields(Prediction)), id="predict"),
        pytest.param((*TENSORS, *PRODUCTS), id="roles"),
        pytest.param(tuple(field.name for field in fields(UpdatePolicy)), id="update"),
        pytest.param(tuple(COLUMNS), id="statistics"),
        pytest.param(FLOAT32_PARTS, id="float32"),
        pytest.param(tuple(kind.__name__ for kind in (*LAYERS, *COMPOSITE)), id="layers"),
        pytest.param(tuple({re.sub(r"_\d+$", "", name) for name in PRODUCT_NAMES}), id="products"),
    ],
)
def test_nothing_is_left_out(words):
    missing = [word for word in words if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", TEXT)]
    assert not missing


@pytest.mark.parametrize(
    ("bullet", "parse", "count"),
    [
        ("Formats", parse_any_format, 7),
        ("Scaling", Scaling.parse, 5),
        ("Rounding", Rounding.parse, 8),
        ("Accumulators", parse_accumulator, 4),
    ],
)
def test_the_texts_of_values_parse(bullet, parse, count):
    (line,) = re.findall(rf"- \*\*{bullet}\*\*:(.*?)\n- ", TEXT, flags=re.DOTALL)
    texts = [
        text for text in re.findall(r"`([^`]+)`", line) if text not in ("native", "-pow2", "bitfront formats")
    ]
    assert len(texts) == count
    for text in texts:
        parse(text)


def test_the_defaults_that_the_guide_names_are_those_of_the_settings():
    settings = Settings(optimizer={"learning_rate": 0.1})
    rows = dict(re.findall(r"(?m)^\| `([a-z_]+)` \| (\S+) \|", TEXT))
    for name in ("evaluation_samples", "save_every"):
        assert rows[name] == str(getattr(settings, name))
    assert rows["stop_when_diverged"] == str(settings.stop_when_diverged).lower()
    assert f"| `steps`, `batch` | {settings.steps}, {settings.batch} |" in TEXT
    assert settings.evaluate_every == settings.statistics_every == settings.steps / 20
    assert f"| `seeds` | `{settings.seeds}` |" in TEXT


def test_the_pages_and_files_that_it_names_exist():
    for page in re.findall(r"\]\(([\w/.]+\.md)\)", TEXT):
        assert (ROOT / "docs" / page).exists()
    assert (ROOT / "numerics" / "torch" / "presets" / "wang2018.toml").exists()
    help_text = CliRunner().invoke(main, ["train", "--help"]).output
    for option in ("--run", "--workers", "--force"):
        assert option in help_text
        assert option in TEXT
