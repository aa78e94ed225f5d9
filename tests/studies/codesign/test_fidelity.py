"""A campaign that trains candidates briefly: what is trained once, what counts, and what survives a kill."""

import os
import signal
import subprocess
import sys
import time
from math import nan

import pandas as pd
import pytest

from dse import Campaign
from studies.campaigns.runs import read_run
from studies.codesign.campaign import fidelity_of, objectives_of, space_of
from studies.codesign.config import CampaignConfig
from studies.codesign.evaluate import LOOKS, Evaluator
from studies.codesign.pricing import Pricing
from studies.codesign.quality import Quality
from studies.codesign.transfer import transfer_of
from studies.config import ConfigError, load
from studies.tasks import build_task
from studies.training import Outcome


def with_levels(text, levels):
    return text.replace("steps = 3\n", f"steps = 3\nfidelities = {levels}\n")


@pytest.fixture
def config(tmp_path, tiny_text):
    path = tmp_path / "levels.toml"
    path.write_text(with_levels(tiny_text, [1, 2, 3]))
    return load(path, CampaignConfig)


class Pool:
    """Instead of training: the loss halves with every step."""

    def __init__(self, losses=None):
        self.asked = []
        self.losses = losses or {1: 1.0, 2: 0.5, 3: 0.25}

    def run(self, recipe, numerics, seeds, *, steps=None):
        self.asked.append(list(steps))
        return [
            [
                Outcome(
                    training_loss=self.losses[step], metric=10.0 * step, skipped_steps=0, seconds=float(step)
                )
                for step in steps
            ]
            for _ in seeds
        ]


def evaluator_of(config, pool):
    task = build_task(config.training.table)
    return Evaluator(config, Pricing.of(config, task), Quality(task.metric), pool)


def designs(config, count):
    """Designs of the same numerics on different hardware."""
    space = space_of(config, Pricing.of(config))
    found = {}
    for design in space.designs():
        parameters = space.parameters_of(design)
        key = tuple(parameters[name] for name in ("format", "accumulator_frac_bits", "chunk"))
        found.setdefault(key, []).append(parameters)
        if len(found[key]) == count:
            return found[key]
    raise AssertionError("no numerics on so many accelerators")


def test_what_was_trained_as_far_or_further_is_not_trained_again(config):
    pool = Pool()
    evaluator = evaluator_of(config, pool)
    first, second = designs(config, 2)
    evaluator.trial = 0
    values, metrics = evaluator({**first, "steps": 2})
    assert values == {"training_loss": 0.5}
    assert metrics["trained_in"] == 0
    assert set(metrics[LOOKS]) == {"1"}
    evaluator.trial = 1
    values, metrics = evaluator({**second, "steps": 1})  # that run came by here
    assert values == {"training_loss": 1.0}
    assert (metrics["trained_in"], metrics["test_accuracy"]) == (0, 0.1)
    assert LOOKS not in metrics
    assert pool.asked == [[1, 2]]
    evaluator.trial = 2
    values, metrics = evaluator({**second, "steps": 3})
    assert values == {"training_loss": 0.25}
    assert (metrics["trained_in"], metrics["training_seconds"]) == (2, 3.0)
    evaluator.trial = 3
    assert evaluator({**first, "steps": 3})[1]["trained_in"] == 2
    assert pool.asked == [[1, 2], [1, 2, 3]]
    assert evaluator({**first, "steps": 2})[1]["trained_in"] == 0  # the first to have been there


def test_a_resumed_campaign_knows_what_a_run_passed_on_its_way(config):
    one, other = evaluator_of(config, Pool()), evaluator_of(config, pool := Pool())
    first, second = designs(config, 2)
    one.trial = 7
    values, metrics = one({**first, "steps": 3})
    other.recall(7, first, 3, {**metrics, **values})
    assert other.measured == one.measured
    assert other({**second, "steps": 1}) == one({**second, "steps": 1})
    assert not pool.asked


