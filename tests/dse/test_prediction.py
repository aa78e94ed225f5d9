import numpy as np
import pandas as pd
import pytest

from dse.objective import Objective
from dse.prediction import PredictionError, Predictor
from dse.space import Integer, Space

SPACE = Space([Integer("a", 0, 7), Integer("b", 0, 7), Integer("c", 0, 7)])
TIME = Objective("time")
DESIGNS = list(SPACE.designs())


def truth(designs) -> np.ndarray:
    return np.array([np.sin(a / 2) + 0.1 * b * c for a, b, c in designs])


def some(n: int, seed: int):
    return [DESIGNS[i] for i in np.random.default_rng(seed).permutation(len(DESIGNS))[:n]]


@pytest.fixture(scope="module")
def source() -> pd.DataFrame:
    designs = some(60, 1)
    return pd.DataFrame(designs, columns=["a", "b", "c"]).assign(time=3 * truth(designs) + 1)


def test_a_source_makes_few_results_go_further(source):
    designs, held_out = some(8, 2), some(200, 3)
    alone = Predictor(SPACE, [TIME]).fit(TIME, designs, truth(designs))
    helped = Predictor(SPACE, [TIME], transfer=[source]).fit(TIME, designs, truth(designs))

    def error(prediction) -> float:
        return float(np.sqrt(np.mean((prediction.predict(held_out)[0] - truth(held_out)) ** 2)))

    assert error(helped) < 0.8 * error(alone)
    assert helped.report[0].startswith("models: ")
    assert any(line.startswith("source source 1: spearman") for line in helped.report)
    assert sum(helped.weights.values()) == pytest.approx(1.0)
    assert np.isfinite([helped.rmse, helped.log_density]).all()


def test_active_learning_leaves_less_variance_than_random_choice():
    predictor = Predictor(SPACE, [TIME])
    designs = some(10, 4)
    prediction = predictor.fit(TIME, designs, truth(designs))
    rest = [design for design in DESIGNS if design not in designs]
    chosen = predictor.choose([prediction], rest, 6, pending=rest[:2], seed=1)
    assert len(set(chosen)) == 6
    assert set(chosen) <= set(rest)
    assert chosen == predictor.choose([prediction], rest, 6, pending=rest[:2], seed=1)
    again = predictor.fit(TIME, designs + list(chosen), truth(designs + list(chosen)))
    assert np.median(again.predict(rest)[1]) < np.median(prediction.predict(rest)[1])


@pytest.mark.parametrize(
    ("designs", "costs", "message"),
    [
        (some(4, 0), np.arange(4.0), "a model of time needs 5 results, got 4"),
        (some(6, 0), np.ones(6), "costs of time must vary, got 1 everywhere"),
        (some(6, 0), np.array([1, 2, 3, 4, 5, np.nan]), "costs of time must be finite"),
        (some(6, 0), np.arange(5.0), r"costs of time must be \(6,\), got \(5,\)"),
        ([DESIGNS[0]] * 5, np.arange(5.0), "designs must differ"),
    ],
)
def test_results_that_make_no_model_are_refused(designs, costs, message):
    with pytest.raises(PredictionError, match=message):
        Predictor(SPACE, [TIME]).fit(TIME, designs, costs)


def test_sources_that_have_nothing_to_tell_are_refused():
    with pytest.raises(ValueError, match="no parameter in common"):
        Predictor(SPACE, [TIME], transfer=[pd.DataFrame({"x": [1.0], "time": [1.0]})])
    with pytest.raises(ValueError, match="has none of the objectives time"):
        Predictor(SPACE, [TIME], transfer=[pd.DataFrame({"a": [1], "area": [1.0]})])
