"""Accumulators as values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numerics import Accumulator, FloatFormat, Mode, Register, Rounding
from oracles.strategies import float_formats

roundings = st.sampled_from([mode for mode in Mode if mode is not Mode.STOCHASTIC]).map(
    lambda mode: Rounding(mode=mode)
) | st.integers(1, 24).map(lambda bits: Rounding(mode=Mode.STOCHASTIC, random_bits=bits))


@given(fmt=float_formats(signed=True), rounding=roundings, chunk=st.none() | st.integers(1, 10**6))
def test_text_reads_back(fmt, rounding, chunk):
    accumulator = Accumulator(fmt, rounding=rounding, chunk=chunk)
    assert Accumulator.parse(str(accumulator)) == accumulator
    assert Accumulator.parse(accumulator) is accumulator


def test_options_come_in_any_order():
    one = Accumulator.parse("e6m9 chunk=64 rounding=stochastic:10")
    assert one == Accumulator.parse("  e6m9   rounding=stochastic:10 chunk=64 ")
    assert one == Accumulator(FloatFormat.parse("e6m9"), rounding="stochastic:10", chunk=64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "format must be"),
        ("chunk=64", "format must be"),
        ("e6m9 chunk=0", "chunk must be at least 1, got 0"),
        ("e6m9 chunk=-1", "chunk must be a whole number, got '-1'"),
        ("e6m9 chunk=1.5", r"chunk must be a whole number, got '1\.5'"),
        ("e6m9 chunk", "chunk must be a whole number, got ''"),
        ("e6m9 rounding=nearest", "rounding must be one of"),
        ("e6m9 rounding=", "rounding must be one of"),
        ("e6m9 chunks=64", "got 'chunks'"),
        ("e6m9 64", "got '64'"),
        ("ue6m9", "accumulator format must be signed, got ue6m9"),
    ],
)
def test_a_bad_text_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        Accumulator.parse(text)


def test_an_option_given_twice_is_an_error():
    with pytest.raises(ValueError, match="chunk"):
        Accumulator.parse("e6m9 chunk=64 chunk=32")


@pytest.mark.parametrize("chunk", [2.0, "64", True])
def test_a_chunk_is_an_integer(chunk):
    with pytest.raises(TypeError, match="chunk must be an integer or None"):
        Accumulator("e6m9", chunk=chunk)


def test_fixed_point_is_no_accumulator_format():
    with pytest.raises(ValueError, match=r"got 's3\.4'"):
        Accumulator("s3.4")
    with pytest.raises(TypeError, match="FloatFormat"):
        Accumulator(8)


@given(
    fmt=float_formats(signed=True),
    rounding=roundings,
    product=st.none() | float_formats(signed=True),
    chunk=st.none() | st.integers(1, 10**6),
    outer=st.none() | st.builds(Register, float_formats(signed=True), roundings),
    lanes=st.integers(1, 1024),
    tree=st.booleans(),
)
def test_text_with_every_option_reads_back(fmt, rounding, product, chunk, outer, lanes, tree):
    accumulator = Accumulator(
        fmt,
        rounding=rounding,
        product=product,
        chunk=chunk,
        outer=None if chunk is None else outer,
        lanes=1 if tree else lanes,
        order="pairwise" if tree else "sequential",
    )
    assert Accumulator.parse(str(accumulator)) == accumulator


@pytest.mark.parametrize(
    "text",
    [
        "e6m9 product=e5m7 chunk=64 outer=e8m23 lanes=4",
        "e6m9 order=pairwise",
        "e6m9 chunk=8 outer=e8m13/toward-zero rounding=up",
    ],
)
def test_text_in_the_usual_order_prints_as_it_was(text):
    assert str(Accumulator.parse(text)) == text


def test_an_outer_register_without_a_rounding_takes_that_of_the_sum():
    accumulator = Accumulator.parse("e6m9 rounding=down chunk=4 outer=e8m23")
    assert accumulator.outer == Register("e8m23", "down")
    assert Accumulator("e6m9", rounding="down", chunk=4, outer=FloatFormat.parse("e8m23")) == accumulator
    assert Accumulator.parse("e6m9 rounding=down chunk=4 outer=e6m9").outer is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("e6m9 outer=e8m23", "outer=e8m23 needs chunk=<n>"),
        ("e6m9 order=pairwise lanes=4", "order=pairwise excludes lanes=4"),
        ("e6m9 order=tree", "order must be one of sequential, pairwise; got 'tree'"),
        ("e6m9 lanes=0", r"lanes must be in 1\.\.1024, got 0"),
        ("e6m9 lanes=x", "lanes must be a whole number, got 'x'"),
        ("e6m9 product=ue4m3fn", "product format must be signed, got ue4m3fn"),
        ("e6m9 chunk=4 outer=ue4m3fn", "outer format must be signed, got ue4m3fn"),
        ("e6m9 chunk=4 outer=e8m23/near", "rounding must be one of"),
        ("e6m9 product=s3.4", r"got 's3\.4'"),
    ],
)
def test_options_that_are_wrong_or_exclude_each_other_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        Accumulator.parse(text)


@pytest.mark.parametrize("lanes", [2.0, "4", True])
def test_lanes_are_an_integer(lanes):
    with pytest.raises(TypeError, match="lanes must be an integer"):
        Accumulator("e6m9", lanes=lanes)


@pytest.mark.parametrize("text", ["e4m3fnuz", "e4m3p3109", "ue4m4"])
def test_a_register_has_a_sign_and_both_zeros(text):
    with pytest.raises(ValueError, match="accumulator format must"):
        Accumulator(text)
