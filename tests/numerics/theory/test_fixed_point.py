"""The rules of fixed-point training: the authors' numbers, by hand, and edges."""

import pickle
from fractions import Fraction
from math import floor, ldexp

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numerics import cast
from numerics.theory.assignment import (
    FixedPointAssignment,
    LayerFixedPoint,
    LayerStatistics,
    assign_formats,
    slack,
)
from numerics.theory.fixed_point import (
    FixedPoint,
    accumulator_format,
    activation_gradient_format,
    feedforward_bits,
    full_adders,
    least_bits,
    mismatch_bound,
    power_of_two_above,
    power_of_two_below,
    weight_gradient_format,
)


def statistics(**changes):
    """A layer without peculiarities: W in [-1, 1), A in [0, 2), both of span 2."""
    values = {
        "weight_gain": 4.0,
        "activation_gain": 1.0,
        "weight_max": 1.0,
        "activation_max": 2.0,
        "activation_signed": False,
        "weight_gradient_sigma": (0.001, 0.1),
        "activation_gradient_sigma": (0.001, 0.002),
        "lambda_max": 16.0,
        "products": {"forward": (32, 8), "backward": (64, 4), "gradient": (32, 16)},
    }
    return LayerStatistics(**{**values, **changes})


# ---- The worked check: the first three layers of the authors' residual network for CIFAR-10 ----

# Gains from their published feed-forward analysis; the last activation has the least of all tensors.
WEIGHT_GAINS = [2.40887087e3, 9.80265381e2, 1.22257690e3]
ACTIVATION_GAINS = [5.14728904e-1, 1.28971756e-1, 1.12113886e-1]
LEAST_GAIN = 7.82166724e-4
RANGES = [2.0**-2, 2.0**-4, 2.0**-4]


def test_the_widths_of_the_authors_weights_are_found():
    assert feedforward_bits([*WEIGHT_GAINS, LEAST_GAIN], 3).tolist() == [14, 13, 13, 3]
    assert feedforward_bits([*ACTIVATION_GAINS, LEAST_GAIN], 3).tolist() == [8, 7, 7, 3]


@pytest.mark.parametrize(
    ("weight_bits", "gradient_bits", "gradient_range", "bits"),
    [(14, 11, RANGES[0], 9), (13, 12, RANGES[1], 13), (13, 12, RANGES[2], 13)],
)
def test_the_widths_of_the_authors_accumulators_are_found(weight_bits, gradient_bits, gradient_range, bits):
    weight = FixedPoint.of_bits(1.0, weight_bits)
    gradient = FixedPoint.of_bits(gradient_range, gradient_bits)
    found = accumulator_format(weight, gradient.step, 0.001)
    assert (found.bits, found.range) == (bits, 2.0**-weight_bits)


def test_all_rules_together_give_the_authors_widths():
    # Deviations in the middle of those that give the authors' ranges and steps.
    layers = {
        f"layer{i}": statistics(
            weight_gain=WEIGHT_GAINS[i],
            activation_gain=ACTIVATION_GAINS[i],
            weight_gradient_sigma=(6.0 * step, 0.375 * RANGES[i]),
        )
        for i, step in enumerate((2.0**-12, 2.0**-15, 2.0**-15))
    }
    layers["last"] = statistics(weight_gain=LEAST_GAIN, activation_gain=LEAST_GAIN)
    found = assign_formats(layers, smallest_learning_rate=0.001, min_bits=3)
    rows = [found.layers[f"layer{i}"] for i in range(3)]
    assert [row.weight.bits for row in rows] == [14, 13, 13]
    assert [row.activation.bits for row in rows] == [8, 7, 7]
    assert [row.weight_gradient.bits for row in rows] == [11, 12, 12]
    assert [row.weight_gradient.range for row in rows] == RANGES
    assert [row.accumulator.bits for row in rows] == [9, 13, 13]
    assert found.layers["last"].activation == FixedPoint.of_bits(2.0, 3, signed=False)
    assert found.excluded == ()


