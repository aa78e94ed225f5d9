"""The bounds of low-precision SGD: by hand, against formats enumerated, and against seeded simulations.

The simulated problem is a logistic regression: convex, with ``||g|| <= max ||x||`` everywhere. Its minimiser
is found by Newton's method in float64. Weights are stored by `cast` or `axpy`, so every rounding is bit-true.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numerics import FixedFormat, FloatFormat, Rounding, axpy, cast, parse_format
from numerics.theory.sgd import (
    ErrorBound,
    best_step_size,
    excess_loss_bound,
    rounding_error,
    stall_threshold,
)
from oracles.grid import finite_values, round_to_grid

SMALL = ("e2m1", "e2m3", "e4m3fn", "e4m3fn-flush", "e5m2", "e3m0none", "binary8p4", "ue4m3fn", "s2.4", "u0.5")

sizes = st.floats(0, 10)


def problem(**changes):
    return {"steps": 400, "distance": 3.0, "gradient_norm": 2.0, **changes}


def test_the_bound_of_zero_mean_errors_is_the_formula_of_the_reference():
    r2, s2, eta = 0.7, 0.01, 0.05
    errors = {"gradient_error": ErrorBound(variance=r2), "storage_error": ErrorBound(variance=s2)}
    expected = 9 / (2 * eta * 400) + eta * (4 + r2) / 2 + s2 / (2 * eta)
    assert excess_loss_bound(eta, **problem(**errors)) == pytest.approx(expected, rel=1e-12)
    best = best_step_size(**problem(**errors))
    assert best.step_size == pytest.approx(math.sqrt((9 / 400 + s2) / (4 + r2)), rel=1e-12)
    assert best.bound == pytest.approx(math.sqrt((9 / 400 + s2) * (4 + r2)), rel=1e-12)


def test_the_bound_of_biased_errors_is_the_formula_of_the_reference():
    eta, radius, stored, graded = 0.05, 4.0, 0.003, 0.02
    for bias_r, bias_s in ((0.0, stored), (graded, 0.0), (graded, stored)):
        eps = eta * bias_r + bias_s
        expected = 9 / (2 * eta * 400) + eps * radius / eta + (eta * 2.0 + eps) ** 2 / (2 * eta)
        errors = {"gradient_error": ErrorBound(bias=bias_r), "storage_error": ErrorBound(bias=bias_s)}
        found = excess_loss_bound(eta, **problem(**errors, radius=radius))
        assert found == pytest.approx(expected, rel=1e-12)


@given(
    bias_r=sizes, bias_s=sizes, variance_r=sizes, variance_s=sizes, radius=sizes, factor=st.floats(0.01, 100)
)
def test_no_step_size_has_a_lower_bound_than_the_best(bias_r, bias_s, variance_r, variance_s, radius, factor):
    setting = problem(
        gradient_error=ErrorBound(bias=bias_r, variance=variance_r),
        storage_error=ErrorBound(bias=bias_s, variance=variance_s),
        radius=radius,
    )
    best = best_step_size(**setting)
    assert excess_loss_bound(best.step_size, **setting) == pytest.approx(best.bound, rel=1e-9)
    assert excess_loss_bound(factor * best.step_size, **setting) >= best.bound * (1 - 1e-12)


def test_an_array_of_step_sizes_gives_an_array():
    steps = np.array([[0.1, 0.2], [0.3, 0.4]])
    found = excess_loss_bound(steps, **problem())
    assert found.shape == (2, 2)
    assert found[1, 0] == excess_loss_bound(0.3, **problem())


def test_the_bound_holds_exactly_for_a_walk_enumerated():
    # f(w) = |w| from w = 1, gradients 1 or -1 or none at zero, each with an error of +-1/4 to storage, N = 4:
    # all 16 sequences of errors in rationals.
    eta, size, steps = Fraction(1, 2), Fraction(1, 4), 4

    def total(w, left):
        if left == 0:
            return Fraction(0)
        moved = w - eta * ((w > 0) - (w < 0))
        return abs(w) + (total(moved + size, left - 1) + total(moved - size, left - 1)) / 2

    mean = total(Fraction(1), steps) / steps
    bound = excess_loss_bound(
        float(eta),
        steps=steps,
        distance=1.0,
        gradient_norm=1.0,
        storage_error=ErrorBound(variance=float(size**2)),
    )
    assert 0 < mean <= bound
    assert mean > 0.3 * bound


def components(fmt):
    """Points in the range of a format: values, ties, and more between them; with both of their neighbours."""
    values = finite_values(fmt)
    low, gap = values[:-1, None], np.diff(values)[:, None]
    return low + gap * np.array([0.0, 0.1, 0.25, 0.5, 0.75, 0.99]), gap


@pytest.mark.parametrize("text", SMALL)
@pytest.mark.parametrize("mode", ["nearest-even", "nearest-away", "toward-zero", "down", "up", "to-odd"])
def test_no_component_errs_more_than_the_bias_bounds(text, mode):
    fmt = parse_format(text)
    points, _ = components(fmt)
    errors = abs(round_to_grid(points.ravel(), fmt, mode, "saturate") - points.ravel())
    worst = 0.0
    for size, error in zip(abs(points.ravel()).tolist(), errors.tolist(), strict=True):
        if size > fmt.max:  # two's complement has one value more below zero
            continue
        for bound in (
            rounding_error(text, mode, dimension=1, largest=size),
            rounding_error(text, mode, dimension=1, norm=size),
        ):
            assert error <= bound.bias * (1 + 1e-12)
            assert bound.variance == 0
            worst = max(worst, error / bound.bias if bound.bias else 0.0)
    assert worst > 0.8  # the bound is reached, or as good as


@pytest.mark.parametrize("text", SMALL)
@pytest.mark.parametrize("random_bits", [0, 1, 3])
def test_stochastic_errors_keep_to_their_bias_and_variance(text, random_bits):
    fmt = parse_format(text)
    points, gaps = components(fmt)
    rounding = f"stochastic:{random_bits}" if random_bits else "stochastic"
    for row, (gap,) in zip(points.tolist(), gaps.tolist(), strict=True):
        for x, share in zip(row, (0.0, 0.1, 0.25, 0.5, 0.75, 0.99), strict=True):
            if abs(x) > fmt.max:
                continue
            part = share if x >= 0 else 1 - share  # magnitudes are rounded, and cut
            up = math.floor(part * 2**random_bits) / 2**random_bits if random_bits else part
            if share == 0.0:
                up = part = 0.0
            bound = rounding_error(text, rounding, dimension=1, largest=abs(x))
            assert gap * abs(up - part) <= bound.bias * (1 + 1e-9) + 1e-15
            assert gap**2 * up * (1 - up) <= bound.variance * (1 + 1e-9)


def test_errors_of_vectors_by_hand():
    # Sixteen components on a grid of 2**-7.
    assert rounding_error("s0.7", "nearest-even", dimension=16) == ErrorBound(bias=2.0**-6)
    assert rounding_error("s0.7", "stochastic", dimension=16) == ErrorBound(variance=2.0**-12)
    assert rounding_error("s0.7", "stochastic:4", dimension=16) == ErrorBound(bias=2.0**-9, variance=2.0**-12)
    # Relative rounding of a float: 2**(-2 m) ||w||**2 / 4, and what subnormals add.
    found = rounding_error("e8m7", "stochastic", dimension=3, norm=5.0).variance
    assert found == pytest.approx(2.0**-14 * 25 / 4, rel=1e-12)
    assert found > 2.0**-14 * 25 / 4 or fmt_is_wide("e8m7")
    small = rounding_error("e4m3fn", "stochastic", dimension=4, norm=2.0**-9).variance
    assert small == 4 * 2.0**-18 / 4  # all subnormal
    # By the largest component: three of [1, 2), a spacing of 2**-3 each.
    assert rounding_error("e4m3fn", "nearest-even", dimension=4, largest=1.9).bias == 2.0**-3
    # The better of both.
    both = rounding_error("e4m3fn", "stochastic", dimension=4, largest=1.9, norm=1.9)
    one, other = (
        rounding_error("e4m3fn", "stochastic", dimension=4, **{name: 1.9}) for name in ("largest", "norm")
    )
    assert both.variance == min(one.variance, other.variance) == other.variance
    assert rounding_error("e4m3fn", "stochastic", dimension=4, largest=0.0).variance == 2.0**-18
    # Without subnormals the gap around zero is the smallest normal number.
    assert rounding_error("e6m9-flush", "up", dimension=1, largest=2.0**-30).bias == 2.0**-30


def fmt_is_wide(text):
    """Subnormals too small to be seen beside the rest."""
    return parse_format(text).min_subnormal < 1e-30


@pytest.mark.parametrize("text", SMALL)
def test_an_update_below_the_threshold_is_lost_to_nearest_and_one_above_is_not(text):
    fmt = parse_format(text)
    values = finite_values(fmt)
    threshold = stall_threshold(values, fmt)
    assert threshold.shape == values.shape
    gaps = np.diff(values)
    inner = np.minimum(gaps[:-1], gaps[1:])
    np.testing.assert_array_equal(threshold[1:-1], inner / 2)
    below, above = (
        [cast(values + sign * factor * threshold, fmt, overflow="saturate") for sign in (-1, 1)]
        for factor in (0.999, 1.001)
    )
    assert all((after == values).all() for after in below)
    assert (np.stack(above) != values)[:, 1:-1].any(axis=0).all()


def test_thresholds_keep_the_shape():
    assert stall_threshold(np.zeros((2, 3)), "s1.2").shape == (2, 3)
    assert stall_threshold(np.ones((2, 3), np.float32), "e4m3fn").tolist() == [[2.0**-5] * 3] * 2
    assert stall_threshold(np.float64(1.0), "e4m3fn").shape == ()


@dataclass(frozen=True)
class Logistic:
    """Mean of ``log(1 + exp(-y x.w))`` over samples with ``z = y x`` as rows."""

    z: np.ndarray

    def losses(self, w):
        """(runs, d) to (runs,)."""
        return np.logaddexp(0.0, -(w @ self.z.T)).mean(axis=-1)

    def gradients(self, w, rows):
        """Of one sample for each run."""
        z = self.z[rows]
        return -z / (1.0 + np.exp(np.einsum("rd,rd->r", z, w)))[:, None]

    @property
    def gradient_norm(self):
        return float(np.linalg.norm(self.z, axis=1).max())


@cache
def logistic(dimension, samples=40, flipped=0.1):
    """A problem, its minimiser and its least loss."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(samples, dimension))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    labels = np.sign(x @ np.ones(dimension))
    labels[: int(flipped * samples)] *= -1
    task = Logistic(z=labels[:, None] * x)
    w = np.zeros(dimension)
    for _ in range(60):
        p = 1.0 / (1.0 + np.exp(task.z @ w))
        slope = -(task.z * p[:, None]).mean(axis=0)
        curvature = (task.z * (p * (1 - p))[:, None]).T @ task.z / samples
        w = w - np.linalg.solve(curvature, slope)
    assert np.linalg.norm(slope) < 1e-13
    return task, w, float(task.losses(w))


