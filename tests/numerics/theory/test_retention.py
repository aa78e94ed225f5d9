"""Variance retention against the printed formulas with 60 digits, and published numbers."""

import math
import time

import numpy as np
import pytest
from mpmath import mpf

from numerics.theory import PAPER_CUTOFF, required_bits, variance_lost, variance_retention
from numerics.theory import retention as module
from oracles.retention import vrr_lemma_1, vrr_theorem_1

# m_acc, m_p, n, n (1 - VRR) and VRR, computed independently in double precision.
PUBLISHED = [
    (5, 5, 144, "1.58171", "0.989015927"),
    (6, 5, 288, "1.18459", "0.995886831"),
    (7, 5, 576, "0.825013", "0.998567685"),
    (7, 5, 1152, "2.43175", "0.997889103"),
    (8, 5, 2304, "1.65685", "0.999280882"),
    (8, 5, 4608, "5.22034", "0.998867113"),
    (9, 5, 4608, "1.16196", "0.999747838"),
    (10, 5, 32768, "5.46360", "0.999833264"),
    (12, 5, 131072, "2.71442", "0.999979291"),
    (13, 5, 802816, "10.7635", "0.999986593"),
    (14, 5, 802816, "3.14169", "0.999996087"),
    (15, 5, 3211264, "6.28731", "0.999998042"),
    (16, 5, 16777216, "17.3216", None),
    (12, 5, 16777216, "5317099.6", None),
    (6, 6, 36, "0.0503307", "0.998601926"),
    (10, 10, 3136, "0.189979", "0.999939420"),
    (12, 11, 50176, "0.767647", "0.999984701"),
]


def rounds_to(value, text):
    """Whether a number is the decimal one to its last digit, give or take one."""
    unit = 10.0 ** -len(text.partition(".")[2])
    return abs(value - float(text)) <= 1.01 * unit


@pytest.mark.parametrize(("acc_bits", "product_bits", "length", "lost", "kept"), PUBLISHED)
def test_published_values_hold_to_their_digits(acc_bits, product_bits, length, lost, kept):
    found = variance_lost(acc_bits, product_bits, length)
    # In blocks the sum is within 1e-6 of the exact one.
    assert rounds_to(found, lost) or found == pytest.approx(float(lost), rel=1e-6)
    if kept:
        assert rounds_to(variance_retention(acc_bits, product_bits, length), kept)


@pytest.mark.parametrize(
    ("acc_bits", "length", "lost"), [(8, 4608, 31.0427), (5, 144, 3.30161), (10, 32768, 0.0447498)]
)
def test_full_swamping_alone(acc_bits, length, lost):
    assert variance_lost(acc_bits, 5, length, partial=False) == pytest.approx(lost, rel=2e-6)


@pytest.mark.parametrize(
    ("bits", "longest"),
    [(5, 196), (6, 533), (7, 1483), (8, 3904), (9, 10144), (10, 26529), (11, 64691), (12, 164004)],
)
def test_the_longest_sums_within_the_cutoff(bits, longest):
    low, high = longest // 2, 2 * longest
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if variance_lost(bits, 5, middle) < PAPER_CUTOFF else (low, middle)
    assert low == pytest.approx(longest, rel=0.005)


@pytest.mark.parametrize("product_bits", [1, 2, 5, 8])
@pytest.mark.parametrize("length", [2, 3, 10, 77.5, 640])
def test_theorem_1_is_the_printed_one(product_bits, length):
    for acc_bits in (1, 2, 3, 4, 6, 9):
        exact = float(mpf(length) * (1 - vrr_theorem_1(acc_bits, product_bits, length)))
        assert variance_lost(acc_bits, product_bits, length) == pytest.approx(exact, rel=1e-11, abs=1e-50)


@pytest.mark.parametrize("length", [2, 3, 50, 640])
def test_lemma_1_is_the_printed_one(length):
    for acc_bits in (1, 3, 4, 6):
        exact = float(length * (1 - vrr_lemma_1(acc_bits, length)))
        assert variance_lost(acc_bits, 3, length, partial=False) == pytest.approx(
            exact, rel=1e-11, abs=1e-300
        )


