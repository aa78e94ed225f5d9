"""Values as the bits that a memory holds: `encode` and `decode`.

The code of a float is sign, exponent field and fraction from the top bit down; the code of a fixed-point
number is two's complement. Codes are unsigned integers, right-aligned in uint8, uint16 or uint32.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, UInt

from numerics._target import Overflow
from numerics.elementwise import cast, check_float_array, check_holds
from numerics.formats import FixedFormat, FloatFormat, Format, parse_format
from numerics.rounding import Rounding

_Float: TypeAlias = type[np.float32] | type[np.float64] | np.dtype[Any]
_TABLE_BITS = 16


def encode(
    x: Float[np.ndarray, "..."],
    fmt: Format | str,
    *,
    rounding: Rounding | str = Rounding.NEAREST_EVEN,
    overflow: Overflow = "format",
    seed: int | None = None,
    stream: int = 0,
) -> UInt[np.ndarray, "..."]:
    """Codes of ``cast(x, fmt, ...)``, every element rounded once.

    Parameters
    ----------
    x : (...)
        float16, float32 or float64 of any shape and stride.
    fmt, rounding, overflow, seed, stream
        As in `numerics.cast`, except that an infinity needs a code of its own unless `overflow` says
        what it becomes. NaN gets the format's canonical code: positive, quiet.

    Returns
    -------
    Array of the shape of `x`, in the smallest unsigned dtype that holds the bits of `fmt`.

    Raises
    ------
    TypeError, ValueError
        As `numerics.cast`; NaN or infinities that have no code, with their number and the first index.

    Examples
    --------
    >>> encode(np.array([1.0, -448.0, 1e3, np.nan]), "e4m3fn")
    array([ 56, 254, 126, 127], dtype=uint8)
    >>> encode(np.array([-0.5, 9.0]), "s3.4-wrap")
    array([248, 144], dtype=uint8)
    """
    fmt = parse_format(fmt)
    with np.errstate(invalid="ignore"):  # the conversion quiets signalling NaNs
        wide = check_float_array(x, "x").astype(np.float64)
    if overflow == "format" and not (isinstance(fmt, FloatFormat) and _infinity_code(fmt) is not None):
        _refuse("infinity", np.isinf(wide), fmt)
    if not (isinstance(fmt, FloatFormat) and fmt.has_nan):
        _refuse("NaN", np.isnan(wide), fmt)
    values = cast(wide, fmt, rounding=rounding, overflow=overflow, seed=seed, stream=stream)
    values = values.reshape(-1)
    codes = _encode_fixed(values, fmt) if isinstance(fmt, FixedFormat) else _encode_float(values, fmt)
    return codes.astype(_code_dtype(fmt)).reshape(x.shape)


def decode(
    codes: UInt[np.ndarray, "..."], fmt: Format | str, dtype: _Float = np.float32
) -> Float[np.ndarray, "..."]:
    """Values of `codes`.

    Parameters
    ----------
    codes : (...)
        Unsigned integers below ``2**fmt.bits``.
    dtype
        float32 or float64.

    Returns
    -------
    Array of the shape of `codes`. Codes that a format without subnormals does not use are zeros.

    Raises
    ------
    TypeError, ValueError
        Codes that are not unsigned or do not fit the bits (with their number and the first index), a
        dtype that cannot hold the format.

    Examples
    --------
    >>> decode(np.array([56, 254, 127], np.uint8), "e4m3fn")
    array([   1., -448.,   nan], dtype=float32)
    """
    fmt = parse_format(fmt)
    if not isinstance(codes, np.ndarray) or codes.dtype.kind != "u":
        kind = getattr(codes, "dtype", type(codes).__name__)
        raise TypeError(f"codes must be an array of unsigned integers, got {kind}")
    if np.dtype(dtype) not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"dtype must be float32 or float64, got {dtype!r}")
    check_holds(np.dtype(dtype), fmt)
    if codes.dtype.itemsize * 8 > fmt.bits and (wrong := codes >> codes.dtype.type(fmt.bits) != 0).any():
        count, first = _located(wrong)
        value = int(codes.reshape(-1)[int(np.argmax(wrong))])
        raise ValueError(
            f"codes of {fmt} must be below 2**{fmt.bits}, got {count} larger, first {value} at index {first}"
        )
    if fmt.bits <= _TABLE_BITS:
        return np.asarray(_table(fmt, np.dtype(dtype))[codes])
    return _decoded(codes.astype(np.int64).reshape(-1), fmt).astype(dtype).reshape(codes.shape)


@lru_cache(maxsize=64)
def _table(fmt: Format, dtype: np.dtype[Any]) -> np.ndarray:
    table = _decoded(np.arange(1 << fmt.bits, dtype=np.int64), fmt).astype(dtype)
    table.flags.writeable = False
    return table


def _decoded(codes: np.ndarray, fmt: Format) -> np.ndarray:
    """float64 values of int64 codes."""
    if isinstance(fmt, FixedFormat):
        negative = (codes >> (fmt.bits - 1) == 1) & fmt.signed
        whole: np.ndarray = codes - (negative.astype(np.int64) << fmt.bits)
        return whole * fmt.step
    width = fmt.exp_bits + fmt.frac_bits
    magnitude = codes & ((1 << width) - 1)
    negative = codes >> width == 1
    # A normal code is the top of the float64 with its exponent field moved.
    normal = ((magnitude + _field_shift(fmt)) << (52 - fmt.frac_bits)).view(np.float64)
    subnormal = magnitude * np.ldexp(1.0, fmt.emin - fmt.frac_bits) * fmt.subnormals
    values = np.where(magnitude >> fmt.frac_bits == 0, subnormal, normal)
    if fmt.specials == "ieee":
        top = ((1 << fmt.exp_bits) - 1) << fmt.frac_bits
        values[magnitude >= top] = np.nan
        values[magnitude == top] = np.inf
    elif fmt.specials == "p3109":
        values[magnitude == (1 << width) - 1] = np.inf
    elif fmt.specials in ("fn", "fused-top"):
        values[magnitude == (1 << width) - 1] = np.nan
    values[negative] *= -1.0
    if fmt.has_nan and not fmt.has_minus_zero and fmt.signed:
        values[codes == 1 << width] = np.nan
    return values


def _encode_float(values: np.ndarray, fmt: FloatFormat) -> np.ndarray:
    """int64 codes of float64 values on the format."""
    width = fmt.exp_bits + fmt.frac_bits
    magnitude = np.abs(values)
    special = ~np.isfinite(values)
    magnitude[special] = 0.0
    normal = (magnitude.view(np.int64) >> (52 - fmt.frac_bits)) - _field_shift(fmt)
    subnormal = np.where(magnitude < fmt.min_normal, magnitude, 0.0) * np.ldexp(1.0, fmt.frac_bits - fmt.emin)
    codes: np.ndarray = np.where(magnitude < fmt.min_normal, subnormal.astype(np.int64), normal)
    infinity = _infinity_code(fmt)
    if infinity is not None:
        codes[np.isinf(values)] = infinity
    if fmt.signed:
        codes |= np.signbit(values).astype(np.int64) << width
    if fmt.has_nan:
        codes[np.isnan(values)] = _nan_code(fmt)
    return codes


def _encode_fixed(values: np.ndarray, fmt: FixedFormat) -> np.ndarray:
    codes: np.ndarray = (values / fmt.step).astype(np.int64) & ((1 << fmt.bits) - 1)
    return codes


def _field_shift(fmt: FloatFormat) -> int:
    """Difference of the exponent fields in float64 and `fmt`, in units of the last place of `fmt`."""
    return (fmt.emin - 1 + 1023) << fmt.frac_bits


def _nan_code(fmt: FloatFormat) -> int:
    top = (1 << (fmt.exp_bits + fmt.frac_bits)) - 1
    if fmt.specials == "ieee":
        return top ^ ((1 << (fmt.frac_bits - 1)) - 1)  # quiet: of the fraction the first bit alone
    return top if fmt.specials in ("fn", "fused-top") else top + 1


def _infinity_code(fmt: FloatFormat) -> int | None:
    """Code of +infinity; the fused top code stands for infinity too."""
    top = (1 << (fmt.exp_bits + fmt.frac_bits)) - 1
    if fmt.specials == "ieee":
        return top ^ ((1 << fmt.frac_bits) - 1)
    return top if fmt.specials in ("p3109", "fused-top") else None


def _code_dtype(fmt: Format) -> type[np.uint8] | type[np.uint16] | type[np.uint32]:
    if fmt.bits <= 8:
        return np.uint8
    return np.uint16 if fmt.bits <= 16 else np.uint32


def _located(wrong: np.ndarray) -> tuple[int, tuple[int, ...]]:
    index = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    return int(wrong.sum()), tuple(int(i) for i in index)


def _refuse(what: str, wrong: np.ndarray, fmt: Format) -> None:
    if wrong.any():
        count, first = _located(wrong)
        raise ValueError(f"{fmt} has no code for {what}: got {count} of them, first at index {first}")
