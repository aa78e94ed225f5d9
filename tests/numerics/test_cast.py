"""`cast` in the six deterministic modes: every bit, the sign of zero included."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import cast, parse_format
from oracles.rational import DETERMINISTIC, round_rational
from oracles.strategies import formats, hard_values
from oracles.table import magnitudes, round_by_table

SMALL = [
    "e4m3fn",
    "e5m2",
    "e3m2",
    "e2m3",
    "e2m1",
    "hfp8",
    "e4m3-flush",
    "e5m2fnb13",
    "ue4m4",
    "s3.4",
    "u0.8",
    "e4m3fnuz",
    "binary8p3",
    "e4m3fused-top",
]
NAN_BITS = np.array([0x7F800001, 0x7FC00000, 0xFFC00000, 0xFFFFFFFF, 0x7FBFFFFF], np.uint32)


def assert_same_bits(actual, expected):
    """Equal as numbers, NaN where NaN, zeros of equal sign."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    np.testing.assert_array_equal(actual, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(actual)[numbers], np.signbit(expected)[numbers])


def all_float16():
    patterns = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    return patterns[np.isfinite(patterns)]


@pytest.mark.parametrize("mode", DETERMINISTIC)
@pytest.mark.parametrize("text", SMALL)
def test_every_finite_float16_is_rounded_as_the_table_of_values_says(text, mode):
    x, fmt = all_float16().astype(np.float32), parse_format(text)
    assert_same_bits(cast(x, text, rounding=mode), round_by_table(x.astype(np.float64), fmt, mode))


def check_against_rationals(text, x):
    fmt = parse_format(text)
    for mode in DETERMINISTIC:
        expected = [round_rational(float(value), fmt, mode) for value in x]
        assert_same_bits(cast(x.astype(np.float32), text, rounding=mode), expected)


@pytest.mark.parametrize("text", SMALL)
def test_float16_patterns_are_rounded_as_rationals_say(text):
    check_against_rationals(text, np.random.default_rng(7).choice(all_float16(), 400, replace=False))


@pytest.mark.slow
@pytest.mark.parametrize("text", SMALL)
def test_every_finite_float16_is_rounded_as_rationals_say(text):
    check_against_rationals(text, all_float16())


@settings(max_examples=300)
@given(fmt=formats(), mode=st.sampled_from(DETERMINISTIC), seed=st.integers(0, 2**32))
def test_any_format_rounds_float64_as_rationals_say(fmt, mode, seed):
    rng = np.random.default_rng(seed)
    x = np.concatenate([hard_values(fmt, rng, 20), rng.normal(size=3) * 10.0 ** rng.integers(-320, 308, 3)])
    assert_same_bits(cast(x, fmt, rounding=mode), [round_rational(float(v), fmt, mode) for v in x])


@pytest.mark.parametrize("text", ["e4m3fn", "e2m1", "s3.4", "e5m2-flush", "e3m0fn", "e8m7"])
@pytest.mark.parametrize("mode", DETERMINISTIC)
def test_the_ends_of_float64_are_rounded_too(text, mode):
    tiny, huge = 5e-324, np.finfo(np.float64).max
    x = np.array([tiny, -tiny, 2.2e-308, -2.2e-308, 1e-310, huge, -huge, 2.0**1023, -(2.0**1022)])
    fmt = parse_format(text)
    assert_same_bits(cast(x, text, rounding=mode), [round_rational(float(v), fmt, mode) for v in x])


