"""Codes of n bits in a row, with no bit between them.

The bit string, as one would draw it for hardware: number the bits of the buffer from zero on, the least
significant bit of byte 0 first; the code of element i is the field ``[i*n + n-1 : i*n]``. Read as one
little-endian integer, the buffer is the sum of ``code[i] << (i * n)``. The bits that fill up the last
byte are zero. Four elements of 3 bits, a to d, take two bytes::

    byte       1                0
    bit        7 6 5 4 3 2 1 0  7 6 5 4 3 2 1 0
    holds      0 0 0 0 d d d c  c c b b b a a a
"""

from __future__ import annotations

from operator import index as as_int
from typing import Any

import numpy as np
from jaxtyping import Float, UInt, UInt8

from numerics._kernels import packing
from numerics.codes import code_dtype

MAX_BITS = 16


def bytes_of(elements: int, bits: int) -> int:
    """Bytes of the bit string of so many codes."""
    return -(-elements * bits // 8)


def check_bits(bits: Any, name: str = "bits") -> int:
    """`bits` if it is an integer in 1..16, or a TypeError or ValueError."""
    if isinstance(bits, bool) or not hasattr(bits, "__index__"):
        raise TypeError(f"{name} must be an integer in 1..{MAX_BITS}, got {bits!r}")
    if not 1 <= (number := as_int(bits)) <= MAX_BITS:
        raise ValueError(f"{name} must be in 1..{MAX_BITS}, got {number}")
    return number


def join(codes: UInt[np.ndarray, "..."], bits: int) -> UInt8[np.ndarray, " nbytes"]:
    """Bit string of the codes of an array of any unsigned dtype, shape and stride, in C order.

    Raises
    ------
    TypeError, ValueError
        Another dtype, a code of more than `bits` bits (the first one is named).
    """
    if not isinstance(codes, np.ndarray) or codes.dtype.kind != "u":
        kind = getattr(codes, "dtype", type(codes).__name__)
        raise TypeError(f"codes must be an array of unsigned integers, got {kind}")
    dtype = code_dtype(bits)
    if codes.dtype.itemsize > dtype.itemsize:
        _check_codes(codes, bits)  # before the upper bytes are dropped
    flat = np.ascontiguousarray(codes, dtype).reshape(-1)
    if bits == 8:
        return flat.copy()
    if bits == 16:
        return flat.astype("<u2").view(np.uint8)
    data = np.zeros(bytes_of(flat.size, bits), np.uint8)
    kernel = packing.pack_narrow if bits < 8 else packing.pack_wide
    if int(kernel(flat, data, bits)) >> bits:  # the union of the codes: checked in the same pass
        _check_codes(codes, bits)
    return data


def split(data: UInt8[np.ndarray, " nbytes"], bits: int, elements: int) -> UInt[np.ndarray, " elements"]:
    """Codes of a bit string, uint8 up to 8 bits, uint16 above; a new array."""
    if bits == 8:
        return data.copy()
    if bits == 16:
        return data.view("<u2").astype(np.uint16)
    out = np.empty(elements, code_dtype(bits))
    kernel = packing.unpack_narrow if bits < 8 else packing.unpack_wide
    kernel(data, out, bits)
    return out


def look_up(
    data: UInt8[np.ndarray, " nbytes"],
    bits: int,
    table: Float[np.ndarray, " codes"],
    out: Float[np.ndarray, "..."],
) -> None:
    """Write ``table[code]`` for every code of a bit string to the C-contiguous `out`, of the same dtype."""
    # The kernels move bits, so that the payload of a NaN is as in the table.
    word = np.dtype(f"u{table.itemsize}")
    kernel = packing.decode_narrow if bits <= 8 else packing.decode_wide
    kernel(data, out.reshape(-1).view(word), bits, table.view(word))


def look_up_blocks(
    data: UInt8[np.ndarray, " nbytes"],
    bits: int,
    table: Float[np.ndarray, " codes"],
    factors: Float[np.ndarray, " blocks"],
    out: Float[np.ndarray, " elements"],
) -> None:
    """`look_up` for codes of at most 8 bits in blocks of equal length, a multiple of eight.

    Every block is multiplied by a factor of its own, in float64 as are table and factors.
    """
    packing.decode_narrow_blocks(data, out, bits, table, factors, out.size // max(factors.size, 1))


def part(data: UInt8[np.ndarray, " nbytes"], first: int, length: int) -> UInt8[np.ndarray, " part"]:
    """Bits ``first .. first + length - 1`` of a bit string, as one of their own; a view if at bytes."""
    size = bytes_of(length, 1)
    begin, shift = divmod(first, 8)
    bits = data[begin : begin + size]
    if shift:
        # Each byte takes its upper bits from the next one, if the range reaches so far.
        bits = bits >> shift
        following = data[begin + 1 : begin + size + 1]
        bits[: following.size] |= following << (8 - shift)
    if unused := 8 * size - length:
        bits = bits.copy()
        bits[-1] &= 0xFF >> unused
    return bits


def _check_codes(codes: np.ndarray, bits: int) -> None:
    beyond = codes >= np.uint64(1 << bits)
    if beyond.any():
        place = np.unravel_index(int(beyond.argmax()), codes.shape)
        where = ", ".join(str(int(axis)) for axis in place)
        raise ValueError(f"codes must be below {1 << bits} for {bits} bits, got {codes[place]} at [{where}]")
