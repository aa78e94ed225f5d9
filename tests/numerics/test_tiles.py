"""Register tiles give the bits of the plain loops, whatever the shape, the chunk and the threads."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from numerics import Accumulator, Certificate, _sequential, cast, matmul, threads
from numerics._kernels import loops, random, roundings, tiles, vectors
from numerics._kernels.tiles import DEPTH
from numerics._kernels.vectors import LANES_32
from numerics._target import Target

ROWS = 8  # no tile is taller


def operands(m, k, n, seed=0):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(m, k)), rng.normal(size=(k, n))
    return (cast(x.astype(np.float32), "e4m3fn") for x in (a, b))


def same(a, b, chunk, frac_bits, *, wide):
    setting = roundings.Nearest64(52 - frac_bits) if wide else roundings.Nearest32(23 - frac_bits)
    found = _sequential._in_tiles(a, b, chunk, setting, vectors.TO_NEAREST)
    expected = _sequential._loops(a, b, chunk, frac_bits, wide=wide)
    np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))


@given(
    m=st.integers(1, 3 * ROWS),
    n=st.integers(1, 5 * LANES_32),
    k=st.integers(1, 70),
    chunk=st.integers(1, 80),
    frac_bits=st.integers(1, 10),
    wide=st.booleans(),
    seed=st.integers(0, 99),
)
@example(m=ROWS, n=2 * LANES_32, k=64, chunk=64, frac_bits=9, wide=False, seed=0)
@example(m=1, n=1, k=1, chunk=1, frac_bits=9, wide=True, seed=0)
def test_tiles_of_any_shape_give_the_bits_of_the_loops(m, n, k, chunk, frac_bits, wide, seed):
    a, b = operands(m, k, n, seed)
    same(a, b, min(chunk, k), frac_bits, wide=wide)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("depth", [DEPTH - 1, DEPTH, DEPTH + 1, 2 * DEPTH + 3])
@pytest.mark.parametrize("chunk", [None, 7, 64, DEPTH + 1])
def test_a_sum_put_down_and_taken_up_again_is_the_same_sum(depth, chunk, wide):
    a, b = operands(ROWS + 3, depth, LANES_32 + 1)
    same(a, b, min(chunk or depth, depth), 6, wide=wide)


@pytest.mark.parametrize("wide", [False, True])
def test_operands_of_any_stride_are_packed_alike(wide):
    a, b = operands(40, 90, 70)
    same(a[::2, ::3], b[::3, ::-1], 30, 5, wide=wide)
    same(np.asfortranarray(a), np.asfortranarray(b), 90, 5, wide=wide)
    same(b.T, a.T, 90, 5, wide=wide)


def test_the_number_of_threads_changes_no_bit():
    a, b = operands(256, 256, 200)
    try:
        results = []
        for count in (1, 2, 3):
            threads.limit(count)
            results.append(matmul(a, b, "e6m9 chunk=64"))
    finally:
        threads.limit(None)
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_the_environment_limits_the_threads():
    code = "from numerics import threads; print(threads.number())"
    for count in ("1", "2"):
        printed = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True,
            env={"PATH": "", "NUMBA_NUM_THREADS": count},
        ).stdout  # fmt: skip
        assert printed.strip() == count


def test_a_limit_below_one_is_refused():
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        threads.limit(0)


@given(count=st.integers(1, 40), wanted=st.integers(1, 5))
def test_parts_cover_every_panel_once_and_keep_pairs_together(count, wanted):
    threads.limit(wanted)
    try:
        found = threads.parts(count, work=10**9, least=1)
    finally:
        threads.limit(None)
    assert [panel for low, high in found for panel in range(low, high)] == list(range(count))
    assert len(found) <= wanted
    assert all(low % 2 == 0 for low, _ in found)


def test_a_task_that_fails_in_a_thread_raises_here():
    def fail():
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        threads.run([lambda: None, fail])


FULL = ("e5m10", "e4m7", "e5m5", "e3m6", "e4m10none", "e5m2")


@settings(max_examples=150)
@given(
    m=st.integers(1, 2 * ROWS + 3),
    n=st.integers(1, 40),
    k=st.integers(1, 40),
    chunk=st.sampled_from([None, 1, 5, 16]),
    text=st.sampled_from(FULL),
    operand=st.sampled_from(["e5m2", "e4m3fn", "e2m1", "e4m3noneb12"]),
    scales=st.tuples(st.integers(-16, 14), st.integers(-14, 14)),
    special=st.sampled_from([None, None, np.inf, -np.inf, np.nan, -0.0]),
    seed=st.integers(0, 99),
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_sums_that_overflow_underflow_or_are_no_numbers_are_those_of_the_exact_kernel(
    m, n, k, chunk, text, operand, scales, special, seed
):
    rng = np.random.default_rng(seed)
    wide = [
        np.exp2(rng.integers(-6, 6, shape) + s) for shape, s in zip(((m, k), (k, n)), scales, strict=True)
    ]
    a, b = (
        cast((rng.normal(size=w.shape) * w).astype(np.float32), operand, overflow="saturate") for w in wide
    )
    if special is not None:
        a.flat[rng.integers(a.size)] = special
    accumulator = Accumulator(text, chunk=chunk)
    expected = np.empty((m, n), np.float32)
    target = Target.of(accumulator.format, accumulator.rounding)
    loops.gemm_exact(a, b, expected, min(chunk or k, k), target.scalars(), 0, 0, 0)
    got = matmul(a, b, accumulator)
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(got), nan)
    np.testing.assert_array_equal(got[~nan].view(np.int32), expected[~nan].view(np.int32))


def test_what_may_overflow_or_underflow_takes_the_full_path():
    a, b = operands(4, 50, 4)
    big, small = (np.float32(2.0**e) for e in (12, -20))
    assert Certificate.of(a * big, b, Accumulator("e5m10")).path == "float32-full"
    assert Certificate.of(a * small, b, Accumulator("e5m10")).path == "float32-full"
    assert Certificate.of(a, b, Accumulator("e5m10")).path == "float32"
    # Products of eight bits do not fit a register of five.
    assert Certificate.of(a * big, b, Accumulator("e5m4")).path == "float64-full"


FORMATS = (
    *("e6m9", "e8m13", "e8m20", "e8m2", "e6m9-flush", "e8m22", "e8m23", "e5m2", "e4m3fn", "e5m10"),
    *("e5m3-flush", "e2m1", "e4m3none", "e6m5fused-top"),
)
DIRECTED = ("toward-zero", "nearest-away", "down", "up")
STOCHASTIC = (
    "stochastic",
    "stochastic:1",
    "stochastic:10",
    "stochastic:14",
    "stochastic:15",
    "stochastic:32",
)


@settings(max_examples=500)
@given(
    m=st.integers(1, 2 * ROWS + 3),
    n=st.integers(1, 5 * LANES_32 // 2),
    k=st.integers(1, 40),
    chunk=st.sampled_from([None, 1, 5, 16]),
    text=st.sampled_from(FORMATS),
    rounding=st.sampled_from((*DIRECTED, *STOCHASTIC, "nearest-even", "to-odd")),
    operand=st.sampled_from(["e5m2", "e4m3fn", "e2m1", "fp16", "bf16"]),
    spread=st.sampled_from([0, 0, 4, 12]),
    scale=st.sampled_from([0, 0, -8, 8]),
    cancel=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_rounding_in_tiles_is_that_of_the_exact_kernel(
    m, n, k, chunk, text, rounding, operand, spread, scale, cancel, seed
):
    rng = np.random.default_rng(seed)
    drawn = []
    for shape in ((m, k), (k, n)):
        x = rng.normal(size=shape) * 2.0 ** rng.integers(scale - spread, scale + spread + 1, shape)
        drawn.append(cast(x.astype(np.float32), operand, overflow="saturate"))
    a, b = drawn
    if cancel and k > 1:  # exact zeros inside the sums
        a[:, 1::2], b[1::2] = -a[:, : k // 2 * 2 : 2], b[: k // 2 * 2 : 2]
    accumulator = Accumulator(text, chunk=chunk, rounding=rounding)
    expected = np.empty((m, n), np.float32)
    target = Target.of(accumulator.format, accumulator.rounding)
    loops.gemm_exact(a, b, expected, min(chunk or k, k), target.scalars(), seed, 3, 0)
    got = matmul(a, b, accumulator, seed=seed, stream=3)
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(got), nan)
    np.testing.assert_array_equal(got[~nan].view(np.int32), expected[~nan].view(np.int32))


def test_directed_and_stochastic_sums_in_range_take_the_tiles():
    a, b = operands(4, 50, 4)
    for rounding in DIRECTED + STOCHASTIC:
        assert Certificate.of(a, b, Accumulator("e6m9", rounding=rounding)).path == "float32"
    assert Certificate.of(a, b, Accumulator("e6m9", rounding="to-odd")).path == "float64-full"
    for rounding in (*DIRECTED, *STOCHASTIC, "nearest-even", "to-odd"):
        assert Certificate.of(a, b, Accumulator("e5m2", rounding=rounding)).path == "float64-full"
        nan = a.copy()
        nan[0, 0] = np.nan
        assert Certificate.of(nan, b, Accumulator("e5m2", rounding=rounding)).path == "exact"


@pytest.mark.parametrize("rounding", STOCHASTIC)
def test_sums_that_float32_cannot_hold_are_done_again(rounding):
    # 2**15 + 2**-10 needs 26 bits; every tile has such a sum in some step of every run of DEPTH.
    rng = np.random.default_rng(0)
    depth = 2 * DEPTH + 70
    a = rng.choice(np.array([1.0, -1.0, 2.0**-10, 2.0**15, -(2.0**15)], np.float32), (7, depth))
    b = np.ones((depth, 2 * LANES_32 + 3), np.float32)
    for chunk in (None, 100):
        accumulator = Accumulator("e6m9", rounding=rounding, chunk=chunk)
        expected = np.empty((7, b.shape[1]), np.float32)
        target = Target.of(accumulator.format, accumulator.rounding)
        loops.gemm_exact(a, b, expected, chunk or depth, target.scalars(), 5, 0, 0)
        np.testing.assert_array_equal(matmul(a, b, accumulator, seed=5), expected)


def test_sums_too_large_to_be_safe_are_finished_exactly():
    # Toward the upper end of e5m10, 65504; the certificate cannot exclude an overflow in later runs.
    a = np.full((9, 3 * DEPTH), 8.0, np.float32)
    b = np.ones((3 * DEPTH, LANES_32 + 2), np.float32)
    b[:, 1] = -1.0
    b[:, 2] = 0.001953125
    for chunk in (None, 256):
        accumulator = Accumulator("e5m10", rounding="stochastic", chunk=chunk)
        assert Certificate.of(a, b, accumulator).ceiling < 65504
        expected = np.empty((9, b.shape[1]), np.float32)
        target = Target.of(accumulator.format, accumulator.rounding)
        loops.gemm_exact(a, b, expected, chunk or 3 * DEPTH, target.scalars(), 5, 0, 0)
        np.testing.assert_array_equal(matmul(a, b, accumulator, seed=5), expected)


def test_a_word_that_does_not_decide_sends_a_tile_to_the_exact_kernel(monkeypatch):
    # 1 + d: of the 33 bits of d below the last place of 1 the first 32 complement the word of the addition.
    finished = []
    exactly = tiles.finish_exactly
    monkeypatch.setattr(tiles, "finish_exactly", lambda *args: finished.append(args) or exactly(*args))
    whole, stream = next(
        (2 * (0xFFFFFFFF - word) + 1, stream)
        for stream in range(100)
        if (word := int(random.sum_word(0, 1, 0, *random.stream_key(1, stream))))
        and factors(2 * (0xFFFFFFFF - word) + 1)
    )
    left, right = factors(whole)
    a = np.array([[1.0, left]], np.float32)
    b = np.ones((2, LANES_32), np.float32)
    b[1, 0] = right * 2.0**-42
    accumulator = Accumulator("e8m9", rounding="stochastic")
    expected = np.empty((1, LANES_32), np.float32)
    target = Target.of(accumulator.format, accumulator.rounding)
    loops.gemm_exact(a, b, expected, 2, target.scalars(), 1, stream, 0)
    np.testing.assert_array_equal(matmul(a, b, accumulator, seed=1, stream=stream), expected)
    assert len(finished) == 1


def factors(number):
    """Two factors that fit float32, or nothing."""
    for low in range(1 << 11, 1 << 17):
        if number % low == 0 and number // low < 1 << 24:
            return low, number // low
    return None


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 30), st.integers(1, 70)),
    chunk=st.one_of(st.none(), st.integers(1, 12)),
    exponents=st.sampled_from([(-3, 3), (-140, -100), (-75, -60), (50, 63), (0, 127)]),
)
def test_float32_operands_into_binary32_are_those_of_the_plain_loops(seed, shape, chunk, exponents):
    # All 24 bits of each operand: products have 48, and only a fused multiply-add rounds once.
    rng = np.random.default_rng(seed)
    m, k, n = shape
    a, b = (
        np.ldexp(rng.uniform(-2, 2, size), rng.integers(*exponents, size)).astype(np.float32)
        for size in ((m, k), (k, n))
    )
    a[rng.random(a.shape) < 0.2] = -0.0
    accumulator = Accumulator("e8m23", chunk=chunk)
    assert Certificate.of(a, b, accumulator).path == "binary32"
    expected = np.empty((m, n), np.float32)
    target = Target.of(accumulator.format, accumulator.rounding).scalars()
    loops.gemm_exact(a, b, expected, min(chunk or k, k), target, 0, 0, 0)
    found = matmul(a, b, accumulator)
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), nan)
    np.testing.assert_array_equal(found.view(np.int32)[~nan], expected.view(np.int32)[~nan])