# ---- Formats ----

small = st.builds(
    lambda power, bits, signed: FixedPoint.of_bits(2.0**power, bits, signed=signed),
    st.integers(-20, 20), st.integers(1, 12), st.booleans(),
)  # fmt: skip


def nearest(x, fmt):
    """Half away from zero, then the ends, in rationals."""
    step = Fraction(fmt.step)
    size = floor(abs(Fraction(x)) / step + Fraction(1, 2)) * step
    low = -Fraction(fmt.range) if fmt.signed else Fraction(0)
    return float(min(max(-size if x < 0 else size, low), Fraction(fmt.range) - step))


@given(fmt=small, data=st.data())
def test_quantize_rounds_halves_away_and_saturates(fmt, data):
    near = st.floats(-3.0 * fmt.range, 3.0 * fmt.range)
    halves = st.integers(-(3 << fmt.bits), 3 << fmt.bits).map(lambda code: code * fmt.step / 2.0)
    beside = halves.map(lambda x: float(np.nextafter(x, data.draw(st.sampled_from([-np.inf, np.inf])))))
    x = np.array(data.draw(st.lists(near | halves | beside, min_size=1, max_size=20)))
    for values in (x, x.astype(np.float32)):
        found = fmt.quantize(values)
        assert found.dtype == values.dtype
        assert found.tolist() == [nearest(v, fmt) for v in values.tolist()]
        np.testing.assert_array_equal(fmt.quantize(found), found)


@pytest.mark.parametrize("text", ["s0.7", "s3.4", "s0.3", "u2.3", "u0.8"])
def test_quantize_is_the_cast_to_the_fixed_format_of_the_same_name(text):
    x = np.random.default_rng(0).normal(scale=4.0, size=10_000).astype(np.float32)
    x[:2000] = np.round(x[:2000] * 16.0) / 16.0  # ties
    fmt = FixedPoint.parse(text)
    expected = cast(x, text, rounding="nearest-away", overflow="saturate")
    np.testing.assert_array_equal(fmt.quantize(x), expected)


def test_quantize_of_what_is_no_number():
    x = np.array([np.nan, np.inf, -np.inf, -0.0, -1e-9, 0.49999999999999994])
    found = FixedPoint.parse("s2.0").quantize(x)
    np.testing.assert_array_equal(found, [np.nan, 3.0, -4.0, 0.0, 0.0, 0.0])
    assert not np.signbit(found[3:]).any()
    assert FixedPoint.parse("u2.0").quantize(x)[2] == 0.0
    assert FixedPoint.parse("s2.0").quantize(np.empty((0, 3))).shape == (0, 3)


def test_a_format_wider_than_float32_keeps_its_values_in_float32():
    fmt = FixedPoint.of_bits(1.0, 40)
    x = np.array([2.0, 1.0, -2.0, 0.3, 2.0**-60], np.float32)
    found = fmt.quantize(x)
    assert found.dtype == np.float32
    assert found.tolist() == [1.0 - 2.0**-24, 1.0 - 2.0**-24, -1.0, float(np.float32(0.3)), 0.0]


@pytest.mark.parametrize("x", [np.array([1]), np.array([1.0], np.float16), [1.0]])
def test_quantize_takes_floats_only(x):
    with pytest.raises(TypeError, match="x must be a float32 or float64 array, got "):
        FixedPoint.parse("s0.7").quantize(x)


@given(fmt=small)
def test_a_format_has_its_values_and_its_text(fmt):
    values = np.arange(fmt.min, fmt.range, fmt.step)
    assert len(values) == 2**fmt.bits
    assert (values[0], values[-1]) == (fmt.min, fmt.max)
    np.testing.assert_array_equal(fmt.quantize(values), values)
    assert fmt.span == fmt.step * 2**fmt.bits
    assert FixedPoint.parse(str(fmt)) == fmt
    assert FixedPoint.of_bits(fmt.range, fmt.bits, signed=fmt.signed) == fmt