@pytest.mark.parametrize("length", [40_000, 300_000, 1 << 20])
def test_sums_in_blocks_are_within_1e_5_of_the_sums_of_all_terms(length, monkeypatch):
    cases = [(acc, product) for acc in (3, 6, 9, 12, 13) for product in (1, 5, 11)]
    module._lost.cache_clear()
    blocks = [variance_lost(acc, product, length) for acc, product in cases]
    module._lost.cache_clear()
    monkeypatch.setattr(module, "_EXACTLY", 1 << 40)
    terms = [variance_lost(acc, product, length) for acc, product in cases]
    module._lost.cache_clear()
    assert blocks == pytest.approx(terms, rel=1e-5, abs=1e-300)


def test_a_sum_of_any_length_takes_less_than_5_ms():
    module._lost.cache_clear()
    cases = [(bits, 2.0**exponent) for exponent in (10, 15, 16, 20, 25, 30) for bits in (5, 10, 15, 20)]
    spent = []
    for bits, length in cases:
        best = math.inf
        for again in range(3):
            began = time.process_time()
            variance_lost(bits, 5, length + again * 1e-6)  # not kept from the time before
            best = min(best, time.process_time() - began)
        spent.append(best)
    assert max(spent) < 5e-3


def test_the_variance_lost_is_not_monotone_so_bits_are_scanned_upward():
    assert variance_lost(13, 5, 131072) == pytest.approx(0.890, abs=5e-4)
    assert variance_lost(14, 5, 131072) == pytest.approx(0.906, abs=5e-4)
    assert required_bits(131072, cutoff=0.9) == 13
    lost = variance_lost(np.arange(5, 20), 5, 131072)
    assert required_bits(131072, cutoff=0.9) == 5 + int(np.flatnonzero(lost < 0.9)[0])


def test_chunks_multiply_what_they_retain():
    for acc_bits, product_bits, chunk, count in ((5, 5, 64, 9), (6, 5, 64, 72), (7, 3, 16, 1000)):
        length = chunk * count
        grown = min(acc_bits, product_bits + int(math.log2(chunk)))
        exact = vrr_theorem_1(acc_bits, product_bits, chunk) * vrr_theorem_1(acc_bits, grown, count)
        kept = variance_retention(acc_bits, product_bits, length, chunk=chunk)
        assert kept == pytest.approx(float(exact), rel=1e-12)
        outer = variance_lost(acc_bits, product_bits, length, chunk=chunk)
        assert outer == pytest.approx(float(count * (1 - exact)), rel=1e-9)
        total = variance_lost(acc_bits, product_bits, length, chunk=chunk, chunk_rule="total")
        assert total == pytest.approx(chunk * outer, rel=1e-12)
        levels = variance_lost(acc_bits, product_bits, length, chunk=chunk, chunk_rule="levels")
        inner = float(chunk * (1 - vrr_theorem_1(acc_bits, product_bits, chunk)))
        other = float(count * (1 - vrr_theorem_1(acc_bits, grown, count)))
        assert levels == pytest.approx(max(inner, other), rel=1e-9)


def test_zero_products_shorten_a_sum():
    assert variance_lost(7, 5, 1152, density=0.5) == variance_lost(7, 5, 576)
    both = variance_lost(6, 5, 6400, chunk=64, density=0.25)
    exact = vrr_theorem_1(6, 5, 16) * vrr_theorem_1(6, 6, 25)
    assert both == pytest.approx(float(25 * (1 - exact)), rel=1e-9)
    chunk = variance_lost(6, 5, 6400, chunk=64, density=0.25, density_rule="chunk")
    exact = vrr_theorem_1(6, 5, 16) * vrr_theorem_1(6, 6, 100)
    assert chunk == pytest.approx(float(100 * (1 - exact)), rel=1e-9)


def test_chunks_as_long_as_the_sum_are_none():
    assert (
        variance_lost(6, 5, 288, chunk=288) == variance_lost(6, 5, 288) == variance_lost(6, 5, 288, chunk=999)
    )


