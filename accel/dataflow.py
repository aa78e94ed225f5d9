"""What one matrix product does to a systolic array: cycles, edge reads and partial sums.

An R x C array works through a product ``O[m, n] = A[m, k] W[k, n]`` in folds, each a part of the
product that the array holds at once:

======== ======================= ================= ==================
dataflow stationary in the cells rows x columns    streamed per fold
======== ======================= ================= ==================
``os``   outputs                 m x n             k
``ws``   weights                 k x n             m rows of A
``is``   inputs                  k x m             n columns of W
======== ======================= ================= ==================

A fold that fills only part of the array takes as long as a full one. Counts are in elements, not
bits; reads are those at the edge of the array, where each element then passes from cell to cell.

References
----------
.. [SCALE-Sim] A. Samajdar et al., "A Systematic Methodology for Characterizing Scalability of DNN
   Accelerators using SCALE-Sim", ISPASS 2020. Cycles and reads equal those of its version 3, whose
   printout is one cycle short.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Dataflow: TypeAlias = Literal["os", "ws", "is"]
FoldOverlap: TypeAlias = Literal["serial", "pipelined"]

DATAFLOWS: tuple[Dataflow, ...] = ("os", "ws", "is")
FOLD_OVERLAPS: tuple[FoldOverlap, ...] = ("serial", "pipelined")


@dataclass(frozen=True, slots=True)
class ArrayCounts:
    """Work of one matrix product on the array.

    Attributes
    ----------
    cycles
        From the first element that enters to the last one that leaves.
    input_reads, weight_reads
        Elements of A and of W that enter at the edges.
    partial_sum_writes, partial_sum_reads
        Sums that leave the array, and those that come back from the accumulator buffer to be
        continued by a later fold.
    """

    cycles: int
    input_reads: int
    weight_reads: int
    partial_sum_writes: int
    partial_sum_reads: int

    def __add__(self, other: ArrayCounts) -> ArrayCounts:
        return ArrayCounts(
            self.cycles + other.cycles,
            self.input_reads + other.input_reads,
            self.weight_reads + other.weight_reads,
            self.partial_sum_writes + other.partial_sum_writes,
            self.partial_sum_reads + other.partial_sum_reads,
        )

    def __mul__(self, times: int) -> ArrayCounts:
        return ArrayCounts(
            self.cycles * times,
            self.input_reads * times,
            self.weight_reads * times,
            self.partial_sum_writes * times,
            self.partial_sum_reads * times,
        )


def array_counts(
    dataflow: Dataflow,
    rows: int,
    columns: int,
    m: int,
    n: int,
    k: int,
    fold_overlap: FoldOverlap = "serial",
) -> ArrayCounts:
    """Count what ``(m, k) @ (k, n)`` does to a `rows` x `columns` array [SCALE-Sim]_.

    Parameters
    ----------
    fold_overlap
        ``"serial"``: a fold begins when the one before has left the array. ``"pipelined"``: the
        stationary operand is double-buffered in the cells (or, for ``os``, results drain behind the
        next fold), so only the first fill and the last drain show; never slower than serial.

    Raises
    ------
    ValueError
        A size below 1, or an unknown dataflow or overlap.

    Examples
    --------
    One fold of a 4 x 4 array: 4 cycles to load the weights, then 10 rows, skewed by 4 + 4 - 2.

    >>> array_counts("ws", 4, 4, m=10, n=4, k=4)
    ArrayCounts(cycles=20, input_reads=40, weight_reads=16, partial_sum_writes=40, partial_sum_reads=0)
    """
    if min(rows, columns, m, n, k) < 1:
        raise ValueError(
            f"rows, columns, m, n and k must be at least 1, got {rows}, {columns}, {m}, {n} and {k}"
        )
    if fold_overlap not in FOLD_OVERLAPS:
        raise ValueError(f"fold_overlap must be one of {', '.join(FOLD_OVERLAPS)}; got {fold_overlap!r}")
    skew = rows + columns - 2
    if dataflow == "os":
        down, across = -(-m // rows), -(-n // columns)
        cycles = down * across * (k + skew)
        if fold_overlap == "pipelined":
            cycles = min(cycles, down * across * max(k, rows) + skew)
        return ArrayCounts(cycles, m * k * across, n * k * down, m * n, 0)
    if dataflow == "ws":
        held, streamed = n, m
    elif dataflow == "is":
        held, streamed = m, n
    else:
        raise ValueError(f"dataflow must be one of {', '.join(DATAFLOWS)}; got {dataflow!r}")
    down, across = -(-k // rows), -(-held // columns)
    cycles = down * across * (rows + streamed + skew)
    if fold_overlap == "pipelined":
        cycles = min(cycles, down * across * max(streamed, rows) + skew + rows)
    stream_reads, held_reads = streamed * k * across, held * k
    input_reads, weight_reads = (stream_reads, held_reads) if dataflow == "ws" else (held_reads, stream_reads)
    return ArrayCounts(cycles, input_reads, weight_reads, m * n * down, m * n * (down - 1))


def tiled_counts(
    dataflow: Dataflow,
    rows: int,
    columns: int,
    m: int,
    n: int,
    k: int,
    *,
    stream_limit: int,
    fold_overlap: FoldOverlap = "serial",
) -> ArrayCounts:
    """Count a product cut so that no column has more than `stream_limit` open partial sums.

    With stationary weights or inputs and k beyond the rows, every streamed row leaves a partial sum
    per column that waits in the accumulator buffer for the next fold. So m (``ws``) or n (``is``)
    is cut into tiles of `stream_limit` and a smaller last one; the stationary operand is fetched
    again for each. With k within the rows sums leave complete, and ``os`` keeps them in the cells:
    nothing is cut.

    Raises
    ------
    ValueError
        As :func:`array_counts`, or `stream_limit` is below 1.
    """
    if stream_limit < 1:
        raise ValueError(f"stream_limit must be at least 1, got {stream_limit}")
    streamed = n if dataflow == "is" else m
    if dataflow == "os" or k <= rows or streamed <= stream_limit:
        return array_counts(dataflow, rows, columns, m, n, k, fold_overlap)

    def tile(size: int) -> ArrayCounts:
        tile_m, tile_n = (m, size) if dataflow == "is" else (size, n)
        return array_counts(dataflow, rows, columns, tile_m, tile_n, k, fold_overlap)

    whole, rest = divmod(streamed, stream_limit)
    counts = tile(stream_limit) * whole
    return counts + tile(rest) if rest else counts
