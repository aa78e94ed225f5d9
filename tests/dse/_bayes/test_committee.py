import numpy as np
import pytest

from dse._bayes.columns import Columns
from dse._bayes.committee import Committee, Forest, fit_committee, members, stack
from dse._bayes.loo import LeaveOneOut

MIXED = Columns((0, 1), (2,), (3,))


def data(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = np.column_stack([rng.random((n, 2)), rng.integers(3, size=n), rng.random(n)])
    return rows, 1 + rows[:, 0] * rows[:, 1] - 2 * rows[:, 0] ** 2 + (rows[:, 2] == 1) * rows[:, 3]


class Fixed:
    """A member that predicts a constant, with a covariance that is known."""

    def __init__(self, y: np.ndarray, value: float, variance: float, noise: float = 0.1) -> None:
        self.value, self.variance, self.noise = value, variance, noise
        self.loo = LeaveOneOut(y, np.full(len(y), value), np.full(len(y), variance + noise))

    def predict(self, rows):
        return np.full(len(rows), self.value), np.full(len(rows), np.sqrt(self.variance + self.noise))

    def covariance(self, a, b):
        return np.full((len(a), len(b)), self.variance)


def test_a_forest_leaves_out_what_it_predicts():
    rows, y = data(80)
    model = Forest(rows, y, MIXED, seed=0)
    assert model.loo.rmse > 2 * np.sqrt(np.mean((model.predict(rows)[0] - y) ** 2))
    assert model.loo.rmse < y.std()


def test_the_better_member_gets_the_weight():
    y = np.zeros(30)
    good, bad = Fixed(y, 0.0, 0.1), Fixed(y, 3.0, 0.1)
    weights = stack([good.loo, bad.loo], ["good", "bad"])
    assert weights["good"] > 0.95
    assert sum(weights.values()) == pytest.approx(1.0)


def test_without_evidence_the_weights_are_the_prior():
    y = np.zeros(5)
    alike = [Fixed(y, 0.0, 0.1).loo] * 2
    assert stack(alike, ["a", "b"]) == {"a": pytest.approx(0.5), "b": pytest.approx(0.5)}
    assert stack(alike, ["a", "b"], [3.0, 1.0])["a"] == pytest.approx(0.75)


def test_weights_maximise_the_log_density_of_the_mixture():
    rng = np.random.default_rng(4)
    y = rng.standard_normal(40)
    loos = [LeaveOneOut(y, rng.standard_normal(40), np.full(40, v)) for v in (0.7, 1.5)]
    densities = np.exp(np.column_stack([loo.log_densities for loo in loos]))
    grid = np.linspace(0.02, 0.98, 97)
    objective = [np.log(densities @ [w, 1 - w]).sum() + 1.0 * np.log(w) + 1.0 * np.log(1 - w) for w in grid]
    weights = stack(loos, ["a", "b"])
    assert weights["a"] == pytest.approx(grid[int(np.argmax(objective))], abs=0.01)


def test_total_variance_is_within_and_between():
    y = np.zeros(4)
    committee = Committee({"a": Fixed(y, 1.0, 0.2), "b": Fixed(y, -1.0, 0.4)}, {"a": 0.5, "b": 0.5})
    rows = np.zeros((3, 1))
    mean, deviation = committee.predict(rows)
    np.testing.assert_allclose(mean, 0.0)
    np.testing.assert_allclose(deviation**2, 0.3 + 1.0 + 0.1)
    np.testing.assert_allclose(committee.covariance(rows, rows), 1.3)
    np.testing.assert_allclose(committee.between(rows), 1.0)
    np.testing.assert_allclose(committee.loo.variance, 1.4)


def test_a_member_without_weight_has_no_say():
    y = np.zeros(4)
    committee = Committee({"a": Fixed(y, 1.0, 0.2), "b": Fixed(y, 50.0, 9.0)}, {"a": 1.0, "b": 0.0})
    np.testing.assert_allclose(committee.predict(np.zeros((2, 1)))[0], 1.0)


def test_the_committee_predicts_and_repeats_itself():
    rows, y = data(40)
    new, truth = data(60, seed=1)
    first, second = (fit_committee(rows, y, MIXED, seed=5).predict(new) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert np.sqrt(np.mean((first[0] - truth) ** 2)) < 0.2 * truth.std()


def test_features_add_members_that_do_without_them():
    assert any("without features" in name for name in members(MIXED))
    assert not any("without features" in name for name in members(MIXED.without_features()))


def test_many_columns_add_a_sparse_process_that_wins_where_few_matter():
    assert "saas" not in members(Columns(tuple(range(15))))
    rng = np.random.default_rng(3)
    rows = rng.random((25, 20))
    committee = fit_committee(rows, np.sin(5 * rows[:, 7]), Columns(tuple(range(20))))
    assert committee.weights["saas"] == max(committee.weights.values())
