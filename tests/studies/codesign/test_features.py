"""What the search reads of a candidate before its training."""

from dataclasses import replace

import numpy as np
import pytest

from studies.accuracy.features import features_of
from studies.accuracy.statistics import known
from studies.codesign.campaign import objectives_of
from studies.codesign.config import CampaignConfig
from studies.codesign.features import (
    PREDICTED,
    READ,
    check_formats,
    choice_of,
    features_for,
    fitted_model,
    statistics_of,
)
from studies.codesign.pricing import Pricing
from studies.config import ConfigError, load
from studies.precision.optimizer import Optimizer
from studies.tasks import build_task

PARAMETERS = {
    "format": "e4m3fn",
    "accumulator_exp_bits": 6,
    "accumulator_frac_bits": 7,
    "chunk": 64,
    "update_rounding": "stochastic",
    "rows": 8,
}


@pytest.fixture
def config(tiny_file):
    return load(tiny_file, CampaignConfig)


def test_a_candidate_in_the_words_of_the_accuracy_model(config):
    choice = choice_of(config, PARAMETERS)
    assert (choice.forward_exp_bits, choice.forward_frac_bits) == (4, 3)
    assert (choice.backward_exp_bits, choice.backward_frac_bits) == (4, 3)
    assert (choice.accumulator_exp_bits, choice.accumulator_frac_bits, choice.chunk) == (6, 7, 64)
    assert (choice.update_exp_bits, choice.update_frac_bits) == (6, 9)
    assert (choice.update_rounding, choice.loss_scale) == ("stochastic", 256.0)
    split = choice_of(config, {**PARAMETERS, "backward_format": "e5m2"})
    assert (split.backward_exp_bits, split.backward_frac_bits) == (5, 2)


@pytest.fixture(scope="module")
def features(tmp_path_factory, tiny_text):
    path = tmp_path_factory.mktemp("features") / "tiny.toml"
    path.write_text(tiny_text)
    statistics = known()["digits-cnn"]
    calls = []

    def prepare():
        calls.append(1)
        return statistics, fitted_model(statistics, left_out=["digits-cnn", "digits-mlp"])

    return features_for(load(path, CampaignConfig), prepare), calls


def test_features_are_prepared_when_they_are_first_asked_for_and_only_of_numerics(features):
    function, calls = features
    first = function(PARAMETERS)
    assert tuple(first) == (*READ, PREDICTED)
    assert function({**PARAMETERS, "rows": 32}) == first
    assert len(calls) == 1
    expected = features_of("digits-cnn", choice_of_tiny(PARAMETERS))
    assert all(first[name] == expected[name] for name in READ)


def choice_of_tiny(parameters):
    from studies.accuracy.policies import NumericsChoice

    return NumericsChoice(
        forward_exp_bits=4,
        forward_frac_bits=3,
        backward_exp_bits=4,
        backward_frac_bits=3,
        accumulator_exp_bits=parameters["accumulator_exp_bits"],
        accumulator_frac_bits=parameters["accumulator_frac_bits"],
        chunk=parameters["chunk"],
        update_exp_bits=6,
        update_frac_bits=9,
        update_rounding=parameters["update_rounding"],
        loss_scale=256.0,
    )


def test_the_models_guess_rises_with_the_accumulator_though_it_knows_no_run_of_the_task(features):
    function, _ = features
    guess = [function({**PARAMETERS, "accumulator_frac_bits": bits, "chunk": 0})[PREDICTED]
             for bits in (2, 4, 6, 8, 10)]  # fmt: skip
    assert guess[-1] > guess[0] + 1.0
    assert min(guess[1:]) > guess[0] + 0.5


def test_a_format_that_the_model_does_not_know_is_refused(tmp_path, tiny_text):
    path = tmp_path / "wide.toml"
    path.write_text(tiny_text.replace('["e5m2", "e3m2"]', '["e5m2", "e4m0fn"]'))
    with pytest.raises(
        ConfigError, match=r"search\.features: has none of space\.format e4m0fn: .*1\.\.23, got 0"
    ):
        check_formats(load(path, CampaignConfig))


def test_statistics_of_the_task_are_measured_once_for_each_recipe_and_data(config, monkeypatch):
    task = build_task(config.training.table)
    data = task.load()
    first = statistics_of(config, task, data)

    def measured(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr("studies.accuracy.probe.tensor_statistics", measured)
    assert first.steps == 3
    assert statistics_of(config, task, data).to_json() == first.to_json()
    longer = config.model_copy(update={"training": config.training.model_copy(update={"steps": 4})})
    other = replace(data, train_inputs=data.train_inputs + 1.0)
    for changed in ((longer, task, data), (config, task, other)):
        with pytest.raises(AssertionError, match="measured again"):
            statistics_of(*changed)


@pytest.mark.parametrize("rule", [{"kind": "adamw", "learning_rate": 0.01}, {"momentum": 0.0}])
def test_any_optimizer_gives_features(config, rule):
    training = config.training.model_copy(
        update={"optimizer": Optimizer.model_validate({"learning_rate": 0.05, **rule}),
                "learning_rate": None, "momentum": None}
    )  # fmt: skip
    other = config.model_copy(update={"training": training})
    task = build_task(other.training.table)
    statistics = statistics_of(other, task, task.load())
    found = features_of(statistics, choice_of(other, PARAMETERS))
    assert all(np.isfinite(list(found.values())))
    assert statistics.updates.energy.sum() == pytest.approx(1.0)


def test_only_learnt_objectives_read_features(config, features):
    pricing = Pricing.of(config)
    loss, energy = objectives_of(config, pricing, 2.3, features[0])
    assert loss.features is features[0]
    assert energy.features is None
