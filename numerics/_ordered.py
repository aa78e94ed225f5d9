"""Sums under any `Accumulator` in their declared order, and what happened in them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from numerics._kernels import ordered as kernels
from numerics._target import Target
from numerics.accumulator import Accumulator
from numerics.certificate import Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What happened in the roundings of one matrix product, summed over its elements.

    Attributes
    ----------
    additions
        Additions: of products, of lanes, of chunk sums, of the terms of a fused block.
    swamped
        Additions of a finite non-zero right operand (the term) that left the left one as it was; terms
        of a fused block of which the alignment left nothing.
    overflow
        Finite sums or products whose rounding gave an infinity or NaN; integer sums that wrapped.
    underflow
        Sums or products smaller than the smallest normal number and not representable.
    saturation
        Sums or products beyond the range that were held at the largest finite value.
    max_shift
        Largest difference of the exponents of two finite non-zero addends, or of a term and the largest
        one of its block: the bits by which an aligner must be able to shift.
    """

    additions: int = 0
    swamped: int = 0
    overflow: int = 0
    underflow: int = 0
    saturation: int = 0
    max_shift: int = 0

    @classmethod
    def of(cls, counts: np.ndarray) -> Report:
        """Report of what a kernel counted."""
        return cls(
            additions=int(counts[kernels.ADDITIONS]),
            swamped=int(counts[kernels.SWAMPED]),
            overflow=int(counts[kernels.OVERFLOW]),
            underflow=int(counts[kernels.UNDERFLOW]),
            saturation=int(counts[kernels.SATURATION]),
            max_shift=int(counts[kernels.SHIFT]),
        )

    def __add__(self, other: Report) -> Report:
        """Report of two products."""
        added = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Report(**added | {"max_shift": max(self.max_shift, other.max_shift)})


def ordered(
    a: np.ndarray,
    b: np.ndarray,
    accumulator: Accumulator,
    key: tuple[int, int, int],
    *,
    counting: bool = False,
) -> tuple[np.ndarray, Report]:
    """``a @ b`` for checked operands, neither of them empty; the report is all zeros if not `counting`.

    `key` is seed, stream and the number of the first output element.
    """
    Certificate.of(a, b, Accumulator(accumulator.format))  # raises unless products are exact in float64
    out = np.empty((a.shape[0], b.shape[1]), np.float32)
    counts = np.zeros(kernels.COUNTERS, np.int64)
    target = Target.of(accumulator.format, accumulator.rounding).scalars()
    product, outer = accumulator.product, accumulator.outer
    kernels.gemm_ordered(
        np.ascontiguousarray(a),
        np.ascontiguousarray(b),
        out,
        min(accumulator.chunk or a.shape[1], a.shape[1]),
        accumulator.lanes,
        accumulator.order == "pairwise",
        target,
        product is not None,
        target if product is None else Target.of(product, accumulator.rounding).scalars(),
        outer is not None,
        target if outer is None else Target.of(outer.format, outer.rounding).scalars(),
        *key,
        counting,
        counts,
    )
    return out, Report.of(counts)
