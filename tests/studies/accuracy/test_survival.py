import numpy as np
import pytest

from studies.accuracy.features import feature_names
from studies.accuracy.scale import kept_of, modelled
from studies.accuracy.survival import MODES, _kept, _slopes, fit_crossed, fit_survival

RNG = np.random.default_rng(0)
NAMES = [mode.feature for mode in MODES]


def harmless(n):
    """Features of runs that lose nothing."""
    return {
        mode.feature: np.full(n, -8.0 if mode.sign > 0 and "noise" not in mode.feature else 0.0)
        if mode.sign > 0
        else np.full(n, 16.0)
        for mode in MODES
    }


def test_modes_are_features():
    assert set(NAMES) <= set(feature_names())


def test_without_runs_the_guess_is_what_is_expected():
    guess = fit_survival({name: np.empty(0) for name in NAMES}, np.empty(0))
    for mode in MODES:
        threshold, width = guess.thresholds[mode.feature]
        assert (threshold, width) == pytest.approx((mode.threshold, mode.width))
    # At a threshold half is lost, and what does no harm costs nothing.
    one = harmless(2)
    one["forward_operand_mean"] = np.array([-8.0, guess.thresholds["forward_operand_mean"][0]])
    assert kept_of(guess.predict(one)) == pytest.approx([1.0, 0.5], abs=0.02)


def test_a_threshold_is_found():
    noise = RNG.uniform(-3.0, 0.5, 120)
    features = {**harmless(120), "forward_accumulator_mean": noise}
    kept = 1.0 / (1.0 + np.exp((noise + 1.4) / 0.2))
    found = fit_survival(features, modelled(kept))
    assert found.thresholds["forward_accumulator_mean"][0] == pytest.approx(-1.4, abs=0.1)
    assert kept_of(found.predict(features)) == pytest.approx(kept, abs=0.1)
    assert set(found.limiting(features)) == {"forward_accumulator_mean"} or noise.min() < -2.5


@pytest.mark.parametrize("mode", MODES, ids=NAMES)
def test_more_of_what_hurts_keeps_less(mode):
    guess = fit_survival({name: np.empty(0) for name in NAMES}, np.empty(0))
    worse = mode.threshold + mode.sign * mode.width * np.linspace(-4.0, 4.0, 9)
    predicted = guess.predict({**harmless(9), mode.feature: worse})
    assert (np.diff(predicted) < 0).all()


def test_slopes_are_those_of_differences():
    rows = RNG.normal(size=(7, len(MODES)))
    rows[0, 0] = 1e3  # far beyond a threshold nothing changes
    place = 0.5 * RNG.normal(size=2 * len(MODES))
    slopes = _slopes(place, rows)
    for index in range(len(place)):
        step = np.zeros_like(place)
        step[index] = 1e-6
        change = (modelled(_kept(place + step, rows)) - modelled(_kept(place - step, rows))) / 2e-6
        assert slopes[:, index] == pytest.approx(change, rel=1e-4, abs=1e-6)


def test_a_crossed_guess_does_not_know_its_own_group():
    noise = RNG.uniform(-3.0, 0.5, 60)
    features = {**harmless(60), "forward_accumulator_mean": noise}
    z = modelled(1.0 / (1.0 + np.exp((noise + 1.0) / 0.2)))
    groups = [index // 6 for index in range(60)]
    changed = z.copy()
    changed[:6] = -z[:6]  # of group 0
    first, second = (fit_crossed(features, target, groups) for target in (z, changed))
    one, two = (fitted.predict(features, groups) for fitted in (first, second))
    assert one[:6] == pytest.approx(two[:6], abs=1e-3)
    assert np.abs(one[6:] - two[6:]).max() > 0.05
    # A group that is new is guessed by all.
    assert np.array_equal(first.predict(features, ["new"] * 60), first.whole.predict(features))
