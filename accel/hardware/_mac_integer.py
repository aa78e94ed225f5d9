"""Cells with an integer or fixed-point register: of integers, and of floats that are shifted into place.

With A register bits, operands of a and w bits, p significand and e exponent bits::

    integers  area    multiplier a w, adder A log2 A, register A
              energy  the same, and register (a + w) z for the bits that a product switches
    floats    area    multiplier as in a float register, shifter A min(e + 1, ceil(log2 A) + 1),
                      adder A, register A
              energy  multiplier, product shift (p_a + p_w) log2 A, adder A z, register A

each with one coefficient of ``mac.toml``; z is the share of products of random bits that are not zero. The
synthesised cells wrap around: what saturation costs, a multiplexer for each bit of the register, is left out.
"""

from __future__ import annotations

from math import ceil, log2

from accel.hardware import _mac_operand as operands
from accel.hardware._mac_laws import MacLaws
from accel.hardware._mac_operand import Operand
from accel.hardware._mac_parts import Cell, MacParts, Stage
from numerics.integer import IntegerAccumulator
from numerics.rounding import Mode

_CUTTING = (Mode.DOWN, Mode.TO_ODD)  # in two's complement: no increment in the last place


def integer_cell(a: Operand, w: Operand, accumulator: IntegerAccumulator | int, laws: MacLaws) -> Cell:
    """Cost of a cell with an integer register, or with a plain one of so many bits.

    The sum of a chunk takes one more addition, by an adder as wide as the wider register, whose energy is
    shared by the products of the chunk. A product that is rounded to the unit of the register, other than
    down or to odd, takes one more adder bit.
    """
    plain = isinstance(accumulator, int)
    bits = accumulator if isinstance(accumulator, int) else accumulator.bits
    chunk = None if isinstance(accumulator, int) else accumulator.chunk
    rounding = None if isinstance(accumulator, int) else accumulator.rounding
    outer = bits if isinstance(accumulator, int) or accumulator.outer is None else accumulator.outer
    floats = a.is_float or w.is_float
    law = _fixed if floats else _integer
    area, energy, stages = law(a, w, bits, max(bits, outer) if chunk else bits, laws)
    if chunk is not None:
        _, once = _addition(floats, outer, laws)
        area += MacParts(register=laws.gates["register_um2"] * outer)
        energy += once * (1 / chunk)
    if rounding is not None and rounding.mode not in _CUTTING:
        area += MacParts(rounding=laws.gates["adder_um2"])
        energy += MacParts(rounding=laws.gates["adder_fj"])
    notes = (
        *(operands.operand_estimates(a, w) if floats else ()),
        (chunk is not None, "a register for the sums of chunks"),
        (rounding is not None, "rounded products"),
        (plain and floats, "the rounding of an exact sum, which is left out"),
    )
    return Cell(
        area=area,
        energy=energy,
        stages=stages,
        estimates=tuple(f"no cell was synthesised with {note}" for holds, note in notes if holds),
    )


def _addition(floats: bool, bits: int, laws: MacLaws) -> tuple[MacParts, MacParts]:
    """Area of an adder, without register, and energy of an addition with the clock of its register."""
    if floats:
        return (
            MacParts(adder=laws.gates["adder_um2"] * bits),
            MacParts(
                adder=laws.fixed_energy["adder_bit"] * bits,
                register=laws.fixed_energy["register_bit"] * bits,
            ),
        )
    levels = bits * log2(bits)
    return (
        MacParts(adder=laws.integer_area["adder_bit"] * levels),
        MacParts(
            adder=laws.integer_energy["adder_bit"] * levels,
            register=laws.integer_energy["register_bit"] * bits,
        ),
    )


def _integer(
    a: Operand, w: Operand, bits: int, adder_bits: int, laws: MacLaws
) -> tuple[MacParts, MacParts, tuple[Stage, ...]]:
    product, nonzero = a.significand_bits * w.significand_bits, operands.nonzero(a, w)
    product_bits = a.significand_bits + w.significand_bits
    adder, _ = _addition(False, adder_bits, laws)
    _, addition = _addition(False, bits, laws)
    area = adder + MacParts(
        multiplier=laws.integer_area["multiplier_bit"] * product,
        register=laws.gates["register_um2"] * bits,
    )
    energy = addition + MacParts(
        multiplier=laws.integer_energy["multiplier_bit"] * product,
        register=laws.integer_energy["register_product_bit"] * product_bits * nonzero,
    )
    delay = laws.integer_delay
    stages = (
        Stage(
            name="multiplier",
            delay_ns=delay["product_level"] * log2(product + 1),
            cut_bits=product_bits,
        ),
        Stage(name="adder", delay_ns=delay["register_bit"] * adder_bits, cut_bits=bits),
    )
    return area, energy, stages


def _fixed(
    a: Operand, w: Operand, bits: int, adder_bits: int, laws: MacLaws
) -> tuple[MacParts, MacParts, tuple[Stage, ...]]:
    exp_bits, nonzero = max(a.exp_bits, w.exp_bits), operands.nonzero(a, w)
    product_bits = a.significand_bits + w.significand_bits
    adder, _ = _addition(True, adder_bits, laws)
    shift_stages = min(exp_bits + 1, ceil(log2(bits)) + 1)
    area = adder + MacParts(
        multiplier=operands.multiplier_um2(a, w, laws),
        alignment=laws.fixed_area["shifter_bit"] * bits * shift_stages,
        register=laws.gates["register_um2"] * bits,
    )
    law = laws.fixed_energy
    energy = MacParts(
        multiplier=_multiplier_fj(a, w, laws),
        alignment=law["product_shift_bit"] * product_bits * log2(bits),
        adder=law["adder_bit"] * bits * nonzero,
        register=law["register_bit"] * bits,
    )
    delay, significand = laws.fixed_delay, product_bits / 2
    stages = (
        Stage(
            name="multiplier",
            delay_ns=delay["significand_bit"] * significand,
            cut_bits=product_bits + exp_bits + 2,
        ),
        Stage(name="alignment", delay_ns=delay["exponent_bit"] * exp_bits, cut_bits=2 * bits),
        Stage(name="adder", delay_ns=delay["register_bit"] * adder_bits, cut_bits=bits),
    )
    return area, energy, stages


def _multiplier_fj(a: Operand, w: Operand, laws: MacLaws) -> float:
    """Energy of the product alone; what subnormals add is in the terms of the shift."""
    product = a.significand_bits * w.significand_bits
    return laws.float_energy["multiplier_bit"] * product * operands.nonzero(a, w)