@dataclass(frozen=True)
class Measured:
    """Mean and standard error of the excess loss over the iterates, the largest weight and distance."""

    excess: float
    error: float
    largest: float
    radius: float
    final: np.ndarray


def simulate(text, rounding, *, eta, steps, dimension=3, runs=12, seed=0, gradients=None):
    """Train `runs` times from zero, with weights stored on a format, and gradients on another if given."""
    task, optimum, least = logistic(dimension)
    rng = np.random.default_rng(seed)
    fmt, stochastic = parse_format(text), Rounding.parse(rounding).is_stochastic
    key = {"rounding": rounding, "seed": seed if stochastic else None}
    w = np.zeros((runs, dimension))
    sums, largest, radius = np.zeros(runs), 0.0, 0.0
    for step in range(steps):
        sums += task.losses(w) - least
        radius = max(radius, float(np.linalg.norm(w - optimum, axis=1).max()))
        g = task.gradients(w, rng.integers(len(task.z), size=runs)).astype(np.float32)
        if gradients is not None:
            g = cast(g, gradients, **key, stream=2 * step + 1)
        largest = max(largest, float(abs(w - np.float32(eta) * g.astype(np.float64)).max()))
        if isinstance(fmt, FixedFormat):
            w = cast(w - eta * g.astype(np.float64), fmt, **key, stream=2 * step)
        else:
            w = axpy(-eta, g, w.astype(np.float32), fmt, **key, stream=2 * step).astype(np.float64)
    means = sums / steps
    return Measured(
        excess=float(means.mean()),
        error=float(means.std(ddof=1) / math.sqrt(runs)),
        largest=largest,
        radius=radius,
        final=w,
    )


