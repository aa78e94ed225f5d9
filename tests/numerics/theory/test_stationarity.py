"""Pflug's test by hand, and its drift against seeded simulations and against exact second moments."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numerics.theory.stationarity import (
    PflugTest,
    gaussian_drift,
    gaussian_stationary_drift,
    heavy_ball_drift,
    stationary_drift,
)


def alarms(test, gradients, step_size=None):
    return [
        index for index, gradient in enumerate(gradients) if test.update(np.atleast_1d(gradient), step_size)
    ]


def reference(gradients, burn_in):
    """The loop of the reference, with its halving left out: indices of the alarms."""
    found, k, total, last = [], 0, Fraction(0), None
    for index, gradient in enumerate(map(Fraction, gradients)):
        k += 1
        if k > burn_in + 1:
            total += gradient * last
        last = gradient
        if k > burn_in + 1 and total < 0:
            found.append(index)
            k, total, last = 0, Fraction(0), None
    return found


@given(gradients=st.lists(st.integers(-5, 5).map(lambda n: n / 4), max_size=60), burn_in=st.integers(0, 6))
def test_alarms_are_those_of_the_algorithm_as_published(gradients, burn_in):
    test = PflugTest(burn_in)
    found = alarms(test, gradients)
    assert found == reference(gradients, burn_in)
    assert test.alarms == len(found)


def test_by_hand():
    test = PflugTest(1)
    # Products 2, 3, -6 of which the first is burnt in: S is 3, then -3.
    assert alarms(test, [1.0, 2.0, 1.5, -4.0]) == [3]
    assert (test.statistic, test.count, test.alarms) == (0.0, 0, 1)
    # The burn-in begins anew, and nothing is left of the gradients before.
    assert alarms(test, [5.0, -5.0, 5.0]) == [2]


def test_gradients_may_come_in_parts_of_any_shape_and_dtype():
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(40, 12)).astype(np.float32)
    one, several = PflugTest(2), PflugTest(2)
    for g in whole:
        parts = (part for part in (g[:6].reshape(2, 3).astype(np.float64), g[6:7].reshape(()), g[7:]))
        assert one.update(g) == several.update(parts)
        assert several.statistic == pytest.approx(one.statistic, abs=1e-12)
    assert one.alarms == several.alarms > 0


def test_products_of_narrow_gradients_are_summed_in_float64():
    test = PflugTest()
    big = np.full(3, 60000.0, np.float16)  # its square is no float16
    small = np.full(3, 2.0**-24, np.float16)
    test.update(big)
    test.update(big)
    assert test.statistic == 3 * 59968.0**2 or test.statistic == 3 * float(big[0]) ** 2
    before = test.statistic
    test.update(small)
    assert test.statistic - before == 3 * float(big[0]) * 2.0**-24


def test_gradients_are_copied():
    test, g = PflugTest(), np.ones(3)
    test.update(g)
    g *= -1.0  # the caller's own array
    assert test.update(g)


def test_none_is_a_gradient_of_zero():
    test = PflugTest()
    one = np.array([1.0])
    for parts, total in (
        ([one, one], 0.0),
        ([one, None], 1.0),
        ([one, one], 2.0),
        ([None, -one], 1.0),
        ([one, -one], 2.0),
    ):
        test.update(parts)
        assert test.statistic == total


def test_another_step_size_starts_the_test_anew():
    test = PflugTest()
    assert alarms(test, [1.0, 1.0], 0.1) == []
    assert test.count == 1
    assert alarms(test, [-9.0], 0.05) == []
    assert test.count == 0
    assert alarms(test, [9.0], 0.05) == [0]
    # Not given, it has not changed.
    assert alarms(test, [1.0], 0.05) == alarms(test, [1.0]) == alarms(test, [1.0], 0.05) == []
    assert test.count == 2


def test_a_skipped_gradient_breaks_the_pair_and_keeps_the_sum():
    test = PflugTest()
    alarms(test, [1.0, 1.0])
    test.skip()
    assert alarms(test, [-9.0]) == []
    assert (test.statistic, test.count) == (1.0, 1)
    assert alarms(test, [9.0]) == [0]


def test_a_least_count_delays_the_alarm():
    gradients = [1.0, -1.0, 1.0, -1.0, 1.0, -1.0]
    assert alarms(PflugTest(min_count=1), gradients[:2]) == [1]
    assert alarms(PflugTest(min_count=4), gradients) == [4]
    # By then the sum may be positive again.
    assert alarms(PflugTest(min_count=2), [1.0, -1.0, -3.0]) == []


def test_the_band_is_in_standard_errors_of_the_mean():
    rng = np.random.default_rng(1)
    gradients = rng.normal(size=50) * 0.3 + np.where(np.arange(50) % 2, 0.6, -0.6)
    products = gradients[1:] * gradients[:-1]
    for band in (1.0, 3.0, 5.0):
        sums = [
            (products[:n].mean(), products[:n].std(ddof=1) / math.sqrt(n))
            for n in range(2, products.size + 1)
        ]
        expected = next((n for n, (mean, error) in enumerate(sums, start=2) if mean < -band * error), None)
        found = alarms(PflugTest(band=band), gradients)
        assert found[:1] == ([] if expected is None else [expected])


def test_one_product_has_no_standard_error():
    test = PflugTest(band=1e-9)
    assert alarms(test, [1.0, -1.0]) == []
    assert test.deviation == math.inf
    assert alarms(test, [1.01]) == [0]


def test_it_goes_on_from_its_state():
    rng = np.random.default_rng(2)
    gradients = rng.normal(size=(60, 2))
    whole, first = PflugTest(3, min_count=2, band=0.5), PflugTest(3, min_count=2, band=0.5)
    expected = [whole.update([g, None], 0.1) for g in gradients]
    found = [first.update([g, None], 0.1) for g in gradients[:31]]
    second = PflugTest(3, min_count=2, band=0.5)
    state = first.state_dict()
    second.load_state_dict(state)
    first.update([gradients[0], None], 0.1)  # the state is no view
    found += [second.update([g, None], 0.1) for g in gradients[31:]]
    assert found == expected
    assert second.alarms == whole.alarms > 0
    with pytest.raises(ValueError, match=r"state must have the keys alarms, .*, got alarms"):
        second.load_state_dict({"alarms": 1})


@pytest.mark.parametrize("momentum", [0.5, 0.9, 0.99, 1.0])
def test_a_momentum_without_power_is_refused_with_the_reason(momentum):
    with pytest.raises(ValueError, match=rf"momentum must be in \[0, 1/2\), got {momentum}: .* probe"):
        PflugTest(momentum=momentum)


def test_a_momentum_below_one_half_is_taken():
    assert PflugTest(momentum=0.49).momentum == 0.49


# Drift


def mean_and_error(per_chain):
    """Of chains that are independent."""
    return float(per_chain.mean()), float(per_chain.std(ddof=1) / math.sqrt(per_chain.size))


def least_squares_chains(p, gamma, *, chains, burn_in, steps, seed):
    """Products of successive gradients of SGD on least squares, noise 1: means by chain.

    Two estimates: ``g_2 . g_1`` itself, and ``u_1 . g_1``, its mean over the second sample, which
    scatters far less.
    """
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(chains, p)) * math.sqrt(gamma / 2)
    last, sums, smooth = None, np.zeros(chains), np.zeros(chains)
    for step in range(burn_in + steps):
        x = rng.normal(size=(chains, p))
        g = x * ((x * u).sum(axis=1) - rng.normal(size=chains))[:, None]
        if last is not None and step >= burn_in:
            sums += (g * last).sum(axis=1)
            smooth += (u * last).sum(axis=1)
        last, u = g, u - gamma * g
    return sums / steps, smooth / steps


def test_the_stationary_drift_of_least_squares_is_as_simulated():
    expected = gaussian_stationary_drift(0.01, 10)
    assert expected == pytest.approx(-0.05319, abs=5e-6)
    assert stationary_drift(0.01, np.eye(10)) == pytest.approx(-0.05, rel=1e-12)
    plain, smooth = least_squares_chains(10, 0.01, chains=1000, burn_in=300, steps=1200, seed=0)
    mean, error = mean_and_error(plain)
    assert error < 0.008
    assert abs(mean - expected) < 4 * error
    mean, error = mean_and_error(smooth)
    assert error < 0.0006
    assert abs(mean - expected) < 4 * error
    assert abs(mean - stationary_drift(0.01, np.eye(10))) > 4 * error  # the digits beyond the first order


@pytest.mark.slow
def test_the_stationary_drift_of_least_squares_is_as_simulated_at_length():
    plain, smooth = least_squares_chains(10, 0.01, chains=4000, burn_in=600, steps=8000, seed=1)
    for per_chain, limit in ((plain, 0.0012), (smooth, 0.0002)):
        mean, error = mean_and_error(per_chain)
        assert error < limit
        assert abs(mean - gaussian_stationary_drift(0.01, 10)) < 4 * error


def heavy_ball_chains(beta, gamma, *, chains, burn_in, steps, seed):
    rng = np.random.default_rng(seed)
    w = before = np.zeros(chains)
    last, sums = None, np.zeros(chains)
    for step in range(burn_in + steps):
        g = w + rng.normal(size=chains)
        if last is not None and step >= burn_in:
            sums += g * last
        w, before = w - gamma * g + beta * (w - before), w
        last = g
    return sums / steps


@pytest.mark.parametrize(
    ("beta", "value"), [(0.0, -0.02564), (0.45, -0.00534), (0.55, 0.00464), (0.9, 0.19667)]
)
def test_the_drift_of_the_heavy_ball_is_as_simulated(beta, value):
    expected = heavy_ball_drift(0.05, beta)
    assert expected == pytest.approx(value, abs=5e-6)
    mean, error = mean_and_error(heavy_ball_chains(beta, 0.05, chains=8000, burn_in=250, steps=250, seed=0))
    assert error < 0.0015
    assert abs(mean - expected) < 4 * error
    assert np.sign(mean) == np.sign(value)
    assert abs(mean) > 3 * error  # the sign is no chance


def moments(matrix, noise):
    """Stationary covariance of ``s' = A s + b xi`` as exact Fractions: ``P = A P A^T + b b^T``."""
    n = len(matrix)
    pairs = [(i, j) for i in range(n) for j in range(n)]
    rows = [
        [
            Fraction(int(pair == other)) - matrix[pair[0]][other[0]] * matrix[pair[1]][other[1]]
            for other in pairs
        ]
        + [noise[pair[0]] * noise[pair[1]]]
        for pair in pairs
    ]
    for column in range(len(pairs)):  # Gauss and Jordan
        pivot = next(r for r in range(column, len(pairs)) if rows[r][column] != 0)
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [v / rows[column][column] for v in rows[column]]
        for r in range(len(pairs)):
            if r != column and rows[r][column] != 0:
                factor = rows[r][column]
                rows[r] = [a - factor * b for a, b in zip(rows[r], rows[column], strict=True)]
    return {pair: rows[index][-1] for index, pair in enumerate(pairs)}


