"""Embeddings and spectra of tables whose factors are known."""

import numpy as np
import pytest

from studies.accuracy.peppp.embedding import embed, locate, rank_of_energy, spectrum


def low_rank(rank, seed=0):
    random = np.random.default_rng(seed)
    return random.random((12, rank)) @ random.random((rank, 9))


def test_rows_of_a_low_rank_table_are_combinations_of_the_embeddings():
    values = low_rank(3)
    y = embed(values, 3)
    x = np.linalg.lstsq(y, values.T, rcond=None)[0].T
    np.testing.assert_allclose(x @ y.T, values, atol=1e-12)
    np.testing.assert_allclose(x.T @ x / 12, np.eye(3), atol=1e-9)  # mean square 1 in every direction


def test_the_cut_is_the_best_approximation():
    values = low_rank(4)
    y = embed(values, 2)
    projected = values @ y @ np.linalg.pinv(y)
    singular = np.linalg.svd(values, compute_uv=False)
    assert np.linalg.norm(values - projected) == pytest.approx(np.linalg.norm(singular[2:]))


def test_a_data_set_is_located_from_as_many_measurements_as_dimensions():
    y = embed(low_rank(3), 3)
    x = np.array([0.3, -1.0, 2.0])
    chosen = np.array([0, 4, 7])
    np.testing.assert_allclose(locate(y, chosen, y[chosen] @ x, 1e-14), x, rtol=1e-6)


def test_the_ridge_is_that_of_the_normal_equations():
    random = np.random.default_rng(1)
    y, errors = random.random((6, 2)), random.random(6)
    # Ridge regression is least squares with one more row sqrt(ridge) I and zeros.
    rows = np.vstack([y, np.sqrt(0.3) * np.eye(2)])
    expected = np.linalg.lstsq(rows, np.append(errors, [0.0, 0.0]), rcond=None)[0]
    np.testing.assert_allclose(locate(y, np.arange(6), errors, 0.3), expected, rtol=1e-10)


def test_spectrum_and_energy_by_hand():
    values = np.diag([4.0, 2.0, 1.0])  # squares 16, 4, 1 of 21
    np.testing.assert_allclose(spectrum(values), [16 / 21, 4 / 21, 1 / 21])
    assert [rank_of_energy(values, share) for share in (0.5, 16 / 21, 0.8, 0.99, 1.0)] == [1, 1, 2, 3, 3]
    assert spectrum(np.zeros((2, 2))).tolist() == [0.0, 0.0]


def test_ranks_and_shares_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"rank must be in 1..9 for a table \(12, 9\), got 10"):
        embed(low_rank(2), 10)
    with pytest.raises(ValueError, match=r"share must be in 0..1, and not 0, got 1.5"):
        rank_of_energy(low_rank(2), 1.5)
