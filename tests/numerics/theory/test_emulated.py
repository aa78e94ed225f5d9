"""Emulated sums: what a register keeps, with its confidence."""

import math
import re

import numpy as np
import pytest

from numerics import matmul, parse_format
from numerics.theory import emulated_bits, emulated_retention, operand_noise
from numerics.theory.emulated import Sums, compare
from oracles.rational import dot_rational


@pytest.mark.parametrize(
    ("text", "length", "ratio"),
    # Simulated elsewhere, to about 2 % (numbers without a given interval, from some thousand sums).
    [
        ("e8m6", 1152, 0.991),
        ("e8m6 rounding=toward-zero", 1152, 0.088),
        ("e8m5", 4608, 0.832),
        ("e8m5 rounding=stochastic", 4608, 1.23),
    ],
)
def test_known_ratios_hold_within_their_confidence(text, length, ratio):
    found = emulated_retention(text, length, samples=4096, seed=0).variance
    slack = 0.02 * ratio  # of the numbers themselves
    assert found.low - slack <= ratio <= found.high + slack


def test_sums_and_their_ratios_are_those_of_exact_rationals():
    kept = emulated_retention("e8m3 chunk=4", 11, product_bits=4, samples=50, seed=5)
    sums = Sums(11, product_bits=4, samples=50, seed=5)
    ((signs, products),) = sums._pairs
    assert np.array_equal(signs, np.ones((1, 11)))
    columns = products.T.astype(float).tolist()
    exact = np.array([math.fsum(column) for column in columns])[:50]
    ones = [1.0] * 11
    rounded = np.array(
        [
            float(dot_rational(ones, column, parse_format("e8m3"), "nearest-even", chunk=4))
            for column in columns[:50]
        ]
    )
    assert kept.variance.value == pytest.approx((rounded**2).sum() / (exact**2).sum(), rel=1e-12)
    assert kept.error.value == pytest.approx(
        math.sqrt(((rounded - exact) ** 2).sum() / (exact**2).sum()), rel=1e-12
    )
    assert kept.samples == 50


@pytest.mark.parametrize("length", [20, 300])
def test_products_are_on_their_grid_with_mean_0_and_variance_1(length):
    for distribution in ("normal", "uniform", "laplace"):
        sums = Sums(length, product_bits=4, distribution=distribution, samples=4096, seed=1)
        products = np.concatenate([x.ravel() for _, x in sums._pairs]).astype(float)
        mantissas = np.ldexp(np.frexp(products)[0], 5)
        assert np.array_equal(mantissas, np.rint(mantissas))
        assert abs(products.mean()) < 4 / math.sqrt(products.size)
        assert products.var() == pytest.approx(1.0, rel=0.03)
        exact = sums._exact
        assert exact.size == 4096
        assert (exact**2).mean() == pytest.approx(length, rel=0.12)


def test_density_is_that_of_products_that_are_not_zero():
    sums = Sums(500, density=0.3, samples=640, seed=2)
    products = np.concatenate([x.ravel() for _, x in sums._pairs])
    assert np.count_nonzero(products) / products.size == pytest.approx(0.3, abs=0.01)


def test_sums_that_share_magnitudes_are_uncorrelated():
    ((signs, products),) = Sums(256, samples=4096, seed=3)._pairs
    assert set(np.unique(signs)) == {-1.0, 1.0}
    squares = np.square(signs @ products)
    squares -= squares.mean()
    columns = np.corrcoef(squares)
    off = columns[~np.eye(64, dtype=bool)]
    assert abs(off.mean()) < 0.02  # 2 / 256 of it is the common sum of squares
    assert off.std() == pytest.approx(1 / math.sqrt(64), rel=0.15)


@pytest.mark.parametrize(("length", "text"), [(1, "e8m3"), (64, "e8m3"), (1024, "e8m6")])
def test_intervals_cover_as_often_as_they_say(length, text):
    truth = emulated_retention(text, length, samples=1 << 16, seed=999)
    found = [emulated_retention(text, length, samples=1024, seed=seed) for seed in range(60)]
    for name in ("variance", "error"):
        value = getattr(truth, name).value
        assert sum(getattr(kept, name).covers(value) for kept in found) >= 50  # of 57 that are expected