def exact_drift(gamma, beta, h, *, own=Fraction(1), carried=None):
    """``E g_2 g_1`` of ``v' = beta v + own_share g``, ``w' = w - gamma (own g + carried v')``.

    The heavy ball is ``w' = w - gamma v'``; Nesterov's ``w' = w - gamma (g + beta v')``.
    """
    a, b = (Fraction(0), Fraction(1)) if carried is None else carried
    # State (w, v), g = h w + xi: v' = beta v + own (h w + xi), w' = w - gamma (a (h w + xi) + b v').
    v = [own * h, beta, own]
    w = [1 - gamma * (a * h + b * v[0]), -gamma * b * v[1], -gamma * (a + b * v[2])]
    p = moments([w[:2], v[:2]], [w[2], v[2]])
    # g_2 = h w' + xi', g_1 = h w + xi: h E[w' (h w + xi)].
    return h * (w[0] * h * p[0, 0] + w[1] * h * p[0, 1] + w[2])


def nearly(value):
    return Fraction(value).limit_denominator(1000)


@given(
    gamma=st.floats(0.01, 0.9).map(nearly),
    beta=st.floats(0, 0.95).map(nearly),
    h=st.floats(0.1, 2).map(nearly),
)
def test_the_drift_of_the_heavy_ball_is_that_of_its_exact_moments(gamma, beta, h):
    expected = float(exact_drift(gamma, beta, h))
    found = heavy_ball_drift(float(gamma), float(beta), curvature=float(h))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_sign_turns_at_one_half_for_small_steps_and_later_for_nesterov():
    gamma, h = Fraction(1, 1000), Fraction(1)

    def nesterov(beta):
        return exact_drift(gamma, beta, h, carried=(Fraction(1), beta))

    def averaged(beta):  # as Adam's first moment
        return exact_drift(gamma, beta, h, own=1 - beta)

    for sign, below, above in (
        (heavy_ball_drift, 0.499, 0.51),
        (averaged, 0.499, 0.51),
        (nesterov, 0.70, 0.71),
    ):
        if sign is heavy_ball_drift:
            assert sign(0.001, below) < 0 < sign(0.001, above)
        else:
            assert sign(nearly(below)) < 0 < sign(nearly(above))
    for beta in (nearly(0.2), nearly(0.8)):
        first_order = gamma * (1 / (2 * (1 - beta)) - 1)
        assert heavy_ball_drift(0.001, float(beta)) == pytest.approx(float(first_order), rel=0.01)
        assert float(averaged(beta)) == pytest.approx(float(first_order * (1 - beta)), rel=0.01)