def test_a_binary_point_may_be_outside_the_bits():
    assert str(FixedPoint(range=0.25, step=2.0**-12)) == "s-2.12"
    far = FixedPoint.parse(" S5.-2 ")
    assert (far.range, far.step, far.bits) == (32.0, 4.0, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"range": 3.0, "step": 0.5}, "range must be a power of two in .*, got 3.0"),
        ({"range": 1.0, "step": 0.0}, "step must be a power of two in .*, got 0.0"),
        ({"range": -1.0, "step": 0.5}, "got -1.0"),
        ({"range": float("inf"), "step": 0.5}, "got inf"),
        ({"range": 1.0, "step": float("nan")}, "got nan"),
        ({"range": 2.0**127, "step": 2.0**120}, r"in 2\*\*-126..2\*\*126, got 1.7"),
        ({"range": 0.5, "step": 1.0}, r"1\.\.52 bits, got 0 from range 0.5 and step 1.0"),
        ({"range": 1.0, "step": 1.0, "signed": False}, r"1\.\.52 bits, got 0"),
        ({"range": 1.0, "step": 2.0**-52}, r"1\.\.52 bits, got 53"),
    ],
)
def test_a_bad_format_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        FixedPoint(**arguments)


@pytest.mark.parametrize("text", ["s1", "f1.2", "s1.2.3", "", "s500.0", "s0.-500"])
def test_a_text_that_is_no_format_is_named(text):
    with pytest.raises(ValueError, match=rf"got '{text}'"):
        FixedPoint.parse(text)


# ---- Rules ----

powers = st.integers(-80, 80).map(lambda power: 2.0**power)


@given(power=powers, share=st.floats(1.0, 2.0, exclude_min=True, exclude_max=True))
def test_powers_of_two_around_a_number(power, share):
    assert power_of_two_above(power) == power_of_two_below(power) == power
    assert (power_of_two_below(power * share), power_of_two_above(power * share)) == (power, 2.0 * power)


gain_lists = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8)


@given(gains=gain_lists, mismatch=st.floats(1e-6, 0.5), data=st.data())
def test_least_bits_are_enough_and_one_less_is_not(gains, mismatch, data):
    spans = data.draw(st.lists(st.integers(-8, 8).map(lambda n: 2.0**n), min_size=len(gains), max_size=8))
    spans = spans[: len(gains)]

    def bound(least):
        return sum(
            (span * 2.0 ** -(int(bits))) ** 2 * gain
            for span, gain, bits in zip(
                spans, gains, feedforward_bits(gains, least, spans=spans), strict=True
            )
        )

    found = least_bits(gains, mismatch, spans=spans)
    assert bound(found) <= mismatch * (1 + 1e-12)
    assert found == 2 or bound(found - 1) > mismatch * (1 - 1e-12)


@given(gains=gain_lists, factor=st.sampled_from([0.25, 4.0, 1024.0]))
def test_only_ratios_of_gains_count_and_the_least_tensor_has_the_least_bits(gains, factor):
    bits = feedforward_bits(gains, 5)
    assert bits[np.argmin(gains)] == bits.min() == 5
    assert feedforward_bits(np.array(gains) * factor, 5).tolist() == bits.tolist()
    # A tensor in units half as large has a gain four times as small, and the same bits.
    assert (
        feedforward_bits(np.array(gains) / 4.0, 5, spans=np.full(len(gains), 2.0)).tolist() == bits.tolist()
    )


def test_every_doubling_of_the_span_takes_a_bit_more():
    assert feedforward_bits([1.0, 1.0, 1.0, 16.0], 4, spans=[1.0, 2.0, 8.0, 1.0]).tolist() == [4, 5, 7, 6]


