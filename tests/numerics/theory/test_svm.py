"""The bounds of the online SVM against exact rationals and enumeration, the counts of adders by hand."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numerics import cast
from numerics.theory.svm import (
    classification_adders,
    dot_product_adders,
    exact_update_bits,
    geometric_bound,
    geometric_data_bits,
    label_change_bound,
    output_shift,
    probabilistic_bound,
    safe_update_bits,
    update_adders,
    updates_vanish,
)


def nearest(value, step):
    """Nearest multiple, without ends."""
    return round(value / step) * step


def steps(data_bits, weight_bits):
    return Fraction(2, 2**data_bits), Fraction(2, 2**weight_bits)


rationals = st.fractions(-1, 1, max_denominator=97)


@given(
    samples=st.lists(st.tuples(rationals, rationals), min_size=1, max_size=4),
    bias=rationals,
    data_bits=st.integers(1, 6),
    weight_bits=st.integers(1, 6),
)
def test_no_output_moves_further_than_the_shift(samples, bias, data_bits, weight_bits):
    dx, df = steps(data_bits, weight_bits)
    x, w = zip(*samples, strict=True)
    before = sum(a * b for a, b in samples) + bias
    after = sum(nearest(a, dx) * nearest(b, df) for a, b in samples) + nearest(bias, df)
    shift = output_shift(
        data_bits,
        weight_bits,
        weight_norm=math.sqrt(sum(v * v for v in w)),
        data_norm=math.sqrt(sum(v * v for v in x)),
        dimension=len(x),
    )
    assert abs(after - before) <= shift * (1 + 1e-12)


def test_without_the_product_of_errors_an_output_can_move_further():
    # D = 1, B_X = B_F = 5: all errors of one sign, near the tie, and x near 1, where Cauchy is tight.
    dx, df = steps(5, 5)
    near = Fraction(1, 10**6)
    x, w, b = 1 - 3 * dx / 2 + near, 5 * df / 2 + near, df / 2 + near
    moved = nearest(x, dx) * nearest(w, df) + nearest(b, df) - (x * w + b)
    options = {"weight_norm": float(w), "data_norm": float(x), "dimension": 1}
    loose = output_shift(5, 5, **options)
    assert output_shift(5, 5, **options, product_term=False) < moved < loose
    assert moved > 0.99 * loose


def test_an_array_of_norms_gives_an_array_of_shifts():
    norms = np.array([0.0, 1.0, 2.0])
    shifts = output_shift(4, 5, weight_norm=1.5, data_norm=norms, dimension=3)
    assert shifts.tolist() == [
        output_shift(4, 5, weight_norm=1.5, data_norm=norm, dimension=3) for norm in norms.tolist()
    ]


@given(
    weight_norm=st.floats(0.01, 20),
    dimension=st.integers(1, 60),
    share=st.floats(0, 1),
    weight_bits=st.integers(1, 14),
    weight_range=st.sampled_from([1.0, 4.0]),
    product_term=st.booleans(),
)
def test_the_least_bits_are_the_first_whose_shift_is_within_the_margin(
    weight_norm, dimension, share, weight_bits, weight_range, product_term
):
    options = {
        "weight_norm": weight_norm,
        "data_norm": share * math.sqrt(dimension),
        "dimension": dimension,
        "weight_range": weight_range,
        "product_term": product_term,
    }
    found = geometric_data_bits(weight_bits, **options)
    shifts = [output_shift(bits, weight_bits, **options) for bits in range(1, 60)]
    within = [bits for bits, shift in enumerate(shifts, start=1) if shift < 1 - 1e-12]
    if found is None:
        assert not within
        assert geometric_bound(weight_bits, **options) == math.inf
    elif found < 60:
        assert within[0] - found in (0, 1)
        assert shifts[found - 1] < 1 + 1e-12


def test_the_geometric_bound_by_hand():
    # sqrt(16) 2 / (1 - 2**-6 sqrt(17 * 17)) = 8 / (1 - 17/64) = 512/47, between 8 and 16.
    assert geometric_bound(6, weight_norm=2.0, dimension=16) == math.log2(512 / 47)
    assert geometric_data_bits(6, weight_norm=2.0, dimension=16) == 4
    # The denominator is zero for 2**-4 sqrt(16 * 16), and negative for fewer bits.
    for bits in (4, 3):
        assert geometric_bound(bits, weight_norm=2.0, dimension=15, data_norm=math.sqrt(15)) == math.inf
        assert geometric_data_bits(bits, weight_norm=2.0, dimension=15) is None
    # Exactly at a whole number one bit more is wanted: 4 / (1 - 1/2) = 2**3.
    assert geometric_bound(3, weight_norm=4.0, dimension=1, data_norm=math.sqrt(7)) == 3.0
    assert geometric_data_bits(3, weight_norm=4.0, dimension=1, data_norm=math.sqrt(7)) == 4
    # Weights of zero move only by their own rounding.
    assert geometric_bound(9, weight_norm=0.0, dimension=4) == -math.inf
    assert geometric_data_bits(9, weight_norm=0.0, dimension=4) == 1


def changed(w, b, x, data_bits, weight_bits, points):
    """Exact probability that errors of `points` equally likely values a step change the sign, to first order.

    The values are the middles of equal parts of a step: symmetric, of a little less than the variance of a
    uniform error.
    """
    dx, df = steps(data_bits, weight_bits)
    places = [Fraction(2 * i + 1 - points, 2 * points) for i in range(points)]
    output = sum(p * q for p, q in zip(w, x, strict=True)) + b
    changes = total = 0
    for errors in itertools.product(places, repeat=2 * len(w) + 1):
        in_data, in_weights, in_bias = errors[: len(w)], errors[len(w) : -1], errors[-1]
        moved = (
            dx * sum(p * e for p, e in zip(w, in_data, strict=True))
            + df * sum(p * e for p, e in zip(x, in_weights, strict=True))
            + df * in_bias
        )
        changes += (output + moved) * output <= 0
        total += 1
    return Fraction(changes, total)


@pytest.mark.parametrize(("data_bits", "weight_bits"), [(2, 2), (2, 4), (4, 2), (1, 1)])
@pytest.mark.parametrize(
    ("w", "b", "x"),
    [
        (["3/4"], "-1/3", ["1/2"]),
        (["7/8"], "-1/4", ["1/2"]),
        (["-2/3"], "1/5", ["1/9"]),
        (["1/2", "-3/4"], "1/7", ["1/3", "1/5"]),
        (["1/2", "1/2"], "-1/3", ["4/5", "-3/5"]),
    ],
)
def test_labels_change_no_more_often_than_bounded(w, b, x, data_bits, weight_bits):
    w, x, b = [Fraction(v) for v in w], [Fraction(v) for v in x], Fraction(b)
    exact = changed(w, b, x, data_bits, weight_bits, points=8 if len(w) == 1 else 5)
    arguments = np.array(w, float), float(b), np.array([x], float)
    bounds = [
        label_change_bound(*arguments, data_bits=data_bits, weight_bits=weight_bits, capped=capped)
        for capped in (False, True)
    ]
    assert exact <= bounds[1] <= bounds[0]
    # The formula of the reference, in rationals.
    dx, df = steps(data_bits, weight_bits)
    square = (sum(p * q for p, q in zip(w, x, strict=True)) + b) ** 2
    formula = (dx**2 * sum(p * p for p in w) + df**2 * (1 + sum(p * p for p in x))) / (24 * square)
    assert bounds[0] == pytest.approx(float(formula), rel=1e-12)
    assert bounds[1] == pytest.approx(min(float(formula), 0.5), rel=1e-12)


def test_the_cases_enumerated_include_changed_labels():
    w, x = [Fraction(3, 4)], [Fraction(1, 2)]
    assert changed(w, Fraction(-1, 3), x, 2, 2, points=8) > Fraction(1, 4)


def test_rounded_random_data_change_labels_less_often_than_bounded():
    rng = np.random.default_rng(0)
    data = rng.uniform(-0.9, 0.9, (20_000, 6))
    weights, bias = rng.uniform(-0.8, 0.8, 6), 0.11
    labels = data @ weights + bias > 0
    for data_bits, weight_bits in ((3, 8), (4, 6), (6, 10)):
        rounded = cast(data, f"s0.{data_bits - 1}")
        narrow = cast(np.append(weights, bias), f"s0.{weight_bits - 1}")
        share = np.mean((rounded @ narrow[:-1] + narrow[-1] > 0) != labels)
        options = {"data_bits": data_bits, "weight_bits": weight_bits, "capped": True}
        assert 0 < share < label_change_bound(weights, bias, data, **options)


def test_a_sample_on_the_boundary_has_no_bound_but_the_cap():
    weights, data = np.array([1.0, -1.0]), np.array([[0.5, 0.5], [0.5, -0.5]])
    options = {"data_bits": 8, "weight_bits": 8}
    assert label_change_bound(weights, 0.0, data, **options) == math.inf
    capped = label_change_bound(weights, 0.0, data, **options, capped=True)
    alone = label_change_bound(weights, 0.0, data[1:], **options)
    assert capped == pytest.approx((0.5 + alone) / 2, rel=1e-12)
    assert probabilistic_bound(weights, 0.0, data, weight_bits=8, target=0.5) == math.inf
    assert label_change_bound(0 * weights, 0.5, data, **options) > 0
    assert probabilistic_bound(0 * weights, 0.5, data, weight_bits=8, target=0.5) == -math.inf


@pytest.mark.parametrize("target", [0.001, 0.02, 0.4])
@pytest.mark.parametrize("weight_range", [1.0, 2.0])
def test_the_probabilistic_bound_meets_its_target(target, weight_range):
    rng = np.random.default_rng(1)
    data, weights = rng.uniform(-1, 1, (50, 4)), np.array([0.5, -0.25, 1.0, 2.0])
    bits = probabilistic_bound(weights, 3.9, data, weight_bits=9, target=target, weight_range=weight_range)
    options = {"weight_bits": 9, "weight_range": weight_range}
    enough = max(1, math.ceil(bits))
    assert label_change_bound(weights, 3.9, data, data_bits=enough, **options) <= target
    if enough > 1:
        assert label_change_bound(weights, 3.9, data, data_bits=enough - 1, **options) > target
    # A range of 2 with one bit more is the grid of a range of 1.
    halved = {"data_bits": 5, "weight_bits": 9 + (weight_range == 2), "weight_range": weight_range}
    assert label_change_bound(weights, 3.9, data, **halved) == pytest.approx(
        label_change_bound(weights, 3.9, data, data_bits=5, weight_bits=9)
    )


def test_weights_that_are_too_coarse_for_the_target_need_no_data_bits():
    data, weights = np.array([[0.5]]), np.array([0.5])
    assert probabilistic_bound(weights, 0.0, data, weight_bits=2, target=0.001) == math.inf


@given(exponent=st.integers(-20, 4), factor=st.floats(1, 2, exclude_max=True), weight_range=st.integers(0, 4))
def test_update_bits_are_the_least_whose_step_fits(exponent, factor, weight_range):
    gamma, whole_range = Fraction(math.ldexp(factor, exponent)), 2**weight_range

    def least(wanted):
        return next(bits for bits in range(1, 99) if whole_range * Fraction(2, 2**bits) <= wanted)

    options = {"weight_range": float(whole_range)}
    assert safe_update_bits(float(gamma), **options) == least(gamma)
    for data_bits in (1, 4, 9):
        last = gamma * Fraction(2, 2**data_bits)
        assert exact_update_bits(float(gamma), data_bits, **options) == least(last)


@pytest.mark.parametrize(("halvings", "data_bits"), [(3, 3), (5, 2), (2, 4)])
def test_updates_are_exact_with_so_many_bits_and_no_fewer(halvings, data_bits):
    gamma = 2.0**-halvings
    bits = exact_update_bits(gamma, data_bits)
    data = cast(np.arange(-1, 1, 2.0 ** (1 - data_bits)), f"s0.{data_bits - 1}")
    for enough in (bits, bits - 1):
        weights = np.arange(-0.5, 0.5, 2.0 ** (1 - enough))
        wanted = weights[:, None] + gamma * data
        assert (cast(wanted, f"s0.{enough - 1}") == wanted).all() == (enough == bits)


def test_updates_vanish_below_half_a_step_and_not_above():
    for bits in range(2, 12):
        weights = np.arange(-0.5, 0.5, 2.0 ** (1 - bits))
        for gamma in (0.3, 0.1, 2.0**-5, 0.011, 0.002):
            for largest in (1.0, 0.6):
                for decay in (0.0, 0.5):
                    # Weights are within half the range here, so the worst decay is of that.
                    vanish = updates_vanish(gamma, bits, largest=largest, decay=decay / 2)
                    updates = gamma * np.array([-largest, largest])
                    after = cast((weights - gamma * decay * weights)[:, None] + updates, f"s0.{bits - 1}")
                    stays = (after == weights[:, None]).all()
                    if vanish:
                        assert stays
                    elif gamma * largest > 2.0**-bits:
                        assert not stays


def test_the_safe_rule_keeps_data_above_one_half_and_loses_some_below():
    for gamma in (2.0**-3, 2.0**-6, 0.05):
        bits = safe_update_bits(gamma)
        kept = cast(np.array([0.51 * gamma, gamma]), f"s0.{bits - 1}")
        assert (kept > 0).all()
        assert not updates_vanish(gamma, bits)
    assert cast(np.array([0.49 * 2.0**-6]), f"s0.{safe_update_bits(2.0**-6) - 1}") == 0


def test_adders_by_hand():
    # Three products of 2 by 3 bits are 18; their sum has 2 + 3 + 2 - 1 = 6 bits, and two additions.
    assert dot_product_adders(3, 2, 3) == 18 + 2 * 6
    assert dot_product_adders(1, 5, 7) == 35
    # A fourth term needs no wider sum, a fifth does.
    assert dot_product_adders(4, 2, 3) == 24 + 3 * 6
    assert dot_product_adders(5, 2, 3) == 30 + 4 * 7
    # The bias is one more term: of 4 in all, so 6 bits.
    assert classification_adders(3, 2, 3) == 18 + 3 * 6
    assert classification_adders(4, 2, 3) == 24 + 4 * 7
    # Weights and bias by 10 bits: three decays, four data.
    assert update_adders(3, 2, 10) == 70
    assert update_adders(3, 2, 10, inside=False) == 30
    # Multipliers of 5 bits: three of 2 by 5 for the data, three of 10 by 5 for the decay.
    assert update_adders(3, 2, 10, step_bits=5) == 70 + 30 + 150
    assert update_adders(3, 2, 10, inside=False, step_bits=5) == 30 + 150


@given(length=st.integers(1, 300), a=st.integers(1, 16), b=st.integers(1, 16))
def test_a_dot_product_is_the_formula_of_the_reference(length, a, b):
    expected = length * a * b + (length - 1) * (a + b + math.ceil(math.log2(length)) - 1)
    assert dot_product_adders(length, a, b) == expected
    # The bias costs one addition, at most one bit wider for all.
    extra = classification_adders(length, a, b) - expected
    assert 0 < extra <= 2 * length + a + b + math.ceil(math.log2(length + 1))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: safe_update_bits(0.0), ValueError, "step_size must be positive and finite, got 0.0"),
        (lambda: safe_update_bits(math.nan), ValueError, "step_size must be positive and finite, got nan"),
        (lambda: exact_update_bits(0.1, 0), ValueError, "data_bits must be at least 1, got 0"),
        (lambda: exact_update_bits(0.1, 2.0), TypeError, r"data_bits must be an integer, got 2\.0"),
        (lambda: exact_update_bits(0.1, 999), ValueError, "data_bits must be at most 256, got 999"),
        (lambda: updates_vanish(0.1, 8, largest=-1.0), ValueError, "largest must be finite and not negative"),
        (
            lambda: geometric_bound(True, weight_norm=1.0, dimension=3),
            TypeError,
            "weight_bits must be an integer, got True",
        ),
        (
            lambda: geometric_bound(4, weight_norm=math.inf, dimension=3),
            ValueError,
            "weight_norm must be finite and not negative, got inf",
        ),
        (
            lambda: geometric_bound(4, weight_norm=1.0, dimension=0),
            ValueError,
            "dimension must be at least 1, got 0",
        ),
        (
            lambda: output_shift(
                4, 4, weight_norm=1.0, data_norm=np.array([1.0, -2.0]), dimension=3, weight_range=1.0
            ),
            ValueError,
            r"data_norm must be finite and not negative, got -2\.0",
        ),
        (
            lambda: output_shift(4, 4, weight_norm=1.0, data_norm=1.0, dimension=3, weight_range=0.0),
            ValueError,
            r"weight_range must be positive and finite, got 0\.0",
        ),
        (
            lambda: label_change_bound(np.ones(2), 0.0, np.ones((3, 4)), data_bits=4, weight_bits=4),
            ValueError,
            r"shapes \(d,\) and \(n, d\), got \(2,\) and \(3, 4\)",
        ),
        (
            lambda: label_change_bound(np.ones(2), 0.0, np.ones((0, 2)), data_bits=4, weight_bits=4),
            ValueError,
            r"got \(2,\) and \(0, 2\)",
        ),
        (
            lambda: label_change_bound(np.ones(1), math.nan, np.ones((1, 1)), data_bits=4, weight_bits=4),
            ValueError,
            "bias must be finite, got nan",
        ),
        (
            lambda: probabilistic_bound(np.ones(1), 0.0, np.ones((1, 1)), weight_bits=4, target=0.0),
            ValueError,
            r"target must be in \(0, 1\], got 0\.0",
        ),
        (lambda: dot_product_adders(0, 4, 4), ValueError, "length must be at least 1, got 0"),
        (lambda: classification_adders(3, 4, -4), ValueError, "weight_bits must be at least 1, got -4"),
        (lambda: update_adders(3, 4, 4, step_bits=0), ValueError, "step_bits must be at least 1, got 0"),
    ],
)
def test_errors_name_the_value(call, error, message):
    with pytest.raises(error, match=message):
        call()