def normal_nodes(matrix):
    """Gauss-Hermite nodes of three points a coordinate: exact for fourth moments of normal x."""
    p = len(matrix)
    root = np.linalg.cholesky(matrix)
    nodes, weights = np.array([-math.sqrt(3), 0.0, math.sqrt(3)]), np.array([1 / 6, 2 / 3, 1 / 6])
    grid = np.stack(np.meshgrid(*[nodes] * p, indexing="ij"), axis=-1).reshape(-1, p) @ root.T
    shares = np.prod(np.stack(np.meshgrid(*[weights] * p, indexing="ij"), axis=-1).reshape(-1, p), axis=1)
    return grid, shares


def test_the_drift_from_a_point_is_the_mean_over_all_pairs_of_samples():
    matrix = np.array([[1.0, 0.3, 0.0], [0.3, 0.5, -0.2], [0.0, -0.2, 2.0]])
    u, gamma, noise = np.array([0.7, -1.0, 0.2]), 0.07, 0.6
    x, shares = normal_nodes(matrix)
    assert np.einsum("n,ni,nj->ij", shares, x, x) == pytest.approx(matrix)
    total = 0.0
    for e in (-math.sqrt(noise), math.sqrt(noise)):  # g_1 is of degree 1 in e, and twice in the product
        g = x * (x @ u - e)[:, None]
        after = u - gamma * g
        total += 0.5 * float(np.einsum("n,ni,ij,nj->", shares, g, matrix, after))
    assert gaussian_drift(gamma, matrix, u, noise_variance=noise) == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize(("p", "gamma"), [(1, 0.3), (4, 0.1), (10, 0.01)])
