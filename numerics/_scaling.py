"""Arrays in block formats: elements in the units of their scales, and values made of them again.

`round_blocks` does both at once where the scales are powers of two and the rounding needs no random
words. Everything else divides, rounds the quotients as `cast` rounds any array, and multiplies.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from numerics._kernels import blocks
from numerics._kernels import rounding as modes
from numerics._target import Target
from numerics.block import BlockFormat, in_rows
from numerics.formats import FloatFormat
from numerics.rounding import Rounding


def rounds_blocks(fmt: BlockFormat, rounding: Rounding) -> bool:
    """Whether `round_blocks` knows this format and rounding."""
    return fmt.scale == "e8m0" and not rounding.is_stochastic


def round_blocks(
    x: Float[np.ndarray, "*rows n"],
    fmt: BlockFormat,
    rounding: Rounding,
    out: Float[np.ndarray, "*rows n"],
    *,
    divided: bool = False,
) -> UInt8[np.ndarray, "*rows blocks"]:
    """Round to a format with E8M0 scales, deterministically, and return the codes of the scales.

    Parameters
    ----------
    x, out : (..., n)
        float32 or float64 that holds every value of `fmt`; `out` is C-contiguous and may be `x`.
    divided
        Write the elements, which are +0 in a block of scale NaN, instead of their values.
    """
    target = Target.of(fmt.element, rounding, "saturate")
    if isinstance(fmt.element, FloatFormat):
        emax, minus_zero = fmt.element.emax, fmt.element.has_minus_zero
    else:
        emax, minus_zero = fmt.element.int_bits - 1, False
    codes = np.empty(fmt.blocks_in(x.shape), np.uint8)
    source = np.ascontiguousarray(x)
    if np.may_share_memory(source, out) and source.ctypes.data != out.ctypes.data:
        source = source.copy()  # overlapping, but not element on element
    arrays = in_rows(source), in_rows(out), in_rows(codes)
    shape = target.frac_bits, target.emin, emax, target.min_value, target.max_value
    if (
        x.dtype == np.float32
        and target.mode == modes.NEAREST_EVEN
        and target.frac_bits <= 21
        and not target.flush
    ):
        blocks.round_nearest_even_f32(*arrays, fmt.block, *shape, minus_zero, divided)
    else:
        blocks.round_deterministic(*arrays, fmt.block, target.mode, *shape, target.flush, minus_zero, divided)
    return codes


def quotients(
    x: Float[np.ndarray, "*rows n"], fmt: BlockFormat, scales: Float[np.ndarray, "*rows blocks"]
) -> Float[np.ndarray, "*rows n"]:
    """Elements before they are rounded, in float64: `x` over its scales, the tensor's included.

    They are rounded to odd at 53 bits, so that one more rounding to 51 or fewer is exact. A block of
    scale NaN is +0, of scale zero is zero with the signs of `x`.
    """
    out = np.empty(x.shape)
    source = in_rows(np.ascontiguousarray(x))
    blocks.divide(source, in_rows(scales), in_rows(out), fmt.block, x.dtype == np.float32)
    return out


def products(
    elements: Float[np.ndarray, "*rows n"],
    fmt: BlockFormat,
    scales: Float[np.ndarray, "*rows blocks"],
    out: Float[np.ndarray, "*rows n"],
) -> Float[np.ndarray, "*rows n"]:
    """Values: elements times their scales, the tensor's included, in float64 and then rounded to `out`.

    Both arrays of elements are C-contiguous and may be the same one.
    """
    blocks.multiply(in_rows(elements), in_rows(scales), in_rows(out), fmt.block)
    return out
