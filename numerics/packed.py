"""Variable-precision tensors, stored in exactly their bits.

The bit string, as one would draw it for hardware: number the bits of the buffer from zero on, the least
significant bit of byte 0 first; the code of element i (in C order) is the field ``[i*n + n-1 : i*n]``.
Read as one little-endian integer, the buffer is the sum of ``code[i] << (i * n)``. The bits that fill up
the last byte are zero. Four elements of 3 bits, a to d, take two bytes::

    byte       1                0
    bit        7 6 5 4 3 2 1 0  7 6 5 4 3 2 1 0
    holds      0 0 0 0 d d d c  c c b b b a a a
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from operator import index as as_int
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, UInt, UInt8

from numerics._kernels import packing
from numerics._target import Overflow
from numerics.codes import decode, encode
from numerics.formats import Format, parse_format
from numerics.rounding import Rounding

_Float: TypeAlias = type[np.float32] | type[np.float64]

MAX_BITS = 16

_MAGIC = b"\x93PACKED\n"
_VERSION = 1
_HEAD = struct.Struct("<8sHBBHxx")  # magic, version, bits, axes, bytes of the format's text
_CHECKSUM = struct.Struct("<I")
_BODY = _HEAD.size + _CHECKSUM.size


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class PackedTensor:
    """A tensor of codes of 1 to 16 bits, with no bit between them.

    Attributes
    ----------
    data : (nbytes,)
        The bit string described above; it is kept as a read-only view, not copied.
    bits
        Bits of one code, n.
    shape
        Lengths of the axes; ``()`` is a single element.
    format
        What the codes mean, a value or its text; ``None`` for codes without a meaning.

    Raises
    ------
    TypeError, ValueError
        `data` is not a flat uint8 array of exactly ``ceil(elements * bits / 8)`` bytes that ends in
        zeros; `bits` outside 1..16 or not those of `format`.

    Examples
    --------
    >>> t = PackedTensor.from_codes(np.array([1, 2, 3, 5], np.uint8), 3)
    >>> t, [f"{byte:08b}" for byte in t.data]
    (PackedTensor(shape=(4,), bits=3, nbytes=2), ['11010001', '00001010'])
    >>> t[1:3].codes()
    array([2, 3], dtype=uint8)
    >>> PackedTensor.pack(np.array([0.3, -1.0, 9.0]), "e2m1").unpack()
    array([ 0.5, -1. ,  6. ], dtype=float32)
    """

    data: UInt8[np.ndarray, " nbytes"]
    bits: int
    shape: tuple[int, ...]
    format: Format | None = None

    def __post_init__(self) -> None:
        bits = _checked_bits(self.bits)
        shape = tuple(as_int(length) for length in self.shape)
        if any(length < 0 for length in shape):
            raise ValueError(f"shape must have no negative length, got {shape}")
        fmt = None if self.format is None else parse_format(self.format)
        if fmt is not None and fmt.bits != bits:
            raise ValueError(f"bits must be {fmt.bits} for format {fmt}, got {bits}")
        if not isinstance(self.data, np.ndarray) or self.data.dtype != np.uint8:
            kind = getattr(self.data, "dtype", type(self.data).__name__)
            raise TypeError(f"data must be a uint8 array, got {kind}")
        size = _bytes_of(prod(shape), bits)
        if self.data.shape != (size,) or not self.data.flags.c_contiguous:
            raise ValueError(
                f"data must be contiguous with shape ({size},) for shape {shape} of {bits} bits, "
                f"got shape {self.data.shape}"
            )
        used = prod(shape) * bits % 8
        if used and self.data[-1] >> used:
            raise ValueError(
                f"data must end in {8 - used} zero bits, got a last byte of {self.data[-1]:#04x}"
            )
        view = self.data.view(np.ndarray)
        view.flags.writeable = False
        for name, value in (("data", view), ("bits", bits), ("shape", shape), ("format", fmt)):
            object.__setattr__(self, name, value)

    @classmethod
    def from_codes(
        cls, codes: UInt[np.ndarray, "..."], bits: int, fmt: Format | str | None = None
    ) -> PackedTensor:
        """Pack the codes of an array of any unsigned dtype, shape and stride.

        Raises
        ------
        TypeError, ValueError
            Another dtype, `bits` outside 1..16 or not those of `fmt`, a code of more than `bits`
            bits (the first one is named).
        """
        bits = _checked_bits(bits)
        fmt = None if fmt is None else parse_format(fmt)
        if fmt is not None and fmt.bits != bits:
            raise ValueError(f"bits must be {fmt.bits} for format {fmt}, got {bits}")
        if not isinstance(codes, np.ndarray) or codes.dtype.kind != "u":
            kind = getattr(codes, "dtype", type(codes).__name__)
            raise TypeError(f"codes must be an array of unsigned integers, got {kind}")
        dtype = _code_dtype(bits)
        if codes.dtype.itemsize > dtype.itemsize:
            _check_codes(codes, bits)  # before the upper bytes are dropped
        flat = np.ascontiguousarray(codes, dtype).reshape(-1)
        if bits == 8:
            data = flat.copy()
        elif bits == 16:
            data = flat.astype("<u2").view(np.uint8)
        else:
            data = np.zeros(_bytes_of(flat.size, bits), np.uint8)
            kernel = packing.pack_narrow if bits < 8 else packing.pack_wide
            if int(kernel(flat, data, bits)) >> bits:  # the union of the codes: checked in the same pass
                _check_codes(codes, bits)
        return cls(data=data, bits=bits, shape=codes.shape, format=fmt)

    @classmethod
    def pack(
        cls,
        x: Float[np.ndarray, "..."],
        fmt: Format | str,
        *,
        rounding: Rounding | str = Rounding.NEAREST_EVEN,
        overflow: Overflow = "format",
        seed: int | None = None,
        stream: int = 0,
    ) -> PackedTensor:
        """Round `x` to a format of at most 16 bits, as `encode` does with these arguments, and pack it."""
        fmt = parse_format(fmt)
        _checked_bits(fmt.bits, f"bits of {fmt}")
        codes = encode(x, fmt, rounding=rounding, overflow=overflow, seed=seed, stream=stream)
        return cls.from_codes(codes, fmt.bits, fmt)

    def codes(self) -> UInt[np.ndarray, "..."]:
        """The codes, uint8 up to 8 bits, uint16 above; a new array of this shape."""
        if self.bits == 8:
            return self.data.copy().reshape(self.shape)
        if self.bits == 16:
            return self.data.view("<u2").astype(np.uint16).reshape(self.shape)
        out = np.empty(prod(self.shape), _code_dtype(self.bits))
        kernel = packing.unpack_narrow if self.bits < 8 else packing.unpack_wide
        kernel(self.data, out, self.bits)
        return out.reshape(self.shape)

    def unpack(
        self, dtype: _Float = np.float32, out: Float[np.ndarray, "..."] | None = None
    ) -> Float[np.ndarray, "..."]:
        """The values, as `decode` gives them.

        Parameters
        ----------
        dtype
            float32 or float64.
        out : (...)
            Where to write: of this shape and `dtype`, writeable and C-contiguous.

        Raises
        ------
        TypeError, ValueError
            No format, a dtype that cannot hold its values, an unfit `out`.
        """
        if self.format is None:
            raise ValueError("unpack needs a format, got raw codes; use codes()")
        table = _values(self.format, np.dtype(dtype))
        if out is None:
            out = np.empty(self.shape, table.dtype)
        elif (
            out.shape != self.shape
            or out.dtype != table.dtype
            or not (out.flags.c_contiguous and out.flags.writeable)
        ):
            raise ValueError(
                f"out must be writeable and C-contiguous with shape {self.shape} and dtype {table.dtype}, "
                f"got shape {out.shape} and dtype {out.dtype}"
            )
        # The kernels move bits, so that the payload of a NaN is as in the table.
        word = np.dtype(f"u{table.itemsize}")
        kernel = packing.decode_narrow if self.bits <= 8 else packing.decode_wide
        kernel(self.data, out.reshape(-1).view(word), self.bits, table.view(word))
        return out

    @property
    def nbytes(self) -> int:
        """Bytes of the bit string: ``ceil(elements * bits / 8)``, all that is stored."""
        return self.data.nbytes

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a PackedTensor of shape () has no length")
        return self.shape[0]

    def __getitem__(self, key: int | slice) -> PackedTensor:
        """Part of the leading axis: an element of it, or a slice of step 1.

        A part that begins and ends at a byte is a view of the same data, another one a copy.
        """
        length = len(self)
        if isinstance(key, slice):
            start, stop, step = key.indices(length)
            if step != 1:
                raise ValueError(f"the step of a slice must be 1, got {step}")
            shape = (max(stop - start, 0), *self.shape[1:])
        elif isinstance(key, bool | np.bool_) or not hasattr(key, "__index__"):
            raise TypeError(f"an index must be an integer or a slice of the leading axis, got {key!r}")
        else:
            start = as_int(key)
            if not -length <= start < length:
                raise IndexError(f"index must be in {-length}..{length - 1}, got {start}")
            start %= length
            shape = self.shape[1:]
        first = start * prod(self.shape[1:]) * self.bits
        data = _bit_range(self.data, first, prod(shape) * self.bits)
        return PackedTensor(data=data, bits=self.bits, shape=shape, format=self.format)

    def __eq__(self, other: object) -> bool:
        """Same shape, bits, format and codes; NaN codes are codes like any other."""
        if not isinstance(other, PackedTensor):
            return NotImplemented
        return (self.bits, self.shape, self.format) == (
            other.bits,
            other.shape,
            other.format,
        ) and np.array_equal(self.data, other.data)

    def __hash__(self) -> int:
        return hash((self.bits, self.shape, self.format, self.data.tobytes()))

    def __reduce__(self) -> tuple[Callable[..., PackedTensor], tuple[Any, ...]]:
        return _rebuilt, (self.data, self.bits, self.shape, self.format)

    def __repr__(self) -> str:
        kind = f"bits={self.bits}" if self.format is None else f"format={self.format}"
        return f"PackedTensor(shape={self.shape}, {kind}, nbytes={self.nbytes})"

    def save(self, path: str | PathLike[str]) -> None:
        r"""Write a file, little-endian throughout.

        ======  ==================================================================
        bytes   content
        ======  ==================================================================
        0-7     ``\x93PACKED\n``
        8-9     version, 1
        10, 11  bits of a code; number of axes, a
        12-13   bytes of the format's text, t (0: raw codes)
        14-15   zero
        16-19   CRC-32 of bytes 0-15 and of all that follows
        20-     a lengths of 8 bytes; t bytes of ASCII text; the bit string
        ======  ==================================================================
        """
        text = ("" if self.format is None else str(self.format)).encode("ascii")
        body = struct.pack(f"<{len(self.shape)}Q", *self.shape) + text + self.data.tobytes()
        head = _HEAD.pack(_MAGIC, _VERSION, self.bits, len(self.shape), len(text))
        Path(path).write_bytes(head + _CHECKSUM.pack(zlib.crc32(body, zlib.crc32(head))) + body)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> PackedTensor:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            Another kind of file, another version, a truncated or damaged file.
        """
        content = Path(path).read_bytes()
        if len(content) < _BODY or not content.startswith(_MAGIC):
            raise ValueError(f"{path} is not the file of a packed tensor")
        _, version, bits, axes, text_bytes = _HEAD.unpack_from(content)
        if version != _VERSION:
            raise ValueError(f"version of {path} must be {_VERSION}, got {version}")
        (expected,) = _CHECKSUM.unpack_from(content, _HEAD.size)
        checksum = zlib.crc32(memoryview(content)[_BODY:], zlib.crc32(content[: _HEAD.size]))
        if checksum != expected:
            raise ValueError(f"{path} is truncated or damaged: CRC-32 {checksum:#010x}, not {expected:#010x}")
        begin = _BODY + 8 * axes
        shape = struct.unpack_from(f"<{axes}Q", content, _BODY)
        text = content[begin : begin + text_bytes].decode("ascii")
        data = np.frombuffer(content, np.uint8, offset=begin + text_bytes)
        return cls(data=data, bits=bits, shape=shape, format=parse_format(text) if text else None)