def test_at_rest_the_drift_from_a_point_has_the_stationary_mean(p, gamma):
    # E u u^T = v I is at rest when one step leaves it; the drift is linear in it.
    v = 0.0
    for _ in range(20_000):
        v += -2 * gamma * v + gamma**2 * ((p + 2) * v + 0.5)
    single = gaussian_drift(gamma, np.eye(p), np.eye(p)[0], noise_variance=0.5)
    from_rest = gaussian_drift(gamma, np.eye(p), np.zeros(p), noise_variance=0.5)
    mean = from_rest + p * v * (single - from_rest)
    assert gaussian_stationary_drift(gamma, p, noise_variance=0.5) == pytest.approx(mean, rel=1e-9)


def test_the_first_order_is_what_small_steps_tend_to():
    matrix = np.diag([1.0, 0.2, 0.7])
    for h in np.diag(matrix):
        assert heavy_ball_drift(1e-6, 0.0, curvature=h) == pytest.approx(
            stationary_drift(1e-6, np.array([[h]]), noise_variance=1 / h), rel=1e-5
        )
    parts = [stationary_drift(0.1, np.array([[h]])) for h in np.diag(matrix)]
    assert stationary_drift(0.1, matrix) == pytest.approx(sum(parts), rel=1e-12)
    assert gaussian_stationary_drift(1e-6, 3) == pytest.approx(stationary_drift(1e-6, np.eye(3)), rel=1e-4)


# The test on runs


def time_to_alarm(start, *, gamma=0.02, p=5, limit=4000, seed=0, **options):
    """Steps until the first alarm of SGD on ``|u|**2 / 2`` with additive noise, and ``|u|**2`` then."""
    rng = np.random.default_rng(seed)
    test = PflugTest(**options)
    u = np.full(p, start / math.sqrt(p))
    for step in range(limit):
        g = u + rng.normal(size=p)
        if test.update(g, gamma):
            return step, float(u @ u)
        u = u - gamma * g
    return limit, float(u @ u)


def test_an_alarm_comes_after_the_descent_and_not_in_it():
    at_rest = 0.02 * 5 / (2 - 0.02)  # E |u|**2
    for seed in range(8):
        # Time constant 50 steps: the squared distance of 400 falls below that at rest in about 200.
        step, square = time_to_alarm(20.0, seed=seed, burn_in=250, min_count=50)
        assert 300 <= step < 4000
        assert square < 6 * at_rest
    # In the descent there is none, and what it adds to S, 400 / 0.04, is not worked off soon.
    assert all(time_to_alarm(20.0, seed=seed) == (4000, pytest.approx(0, abs=1)) for seed in range(4))