@pytest.mark.parametrize("text", [text for text in SMALL if text != "u0.8"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ties_go_to_even_and_their_neighbours_to_the_nearer_value(text, dtype):
    fmt = parse_format(text)
    grid = magnitudes(fmt)
    ties = ((grid[:-1] + grid[1:]) / 2).astype(dtype)
    x = np.concatenate([np.nextafter(ties, dtype(0)), ties, np.nextafter(ties, dtype(np.inf))])
    x = np.concatenate([x, -x])
    expected = [round_rational(float(value), fmt) for value in x]
    assert_same_bits(cast(x, text), expected)
    # By hand: below a tie the lower value, above it the upper one.
    size = len(ties)
    inside = grid[1:-2]
    assert_same_bits(cast(x[: size - 2], text)[1:], inside[: size - 3])


@pytest.mark.parametrize("text", SMALL)
@pytest.mark.parametrize("mode", DETERMINISTIC)
def test_half_a_binade_above_the_largest_value(text, mode):
    fmt = parse_format(text)
    x = np.linspace(fmt.max, 1.5 * fmt.max, 97)
    x = np.concatenate([x, np.nextafter(x, 0.0), -x])
    assert_same_bits(cast(x, text, rounding=mode), [round_rational(float(v), fmt, mode) for v in x])


def test_overflow_starts_where_the_standards_say():
    # Half a unit above the largest value; the tie goes to it only where its code is even.
    below = np.nextafter(61440.0, 0.0)
    assert cast(np.array([464.0, 61440.0, below]), "e5m2").tolist() == [448.0, np.inf, 57344.0]
    assert cast(np.array([464.0]), "e4m3fn", overflow="nan")[0] == 448.0
    assert np.isnan(cast(np.array([np.nextafter(464.0, 500.0)]), "e4m3fn", overflow="nan")[0])
    assert cast(np.array([65519.99, 65520.0]), "fp16").tolist() == [65504.0, np.inf]


@pytest.mark.parametrize("mode", DETERMINISTIC)
@pytest.mark.parametrize(
    ("text", "overflow"),
    [
        ("e5m2", "format"),
        ("e5m2", "saturate"),
        ("e5m2", "infinity"),
        ("e5m2", "nan"),
        ("e4m3fn", "format"),
        ("e4m3fn", "saturate"),
        ("e4m3fn", "nan"),
        ("e2m1", "saturate"),
        ("ue5m2", "format"),
        ("ue5m2", "infinity"),
        ("ue5m2", "nan"),
        ("ue5m2", "saturate"),
        ("s3.4", "saturate"),
        ("u0.8", "format"),
        ("u0.8-wrap", "format"),
        ("s3.4-wrap", "format"),
        ("s3.4-wrap", "saturate"),
        ("binary8p4", "format"),
        ("binary8p4", "saturate"),
        ("binary8p4", "nan"),
        ("e5m2fnuz", "format"),
        ("e5m2fnuz", "nan"),
        ("e4m3fused-top", "format"),
        ("e4m3fused-top", "saturate"),
    ],
)
def test_overflow_policies(text, overflow, mode):
    fmt = parse_format(text)
    huge = 2.0 * fmt.max
    x = np.array(
        [huge, -huge, np.inf, -np.inf, fmt.max, -fmt.max, 1.01 * fmt.max, 1e300, -1e300, np.nan, -0.25]
    )
    expected = [round_rational(float(value), fmt, mode, overflow=overflow) for value in x]
    assert_same_bits(cast(x, text, rounding=mode, overflow=overflow), expected)


@pytest.mark.parametrize(
    ("mode", "signs"), [("toward-zero", (1, -1)), ("to-odd", (1, -1)), ("down", (1,)), ("up", (-1,))]
)
@pytest.mark.parametrize("overflow", ["format", "infinity", "nan"])
def test_directed_modes_stay_finite(mode, signs, overflow):
    for sign in signs:
        assert cast(np.array([sign * 1e30]), "e5m2", rounding=mode, overflow=overflow)[0] == sign * 57344.0


@pytest.mark.parametrize(
    ("text", "overflow"),
    [("e4m3fn", "infinity"), ("e2m1", "infinity"), ("e2m1", "nan"), ("s3.4", "infinity"), ("s3.4", "nan")],
)
def test_an_overflow_without_a_code_is_an_error(text, overflow):
    with pytest.raises(ValueError, match=f"{overflow!r} needs a code"):
        cast(np.ones(1), text, overflow=overflow)


def test_an_unknown_overflow_is_an_error():
    with pytest.raises(ValueError, match="got 'wrap'"):
        cast(np.ones(1), "e5m2", overflow="wrap")


@pytest.mark.parametrize("mode", [*DETERMINISTIC, "stochastic"])
@pytest.mark.parametrize("text", ["e5m2", "e2m1", "e4m3fn-flush", "e6m9"])
def test_nan_stays_nan_and_zeros_keep_their_sign(text, mode):
    nans = NAN_BITS.view(np.float32)
    assert np.isnan(cast(nans, text, rounding=mode, seed=1)).all()
    with np.errstate(invalid="ignore"):  # the conversion quiets signalling NaNs
        wide = nans.astype(np.float64)
    assert np.isnan(cast(wide, text, rounding=mode, seed=1)).all()
    assert_same_bits(cast(np.array([0.0, -0.0]), text, rounding=mode, seed=1), [0.0, -0.0])


@pytest.mark.parametrize("mode", [*DETERMINISTIC, "stochastic"])
@pytest.mark.parametrize("text", ["ue4m4", "u0.8", "s3.4", "s3.4-wrap", "e5m2fnuz", "binary8p4"])
def test_formats_without_a_code_for_minus_zero_give_plus_zero(text, mode):
    x = np.array([-0.0, -1e-30, -(2.0**-20)])
    zeros = cast(x, text, rounding=mode, seed=1)
    assert not np.signbit(zeros[zeros == 0]).any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("text", ["e5m2", "e3m2", "s3.4"])
@pytest.mark.parametrize("mode", ["nearest-even", "up"])
def test_the_dtype_is_kept_and_does_not_change_the_result(dtype, text, mode):
    x = all_float16()[::61].astype(dtype)
    rounded = cast(x, text, rounding=mode)
    assert rounded.dtype == dtype
    assert_same_bits(rounded, cast(x.astype(np.float64), text, rounding=mode))


def test_a_dtype_that_cannot_hold_the_format_is_an_error():
    for dtype, text in (
        (np.float16, "bf16"),
        (np.float16, "e5m11"),
        (np.float16, "s12.0"),
        (np.float32, "s15.16"),
    ):
        with pytest.raises(ValueError, match=f"{np.dtype(dtype)} arrays cannot hold"):
            cast(np.ones(2, dtype), text)
    assert cast(np.array([2.0**15 - 2.0**-16]), "s15.16")[0] == 2.0**15 - 2.0**-16


@pytest.mark.parametrize("x", [np.ones(2, np.int32), np.ones(2, np.complex64), [1.0], 1.0, np.ones(2, ">f4")])
def test_other_operands_are_a_type_error(x):
    with pytest.raises(TypeError, match="x must be a float16, float32 or float64 array"):
        cast(x, "e5m2")


@pytest.mark.parametrize("mode", ["nearest-even", "toward-zero", "stochastic"])
def test_shapes_and_strides_do_not_matter(mode):
    base = np.random.default_rng(3).normal(size=(6, 8, 5)).astype(np.float32)
    for view in (
        base[::2, ::-1],
        base.transpose(2, 0, 1),
        base[1:2, :, 3],
        base[0, 0, 0, ...],
        base[:0],
        base[..., None],
    ):
        rounded = cast(view, "e4m3fn", rounding=mode, seed=5)
        assert rounded.shape == view.shape
        assert_same_bits(rounded, cast(view.copy(), "e4m3fn", rounding=mode, seed=5))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("mode", ["nearest-even", "down", "stochastic"])
def test_writing_to_out_or_in_place_changes_nothing(mode, dtype):
    x = np.random.default_rng(4).normal(size=(5, 7)).astype(dtype)
    original, expected = x.copy(), cast(x, "e3m2", rounding=mode, seed=2)
    assert_same_bits(x, original)
    out = np.full_like(x, np.nan)
    assert cast(x, "e3m2", rounding=mode, seed=2, out=out) is out
    assert_same_bits(out, expected)
    assert cast(x, "e3m2", rounding=mode, seed=2, out=x) is x
    assert_same_bits(x, expected)


def test_an_out_that_overlaps_x_elsewhere_does_not_corrupt_it():
    buffer = np.arange(8) / 7.0
    expected = cast(buffer[:-1].copy(), "e5m2")
    cast(buffer[:-1], "e5m2", out=buffer[1:])
    assert_same_bits(buffer[1:], expected)


@pytest.mark.parametrize(
    "out",
    [np.empty(4, np.float32), np.empty((3, 2), np.float32), np.empty((2, 3)), np.empty((3, 2), np.float32).T],
)
def test_an_unfit_out_is_an_error(out):
    with pytest.raises(ValueError, match="out must be C-contiguous with shape"):
        cast(np.ones((2, 3), np.float32), "e5m2", out=out)


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("e5m2", ml_dtypes.float8_e5m2),
        ("e4m3fn", ml_dtypes.float8_e4m3fn),
        ("e4m3ieee", ml_dtypes.float8_e4m3),
        ("e4m3fnuz", ml_dtypes.float8_e4m3fnuz),
        ("e5m2fnuz", ml_dtypes.float8_e5m2fnuz),
        ("e3m4", ml_dtypes.float8_e3m4),
        ("e2m3", ml_dtypes.float6_e2m3fn),
        ("e3m2", ml_dtypes.float6_e3m2fn),
        ("e2m1", ml_dtypes.float4_e2m1fn),
        ("bf16", ml_dtypes.bfloat16),
    ],
)
def test_ml_dtypes_agrees(text, dtype):
    x = all_float16()
    if text == "bf16":
        x = hard_values(parse_format(text), np.random.default_rng(0), 20_000)
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
        theirs = x.astype(dtype).astype(np.float32)
    ours = cast(x, text, overflow="nan" if "fn" in text else "format")
    # FP6 and FP4 have no code for an overflow; ml_dtypes saturates as we do.
    assert_same_bits(ours, theirs)


