"""Operands in the order that register tiles read them, and the panels shared among threads."""

from __future__ import annotations

from functools import partial
from threading import local
from typing import Any

import numpy as np

from numerics import threads
from numerics._kernels import panels, vectors

_KEPT_BYTES = 1 << 25  # of packed operands, per thread and operand
_LEAST_WORK = 4_000_000  # multiply-adds worth a second thread
_room = local()


def pack(a: np.ndarray, b: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Panels of rows, and of columns, an even number of them: a tile has two."""
    (rows, depth), columns = a.shape, b.shape[1]
    count = 2 * -(-columns // (2 * vectors.LANES_32))
    packed_a = _scratch("a", rows * depth)
    packed_b = _scratch("b", count * depth * vectors.LANES_32).reshape(count, depth, vectors.LANES_32)
    panels.pack_rows(a, packed_a, top)
    panels.pack_columns(b, packed_b, abs(b.strides[0]) < abs(b.strides[1]))
    return packed_a, packed_b


def over_panels(work: Any, packed_b: np.ndarray, rows: int) -> None:
    """Run ``work(first, last)`` over all panels of columns, in as many threads as that is worth."""
    count, depth, lanes = packed_b.shape
    parts = threads.parts(count, work=rows * count * lanes * depth, least=_LEAST_WORK)
    threads.run([partial(work, low, high) for low, high in parts])


def _scratch(name: str, size: int) -> np.ndarray:
    """Room for packed operands, kept by each thread: fresh pages cost more than the packing."""
    if 4 * size > _KEPT_BYTES:
        return np.empty(size, np.float32)
    kept: np.ndarray | None = getattr(_room, name, None)
    if kept is None or kept.size < size:
        kept = np.empty(max(size, 1), np.float32)
        setattr(_room, name, kept)
    return kept[:size]
