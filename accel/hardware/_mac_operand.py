"""The multiplier's side of a MAC: operands as significands and exponents, and the scales of blocks."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

from accel.hardware._mac_laws import MacLaws
from accel.hardware._mac_parts import MacParts
from numerics.block import BlockFormat
from numerics.formats import FloatFormat, Format

E8M0_BITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Scale of a block: its exponent bits and significand bits (1 for a power of two)."""

    exp_bits: int
    significand_bits: int
    block: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """What a multiplier and an aligner see of a number.

    An integer or fixed-point number is a significand of all its bits without an exponent field, in a
    float sum; like a subnormal number it is not normalised.

    Attributes
    ----------
    significand_bits
        With the implicit bit.
    exp_bits
        0 for a fixed-point number.
    subnormals
        Whether the significand may have leading zeros.
    nonzero
        Share of random codes that are not zero.
    span_bits
        Bits from the least unit to the largest value, without the sign.
    is_float
        Whether it has an exponent field.
    scale
        Of a block format, else ``None``.
    """

    significand_bits: int
    exp_bits: int
    subnormals: bool
    nonzero: float
    span_bits: int
    is_float: bool
    scale: Scale | None = None

    @classmethod
    def of(cls, fmt: Format | BlockFormat) -> Operand:
        """What the hardware sees of a format."""
        scale: Scale | None = None
        if isinstance(fmt, BlockFormat):
            kind = fmt.scale_format
            scale = Scale(
                exp_bits=E8M0_BITS if kind is None else kind.exp_bits,
                significand_bits=1 if kind is None else kind.precision,
                block=fmt.block,
            )
            fmt = fmt.element
        if isinstance(fmt, FloatFormat):
            zero_bits = fmt.exp_bits + (fmt.frac_bits if fmt.subnormals else 0)
            return cls(
                significand_bits=fmt.precision,
                exp_bits=fmt.exp_bits,
                subnormals=fmt.subnormals,
                nonzero=1 - 2.0**-zero_bits,
                span_bits=fmt.emax - fmt.emin + fmt.precision,
                is_float=True,
                scale=scale,
            )
        return cls(
            significand_bits=fmt.bits,
            exp_bits=0,
            subnormals=True,
            nonzero=1 - 2.0**-fmt.bits,
            span_bits=fmt.bits,
            is_float=False,
            scale=scale,
        )


def exact_bits(a: Operand, w: Operand, terms: int) -> int:
    """Bits of a fixed-point register, with the sign, that holds every sum of `terms` products."""
    return a.span_bits + w.span_bits + (terms - 1).bit_length() + 1


def nonzero(a: Operand, w: Operand) -> float:
    """Share of products of random codes that are not zero: a zero product switches little."""
    return a.nonzero * w.nonzero


def multiplier_um2(a: Operand, w: Operand, laws: MacLaws) -> float:
    """Area of the significand multiplier, rectangular where the operands differ."""
    law = laws.float_area
    leading = sum(x.significand_bits * log2(2 * x.significand_bits) for x in (a, w) if x.subnormals) / 2
    return law["multiplier_bit"] * a.significand_bits * w.significand_bits + law["subnormal_bit"] * leading


def multiplier_fj(a: Operand, w: Operand, laws: MacLaws) -> float:
    """Energy of one product."""
    law = laws.float_energy
    leading = sum(x.significand_bits for x in (a, w) if x.subnormals) / 2
    product = law["multiplier_bit"] * a.significand_bits * w.significand_bits
    return nonzero(a, w) * (product + law["subnormal_bit"] * leading)


def multiplier_ns(a: Operand, w: Operand, laws: MacLaws) -> float:
    """Delay of the multiplier: that of an integer one of the significands."""
    law, bits = laws.integer_delay, (a.significand_bits, w.significand_bits)
    return law["product_level"] * log2(bits[0] * bits[1] + 1) + law["register_bit"] * sum(bits)


def scale_parts(a: Operand, w: Operand, sum_bits: int, laws: MacLaws) -> tuple[MacParts, MacParts]:
    """Area (um2) of the unit that applies the scales of blocks, and its energy (fJ) per product.

    Exponents of scales are added once per block, and enter the exponent of the product. Float scales
    are multiplied with each other, and with the sum of the block, of at most `sum_bits` significand bits,
    once per block. The unit is the cell's own, for the blocks of every output have scales of their own;
    its energy is shared by the products of a block.
    """
    area = energy = 0.0
    scales = [x.scale for x in (a, w) if x.scale is not None]
    for scale in scales:
        area += laws.float_area["exponent_bit"] * scale.exp_bits
        energy += laws.float_energy["exponent_bit"] * scale.exp_bits / scale.block
    floats = [scale for scale in scales if scale.significand_bits > 1]
    if floats:
        block = min(scale.block for scale in floats)
        bits = [scale.significand_bits for scale in floats]
        held = min(sum_bits, exact_bits(a, w, block) - 1)
        cells = (bits[0] * bits[1] if len(bits) == 2 else 0) + sum(bits) * held
        area += laws.float_area["multiplier_bit"] * cells
        energy += laws.float_energy["multiplier_bit"] * cells / block
    return MacParts(scale=area), MacParts(scale=energy)


def float_scale_block(a: Operand, w: Operand) -> int | None:
    """Products of a block whose sum is multiplied by float scales, ``None`` without such scales."""
    blocks = [x.scale.block for x in (a, w) if x.scale is not None and x.scale.significand_bits > 1]
    return min(blocks) if blocks else None


def operand_estimates(a: Operand, w: Operand) -> tuple[tuple[bool, str], ...]:
    """What of the operands no synthesised float cell had."""
    shapes = {(x.significand_bits, x.exp_bits, x.subnormals) for x in (a, w)}
    return (
        (not (a.is_float and w.is_float), "integer operands of a float sum"),
        (len(shapes) > 1, "two operand formats"),
        (a.scale is not None or w.scale is not None, "scales of blocks"),
    )
