"""`bitfront train` from the file to the table, and what it refuses before it trains."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

import studies
from numerics.torch import LayerPolicy, Policy
from studies.cli import main
from studies.config import ConfigError
from studies.precision.run import run
from studies.precision.study import Study
from studies.precision.table import TWIN
from studies.tasks import Data

STUDY = """\
seeds = [0, 1]
steps = 6
batch = 64
evaluate_every = 3
evaluation_samples = 100
save_every = 2

[task]
name = "digits-mlp"

[optimizer]
learning_rate = 0.05

[[policies]]
name = "recipe"
preset = "wang2018"
"""
SGD = {"kind": "sgd", "learning_rate": 0.2}
FP8 = LayerPolicy.uniform("e5m2", "e6m9 chunk=64")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path


def command(file, *options):
    folder = file.parent / "run"
    return CliRunner().invoke(main, ["train", str(file), "--run", str(folder), "--workers", "1", *options])


def refuse(file, *options):
    result = command(file, *options)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_a_study_ends_with_a_table_and_a_folder_that_holds_everything(file):
    result = command(file)
    assert result.exit_code == 0, result.output
    folder = file.parent / "run"
    table = pd.read_parquet(folder / "table.parquet")
    assert table["policy"].tolist() == [TWIN, "recipe"]
    assert table["seeds"].tolist() == [2, 2]
    assert np.isfinite(table[["training_loss", "training_loss_interval", "metric"]].to_numpy()).all()
    assert np.isfinite(table.loc[1, ["loss_difference", "metric_difference_interval"]].to_numpy(float)).all()
    pd.testing.assert_frame_equal(pd.read_csv(folder / "table.csv"), table)
    runs = pd.read_parquet(folder / "runs.parquet")
    assert runs[["policy", "seed"]].to_numpy().tolist() == [
        [TWIN, 0], ["recipe", 0], [TWIN, 1], ["recipe", 1],
    ]  # fmt: skip
    for path in ("float32/seed-0", "01-recipe/seed-1"):
        names = {entry.name for entry in (folder / "runs" / path).iterdir()}
        policy = {"statistics.parquet"} if "recipe" in path else set()
        assert names == {"outcome.json", "curve.parquet", "weights.pt"} | policy
    for words in ("4/4", "recipe", "loss", "accuracy", "seed 1", "verdict"):
        assert words in result.output
    # Not a terminal: a line per run, and no more.
    assert len([line for line in result.output.splitlines() if "seed 0" in line]) == 2


def test_config_toml_holds_all_settings_and_is_a_study_itself(file):
    assert command(file).exit_code == 0
    written = file.parent / "run" / "config.toml"
    first, again = Study.from_toml(file), Study.from_toml(written)
    assert again.settings == first.settings
    assert again.policies == first.policies
    text = written.read_text()
    for line in ("stop_when_diverged = true", "momentum = 0.9", 'schedule = "constant"'):
        assert line in text


def test_the_same_command_goes_on_and_trains_nothing_again(file):
    assert command(file).exit_code == 0
    stamp = (file.parent / "run" / "runs" / "float32" / "seed-0" / "outcome.json").stat().st_mtime_ns
    result = command(file)
    assert result.exit_code == 0
    assert "4 of 4 runs were finished before" in result.output
    assert (file.parent / "run" / "runs" / "float32" / "seed-0" / "outcome.json").stat().st_mtime_ns == stamp


def test_added_seeds_and_policies_reuse_what_is_finished(file):
    assert command(file).exit_code == 0
    file.write_text(STUDY.replace("[0, 1]", "[0, 1, 2]") + ANOTHER.format(name="wide"))
    result = command(file)
    assert "4 of 9 runs were finished before" in result.output
    assert pd.read_parquet(file.parent / "run" / "table.parquet")["seeds"].tolist() == [3, 3, 3]


def test_another_study_in_the_folder_is_refused_and_forced(file):
    assert command(file).exit_code == 0
    file.write_text(STUDY.replace("steps = 6", "steps = 7"))
    line = refuse(file)
    assert "holds another study: steps: 6 in the store, 7 now" in line
    assert "--force" in line
    assert command(file, "--force").exit_code == 0
    assert pd.read_parquet(file.parent / "run" / "runs.parquet")["steps"].tolist() == [7] * 4


def test_a_sweep_is_a_policy_per_value_with_a_column_of_its_own(file):
    file.write_text(STUDY.replace("[0, 1]", "[0]") + "forward.accumulator.frac_bits = [3, 9]\n")
    assert command(file).exit_code == 0
    table = pd.read_parquet(file.parent / "run" / "table.parquet")
    assert table["forward.accumulator.frac_bits"].tolist()[1:] == [3, 9]
    assert len(table) == 3
    assert table.loc[1, "training_loss"] != table.loc[2, "training_loss"]


def replaced(old, new):
    assert old in STUDY
    return STUDY.replace(old, new)


ANOTHER = '[[policies]]\nname = "{name}"\npreset = "bf16"\n'
BAD = [
    (replaced("seeds = [0, 1]", "seeds = []"), "seeds: must have at least one choice, got none"),
    (replaced("seeds = [0, 1]", "seeds = [1, 1]"), "seeds: choices must be distinct, got 1 twice"),
    (replaced("steps = 6", "steps = 0"), "steps: must be at least 1, got 0"),
    (replaced("steps = 6", 'steps = "6"'), "steps: must be a whole number, got '6'"),
    (replaced("steps = 6", "step = 6"), "step: unknown key; did you mean 'steps'?"),
    (replaced("batch = 64", "batch = 2000"), "batch: must be at most 1347, the size of the training set"),
    (replaced("digits-mlp", "digits-mpl"), "did you mean 'digits-mlp'?"),
    (replaced("0.05", "nan"), "optimizer.learning_rate: must be a finite number, got nan"),
    (replaced("learning_rate = 0.05", "learning_rat = 1.0"), "optimizer"),
    (replaced("0.05", '0.05\nkind = "lion"'), "optimizer.kind: must be one of"),
    (replaced("0.05", "0.05\nbeta1 = 0.9"), "optimizer: beta1 is no setting of sgd, which has momentum"),
    (replaced("wang2018", "wang2019"), "wang2019"),
    (replaced('"wang2018"', '["wang2018", "bf16"]'), "policies[0].preset"),
    (STUDY + "forward.acumulator.frac_bits = 5\n", "acumulator"),
    (STUDY + "forward.accumulator.frac_bits = []\n", "forward.accumulator.frac_bits"),
    (STUDY + "loss_scale = 1e9\n", "loss"),
    (STUDY + '[[policies.rules]]\nmodules = ["conv9"]\nweight = "e4m3fn"\n', "conv9"),
    (STUDY + ANOTHER.format(name="recipe"), "policies[1].name: must be unique, got 'recipe'"),
    (STUDY + ANOTHER.format(name="float32"), "'float32' is that of the full-precision twin"),
    (STUDY.split("[[policies]]")[0], "policies: missing, and it is required"),
]


@pytest.mark.parametrize(("text", "expected"), BAD, ids=[expected[:40] for _, expected in BAD])
def test_what_cannot_be_trained_is_refused_in_one_line_before_anything_is(file, text, expected):
    file.write_text(text)
    if "learning_rat =" in text:  # two errors: the key that is missing, and the one that is unknown
        result = command(file)
        assert result.exit_code == 2
        assert "optimizer.learning_rat: unknown key; did you mean 'learning_rate'?" in result.stderr
    else:
        line = refuse(file)
        assert line.startswith(f"error: {file}: ")
        assert expected in line
    assert not (file.parent / "run").exists()


def test_a_damaged_or_foreign_checkpoint_is_refused_by_name(file):
    assert command(file).exit_code == 0
    folder = file.parent / "run" / "runs" / "01-recipe" / "seed-1"
    (folder / "outcome.json").unlink()
    (folder / "checkpoint.pt").write_bytes(b"nothing of ours")
    line = refuse(file)
    assert line.startswith(f"error: {folder / 'checkpoint.pt'}: is no checkpoint")
    assert not (folder / "outcome.json").exists()
    (folder / "checkpoint.pt").unlink()
    assert command(file).exit_code == 0


def test_a_study_in_use_is_refused(file):
    from studies.precision.folder import StudyFolder

    with StudyFolder(file.parent / "run", Study.from_toml(file).dump()):
        assert f"is in use by process {os.getpid()}" in refuse(file)


def small(points, **changes):
    values = {
        "task": points, "policies": {"fp8": FP8}, "optimizer": SGD, "steps": 8, "batch": 16, "seeds": [0, 1],
    }  # fmt: skip
    return Study(**{**values, **changes})


def test_a_task_of_ones_own_is_trained_by_one_call(points):
    table, again = (studies.train(small(points)).drop(columns="relative_step_time") for _ in range(2))
    assert table["policy"].tolist() == [TWIN, "fp8"]
    assert table["metric"].between(0, 100).all()
    pd.testing.assert_frame_equal(table, again)


def test_a_study_in_python_keeps_its_folder_and_its_curves(points, tmp_path):
    result = run(small(points), tmp_path / "run")
    assert result.runs["steps"].tolist() == [8] * 4
    curves = result.curves
    assert set(zip(curves["policy"], curves["seed"], strict=True)) == {
        (TWIN, 0), (TWIN, 1), ("fp8", 0), ("fp8", 1),
    }  # fmt: skip
    assert len(curves) == 4 * 9
    lost = result.statistics
    assert set(zip(lost["policy"], lost["seed"], strict=True)) == {("fp8", 0), ("fp8", 1)}
    assert {"forward", "backward", "gradient", "weight"} <= set(lost["role"])
    again = run(small(points), tmp_path / "run")
    pd.testing.assert_frame_equal(again.runs, result.runs)  # times included: nothing was trained again


def test_other_data_are_another_study(points, tmp_path):
    from dataclasses import replace

    from studies.precision.files import FolderError

    run(small(points), tmp_path / "run")
    data = points.load()
    changed = replace(data, train_inputs=data.train_inputs + 0.5)
    with pytest.raises(FolderError, match=r"outcome.json: is the outcome of another run: data: "):
        run(small(replace(points, load=lambda: changed)), tmp_path / "run")


def test_a_task_that_cannot_be_sent_to_processes_says_so(points):
    from dataclasses import replace

    own = replace(points, load=lambda: points.load())
    with pytest.raises(ValueError, match="workers must be 1 for a task that cannot be pickled, got 2"):
        studies.train(small(own), workers=2)


def test_nan_in_the_data_is_refused_before_training(points):
    from dataclasses import replace

    def load():
        inputs = points.load().train_inputs.clone()
        inputs[5, 1] = torch.nan
        labels = torch.zeros(len(inputs), dtype=torch.int64)
        return Data(train_inputs=inputs, train_labels=labels, test_inputs=inputs, test_labels=labels)

    with pytest.raises(ConfigError, match=r"^task: train_inputs: .* NaN.*\(5, 1\)$"):
        studies.train(small(replace(points, load=load)))


def test_a_policy_that_leaves_a_layer_out_is_refused(points):
    from numerics.torch.policy import Rule

    with pytest.raises(ConfigError, match=r"policy 'p': .*'3'"):
        studies.train(small(points, policies={"p": Policy([Rule("0", weight="e5m2")])}))


def test_a_diverged_policy_is_counted_and_the_study_goes_on(points):
    table = studies.train(small(points, policies={"narrow": "wang2018"}, optimizer={"learning_rate": 1e30}))
    assert table["diverged"].tolist() == [2, 2]
    assert table["verdict"].tolist() == ["diverged 2 of 2"] * 2


def test_importing_studies_is_light_and_its_names_come_when_asked_for():
    program = (
        "import sys, studies\n"
        "assert not {'torch', 'numerics', 'pandas'} & set(sys.modules)\n"
        "from studies import Study, Task, train\n"
        "print(train.__module__, Study.__module__, 'torch' in sys.modules)\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["studies.precision.api", "studies.precision.study", "True"]
    with pytest.raises(AttributeError, match="has no attribute 'Studi'"):
        _ = studies.Studi
