"""Intervals, paired differences and verdicts, by numbers that a reader can redo."""

import math

import pandas as pd
import pytest

from studies.precision.table import TWIN, interval, summary


def runs(**policies):
    """Rows of (training loss, metric) by seed for each policy; ``None`` is a run that diverged."""
    rows = []
    for name, values in policies.items():
        for seed, value in enumerate(values):
            loss, metric = (math.nan, math.nan) if value is None else value
            rows.append(
                {
                    "policy": TWIN if name == "twin" else name,
                    "seed": seed,
                    "training_loss": loss,
                    "metric": metric,
                    "diverged": "step 3: the loss of a batch is nan" if value is None else None,
                    "skipped_steps": seed,
                    "step_seconds": 0.01 if name == "twin" else 0.03,
                }
            )
    return pd.DataFrame(rows)


def judged(larger_is_better=True, **policies):
    table = summary(runs(**policies), metric="accuracy", larger_is_better=larger_is_better)
    return table.set_index("policy").loc["p"]


TWINS = [(0.10, 0.90), (0.20, 0.80), (0.30, 0.95)]


def test_an_interval_is_that_of_students_t():
    # 2.776 is the 97.5 % point of t with 4 degrees of freedom in every printed table.
    mean, half = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3.0
    assert half == pytest.approx(2.776 * math.sqrt(2.5) / math.sqrt(5), rel=2e-4)


def test_one_value_has_a_mean_and_no_interval():
    mean, half = interval([4.0])
    assert mean == 4.0
    assert math.isnan(half)
    assert all(math.isnan(number) for number in interval([]))


def test_differences_are_paired_by_seed():
    # The seeds scatter by 0.1, each pair differs by the same: paired, the difference is certain.
    row = judged(twin=TWINS, p=[(loss + 0.01, metric - 0.02) for loss, metric in TWINS])
    assert row["loss_difference"] == pytest.approx(0.01)
    assert row["metric_difference"] == pytest.approx(-0.02)
    assert row["metric_difference_interval"] == pytest.approx(0.0, abs=1e-12)
    assert row["verdict"] == "worse by 0.02 in accuracy"


def test_a_difference_within_its_interval_matches():
    # Differences 0.01, -0.01, 0.00: mean 0, half width 4.303 * 0.01 / sqrt(3).
    scattered = [(0.11, 0.91), (0.19, 0.79), (0.30, 0.95)]
    row = judged(twin=TWINS, p=scattered)
    assert row["loss_difference_interval"] == pytest.approx(4.303 * 0.01 / math.sqrt(3), rel=1e-3)
    assert row["verdict"] == "matches"


def test_the_loss_decides_where_the_metric_does_not():
    worse = [(0.15, 0.91), (0.25, 0.79), (0.36, 0.95)]
    assert judged(twin=TWINS, p=worse)["verdict"] == "worse by 0.0533 in training loss"
    better = [(0.05, 0.91), (0.15, 0.79), (0.24, 0.95)]
    assert judged(twin=TWINS, p=better)["verdict"] == "better by 0.0533 in training loss"


def test_a_smaller_metric_is_better_where_the_task_says_so():
    higher = [(loss, metric + 0.02) for loss, metric in TWINS]
    assert judged(twin=TWINS, p=higher)["verdict"] == "better by 0.02 in accuracy"
    assert judged(False, twin=TWINS, p=higher)["verdict"] == "worse by 0.02 in accuracy"


def test_a_worse_loss_weighs_more_than_a_better_metric():
    mixed = [(loss + 0.05, metric + 0.02) for loss, metric in TWINS]
    assert judged(twin=TWINS, p=mixed)["verdict"] == "worse by 0.05 in training loss"


def test_a_run_that_diverged_is_counted_and_enters_no_mean():
    row = judged(twin=TWINS, p=[TWINS[0], None, TWINS[2]])
    assert row["verdict"] == "diverged 1 of 3"
    assert row["diverged"] == 1
    assert row["training_loss"] == pytest.approx(0.2)
    assert row["loss_difference"] == 0.0


def test_a_seed_whose_twin_diverged_is_no_pair():
    row = judged(twin=[TWINS[0], None, TWINS[2]], p=[(0.2, 0.5), (9.0, 0.1), (0.4, 0.55)])
    assert row["loss_difference"] == pytest.approx(0.1)
    row = judged(twin=[None, None, TWINS[2]], p=TWINS)
    assert row["verdict"] == "twin diverged"


def test_one_seed_gives_no_verdict():
    assert judged(twin=TWINS[:1], p=[(9.0, 0.1)])["verdict"] == "one seed"


def test_the_twin_comes_first_and_is_compared_with_nothing():
    table = summary(runs(twin=TWINS, p=TWINS, q=TWINS), metric="accuracy", larger_is_better=True)
    assert list(table["policy"]) == [TWIN, "p", "q"]
    assert table["verdict"].tolist() == ["twin", "matches", "matches"]
    assert math.isnan(table.loc[0, "loss_difference"])
    assert table["relative_step_time"].tolist() == pytest.approx([1.0, 3.0, 3.0])
    assert table["skipped_steps"].tolist() == [3, 3, 3]


def test_equal_differences_of_one_test_sample_are_no_proof():
    # Three seeds, each one of 2000 images worse: 0.05 +- 4.303 * 0.05 / sqrt(6) / sqrt(3).
    mean, half = interval([-0.05, -0.05, -0.05], resolution=0.05)
    assert mean == pytest.approx(-0.05)
    assert half == pytest.approx(4.302653 * 0.05 / math.sqrt(18), rel=1e-5)
    assert interval([-0.05, -0.05, -0.05])[1] == pytest.approx(0.0, abs=1e-12)
    spread = [-0.1, 0.4, 0.9]
    assert interval(spread, resolution=0.05) == interval(spread)
