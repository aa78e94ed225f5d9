"""Metrics as a campaign sees them: accuracy, and anything else."""

import pytest

from studies.codesign.quality import Quality
from studies.tasks import ACCURACY, Metric
from studies.tasks.text import BITS_PER_CHARACTER
from studies.training import Outcome

BITS = Quality(BITS_PER_CHARACTER)
SHARE = Quality(ACCURACY)


def outcome(loss, metric):
    return Outcome(training_loss=loss, metric=metric, skipped_steps=1, seconds=2.0)


def test_accuracy_is_kept_as_a_share_and_other_metrics_as_they_are():
    outcomes = [outcome(0.1, 90.0), outcome(0.4, 94.0)]
    share = SHARE.summary(outcomes)
    assert share["test_accuracy"] == pytest.approx(0.92)
    assert share["test_error"] == pytest.approx(0.08)
    assert share["training_loss"] == pytest.approx(0.2)  # the geometric mean
    assert (share["skipped_steps"], share["training_seconds"]) == (2, 4.0)
    bits = BITS.summary([outcome(1.0, 2.5), outcome(1.0, 3.5)])
    assert (bits["test_metric"], bits["test_metric_min"], bits["test_metric_max"]) == (3.0, 2.5, 3.5)
    assert "test_error" not in bits
    assert set(share) == set(SHARE.columns)
    assert set(bits) == set(BITS.columns)


def test_one_percent_is_a_point_of_accuracy_and_a_hundredth_of_anything_else():
    assert SHARE.worst_within(0.96, 0.01) == pytest.approx(0.95)
    assert BITS.worst_within(2.5, 0.01) == pytest.approx(2.525)
    assert SHARE.is_as_good(0.955, 0.95)
    assert not BITS.is_as_good(2.6, 2.525)
    assert SHARE.best([0.1, 0.9]) == 1
    assert BITS.best([0.1, 0.9]) == 0
    assert (SHARE.text(0.9644), BITS.text(2.5)) == ("96.4 %", "2.500 bit")


def test_objectives_that_a_task_cannot_have_are_refused():
    more = Quality(Metric(name="score", unit="", higher_is_better=True, function=ACCURACY.function))
    assert "test_metric" in BITS.why_not("test_error")
    assert "test_error" in SHARE.why_not("test_metric")
    assert more.why_not("test_metric") == "test_metric is minimised, but more score is better"
    for quality, name in ((SHARE, "test_error"), (BITS, "test_metric"), (more, "energy_pj")):
        assert quality.why_not(name) is None
