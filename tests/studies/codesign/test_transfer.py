"""What an earlier campaign must have in common with this one, one line for what it has not."""

import pytest
from click.testing import CliRunner

from dse import Campaign, Categorical, Objective, Ordinal, Space
from studies.cli import main
from studies.codesign.campaign import objectives_of, space_of
from studies.codesign.config import CampaignConfig, changed
from studies.codesign.transfer import fingerprint, transfer_of
from studies.config import ConfigError, load


@pytest.fixture
def config(tiny_file):
    return load(tiny_file, CampaignConfig)


def stored(folder, space, objectives, evaluate, count):
    folder.mkdir()
    with Campaign(space, objectives, seed=0, method="random", store=folder / "campaign.sqlite") as campaign:
        if count:
            campaign.run(evaluate, budget=count)
    return folder


def another_space(folder):
    space = Space([Ordinal("unroll", [1, 2, 4]), Categorical("kind", ["a", "b"])])
    return stored(folder, space, [Objective("training_loss")], lambda p: {"training_loss": p["unroll"]}, 3)


@pytest.fixture
def numerics():
    return Space(
        [
            Categorical("format", ["e5m2", "e3m2"]),
            Ordinal("accumulator_exp_bits", [6, 7]),
            Ordinal("accumulator_frac_bits", [3, 6, 9]),
            Categorical("chunk", [0, 64]),
            Categorical("update_rounding", ["nearest-even", "stochastic"]),
        ]
    )


def test_an_earlier_campaign_gives_each_numerics_once(tmp_path, found, config, loss_of):
    """On hardware of another kind the numerics repeat, and train alike."""
    space, objectives = space_of(found.config, found.pricing), objectives_of(found.config, found.pricing, 2.3)
    folder = stored(
        tmp_path / "run", space, objectives, lambda p: {"training_loss": loss_of(p)}, 30
    )  # of 24 numerics
    (frame,) = transfer_of([folder], config)
    names = [name for name in frame.columns if name != "training_loss"]
    assert names == ["format", "accumulator_exp_bits", "accumulator_frac_bits", "chunk", "update_rounding"]
    assert 5 < len(frame) == len(frame.drop_duplicates(names)) < 25
    for _, row in frame.iterrows():
        assert row["training_loss"] == loss_of(row)
    again = transfer_of([folder], config)
    assert fingerprint(again) == fingerprint([frame]) != fingerprint([frame.head(3)])


def test_errors_in_the_format_of_the_operands_are_a_backward_format_too(tmp_path, numerics, config):
    folder = stored(
        tmp_path / "run", numerics, [Objective("training_loss")], lambda p: {"training_loss": 1.0}, 6
    )
    split = config.space.model_copy(update={"backward_format": ["e5m2", "e3m2"]})
    (frame,) = transfer_of([folder], config.model_copy(update={"space": split}))
    assert (frame["backward_format"] == frame["format"]).all()


def test_what_cannot_be_learnt_from_is_one_line(tmp_path, numerics, config):
    def loss(parameters):
        return {"training_loss": 1.0}

    cases = {
        another_space(
            tmp_path / "other"
        ): "is a campaign of another space: it has no format, accumulator_exp",
        stored(tmp_path / "empty", numerics, [Objective("training_loss")], loss, 0): "has no finished trial",
        stored(tmp_path / "slow", numerics, [Objective("time")], lambda p: {"time": 1.0}, 2): (
            "has none of the objectives to learn here, training_loss; it has time"
        ),
        stored(tmp_path / "up", numerics, [Objective("training_loss", minimize=False)], loss, 2): (
            "maximises training_loss, which is minimised here"
        ),
        tmp_path / "nowhere": "holds no campaign",
    }
    for folder, expected in cases.items():
        with pytest.raises(ConfigError) as caught:
            transfer_of([folder], config)
        assert expected in str(caught.value)
        assert str(caught.value).startswith("--transfer ")
        assert len(str(caught.value).splitlines()) == 1


def refused(*arguments):
    result = CliRunner().invoke(main, ["campaign", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


def test_the_command_line_refuses_before_any_work(tmp_path, tiny_file, tiny_text):
    run = ("--run", tmp_path / "run")
    assert "another space" in refused(tiny_file, *run, "--transfer", another_space(tmp_path / "other"))
    assert refused(tiny_file, *run, "--budget", 0) == "error: --budget: must be at least 1, got 0"
    line = refused(tiny_file, *run, "--data", tmp_path)
    assert line.startswith("error: training.task.name: digits-cnn reads no files")
    tiny_file.write_text(tiny_text.replace("initial = 3", 'objectives = ["training_loss", "energy_pj:max"]'))
    assert "search.objectives[1]: energy_pj is minimised, and cannot be maximised" in refused(tiny_file, *run)
    tiny_file.write_text(tiny_text.replace("evaluations = 5", "evaluations = 0"))
    assert "evaluations: must be at least 1, got 0" in refused(tiny_file, *run)
    assert not (tmp_path / "run").exists()


def test_a_budget_of_zero_is_refused_in_python_too(config):
    with pytest.raises(ConfigError, match="--budget: must be at least 1, got 0"):
        changed(config, {"budget": 0})


def test_other_data_take_the_place_of_those_in_the_file(tmp_path, tiny_file, tiny_text):
    table = '{ name = "text-transformer", path = "old.txt", context = 8 }'
    tiny_file.write_text(tiny_text.replace('task = "digits-cnn"', f"task = {table}"))
    config = changed(load(tiny_file, CampaignConfig), {"data": tmp_path / "new.txt"})
    assert config.training.table.path == str(tmp_path / "new.txt")
    assert config.training.table.context == 8