def test_without_spans_the_step_is_that_of_the_paper():
    # 2 * 4**(1 - B) * 3 <= 0.01 from B = 6 on.
    assert least_bits([3.0, 3.0], 0.01) == least_bits([3.0, 3.0], 0.01, spans=[2.0, 2.0]) == 6
    assert least_bits([1e-9], 0.01) == 2


def test_the_mismatch_bound_is_a_sum_of_squares():
    assert mismatch_bound([0.5, 0.25], [2.0, 4.0]) == 0.75
    assert mismatch_bound([], []) == 0.0


@pytest.mark.parametrize(
    ("gains", "spans", "message"),
    [
        ([1.0, 0.0], None, "gains must be positive and finite, got 0.0"),
        ([1.0, np.nan], None, "gains must be positive and finite, got nan"),
        ([np.inf], None, "gains must be positive and finite, got inf"),
        ([1.0], [-1.0], "spans must be positive and finite, got -1.0"),
        ([1.0], [1.0, 1.0], r"spans must be as many as gains, 1, got shape \(2,\)"),
        ([], None, r"gains must be of shape \(n,\) with n from 1 on, got \(0,\)"),
        ([[1.0]], None, r"got \(1, 1\)"),
    ],
)
def test_bad_gains_are_named(gains, spans, message):
    for call in (
        lambda: feedforward_bits(gains, 3, spans=spans),
        lambda: least_bits(gains, 0.1, spans=spans),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("mismatch", [0.0, 1.0, -0.1, float("nan")])
def test_a_mismatch_must_be_a_probability(mismatch):
    with pytest.raises(ValueError, match=rf"mismatch must be in \(0, 1\), got {mismatch}"):
        least_bits([1.0], mismatch)
    with pytest.raises(ValueError, match=rf"mismatch must be in \(0, 1\), got {mismatch}"):
        assign_formats({"a": statistics()}, smallest_learning_rate=0.1, mismatch=mismatch)


def test_ranges_and_steps_at_and_beside_powers_of_two():
    at = weight_gradient_format(2.0**-8, 2.0**-4)
    assert (at.range, at.step) == (2.0**-3, 2.0**-10)
    beside = weight_gradient_format(2.0**-8 * 0.999, 2.0**-4 * 1.001)
    assert (beside.range, beside.step) == (2.0**-2, 2.0**-11)
    assert weight_gradient_format(1.0, 1.0).bits == 4  # the least there can be


def test_an_activation_gradient_has_the_noise_of_the_weight_gradient():
    fmt = activation_gradient_format(2.0**-10, 2.0**-12, 2.0**6)
    assert (fmt.range, fmt.step) == (2.0**-8, 2.0**-15)
    assert activation_gradient_format(2.0**-10, 2.0**-12, 65.0).step == 2.0**-16
    # A step beyond the range leaves a sign and a magnitude.
    assert activation_gradient_format(2.0**-10, 1.0, 1e-6) == FixedPoint.of_bits(2.0**-8, 2)


def test_an_accumulator_ends_where_updates_reach_the_step_of_the_weights():
    weight = FixedPoint.of_bits(4.0, 6)  # step 1/8
    assert accumulator_format(weight, 2.0**-4, 1.0).bits == 1
    assert accumulator_format(weight, 2.0**-5, 1.0) == FixedPoint(range=2.0**-4, step=2.0**-5)
    assert accumulator_format(weight, 2.0**-3, 1.0) is None
    assert accumulator_format(weight, 2.0**-3, 0.999).bits == 1


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_dead_or_broken_statistics_are_an_error_in_a_formula(bad):
    weight = FixedPoint.of_bits(1.0, 8)
    for name, call in {
        "sigma_min": lambda: weight_gradient_format(bad, 1.0),
        "sigma_max": lambda: activation_gradient_format(bad, 1.0, 1.0),
        "weight_gradient_step": lambda: activation_gradient_format(1.0, bad, 1.0),
        "lambda_max": lambda: activation_gradient_format(1.0, 1.0, bad),
        "smallest_learning_rate": lambda: accumulator_format(weight, 1.0, bad),
    }.items():
        with pytest.raises(ValueError, match=f"{name} must be positive and finite, got {bad}"):
            call()
    with pytest.raises(ValueError, match=r"sigma_min must be at most sigma_max 1\.0, got 2\.0"):
        weight_gradient_format(2.0, 1.0)


def test_full_adders_by_hand():
    assert full_adders(1, 6, 7) == 42  # a multiplier, no adder
    assert full_adders(2, 1, 1) == 2 + 2  # one adder of 1 + 1 + 1 - 1 bits
    assert full_adders(5, 4, 3) == 5 * 12 + 4 * (4 + 3 + 3 - 1)
    assert full_adders(2048, 8, 8) == 2048 * 64 + 2047 * (16 + 11 - 1)


@pytest.mark.parametrize("arguments", [(0, 8, 8), (4, 0, 8), (4, 8, -1)])
def test_full_adders_want_at_least_one_of_each(arguments):
    with pytest.raises(ValueError, match="must be at least 1, got"):
        full_adders(*arguments)
    with pytest.raises(TypeError, match=r"length must be an integer, got 4\.0"):
        full_adders(4.0, 8, 8)


# ---- All layers ----


def test_ranges_of_weights_and_activations_are_their_magnitudes_rounded_up():
    layers = {
        "a": statistics(weight_max=0.51, activation_max=3.0),
        "b": statistics(weight_max=0.5, activation_max=4.0, activation_signed=True),
    }
    found = assign_formats(layers, smallest_learning_rate=0.1).layers
    assert [found[name].weight.range for name in "ab"] == [1.0, 0.5]
    assert [(found[name].activation.range, found[name].activation.signed) for name in "ab"] == [
        (4.0, False),
        (4.0, True),
    ]
    # The same gain and twice the span take a bit more, and the same step.
    assert found["b"].activation.bits == found["a"].activation.bits + 1
    assert found["b"].activation.step == found["a"].activation.step


def test_the_least_offset_meets_the_mismatch():
    layers = {"a": statistics(weight_gain=700.0), "b": statistics(activation_gain=0.3)}
    found = assign_formats(layers, smallest_learning_rate=0.1, mismatch=0.003)
    least = min(found.layers["a"].activation.bits, found.layers["b"].activation.bits)
    again = assign_formats(layers, smallest_learning_rate=0.1, min_bits=least)
    assert again.layers == found.layers
    assert found.mismatch() <= 0.003 < found.narrower(1).mismatch() == 4.0 * found.mismatch()


DEAD = {
    "no weight gradient": (
        {"weight_gradient_sigma": (0.0, 0.0)},
        {"weight_gradient", "activation_gradient", "accumulator"},
    ),
    "no activation gradient": (
        {"activation_gradient_sigma": (0.0, 0.0)},
        {"weight_gradient", "activation_gradient", "accumulator"},
    ),
    "weights of no consequence": ({"weight_gain": 0.0}, {"weight", "accumulator"}),
    "zero weights": ({"weight_max": 0.0}, {"weight", "accumulator"}),
    "zero activations": (
        {
            "weight_gain": 0.0,
            "activation_max": 0.0,
            "lambda_max": 0.0,
            "weight_gradient_sigma": (0.0, 0.0),
        },
        {"weight", "activation", "weight_gradient", "activation_gradient", "accumulator"},
    ),
}


@pytest.mark.parametrize("case", DEAD)
def test_dead_tensors_are_excluded_and_named_and_the_others_are_not(case):
    changes, dead = DEAD[case]
    found = assign_formats({"fc": statistics(), "dead": statistics(**changes)}, smallest_learning_rate=0.1)
    assert {f"dead.{name}" for name in dead} == set(found.excluded)
    formats = dict(found.layers["dead"].formats())
    assert set(formats) == {f.name for f in LayerFixedPoint.__dataclass_fields__.values()} - dead
    assert all(getattr(found.layers["dead"], name) is None for name in dead)
    assert len(dict(found.layers["fc"].formats())) == 5


def test_a_network_without_any_gain_has_no_forward_formats():
    layers = {"a": statistics(weight_gain=0.0, activation_gain=0.0)}
    found = assign_formats(layers, smallest_learning_rate=0.1)
    assert found.excluded == ("a.weight", "a.activation", "a.accumulator")
    assert found.mismatch() == 0.0


def test_an_accumulator_that_nothing_needs_is_not_excluded():
    found = assign_formats({"a": statistics(weight_gain=1e-9)}, smallest_learning_rate=1e5, min_bits=2)
    assert found.layers["a"].accumulator is None
    assert found.excluded == ()


def test_widths_beyond_all_measure_name_the_layer():
    with pytest.raises(ValueError, match=r"layer 'a': a fixed-point format must have 1\.\.52 bits, got 57"):
        assign_formats({"a": statistics()}, smallest_learning_rate=1e-14, min_bits=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"smallest_learning_rate": 0.0}, "smallest_learning_rate must be positive and finite, got 0.0"),
        ({"smallest_learning_rate": 0.1, "min_bits": 1}, r"min_bits must be in 2\.\.52, got 1"),
        ({"smallest_learning_rate": 0.1, "min_bits": 60}, r"min_bits must be in 2\.\.52, got 60"),
        ({"smallest_learning_rate": 0.1, "min_bits": 52}, r"1\.\.52 bits, got 53"),
    ],
)
def test_a_bad_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        assign_formats({"a": statistics()}, **arguments)


