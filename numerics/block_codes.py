"""Tensors in block formats as the bits that a memory holds: `encode_blocks` and `decode_blocks`.

The codes of the elements are those of `numerics.codes`. The code of an E8M0 scale is ``X + 127`` for
``2**X``, 255 for NaN; that of a float scale is the code of its format. In a block of scale NaN all
elements are +0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt

from numerics._scaling import products, quotients, round_blocks, rounds_blocks
from numerics._target import Overflow, check_seed
from numerics.block import BlockFormat
from numerics.codes import code_dtype, decode, encode, encode_values
from numerics.elementwise import check_float_array
from numerics.formats import FloatFormat
from numerics.rounding import Rounding

_E8M0_BIAS, _E8M0_NAN = 127, 255
_E8M0_VALUES = np.append(2.0 ** np.arange(-127.0, 128.0), np.nan)


class BlockCodes(NamedTuple):
    """A tensor in a block format.

    Attributes
    ----------
    elements : (..., n)
        Codes of the elements.
    scales : (..., blocks)
        Codes of the scales.
    tensor_scale
        Scale of the tensor, a float32 number; ``None`` with rule ``"floor"``.
    """

    elements: UInt[np.ndarray, "*rows n"]
    scales: UInt[np.ndarray, "*rows blocks"]
    tensor_scale: float | None


def encode_blocks(
    x: Float[np.ndarray, "*rows n"],
    fmt: BlockFormat | str,
    *,
    rounding: Rounding | str = Rounding.NEAREST_EVEN,
    overflow: Overflow = "format",
    seed: int | None = None,
    stream: int = 0,
    tensor_scale: float | None = None,
) -> BlockCodes:
    """Codes of ``cast(x, fmt, ...)``, every element rounded once.

    Parameters
    ----------
    x : (..., n)
        float32 or float64 of any stride; the last axis is cut into blocks.
    fmt, rounding, overflow, seed, stream, tensor_scale
        As in `numerics.cast`.

    Raises
    ------
    TypeError, ValueError
        As `numerics.cast`.

    Examples
    --------
    >>> elements, scales, _ = encode_blocks(np.array([0.5, -1.0, 12.0]), "mxfp4")
    >>> elements.tolist(), scales.tolist()  # 0, -0.5 and 6 times 2
    ([0, 9, 7], [128])
    """
    fmt = BlockFormat.parse(fmt) if isinstance(fmt, str) else fmt
    rounding = Rounding.parse(rounding)
    x = check_float_array(x, "x")
    if overflow not in ("format", "saturate"):
        raise ValueError(f"overflow of block formats must be format or saturate, got {overflow!r}")
    fmt.check_holds(x.dtype)
    check_seed(rounding, seed, stream)
    if rounds_blocks(fmt, rounding):
        fmt.check_tensor_scale(tensor_scale)
        elements = np.empty(x.shape, x.dtype)
        scale_codes = round_blocks(x, fmt, rounding, elements, divided=True)
        codes = encode_values(
            elements.reshape(-1), fmt.element, np.empty(x.size, code_dtype(fmt.element.bits))
        )
        return BlockCodes(codes.reshape(x.shape), scale_codes, None)
    scales, tensor = fmt.scales(x, tensor_scale)
    codes = encode(
        quotients(x, fmt, scales * tensor),
        fmt.element,
        rounding=rounding,
        overflow="saturate",
        seed=seed,
        stream=stream,
    )
    if isinstance(fmt.scale, FloatFormat):
        return BlockCodes(codes, encode(scales, fmt.scale), tensor)
    bad = np.isnan(scales)
    exponents = np.frexp(np.where(bad, 1.0, scales))[1] - 1
    return BlockCodes(codes, np.where(bad, _E8M0_NAN, exponents + _E8M0_BIAS).astype(np.uint8), None)


def decode_blocks(
    codes: BlockCodes, fmt: BlockFormat | str, dtype: type[np.float32] | type[np.float64] = np.float32
) -> Float[np.ndarray, "*rows n"]:
    """Values of `codes`: elements times their scales, with a tensor scale rounded to `dtype`.

    Raises
    ------
    TypeError, ValueError
        Codes that do not fit `fmt` or one another, a dtype that cannot hold the values.

    Examples
    --------
    >>> decode_blocks(encode_blocks(np.array([0.5, -1.0, 12.0]), "mxfp4"), "mxfp4")
    array([ 0., -1., 12.], dtype=float32)
    """
    fmt = BlockFormat.parse(fmt) if isinstance(fmt, str) else fmt
    fmt.check_holds(np.dtype(dtype))
    values = decode(codes.elements, fmt.element, dtype)
    wanted = fmt.blocks_in(values.shape)
    if codes.scales.shape != wanted:
        raise ValueError(
            f"scales must have shape {wanted} for elements of shape {values.shape}, got {codes.scales.shape}"
        )
    return products(values, fmt, decode_scales(codes.scales, fmt, codes.tensor_scale), values)


def decode_scales(
    codes: UInt[np.ndarray, "*rows blocks"], fmt: BlockFormat, tensor_scale: float | None
) -> Float[np.ndarray, "*rows blocks"]:
    """What the elements of each block are multiplied by, in float64: its scale times the tensor's."""
    fmt.check_tensor_scale(tensor_scale, stored=True)
    if isinstance(fmt.scale, FloatFormat):
        return decode(codes, fmt.scale, np.float64) * (tensor_scale or 1.0)
    if codes.dtype != np.uint8:
        raise TypeError(f"scales of {fmt} must be uint8 codes, got {codes.dtype}")
    return np.asarray(_E8M0_VALUES[codes])
