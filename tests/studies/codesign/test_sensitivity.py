"""Pinning a parameter costs what it takes from the front."""

from dataclasses import replace

import numpy as np
import pytest

from dse import hypervolume
from dse.metrics import reference_point
from studies.codesign import sensitivity
from studies.codesign.sensitivity import sensitivity_of


@pytest.fixture(scope="module")
def pinned(found):
    return sensitivity_of(found)


def test_every_parameter_that_varies_has_a_loss_for_every_value(found, pinned):
    assert set(pinned.lost) == {p.name for p in found.space.parameters if p.size > 1}
    assert set(pinned.lost["accumulator_frac_bits"]) == {3, 6, 9}
    for losses in pinned.lost.values():
        assert all(-1e-12 <= lost <= 1 for lost in losses.values())


def test_what_nothing_depends_on_costs_nothing(pinned):
    """The rounding of the update is in no cost, and not in the formula of the loss."""
    assert pinned.most("update_rounding") < 0.02


def test_what_the_loss_hangs_on_costs_most(pinned):
    rows = pinned.rows()
    assert rows[0]["most"] == pytest.approx(max(pinned.most(name) for name in pinned.lost))
    assert pinned.most("accumulator_frac_bits") > 10 * pinned.most("update_rounding")
    assert pinned.lost["accumulator_frac_bits"][3] > pinned.lost["accumulator_frac_bits"][9]


def test_losses_agree_with_the_formula_over_the_same_designs(found, pinned, loss_of):
    """The oracle knows the loss of every design; the sensitivity has measured some, and predicts others."""
    reached = sensitivity._around(found.space, sensitivity._centres(found))
    parameters = [found.space.parameters_of(design) for design in reached]
    costs = np.log10([[loss_of(p), found.pricing.cost(p).total_energy_pj] for p in parameters])
    corner = reference_point(costs, [np.log10(found.objectives[0].threshold), np.nan])
    whole = hypervolume(costs, corner)
    for value in (3, 6, 9):
        rows = costs[[p["accumulator_frac_bits"] == value for p in parameters]]
        expected = 1 - hypervolume(rows, corner) / whole
        assert pinned.lost["accumulator_frac_bits"][value] == pytest.approx(expected, abs=0.1)


def test_the_designs_differ_in_at_most_two_parameters_from_a_centre(found):
    centres = [tuple(centre.values()) for centre in sensitivity._centres(found)]
    reached = sensitivity._around(found.space, centres=sensitivity._centres(found))
    assert len(set(reached)) == len(reached)
    assert set(centres) <= set(reached)
    for design in reached:
        assert min(sum(a != b for a, b in zip(design, centre, strict=True)) for centre in centres) <= 2


def test_too_few_trials_say_nothing(found):
    few = replace(found, evaluations=found.evaluations[found.evaluations["state"] == "reference"])
    assert sensitivity_of(few) is None
