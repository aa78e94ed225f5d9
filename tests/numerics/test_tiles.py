"""Register tiles give the bits of the plain loops, whatever the shape, the chunk and the threads."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from numerics import _sequential, cast, matmul, threads
from numerics._tiles import DEPTH, LANES_32, ROWS


def operands(m, k, n, seed=0):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(m, k)), rng.normal(size=(k, n))
    return (cast(x.astype(np.float32), "e4m3fn") for x in (a, b))


def same(a, b, chunk, frac_bits, *, wide):
    tiles = _sequential._in_tiles(a, b, chunk, frac_bits, wide=wide)
    loops = _sequential._loops(a, b, chunk, frac_bits, wide=wide)
    np.testing.assert_array_equal(tiles.view(np.int32), loops.view(np.int32))


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
