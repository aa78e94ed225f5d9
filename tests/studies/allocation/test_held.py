"""Tensors held in few bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import decode, encode, parse_format
from studies.allocation.held import Held, scale_exponent


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9),
    st.sampled_from(["e2m1", "e3m2", "e4m3fn", "e5m6", "binary16", "bfloat16"]),
)
def test_the_scale_is_the_largest_power_of_two_that_fits(values, text):
    fmt, x = parse_format(text), np.array(values)
    n = scale_exponent(x, fmt)
    largest = np.abs(x).max()
    if largest == 0:
        assert n == 0
        return
    assert np.ldexp(largest, n) <= fmt.max
    assert n == 126 or np.ldexp(largest, n + 1) > fmt.max


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=20), st.sampled_from(["e2m1", "e3m2", "e5m6"]))
def test_what_comes_back_is_the_nearest_value_of_the_scaled_format(values, text):
    fmt, x = parse_format(text), np.array(values)
    held = Held({"x": text})
    held.put("x", x)
    n = scale_exponent(x, fmt)
    grid = np.ldexp(decode(np.arange(2**fmt.bits, dtype=np.uint16), fmt, np.float64), -n)
    grid = grid[np.isfinite(grid)]
    nearest = np.abs(x[:, None] - grid).min(axis=1)
    assert np.abs(held.get("x") - x) == pytest.approx(nearest, abs=0)


def test_reads_writes_and_gathers_are_counted_and_stored_bits_are_exact():
    held = Held({"x": "e3m2"})
    held.put("x", np.ones((4, 5)))
    held.get("x")
    assert held.gather("x", np.array([[0, 7], [19, 3]])).shape == (2, 2)
    (group,) = held.groups(["x"])
    assert (group.elements, group.accesses, group.fixed_bytes) == (20, 44 / 20, 3.0)
    assert held.packed_bytes() == {"x": 15}


def test_float64_is_held_as_it_is_and_cannot_be_changed_from_outside():
    held, x = Held(), np.array([0.1, 0.2])
    held.put("x", x)
    x[0] = held.get("x")[1] = 9.0
    assert held.get("x").tolist() == [0.1, 0.2]


def test_nan_and_wide_formats_are_refused():
    with pytest.raises(
        ValueError, match="format of x must be a float format of at most 16 bits, got binary32"
    ):
        Held({"x": "binary32"})
    with pytest.raises(FloatingPointError, match="x must be numbers, got NaN"):
        Held({"x": "e2m1"}).put("x", np.array([np.nan]))


def test_codes_are_those_of_the_format():
    held = Held({"x": "e2m1"})
    held.put("x", np.array([4.0, 6.0]))
    assert held.get("x").tolist() == decode(encode(np.array([4.0, 6.0]), "e2m1"), "e2m1").tolist()
