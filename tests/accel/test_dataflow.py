"""Array counts against a systolic array that really moves the numbers, cycle by cycle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.dataflow import ArrayCounts, array_counts, tiled_counts


def run_output_stationary(a, w, rows, columns):
    """Cells hold sums; A enters at the left and W at the top, each skewed by one cycle per cell."""
    m, k = a.shape
    n = w.shape[1]
    out = np.zeros((m, n), dtype=np.int64)
    cycles = a_reads = w_reads = writes = 0
    for m0 in range(0, m, rows):
        for n0 in range(0, n, columns):
            sums = np.zeros((rows, columns), dtype=np.int64)
            right = np.zeros((rows, columns), dtype=np.int64)  # A on its way right
            down = np.zeros((rows, columns), dtype=np.int64)
            last = None  # the cycle in which the far corner takes its last product
            clock = 0
            while last is None:
                right[:, 1:] = right[:, :-1].copy()
                down[1:, :] = down[:-1, :].copy()
                right[:, 0] = 0
                down[0, :] = 0
                for i in range(rows):
                    if 0 <= clock - i < k and m0 + i < m:
                        right[i, 0] = a[m0 + i, clock - i]
                        a_reads += 1
                for j in range(columns):
                    if 0 <= clock - j < k and n0 + j < n:
                        down[0, j] = w[clock - j, n0 + j]
                        w_reads += 1
                sums += right * down
                if clock - (rows - 1) - (columns - 1) == k - 1:
                    last = clock
                clock += 1
            cycles += clock
            tile = out[m0 : m0 + rows, n0 : n0 + columns]
            tile[:] = sums[: tile.shape[0], : tile.shape[1]]
            writes += tile.size
    return out, ArrayCounts(cycles, a_reads, w_reads, writes, 0)


def run_stationary(stream, held, rows, columns):
    """Cells hold `held` (k, h); rows of `stream` (s, k) enter skewed; sums run down, then to a buffer."""
    s, k = stream.shape
    h = held.shape[1]
    buffer = np.zeros((s, h), dtype=np.int64)
    cycles = stream_reads = held_reads = writes = reads = 0
    for h0 in range(0, h, columns):
        for k0 in range(0, k, rows):
            cells = np.zeros((rows, columns), dtype=np.int64)
            for step in range(rows):  # the last row of the tile goes in first
                cells[1:] = cells[:-1].copy()
                cells[0] = 0
                row = k0 + rows - 1 - step
                if row < k:
                    width = min(columns, h - h0)
                    cells[0, :width] = held[row, h0 : h0 + width]
                    held_reads += width
                cycles += 1
            right = np.zeros((rows, columns), dtype=np.int64)
            sums = np.zeros((rows, columns), dtype=np.int64)
            left, clock = s * columns, 0  # sums still to leave the array, padding included
            while left:
                right[:, 1:] = right[:, :-1].copy()
                right[:, 0] = 0
                for i in range(rows):
                    if 0 <= clock - i < s and k0 + i < k:
                        right[i, 0] = stream[clock - i, k0 + i]
                        stream_reads += 1
                sums[1:] = sums[:-1].copy()
                sums[0] = 0
                sums += right * cells
                for j in range(columns):
                    row = clock - (rows - 1) - j
                    if 0 <= row < s:
                        left -= 1
                        if h0 + j < h:
                            reads += k0 > 0
                            buffer[row, h0 + j] += sums[rows - 1, j]
                            writes += 1
                clock += 1
            cycles += clock
    return buffer, (cycles, stream_reads, held_reads, writes, reads)


SIZES = st.integers(1, 9)
EDGES = st.integers(1, 4)


@settings(max_examples=40)
@given(EDGES, EDGES, SIZES, SIZES, SIZES)
def test_counts_are_those_of_a_cycle_by_cycle_array(rows, columns, m, n, k):
    rng = np.random.default_rng(m * 100 + n * 10 + k)
    a, w = rng.integers(-9, 9, (m, k)), rng.integers(-9, 9, (k, n))

    out, counts = run_output_stationary(a, w, rows, columns)
    assert (out == a @ w).all()
    assert array_counts("os", rows, columns, m, n, k) == counts

    out, (cycles, stream, held, writes, reads) = run_stationary(a, w, rows, columns)
    assert (out == a @ w).all()
    assert array_counts("ws", rows, columns, m, n, k) == ArrayCounts(cycles, stream, held, writes, reads)

    out, (cycles, stream, held, writes, reads) = run_stationary(w.T, a.T, rows, columns)
    assert (a @ w == out.T).all()
    assert array_counts("is", rows, columns, m, n, k) == ArrayCounts(cycles, held, stream, writes, reads)


# SCALE-Sim 3.0.0 on layers of AlexNet and ResNet-18: cycles, reads of A and W.
@pytest.mark.parametrize(
    ("dataflow", "edge", "m", "n", "k", "cycles", "a_reads", "w_reads"),
    [
        ("os", 64, 729, 128, 1200, 31824, 1749600, 1843200),
        ("ws", 64, 729, 128, 1200, 34922, 1749600, 153600),
        ("is", 32, 729, 128, 1200, 194028, 874800, 3532800),
        ("ws", 32, 12544, 64, 147, 126380, 3687936, 9408),
        ("is", 64, 3136, 64, 576, 112014, 1806336, 1806336),
    ],
)
def test_published_simulator_runs_are_reproduced(dataflow, edge, m, n, k, cycles, a_reads, w_reads):
    counts = array_counts(dataflow, edge, edge, m, n, k)
    assert (counts.cycles, counts.input_reads, counts.weight_reads) == (cycles, a_reads, w_reads)


def test_pipelined_folds_by_hand():
    # 8 x 8 weights on 4 x 4 cells: 4 folds of 10 streamed rows, one fill of 4, one skew of 6.
    assert array_counts("ws", 4, 4, 10, 8, 8, "pipelined").cycles == 4 * 10 + 6 + 4
    # 3 streamed rows hide nothing: loading the next 4 rows of weights takes longer.
    assert array_counts("ws", 4, 4, 3, 8, 8, "pipelined").cycles == 4 * 4 + 6 + 4
    assert array_counts("os", 4, 4, 8, 8, 10, "pipelined").cycles == 4 * 10 + 6


@given(st.sampled_from(["os", "ws", "is"]), EDGES, EDGES, SIZES, SIZES, SIZES)
def test_pipelining_is_never_slower_and_moves_the_same(dataflow, rows, columns, m, n, k):
    serial = array_counts(dataflow, rows, columns, m, n, k)
    pipelined = array_counts(dataflow, rows, columns, m, n, k, "pipelined")
    assert pipelined.cycles <= serial.cycles
    assert pipelined.input_reads == serial.input_reads
    assert pipelined.partial_sum_writes == serial.partial_sum_writes


@given(st.sampled_from(["os", "ws", "is"]), EDGES, EDGES, SIZES, SIZES, SIZES, st.integers(1, 9))
def test_tiles_with_their_remainder_cover_the_product_once(dataflow, rows, columns, m, n, k, limit):
    counts = tiled_counts(dataflow, rows, columns, m, n, k, stream_limit=limit)
    whole = array_counts(dataflow, rows, columns, m, n, k)
    assert counts.partial_sum_writes == whole.partial_sum_writes
    assert counts.partial_sum_reads == whole.partial_sum_reads
    if dataflow == "os" or k <= rows:
        assert counts == whole
    else:
        tiles = -(-(m if dataflow == "ws" else n) // limit)
        stationary, streamed = ("weight_reads", "input_reads")[:: 1 if dataflow == "ws" else -1]
        assert getattr(counts, stationary) == tiles * getattr(whole, stationary)
        assert getattr(counts, streamed) == getattr(whole, streamed)
        assert counts.cycles >= whole.cycles


def test_tiles_by_hand():
    # m = 10 in tiles of 4, 4 and 2; 2 x 1 folds each of 4 + m_t + 6 cycles; 8 x 4 weights each time.
    counts = tiled_counts("ws", 4, 4, 10, 4, 8, stream_limit=4)
    assert counts.cycles == 2 * 14 + 2 * 14 + 2 * 12
    assert counts.weight_reads == 3 * 32
    assert counts.input_reads == 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ws", 0, 4, 1, 1, 1), "must be at least 1, got 0, 4, 1, 1 and 1"),
        (("rs", 4, 4, 1, 1, 1), "dataflow must be one of os, ws, is; got 'rs'"),
        (("ws", 4, 4, 1, 1, 1, "none"), "fold_overlap must be one of serial, pipelined; got 'none'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        array_counts(*arguments)


def test_a_stream_limit_of_zero_is_refused():
    with pytest.raises(ValueError, match="stream_limit must be at least 1, got 0"):
        tiled_counts("ws", 4, 4, 1, 1, 8, stream_limit=0)
