"""Dot products and matrix products under a declared accumulator, exact to the bit.

The result is defined by `numerics.accumulator.Accumulator`: ascending index, exact products, one
rounding per addition. Which arithmetic computes it (float32, float64, or float64 with rounding to
odd) is decided once per call by a certificate on the operands, and never changes a bit.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from numerics._sequential import sequential
from numerics._target import check_seed
from numerics.accumulator import Accumulator


def dot(
    a: Float[np.ndarray, " n"],
    b: Float[np.ndarray, " n"],
    accumulator: Accumulator | str,
    *,
    seed: int | None = None,
    stream: int = 0,
) -> float:
    """Dot product summed as `accumulator` says.

    Parameters
    ----------
    a, b : (n,)
        float32 or float64 operands, used as they are: round them to their format first.
    seed, stream
        Key of a stochastic accumulator.

    Returns
    -------
    A value of the accumulator's format (infinity or its largest value after an overflow).

    Examples
    --------
    >>> ones = np.ones(4096)
    >>> dot(ones, ones, "e6m9")  # swamping: 1024 + 1 rounds to 1024
    1024.0
    >>> dot(ones, ones, "e6m9 chunk=64")
    4096.0
    """
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"a and b must be 1-D and equal in shape, got {a.shape} and {b.shape}")
    return float(matmul(a[None, :], b[:, None], accumulator, seed=seed, stream=stream)[0, 0])


def matmul(
    a: Float[np.ndarray, "m k"],
    b: Float[np.ndarray, "k n"],
    accumulator: Accumulator | str,
    *,
    seed: int | None = None,
    stream: int = 0,
) -> Float[np.ndarray, "m n"]:
    """Matrix product in which every element is summed as `accumulator` says.

    Parameters
    ----------
    a, b : (m, k), (k, n)
        float32 or float64 operands, used as they are: round them to their format first. Any
        strides.
    seed, stream
        Key of a stochastic accumulator: the random word of an addition depends on the key, the
        output element and the index k alone.

    Returns
    -------
    (m, n) array of accumulator values, float32.

    Raises
    ------
    TypeError, ValueError
        Other dtypes, shapes that do not match, float64 operands whose products need more than 53
        bits, a missing seed.

    Examples
    --------
    >>> a = np.array([[1.0, 2.0**-10, 2.0**-10]], np.float32)
    >>> matmul(a, np.ones((3, 1), np.float32), "e6m9")  # each small term is lost on its own
    array([[1.]], dtype=float32)
    """
    accumulator = Accumulator.parse(accumulator)
    seed, stream = check_seed(accumulator.rounding, seed, stream)
    for name, operand in (("a", a), ("b", b)):
        if not isinstance(operand, np.ndarray) or operand.dtype not in (np.float32, np.float64):
            kind = getattr(operand, "dtype", type(operand).__name__)
            raise TypeError(f"{name} must be a float32 or float64 array, got {kind}")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"shapes must be (m, k) and (k, n), got {a.shape} and {b.shape}")
    if 0 in (*a.shape, *b.shape):
        return np.zeros((a.shape[0], b.shape[1]), np.float32)
    return sequential(a, b, accumulator, seed, stream)
