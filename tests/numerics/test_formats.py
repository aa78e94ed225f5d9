"""Formats: the published parameters, text that reads back, and errors that name what is wrong."""

from math import ldexp

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numerics
from numerics import FixedFormat, FloatFormat, parse_format
from oracles.rational import has_minus_zero, largest, last_code, smallest, value_of_code
from oracles.strategies import ALL_SPECIALS, fixed_formats, float_formats, formats

NAMED = ["E4M3", "E5M2", "E2M1", "E2M3", "E3M2", "HFP8", "E6M9", "BINARY16", "BFLOAT16", "TF32", "BINARY32"]


@pytest.mark.parametrize(
    ("text", "bits", "bias", "largest_value", "min_normal", "min_subnormal"),
    [
        # OCP OFP8 table 1, OCP MX tables 1 and 2, IEEE 754-2019 table 3.5, HFP8.
        ("e4m3fn", 8, 7, 448.0, 2.0**-6, 2.0**-9),
        ("e5m2", 8, 15, 57344.0, 2.0**-14, 2.0**-16),
        ("e2m1", 4, 1, 6.0, 1.0, 0.5),
        ("e2m3", 6, 1, 7.5, 1.0, 0.125),
        ("e3m2", 6, 3, 28.0, 0.25, 0.0625),
        ("hfp8", 8, 4, 1.875 * 2**11, 2.0**-3, 2.0**-6),
        ("fp16", 16, 15, 65504.0, 2.0**-14, 2.0**-24),
        ("bf16", 16, 127, (2 - 2.0**-7) * 2.0**127, 2.0**-126, 2.0**-133),
        ("tf32", 19, 127, (2 - 2.0**-10) * 2.0**127, 2.0**-126, 2.0**-136),
        ("fp32", 32, 127, (2 - 2.0**-23) * 2.0**127, 2.0**-126, 2.0**-149),
        ("e6m9", 16, 31, (2 - 2.0**-9) * 2.0**31, 2.0**-30, 2.0**-39),
        ("e4m7b10-flush", 12, 10, (2 - 2.0**-7) * 2.0**4, 2.0**-9, 2.0**-9),
        # IEEE P3109 binary8p4 and binary8p3; the two FNUZ formats; one top code taken of (1,6,9).
        ("binary8p4", 8, 8, 224.0, 2.0**-7, 2.0**-10),
        ("binary8p3", 8, 16, 49152.0, 2.0**-15, 2.0**-17),
        ("e4m3fnuz", 8, 8, 240.0, 2.0**-7, 2.0**-10),
        ("e5m2fnuz", 8, 16, 57344.0, 2.0**-15, 2.0**-17),
        ("dlfloat16", 16, 31, (2 - 2.0**-8) * 2.0**32, 2.0**-30, 2.0**-30),
        ("ue4m4", 8, 7, (2 - 2.0**-4) * 2.0**7, 2.0**-6, 2.0**-10),
    ],
)
def test_parameters_are_the_published_ones(text, bits, bias, largest_value, min_normal, min_subnormal):
    fmt = FloatFormat.parse(text)
    assert (fmt.bits, fmt.bias, fmt.max) == (bits, bias, largest_value)
    assert (fmt.min_normal, fmt.min_subnormal) == (min_normal, min_subnormal)
    assert fmt.precision == fmt.frac_bits + 1
    assert ldexp(1.0, fmt.emin) == min_normal
    assert ldexp(1.0, fmt.emax) <= largest_value < ldexp(2.0, fmt.emax)


