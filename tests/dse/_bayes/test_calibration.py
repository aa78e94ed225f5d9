import numpy as np
import pytest

from dse._bayes.calibration import calibrated

FULL = np.array([1.0, 2.0, 4.0, 8.0])


def pairs(cheap, full=FULL):
    """Four designs at both fidelities, and a fifth at the low one."""
    values = np.concatenate([cheap, full])
    return values, np.repeat([0.0, 1.0], [len(cheap), len(full)]), [*range(len(cheap)), *range(len(full))]


@pytest.mark.parametrize(
    "cheap",
    [
        3.0 * np.array([*FULL, 16.0]),  # a factor
        np.array([*FULL, 16.0]) ** 2.0,  # a power
    ],
)
def test_positive_results_are_shifted_and_stretched_in_the_logarithm(cheap):
    np.testing.assert_allclose(calibrated(*pairs(cheap)), [*FULL, 16.0, *FULL])


def test_results_of_both_signs_are_shifted_and_stretched_as_they_are():
    full = np.array([-1.0, 0.0, 2.0, 3.0])
    found = calibrated(*pairs(10.0 * np.array([*full, 7.0]) - 5.0, full))
    np.testing.assert_allclose(found, [*full, 7.0, *full], atol=1e-12)


def test_negative_results_stay_negative_and_full_ones_as_they_are():
    values, fidelities, designs = pairs(-3.0 * np.array([*FULL, 16.0]), -FULL)
    np.testing.assert_allclose(calibrated(values, fidelities, designs), -np.array([*FULL, 16.0, *FULL]))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_designs_with_both_results_change_nothing(count):
    values, fidelities, designs = pairs(7.0 * np.array([*FULL, 16.0]))
    designs[5 + count :] = [f"other {k}" for k in range(4 - count)]
    np.testing.assert_allclose(calibrated(values, fidelities, designs), values)


def test_a_constant_fidelity_is_shifted_only():
    np.testing.assert_allclose(calibrated(*pairs(np.full(5, 3.0)))[:5], np.exp(np.log(FULL).mean()))


def test_each_fidelity_has_a_scale_of_its_own():
    values = np.concatenate([2.0 * FULL, 5.0 * FULL, FULL])
    fidelities = np.repeat([0.0, 0.5, 1.0], 4)
    np.testing.assert_allclose(calibrated(values, fidelities, [*range(4)] * 3), np.tile(FULL, 3))