@pytest.mark.parametrize(("text", "dtype"), [("fp16", np.float16), ("fp32", np.float32)])
def test_numpy_agrees_on_its_own_formats(text, dtype):
    x = hard_values(parse_format(text), np.random.default_rng(11), 20_000)
    with np.errstate(over="ignore", under="ignore"):
        expected = x.astype(dtype).astype(np.float64)
    assert_same_bits(cast(x, text), expected)


@pytest.mark.parametrize("text", ["e4m3fn", "e5m2", "s3.4", "e4m3-flush", "e3m0fn"])
def test_values_of_the_format_stay(text):
    grid = magnitudes(parse_format(text))
    grid = grid[grid <= parse_format(text).max]
    for mode in (*DETERMINISTIC, "stochastic"):
        assert_same_bits(cast(grid, text, rounding=mode, seed=0), grid)


def test_flushed_formats_split_the_gap_below_the_smallest_normal_in_two():
    half = 2.0**-7  # of the smallest normal 2**-6
    x = np.array([half, np.nextafter(half, 1), np.nextafter(half, 0), -half, 0.99 * 2.0**-6])
    assert cast(x, "e4m3-flush").tolist() == [0.0, 2.0**-6, 0.0, 0.0, 2.0**-6]
    assert cast(x[:1], "e4m3-flush", rounding="nearest-away")[0] == 2.0**-6


def test_one_digit_significands_send_ties_up():
    # Both neighbours of a tie are odd; IEEE 754-2019, 4.3.1 delivers the larger.
    assert cast(np.array([1.5, 3.0, -6.0]), "e4m0fn").tolist() == [2.0, 4.0, -8.0]
    assert cast(np.array([1.5, 3.0, -6.0]), "e4m0fn", rounding="toward-zero").tolist() == [1.0, 2.0, -4.0]


@pytest.mark.parametrize("x", [np.float32(1.0), [1.0], 1.0, memoryview(b"1"), None])
def test_what_is_no_array_is_named(x):
    with pytest.raises(TypeError, match=f"x must be .* array, got {type(x).__name__}"):
        cast(x, "e5m2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fmt": ["e5m2"]}, r"format must be text, .* got \['e5m2'\]"),
        ({"rounding": {}}, r"rounding must be one of .* got {}"),
    ],
)
def test_an_argument_that_cannot_be_hashed_is_named_like_any_other(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        cast(np.ones(2, np.float32), **{"fmt": "e5m2"} | arguments)
