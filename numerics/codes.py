"""Values as the bits that a memory holds: `encode` and `decode`.

The code of a float is sign, exponent field and fraction from the top bit down; the code of a fixed-point
number is two's complement. Codes are unsigned integers, right-aligned in uint8, uint16 or uint32.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, UInt

from numerics._kernels import coding
from numerics._target import Overflow
from numerics.elementwise import cast, check_float_array, check_holds
from numerics.formats import FixedFormat, FloatFormat, Format, parse_format
from numerics.rounding import Rounding

_Float: TypeAlias = type[np.float32] | type[np.float64] | np.dtype[Any]

_TABLE_BITS = 16
_CHUNK = 1 << 17  # elements that stay in the cache from one pass to the next
_INFINITY = {"f4": 0x7F800000, "f8": 0x7FF0000000000000}  # its bits


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
    fmt, rounding = parse_format(fmt), Rounding.parse(rounding)
    flat = _carried(check_float_array(x, "x"), fmt)
    largest = coding.largest_f32 if flat.dtype == np.float32 else coding.largest_f64
    limit = _largest_allowed(fmt, overflow, flat.dtype)
    codes = np.empty(flat.size, code_dtype(fmt.bits))
    # Random words are counted from the start of an array, so a stochastic cast is not cut.
    step = max(flat.size, 1) if rounding.is_stochastic else _CHUNK
    room = np.empty(min(flat.size, step), flat.dtype)
    for first in range(0, max(flat.size, 1), step):
        part = flat[first : first + step]
        if limit is not None and int(largest(part)) > limit:
            _refuse_specials(x, fmt, overflow)
            limit = None  # they were NaNs, which have a code
        values = room[: part.size]
        cast(part, fmt, rounding=rounding, overflow=overflow, seed=seed, stream=stream, out=values)
        encode_values(values, fmt, codes[first : first + step])
    return codes.reshape(x.shape)


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
    if codes.dtype.itemsize * 8 > fmt.bits and codes.size and int(codes.max()) >> fmt.bits:
        wrong = codes >> codes.dtype.type(fmt.bits) != 0
        count, first = _located(wrong)
        value = int(codes.reshape(-1)[int(np.argmax(wrong))])
        raise ValueError(
            f"codes of {fmt} must be below 2**{fmt.bits}, got {count} larger, first {value} at index {first}"
        )
    if fmt.bits > _TABLE_BITS:
        return _decoded(codes.astype(np.int64).reshape(-1), fmt).astype(dtype).reshape(codes.shape)
    table = value_table(fmt, np.dtype(dtype))
    out = np.empty(codes.shape, dtype)
    flat = np.ascontiguousarray(codes, code_dtype(fmt.bits)).reshape(-1)
    word = np.dtype(f"u{table.itemsize}")  # bits are moved, so that the payload of a NaN stays
    coding.look_up(flat, table.view(word), out.reshape(-1).view(word))
    return out


def encode_values(
    values: Float[np.ndarray, " n"], fmt: Format, out: UInt[np.ndarray, " n"]
) -> UInt[np.ndarray, " n"]:
    """Codes of float32 or float64 values that are on `fmt` already, as `cast` gives them, into `out`."""
    single = values.dtype == np.float32
    if isinstance(fmt, FixedFormat):
        encode_fixed = coding.encode_fixed_f32 if single else coding.encode_fixed_f64
        encode_fixed(values, out, fmt.frac_bits, (1 << fmt.bits) - 1)
    else:
        encode_float = coding.encode_f32 if single else coding.encode_f64
        sign_bit = int(fmt.signed) << (fmt.exp_bits + fmt.frac_bits)
        nan = _nan_code(fmt) if fmt.has_nan else 0
        encode_float(values, out, fmt.frac_bits, fmt.emin, sign_bit, _infinity_code(fmt) or 0, nan)
    return out


@lru_cache(maxsize=64)  # a table of 16 bits in float64 takes 512 KiB
def value_table(fmt: Format, dtype: np.dtype[Any]) -> Float[np.ndarray, " codes"]:
    """Value of every code of a format of at most 16 bits, by code; read-only."""
    table = _decoded(np.arange(1 << fmt.bits, dtype=np.int64), fmt).astype(dtype)
    table.flags.writeable = False
    return table


def code_dtype(bits: int) -> np.dtype[Any]:
    """The smallest unsigned dtype for codes of 1 to 32 bits."""
    return np.dtype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)


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


def _carried(x: np.ndarray, fmt: Format) -> np.ndarray:
    """`x`, flat, in the float dtype in which it is rounded: float32 where `encode_f32` serves `fmt`."""
    single = fmt.emin >= -126 if isinstance(fmt, FloatFormat) else fmt.int_bits + fmt.frac_bits <= 24
    dtype = np.float32 if single and x.dtype != np.float64 else np.float64
    with np.errstate(invalid="ignore"):  # the conversion quiets signalling NaNs
        return np.ascontiguousarray(x, dtype).reshape(-1)


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


def _located(wrong: np.ndarray) -> tuple[int, tuple[int, ...]]:
    index = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    return int(wrong.sum()), tuple(int(i) for i in index)


def _lacks(fmt: Format, overflow: Overflow) -> tuple[bool, bool]:
    """Whether infinities, and whether NaNs, are refused."""
    if isinstance(fmt, FixedFormat):
        return overflow == "format", True
    return overflow == "format" and _infinity_code(fmt) is None, not fmt.has_nan


def _largest_allowed(fmt: Format, overflow: Overflow, dtype: np.dtype[Any]) -> int | None:
    """Largest magnitude, as bits, that is surely no special without a code; ``None``: all have one."""
    infinity, nan = _lacks(fmt, overflow)
    return _INFINITY[dtype.str[1:]] - infinity if infinity or nan else None


def _refuse_specials(x: np.ndarray, fmt: Format, overflow: Overflow) -> None:
    for what, lacks, test in zip(
        ("infinity", "NaN"), _lacks(fmt, overflow), (np.isinf, np.isnan), strict=True
    ):
        if lacks and (wrong := test(x)).any():
            count, first = _located(wrong)
            raise ValueError(f"{fmt} has no code for {what}: got {count} of them, first at index {first}")
