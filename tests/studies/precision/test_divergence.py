"""When a run counts as diverged."""

import math

import pytest

from studies.precision.divergence import divergence


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_a_divergence(loss):
    assert divergence([1.0, loss], [1.0]) == f"the loss of a batch is {loss}"
    assert divergence([1.0], [1.0, loss]) == f"the evaluated loss is {loss}"


def test_only_three_bad_evaluations_in_a_row_are_a_divergence():
    assert divergence([1.0], [1.0, 3.1, 3.2, 2.9, 3.3, 3.4]) is None
    assert divergence([1.0], [1.0, 3.1, 3.2, 2.9, 3.3, 3.4, 3.5]) is not None
    assert divergence([1.0], [1.0, 3.0, 3.0, 3.0]) is None  # above, not at


def test_a_batch_of_large_loss_is_none():
    assert divergence([1.0, 1e9], [1.0, 0.5]) is None
    assert divergence([], []) is None


def test_a_negative_loss_may_fall_and_may_not_rise_far_above_its_start():
    assert divergence([], [-1.0, -2.0, -3.0, -4.0]) is None
    assert divergence([], [-1.0, 0.9, 0.9, 0.9]) is None
    assert divergence([], [-1.0, 1.1, 1.1, 1.1]) is not None
