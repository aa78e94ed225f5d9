"""`encode` and `decode`: every code of every named format, and errors that say where."""

import math

import gfloat
import gfloat.formats
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import numerics.codes
from numerics import NAMED_FORMATS, FixedFormat, FloatFormat, cast, decode, encode, parse_format
from oracles.rational import DETERMINISTIC, is_fixed, last_code, round_rational, value_of_code
from oracles.strategies import ALL_SPECIALS, formats, hard_values

NAMED = [name for name, fmt in NAMED_FORMATS.items() if not hasattr(fmt, "block")]
OTHERS = ["e4m3ieee", "e3m4p3109", "e3m0fn", "e1m2fnuz", "ue5m3", "u0.8", "s3.4-wrap", "s7.8", "e6m9-flush"]
SMALL = [text for text in (*NAMED, *OTHERS) if parse_format(text).bits <= 16]
CANONICAL_NAN = {
    "e4m3fn": 0x7F,
    "e5m2": 0x7E,
    "e4m3fnuz": 0x80,
    "e5m2fnuz": 0x80,
    "binary8p3": 0x80,
    "binary8p4": 0x80,
    "binary16": 0x7E00,
    "bfloat16": 0x7FC0,
    "dlfloat16": 0x7FFF,
    "binary32": 0x7FC00000,
}
ML_DTYPES = {
    "e4m3fn": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "e4m3ieee": ml_dtypes.float8_e4m3,
    "e3m4": ml_dtypes.float8_e3m4,
    "e2m1": ml_dtypes.float4_e2m1fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "bfloat16": ml_dtypes.bfloat16,
    "binary16": np.float16,
}
GFLOAT = {
    "e4m3fn": gfloat.formats.format_info_ocp_e4m3,
    "e5m2": gfloat.formats.format_info_ocp_e5m2,
    "e2m3": gfloat.formats.format_info_ocp_e2m3,
    "e3m2": gfloat.formats.format_info_ocp_e3m2,
    "e2m1": gfloat.formats.format_info_ocp_e2m1,
    "s1.6": gfloat.formats.format_info_ocp_int8,
    "binary8p3": gfloat.formats.format_info_p3109(8, 3),
    "binary8p4": gfloat.formats.format_info_p3109(8, 4),
    "e2m5p3109": gfloat.formats.format_info_p3109(8, 6),
    "e3m2p3109": gfloat.formats.format_info_p3109(6, 3),
}


def decode_by_hand(code, fmt):
    """One code, by the table of the families: a float, NaN and infinities included."""
    if is_fixed(fmt):
        sign_bit = 1 << (fmt.bits - 1)
        return float(value_of_code(code - (2 * sign_bit if fmt.signed and code & sign_bit else 0), fmt))
    width = fmt.exp_bits + fmt.frac_bits
    sign, magnitude = divmod(code, 1 << width)
    if fmt.specials in ("fnuz", "p3109") and sign and magnitude == 0:
        return math.nan
    if magnitude > last_code(fmt):
        first = magnitude == last_code(fmt) + 1
        is_infinity = fmt.specials in ("ieee", "p3109") and first
        return math.copysign(math.inf, -sign or 1) if is_infinity else math.nan
    return math.copysign(float(value_of_code(magnitude, fmt)), -sign or 1)


def all_codes(fmt):
    dtype = np.uint8 if fmt.bits <= 8 else np.uint16
    return np.arange(1 << fmt.bits, dtype=np.uint32).astype(dtype)


def unused(codes, fmt):
    """Codes that a format without subnormals reads as zero though they are not the code of zero."""
    if is_fixed(fmt) or fmt.subnormals:
        return np.zeros(codes.shape, bool)
    magnitude = codes & ((1 << (fmt.exp_bits + fmt.frac_bits)) - 1)
    return (magnitude > 0) & (magnitude < 1 << fmt.frac_bits)