@given(fmt=float_formats(families=ALL_SPECIALS))
def test_the_extremes_are_those_of_the_codes(fmt):
    assert fmt.max == largest(fmt)
    assert ldexp(1.0, fmt.emax) <= fmt.max < ldexp(2.0, fmt.emax)
    assert fmt.min_normal == value_of_code(1 << fmt.frac_bits, fmt)
    has_subnormals = fmt.subnormals and fmt.frac_bits > 0
    assert fmt.min_subnormal == value_of_code(1 if has_subnormals else 1 << fmt.frac_bits, fmt)
    assert last_code(fmt) < 1 << (fmt.bits - fmt.signed)
    assert fmt.has_infinity == (fmt.specials in {"ieee", "p3109"})
    assert fmt.has_nan == (fmt.specials != "none")
    assert fmt.has_minus_zero == has_minus_zero(fmt)


@given(fmt=fixed_formats())
def test_the_extremes_of_fixed_point_are_those_of_its_codes(fmt):
    assert (fmt.min, fmt.max) == (smallest(fmt), largest(fmt))
    assert (fmt.max - fmt.min) * 2.0**fmt.frac_bits + 1 == 2.0**fmt.bits


def test_a_format_has_a_number_other_than_zero():
    with pytest.raises(ValueError, match="frac_bits"):
        FloatFormat(exp_bits=1, frac_bits=0, specials="fn")  # two codes: zero and NaN


@given(fmt=formats())
def test_text_reads_back(fmt):
    assert parse_format(str(fmt)) == fmt
    assert parse_format(f" {str(fmt).upper()} ") == fmt
    assert parse_format(fmt) is fmt


@pytest.mark.parametrize("name", NAMED)
def test_named_formats_read_back(name):
    fmt = getattr(numerics, name)
    assert parse_format(str(fmt)) == fmt


@pytest.mark.parametrize("specials", ALL_SPECIALS)
def test_e4m3_reads_back_whatever_its_specials(specials):
    # The bare text "e4m3" is the OCP format, so the IEEE-like one cannot print so.
    fmt = FloatFormat(exp_bits=4, frac_bits=3, specials=specials)
    assert FloatFormat.parse(str(fmt)) == fmt


@given(one=formats(), other=formats())
def test_different_formats_print_differently(one, other):
    assert (str(one) == str(other)) == (one == other)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("e4m3", "E4M3"),
        ("bf16", "BFLOAT16"),
        ("fp16", "BINARY16"),
        ("e5m10", "BINARY16"),
        ("FP32", "BINARY32"),
        ("e2m1none", "E2M1"),
    ],
)
def test_names_and_spellings(text, name):
    assert parse_format(text) == getattr(numerics, name)


def test_integers_are_fixed_point():
    assert parse_format("int8") == FixedFormat(int_bits=7, frac_bits=0)
    assert parse_format("uint4") == FixedFormat(int_bits=4, frac_bits=0, signed=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"exp_bits": 9, "frac_bits": 2}, r"exp_bits must be in 1\.\.8, got 9"),
        ({"exp_bits": 0, "frac_bits": 2}, r"exp_bits must be in 1\.\.8, got 0"),
        ({"exp_bits": 5, "frac_bits": 24}, r"frac_bits must be in 0\.\.23, got 24"),
        ({"exp_bits": 1, "frac_bits": 2}, "exp_bits must be at least 2 with specials 'ieee', got 1"),
        ({"exp_bits": 4, "frac_bits": 0}, "frac_bits must be at least 1 with specials 'ieee', got 0"),
        ({"exp_bits": 4, "frac_bits": 3, "specials": "p754"}, "specials must be one of .*, got 'p754'"),
        (
            {"exp_bits": 4, "frac_bits": 3, "specials": "fnuz", "signed": False},
            "signed must be True with specials 'fnuz', got False",
        ),
        ({"exp_bits": 1, "frac_bits": 0, "specials": "p3109"}, "with exp_bits 1 and specials 'p3109', got 0"),
        ({"exp_bits": 4, "frac_bits": 3, "bias": 255}, r"bias must be in -127\.\.254, got 255"),
        ({"exp_bits": 4, "frac_bits": 3, "bias": 148}, "bias 148 .* float32"),
        ({"exp_bits": 8, "frac_bits": 3, "bias": 126}, "bias 126 .* float32"),
        ({"exp_bits": 8, "frac_bits": 3, "specials": "none"}, "bias 127 .* float32"),
    ],
)
def test_a_bad_float_format_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        FloatFormat(**arguments)