def example():
    formats = LayerFixedPoint(
        weight=FixedPoint.of_bits(1.0, 8),
        activation=FixedPoint.of_bits(2.0, 6, signed=False),
        weight_gradient=FixedPoint.of_bits(0.25, 9),
        activation_gradient=FixedPoint.of_bits(0.5, 7),
        accumulator=FixedPoint.of_bits(2.0**-8, 5),
    )
    return FixedPointAssignment(layers={"fc": formats}, statistics={"fc": statistics()})


def test_the_table_has_a_row_for_each_tensor():
    table = example().table()
    assert table.columns.tolist() == ["layer", "tensor", "format", "bits", "range", "step"]
    assert table.loc[0].tolist() == ["fc", "weight", "s0.7", 8, 1.0, 2.0**-7]
    assert table["bits"].tolist() == [8, 6, 9, 7, 5]
    assert table["step"].tolist() == [2.0**-7, 2.0**-5, 2.0**-10, 2.0**-7, 2.0**-12]


def test_the_complexity_has_a_row_for_each_product():
    table = example().complexity()
    assert table["product"].tolist() == ["forward", "backward", "gradient"]
    # 8 products of 6 x 8 bits, 4 of 7 x 8, 16 of 7 x 6; 32, 64 and 32 times.
    expected = [
        32 * (8 * 48 + 7 * (14 + 3 - 1)),
        64 * (4 * 56 + 3 * (15 + 2 - 1)),
        32 * (16 * 42 + 15 * (13 + 4 - 1)),
    ]
    assert table["full_adders"].tolist() == expected
    without = FixedPointAssignment(
        layers={"fc": LayerFixedPoint(weight=FixedPoint.of_bits(1.0, 8))}, statistics={"fc": statistics()}
    )
    assert without.complexity().empty


