"""Accumulators as values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numerics import Accumulator, FloatFormat, Mode, Rounding
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