def bound_of(text, rounding, measured, *, eta, steps, dimension=3, gradients=None):
    """Bound for a run; float spacings by the largest weight that there was before a rounding."""
    task, optimum, _ = logistic(dimension)
    fmt = parse_format(text)
    largest = measured.largest if isinstance(fmt, FloatFormat) else None
    if largest is not None and not fmt.has_infinity:
        largest = min(largest, fmt.max)  # what saturates comes no further from the minimiser
    graded = None
    if gradients is not None:
        graded = rounding_error(gradients, rounding, dimension=dimension)
    return excess_loss_bound(
        eta,
        steps=steps,
        distance=float(np.linalg.norm(optimum)),
        gradient_norm=task.gradient_norm,
        storage_error=rounding_error(text, rounding, dimension=dimension, largest=largest),
        gradient_error=graded,
        radius=measured.radius,
    )


def check(text, rounding, **setting):
    runs = {key: setting[key] for key in ("runs", "seed") if key in setting}
    shared = {key: value for key, value in setting.items() if key not in runs}
    measured = simulate(text, rounding, **shared, **runs)
    bound = bound_of(text, rounding, measured, **shared)
    assert measured.excess + 3 * measured.error < bound
    return measured, bound


# The minimiser must lie in the box of a format: its components are below 8.
FORMATS = ("s3.2", "s3.4", "s3.8", "s3.12", "e4m3fn", "e5m2", "e4m3noneb12", "e3m4", "e8m7", "e6m9", "e8m23")


