import numpy as np
import pytest

from dse.regression import MOST_ROWS, TaskRegression, Term

RNG = np.random.default_rng(0)


def data(n=40, tasks=3):
    rng = np.random.default_rng(1)  # of its own: the order of the tests changes no data
    rows, task = rng.normal(size=(n, 3)), rng.integers(0, tasks, n)
    return rows, task, np.sin(rows[:, 0]) + 0.3 * task + 0.05 * rng.normal(size=n)


def columns(rows):
    return {name: rows[:, index] for index, name in enumerate("abc")}


TERMS = (Term(columns=("a", "b")), Term(columns=("c",), own=True, variance=0.3), Term(columns=(), own=True))


def test_a_new_task_follows_what_all_share():
    rows, task, y = data(120)
    fitted = TaskRegression(TERMS).fit(columns(rows), [f"task {t}" for t in task], y)
    new = RNG.normal(size=(40, 3))
    mean, deviation = fitted.predict(columns(new), ["new"] * 40)
    assert np.corrcoef(mean, np.sin(new[:, 0]))[0, 1] > 0.95
    # Its offset is unknown: known tasks are surer.
    _, known = fitted.predict(columns(new), ["task 0"] * 40)
    assert (deviation > known).all()


def test_more_observations_keep_the_hyper_parameters_on_request():
    rows, task, y = data(80)
    names = [f"task {t}" for t in task]
    first = TaskRegression(TERMS).fit(columns(rows[:60]), names[:60], y[:60])
    more = TaskRegression(TERMS).fit(columns(rows), names, y, hyperparameters_of=first)
    assert more.noise == first.noise
    same = TaskRegression(TERMS).fit(columns(rows[:60]), names[:60], y[:60], hyperparameters_of=first)
    new = columns(RNG.normal(size=(5, 3)))
    assert same.predict(new, names[:5])[0] == pytest.approx(first.predict(new, names[:5])[0])


def test_equal_data_give_equal_models():
    rows, task, y = data(50)
    names = [f"task {t}" for t in task]
    one, other = (TaskRegression(TERMS).fit(columns(rows), names, y) for _ in range(2))
    new = columns(rows[:7])
    assert np.array_equal(one.predict(new, names[:7])[0], other.predict(new, names[:7])[0])


def test_the_unit_of_a_column_or_target_does_not_matter():
    rows, task, y = data(50)
    names = [f"task {t}" for t in task]
    plain = TaskRegression(TERMS).fit(columns(rows), names, y)
    scaled = TaskRegression(TERMS).fit(columns(1e3 * rows + 5.0), names, 1e-3 * y)
    mean, deviation = plain.predict(columns(rows[:5]), names[:5])
    found = scaled.predict(columns(1e3 * rows[:5] + 5.0), names[:5])
    assert found[0] == pytest.approx(1e-3 * mean, rel=1e-4)
    assert found[1] == pytest.approx(1e-3 * deviation, rel=1e-4)


@pytest.mark.slow
def test_more_rows_than_are_fitted_to_are_all_heard():
    n = MOST_ROWS + 60
    rows = RNG.normal(size=(n, 3))
    y = np.sin(rows[:, 0])
    fitted = TaskRegression(TERMS).fit(columns(rows), ["a"] * n, y)
    mean, _ = fitted.predict(columns(rows), ["a"] * n)
    assert np.abs(mean - y).max() < 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TaskRegression([]), "a regression must have at least one term, got none"),
        (lambda: Term(columns=("a",), variance=0.0), r"variance must be positive and finite, got 0\.0"),
        (
            lambda: TaskRegression(TERMS).fit(columns(np.ones((1, 3))), ["a"], np.ones(1)),
            "needs at least 2 observations",
        ),
        (
            lambda: TaskRegression(TERMS).fit({"a": np.ones(3), "b": np.ones(3)}, ["a"] * 3, np.ones(3)),
            "columns must have a, b, c, got none called c",
        ),
        (
            lambda: TaskRegression(TERMS).fit(columns(np.full((3, 3), np.nan)), ["a"] * 3, np.ones(3)),
            "column a must be finite",
        ),
        (
            lambda: TaskRegression(TERMS).fit(
                columns(np.ones((3, 3))), ["a"] * 3, np.array([1.0, np.inf, 2.0])
            ),
            "targets must be finite, got inf",
        ),
        (
            lambda: TaskRegression(TERMS).predict(columns(np.ones((3, 3))), ["a"] * 3),
            "the regression must be fitted before it predicts",
        ),
    ],
)
def test_what_cannot_be_modelled_is_refused_in_a_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_a_group_departs_from_others_is_that_of_leaving_it_out():
    rows, task, y = data(30)
    names = [f"task {t}" for t in task]
    groups = [index // 5 for index in range(30)]
    fitted = TaskRegression(TERMS).fit(columns(rows), names, y)
    residuals, deviations = fitted.left_out(groups)
    rest = [index for index in range(30) if groups[index] != 2]
    mine = [index for index in range(30) if groups[index] == 2]
    without = TaskRegression(TERMS).fit(
        columns(rows[rest]), [names[i] for i in rest], y[rest], hyperparameters_of=fitted
    )
    mean, deviation = without.predict(columns(rows[mine]), [names[i] for i in mine])
    assert residuals[mine] == pytest.approx(y[mine] - mean, abs=1e-5)
    assert deviations[mine] == pytest.approx(np.hypot(deviation, fitted.noise), rel=1e-4)


def test_groups_must_be_those_of_all_observations():
    rows, task, y = data(10)
    fitted = TaskRegression(TERMS).fit(columns(rows), [str(t) for t in task], y)
    with pytest.raises(ValueError, match="groups must have 10 entries, got 3"):
        fitted.left_out([0, 1, 2])


def test_what_shares_either_group_is_left_out():
    rows, task, y = data(30)
    names = [f"t{t}" for t in task]
    folds = [index % 5 for index in range(30)]
    fitted = TaskRegression(TERMS).fit(columns(rows), names, y)
    residuals, deviations = fitted.left_out(names, folds)
    mine = [index for index in range(30) if names[index] == names[2] and folds[index] == 2]
    rest = [index for index in range(30) if names[index] != names[2] and folds[index] != 2]
    without = TaskRegression(TERMS).fit(
        columns(rows[rest]), [names[i] for i in rest], y[rest], hyperparameters_of=fitted
    )
    mean, deviation = without.predict(columns(rows[mine]), [names[i] for i in mine])
    assert mine
    assert residuals[mine] == pytest.approx(y[mine] - mean, abs=1e-5)
    assert deviations[mine] == pytest.approx(np.hypot(deviation, fitted.noise), rel=1e-4)


@pytest.mark.parametrize("name", ["variance", "lengthscale"])
def test_a_term_refuses_what_is_not_positive(name):
    with pytest.raises(ValueError, match=f"{name} must be positive and finite, got 0"):
        Term(columns=("a",), **{name: 0.0})
