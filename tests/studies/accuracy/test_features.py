import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import matmul
from studies.accuracy.features import _binade_noise, _change, feature_names, features_of
from studies.accuracy.model import COMPARED
from studies.accuracy.policies import NumericsChoice, drawn
from studies.accuracy.statistics import HIGH, LOW, Binades, Changes, Product, TaskStatistics, known


def rounded(x, exp_bits, frac_bits):
    """The oracle: to nearest, saturating, by the definition."""
    bias = 2 ** (exp_bits - 1) - 1
    exponent = np.maximum(np.frexp(x)[1] - 1, 1 - bias)
    ulp = np.ldexp(1.0, exponent - frac_bits)
    largest = (2.0 - 2.0**-frac_bits) * 2.0**bias
    return np.clip(np.rint(x / ulp) * ulp, -largest, largest)


def binades(x):
    places = np.clip(np.frexp(np.abs(x[x != 0]))[1] - 1 - LOW, 0, HIGH - LOW - 1)
    energy = np.bincount(places, x[x != 0] ** 2, HIGH - LOW)
    counts = np.bincount(places, minlength=HIGH - LOW)
    return Binades(
        shares=np.bincount(places, minlength=HIGH - LOW) / x.size,
        energy=energy / energy.sum(),
        squares=np.where(counts > 0, energy / 4.0 ** np.arange(LOW, HIGH) / np.maximum(counts, 1), 7 / 3),
        log2_rms=float(np.log2(np.sqrt(np.mean(x**2)))),
        log2_max=float(np.log2(np.abs(x).max())),
    )


def one_product(a, b, role="forward"):
    """Statistics of a task that is a single product of Gaussian matrices."""
    length = a.shape[1]
    exact = a @ b
    product = Product(
        layer="fc",
        role=role,
        rows=len(a),
        length=length,
        columns=b.shape[1],
        density=1.0,
        log2_term=float(np.log2(np.sqrt(np.mean(a**2) * np.mean(b**2)))),
        log2_sum=float(np.log2(np.sqrt(np.mean(exact**2)))),
        log2_max=float(np.log2(np.abs(exact).max())),
    )
    changes = np.zeros((HIGH - LOW, HIGH - LOW))
    changes[-3 - LOW, -10 - LOW] = 1.0
    tensors = {("fc", "activation"): binades(a), ("fc", "weight"): binades(b), ("fc", "error"): binades(a)}
    return TaskStatistics(
        task="one product",
        twin_curve=((0.5, 0.8), (1.0, 0.9)),
        guess_accuracy=0.1,
        steps=100,
        tensors=tensors,
        products=tuple(
            Product(**{**{f: getattr(product, f) for f in Product.__slots__}, "role": role})
            for role in ("forward", "backward", "gradient")
        ),
        weights=binades(b),
        updates=Changes(energy=changes, log2_rms=-10.0),
        momenta=Changes(energy=changes, log2_rms=-10.0),
    )


RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(48, 256)), 0.1 * RNG.normal(size=(256, 48))
TASK = one_product(A, B)


@pytest.mark.parametrize(("exp_bits", "frac_bits"), [(5, 2), (4, 3), (3, 2), (2, 1), (6, 7)])
def test_noise_of_operands_is_that_of_rounding_them(exp_bits, frac_bits):
    choice = NumericsChoice(forward_exp_bits=exp_bits, forward_frac_bits=frac_bits)
    measured = sum(np.sum((rounded(x, exp_bits, frac_bits) - x) ** 2) / np.sum(x**2) for x in (A, B))
    found = 10 ** features_of(TASK, choice)["forward_operand_worst"]
    assert found == pytest.approx(min(1.0, measured), rel=0.15)


@pytest.mark.parametrize(("frac_bits", "chunk"), [(5, 0), (7, 0), (7, 16), (9, 64)])
def test_noise_of_sums_is_that_of_emulated_ones(frac_bits, chunk):
    choice = NumericsChoice(
        forward_exp_bits=6, forward_frac_bits=4, accumulator_frac_bits=frac_bits, chunk=chunk
    )
    a, b = rounded(A, 6, 4).astype(np.float32), rounded(B, 6, 4).astype(np.float32)
    exact = a.astype(np.float64) @ b
    error = matmul(a, b, choice.accumulator) - exact
    measured = np.sum(error**2) / np.sum(exact**2)
    found = 10 ** features_of(TASK, choice)["forward_accumulator_worst"]
    assert found == pytest.approx(measured, rel=0.5)