def test_the_widest_biases_are_allowed():
    assert FloatFormat(exp_bits=4, frac_bits=3, bias=147).min_subnormal == 2.0**-149
    assert FloatFormat(exp_bits=8, frac_bits=23).min_subnormal == 2.0**-149


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"int_bits": -1, "frac_bits": 2}, r"int_bits must be in 0\.\.31, got -1"),
        ({"int_bits": 2, "frac_bits": 32}, r"frac_bits must be in 0\.\.31, got 32"),
        ({"int_bits": 16, "frac_bits": 16}, r"1\.\.32 bits, got 33"),
        ({"int_bits": 0, "frac_bits": 0, "signed": False}, r"1\.\.32 bits, got 0"),
        ({"int_bits": 3, "frac_bits": 4, "overflow": "clip"}, "saturate or wrap, got 'clip'"),
    ],
)
def test_a_bad_fixed_format_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        FixedFormat(**arguments)


@pytest.mark.parametrize(
    "text",
    ["", "e4", "m3", "e4m3xx", "e-4m3", "4m3", "e4m3b", "e4m3fnb7-", "s3", "s3.4.5", "int", "float8", "u0.0"],
)
def test_a_text_that_is_no_format_is_an_error(text):
    with pytest.raises(ValueError, match=r"got"):
        parse_format(text)


@given(st.text(max_size=12))
def test_any_text_is_a_format_or_a_value_error(text):
    try:
        fmt = parse_format(text)
    except ValueError:
        return
    assert parse_format(str(fmt)) == fmt


def test_what_is_not_text_is_a_type_error():
    with pytest.raises(TypeError, match="got 8"):
        parse_format(8)


def test_formats_are_values():
    assert len({parse_format("fp16"), numerics.BINARY16, parse_format("e5m10")}) == 1
    with pytest.raises(AttributeError):
        numerics.E4M3.bias = 8


@pytest.mark.parametrize(
    "fmt", [f for f in numerics.NAMED_FORMATS.values() if not hasattr(f, "block")], ids=str
)
def test_info_and_values_are_those_of_the_codes(fmt):
    info = fmt.info()
    assert (info.bits, info.max, info.min) == (fmt.bits, largest(fmt), smallest(fmt))
    if fmt.bits > 16:
        with pytest.raises(ValueError, match=f"at most 16 bits, .* has {fmt.bits}"):
            fmt.values()
        return
    positive = {float(value_of_code(code, fmt)) for code in range(last_code(fmt) + 1)}
    expected = positive | {-value for value in positive if -value >= info.min} | {float(smallest(fmt))}
    assert fmt.values().tolist() == sorted(expected)
    assert info.finite_values == len(expected)
    assert info.smallest_subnormal == min(positive - {0.0})


@pytest.mark.parametrize(("fmt", "dtype"), [("fp16", np.float16), ("fp32", np.float32)])
def test_info_is_that_of_numpy(fmt, dtype):
    ours, theirs = parse_format(fmt).info(), np.finfo(dtype)
    for name in ("bits", "nexp", "nmant", "max", "min", "eps", "minexp", "maxexp"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("smallest_normal", "smallest_subnormal"):
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize("name", numerics.NAMED_FORMATS)
def test_every_name_of_the_catalogue_parses(name):
    fmt = numerics.NAMED_FORMATS[name]
    assert (numerics.BlockFormat.parse if hasattr(fmt, "block") else parse_format)(name) == fmt


def test_a_block_format_is_no_format_of_one_value():
    with pytest.raises(ValueError, match=r"one value's format is wanted; .* got 'mxfp4'"):
        parse_format("mxfp4")
