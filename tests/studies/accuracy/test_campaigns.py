import numpy as np
import pandas as pd
import pytest

from studies.accuracy import AccuracyModel
from studies.accuracy.campaigns import runs_of, statistics_of
from studies.accuracy.policies import NumericsChoice
from studies.accuracy.runs import read_runs
from studies.accuracy.statistics import known
from studies.codesign.config import Training

TRAINING = Training(task="digits-mlp", batch=64, steps=20, learning_rate=0.1, loss_scale=128.0)


def evaluations():
    """Of a campaign: two candidates with IEEE formats, one without, and one that failed."""
    return pd.DataFrame(
        {
            "format": ["e5m2", "e4m2", "e4m3fn", "e5m2"],
            "accumulator_exp_bits": [6.0, 6.0, 6.0, 6.0],
            "accumulator_frac_bits": [9.0, 4.0, 9.0, 9.0],
            "chunk": [0.0, 64.0, 0.0, 16.0],
            "update_rounding": ["nearest-even", "stochastic", "nearest-even", "stochastic"],
            "rows": [8, 8, 16, 16],
            "test_accuracy": [0.9, 0.8, 0.7, np.nan],
        }
    )


def test_candidates_become_runs():
    runs = runs_of(evaluations(), TRAINING, "mine")
    assert runs["task"].tolist() == ["mine", "mine"]
    assert runs["test_accuracy"].tolist() == [0.9, 0.8]
    assert runs["fidelity"].tolist() == [1.0, 1.0]
    choice = NumericsChoice.of(runs.iloc[1].to_dict())
    assert (str(choice.forward), str(choice.backward), str(choice.update)) == ("e4m2", "e4m2", "e6m9")
    assert str(choice.accumulator) == "e6m4 chunk=64"
    assert (choice.update_rounding, choice.loss_scale) == ("stochastic", 128.0)


def test_a_model_takes_them_beside_the_run_table():
    runs = runs_of(evaluations(), TRAINING, "mine")
    table = read_runs()
    some = table[(table["task"] == "digits-mlp") & (table["fidelity"] == 1.0)]
    statistics = {**known(), "mine": known()["digits-mlp"]}
    without, model = (
        AccuracyModel(statistics).fit(given) for given in (some, pd.concat([some, runs], ignore_index=True))
    )
    policies = [NumericsChoice.of(row) for row in runs.to_dict("records")]
    before, after = (
        np.abs(one.predict("mine", policies)[0] - runs["test_accuracy"]) for one in (without, model)
    )
    assert after.mean() < before.mean()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (evaluations().drop(columns="chunk"), "must have the column chunk"),
        (evaluations().iloc[2:], "must have trained candidates with IEEE formats, got none in 2 rows"),
    ],
)
def test_what_is_no_campaign_is_refused(table, message):
    with pytest.raises(ValueError, match=message):
        runs_of(table, TRAINING, "mine")


def test_an_optimizer_that_features_do_not_know_is_refused():
    training = Training(
        task="digits-mlp", batch=64, steps=20, optimizer={"kind": "adam", "learning_rate": 1e-3}
    )
    with pytest.raises(ValueError, match="knows the optimizer sgd, got 'adam'"):
        statistics_of(training, "mine")


@pytest.mark.slow
def test_statistics_are_those_of_the_campaigns_training():
    found = statistics_of(TRAINING, "mine")
    assert (found.task, found.steps) == ("mine", 20)
    assert found.twin_curve[-1][1] > found.guess_accuracy
    lengths = {product.length for product in found.products if product.role == "gradient"}
    assert lengths == {64}  # the batch