def test_terms_below_the_register_are_lost():
    # Products of about 2**-3.3; a register whose least number is 2**-1 keeps nothing of most of them.
    small = NumericsChoice(accumulator_exp_bits=2, accumulator_frac_bits=1, forward_exp_bits=6)
    assert 10 ** features_of(TASK, small)["forward_accumulator_worst"] == 1.0


def test_noise_in_the_normal_range_is_known_in_closed_form():
    # A step q over numbers uniform in [1, 2): q**2 / 12 of a mean square of 7 / 3.
    fmt = NumericsChoice(forward_exp_bits=6, forward_frac_bits=5).forward
    assert _binade_noise(fmt)[0 - LOW] == pytest.approx(2.0**-10 / 12 / (7 / 3), rel=0.1)
    assert _binade_noise(fmt)[-45 - LOW] == 1.0  # flushed to zero


def test_the_loss_scale_moves_errors_through_their_format():
    # Errors as large as A under 2**-10, scaled by 2**10, are A again; unscaled, those below 1 are flushed.
    shifted = one_product(np.ldexp(A, -10), B)
    narrow = {"backward_exp_bits": 4, "backward_frac_bits": 3}
    plain = features_of(TASK, {**narrow, "loss_scale": 1.0})
    scaled = features_of(shifted, {**narrow, "loss_scale": 1024.0})
    unscaled = features_of(shifted, {**narrow, "loss_scale": 1.0})
    assert scaled["error_flushed_worst"] == pytest.approx(plain["error_flushed_worst"])
    assert unscaled["error_flushed_worst"] > 0.5


def changes(number, change):
    energy = np.zeros((HIGH - LOW, HIGH - LOW))
    energy[number - LOW, change - LOW] = 1.0
    return Changes(energy=energy, log2_rms=float(change))


def test_a_change_below_half_a_unit_rounds_back_to_nearest():
    fmt = NumericsChoice(update_exp_bits=6, update_frac_bits=7).update
    lost, _ = _change(changes(0, -10), fmt, "nearest-even")  # units of 2**-7, changes below 2**-9
    assert lost == 1.0
    lost, _ = _change(changes(0, -3), fmt, "nearest-even")
    assert lost < 0.02


def test_stochastic_rounding_loses_no_change_and_adds_noise():
    fmt = NumericsChoice(update_exp_bits=6, update_frac_bits=7).update
    lost, noise = _change(changes(0, -10), fmt, "stochastic")
    rng = np.random.default_rng(1)
    x = rounded(rng.uniform(1.0, 2.0, 200_000), 6, 7)
    d = rng.choice([-1.0, 1.0], x.size) * rng.uniform(2.0**-10, 2.0**-9, x.size)
    units = (x + d) * 2.0**7
    made = (np.floor(units) + (rng.random(x.size) < units - np.floor(units))) / 2.0**7 - x
    assert lost == 0.0
    assert noise == pytest.approx(np.mean((made - d) ** 2) / np.mean(d**2), rel=0.1)


levels = st.integers(2, 22)


@settings(max_examples=25)
@given(frac_bits=levels)
def test_a_bit_more_never_adds_noise(frac_bits):
    for name in ("forward_frac_bits", "backward_frac_bits", "update_frac_bits"):
        less, more = (features_of(TASK, {name: bits}) for bits in (frac_bits, frac_bits + 1))
        for feature in ("forward_operand_sum", "gradient_operand_sum", "update_noise", "storage_noise"):
            assert more[feature] <= less[feature] + 1e-9


def test_a_wider_register_has_a_larger_margin():
    for exp_bits in range(3, 8):
        less, more = (features_of(TASK, {"accumulator_exp_bits": bits}) for bits in (exp_bits, exp_bits + 1))
        assert more["gradient_overflow_margin"] >= less["gradient_overflow_margin"]


def test_features_are_finite_and_have_stable_names():
    names = feature_names()
    assert set(COMPARED) <= set(names)
    for task in known():
        for choice in drawn(12):
            found = features_of(task, choice)
            assert tuple(found) == names
            assert np.isfinite(list(found.values())).all()


def test_features_take_milliseconds():
    choices = drawn(48)
    task = known()["digits-cnn"]
    for choice in choices[:24]:  # what belongs to a format is computed once
        features_of(task, choice)
    begin = time.process_time()
    for choice in choices[24:]:
        features_of(task, choice)
    assert (time.process_time() - begin) / 24 < 0.02


def test_an_unknown_task_is_named():
    with pytest.raises(KeyError, match=r"task must be one of digits-mlp, .*, got 'imagenet'"):
        features_of("imagenet", {})