def test_chance_alarms_at_rest_are_early_and_a_band_or_a_count_delays_them():
    plain = [time_to_alarm(0.05, seed=seed)[0] for seed in range(30)]
    counted = [time_to_alarm(0.05, seed=seed, min_count=100)[0] for seed in range(30)]
    both = [time_to_alarm(0.05, seed=seed, min_count=100, band=1.0)[0] for seed in range(30)]
    assert np.median(plain) < 10
    assert min(counted) >= 100
    assert np.median(counted) < np.median(both) < 4000


def test_with_much_momentum_the_sum_grows_at_rest():
    sums = [
        heavy_ball_chains(beta, 0.05, chains=400, burn_in=250, steps=1500, seed=3) * 1500
        for beta in (0.0, 0.9)
    ]
    assert np.mean(sums[0] < 0) > 0.7
    assert np.mean(sums[1] > 0) > 0.95


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: PflugTest(-1), ValueError, "burn_in must be at least 0, got -1"),
        (lambda: PflugTest(1.5), TypeError, r"burn_in must be an integer, got 1\.5"),
        (lambda: PflugTest(min_count=0), ValueError, "min_count must be at least 1, got 0"),
        (lambda: PflugTest(band=-1.0), ValueError, r"band must be finite and not negative, got -1\.0"),
        (lambda: PflugTest(momentum=-0.1), ValueError, r"momentum must be in \[0, 1/2\), got -0\.1"),
        (lambda: PflugTest(momentum=math.nan), ValueError, r"momentum must be in \[0, 1/2\), got nan"),
        (
            lambda: PflugTest().update(np.array([1.0, math.inf])),
            ValueError,
            "gradient must be finite, got inf at 0",
        ),
        (lambda: PflugTest().update([1.0]), TypeError, "arrays of real numbers or None, got float at 0"),
        (
            lambda: PflugTest().update([None, np.ones(1, complex)]),
            TypeError,
            "arrays of real numbers or None, got complex128 at 1",
        ),
        (lambda: PflugTest().update([None]), ValueError, "gradient must have at least one array, got none"),
        (
            lambda: PflugTest().update(np.ones(1), 0.0),
            ValueError,
            r"step_size must be positive and finite, got 0\.0",
        ),
        (lambda: stationary_drift(0.1, np.ones((2, 3))), ValueError, r"shape \(p, p\), got \(2, 3\)"),
        (lambda: stationary_drift(0.1, np.array([[1.0, 2.0], [0.0, 1.0]])), ValueError, "symmetric"),
        (
            lambda: stationary_drift(-0.1, np.eye(2)),
            ValueError,
            r"step_size must be positive and finite, got -0\.1",
        ),
        (
            lambda: stationary_drift(0.1, np.eye(2), noise_variance=-1.0),
            ValueError,
            r"noise_variance must be finite and not negative, got -1\.0",
        ),
        (
            lambda: gaussian_drift(0.1, np.eye(2), np.ones(3)),
            ValueError,
            r"displacement must be of shape \(2,\), got \(3,\)",
        ),
        (
            lambda: gaussian_stationary_drift(0.5, 2),
            ValueError,
            r"step_size must be below 0\.5 to come to rest, got 0\.5",
        ),
        (lambda: heavy_ball_drift(0.1, 1.0), ValueError, r"momentum must be in \[0, 1\), got 1\.0"),
        (
            lambda: heavy_ball_drift(0.1, 0.5, curvature=0.0),
            ValueError,
            r"curvature must be positive and finite, got 0\.0",
        ),
        (
            lambda: heavy_ball_drift(1.5, 0.5, curvature=2.0),
            ValueError,
            r"step_size must be below 1\.5 to come to rest, got 1\.5",
        ),
    ],
)
def test_errors_name_the_value(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_gradients_of_another_shape_or_number_are_an_error():
    test = PflugTest()
    test.update([np.ones(2), np.ones(3)])
    with pytest.raises(ValueError, match="gradient must have 2 arrays as before, got 1"):
        test.update(np.ones(2))
    with pytest.raises(ValueError, match=r"gradient must be of shape \(3,\) as before at 1, got \(4,\)"):
        test.update([np.ones(2), np.ones(4)])
