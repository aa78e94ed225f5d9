"""The cell that adds a product into a floating-point register.

With p significand bits of an operand, f fraction bits of the register and ``W = max(fraction bits of the
product, f) + 5`` the window in which product and sum are aligned and normalised::

    area    multiplier p_a p_w, subnormals p log2(2 p), adder W, two shifters W ceil(log2 W),
            rounding f + 1, exponents e + e_acc, register 1 + e_acc + f
    energy  multiplier p_a p_w z, subnormals p z, product shift (p_a + p_w) ceil(log2 W) z,
            window W min(e + 1, log2 W), rounding, exponents and register as the area

each with one coefficient of ``mac.toml``; z is the share of products of random bits that are not zero. A
register with fewer fraction bits than a product saves its register and rounding, not the window. The
energy of the window is divided between adder and shifters as its area.
"""

from __future__ import annotations

from math import ceil, log2

from accel.hardware import _mac_operand as operands
from accel.hardware._mac_laws import MacLaws
from accel.hardware._mac_operand import Operand
from accel.hardware._mac_parts import Cell, MacParts, Stage
from numerics.accumulator import Accumulator
from numerics.formats import FloatFormat
from numerics.rounding import MAX_RANDOM_BITS, Mode, Rounding

GUARD_BITS = 3  # guard, round and sticky, within the window's margin
_CUTTING = (Mode.TOWARD_ZERO, Mode.TO_ODD)  # no increment in the last place


def float_cell(
    a: Operand, w: Operand, accumulator: Accumulator, laws: MacLaws, cells_per_generator: int
) -> Cell:
    """Cost of a cell with a float accumulator.

    One adder serves everything: it is as wide as the wider of the inner and the outer register. The sum of
    a chunk, of its lanes and of a block with float scales takes one addition each, whose energy is shared
    by the products of the chunk or block; lanes of an unchunked sum meet so rarely that they add none.

    Raises
    ------
    ValueError
        An adder tree (``order=pairwise``) without chunks: its registers, one per level, have no number.
    """
    inner, chunk = accumulator.format, accumulator.chunk
    outer = inner if accumulator.outer is None else accumulator.outer.format
    outer_rounding = accumulator.rounding if accumulator.outer is None else accumulator.outer.rounding
    modes = [accumulator.rounding] if chunk is None else [accumulator.rounding, outer_rounding]
    exp_bits, product_exp_bits = max(inner.exp_bits, outer.exp_bits), max(a.exp_bits, w.exp_bits)
    frac_bits = max(inner.frac_bits, outer.frac_bits)
    random_bits = max(_random_bits(mode) for mode in modes)
    product_frac_bits = a.significand_bits + w.significand_bits - 2
    if accumulator.product is not None:
        product_frac_bits = min(product_frac_bits, accumulator.product.frac_bits)

    widest = _window(product_frac_bits, frac_bits, random_bits, laws)
    window = _window(product_frac_bits, inner.frac_bits, _random_bits(accumulator.rounding), laws)
    increments = any(_increments(mode) for mode in modes)
    area = MacParts(
        multiplier=operands.multiplier_um2(a, w, laws),
        rounding=random_bits * laws.gates["adder_um2"],
        random_generator=random_bits * laws.gates["register_um2"] / cells_per_generator,
        register=laws.gates["register_um2"] * _register_bits(a, w, accumulator, outer),
    ) + addition_um2(widest, frac_bits, product_exp_bits + exp_bits, laws, increments=increments)
    energy = MacParts(
        multiplier=operands.multiplier_fj(a, w, laws),
        alignment=product_shift_fj(a, w, window, laws),
    ) + _addition_fj(window, product_exp_bits, inner, accumulator.rounding, laws, cells_per_generator)

    if accumulator.product is not None and _increments(accumulator.rounding):
        rounded = product_frac_bits + 1
        area += MacParts(rounding=laws.float_area["rounding_bit"] * rounded)
        energy += MacParts(rounding=laws.float_energy["rounding_bit"] * rounded)
    lane_window = _window(0, inner.frac_bits, _random_bits(accumulator.rounding), laws)
    lane = _addition_fj(lane_window, inner.exp_bits, inner, accumulator.rounding, laws, cells_per_generator)
    if chunk is not None:
        outer_window = _window(0, outer.frac_bits, _random_bits(outer_rounding), laws)
        once = _addition_fj(outer_window, outer.exp_bits, outer, outer_rounding, laws, cells_per_generator)
        energy += (once + lane * (accumulator.lanes - 1)) * (1 / chunk)
    if (block := operands.float_scale_block(a, w)) is not None:
        energy += lane * (1 / block)
    scale_area, scale_energy = operands.scale_parts(a, w, inner.precision, laws)
    return Cell(
        area=area + scale_area,
        energy=energy + scale_energy,
        stages=_stages(a, w, accumulator, (widest, exp_bits, random_bits), laws),
        estimates=_estimates(a, w, accumulator, random_bits, cells_per_generator),
    )