@pytest.mark.parametrize("text", SMALL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_code_decodes_to_the_value_of_the_standard(text, dtype):
    fmt = parse_format(text)
    codes = all_codes(fmt)
    values = decode(codes, text, dtype)
    expected = np.array([decode_by_hand(int(code), fmt) for code in codes])
    assert values.dtype == dtype
    np.testing.assert_array_equal(values, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(values)[numbers], np.signbit(expected)[numbers])


@pytest.mark.parametrize("text", SMALL)
def test_every_code_of_a_number_comes_back(text):
    fmt = parse_format(text)
    codes = all_codes(fmt)
    values = decode(codes, fmt)
    kept = ~np.isnan(values) & ~unused(codes, fmt)
    encoded = encode(values[kept], fmt)
    assert encoded.dtype == codes.dtype
    np.testing.assert_array_equal(encoded, codes[kept])
    assert kept.sum() >= fmt.info().finite_values


@pytest.mark.parametrize("text", SMALL)
def test_values_ascend_with_the_rank_of_their_codes(text):
    fmt = parse_format(text)
    codes = all_codes(fmt)
    values = decode(codes, fmt, np.float64)
    kept = ~np.isnan(values) & ~unused(codes, fmt)
    codes, values = codes[kept].astype(np.int64), values[kept]
    half = 1 << (fmt.bits - 1)
    negative = (codes >= half) if fmt.signed else np.zeros(codes.shape, bool)
    # Sign and magnitude counts downwards from -0; two's complement upwards. -0 ranks with +0.
    rank = np.where(negative, codes - 2 * half if is_fixed(fmt) else half - codes, codes)
    order = np.argsort(rank, kind="stable")
    assert (np.diff(values[order])[np.diff(rank[order]) > 0] > 0).all()
    np.testing.assert_array_equal(fmt.values(), np.unique(values[np.isfinite(values)]))


@pytest.mark.parametrize("text", ML_DTYPES)
def test_ml_dtypes_and_numpy_read_the_same_codes(text):
    codes = all_codes(parse_format(text))
    theirs = codes.view(ML_DTYPES[text]).astype(np.float32)
    np.testing.assert_array_equal(decode(codes, text), theirs)
    kept = ~np.isnan(theirs)
    np.testing.assert_array_equal(
        encode(theirs[kept], text), theirs[kept].astype(ML_DTYPES[text]).view(codes.dtype)
    )


@pytest.mark.parametrize("text", GFLOAT)
def test_gfloat_reads_and_writes_the_same_codes(text):
    codes = all_codes(parse_format(text))
    theirs = np.array([gfloat.decode_float(GFLOAT[text], int(code)).fval for code in codes])
    np.testing.assert_array_equal(decode(codes, text, np.float64), theirs)
    x = theirs[np.isfinite(theirs)]
    # On the values, on the ties between them and beside those.
    ties = (np.sort(x)[:-1] + np.sort(x)[1:]) / 2.0
    x = np.concatenate([x, ties, np.nextafter(ties, np.inf), np.nextafter(ties, -np.inf)])
    nearest = gfloat.RoundMode.TiesToEven
    rounded = [gfloat.round_float(GFLOAT[text], float(value), nearest, sat=True) for value in x]
    expected = [gfloat.encode_float(GFLOAT[text], value) for value in rounded]
    np.testing.assert_array_equal(encode(x, text), expected)


def small_formats(specials):
    """Every split of at most 8 bits, with and without sign and subnormals, fixed point for ``None``."""
    for bits in range(1, 9):
        for signed in (False, True):
            for frac_bits in range(bits - signed + 1):
                other = bits - signed - frac_bits
                for choice in (False, True):
                    try:
                        if specials is None:
                            overflow = "wrap" if choice else "saturate"
                            yield FixedFormat(
                                int_bits=other, frac_bits=frac_bits, signed=signed, overflow=overflow
                            )
                        else:
                            yield FloatFormat(
                                exp_bits=other,
                                frac_bits=frac_bits,
                                specials=specials,
                                signed=signed,
                                subnormals=choice,
                            )
                    except ValueError:  # too few bits for these specials
                        continue


@pytest.mark.parametrize("specials", [*ALL_SPECIALS, None])
def test_every_code_of_every_small_format_comes_back(specials):
    found = list(small_formats(specials))
    assert len(found) >= 50
    for fmt in found:
        codes = all_codes(fmt)
        expected = np.array([decode_by_hand(int(code), fmt) for code in codes])
        kept = ~np.isnan(expected) & ~unused(codes, fmt)
        for dtype in (np.float32, np.float64):
            values = decode(codes, fmt, dtype)
            np.testing.assert_array_equal(values, expected, err_msg=str(fmt))
            np.testing.assert_array_equal(encode(values[kept], fmt), codes[kept], err_msg=str(fmt))


@pytest.mark.parametrize(
    "text",
    [*SMALL, "tf32", "fp32", "s15.16", "u0.24", "s4.20", "s24.0", "e4m3noneb133", "e3m9ieeeb140-flush"],
)
@pytest.mark.parametrize("mode", [*DETERMINISTIC, "stochastic:11"])
def test_the_codes_of_float32_and_float64_arrays_are_the_same(text, mode):
    fmt = parse_format(text)
    rng = np.random.default_rng(6)
    with np.errstate(over="ignore", under="ignore"):
        x = np.concatenate(
            [hard_values(fmt, rng, 200), rng.normal(size=50), 2.0 ** rng.integers(-149, 127, 50)]
        )
        x = x.astype(np.float32)
    x = np.concatenate([x[np.isfinite(x)], np.array([0.0, -0.0, 2.0**-149], np.float32)])
    options = {"rounding": mode, "overflow": "saturate", "seed": 1}
    wide = x.astype(np.float64)
    found = encode(wide, fmt, **options)
    np.testing.assert_array_equal(encode(x, fmt, **options), found)
    np.testing.assert_array_equal(decode(found, fmt, np.float64), cast(wide, fmt, **options))


@pytest.mark.parametrize("text", ["e4m3fn", "int8", "e2m1"])
def test_long_arrays_are_encoded_in_pieces_that_nobody_sees(text, monkeypatch):
    x = np.random.default_rng(7).normal(0.0, 3.0, (5, 7)).astype(np.float32)
    expected = encode(x, text)
    chance = encode(x, text, rounding="stochastic", seed=2)
    monkeypatch.setattr(numerics.codes, "_CHUNK", 4)
    np.testing.assert_array_equal(encode(x, text), expected)
    np.testing.assert_array_equal(encode(x, text, rounding="stochastic", seed=2), chance)
    x[0, 0] = x[4, 6] = np.inf
    with pytest.raises(ValueError, match=r"no code for infinity: got 2 of them, first at index \(0, 0\)"):
        encode(x, text)
    x[0, 0] = 1.0
    x[2, 1] = x[3, 0] = np.nan
    message = r"infinity: got 1 of them, first at index \(4, 6\)"
    with pytest.raises(ValueError, match=message):
        encode(x, text)
    if text == "e4m3fn":
        x[4, 6] = 0.0
        assert np.argwhere(encode(x, text) == 0x7F).tolist() == [[2, 1], [3, 0]]


@pytest.mark.parametrize("text", CANONICAL_NAN)
def test_nan_of_either_sign_has_one_code(text):
    nans = np.array([np.nan, -np.nan])
    np.testing.assert_array_equal(encode(nans, text), CANONICAL_NAN[text])
    assert np.isnan(decode(encode(nans, text), text)).all()


def test_binary32_codes_are_the_bits_of_float32():
    x = np.random.default_rng(0).integers(0, 1 << 32, 20_000, np.uint32).view(np.float32)
    x = np.concatenate([x[~np.isnan(x)], np.array([0.0, -0.0, np.inf, -np.inf, 1e-45], np.float32)])
    np.testing.assert_array_equal(encode(x, "fp32"), x.view(np.uint32))
    np.testing.assert_array_equal(decode(x.view(np.uint32), "fp32").view(np.uint32), x.view(np.uint32))


@settings(max_examples=200)
@given(fmt=formats(), mode=st.sampled_from(DETERMINISTIC), seed=st.integers(0, 2**32))
def test_encode_then_decode_is_one_rounding(fmt, mode, seed):
    x = hard_values(fmt, np.random.default_rng(seed), 24)
    expected = [round_rational(float(value), fmt, mode, overflow="saturate") for value in x]
    values = decode(encode(x, fmt, rounding=mode, overflow="saturate"), fmt, np.float64)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(np.signbit(values), np.signbit(expected))


@pytest.mark.parametrize(
    ("text", "code"), [("e5m2", 0x7C), ("binary8p3", 0x7F), ("binary8p4", 0x7F), ("e4m3ieee", 0x78)]
)
def test_infinities_have_their_codes(text, code):
    x = np.array([np.inf, -np.inf, 1e30, -1e30])
    assert encode(x, text).tolist() == [code, code | 0x80] * 2


def test_the_fused_top_code_stands_for_infinity_overflow_and_nan():
    assert encode(np.array([np.inf, 1e30, np.nan]), "dlfloat16").tolist() == [0x7FFF] * 3
    assert np.isnan(decode(np.array([0x7FFF, 0xFFFF], np.uint16), "dlfloat16")).all()


def test_wrapping_keeps_the_low_bits_of_an_integer():
    x = np.arange(-1000.0, 1000.0)
    for bits, dtype in ((8, np.uint8), (4, np.uint8), (16, np.uint16)):
        expected = np.arange(-1000, 1000) & ((1 << bits) - 1)
        codes = encode(x, f"int{bits}-wrap")
        assert codes.dtype == dtype
        np.testing.assert_array_equal(codes, expected)
    assert encode(np.array([2.0**40 + 3]), "int8-wrap")[0] == 3
    assert encode(np.array([7.97]), "s3.4-wrap")[0] == 0x80  # rounds to 8, which wraps to -8


@pytest.mark.parametrize("text", ["e2m1", "hfp8", "int8", "u0.8", "s3.4-wrap"])
def test_nan_without_a_code_is_counted_and_located(text):
    x = np.ones((2, 3), np.float32)
    x[0, 2] = x[1, 1] = np.nan
    with pytest.raises(ValueError, match=r"has no code for NaN: got 2 of them, first at index \(0, 2\)"):
        encode(x, text)


@pytest.mark.parametrize("text", ["e2m1", "e4m3fn", "e5m2fnuz", "int8", "s3.4-wrap"])
def test_an_infinity_without_a_code_is_counted_and_located(text):
    x = np.array([0.0, 1.0, -np.inf, np.inf])
    with pytest.raises(ValueError, match=r"has no code for infinity: got 2 of them, first at index \(2,\)"):
        encode(x, text)
    fmt = parse_format(text)
    saturated = decode(encode(x, text, overflow="saturate"), text)
    assert saturated[2:].tolist() == [fmt.info().min, fmt.info().max]


def test_decode_names_codes_that_do_not_fit():
    codes = np.array([[0, 15], [16, 255]], np.uint8)
    with pytest.raises(ValueError, match=r"below 2\*\*4, got 2 larger, first 16 at index \(1, 0\)"):
        decode(codes, "e2m1")
    assert decode(codes[:1], "e2m1").tolist() == [[0.0, -6.0]]
    with pytest.raises(ValueError, match=r"below 2\*\*19"):
        decode(np.array([1 << 19], np.uint32), "tf32")


@pytest.mark.parametrize("codes", [np.zeros(2), np.zeros(2, np.int8), [1, 2], np.zeros(2, bool)])
def test_codes_that_are_not_unsigned_are_a_type_error(codes):
    with pytest.raises(TypeError, match="codes must be an array of unsigned integers"):
        decode(codes, "e4m3fn")


def test_decode_refuses_a_dtype_that_cannot_hold_the_values():
    with pytest.raises(ValueError, match=r"float32 arrays cannot hold every value of s15\.16"):
        decode(np.zeros(1, np.uint32), "s15.16")
    with pytest.raises(TypeError, match="dtype must be float32 or float64"):
        decode(np.zeros(1, np.uint8), "e2m1", np.float16)
    assert decode(np.array([0xFFFFFFFF], np.uint32), "s15.16", np.float64)[0] == -(2.0**-16)


@pytest.mark.parametrize("x", [np.ones(2, np.int64), np.ones(2, np.complex128), [1.0]])
def test_operands_that_are_not_floats_are_a_type_error(x):
    with pytest.raises(TypeError, match="x must be a float16, float32 or float64 array"):
        encode(x, "e4m3fn")


def test_shapes_strides_and_dtypes_do_not_matter():
    x = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float16)
    expected = encode(x.astype(np.float64), "bf16", rounding="stochastic", seed=3)
    np.testing.assert_array_equal(encode(x, "bf16", rounding="stochastic", seed=3), expected)
    np.testing.assert_array_equal(encode(x.T, "e5m2"), encode(np.ascontiguousarray(x.T), "e5m2"))
    np.testing.assert_array_equal(decode(expected[::2, ::-1], "bf16"), decode(expected, "bf16")[::2, ::-1])
    assert encode(np.ones(()), "e5m2").item() == 0x3C
    assert decode(np.full((), 0x3C, np.uint8), "e5m2").item() == 1.0
    assert decode(encode(np.full((), 0.75), "fp32"), "fp32").item() == 0.75
    assert encode(x[:0], "e5m2").shape == (0, 6)


def test_decoding_twice_gives_arrays_of_their_own():
    codes = np.array([0, 1], np.uint8)
    decode(codes, "e2m1")[:] = 9.0
    assert decode(codes, "e2m1").tolist() == [0.0, 0.5]


def test_stochastic_codes_need_a_seed():
    with pytest.raises(ValueError, match="needs a seed"):
        encode(np.ones(2), "e4m3fn", rounding="stochastic")