def test_a_level_at_which_the_loss_is_no_number_is_not_known(config):
    evaluator = evaluator_of(config, pool := Pool({1: nan, 2: 0.5, 3: 0.25}))
    first = designs(config, 1)[0]
    evaluator({**first, "steps": 3})
    assert [list(levels) for levels in evaluator.measured.values()] == [[2, 3]]
    assert len(pool.asked) == 1


@pytest.mark.parametrize("levels", [[3], [2, 1, 3], [1, 2], [1, 1, 3], [1, 4]])
def test_fidelities_rise_to_the_steps(tmp_path, tiny_text, levels):
    path = tmp_path / "wrong.toml"
    path.write_text(with_levels(tiny_text, levels))
    with pytest.raises(ConfigError) as error:
        load(path, CampaignConfig)
    (line,) = str(error.value).splitlines()
    assert "fidelities must be" in line
    assert "steps = 3" in line
    assert str(levels) in line


def test_steps_cost_in_proportion_and_none_are_chosen_by_default(config, tiny_file):
    fidelity = fidelity_of(config)
    assert [fidelity.price(level) for level in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert fidelity_of(load(tiny_file, CampaignConfig)) is None


def test_transfer_takes_full_evaluations_alone(tmp_path, config, loss_of):
    pricing = Pricing.of(config)
    space = space_of(config, pricing)
    folder = tmp_path / "run"
    folder.mkdir()
    with Campaign(
        space,
        objectives_of(config, pricing, 2.3),
        seed=0,
        fidelity=fidelity_of(config),
        store=folder / "campaign.sqlite",
    ) as campaign:
        campaign.run(lambda p: {"training_loss": loss_of(p) * 3 / p["steps"]}, budget=4)
        full = [trial for trial in campaign.trials if trial.fidelity == 3]
        assert len(full) < len(campaign.trials)
    (frame,) = transfer_of([folder], config)
    assert 1 < len(frame) <= len(full)
    for _, row in frame.iterrows():
        assert row["training_loss"] == pytest.approx(loss_of(row))


def command(config, folder, *options):
    return [sys.executable, "-m", "studies.cli", "campaign", str(config), "--run", str(folder), *options]


def shown(folder):
    """Trials of a store: parameters, fidelity and loss of each, and who trained it."""
    frame = read_run(folder).frame
    names = ["format", "accumulator_frac_bits", "chunk", "rows", "trial_fidelity", "training_loss"]
    return frame[["trial_id", "trial_state", *names, "trained_in"]]


@pytest.mark.slow
def test_a_killed_campaign_with_fidelities_and_features_goes_on_as_if_nothing_had_happened(
    tmp_path, tiny_text
):
    config = tmp_path / "levels.toml"
    text = with_levels(tiny_text, [1, 3]).replace("initial = 3", "initial = 3\nfeatures = true")
    config.write_text(text)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    result = subprocess.run(command(config, whole), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "more trained briefly" in result.stdout
    process = subprocess.Popen(
        command(config, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if (killed / "campaign.sqlite").exists() and (killed / "config.toml").exists():
            states = list(read_run(killed).frame["trial_state"])
            if states.count("done") >= 4:
                break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    result = subprocess.run(command(config, killed), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    pd.testing.assert_frame_equal(shown(whole), shown(killed))

    trials = read_run(whole).frame
    full = trials[trials["trial_fidelity"] == 3]
    assert 0 < len(full) < len(trials)
    frame = pd.read_parquet(whole / "evaluations.parquet")
    assert sorted(frame.loc[frame["state"] != "reference", "id"]) == sorted(full["trial_id"])
    assert "steps" not in frame
    assert f"{len(trials) - len(full)} more after 1 steps" in (whole / "report.html").read_text()

    again = tmp_path / "again"
    result = subprocess.run(
        command(config, again, "--transfer", str(whole)), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