def addition_um2(
    window: int, frac_bits: int, exp_bits: int, laws: MacLaws, *, increments: bool = True
) -> MacParts:
    """Area of an adder with its shifters, rounding and exponents, without register.

    `exp_bits` are those of the addend and of the sum together.
    """
    law, shifter = laws.float_area, laws.float_area["shifter_bit"] * window * ceil(log2(window)) / 2
    return MacParts(
        alignment=shifter,
        adder=laws.gates["adder_um2"] * window,
        normaliser=shifter,
        rounding=law["rounding_bit"] * (frac_bits + 1) if increments else 0.0,
        exponent=law["exponent_bit"] * exp_bits,
    )


def window_fj(window: int, exp_bits: int, laws: MacLaws) -> float:
    """Energy of adder and shifters, for an addend with so many exponent bits."""
    return laws.float_energy["window_bit"] * window * min(exp_bits + 1, log2(window))


def product_shift_fj(a: Operand, w: Operand, window: int, laws: MacLaws) -> float:
    """Energy of the product's way through its shifter."""
    bits = (a.significand_bits + w.significand_bits) * ceil(log2(window))
    return laws.float_energy["product_shift_bit"] * bits * operands.nonzero(a, w)


def _addition_fj(
    window: int,
    addend_exp_bits: int,
    register: FloatFormat,
    rounding: Rounding,
    laws: MacLaws,
    cells_per_generator: int,
) -> MacParts:
    """Energy of one addition into a register, its clock and its random bits included."""
    law, gates, random_bits = laws.float_energy, laws.gates, _random_bits(rounding)
    exp_bits = addend_exp_bits + register.exp_bits
    split = addition_um2(window, 0, 0, laws, increments=False)
    increment = law["rounding_bit"] * register.precision if _increments(rounding) else 0.0
    return split * (window_fj(window, addend_exp_bits, laws) / split.total) + MacParts(
        rounding=increment + random_bits * gates["adder_fj"],
        exponent=law["exponent_bit"] * exp_bits,
        random_generator=random_bits * gates["register_fj"] / cells_per_generator,
        register=gates["register_fj"] * register.bits,
    )


def _window(product_frac_bits: int, frac_bits: int, random_bits: int, laws: MacLaws) -> int:
    """Bits of the window; random bits beyond guard, round and sticky need places of the sum."""
    below = max(0, random_bits - GUARD_BITS)
    return max(product_frac_bits, frac_bits + below) + laws.margin_bits


def _random_bits(rounding: Rounding) -> int:
    if not rounding.is_stochastic:
        return 0
    return rounding.random_bits or MAX_RANDOM_BITS


def _increments(rounding: Rounding) -> bool:
    return rounding.mode not in _CUTTING


def _register_bits(a: Operand, w: Operand, accumulator: Accumulator, outer: FloatFormat) -> int:
    """Bits of all the registers of sums."""
    inner, chunk = accumulator.format.bits, accumulator.chunk
    bits = inner * accumulator.lanes
    if accumulator.order == "pairwise":
        if chunk is None:
            raise ValueError(
                f"order=pairwise needs chunk=<n> to be costed: its tree has one register per level, "
                f"got accumulator {accumulator}"
            )
        bits = inner * max(1, (chunk - 1).bit_length())
    if chunk is not None:
        bits += outer.bits
    if operands.float_scale_block(a, w) is not None:
        bits += inner
    return bits


def _stages(
    a: Operand,
    w: Operand,
    accumulator: Accumulator,
    widest: tuple[int, int, int],
    laws: MacLaws,
) -> tuple[Stage, ...]:
    """Steps of the loop: the law gives their sum.

    The adder is a ripple, the normaliser half of the rest, and the alignment, which waits for the product,
    what then remains.
    """
    window, exp_bits, random_bits = widest
    law, product_exp_bits = laws.float_delay, max(a.exp_bits, w.exp_bits)
    total = law["window_bit"] * window + law["exponent_bit"] * exp_bits
    total += law["subnormal"] * (a.subnormals or w.subnormals)
    multiplier, adder = operands.multiplier_ns(a, w, laws), laws.gates["adder_ns"] * window
    normaliser = (total - adder) / 2
    carry = random_bits * laws.gates["adder_ns"]
    product = a.significand_bits + w.significand_bits + product_exp_bits + 2  # with carry and sign
    return (
        Stage(name="multiplier", delay_ns=multiplier, cut_bits=product),
        Stage(
            name="alignment",
            delay_ns=max(0.0, normaliser - multiplier),
            cut_bits=2 * window + exp_bits + 2,
        ),
        Stage(name="adder", delay_ns=adder, cut_bits=window + exp_bits + 2),
        Stage(name="normaliser", delay_ns=normaliser + carry, cut_bits=accumulator.format.bits),
    )


def _estimates(
    a: Operand, w: Operand, accumulator: Accumulator, random_bits: int, cells_per_generator: int
) -> tuple[str, ...]:
    shared = f"{random_bits} random bits of a generator that {cells_per_generator} cells share"
    notes = (
        *operands.operand_estimates(a, w),
        (random_bits > 0, f"stochastic rounding, {shared}"),
        (random_bits == 0 and not _increments(accumulator.rounding), "a sum that is cut"),
        (accumulator.product is not None, "rounded products"),
        (accumulator.chunk is not None, "a register for the sums of chunks"),
        (accumulator.lanes > 1 or accumulator.order != "sequential", "lanes or a tree of registers"),
    )
    return tuple(f"no cell was synthesised with {note}" for holds, note in notes if holds)
