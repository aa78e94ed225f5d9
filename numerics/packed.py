"""Variable-precision tensors, stored in exactly their bits.

The codes of the elements, in C order, are a bit string as `numerics.bit_string` draws it. A tensor in a
block format is two of them, one of its elements and one of its scales, which are a packed tensor of
their own with a code for each block; and the scale of the tensor, if the format has one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from operator import index as as_int
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, UInt, UInt8

from numerics import bit_string, packed_file
from numerics._scaling import products
from numerics._target import Overflow
from numerics.bit_string import bytes_of, check_bits
from numerics.block import BlockFormat, parse_any_format
from numerics.block_codes import decode_scales, encode_blocks
from numerics.codes import encode, value_table
from numerics.elementwise import check_holds
from numerics.formats import Format
from numerics.rounding import Rounding

_Float: TypeAlias = type[np.float32] | type[np.float64]


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
    scales
        With a block format, the codes of the scales: along the last axis one for each block. Their
        format is that of the scales, ``None`` for E8M0.
    tensor_scale
        With a block format of rule ``"amax"``, the scale of the tensor: a positive float32 number.

    Raises
    ------
    TypeError, ValueError
        `data` is not a flat uint8 array of exactly ``ceil(elements * bits / 8)`` bytes that ends in
        zeros; `bits` outside 1..16 or not those of `format`; scales that do not fit format and shape.

    Examples
    --------
    >>> t = PackedTensor.from_codes(np.array([1, 2, 3, 5], np.uint8), 3)
    >>> t, [f"{byte:08b}" for byte in t.data]
    (PackedTensor(shape=(4,), bits=3, nbytes=2), ['11010001', '00001010'])
    >>> t[1:3].codes()
    array([2, 3], dtype=uint8)
    >>> PackedTensor.pack(np.array([0.3, -1.0, 9.0]), "e2m1").unpack()
    array([ 0.5, -1. ,  6. ], dtype=float32)
    >>> t = PackedTensor.pack(np.array([0.3, -1.0, 9.0]), "mxfp4")
    >>> t, t.scales.codes()  # the scale is 2**(128 - 127)
    (PackedTensor(shape=(3,), format=mxfp4, nbytes=3), array([128], dtype=uint8))
    >>> t.unpack()
    array([ 0., -1.,  8.], dtype=float32)
    """

    data: UInt8[np.ndarray, " nbytes"]
    bits: int
    shape: tuple[int, ...]
    format: Format | BlockFormat | None = None
    scales: PackedTensor | None = None
    tensor_scale: float | None = None

    def __post_init__(self) -> None:
        bits = check_bits(self.bits)
        shape = tuple(as_int(length) for length in self.shape)
        if any(length < 0 for length in shape):
            raise ValueError(f"shape must have no negative length, got {shape}")
        fmt = _checked_format(self.format, bits)
        if not isinstance(self.data, np.ndarray) or self.data.dtype != np.uint8:
            kind = getattr(self.data, "dtype", type(self.data).__name__)
            raise TypeError(f"data must be a uint8 array, got {kind}")
        size = bytes_of(prod(shape), bits)
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
        tensor_scale = _checked_scales(fmt, shape, self.scales, self.tensor_scale)
        view = self.data.view(np.ndarray)
        view.flags.writeable = False
        fields = {"data": view, "bits": bits, "shape": shape, "format": fmt, "tensor_scale": tensor_scale}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_codes(
        cls,
        codes: UInt[np.ndarray, "..."],
        bits: int,
        fmt: Format | BlockFormat | str | None = None,
        *,
        scales: UInt[np.ndarray, "..."] | None = None,
        tensor_scale: float | None = None,
    ) -> PackedTensor:
        """Pack the codes of an array of any unsigned dtype, shape and stride.

        Parameters
        ----------
        codes : (..., n)
            Codes of the elements.
        bits, fmt
            Bits of one of them, and what they mean.
        scales : (..., blocks)
            With a block format, the codes of its scales.
        tensor_scale
            With a block format of rule ``"amax"``, the scale of the tensor.

        Raises
        ------
        TypeError, ValueError
            Another dtype, `bits` outside 1..16 or not those of `fmt`, a code of more than `bits`
            bits (the first one is named), scales that do not fit.
        """
        bits = check_bits(bits)
        fmt = _checked_format(fmt, bits)
        data = bit_string.join(codes, bits)
        packed_scales = None
        if scales is not None:
            if not isinstance(fmt, BlockFormat):
                raise ValueError(f"scales belong to block formats, got some with {fmt}")
            packed_scales = cls.from_codes(scales, fmt.scale_bits, fmt.scale_format)
        return _rebuilt(data, bits, codes.shape, fmt, packed_scales, tensor_scale)

    @classmethod
    def pack(
        cls,
        x: Float[np.ndarray, "..."],
        fmt: Format | BlockFormat | str,
        *,
        rounding: Rounding | str = Rounding.NEAREST_EVEN,
        overflow: Overflow = "format",
        seed: int | None = None,
        stream: int = 0,
        tensor_scale: float | None = None,
    ) -> PackedTensor:
        """Round `x` to a format of codes of at most 16 bits, as `cast` does with these arguments, and pack.

        An infinity or NaN without a code is refused, as by `encode`. In a block format it makes the scale
        of its block NaN.
        """
        fmt = parse_any_format(fmt)
        rounded: dict[str, Any] = {"rounding": rounding, "overflow": overflow, "seed": seed, "stream": stream}
        if isinstance(fmt, BlockFormat):
            bits = check_bits(fmt.element.bits, f"bits of an element of {fmt}")
            codes, scales, tensor_scale = encode_blocks(x, fmt, tensor_scale=tensor_scale, **rounded)
            return cls.from_codes(codes, bits, fmt, scales=scales, tensor_scale=tensor_scale)
        if tensor_scale is not None:
            raise ValueError(f"tensor_scale belongs to block formats, got {tensor_scale!r} with {fmt}")
        check_bits(fmt.bits, f"bits of {fmt}")
        return cls.from_codes(encode(x, fmt, **rounded), fmt.bits, fmt)

    def codes(self) -> UInt[np.ndarray, "..."]:
        """Codes of the elements, uint8 up to 8 bits, uint16 above; a new array of this shape."""
        return bit_string.split(self.data, self.bits, prod(self.shape)).reshape(self.shape)

    def unpack(
        self, dtype: _Float = np.float32, out: Float[np.ndarray, "..."] | None = None
    ) -> Float[np.ndarray, "..."]:
        """The values, as `decode` or `decode_blocks` gives them.

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
        kind = np.dtype(dtype)
        if kind not in (np.float32, np.float64):
            raise TypeError(f"dtype must be float32 or float64, got {dtype!r}")
        blocks = self.format if isinstance(self.format, BlockFormat) else None
        element = self.format if not isinstance(self.format, BlockFormat) else self.format.element
        check_holds(kind, element)
        if blocks is not None:
            blocks.check_holds(kind)
        if out is None:
            out = np.empty(self.shape, kind)
        elif (
            out.shape != self.shape
            or out.dtype != kind
            or not (out.flags.c_contiguous and out.flags.writeable)
        ):
            raise ValueError(
                f"out must be writeable and C-contiguous with shape {self.shape} and dtype {kind}, "
                f"got shape {out.shape} and dtype {out.dtype}"
            )
        if blocks is None or self.scales is None:
            bit_string.look_up(self.data, self.bits, value_table(element, kind), out)
            return out
        factors = decode_scales(self.scales.codes(), blocks, self.tensor_scale)
        if self.bits <= 8 and blocks.block % 8 == 0 and self.shape[-1] % blocks.block == 0:
            table = value_table(element, np.dtype(np.float64))
            bit_string.look_up_blocks(self.data, self.bits, table, factors.reshape(-1), out.reshape(-1))
            return out
        bit_string.look_up(self.data, self.bits, value_table(element, kind), out)
        return products(out, blocks, factors, out)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is stored: the bit strings, and 4 for the scale of the tensor if it has one.

        A bit string takes ``ceil(elements * bits / 8)`` bytes.
        """
        scales = 0 if self.scales is None else self.scales.nbytes
        return self.data.nbytes + scales + (0 if self.tensor_scale is None else 4)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a PackedTensor of shape () has no length")
        return self.shape[0]

    def __getitem__(self, key: int | slice) -> PackedTensor:
        """Part of the leading axis: an element of it, or a slice of step 1.

        A part that begins and ends at a byte is a view of the same data, another one a copy. In a block
        format it takes its scales along; if the leading axis is the only one, it must be whole blocks.
        """
        length = len(self)
        if isinstance(key, slice):
            start, stop, step = key.indices(length)
            if step != 1:
                raise ValueError(f"the step of a slice must be 1, got {step}")
            stop = max(start, stop)
            shape = (stop - start, *self.shape[1:])
        elif isinstance(key, bool | np.bool_) or not hasattr(key, "__index__"):
            raise TypeError(f"an index must be an integer or a slice of the leading axis, got {key!r}")
        else:
            start = as_int(key)
            if not -length <= start < length:
                raise IndexError(f"index must be in {-length}..{length - 1}, got {start}")
            start %= length
            stop, shape = start + 1, self.shape[1:]
        scales = self.scales
        if isinstance(self.format, BlockFormat) and scales is not None:
            in_rows = len(self.shape) > 1
            scales = scales[key if in_rows else _in_blocks(key, start, stop, length, self.format.block)]
        first = start * prod(self.shape[1:]) * self.bits
        data = bit_string.part(self.data, first, prod(shape) * self.bits)
        return _rebuilt(data, self.bits, shape, self.format, scales, self.tensor_scale)

    def __eq__(self, other: object) -> bool:
        """Same shape, bits, format, scales and codes; NaN codes are codes like any other."""
        if not isinstance(other, PackedTensor):
            return NotImplemented
        return self._but_data() == other._but_data() and np.array_equal(self.data, other.data)

    def __hash__(self) -> int:
        return hash((self.data.tobytes(), *self._but_data()))

    def __reduce__(self) -> tuple[Callable[..., PackedTensor], tuple[Any, ...]]:
        return _rebuilt, (self.data, *self._but_data())

    def _but_data(self) -> tuple[Any, ...]:
        return self.bits, self.shape, self.format, self.scales, self.tensor_scale

    def __repr__(self) -> str:
        kind = f"bits={self.bits}" if self.format is None else f"format={self.format}"
        return f"PackedTensor(shape={self.shape}, {kind}, nbytes={self.nbytes})"

    def save(self, path: str | PathLike[str]) -> None:
        """Write a file as `numerics.packed_file` describes it."""
        scales = self.data[:0] if self.scales is None else self.scales.data
        content = packed_file.Content(
            self.bits, self.shape, self.format, self.data, scales, self.tensor_scale
        )
        packed_file.write(path, content)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> PackedTensor:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            Another kind of file, another version, a truncated or damaged file.
        """
        bits, shape, fmt, data, scale_data, tensor_scale = packed_file.read(path)
        scales = None
        if isinstance(fmt, BlockFormat):
            blocks = fmt.blocks_in(shape)
            scales = _rebuilt(scale_data, fmt.scale_bits, blocks, fmt.scale_format, None, None)
        return _rebuilt(data, bits, shape, fmt, scales, tensor_scale)


def _rebuilt(
    data: np.ndarray,
    bits: int,
    shape: tuple[int, ...],
    fmt: Format | BlockFormat | None,
    scales: PackedTensor | None = None,
    tensor_scale: float | None = None,
) -> PackedTensor:
    return PackedTensor(
        data=data, bits=bits, shape=shape, format=fmt, scales=scales, tensor_scale=tensor_scale
    )


def _checked_format(fmt: Format | BlockFormat | str | None, bits: int) -> Format | BlockFormat | None:
    if fmt is None:
        return None
    fmt = parse_any_format(fmt)
    own = fmt.element.bits if isinstance(fmt, BlockFormat) else fmt.bits
    if own != bits:
        raise ValueError(f"bits must be {own} for format {fmt}, got {bits}")
    return fmt


def _checked_scales(
    fmt: Format | BlockFormat | None,
    shape: tuple[int, ...],
    scales: PackedTensor | None,
    tensor_scale: float | None,
) -> float | None:
    """The scale of the tensor, if it and the scales of the blocks are what the format wants."""
    if not isinstance(fmt, BlockFormat):
        if scales is not None or tensor_scale is not None:
            raise ValueError(f"scales and tensor_scale belong to block formats, got some with {fmt}")
        return None
    if not isinstance(scales, PackedTensor):
        raise TypeError(f"scales of {fmt} must be a PackedTensor, got {type(scales).__name__}")
    wanted = fmt.scale_bits, fmt.blocks_in(shape), fmt.scale_format
    if (scales.bits, scales.shape, scales.format) != wanted:
        raise ValueError(
            f"scales of {fmt} for shape {shape} must have {wanted[0]} bits, shape {wanted[1]} and format "
            f"{wanted[2]}, got {scales.bits}, {scales.shape} and {scales.format}"
        )
    fmt.check_tensor_scale(tensor_scale, stored=True)
    return None if tensor_scale is None else float(tensor_scale)


def _in_blocks(key: int | slice, start: int, stop: int, length: int, block: int) -> slice:
    """A part of the only axis, counted in blocks."""
    ends = start == stop or (start % block == 0 and (stop % block == 0 or stop == length))
    if not isinstance(key, slice) or not ends:
        got = f"{start}:{stop}" if isinstance(key, slice) else start
        raise ValueError(f"a part of the only axis must be a slice of whole blocks of {block}, got {got}")
    first = -(-start // block)
    return slice(first, max(first, -(-stop // block)))
