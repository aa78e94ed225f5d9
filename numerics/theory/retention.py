"""Bits of an accumulator by the theory of variance retention [ABS]_.

A sum of n independent products of zero mean keeps a part of its variance, the variance retention ratio
VRR, when the accumulator's significand is short: a product is lost once the running sum is ``2**acc_bits``
times as large (full swamping), and its low bits before that (partial swamping). The theory has no rounding
mode; `numerics.theory.emulated` measures what each of them does.

Everything is computed from ``n (1 - VRR)``, a quotient of sums without a negative term, so that nothing
cancels where VRR is close to 1.

References
----------
.. [ABS] C. Sakr, N. Wang, C.-Y. Chen, J. Choi, A. Agrawal, N. Shanbhag, K. Gopalakrishnan, "Accumulation
   Bit-Width Scaling For Ultra-Low Precision Training Of Deep Networks", ICLR 2019, arXiv 1901.06588.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, TypeAlias, get_args

import numpy as np
from scipy.special import erf, erfc

#: Of which sum the variance lost is compared with the cutoff: the outer one, ``n2 (1 - VRR)`` [ABS]_; all
#: products, ``n (1 - VRR)``; or the worse of the two levels by itself.
ChunkRule: TypeAlias = Literal["outer", "total", "levels"]
#: What zero products shorten: the chunks and their number, or the chunks only.
DensityRule: TypeAlias = Literal["both", "chunk"]

PAPER_CUTOFF = math.log(50.0)  #: ``exp(n (1 - VRR)) < 50`` [ABS]_

MOST_BITS = 64
_EXACTLY = 1 << 14  # steps summed one by one; more are summed in blocks
_BLOCKS = 20_000
_NEGLIGIBLE = 1500.0  # erfc(sqrt(1500 / 2)) is 0 in float64


def variance_lost(
    acc_bits: int | np.ndarray,
    product_bits: int | np.ndarray,
    length: float | np.ndarray,
    *,
    chunk: int | None = None,
    density: float | np.ndarray = 1.0,
    chunk_rule: ChunkRule = "outer",
    density_rule: DensityRule = "both",
    partial: bool = True,
) -> float | np.ndarray:
    """``n (1 - VRR)``, the logarithm of the variance lost v(n) of [ABS]_.

    Parameters
    ----------
    acc_bits, product_bits
        Fraction bits of the accumulator (m_acc) and of the products (m_p), 1..64.
    length
        Products in a sum (n), from 0 on; of no more than one nothing is lost.
    chunk
        Products that are summed first (n1), whose sums are summed then. A chunk as long as the sum is none.
    density
        Fraction of the products that are not zero, in (0, 1]; only they count.
    chunk_rule, density_rule
        See `ChunkRule` and `DensityRule`.
    partial
        With partial swamping (Theorem 1), or with full swamping only (Lemma 1).

    Returns
    -------
    float or ndarray
        Not negative. Arguments that are arrays are broadcast.

    Raises
    ------
    TypeError, ValueError
        An argument out of its range.

    Examples
    --------
    >>> round(variance_lost(8, 5, 4608), 5)
    5.22034
    >>> round(variance_lost(12, 5, 131072), 5)
    2.71442
    """
    check(acc_bits, product_bits, length, chunk, density)
    _check_rules(chunk_rule, density_rule)

    def one(acc: int, product: int, n: float, z: float) -> float:
        n1, n2 = _levels(n, chunk, z, density_rule)
        inner = _lost(acc, product, n1, partial)
        if n2 is None:
            return inner
        outer = _lost(acc, _outer_bits(acc, product, n1), n2, partial)
        if chunk_rule == "levels":
            return max(inner, outer)
        x, y = _fraction(inner, n1), _fraction(outer, n2)
        return (n2 if chunk_rule == "outer" else n1 * n2) * (x + y - x * y)

    found = np.vectorize(one, otypes=[float])(acc_bits, product_bits, length, density)
    return found if found.ndim else float(found)


def variance_retention(
    acc_bits: int | np.ndarray,
    product_bits: int | np.ndarray,
    length: float | np.ndarray,
    *,
    chunk: int | None = None,
    density: float | np.ndarray = 1.0,
    density_rule: DensityRule = "both",
    partial: bool = True,
) -> float | np.ndarray:
    """Variance retention ratio VRR, in (0, 1]; the product of both levels for a chunked sum [ABS]_.

    Arguments and errors are those of `variance_lost`, which keeps its digits where this is close to 1.

    Examples
    --------
    >>> round(variance_retention(8, 5, 4608), 9)
    0.998867113
    """
    check(acc_bits, product_bits, length, chunk, density)
    _check_rules("outer", density_rule)

    def one(acc: int, product: int, n: float, z: float) -> float:
        n1, n2 = _levels(n, chunk, z, density_rule)
        kept = 1.0 - _fraction(_lost(acc, product, n1, partial), n1)
        if n2 is not None:
            kept *= 1.0 - _fraction(_lost(acc, _outer_bits(acc, product, n1), n2, partial), n2)
        return kept

    found = np.vectorize(one, otypes=[float])(acc_bits, product_bits, length, density)
    return found if found.ndim else float(found)


def check(
    acc_bits: int | np.ndarray,
    product_bits: int | np.ndarray,
    length: float | np.ndarray,
    chunk: int | None,
    density: float | np.ndarray,
) -> None:
    """Refuse bits, lengths, a chunk or densities out of their ranges.

    Raises
    ------
    TypeError, ValueError
        The message names the value.
    """
    for name, bits in (("acc_bits", acc_bits), ("product_bits", product_bits)):
        whole = np.asarray(bits)
        if whole.dtype.kind not in "iu":
            raise TypeError(f"{name} must be whole numbers, got {bits!r}")
        _within(name, whole, (whole >= 1) & (whole <= MOST_BITS), f"1..{MOST_BITS}")
    for name, numbers in (("length", length), ("density", density)):
        if np.asarray(numbers).dtype.kind not in "iuf":
            raise TypeError(f"{name} must be numbers, got {numbers!r}")
    n, z = np.asarray(length), np.asarray(density)
    _within("length", n, (n >= 0) & np.isfinite(n), "finite numbers from 0 on")
    _within("density", z, (z > 0) & (z <= 1), "(0, 1]")
    if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int | np.integer)):
        raise TypeError(f"chunk must be a whole number or None, got {chunk!r}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")


def _within(name: str, values: np.ndarray, good: np.ndarray, allowed: str) -> None:
    if not good.all():
        raise ValueError(f"{name} must be in {allowed}, got {values[~good].flat[0]}")


def _check_rules(chunk_rule: str, density_rule: str) -> None:
    for name, rule, known in (
        ("chunk_rule", chunk_rule, get_args(ChunkRule)),
        ("density_rule", density_rule, get_args(DensityRule)),
    ):
        if rule not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {rule!r}")


def _levels(
    length: float, chunk: int | None, density: float, density_rule: DensityRule
) -> tuple[float, float | None]:
    """Products of a chunk and number of chunks, which is None if there is one."""
    if chunk is None or chunk >= length:
        return length * density, None
    return chunk * density, length / chunk * (density if density_rule == "both" else 1.0)


def _outer_bits(acc_bits: int, product_bits: int, chunk: float) -> int:
    """Fraction bits of the sum of a chunk, where the outer sum takes it up."""
    return min(acc_bits, max(1, round(product_bits + math.log2(max(chunk, 1.0)))))


def _fraction(lost: float, length: float) -> float:
    """``1 - VRR``."""
    return lost / length if length > 0.0 else 0.0


@lru_cache(maxsize=1 << 16)
def _lost(acc_bits: int, product_bits: int, length: float, partial: bool) -> float:
    """``n (1 - VRR)`` of a plain sum: Theorem 1, or Lemma 1 if not `partial`, of [ABS]_."""
    if length < 2.0:
        return 0.0
    root = math.sqrt(length)
    lost, kept = 0.0, 0.0
    shift = 0.0  # alpha: the steps by which partial swamping is late
    if partial:
        factor = 2.0 ** (acc_bits - 3 * product_bits) / 3.0
        for stage in range(2, product_bits + 1):
            j = stage - 1
            shift += factor * 2.0**j * (2.0**j - 1.0) * (2.0 ** (j + 1) - 1.0)
            if length > shift:
                low = 2.0 ** (acc_bits - product_bits + stage - 1)
                weight = 2.0 * low * float(_outside(low, root) * _inside(2.0 * low, root))
                lost += shift * weight
                kept += weight
        j = product_bits
        shift += factor * 2.0**j * (2.0**j - 1.0) * (2.0 ** (j + 1) - 1.0)
        kept += float(_inside(2.0 ** (acc_bits - product_bits + 1), root))
    else:
        kept += float(_inside(2.0**acc_bits, root))
    steps, widths = _steps(acc_bits, shift, math.floor(length))
    sums = np.sqrt(steps)
    weights = _outside(2.0**acc_bits, sums) * _inside(2.0**acc_bits, np.sqrt(steps - 1.0)) * widths
    lost += float(np.sum((length - steps + shift) * weights))
    kept += float(np.sum(weights))
    return lost / kept


def _steps(acc_bits: int, shift: float, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps 2..n-1 beyond `shift` where the sum may have swamped: block midpoints, and their widths."""
    first = max(2, math.floor(shift) + 1, math.floor(4.0**acc_bits / _NEGLIGIBLE))
    if first >= length:
        return np.empty(0), np.empty(0)
    if length - first <= _EXACTLY:
        edges = np.arange(first, length + 1, dtype=float)
    else:
        edges = np.unique(np.rint(np.geomspace(first, length, _BLOCKS + 1)))
    return (edges[:-1] + edges[1:] - 1.0) / 2.0, np.diff(edges)


def _outside(bound: float, deviation: float | np.ndarray) -> float | np.ndarray:
    """Probability that a normal number of this standard deviation is beyond the bound, either way."""
    found: float | np.ndarray = erfc(bound / (math.sqrt(2.0) * deviation))
    return found


def _inside(bound: float, deviation: float | np.ndarray) -> float | np.ndarray:
    found: float | np.ndarray = erf(bound / (math.sqrt(2.0) * deviation))
    return found
