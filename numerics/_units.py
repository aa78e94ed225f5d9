"""Operands of an integer register: checked, and scaled so that their products count its units."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, frexp
from typing import NamedTuple

import numpy as np

from numerics._kernels import integer as kernels
from numerics._kernels import rounding as modes
from numerics.certificate import Operand
from numerics.rounding import Rounding

_NO_UNIT = 4000  # unit of zero: a multiple of any


class Problem(NamedTuple):
    """Operands whose products count in units of the register."""

    left: np.ndarray
    right: np.ndarray
    largest: int  # bound on the magnitude of a product, after its rounding
    mode: int = kernels.INTEGERS  # or that of the rounding of products
    fits_float32: bool = True  # whether float32 holds operands and products, if `largest` does not tell


def in_units(
    a: np.ndarray, b: np.ndarray, frac_bits: int, rounding: Rounding | None, register: str
) -> Problem | None:
    """Operands of the register of that text, checked and scaled; ``None`` if all products are zero.

    Raises
    ------
    ValueError
        The first operand that is not finite, product of ``2**63`` units or more, or product that is no
        multiple of the unit where there is no rounding; products that float64 cannot hold where there
        is one.
    """
    (a_max, a_unit, a_bits), (b_max, b_unit, b_bits) = _facts("a", a), _facts("b", b)
    if a_max == 0.0 or b_max == 0.0:
        return None
    limit = 1 << 63
    largest = _product(a_max, b_max, frac_bits)
    if a_unit + b_unit >= -frac_bits and largest < limit:
        return Problem(_scaled(a, -a_unit), _scaled(b, a_unit + frac_bits), ceil(largest))
    # A column of a and the row of b that it meets may do what the whole operands do not.
    a_sizes, b_sizes = abs(a).max(axis=0), abs(b).max(axis=1)
    live = (a_sizes > 0.0) & (b_sizes > 0.0)
    largest = Fraction(0)
    for k in np.flatnonzero(live).tolist():
        largest = max(largest, _product(a_sizes[k], b_sizes[k], frac_bits))
        if largest >= limit:
            i, j = abs(a[:, k]).argmax(), abs(b[k]).argmax()
            raise ValueError(
                f"products must be below 2**63 units of {register}, "
                f"got a[{i}, {k}] * b[{k}, {j}] = {a[i, k]:g} * {b[k, j]:g}"
            )
    a_units, b_units = _units(a), _units(b)
    finest = a_units.min(axis=0)
    off = np.flatnonzero(live & (finest + b_units.min(axis=1) < -frac_bits))
    if off.size == 0:
        shift = np.where(live, -finest, 0)
        left, right = np.where(live, a, 0.0), np.where(live[:, None], b, 0.0)
        return Problem(_scaled(left, shift), _scaled(right, frac_bits - shift[:, None]), ceil(largest))
    if rounding is None:
        k = off[0]
        i, j = a_units[:, k].argmin(), b_units[k].argmin()
        raise ValueError(
            f"products must be multiples of 2**-{frac_bits}, the unit of {register}, or be rounded "
            f"(rounding=<mode>), got a[{i}, {k}] * b[{k}, {j}] = {a[i, k]!s} * {b[k, j]!s}"
        )
    if a_bits + b_bits > 53:
        raise ValueError(
            f"products that are rounded must fit 53 bits, got {a_bits} + {b_bits} significand bits; "
            f"round the operands to their format first"
        )
    a_top, b_top = frexp(a_max)[1], frexp(b_max)[1] + frac_bits
    if a_unit + b_unit < -1074 or b_top > 1023:
        raise ValueError(
            f"products that are rounded must be in the range of float64, got magnitudes up to "
            f"{a_max:g} and {b_max:g} with least units 2**{a_unit} and 2**{b_unit}"
        )
    small = a_bits + b_bits <= 24 and max(a_top, b_top) <= 127
    fine = min(a_unit, b_unit + frac_bits, a_unit + b_unit + frac_bits) >= -149
    mode: int = getattr(modes, rounding.mode.name)
    return Problem(a, _scaled(b, frac_bits), ceil(largest), mode, small and fine)


def _facts(name: str, x: np.ndarray) -> tuple[float, int, int]:
    """(largest magnitude, exponent of the least unit, significand bits) of a finite operand."""
    operand = Operand.of(x)
    if not operand.finite:
        i, j = np.argwhere(~np.isfinite(x))[0]
        raise ValueError(f"{name} must hold finite numbers, got {x[i, j]} at [{i}, {j}]")
    return operand.largest, operand.unit, operand.bits


def _product(x: float, y: float, frac_bits: int) -> Fraction:
    return Fraction(float(x)) * Fraction(float(y)) * (1 << frac_bits)


def _units(x: np.ndarray) -> np.ndarray:
    """Exponent of the largest power of two that divides each element; large for zero."""
    fraction, exponent = np.frexp(x.astype(np.float64))
    whole_fraction = np.ldexp(fraction, 53).astype(np.int64)
    lowest = np.frexp((whole_fraction & -whole_fraction).astype(np.float64))[1] - 1
    return np.where(x == 0.0, _NO_UNIT, exponent - 53 + lowest)


def _scaled(x: np.ndarray, shift: int | np.ndarray) -> np.ndarray:
    """``x * 2**shift``, exact in float64."""
    return x if isinstance(shift, int) and shift == 0 else np.ldexp(x.astype(np.float64), shift)
