"""Sequential and chunked sums in a floating-point register: the choice of kernel."""

from __future__ import annotations

import numpy as np

from numerics import _kernels
from numerics._target import Target
from numerics.accumulator import Accumulator
from numerics.certificate import Certificate

_BLOCK = 512  # columns per tile: the running sums stay in the first-level cache


def sequential(a: np.ndarray, b: np.ndarray, accumulator: Accumulator, seed: int, stream: int) -> np.ndarray:
    """``a @ b`` for checked operands, neither of them empty; (m, n) float32."""
    certificate = Certificate.of(a, b, accumulator)
    target = Target.of(accumulator.format, accumulator.rounding)
    chunk = min(accumulator.chunk or a.shape[1], a.shape[1])
    if certificate.path == "exact":
        out = np.empty((a.shape[0], b.shape[1]), np.float32)
        left, right = np.ascontiguousarray(a), np.ascontiguousarray(b)
        _kernels.gemm_exact(left, right, out, chunk, *target, seed, stream)
        return out
    dtype, kernel = (
        (np.float32, _kernels.gemm_f32) if certificate.path == "float32" else (np.float64, _kernels.gemm_f64)
    )
    # Lanes run over the longer side of the result; the sums are the same for the transposed product.
    flip = a.shape[0] > b.shape[1]
    left, right = (b.T, a.T) if flip else (a, b)
    out = np.empty((left.shape[0], right.shape[1]), np.float32)
    kernel(
        np.ascontiguousarray(left, dtype),
        np.ascontiguousarray(right, dtype),
        out,
        chunk,
        target.frac_bits,
        _BLOCK,
    )
    return out.T if flip else out