def test_stochastic_rounding_adds_variance_and_has_no_bias():
    sums = Sums(1000, samples=4096, seed=4)
    signs, products = sums._pairs[0]
    rounded = matmul(signs, products, "e8m6 rounding=stochastic", seed=1).astype(float).ravel()
    error = rounded - sums._exact
    assert abs(error.mean()) < 4 * error.std() / 64
    assert abs((error * sums._exact).mean()) < 4 * (error * sums._exact).std() / 64
    kept = emulated_retention("e8m6 rounding=stochastic", 1000, samples=4096, seed=4)
    assert kept.variance.value == pytest.approx(1 + kept.error.value**2, abs=0.02)
    assert kept.variance.low > 1.0


def test_a_wide_register_keeps_everything():
    kept = emulated_retention("e8m23", 100, product_bits=3, samples=256, seed=0)
    assert kept.error.value < 1e-6
    assert kept.variance.value == pytest.approx(1.0, abs=1e-6)
    assert str(kept.variance) == "1 (1 to 1)"


def test_an_overflow_is_no_silent_number():
    kept = emulated_retention("e4m3", 4096, samples=256, seed=0)
    assert not math.isfinite(kept.variance.value) or kept.error.value > 0.5


def test_the_same_seed_gives_the_same_numbers():
    calls = [emulated_retention("e8m5 rounding=stochastic", 700, samples=300, seed=s) for s in (1, 1, 2)]
    assert calls[0] == calls[1] != calls[2]


def test_compare_needs_sums_of_something():
    with pytest.raises(ValueError, match="exact sums must not all be zero"):
        compare(np.zeros(3), np.ones(3))
    with pytest.raises(ValueError, match=re.escape("two or more on either side, got (1,) and (1,)")):
        compare(np.ones(1), np.ones(1))


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"length": 0}, ValueError, "length must be in 1..1073741824, got 0"),
        ({"length": 2.5}, TypeError, "length must be a whole number, got 2.5"),
        ({"product_bits": 24}, ValueError, "product_bits must be in 1..23, got 24"),
        ({"samples": 1}, ValueError, "samples must be in 2..1073741824, got 1"),
        ({"density": 0.0}, ValueError, re.escape("density must be in (0, 1], got 0.0")),
        (
            {"distribution": "cauchy"},
            ValueError,
            "distribution must be one of normal, uniform, laplace, got 'cauchy'",
        ),
    ],
)
def test_bad_arguments_are_named(kwargs, error, text):
    arguments = {"length": 10, "seed": 0, **kwargs}
    with pytest.raises(error, match=text):
        emulated_retention("e8m5", **arguments)


def test_operand_noise_is_that_of_rounded_operands():
    from numerics import cast

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 1 << 18)).astype(np.float32)
    for bits in (2, 3):
        error = cast(x, f"e8m{bits}") * cast(y, f"e8m{bits}") - x * y
        measured = np.mean(error.astype(float) ** 2) / np.mean((x * y).astype(float) ** 2)
        assert operand_noise(2 * bits + 1) == pytest.approx(measured, rel=0.04)
    assert operand_noise(9) == pytest.approx(operand_noise(5) / 16, rel=1e-12)


def test_bits_by_emulation_are_the_fewest_that_hold():
    for rounding in ("nearest-even", "toward-zero"):
        bits = emulated_bits(900, rounding=rounding, samples=1024, seed=3)
        errors = [
            emulated_retention(f"e8m{m} rounding={rounding}", 900, samples=1024, seed=3).error.value ** 2
            for m in (bits - 1, bits)
        ]
        assert errors[1] <= operand_noise(5) < errors[0]
    assert emulated_bits(900, tolerance=0.9, samples=256, seed=3) == 5
    assert emulated_bits(900, tolerance=0.9, minimum=1, samples=256, seed=3) <= 2
    assert emulated_bits(900, rounding="stochastic:4", samples=256, seed=3) >= 6
    assert emulated_bits(900, chunk=30, samples=256, seed=3) < emulated_bits(900, samples=256, seed=3)
    with pytest.raises(ValueError, match="tolerance must be between 0 and 1, got 2"):
        emulated_bits(900, tolerance=2, seed=0)