def _rebuilt(data: np.ndarray, bits: int, shape: tuple[int, ...], fmt: Format | None) -> PackedTensor:
    return PackedTensor(data=data, bits=bits, shape=shape, format=fmt)


def _checked_bits(bits: Any, name: str = "bits") -> int:
    if isinstance(bits, bool) or not hasattr(bits, "__index__"):
        raise TypeError(f"{name} must be an integer in 1..{MAX_BITS}, got {bits!r}")
    if not 1 <= (number := as_int(bits)) <= MAX_BITS:
        raise ValueError(f"{name} must be in 1..{MAX_BITS}, got {number}")
    return number


def _check_codes(codes: np.ndarray, bits: int) -> None:
    beyond = codes >= np.uint64(1 << bits)
    if beyond.any():
        place = np.unravel_index(int(beyond.argmax()), codes.shape)
        where = ", ".join(str(int(axis)) for axis in place)
        raise ValueError(f"codes must be below {1 << bits} for {bits} bits, got {codes[place]} at [{where}]")


def _bytes_of(elements: int, bits: int) -> int:
    return -(-elements * bits // 8)


def _code_dtype(bits: int) -> np.dtype[Any]:
    return np.dtype(np.uint8 if bits <= 8 else np.uint16)


@lru_cache(maxsize=32)  # a table of 16 bits in float64 takes 512 KiB
def _values(fmt: Format, dtype: np.dtype[Any]) -> np.ndarray:
    """Value of every code, by code."""
    return decode(np.arange(1 << fmt.bits, dtype=_code_dtype(fmt.bits)), fmt, dtype.type)


def _bit_range(data: np.ndarray, first: int, length: int) -> np.ndarray:
    """Bits ``first .. first + length - 1`` of a bit string, as one of their own."""
    size = _bytes_of(length, 1)
    begin, shift = divmod(first, 8)
    part = data[begin : begin + size]
    if shift:
        # Each byte takes its upper bits from the next one, if the range reaches so far.
        part = part >> shift
        following = data[begin + 1 : begin + size + 1]
        part[: following.size] |= following << (8 - shift)
    if unused := 8 * size - length:
        part = part.copy()
        part[-1] &= 0xFF >> unused
    return part
