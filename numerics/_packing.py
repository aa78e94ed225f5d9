"""Operands in the order that register tiles read them, and the panels shared among threads."""

from __future__ import annotations

from functools import lru_cache, partial
from threading import local
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int64

from numerics import threads
from numerics._kernels import panels, vectors
from numerics.certificate import Operand


class Prepared(np.ndarray):
    """A right operand whose panels and facts are kept; what is cut out of it has none."""

    panels: np.ndarray | None
    operand: Operand | None
    glance: Operand | None

    def __array_finalize__(self, source: object) -> None:
        self.panels = self.operand = self.glance = None


def prepare(b: Float[np.ndarray, "k n"]) -> Float[np.ndarray, "k n"]:
    """A read-only copy of a right operand, looked at and packed once for many products.

    Worth it where few rows meet the same matrix again and again, as in inference. Any accumulator takes
    it; the results are those of `b` itself.

    Parameters
    ----------
    b : (k, n)
        float32.

    Raises
    ------
    TypeError, ValueError
        Another dtype, or no matrix.

    Examples
    --------
    >>> weights = prepare(np.ones((4096, 3), np.float32))
    >>> from numerics import matmul
    >>> matmul(np.ones((1, 4096), np.float32), weights, "e6m9")
    array([[1024., 1024., 1024.]], dtype=float32)
    """
    if not isinstance(b, np.ndarray) or b.dtype != np.float32:
        raise TypeError(f"b must be a float32 array, got {getattr(b, 'dtype', type(b).__name__)}")
    if b.ndim != 2:
        raise ValueError(f"b must have two axes, got shape {b.shape}")
    prepared = b.copy().view(Prepared)
    if b.size:
        prepared.operand, prepared.glance = Operand.of(b), Operand.at_a_glance(b)
        panels = np.empty((_count(b.shape[1]), b.shape[0], vectors.LANES_32), np.float32)
        _pack_columns(b, panels)
        prepared.panels = panels
    prepared.flags.writeable = False
    return prepared


_KEPT_BYTES = 1 << 25  # of packed operands, per thread and operand
_LEAST_WORK = 4_000_000  # multiply-adds worth a second thread
_room = local()


class SelfPacking(Protocol):
    """A right operand that exists in panels only."""

    @property
    def shape(self) -> tuple[int, int]:
        """Products and columns."""

    def pack_columns(self, out: Float[np.ndarray, "panels k lanes"]) -> None:
        """Fill `out`, after which there is room for one more vector."""


class Panels(NamedTuple):
    """Both operands in panels, and the first row of each panel of rows with their number at the end."""

    rows: Float[np.ndarray, " mk"]
    starts: Int64[np.ndarray, " panels"]
    columns: Float[np.ndarray, "panels k lanes"]


def pack(a: np.ndarray, b: np.ndarray | SelfPacking, top: int) -> Panels:
    """Panels of at most `top` rows, and of columns, an even number of them: a tile has two."""
    (rows, depth), columns = a.shape, b.shape[1]
    starts = row_starts(rows, top)
    packed_a = scratch("a", rows * depth)
    pack_a = partial(panels.pack_rows, a, packed_a, starts)
    if (kept := getattr(b, "panels", None)) is not None:
        pack_a()
        return Panels(packed_a, starts, kept)
    count = _count(columns)
    packed_b = scratch("b", count * depth * vectors.LANES_32).reshape(count, depth, vectors.LANES_32)
    pack_b = (
        partial(_pack_columns, b, packed_b)
        if isinstance(b, np.ndarray)
        else partial(b.pack_columns, packed_b)
    )
    if len(threads.parts(count, work=rows * count * depth * vectors.LANES_32, least=_LEAST_WORK)) > 1:
        threads.run([pack_a, pack_b])
    else:
        pack_a()
        pack_b()
    return Panels(packed_a, starts, packed_b)


@lru_cache(maxsize=256)
def row_starts(rows: int, top: int) -> Int64[np.ndarray, " panels"]:
    """Panels of `top` rows, and of 4, 2 and 1 for the rest."""
    starts = list(range(0, rows - rows % top + 1, top))
    for height in (4, 2, 1):
        while height < top and starts[-1] + height <= rows:
            starts.append(starts[-1] + height)
    return np.array(starts, np.int64)


def _count(columns: int) -> int:
    return 2 * -(-columns // (2 * vectors.LANES_32))


def _pack_columns(b: np.ndarray, out: np.ndarray) -> None:
    along_k = abs(b.strides[0]) < abs(b.strides[1])
    kernel = panels.pack_columns_along_k if along_k else panels.pack_columns
    kernel(np.asarray(b), out)


def over_panels(work: Any, packed_b: np.ndarray, rows: int) -> None:
    """Run ``work(first, last)`` over all panels of columns, in as many threads as that is worth."""
    count, depth, lanes = packed_b.shape
    share(work, count, rows * count * lanes * depth)


def share(work: Any, count: int, size: int) -> None:
    """Run ``work(first, last)`` over all of `count` parts, `size` multiply-adds, in as many threads."""
    if size < 2 * _LEAST_WORK:  # to ask for the number of cores takes as long as a small product
        work(0, count)
        return
    parts = threads.parts(count, work=size, least=_LEAST_WORK)
    threads.run([partial(work, low, high) for low, high in parts])


def scratch(name: str, size: int) -> Float[np.ndarray, " size"]:
    """Room for packed operands, kept by each thread: fresh pages cost more than the packing.

    There is room for a vector more than that.
    """
    more = size + vectors.LANES_32
    if 4 * size > _KEPT_BYTES:
        return np.empty(more, np.float32)[:size]
    kept: np.ndarray | None = getattr(_room, name, None)
    if kept is None or kept.size < more:
        kept = np.empty(more, np.float32)
        setattr(_room, name, kept)
    return kept[:size]