@pytest.mark.parametrize("text", FORMATS)
@pytest.mark.parametrize("rounding", ["nearest-even", "stochastic"])
def test_the_measured_loss_lies_under_the_bound(text, rounding):
    check(text, rounding, eta=0.125, steps=400)


@pytest.mark.parametrize("rounding", ["nearest-even", "stochastic"])
def test_rounded_gradients_too(rounding):
    check("s3.8", rounding, eta=0.125, steps=400, gradients="s0.3")


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        *(f"s3.{bits}" for bits in range(15)),
        *(f"e{exponent}m{fraction}" for exponent in (4, 5, 6, 8) for fraction in range(1, 11)),
        *("e6m9-flush", "binary8p3", "binary8p4", "e4m3fnuz", "dlfloat16", "e4m3noneb12", "e3m5noneb4"),
    ],
)
@pytest.mark.parametrize("rounding", ["nearest-even", "stochastic", "stochastic:4", "toward-zero"])
@pytest.mark.parametrize("eta", [0.5, 0.03])
@pytest.mark.parametrize("gradients", [None, "s0.5"])
def test_the_measured_loss_lies_under_the_bound_of_many_formats(text, rounding, eta, gradients):
    check(text, rounding, eta=eta, steps=1500, gradients=gradients, seed=1)


@pytest.mark.parametrize(("text", "eta", "steps"), [("s3.5", None, 6000), ("e8m7", 2.0**-8, 9000)])
def test_nearest_stalls_where_stochastic_goes_on_as_the_bounds_say(text, eta, steps):
    task, optimum, least = logistic(2)
    if eta is None:  # no update is half a step
        eta = 0.9 * float(stall_threshold(np.zeros(1), text)[0]) / task.gradient_norm
    setting = {"eta": eta, "steps": steps, "dimension": 2, "runs": 8}
    nearest, loose = check(text, "nearest-even", **setting)
    stochastic, tight = check(text, "stochastic", **setting)
    # The bound of stochastic rounding lies below where nearest rounding stands, and that below its own.
    assert stochastic.excess < tight < nearest.excess < loose
    assert np.linalg.norm(nearest.final, axis=1).max() < 0.3 * np.linalg.norm(optimum)
    assert np.linalg.norm(stochastic.final, axis=1).min() > 0.6 * np.linalg.norm(optimum)
    if text == "s3.5":
        assert (nearest.final == 0).all()  # where it started
        assert nearest.excess == pytest.approx(math.log(2) - least, rel=1e-12)


