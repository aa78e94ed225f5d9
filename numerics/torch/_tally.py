"""What was seen of one tensor or product of one layer in one step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from numerics._kernels import statistics as kernels
from numerics._ordered import Report
from numerics.accumulate import AnyAccumulator, matmul
from numerics.accumulator import Accumulator
from numerics.block import BlockFormat
from numerics.certificate import Certificate
from numerics.formats import FixedFormat
from numerics.kulisch import ExactAccumulator
from numerics.rounding import Mode
from numerics.torch.emulation import Rounded, Sample
from numerics.torch.policy import TensorPolicy

# Elements of operands that are compared, products that are counted in vectors and in plain loops: at most
# so many, unless a single sum has more.
_OPERANDS = 1 << 17
_FAST_PRODUCTS = 1 << 17
_PRODUCTS = 1 << 14
_SLACK = 1.0 + 2.0**-22  # a scale and its inverse are both rounded
_ONE = np.ones(1, np.float32)


@dataclass(slots=True)
class Tally:
    """What was seen in one step of one role of one layer."""

    numerics: TensorPolicy | AnyAccumulator
    uses: int = 0
    size: int = 0
    length: int = 0
    totals: np.ndarray = field(default_factory=lambda: np.zeros(kernels.TOTALS))
    report: Report = field(default_factory=Report)
    roundings: int = 0
    rivals: int = 0  # additions in which a term could be swamped
    products: int = 0
    nonzero_products: int = 0

    def tensor(self, x: np.ndarray, rounded: Rounded, policy: TensorPolicy, elements: int, salt: int) -> None:
        """Count what the rounding of a tensor did."""
        self.uses += 1
        self.size += x.size
        if x.size == 0:
            return
        inverse = _ONE
        if rounded.inverse is not None:
            inverse = rounded.inverse
            if inverse.size > 1 and inverse.shape != x.shape:
                inverse = np.broadcast_to(inverse, x.shape)
            inverse = inverse.reshape(-1)
        low, high = _limits(policy, scaled=rounded.inverse is not None)
        flat = x.reshape(-1)
        runs = 0 if x.size <= elements else elements // kernels.RUN
        values = rounded.values.reshape(-1)
        totals = self.totals
        totals[kernels.AMAX] = max(totals[kernels.AMAX], kernels.largest_finite(flat.view(np.int32)))
        kernels.compare(flat, values, inverse, low, high, runs, salt, totals)

    def product(self, accumulator: AnyAccumulator, sample: Sample, sums: int, salt: int) -> None:
        """Compare some sums with exact ones, and count what happened in some of these."""
        height, length, width = sample.shape
        self.uses += 1
        self.size += height * width
        self.length = max(self.length, length)
        side = max(1, _OPERANDS // (2 * length))
        rows, columns = _grid(height, width, min(sums, side * side))
        right_salt = kernels.scatter(1, salt)
        chosen = kernels.places(rows, height, salt), kernels.places(columns, width, right_salt)
        left, right = sample.operands(*chosen)
        a, b = np.ascontiguousarray(left), np.ascontiguousarray(right.T)
        found = sample.result(*chosen)
        with np.errstate(invalid="ignore", over="ignore"):  # of operands that are not finite
            exact = a.astype(np.float64) @ b.T.astype(np.float64)
        totals = self.totals
        kernels.compare(exact.reshape(-1), found.reshape(-1), _ONE, math.nan, math.nan, 0, 0, totals)
        magnitudes = np.abs(exact[np.isfinite(exact)])
        totals[kernels.AMAX] = max(totals[kernels.AMAX], magnitudes.max(initial=0.0))
        self.nonzero_products += kernels.nonzero_products(a, b)
        self.products += exact.size * length
        self._count(a, b, accumulator, sample)

    def _count(self, a: np.ndarray, b: np.ndarray, accumulator: AnyAccumulator, sample: Sample) -> None:
        """Count what happened in ``a @ b.T``, or in a part of it where that is slow."""
        if not isinstance(accumulator, Accumulator) and not (np.isfinite(a).all() and np.isfinite(b).all()):
            return
        a, b = _part(a, b, _FAST_PRODUCTS)
        if (report := _certified(a, b, accumulator)) is None:
            a, b = _part(a, b, _PRODUCTS)
            report = matmul(a, b.T, accumulator, seed=0, formats=sample.formats, report=True)[1]
        self.report += report
        sums, nonzero = len(a) * len(b), kernels.nonzero_products(a, b)
        if isinstance(accumulator, ExactAccumulator):
            self.roundings += sums
            self.rivals += nonzero
            return
        self.roundings += report.additions
        in_tree = isinstance(accumulator, Accumulator) and accumulator.order == "pairwise"
        self.rivals += report.additions - (0 if in_tree else sums * a.shape[1] - nonzero)

    def row(self) -> tuple[Any, ...]:
        """Columns from the third on."""
        (
            looked_at, amax, nonzero_before, nonzero, underflow, saturation, overflow, nonfinite,
            compared, signal, noise, error, absolute, magnitude,
        ) = self.totals.tolist()  # fmt: skip
        numerics, report = self.numerics, self.report
        if isinstance(numerics, TensorPolicy):
            if isinstance(numerics.format, BlockFormat):
                saturation = math.nan
            seen = (nonzero_before, nonzero, underflow, saturation, overflow)
            shares = [_share(number, looked_at) for number in seen]
            swamped = math.nan
        else:
            events = (report.underflow, report.saturation, report.overflow)
            shares = [math.nan, _share(self.nonzero_products, self.products)]
            shares += [_share(number, self.roundings) for number in events]
            swamped = _share(report.swamped, self.rivals)
        shares += [_share(nonfinite, looked_at), swamped]
        errors = _errors(compared, signal, noise, magnitude, absolute, error)
        return str(numerics), self.uses, self.size, int(looked_at), self.length, amax, *shares, *errors


def _part(a: np.ndarray, b: np.ndarray, products: int) -> tuple[np.ndarray, np.ndarray]:
    """First rows of both, so that ``a @ b.T`` has at most so many products, or one sum."""
    rows, columns = _grid(len(a), len(b), max(1, products // a.shape[1]))
    return a[:rows], b[:columns]


def _certified(a: np.ndarray, b: np.ndarray, accumulator: AnyAccumulator) -> Report | None:
    """Report of plain sums ``a @ b.T`` that float32 computes: it is proven that they stay in the range."""
    if not (isinstance(accumulator, Accumulator) and accumulator.is_plain):
        return None
    to_nearest = accumulator.rounding.mode is Mode.NEAREST_EVEN
    if not to_nearest or Certificate.of(a, b.T, accumulator).path != "float32":
        return None
    length = a.shape[1]
    chunk = min(accumulator.chunk or length, length)
    swamped = kernels.count_swamped(a, b, chunk, accumulator.format.frac_bits)
    additions = length + (-(-length // chunk) if chunk < length else 0)
    return Report(additions=len(a) * len(b) * additions, swamped=int(swamped))


def _limits(policy: TensorPolicy, *, scaled: bool) -> tuple[float, float]:
    fmt = policy.format
    if isinstance(fmt, BlockFormat):
        return math.nan, math.nan
    low = fmt.min if isinstance(fmt, FixedFormat) else -fmt.max if fmt.signed else 0.0
    return (low * _SLACK, fmt.max * _SLACK) if scaled else (low, fmt.max)


def _grid(height: int, width: int, sums: int) -> tuple[int, int]:
    """Rows and columns of at most `sums` elements of a matrix, as many of each where it has them."""
    rows = min(height, max(math.isqrt(sums), sums // width))
    columns = min(width, sums // rows)
    return rows, columns


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _errors(
    compared: float, signal: float, noise: float, magnitude: float, absolute: float, error: float
) -> tuple[float, float, float]:
    """Ratio of signal to noise in decibel, relative error, bias."""
    if compared == 0:
        return math.nan, math.nan, math.nan
    if absolute == 0.0:
        return math.inf, 0.0, 0.0
    if magnitude == 0.0:
        return -math.inf, math.inf, math.copysign(math.inf, error)
    # No square of a float32 number, of a sum of products or of their errors leaves the range of float64.
    return 10.0 * math.log10(signal / noise), absolute / magnitude, error / magnitude
