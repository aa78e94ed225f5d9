"""Sums whose outcome is known: where e6m9 freezes, and how chunks and stochastic rounding help.

Data from U(1 - sqrt 3, 1 + sqrt 3), of mean 1 and standard deviation 1, as in N. Wang et al.,
"Training Deep Neural Networks with 8-bit Floating Point Numbers", NeurIPS 2018, section 4.
"""

import math

import numpy as np
import pytest

from numerics import Accumulator, dot, matmul


def uniform(rng, *shape):
    return rng.uniform(1 - math.sqrt(3), 1 + math.sqrt(3), shape).astype(np.float32)


def test_a_sum_in_e6m9_freezes_at_exactly_4096():
    # There the spacing is 8, and no addend exceeds half of it.
    x = uniform(np.random.default_rng(0), 4, 16384)
    for length in (8192, 16384):
        ones = np.ones((length, 1), np.float32)
        np.testing.assert_array_equal(matmul(x[:, :length], ones, "e6m9"), 4096.0)
    assert matmul(x[:, :4000], np.ones((4000, 1), np.float32), "e6m9").max() < 4096.0


def test_with_chunks_of_32_it_freezes_at_exactly_65536():
    x = uniform(np.random.default_rng(1), 1, 131072)[0]
    assert dot(x, np.ones_like(x), "e6m9 chunk=32") == 65536.0
    assert abs(dot(x[:32768], np.ones(32768, np.float32), "e6m9 chunk=32") / 32768 - 1) < 0.03


def test_stochastic_rounding_follows_the_sum_where_nearest_freezes():
    x = uniform(np.random.default_rng(2), 131072)
    total = float(x.astype(np.float64).sum())
    assert abs(dot(x, np.ones_like(x), "e6m9 rounding=stochastic", seed=0) / total - 1) < 0.13


def test_the_error_over_the_chunk_length_is_a_u():
    # numpy simulation of the same sums, 256 runs: relative error .75, .010, .0043, .0031, .0019, ...
    published = {1: 0.75, 8: 0.010, 32: 0.0043, 64: 0.0031, 256: 0.0019, 512: 0.0016, 1024: 0.0021,
                 4096: 0.078, 16384: 0.75}  # fmt: skip
    x = uniform(np.random.default_rng(3), 64, 16384)
    ones, total = np.ones((16384, 1), np.float32), x.astype(np.float64).sum(1)
    error = {}
    for chunk in published:
        sums = matmul(x, ones, Accumulator("e6m9", chunk=chunk))[:, 0]
        error[chunk] = np.linalg.norm(sums - total) / np.linalg.norm(total)
        assert error[chunk] == pytest.approx(published[chunk], rel=0.3)
    assert error[1] > error[8] > error[32] > error[64] > error[256] > error[512]
    assert error[512] < error[1024] < error[4096] < error[16384]