def test_an_assignment_can_be_sent_to_another_process():
    found = assign_formats({"a": statistics()}, smallest_learning_rate=0.1)
    assert pickle.loads(pickle.dumps(found.narrower())) == found.narrower()


def test_every_width_is_one_bit_less_and_the_ranges_stay():
    one, found = example(), example().narrower()
    before, after = (dict(a.layers["fc"].formats()) for a in (one, found))
    assert [after[name].bits - before[name].bits for name in before] == [-1] * 5
    for name in ("weight", "activation", "weight_gradient", "activation_gradient"):
        assert after[name].range == before[name].range
        assert after[name].step == 2.0 * before[name].step
        assert after[name].signed == before[name].signed
    # What remains below the weights' step is twice as large.
    assert after["accumulator"].range == after["weight"].step / 2.0
    assert after["accumulator"].step == 4.0 * before["accumulator"].step
    assert one.narrower(0) == one
    assert one.narrower(2) == one.narrower().narrower()


def test_chosen_tensors_lose_bits_and_the_others_do_not():
    found = example().narrower(2, tensors=["weight_gradient", "activation"]).layers["fc"]
    assert [fmt.bits for _, fmt in found.formats()] == [8, 4, 7, 7, 5]
    found = example().narrower(2, tensors=["weight"]).layers["fc"]
    assert (found.accumulator.bits, found.accumulator.range) == (5, found.weight.step / 2.0)


