import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from studies.accuracy import AccuracyModel
from studies.accuracy.policies import NAMES, NumericsChoice
from studies.accuracy.runs import read_runs
from studies.accuracy.statistics import known

TABLE = read_runs()
RUNS = TABLE[(TABLE["configuration"] >= 0) & (TABLE["fidelity"] == 1.0) & (TABLE["seed"] == 0)]
SOURCE = RUNS[RUNS["task"].isin(["digits-mlp", "mnist-mlp"])]
NEW = RUNS[RUNS["task"] == "digits-cnn"]


def choices(runs):
    return [NumericsChoice.of(row) for row in runs[list(NAMES)].to_dict("records")]


@pytest.fixture(scope="module")
def model():
    return AccuracyModel().fit(SOURCE)


def test_a_task_without_runs_is_ranked(model):
    mean, _ = model.predict("digits-cnn", choices(NEW))
    assert spearmanr(mean, NEW["test_accuracy"].fillna(0.0))[0] > 0.6


def test_accuracies_lie_between_guessing_and_the_twin(model):
    statistics = known()["digits-cnn"]
    mean, deviation = model.predict("digits-cnn", choices(NEW))
    low, high = model.interval("digits-cnn", choices(NEW))
    twin = statistics.twin_curve[-1][1]
    for values in (mean, low, high):
        assert (values >= statistics.guess_accuracy - 1e-12).all()
        assert (values <= twin + 1e-12).all()
    assert (low <= mean).all()
    assert (mean <= high).all()
    assert (deviation > 0).all()


def test_runs_of_the_task_make_the_model_surer(model):
    some, rest = NEW.iloc[:10], NEW.iloc[10:]
    more = AccuracyModel().fit(pd.concat([SOURCE, some]), like=model)
    before, after = (np.mean(one.predict("digits-cnn", choices(rest))[1]) for one in (model, more))
    assert after < before


def test_a_lower_fidelity_is_compared_with_the_twin_at_that_fidelity(model):
    wide = [NumericsChoice(forward_frac_bits=7)]
    early, late = (model.predict("digits-cnn", wide, fidelity=share)[0][0] for share in (0.25, 1.0))
    (_, first), *_, (_, last) = known()["digits-cnn"].twin_curve
    assert early <= first + 1e-9
    assert late <= last + 1e-9


def test_equal_runs_give_equal_models(model):
    again = AccuracyModel().fit(SOURCE)
    assert np.array_equal(
        model.predict("digits-cnn", choices(NEW))[0], again.predict("digits-cnn", choices(NEW))[0]
    )


def test_parameters_and_choices_are_the_same(model):
    row = {"forward_frac_bits": 2, "chunk": 64}
    from_row, from_choice = (
        model.predict("digits-mlp", [one])[0][0] for one in (row, NumericsChoice.of(row))
    )
    assert from_row == from_choice


def test_the_twin_in_the_table_is_left_out():
    twins = TABLE[TABLE["configuration"] < 0]
    with pytest.raises(ValueError, match="needs at least 5 runs, got 0"):
        AccuracyModel().fit(twins)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AccuracyModel().fit(RUNS.iloc[:0]), "the accuracy model needs at least 5 runs, got 0"),
        (
            lambda: AccuracyModel().fit(RUNS.drop(columns="chunk")),
            "runs must have a column chunk, got task, ",
        ),
        (
            lambda: AccuracyModel().fit(RUNS.assign(task="imagenet")),
            "task must be one of digits-mlp, .*, got 'imagenet'",
        ),
        (lambda: AccuracyModel().predict("digits-mlp", [{}]), "must be fitted before it predicts"),
        (
            lambda: AccuracyModel(inputs="tea leaves"),
            "inputs must be one of features, configuration, got 'tea",
        ),
    ],
)
def test_what_cannot_be_modelled_is_refused_in_a_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_fidelity_or_level_out_of_its_range_is_named(model):
    with pytest.raises(ValueError, match=r"fidelity must be in \(0, 1\], got 0\.0"):
        model.predict("digits-mlp", [{}], fidelity=0.0)
    with pytest.raises(ValueError, match="level must be between 0 and 1, got 1"):
        model.interval("digits-mlp", [{}], level=1)
