"""Every wrong configuration is one line: key path, value, what is allowed."""

import re

import pytest
from click.testing import CliRunner

from studies.cli import main
from studies.codesign.config import CampaignConfig
from studies.config import ConfigError, load


def refuse(path):
    with pytest.raises(ConfigError) as caught:
        load(path, CampaignConfig)
    return str(caught.value)


def with_line(text, key, line):
    """The configuration with the line that sets `key` replaced."""
    changed, count = re.subn(rf"(?m)^{key} =.*$", line, text)
    assert count == 1
    return changed


@pytest.mark.parametrize("name", ["digits", "transformer-codesign", "resnet-codesign"])
def test_the_shipped_configurations_are_valid(name):
    from pathlib import Path

    import studies

    shipped = Path(studies.__file__).parent / "configs" / f"{name}.toml"
    config = load(shipped, CampaignConfig)
    assert config.evaluations >= 24
    assert len(config.space.format) >= 3


def test_a_single_value_is_a_choice_of_one(tiny_file):
    config = load(tiny_file, CampaignConfig)
    assert config.space.columns == [16]
    assert config.space.rows == [8, 16]


BAD = [
    ("rows", "rows = 0", "space.rows: must be at least 1, got 0"),
    ("rows", "rows = [8, 0]", "space.rows[1]: must be at least 1, got 0"),
    ("rows", 'rows = ["8"]', "space.rows[0]: must be a whole number, got '8'"),
    ("rows", "rows = []", "space.rows: must have at least one choice, got none"),
    ("rows", "rows = [8, 8]", "space.rows: choices must be distinct, got 8 twice"),
    ("rows", "rows = 8.5", "space.rows: must be a whole number, got 8.5"),
    ("format", 'format = "e9m99"', "space.format: exp_bits must be in 1..8, got 9"),
    ("format", 'format = ["e5m2", "fp7"]', "space.format[1]: format must be e<1..8>m<0..23>"),
    ("dataflow", 'dataflow = "rs"', "space.dataflow: must be one of 'os', 'ws' or 'is', got 'rs'"),
    ("chunk", "chunk = -1", "space.chunk: must be at least 0, got -1"),
    ("update_rounding", 'update_rounding = "nearest"', "space.update_rounding: rounding must be one of"),
    ("columns", "colums = 16", "space.columns: missing, and it is required"),
    ("evaluations", "evaluations = 0", "evaluations: must be at least 1, got 0"),
    ("evaluations", "evaluation = 5", "did you mean 'evaluations'?"),
    ("task", 'task = "mnist"', "training.task: must be one of digits-mlp, digits-cnn, "),
    ("task", 'task = "text-transformer"', "training.task.path: missing, and it is required"),
    (
        "task",
        'task = { name = "digits-mlp", hiden = [8] }',
        "training.task.hiden: unknown option of digits-mlp",
    ),
    ("learning_rate", "# none", "training: wants learning_rate, or a table optimizer"),
    ("learning_rate", "learning_rate = nan", "training.learning_rate: must be a finite number, got nan"),
    ("learning_rate", "learning_rate = -1.0", "training.learning_rate: must be above 0, got -1.0"),
    ("offchip", 'offchip = "DDR9"', "'DDR9'"),
    ("initial", 'initial = "many"', "search.initial: must be a whole number, got 'many'"),
    ("initial", "thresholds = { area_um2 = 1.0 }", "search: thresholds must be of the objectives"),
    ("initial", 'objectives = ["energy_pj:max"]', "search.objectives[0]: energy_pj is minimised, and cannot"),
    (
        "initial",
        'objectives = ["energy_pj:up"]',
        "search.objectives[0]: the direction of energy_pj must be min",
    ),
    ("initial", 'objectives = ["speed"]', "search.objectives[0]: must be one of"),
]


@pytest.mark.parametrize(("key", "line", "expected"), BAD, ids=[line for _, line, _ in BAD])
def test_a_wrong_value_is_named_with_its_path_and_what_is_allowed(tmp_path, tiny_text, key, line, expected):
    path = tmp_path / "bad.toml"
    path.write_text(with_line(tiny_text, key, line))
    message = refuse(path)
    assert expected in message
    assert all(one.startswith(f"{path}: ") for one in message.splitlines())


def test_an_unknown_key_lists_what_is_allowed(tmp_path, tiny_text):
    path = tmp_path / "bad.toml"
    path.write_text(tiny_text + "metod = 'auto'\n")
    assert refuse(path) == (
        f"{path}: search.metod: unknown key; did you mean 'method'? "
        f"(allowed: method, initial, objectives, features, thresholds)"
    )


def test_what_is_no_toml_and_what_is_no_file_are_told_apart(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("rows = = 1")
    assert "is not TOML" in refuse(path)
    assert refuse(tmp_path / "none.toml") == f"{tmp_path / 'none.toml'}: no such file"
    assert "is a folder" in refuse(tmp_path)


def test_the_command_line_answers_bad_input_with_one_line_and_exit_code_2(tmp_path, tiny_text):
    path = tmp_path / "bad.toml"
    path.write_text(with_line(tiny_text, "rows", "rows = 0"))
    result = CliRunner().invoke(main, ["campaign", str(path), "--run", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert result.stderr == f"error: {path}: space.rows: must be at least 1, got 0\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "line", "expected"),
    [
        (
            "scratchpad_bytes",
            "scratchpad_bytes = [4096, 131072]",
            r"space\.scratchpad_bytes\[0\]: in format e3m2, .* at least 61440,.*got 4096",
        ),
        ("accumulator_bytes", "accumulator_bytes = 8", r"accumulator_bytes must be at least 1024, got 8"),
        ("batch", "batch = 4000", r"training\.batch: must be at most 1347, got 4000"),
        (
            "initial",
            'objectives = ["test_metric"]',
            r"search\.objectives\[0\]: test_metric is of other metrics",
        ),
        (
            "task",
            'task = { name = "npz-cnn", folder = "nowhere" }',
            r"training\.task: no image arrays in 'nowhere'",
        ),
    ],
)
def test_what_only_the_model_can_know_is_refused_before_any_training(
    tmp_path, tiny_text, key, line, expected
):
    path = tmp_path / "bad.toml"
    path.write_text(with_line(tiny_text, key, line))
    result = CliRunner().invoke(main, ["campaign", str(path), "--run", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert re.search(expected, result.stderr)
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists()
