"""Which arithmetic may compute a rounded sum, decided once per call from the operands."""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from numerics._kernels import facts
from numerics._kernels.tiles import CHECKED_DEPTH
from numerics._kernels.vectors import HAS_DIRECTED
from numerics.accumulator import Accumulator
from numerics.formats import BINARY32, FloatFormat
from numerics.rounding import Mode, Rounding

Path = Literal["binary32", "float32", "float32-full", "float64", "float64-full", "exact"]

_INFINITY_BITS = 0x7F800000  # of float32; NaNs are above
_LEAST_NORMAL_BITS = 0x00800000


class Operand(NamedTuple):
    """What is known of an operand: an upper bound of each kind over its elements.

    Attributes
    ----------
    largest
        Largest magnitude.
    unit
        Exponent of the largest power of two that divides every element; 2000 for zeros only.
    bits
        Significand bits, from the first that is set to the last.
    finite
        Whether there is neither infinity nor NaN; such elements count for nothing else.
    """

    largest: float
    unit: int
    bits: int
    finite: bool

    @classmethod
    def at_a_glance(cls, x: np.ndarray) -> Operand | None:
        """The same with a `unit` that may be too small, in a third of the time; ``None`` where that fails.

        Elements have the bits that any of them has, and the least one has them all.
        """
        if x.dtype != np.float32:
            return None
        if (kept := getattr(x, "glance", None)) is not None:
            return cast("Operand", kept)
        top, least, union = facts.bounds_f32(_flat(x).view(np.int32))
        if top >= _INFINITY_BITS or least < _LEAST_NORMAL_BITS:
            return None
        if top == 0:
            return cls(0.0, 2000, 0, True)
        bits = 24 - min(((int(union) & -int(union)).bit_length() - 1), 23)
        return cls(float(np.int32(top).view(np.float32)), (int(least) >> 23) - 126 - bits, bits, True)

    @classmethod
    def of(cls, x: np.ndarray) -> Operand:
        """Look at every element of a float32 or float64 array, unless it is kept (`numerics.prepare`)."""
        if (kept := getattr(x, "operand", None)) is not None:
            return cast("Operand", kept)
        flat = _flat(x)
        if (quick := cls.at_a_glance(x)) is not None:
            return (
                quick
                if quick.largest == 0.0
                else quick._replace(unit=int(facts.unit_f32(flat.view(np.int32))))
            )
        found: tuple[Any, Any, Any, Any] = facts.operand_facts(flat)
        return cls(float(found[0]), int(found[1]), int(found[2]), bool(found[3]))


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(-1) if x.flags.c_contiguous else x.T.reshape(-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Why a faster arithmetic gives the bits of the definition for these operands.

    Of float32 operands into binary32 to nearest even, ``binary32``, nothing need be known: a fused
    multiply-add of the processor is the definition. For all other registers:

    With sa, sb significand bits, least units 2**ua, 2**ub and largest magnitudes of the operands,
    q = ua + ub, p the precision of the accumulator, and B a bound on every partial sum:

    * Nothing underflows inexactly if every sum is a multiple of the accumulator's least unit,
      2**q >= 2**(emin - m); below the normal range rounding to p bits then changes nothing.
    * Nothing overflows if 2 B is at most the largest accumulator value.
    * A t-bit sum may be rounded again to p bits if it is exact, 2 B < 2**(q + t); or if both
      addends have at most p bits and 2 p + 2 <= t, when double rounding to nearest is harmless
      (S. Figueroa, "When is double rounding innocuous?", SIGNUM Newsletter 30(3), 1995).
    * Products are exact if their bits and range are those of t bits; and all operands must be float32.
    * float32 also needs operands, products and the rounding constant, 2**(24 - p) times a sum, in its
      range, and a normal range no smaller than the accumulator's.

    Where something may underflow, overflow or be infinite, ``float32-full`` checks every sum for it. It
    needs p of at most 11 and products of at most p bits: in the normal range a float32 sum is then
    harmless as above. Below it, sums are rounded to multiples of the least unit u, and a product of p
    bits that is not itself halfway between two of them is at least u 2**-(p + 1) away, which the error
    of a float32 sum below 2**emin, u 2**(p - 25) at most, cannot bridge.

    B is the lesser of two: n terms of at most P grow to n P (1 + 2**-p)**n, and rounding to nearest
    stops growing at 2**(p + 1) P, where P is below half a unit in the last place. Other roundings grow by
    a whole unit, n P (1 + 2**(1 - p))**n, and toward zero by none.

    The roundings other than to nearest even and to odd need none of this but the range: a float32 sum is
    rounded by the processor toward zero (up, down) and then cut at p bits (away from zero at p bits where
    that is up or down), and of two roundings in one direction the second is the rounding of the exact
    sum. To nearest away looks at the next bit only. Stochastic rounding with r bits looks at r bits, so it
    needs p + r <= 24, or exact sums, of which the processor keeps account; and its sums may grow so much
    in theory that they are looked at in practice, each time a tile begins.

    ``float64-full`` does every rounding of any sum of finite operands, so long as the processor says that
    every float64 sum was exact: then the one rounding of the exact sum is that of a float64, whose
    magnitude is lifted by a power of two where it is below the normal range of the accumulator, so that
    the last place that stays is the spacing there.

    Attributes
    ----------
    path
        The arithmetic to use.
    bound
        B; infinite where nothing is proven of the sums.
    ceiling
        Of a stochastic sum: the magnitude up to which a tile may begin without risk of overflow.
    """

    path: Path
    bound: float
    ceiling: float = float("inf")

    @classmethod
    def of(
        cls, a: np.ndarray, b: np.ndarray, accumulator: Accumulator, length: int | None = None
    ) -> Certificate:
        """Certificate of ``a @ b``, or of any products of two operands whose sums have `length` terms.

        Raises
        ------
        ValueError
            Products that float64 cannot hold.
        """
        length = a.shape[1] if length is None else length
        to_nearest = accumulator.rounding.mode is Mode.NEAREST_EVEN
        if accumulator.format == BINARY32 and to_nearest and a.dtype == b.dtype == np.float32:
            return cls(path="binary32", bound=float("inf"))
        left, right = Operand.at_a_glance(a), Operand.at_a_glance(b)
        if left is not None and right is not None:
            found = cls.for_operands(left, right, length, accumulator)
            if found.path == "float32":
                return found
        return cls.for_operands(Operand.of(a), Operand.of(b), length, accumulator)

    @classmethod
    def for_operands(
        cls, left: Operand, right: Operand, length: int, accumulator: Accumulator
    ) -> Certificate:
        """Certificate of sums of `length` products of what is known of two operands; errors as in `of`."""
        (a_max, a_unit, a_bits, a_finite), (b_max, b_unit, b_bits, b_finite) = left, right
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
        chunk = min(accumulator.chunk or length, length)
        bound = _sum_bound(a_max * b_max, chunk, fmt.precision, rounding.mode)
        if chunk < length:
            bound = max(bound, _sum_bound(bound, -(-length // chunk), fmt.precision, rounding.mode))
        least = fmt.emin - (fmt.frac_bits if fmt.subnormals else 0)
        finite = a_finite and b_finite
        tame = unit >= least and finite
        narrow = max(a_bits, b_bits) <= 24 and _is_float32(a_max, a_unit) and _is_float32(b_max, b_unit)
        # Tiles that look at every sum, and ask the processor whether it was exact.
        checked = HAS_DIRECTED and finite and narrow and fmt.frac_bits > 0
        rest = cls(path="float64-full" if checked else "exact", bound=float("inf"))
        if rounding.mode is not Mode.NEAREST_EVEN:
            directed = None
            if HAS_DIRECTED and tame and _fits_float32(a_max, b_max, a_unit, b_unit, 0.0, fmt):
                directed = cls._directed(rounding, fmt, a_max * b_max, length, chunk, bound)
            return directed or rest
        p = fmt.precision
        if not tame or 2.0 * bound > fmt.max:
            harmless = product_bits <= p <= 11
            fits = _fits_float32(a_max, b_max, a_unit, b_unit, a_max * b_max, fmt)
            in_range = fmt.subnormals and fmt.max < 2.0 ** (104 + fmt.frac_bits)
            full = harmless and fits and in_range
            return cls(path="float32-full", bound=float("inf")) if full else rest
        paths: tuple[tuple[Path, int], ...] = (("float32", 24), ("float64", 53))
        for path, t in paths:
            exact_sums = 2.0 * bound < 2.0 ** min(unit + t, 1000)
            harmless = product_bits <= p and 2 * p + 2 <= t
            if p >= t or not (exact_sums or harmless):
                continue
            if t == 24 and not _fits_float32(a_max, b_max, a_unit, b_unit, bound, fmt):
                continue
            if narrow:
                return cls(path=path, bound=bound)
        return rest

    @classmethod
    def _directed(
        cls, rounding: Rounding, fmt: FloatFormat, term: float, length: int, chunk: int, bound: float
    ) -> Certificate | None:
        """Certificate for the roundings that take a float32 sum rounded in the same direction, if any."""
        if rounding.mode is Mode.STOCHASTIC:
            steps = chunk if chunk < length else min(length, CHECKED_DEPTH)
            growth = float(np.exp(min(steps * np.log1p(2.0**-fmt.frac_bits), 600.0)))
            run = _sum_bound(term, steps, fmt.precision, rounding.mode)
            ceiling = (fmt.max / 2.0 - run) / growth
            return cls(path="float32", bound=bound, ceiling=ceiling) if ceiling >= 0.0 else None
        needs_bit = rounding.mode is Mode.NEAREST_AWAY and fmt.precision > 23
        if rounding.mode is Mode.TO_ODD or needs_bit or 2.0 * bound > fmt.max:
            return None
        return cls(path="float32", bound=bound)


def _fits_float32(
    a_max: float, b_max: float, a_unit: int, b_unit: int, bound: float, fmt: FloatFormat
) -> bool:
    largest = max(a_max, b_max, bound * 2.0 ** (25 - fmt.precision))
    return largest < 2.0**127 and min(a_unit, b_unit, a_unit + b_unit) >= -149 and fmt.emin >= -126


def _is_float32(largest: float, unit: int) -> bool:
    return largest < 2.0**128 and unit >= -149


def _sum_bound(term: float, count: int, precision: int, mode: Mode) -> float:
    if mode in (Mode.TOWARD_ZERO, Mode.TO_ODD):
        return term * count * (1.0 if mode is Mode.TOWARD_ZERO else 2.0)
    to_nearest = mode in (Mode.NEAREST_EVEN, Mode.NEAREST_AWAY)
    growth = count * np.log1p(2.0 ** (-precision if to_nearest else 1 - precision))
    grown = term * count * float(np.exp(min(growth, 600.0)))
    return min(grown, 2.0 ** (precision + 1) * term) if to_nearest else grown
