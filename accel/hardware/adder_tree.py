"""The fused adder: products of a block, aligned to their largest exponent and added at once.

Its parts are those of the cells that were synthesised, counted anew; no fused adder was synthesised. For n
products per pass, operands of e exponent bits, aligned terms of ``A = align_bits + 2`` bits and sums of
``S = A + ceil(log2(n + 1)) + 1`` bits:

* n multipliers and exponent adders;
* n nodes, each a comparison and a choice, that find the largest of n + 1 exponents, and n + 1 subtractions
  from it;
* n + 1 shifters of A bits and ``ceil(log2 A)`` stages;
* n adders of S bits (carry-save rows or ripple adders: one full adder per bit);
* one normaliser of S bits, one rounding to the output, one register; with ``promote`` a float adder and a
  register of its own.

Structures behind the multipliers switch as the window of a float cell of the same width does, per um2.
"""

from __future__ import annotations

from math import ceil, log2

from accel.hardware import _mac_operand as operands
from accel.hardware._mac_float import addition_um2, product_shift_fj, window_fj
from accel.hardware._mac_laws import MacLaws
from accel.hardware._mac_operand import Operand
from accel.hardware._mac_parts import Cell, MacParts, Stage
from numerics.formats import BINARY32
from numerics.fused import FusedAdder
from numerics.rounding import Mode

INTEGER_BITS = 2  # of a product of two significands, each below 2
_CUTTING = (Mode.TOWARD_ZERO, Mode.TO_ODD)


def fused_cell(a: Operand, w: Operand, adder: FusedAdder, laws: MacLaws) -> Cell:
    """Cost of one product of a fused unit: the unit's over the products of a pass."""
    products, output = adder.block, adder.output
    exp_bits = max(a.exp_bits, w.exp_bits)
    exponent = max(exp_bits + 1, output.exp_bits)  # bits of the exponents that are compared
    aligned = adder.align_bits + INTEGER_BITS
    levels = products.bit_length()  # ceil(log2(n + 1))
    total = aligned + levels + 1
    gates, area_law, energy_law = laws.gates, laws.float_area, laws.float_energy
    mux = area_law["shifter_bit"] / 2  # one bit of one stage of one of a cell's two shifters
    increments = adder.rounding.mode not in _CUTTING

    multiplier = operands.multiplier_um2(a, w, laws)
    largest = products * exponent * (gates["adder_um2"] + mux)
    largest += (products + 1) * exponent * gates["adder_um2"]
    shifters = (products + 1) * aligned * ceil(log2(aligned)) * mux
    tree = products * total * gates["adder_um2"]
    normaliser = total * ceil(log2(total)) * mux
    unit = MacParts(
        multiplier=products * multiplier,
        alignment=shifters,
        adder=tree,
        normaliser=normaliser,
        rounding=area_law["rounding_bit"] * output.precision if increments else 0.0,
        exponent=largest + area_law["exponent_bit"] * (products * exp_bits + output.exp_bits),
        register=gates["register_um2"] * output.bits,
    )
    activity = _fj_per_um2(aligned, exp_bits, laws)
    energy = MacParts(
        multiplier=products * operands.multiplier_fj(a, w, laws),
        alignment=shifters * activity + products * product_shift_fj(a, w, aligned, laws),
        adder=tree * activity,
        normaliser=normaliser * activity,
        rounding=energy_law["rounding_bit"] * output.precision if increments else 0.0,
        exponent=largest * activity + energy_law["exponent_bit"] * (products * exp_bits + output.exp_bits),
        register=gates["register_fj"] * output.bits,
    )
    if adder.promote is not None:
        promoted, once = _promotion(laws)
        unit += promoted
        energy += once * (products / adder.promote)
    unit, energy = unit * (1 / products), energy * (1 / products)
    scale_area, scale_energy = operands.scale_parts(a, w, output.precision, laws)
    blocks = [x.scale.block for x in (a, w) if x.scale is not None]
    if blocks:  # one unit of scales for each block that a pass holds
        unit += scale_area * (ceil(products / min(blocks)) / products)
        energy += scale_energy
    return Cell(
        area=unit,
        energy=energy,
        stages=_stages(a, w, (exp_bits, exponent, aligned, levels), adder, laws),
        estimates=("no fused adder was synthesised: the parts are those of the cells that were",),
        per=f"product of a fused unit that adds {products} at once",
    )


def _fj_per_um2(window: int, exp_bits: int, laws: MacLaws) -> float:
    """Energy per area of adder and shifters in a float cell, for random operands."""
    area = window * (laws.gates["adder_um2"] + laws.float_area["shifter_bit"] * log2(window))
    return window_fj(window, exp_bits, laws) / area


def _promotion(laws: MacLaws) -> tuple[MacParts, MacParts]:
    """Area of the binary32 adder with its register, and energy of one addition."""
    window, exp_bits, gates = BINARY32.frac_bits + laws.margin_bits, 2 * BINARY32.exp_bits, laws.gates
    area = addition_um2(window, BINARY32.frac_bits, exp_bits, laws)
    split = addition_um2(window, 0, 0, laws, increments=False)
    energy = split * (window_fj(window, BINARY32.exp_bits, laws) / split.total) + MacParts(
        rounding=laws.float_energy["rounding_bit"] * BINARY32.precision,
        exponent=laws.float_energy["exponent_bit"] * exp_bits,
        register=gates["register_fj"] * BINARY32.bits,
    )
    return area + MacParts(register=gates["register_um2"] * BINARY32.bits), energy


def _stages(
    a: Operand,
    w: Operand,
    widths: tuple[int, int, int, int],
    adder: FusedAdder,
    laws: MacLaws,
) -> tuple[Stage, ...]:
    """Steps of the path, with the bits behind each that are one product's share.

    Ripple adders of a tree overlap: a level waits for one bit of the level before it.
    """
    exp_bits, exponent, aligned, levels = widths
    total, products, bit_ns = aligned + levels + 1, adder.block, laws.gates["adder_ns"]
    half = (laws.float_delay["window_bit"] - bit_ns) / 2  # of a shifter, per bit of the window
    compare = levels * exponent * bit_ns
    return (
        Stage(
            name="multiplier",
            delay_ns=operands.multiplier_ns(a, w, laws),
            cut_bits=a.significand_bits + w.significand_bits + exp_bits + 2,
        ),
        Stage(
            name="alignment",
            delay_ns=compare + half * aligned,
            cut_bits=ceil(((products + 1) * (aligned + 1) + exponent) / products),
        ),
        Stage(name="adder", delay_ns=bit_ns * (total + levels), cut_bits=ceil((total + exponent) / products)),
        Stage(
            name="normaliser",
            delay_ns=half * total + laws.float_delay["exponent_bit"] * adder.output.exp_bits,
            cut_bits=ceil(adder.output.bits / products),
        ),
    )
