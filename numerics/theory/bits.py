"""Bits that an accumulator needs: by the theory, by the calibrated table, or by emulation on the spot.

The theory asks that no variance be lost by swamping, ``n (1 - VRR) < ln 50`` [ABS]_. That cannot be measured:
for a million products it would take ten thousand million sums. What is measured is the relative square error
of a sum, and it must not exceed what is lost anyway, when the two operands of every product are rounded to
their formats. (That all noises be equally large is the principle by which [FX]_ distributes bits.)

References
----------
.. [ABS] C. Sakr, N. Wang, C.-Y. Chen, J. Choi, A. Agrawal, N. Shanbhag, K. Gopalakrishnan, "Accumulation
   Bit-Width Scaling For Ultra-Low Precision Training Of Deep Networks", ICLR 2019, arXiv 1901.06588.
.. [FX] C. Sakr, N. Shanbhag, "Per-Tensor Fixed-Point Quantization of the Back-Propagation Algorithm",
   ICLR 2019, arXiv 1812.11732.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Int64
from scipy.special import ndtr

from numerics.accumulator import Accumulator
from numerics.rounding import Rounding
from numerics.theory.calibration import ACC_BITS, calibrated_rounding, loss
from numerics.theory.emulated import Distribution, Sums
from numerics.theory.retention import (
    MOST_BITS,
    PAPER_CUTOFF,
    ChunkRule,
    DensityRule,
    check,
    variance_lost,
)

Rule: TypeAlias = Literal["theory", "emulated"]


def required_bits(
    length: float | np.ndarray,
    product_bits: int = 5,
    *,
    chunk: int | None = None,
    density: float | np.ndarray = 1.0,
    cutoff: float = PAPER_CUTOFF,
    rule: Rule = "theory",
    rounding: Rounding | str = Rounding.NEAREST_EVEN,
    tolerance: float | None = None,
    offset: int = 0,
    minimum: int | None = None,
    chunk_rule: ChunkRule = "outer",
    density_rule: DensityRule = "both",
) -> int | Int64[np.ndarray, "..."]:
    """Fewest fraction bits of an accumulator that keeps a sum of `length` products.

    The bits are scanned upward, for the variance lost is not monotone in them.

    Parameters
    ----------
    length, density
        Products in a sum, and the fraction of them that are not zero. Arrays are broadcast.
    product_bits
        Fraction bits of the products: ``m_a + m_b + 1`` for exact ones of formats with m_a and m_b.
    chunk
        Products that are summed first, whose sums are then summed by as wide an adder.
    rule
        ``"theory"`` [ABS]_, or ``"emulated"``: interpolated in a table of bit-true sums.
    cutoff, chunk_rule, density_rule
        Of the theory, see `variance_lost`; by default those of the paper.
    rounding, tolerance
        Of the emulation: how the accumulator rounds, and the relative square error that is allowed, by
        default `operand_noise`.
    offset, minimum
        Bits to add to the answer, and bits below which it must not be: of the products, if not given,
        which then enter the accumulator whole.

    Returns
    -------
    int or ndarray of int64

    Raises
    ------
    TypeError, ValueError
        An argument out of its range, or more bits needed than any accumulator of the table has.

    Examples
    --------
    >>> required_bits(4608), required_bits(4608, chunk=64)
    (9, 5)
    >>> required_bits(4608, rule="emulated"), required_bits(4608, rule="emulated", rounding="toward-zero")
    (8, 12)
    """
    check(1, product_bits, length, chunk, density)
    if rule not in ("theory", "emulated"):
        raise ValueError(f"rule must be theory or emulated, got {rule!r}")
    least = _minimum(minimum, product_bits)
    if rule == "theory":
        if not (math.isfinite(cutoff) and cutoff > 0.0):
            raise ValueError(f"cutoff must be positive and finite, got {cutoff}")
        if tolerance is not None:
            raise ValueError(f"tolerance belongs to rule='emulated', got {tolerance} with rule='theory'")

        def one(n: float, z: float) -> int:
            rules = {"chunk": chunk, "density": z, "chunk_rule": chunk_rule, "density_rule": density_rule}
            for bits in range(least, MOST_BITS + 1):
                if variance_lost(bits, product_bits, n, **rules) < cutoff:  # type: ignore[arg-type]
                    return bits + offset
            raise ValueError(f"no accumulator of up to {MOST_BITS} bits keeps a sum of {n} products")
    else:
        if cutoff != PAPER_CUTOFF:
            raise ValueError(f"cutoff belongs to rule='theory', got {cutoff}; the emulation has a tolerance")
        allowed = math.log2(_tolerance(tolerance, product_bits))
        name = calibrated_rounding(str(Rounding.parse(rounding)))

        def one(n: float, z: float) -> int:
            found = loss(name, product_bits, n, chunk=chunk, density=z).log2_error
            for bits in range(least, ACC_BITS[-1] + 1):
                if found[bits - ACC_BITS[0]] <= allowed:
                    return bits + offset
            raise ValueError(
                f"no accumulator of up to {ACC_BITS[-1]} bits that rounds {name} keeps a sum of {n} products "
                f"within a relative square error of {2.0**allowed:.3g}"
            )

    found = np.vectorize(one, otypes=[np.int64])(length, density)
    return found if found.ndim else int(found)


def emulated_bits(
    length: int,
    product_bits: int = 5,
    *,
    chunk: int | None = None,
    density: float = 1.0,
    rounding: Rounding | str = Rounding.NEAREST_EVEN,
    tolerance: float | None = None,
    minimum: int | None = None,
    distribution: Distribution = "normal",
    samples: int = 4096,
    seed: int,
) -> int:
    """The answer of ``required_bits(rule="emulated")`` by emulation on the spot.

    Takes any rounding, and products of any distribution. The bits are bisected: the error of the same sums
    falls with every bit. Arguments, errors: see `required_bits` and `emulated_retention`.

    Examples
    --------
    >>> emulated_bits(1152, rounding="toward-zero", samples=512, seed=0)
    11
    """
    check(1, product_bits, length, chunk, density)
    rounding = Rounding.parse(rounding)
    allowed = _tolerance(tolerance, product_bits)
    sums = Sums(
        length,
        product_bits=product_bits,
        density=density,
        distribution=distribution,
        samples=samples,
        seed=seed,
    )

    def holds(bits: int) -> bool:
        chunked = f" chunk={chunk}" if chunk is not None else ""
        accumulator = Accumulator.parse(f"e8m{bits} rounding={rounding}{chunked}")
        return sums.under(accumulator).error.value ** 2 <= allowed

    low, high = _minimum(minimum, product_bits), ACC_BITS[-1]
    if not holds(high):
        raise ValueError(
            f"no accumulator of up to {high} bits that rounds {rounding} keeps a sum of {length} products "
            f"within a relative square error of {allowed:.3g}"
        )
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def operand_noise(product_bits: int) -> float:
    """Relative square error of a sum of products whose two operands were rounded to their formats.

    Each operand is a normal number rounded to nearest at ``(product_bits - 1) / 2`` fraction bits. The error
    of a number of the binade from ``2**e`` on is uniform in its unit, ``4**(e - bits) / 12``.

    Examples
    --------
    >>> round(operand_noise(5), 5)
    0.00565
    """
    exponents = np.arange(-40, 8)
    edges = 2.0 ** np.append(exponents, 8)
    shares = 2.0 * np.diff(ndtr(edges))
    return float(np.sum(shares * 4.0**exponents)) / 12.0 * 2.0 ** (2 - product_bits)


def _tolerance(tolerance: float | None, product_bits: int) -> float:
    if tolerance is None:
        return operand_noise(product_bits)
    if not 0.0 < tolerance < 1.0:
        raise ValueError(f"tolerance must be between 0 and 1, got {tolerance}")
    return tolerance


def _minimum(minimum: int | None, product_bits: int) -> int:
    if minimum is None:
        return product_bits
    if isinstance(minimum, bool) or not isinstance(minimum, int | np.integer):
        raise TypeError(f"minimum must be a whole number, got {minimum!r}")
    if not 1 <= minimum <= ACC_BITS[-1]:
        raise ValueError(f"minimum must be in 1..{ACC_BITS[-1]}, got {minimum}")
    return int(minimum)