def from_the_minimum(eta, storage, *, runs=500, steps=900):
    """Excess loss of ``w**2 / 2`` that noise of gradients, of variance 1/4, and storage sustain."""
    rng = np.random.default_rng(0)
    w, total = np.zeros(runs), 0.0
    for step in range(steps):
        w = storage(w - eta * (w + 0.5 * rng.choice([-1.0, 1.0], runs)), step)
        total += float(np.mean(w**2)) / 2 if step >= steps // 3 else 0.0
    return total / (steps - steps // 3)


def test_storage_errors_grow_as_steps_shrink_so_that_one_step_size_is_best():
    size = 0.01
    rng = np.random.default_rng(1)
    error = ErrorBound(variance=size**2)
    best = best_step_size(steps=10**9, distance=0.0, gradient_norm=0.5, storage_error=error).step_size
    excess = {}
    for factor in (0.25, 1.0, 4.0):
        excess[factor] = from_the_minimum(
            factor * best, lambda w, _: w + size * rng.choice([-1.0, 1.0], w.size)
        )
        # G**2 = E w**2 + 1/4, and E w**2 is what was measured.
        norm = math.sqrt(2 * excess[factor] + 0.25)
        setting = {"steps": 10**9, "distance": 0.0, "gradient_norm": norm, "storage_error": error}
        assert excess[factor] < excess_loss_bound(factor * best, **setting) < 3 * excess[factor]
    assert excess[1.0] < 0.7 * min(excess[0.25], excess[4.0])


def test_rounded_updates_to_values_of_the_format_err_less_the_smaller_they_are():
    step = 2.0**-6
    for eta in (0.03, 0.003):
        excess = from_the_minimum(eta, lambda w, k: cast(w, "s3.6", rounding="stochastic", seed=3, stream=k))
        norm = math.sqrt(2 * excess + 0.25)
        bounds = [
            excess_loss_bound(
                eta,
                steps=10**9,
                distance=0.0,
                gradient_norm=norm,
                storage_error=rounding_error("s3.6", "stochastic", dimension=1, update_norm=update_norm),
            )
            for update_norm in (None, eta * norm)
        ]
        assert excess < bounds[1] <= bounds[0]
    assert bounds[1] < 3 * excess
    assert bounds[1] < bounds[0] / 2
    assert rounding_error("s3.6", "stochastic", dimension=4, update_norm=0.001).variance == 2 * step * 0.001
    assert rounding_error("s3.6", "stochastic:8", dimension=4, update_norm=0.001).variance == step**2


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: excess_loss_bound(0.0, **problem()),
            ValueError,
            r"step_size must be positive and finite, got 0\.0",
        ),
        (
            lambda: excess_loss_bound(np.array([0.1, np.nan]), **problem()),
            ValueError,
            r"step_size must be positive and finite, got \[0\.1 nan\]",
        ),
        (lambda: best_step_size(**problem(steps=0)), ValueError, "steps must be at least 1, got 0"),
        (lambda: best_step_size(**problem(steps=1.5)), TypeError, r"steps must be an integer, got 1\.5"),
        (
            lambda: best_step_size(**problem(distance=-1.0)),
            ValueError,
            r"distance must be finite and not negative, got -1\.0",
        ),
        (
            lambda: best_step_size(**problem(gradient_norm=0.0)),
            ValueError,
            r"gradient_norm must be positive, got 0\.0",
        ),
        (
            lambda: best_step_size(**problem(storage_error=ErrorBound(bias=0.5))),
            ValueError,
            r"radius must be given, for storage_error has a bias of 0\.5",
        ),
        (
            lambda: best_step_size(**problem(gradient_error=0.5)),
            TypeError,
            r"gradient_error must be an ErrorBound, got 0\.5",
        ),
        (
            lambda: ErrorBound(variance=-1.0),
            ValueError,
            r"variance must be finite and not negative, got -1\.0",
        ),
        (
            lambda: rounding_error("e4m3fn", "stochastic", dimension=3),
            ValueError,
            "largest or norm must be given for the float format e4m3fn",
        ),
        (
            lambda: rounding_error("s0.7", "stochastic", dimension=3, largest=1.0),
            ValueError,
            r"largest must be at most 0\.9921875, the end of s0\.7, got 1\.0",
        ),
        (lambda: rounding_error("mxfp4", "stochastic", dimension=3), ValueError, "got 'mxfp4'"),
        (lambda: rounding_error("s0.7", "sideways", dimension=3), ValueError, "got 'sideways'"),
        (
            lambda: rounding_error("s0.7", "up", dimension=0),
            ValueError,
            "dimension must be at least 1, got 0",
        ),
        (
            lambda: stall_threshold(np.array([1.0, 1.01]), "e4m3fn"),
            ValueError,
            r"values must be on the format e4m3fn, got 1\.01",
        ),
    ],
)
def test_errors_name_the_value(call, error, message):
    with pytest.raises(error, match=message):
        call()
