"""Which arithmetic may compute a rounded sum, decided once per call from the operands."""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp
from typing import Any, Literal

import numpy as np

from numerics._kernels import facts
from numerics.accumulator import Accumulator
from numerics.formats import FloatFormat
from numerics.rounding import Mode

Path = Literal["float32", "float32-full", "float64", "exact"]

_INFINITY_BITS = 0x7F800000  # of float32; NaNs are above


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

    Where something may underflow, overflow or be infinite, ``float32-full`` checks every sum for it. It
    needs p of at most 11 and products of at most p bits: in the normal range a float32 sum is then
    harmless as above. Below it, sums are rounded to multiples of the least unit u, and a product of p
    bits that is not itself halfway between two of them is at least u 2**-(p + 1) away, which the error
    of a float32 sum below 2**emin, u 2**(p - 25) at most, cannot bridge.

    B is the lesser of two: n terms of at most P grow to n P (1 + 2**-p)**n, and rounding to nearest
    stops growing at 2**(p + 1) P, where P is below half a unit in the last place.

    Attributes
    ----------
    path
        The arithmetic to use.
    bound
        B; infinite where nothing is proven of the sums.
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
        if rounding.mode is not Mode.NEAREST_EVEN:
            return cls(path="exact", bound=float("inf"))
        p, length = fmt.precision, a.shape[1]
        chunk = min(accumulator.chunk or length, length)
        bound = _sum_bound(a_max * b_max, chunk, p)
        if chunk < length:
            bound = max(bound, _sum_bound(bound, -(-length // chunk), p))
        least = fmt.emin - (fmt.frac_bits if fmt.subnormals else 0)
        if unit < least or 2.0 * bound > fmt.max or not (a_finite and b_finite):
            harmless = product_bits <= fmt.precision <= 11
            fits = _fits_float32(a_max, b_max, a_unit, b_unit, a_max * b_max, fmt)
            in_range = fmt.subnormals and fmt.max < 2.0 ** (104 + fmt.frac_bits)
            path: Path = "float32-full" if harmless and fits and in_range else "exact"
            return cls(path=path, bound=float("inf"))
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
    if x.dtype == np.float32:
        bits, unit, precision = facts.operand_facts_f32(flat)
        if bits < _INFINITY_BITS:
            return float(np.int32(bits).view(np.float32)), int(unit), int(precision), True
    found: tuple[Any, Any, Any, Any] = facts.operand_facts(flat)
    return float(found[0]), int(found[1]), int(found[2]), bool(found[3])


def _sum_bound(term: float, count: int, precision: int) -> float:
    growth = count * np.log1p(2.0**-precision)
    grown = term * count * float(np.exp(min(growth, 600.0)))
    return min(grown, 2.0 ** (precision + 1) * term)