def test_an_accumulator_may_lose_all_bits_and_other_tensors_may_not():
    assert example().narrower(5).layers["fc"].accumulator is None
    assert example().narrower(5).layers["fc"].activation.bits == 1
    assert example().narrower(4, tensors=["accumulator"]).layers["fc"].accumulator.bits == 1
    with pytest.raises(ValueError, match=r"fc\.activation must keep 1 of its 6 bits, got 0"):
        example().narrower(6)
    with pytest.raises(ValueError, match=r"fc\.activation_gradient must keep 2 of its 7 bits, got 1"):
        example().narrower(6, tensors=["activation_gradient"])
    with pytest.raises(ValueError, match="bits must be at least 0, got -1"):
        example().narrower(-1)
    with pytest.raises(ValueError, match=r"tensors must be of weight, .*, got 'bias'"):
        example().narrower(1, tensors=["bias"])


def weight_accuracy(assignment):
    """Falls off below 6 bits of weights."""
    bits = assignment.layers["fc"].weight.bits
    return 0.9 if bits >= 6 else 0.2


def test_slack_is_what_can_be_lost_together():
    found = slack(example(), weight_accuracy, 0.89)
    assert (found.spare_bits, found.target, found.accuracies) == (2, 0.89, (0.9, 0.9, 0.9, 0.2))
    assert slack(example(), weight_accuracy, 0.9).spare_bits == 2  # the target itself will do
    assert slack(example(), weight_accuracy, 0.95).accuracies == (0.9,)
    assert slack(example(), weight_accuracy, 0.95).spare_bits == -1
    assert slack(example(), lambda _: float("nan"), 0.5).spare_bits == -1


def test_slack_ends_where_no_narrower_format_is_left():
    found = slack(example(), weight_accuracy, 0.89, tensors=["activation"])
    assert (found.spare_bits, len(found.accuracies)) == (5, 6)
    # Accumulators may go: that of 5 bits is gone when the fifth is.
    found = slack(example(), weight_accuracy, 0.89, tensors=["accumulator"])
    assert (found.spare_bits, len(found.accuracies)) == (5, 6)
    assert slack(example(), weight_accuracy, 0.89, tensors=[]).accuracies == (0.9,)


def test_slack_of_an_unknown_tensor_is_an_error_before_any_training():
    with pytest.raises(ValueError, match="got 'bias'"):
        slack(example(), lambda _: pytest.fail("trained"), 0.5, tensors=["bias"])


def test_ldexp_steps_are_exact_at_the_smallest_formats():
    fmt = FixedPoint.of_bits(ldexp(1.0, -100), 26)
    x = np.array([ldexp(1.0, -125), ldexp(0.49, -125), 1.0])
    assert fmt.quantize(x).tolist() == [ldexp(1.0, -125), 0.0, fmt.max]
    assert fmt.quantize(x.astype(np.float32)).tolist()[:2] == [ldexp(1.0, -125), 0.0]
