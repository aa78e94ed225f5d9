"""The branch-free cast kernels give the bits of the plain one, on any bit pattern and length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numerics import Rounding, cast, parse_format
from numerics._kernels import casts
from numerics._target import Target

FORMATS = ("e5m2", "e4m3fn", "e6m9", "e2m1", "e5m10", "e8m7", "e8m21", "e4m3noneb4", "e3m0none", "s3.4")


def patterns(count, seed=0):
    """Random float32 bit patterns: all exponents, subnormals, infinities, NaNs, both zeros."""
    rng = np.random.default_rng(seed)
    wild = rng.integers(0, 2**32, count, dtype=np.uint32).view(np.float32)
    tame = rng.normal(0, 4, count).astype(np.float32)
    ends = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1e-45], np.float32)
    return np.concatenate([wild, tame, ends])


def same_bits(one, other):
    nan = np.isnan(one)
    np.testing.assert_array_equal(nan, np.isnan(other))
    np.testing.assert_array_equal(one[~nan].view(np.int32), other[~nan].view(np.int32))


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("rounding", ["nearest-even", "stochastic", "stochastic:1", "stochastic:10"])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_any_pattern_is_rounded_alike(fmt, rounding):
    x = patterns(20_000)
    expected = np.empty_like(x)
    target = Target.of(parse_format(fmt), Rounding.parse(rounding))
    casts.cast_any(x, expected, target.scalars(), 7, 3)
    got = cast(x, fmt, rounding=rounding, seed=7, stream=3)
    if fmt == "s3.4":
        expected += 0.0
    same_bits(got, expected)


@given(length=st.integers(0, 2100), seed=st.integers(0, 2**40))
def test_blocks_of_random_words_join_without_a_seam(length, seed):
    x = np.full(length, 1.1, np.float32)
    expected = np.empty_like(x)
    casts.cast_any(x, expected, Target.of(parse_format("e5m2"), Rounding.STOCHASTIC).scalars(), seed, 1)
    same_bits(cast(x, "e5m2", rounding="stochastic", seed=seed, stream=1), expected)