def test_short_sums_lose_nothing():
    for length in (0, 1, 1.9):
        assert variance_lost(3, 3, length) == 0.0
        assert variance_retention(3, 3, length) == 1.0
    assert variance_lost(3, 3, 10, density=0.1) == 0.0
    assert required_bits(1) == 5
    assert required_bits(0, 7) == 7


def test_arrays_are_broadcast():
    lengths = np.array([[144, 576], [4608, 131072]])
    bits = required_bits(lengths)
    assert bits.shape == (2, 2)
    assert bits.dtype == np.int64
    assert bits.tolist() == [[required_bits(int(n)) for n in row] for row in lengths]
    lost = variance_lost(np.array([7, 8])[:, None], 5, np.array([576, 1152, 2304]))
    assert lost.shape == (2, 3)
    assert lost[1, 2] == variance_lost(8, 5, 2304)
    assert required_bits(4608, density=np.array([1.0, 0.1])).tolist() == [9, required_bits(460.8)]


@pytest.mark.parametrize(("length", "published"), [(576, (7, 5)), (4608, (9, None)), (3211264, (None, None))])
def test_published_bits_that_the_literal_rule_gives(length, published):
    found = required_bits(length), required_bits(length, chunk=64)
    assert all(wanted in (None, bits) for wanted, bits in zip(published, found, strict=True))
    if length == 3211264:
        assert found[0] == 17
        assert {required_bits(length, density=z) for z in (0.30, 0.5, 0.68)} == {15}
        assert {required_bits(length, chunk=64, density=z) for z in (0.19, 0.3, 0.48)} == {10}


def test_parameters_of_the_rule():
    assert required_bits(4608, cutoff=0.7) == 10
    assert required_bits(4608, offset=1) == 10
    assert required_bits(36, 3) == 4
    assert required_bits(36, 3, minimum=6) == 6
    assert required_bits(36, 8, minimum=2) < 8 == required_bits(36, 8)
    strict = required_bits(1 << 20, chunk=64, chunk_rule="total")
    assert strict > required_bits(1 << 20, chunk=64) >= required_bits(1 << 20, chunk=64, chunk_rule="levels")


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: variance_lost(0, 5, 10), ValueError, "acc_bits must be in 1..64, got 0"),
        (lambda: variance_lost(5, 70, 10), ValueError, "product_bits must be in 1..64, got 70"),
        (lambda: variance_lost(5.5, 5, 10), TypeError, "acc_bits must be whole numbers, got 5.5"),
        (lambda: variance_lost(5, 5, -1), ValueError, "length must be in finite numbers from 0 on, got -1"),
        (
            lambda: variance_lost(5, 5, math.nan),
            ValueError,
            "length must be in finite numbers from 0 on, got nan",
        ),
        (lambda: variance_lost(5, 5, "10"), TypeError, "length must be numbers, got '10'"),
        (lambda: variance_lost(5, 5, 10, density=0.0), ValueError, r"density must be in \(0, 1\], got 0.0"),
        (lambda: required_bits(10, density=1.5), ValueError, r"density must be in \(0, 1\], got 1.5"),
        (lambda: required_bits(10, chunk=0), ValueError, "chunk must be at least 1, got 0"),
        (lambda: required_bits(10, chunk=2.5), TypeError, "chunk must be a whole number or None, got 2.5"),
        (lambda: required_bits(10, rule="guess"), ValueError, "rule must be theory or emulated, got 'guess'"),
        (lambda: required_bits(10, cutoff=0.0), ValueError, "cutoff must be positive and finite, got 0.0"),
        (lambda: required_bits(10, minimum=0), ValueError, "minimum must be in 1..23, got 0"),
        (
            lambda: required_bits(10, tolerance=0.1),
            ValueError,
            "tolerance belongs to rule='emulated', got 0.1",
        ),
        (
            lambda: required_bits(10, chunk=2, chunk_rule="inner"),
            ValueError,
            "chunk_rule must be one of outer, total, levels, got 'inner'",
        ),
        (
            lambda: variance_retention(5, 5, 10, density_rule="x"),
            ValueError,
            "density_rule must be one of both, chunk, got 'x'",
        ),
    ],
)
def test_bad_arguments_are_named(call, error, text):
    with pytest.raises(error, match=text):
        call()
