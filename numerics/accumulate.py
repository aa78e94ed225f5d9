"""Dot products and matrix products under a declared accumulator, exact to the bit.

The result is defined by `numerics.accumulator.Accumulator`: ascending index, exact products, one
rounding per addition. Which arithmetic computes it (float32, float64, or float64 with rounding to
odd) is decided once per call by a certificate on the operands, and never changes a bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from numerics import _kernels
from numerics._target import Target, check_seed
from numerics.accumulator import Accumulator
from numerics.formats import FloatFormat
from numerics.rounding import Mode

Path = Literal["float32", "float64", "exact"]
_BLOCK = 512  # columns per tile: the running sums stay in the first-level cache


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
    certificate = Certificate.of(a, b, accumulator)
    target = Target.of(accumulator.format, accumulator.rounding)
    chunk = min(accumulator.chunk or a.shape[1], a.shape[1])
    path = certificate.path
    if path == "exact":
        out = np.empty((a.shape[0], b.shape[1]), np.float32)
        left, right = np.ascontiguousarray(a), np.ascontiguousarray(b)
        _kernels.gemm_exact(left, right, out, chunk, *target, seed, stream)
        return out
    dtype, kernel = (np.float32, _kernels.gemm_f32) if path == "float32" else (np.float64, _kernels.gemm_f64)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Why a faster arithmetic gives the bits of the definition for these operands.

    With sa, sb significand bits, least units 2**ua, 2**ub and largest magnitudes of the operands,
    q = ua + ub, p the precision of the accumulator, and B a bound on every partial sum:

    * Nothing underflows inexactly if every sum is a multiple of the accumulator's least unit,
      2**q >= 2**(emin - m); below the normal range rounding to p bits then changes nothing.
    * Nothing overflows if 2 B is at most the largest accumulator value.
    * A t-bit sum may be rounded again to p bits if it is exact, 2 B < 2**(q + t); or if both
      addends have at most p bits and 2 p + 2 <= t, when double rounding to nearest is harmless
      (S. Figueroa, "When is double rounding innocuous?", SIGNUM Newsletter 30(3), 1995).
    * Products are exact if sa + sb <= t.
    * float32 also needs operands, products and the rounding constant, 2**(24 - p) times a sum, in its
      range, and a normal range no smaller than the accumulator's.

    B is the lesser of two: n terms of at most P grow to n P (1 + 2**-p)**n, and rounding to nearest
    stops growing at 2**(p + 1) P, where P is below half a unit in the last place.

    Attributes
    ----------
    path
        The arithmetic to use.
    bound
        B.
    """

    path: Path
    bound: float

    @classmethod
    def of(cls, a: np.ndarray, b: np.ndarray, accumulator: Accumulator) -> Certificate:
        """Certificate of ``a @ b``.

        Raises
        ------
        ValueError
            Products that float64 cannot hold.
        """
        (a_max, a_unit, a_bits, a_finite), (b_max, b_unit, b_bits, b_finite) = _facts(a), _facts(b)
        product_bits, unit = a_bits + b_bits, a_unit + b_unit
        if product_bits > 53:
            raise ValueError(
                f"products of the operands must fit 53 bits, got {a_bits} + {b_bits} significand bits; "
                f"round the operands to their format first"
            )
        if a_max and b_max and (unit < -1074 or frexp(a_max)[1] + frexp(b_max)[1] > 1023):
            raise ValueError(
                f"products of the operands must be in the range of float64, got magnitudes up to "
                f"{a_max:g} and {b_max:g} with least units 2**{a_unit} and 2**{b_unit}"
            )
        fmt, rounding = accumulator.format, accumulator.rounding
        if rounding.mode is not Mode.NEAREST_EVEN or not (a_finite and b_finite):
            return cls(path="exact", bound=float("inf"))
        p, length = fmt.precision, a.shape[1]
        chunk = min(accumulator.chunk or length, length)
        bound = _sum_bound(a_max * b_max, chunk, p)
        if chunk < length:
            bound = max(bound, _sum_bound(bound, -(-length // chunk), p))
        least = fmt.emin - (fmt.frac_bits if fmt.subnormals else 0)
        if unit < least or 2.0 * bound > fmt.max:
            return cls(path="exact", bound=bound)
        paths: tuple[tuple[Path, int], ...] = (("float32", 24), ("float64", 53))
        for path, t in paths:
            exact_sums = 2.0 * bound < 2.0 ** min(unit + t, 1000)
            harmless = product_bits <= p and 2 * p + 2 <= t
            if product_bits <= t and p < t and (exact_sums or harmless):
                if t == 24 and not _fits_float32(a_max, b_max, a_unit, b_unit, bound, fmt):
                    continue
                return cls(path=path, bound=bound)
        return cls(path="exact", bound=bound)


def _fits_float32(
    a_max: float, b_max: float, a_unit: int, b_unit: int, bound: float, fmt: FloatFormat
) -> bool:
    largest = max(a_max, b_max, bound * 2.0 ** (25 - fmt.precision))
    return largest < 2.0**127 and min(a_unit, b_unit, a_unit + b_unit) >= -149 and fmt.emin >= -126


def _facts(x: np.ndarray) -> tuple[float, int, int, bool]:
    flat = x.reshape(-1) if x.flags.c_contiguous else x.T.reshape(-1)
    found: tuple[Any, Any, Any, Any] = _kernels.operand_facts(flat)
    return float(found[0]), int(found[1]), int(found[2]), bool(found[3])


def _sum_bound(term: float, count: int, precision: int) -> float:
    growth = count * np.log1p(2.0**-precision)
    grown = term * count * float(np.exp(min(growth, 600.0)))
    return min(grown, 2.0 ** (precision + 1) * term)
