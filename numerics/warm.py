"""Compile every kernel once, in one process, so that others find them in Numba's cache."""

from __future__ import annotations

import numpy as np

from numerics.accumulate import matmul
from numerics.convolution import Geometry, convolve, convolve_weight_gradient
from numerics.elementwise import axpy, cast

_WINDOW, _POINT = Geometry((2, 2), padding=(1, 1)), Geometry((1, 1))


def compile_kernels() -> None:
    """Compile (or load from the cache) all kernels for float32 operands.

    Several processes that fill one cache at the same time have crashed Numba: call this before
    starting them. It takes the better part of a minute the first time.
    """
    x = np.array([[1.0, 2.0], [3.0, 2.0**-20]], np.float32)
    for rounding in ("nearest-even", "stochastic"):
        cast(x, "e5m2", rounding=rounding, seed=0)
        cast(x, "s3.4", rounding=rounding, seed=0)  # ends that are not symmetric
        for fmt in ("e6m9", "e6m9-flush"):
            axpy(0.5, x, x, fmt, rounding=rounding, seed=0)
        # Sums in float32 and in float64 tiles, and of an infinity, in plain loops.
        for operand in (x, 2.0**-20 * x, np.inf * x):
            matmul(operand, x, f"e5m10 rounding={rounding}", seed=0)
    # Operands of every memory layout, on each fast path to nearest: float32, float64, and overflowing.
    wide = np.full((4, 4), 1.0 + 2.0**-12, np.float32)
    for scale, accumulator in ((0.0, "e6m9"), (1.0, "e8m13"), (1e6, "e5m10"), (1.0, "e2m1")):
        factor = np.float32(scale) * wide
        for a in (factor[:2, :2].copy(), factor[:2, :2].T.copy().T, factor[::2, ::2]):
            for b in (x, x.T, np.repeat(x, 2, 1)[:, ::2]):
                matmul(a, b, accumulator)
                matmul(np.stack([a, a]), np.stack([b, b]), accumulator)
        image = factor[None, None, :2, :2].copy()
        for summed in (accumulator, f"{accumulator} rounding=stochastic"):
            convolve(image, image, _WINDOW, summed, seed=0)
            convolve_weight_gradient(image, image, _POINT, summed, seed=0)
