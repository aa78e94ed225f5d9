"""Block formats against rationals: scales and elements by the definitions, and the edge cases."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import NAMED_FORMATS, BlockFormat, cast
from oracles.blocks import EMAX, mx_row, nearest_float32, nv_rows
from oracles.rational import DETERMINISTIC, is_fixed, largest, round_rational

MX = list(EMAX)


def mx_expected(x, name, mode):
    return np.array([mx_row(row, NAMED_FORMATS[name].element, EMAX[name], mode) for row in x])


def nv_expected(x, mode, tensor=None):
    return nv_rows(x, NAMED_FORMATS["nvfp4"], mode, tensor)


def draw_rows(seed, dtype):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 4)), int(rng.integers(1, 70)))
    low, high = (-145, 127) if dtype == np.float32 else (-200, 200)
    centre = rng.integers(low, high, (shape[0], 1))
    x = rng.normal(size=shape) * 2.0 ** (centre - rng.integers(0, 14, shape))
    x = np.where(rng.random(shape) < 0.3, np.sign(x) * 2.0 ** np.round(np.log2(np.abs(x))), x)
    x = np.where(rng.random(shape) < 0.2, 0.0, x)
    with np.errstate(over="ignore", under="ignore"):
        x = x.astype(dtype)
    return np.where(np.isfinite(x), x, dtype(1.0))


@settings(max_examples=150)
@given(
    name=st.sampled_from(MX),
    mode=st.sampled_from(DETERMINISTIC),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**32),
)
def test_mx_is_what_the_standard_says(name, mode, dtype, seed):
    x = draw_rows(seed, dtype)
    ours = cast(x, name, rounding=mode)
    assert ours.dtype == dtype
    expected = mx_expected(x, name, mode)
    np.testing.assert_array_equal(ours, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(ours)[numbers], np.signbit(expected)[numbers])


@settings(max_examples=100)
@given(
    mode=st.sampled_from(DETERMINISTIC),
    tensor=st.none() | st.sampled_from([1.0, 0.75, float(np.float32(0.1)), 2.0**-20]),
    seed=st.integers(0, 2**32),
)
def test_nvfp4_is_two_exact_scales_and_one_rounding(mode, tensor, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, 37)) * 2.0 ** rng.integers(-12, 3, (2, 37))
    x[rng.random(x.shape) < 0.2] = 0.0
    x[:, :16] = rng.choice([0.5, 1.0, 1.5, -2.0, 2.5, 5.0], (2, 16))  # on values and on ties
    expected = [[float(v) for v in row] for row in nv_expected(x, mode, tensor)]
    np.testing.assert_array_equal(cast(x, "nvfp4", rounding=mode, tensor_scale=tensor), expected)


def test_nvfp4_in_float32_is_the_exact_product_rounded_once():
    x = np.random.default_rng(5).normal(size=(3, 48)).astype(np.float32)
    expected = [
        [math.copysign(nearest_float32(abs(v)), v) if v else 0.0 for v in row]
        for row in nv_expected(x, "nearest-even")
    ]
    ours = cast(x, "nvfp4")
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, expected)


def test_the_scale_of_mxfp4_by_hand():
    # amax 7: floor(log2 7) - 2 = 0; 7 saturates at 6. amax 8: the scale is 2, and 8 = 2 * 4.
    assert cast(np.array([7.0, 0.3, -2.5]), "mxfp4").tolist() == [6.0, 0.5, -2.0]
    assert cast(np.array([8.0, 0.3, -2.5]), "mxfp4").tolist() == [8.0, 0.0, -2.0]


def test_blocks_do_not_see_each_other():
    x = np.ones(64)
    x[40] = 2.0**20
    quantized = cast(x, "mxfp8")
    assert (quantized[:32] == 1.0).all()
    assert quantized[40] == 2.0**20
    assert (np.delete(quantized[32:], 8) == 0.0).all()


@pytest.mark.parametrize("name", [*MX, "nvfp4"])
def test_zeros_stay_zero_with_their_sign(name):
    zeros = cast(np.array([0.0, -0.0, 0.0]), name)
    assert (zeros == 0.0).all()
    assert np.signbit(zeros).tolist() == [False, not is_fixed(NAMED_FORMATS[name].element), False]


@pytest.mark.parametrize("name", MX)
def test_a_block_of_zeros_has_the_least_scale(name):
    scales, tensor = BlockFormat.parse(name).scales(np.zeros((2, 40)))
    np.testing.assert_array_equal(scales, np.full((2, 2), 2.0**-127))
    assert tensor == 1.0


@pytest.mark.parametrize("name", [*MX, "nvfp4"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_spoil_their_block_alone(name, bad):
    fmt = BlockFormat.parse(name)
    x = np.ones((1, 3 * fmt.block), np.float32)
    x[0, fmt.block] = bad
    quantized = cast(x, fmt)
    assert np.isnan(quantized[0, fmt.block : 2 * fmt.block]).all()
    rest = np.delete(quantized[0], slice(fmt.block, 2 * fmt.block))
    np.testing.assert_allclose(rest, 1.0, rtol=2.0**-6)
    scales, _ = fmt.scales(x)
    assert np.isnan(scales).tolist() == [[False, True, False]]


@pytest.mark.parametrize("name", MX)
def test_the_scale_is_clamped_below_and_nan_above(name):
    fmt = BlockFormat.parse(name)
    high = 127 + EMAX[name]
    scales, _ = fmt.scales(np.array([[2.0**-300], [1.5 * 2.0**high], [2.0 ** (high + 1)]]))
    np.testing.assert_array_equal(scales, [[2.0**-127], [2.0**127], [np.nan]])


@pytest.mark.parametrize("name", [*MX, "nvfp4"])
def test_padding_is_zeros_and_changes_nothing(name):
    x = np.random.default_rng(2).normal(size=(3, 37))
    padded = np.concatenate([x, np.zeros((3, 64 - 37))], axis=1)
    np.testing.assert_array_equal(cast(x, name), cast(padded, name)[:, :37])


@pytest.mark.parametrize("name", [*MX, "nvfp4"])
def test_shapes_strides_and_out(name):
    x = np.random.default_rng(3).normal(size=(5, 2, 40)).astype(np.float32)
    expected = cast(x, name, rounding="stochastic", seed=1)
    out = np.empty_like(x)
    assert cast(x, name, rounding="stochastic", seed=1, out=out) is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(cast(x.transpose(2, 1, 0), name), cast(x.transpose(2, 1, 0).copy(), name))
    assert cast(x[:0], name).shape == (0, 2, 40)
    assert cast(x[..., :0], name).shape == (5, 2, 0)
    assert cast(x, name, out=x) is x


def test_every_nvfp4_scale_tie_goes_to_the_even_code():
    fmt = BlockFormat.parse("nvfp4")
    values = fmt.scale.values()
    values = values[values >= 0]
    ties = (values[:-1] + values[1:]) / 2
    for unit in (1.0, float(np.float32(1 / 3))):
        for beside in (0.0, -1.0, 1.0):
            amax = ties * (6 * unit)
            amax = amax if beside == 0.0 else np.nextafter(amax, beside * 1e9)
            scales, _ = fmt.scales(amax[:, None], unit)
            expected = [
                round_rational(Fraction(a) / (6 * Fraction(unit)), fmt.scale, overflow="saturate")
                for a in amax
            ]
            np.testing.assert_array_equal(scales[:, 0], expected)


def test_the_largest_block_gets_the_largest_scale():
    scales, tensor = BlockFormat.parse("nvfp4").scales(np.array([[448.0 * 6.0] + [1.0] * 15 + [6.0] * 16]))
    assert tensor == 1.0
    assert scales.tolist() == [[448.0, 1.0]]


def test_a_tensor_too_small_or_large_for_a_float32_scale_gets_its_ends():
    fmt = BlockFormat.parse("nvfp4")
    assert fmt.scales(np.array([1e-300]))[1] == 2.0**-149
    assert fmt.scales(np.array([1e300]))[1] == float(np.finfo(np.float32).max)
    assert cast(np.array([1e300]), "nvfp4")[0] == 6.0 * 448.0 * float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    ("name", "bits", "most"),
    [
        ("mxfp8", 8.25, 448),
        ("mxfp6", 6.25, 7.5),
        ("mxfp4", 4.25, 6),
        ("mxint8", 8.25, 2 - 2.0**-6),
        ("nvfp4", 4.5, 6),
    ],
)
def test_bits_per_value_and_elements_are_the_published_ones(name, bits, most):
    fmt = BlockFormat.parse(name)
    assert fmt.bits_per_value == bits
    assert largest(fmt.element) == most


@pytest.mark.parametrize("text", [*MX, "nvfp4", "e3m2 block=16 scale=e8m0", "s1.2 block=8 scale=e5m2"])
def test_text_reads_back(text):
    fmt = BlockFormat.parse(text)
    assert str(fmt) == text
    assert BlockFormat.parse(text.upper()) == fmt
    x = np.linspace(-3, 3, 20)
    np.testing.assert_array_equal(cast(x, text.upper()), cast(x, fmt))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block": 0}, "block must be at least 1, got 0"),
        ({"rule": "amax"}, "rule of scale e8m0 must be 'floor', got 'amax'"),
        ({"scale": "e9m0"}, "scale must be 'e8m0' or a FloatFormat, got 'e9m0'"),
        ({"scale": NAMED_FORMATS["e2m1"]}, "scale must have NaN.* got e2m1"),
        ({"scale": NAMED_FORMATS["tf32"]}, "at most 16 bits .* got e8m10"),
    ],
)
def test_a_bad_block_format_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        BlockFormat(**({"element": NAMED_FORMATS["e2m1"], "block": 32} | arguments))


@pytest.mark.parametrize(
    ("x", "text", "arguments", "message"),
    [
        (np.ones(3, np.float16), "mxfp4", {}, "float16 arrays cannot hold"),
        (np.ones(3, np.float32), "fp16 block=4 scale=e8m0", {}, "float32 arrays cannot hold"),
        (np.ones(()), "mxfp4", {}, "at least one axis"),
        (np.ones(3), "mxfp4", {"overflow": "nan"}, "must be format or saturate, got 'nan'"),
        (np.ones(3), "mxfp4", {"tensor_scale": 2.0}, "tensor_scale belongs to rule 'amax'"),
        (np.ones(3), "e4m3fn", {"tensor_scale": 2.0}, "tensor_scale belongs to block formats"),
        (np.ones(3), "nvfp4", {"tensor_scale": 0.1}, "positive float32 number, got 0.1"),
        (np.ones(3), "nvfp4", {"tensor_scale": -1.0}, "positive float32 number, got -1.0"),
        (np.ones(3), "mxfp4", {"rounding": "stochastic"}, "needs a seed"),
        (np.ones(3), "mxfp5 block=2", {}, "block format must be"),
    ],
)
def test_bad_arguments_are_named(x, text, arguments, message):
    with pytest.raises(ValueError, match=message):
        cast(x, text, **arguments)
