"""What a sum keeps under a real accumulator, measured by bit-true emulation.

The variance retention ratio of the theory (`numerics.theory.retention`) becomes the second moment of the
emulated sums over that of the exact ones. It alone does not tell how good a sum is: stochastic rounding adds
variance, and to nearest what is lost and what is added may cancel. The relative error, the root mean square
of (emulated - exact) over that of the exact sum, counts both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float32, Float64

from numerics.accumulate import matmul
from numerics.accumulator import Accumulator
from numerics.elementwise import cast
from numerics.formats import FloatFormat

#: Of the products: normal, uniform or Laplace numbers of mean 0 and variance 1.
Distribution: TypeAlias = Literal["normal", "uniform", "laplace"]

_MOST_SIGNS = 64  # sums that share the magnitudes of their products
_SHORT = 256  # products below which magnitudes are too few to be shared
_SIDE = 64  # columns drawn at a time
_ROOM = 1 << 26  # elements of an operand held at a time,
_CACHED = 1 << 17  # and widened at a time
_NORMAL = 1.959963984540054  # 97.5 % quantile


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A measured number with the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"

    def covers(self, value: float) -> bool:
        """Whether a value lies in the interval."""
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What a sum keeps.

    Attributes
    ----------
    variance
        Second moment of the emulated sums over that of the exact ones.
    error
        Relative error: root mean square of (emulated - exact) over that of the exact sums.
    samples
        Number of sums.
    """

    variance: Estimate
    error: Estimate
    samples: int


def emulated_retention(
    accumulator: Accumulator | str,
    length: int,
    *,
    product_bits: int = 5,
    density: float = 1.0,
    distribution: Distribution = "normal",
    samples: int = 4096,
    seed: int,
) -> Retention:
    """Sum random products of mean 0 in an accumulator and compare with the exact sums.

    Parameters
    ----------
    accumulator
        Any sequential or chunked one, or its text. Sums grow to a few ``sqrt(length)``, or where it rounds
        in one direction to `length` itself: its exponent range must hold them.
    length
        Products in a sum, from 1 on.
    product_bits
        Fraction bits of the products (1..23), which are rounded to nearest even before they are summed.
    density
        Probability of a product not to be zero, in (0, 1].
    distribution
        Of a product that is not zero.
    samples
        Sums, from 2 on.
    seed
        Of the products and of stochastic rounding.

    Returns
    -------
    Retention

    Raises
    ------
    TypeError, ValueError
        An argument out of its range.

    Examples
    --------
    >>> kept = emulated_retention("e8m6 rounding=toward-zero", 1152, samples=1024, seed=0)
    >>> kept.variance.high < 0.2
    True
    """
    parsed = Accumulator.parse(accumulator)
    drawn = Sums(
        length,
        product_bits=product_bits,
        density=density,
        distribution=distribution,
        samples=samples,
        seed=seed,
    )
    return drawn.under(parsed)


class Sums:
    """Random products of mean 0 that are summed in one accumulator after the other.

    Arguments and errors are those of `emulated_retention`. From 256 products on up to 64 sums share the
    magnitudes of their products and differ in their signs: drawing takes longer than summing, and the
    squares of such sums are all but independent.
    """

    def __init__(
        self,
        length: int,
        *,
        product_bits: int = 5,
        density: float = 1.0,
        distribution: Distribution = "normal",
        samples: int = 4096,
        seed: int,
    ) -> None:
        _check_sampling(length, product_bits, density, distribution, samples)
        self.samples, self.seed = samples, seed
        self._pairs = list(_draws(length, product_bits, density, distribution, samples, seed))
        self._exact = self._flat(_exact_sums(*pair) for pair in self._pairs)

    def under(self, accumulator: Accumulator) -> Retention:
        """What these sums keep in an accumulator."""
        return compare(
            self._exact,
            self._flat(
                matmul(*pair, accumulator, seed=self.seed, stream=stream)
                for stream, pair in enumerate(self._pairs)
            ),
        )

    def _flat(self, parts: Iterable[np.ndarray]) -> Float64[np.ndarray, " samples"]:
        return np.concatenate([part.astype(np.float64).ravel() for part in parts])[: self.samples]


def compare(exact: Float64[np.ndarray, " samples"], emulated: Float64[np.ndarray, " samples"]) -> Retention:
    """Second-moment ratio and relative error of sums, with intervals by the delta method of a ratio.

    Raises
    ------
    ValueError
        The shapes differ, there are fewer than two sums, or all the exact ones are zero.
    """
    if exact.shape != emulated.shape or exact.size < 2:
        raise ValueError(f"sums must be two or more on either side, got {exact.shape} and {emulated.shape}")
    squares = np.square(exact)
    if not squares.any():
        raise ValueError("exact sums must not all be zero: there is nothing to retain")
    variance = _ratio(np.square(emulated), squares)
    square = _ratio(np.square(emulated - exact), squares)
    error = Estimate(
        value=math.sqrt(square.value), low=math.sqrt(max(square.low, 0.0)), high=math.sqrt(square.high)
    )
    return Retention(variance=variance, error=error, samples=exact.size)


def _ratio(numerators: np.ndarray, denominators: np.ndarray) -> Estimate:
    total = float(denominators.sum())
    value = float(numerators.sum()) / total
    with np.errstate(invalid="ignore"):  # infinite sums have no interval
        half = _NORMAL * math.sqrt(float(np.square(numerators - value * denominators).sum())) / total
    return Estimate(value=value, low=value - half, high=value + half)


def _check_sampling(
    length: int, product_bits: int, density: float, distribution: Distribution, samples: int
) -> None:
    for name, number, low, high in (
        ("length", length, 1, 1 << 30),
        ("product_bits", product_bits, 1, 23),
        ("samples", samples, 2, 1 << 30),
    ):
        if isinstance(number, bool) or not isinstance(number, int | np.integer):
            raise TypeError(f"{name} must be a whole number, got {number!r}")
        if not low <= number <= high:
            raise ValueError(f"{name} must be in {low}..{high}, got {number}")
    if not 0.0 < density <= 1.0:
        raise ValueError(f"density must be in (0, 1], got {density}")
    if distribution not in get_args(Distribution):
        known = ", ".join(get_args(Distribution))
        raise ValueError(f"distribution must be one of {known}, got {distribution!r}")


def _draws(
    length: int, product_bits: int, density: float, distribution: Distribution, samples: int, seed: int
) -> Iterator[tuple[Float32[np.ndarray, "signs length"], Float32[np.ndarray, "length columns"]]]:
    """Pairs of signs and products, `samples` sums or a few more in all: ``signs @ products``."""
    signs = min(_MOST_SIGNS, samples) if length >= _SHORT else 1
    columns = min(-(-samples // signs), max(_SIDE, min(1 << 14, _ROOM // length)) if signs == 1 else _SIDE)
    format_ = FloatFormat.parse(f"e8m{product_bits}")
    rng = np.random.Generator(np.random.Philox(seed))
    for _ in range(-(-samples // (signs * columns))):
        products = cast(_numbers(rng, distribution, (length, columns)), format_)
        if density < 1.0:
            products *= rng.random(products.shape, np.float32) < density
        if signs == 1:
            yield np.ones((1, length), np.float32), products
            continue
        bits = np.frombuffer(rng.bytes(-(-signs * length // 8)), np.uint8)
        rows = np.unpackbits(bits, count=signs * length).reshape(signs, length).astype(np.float32)
        rows *= np.float32(-2.0)
        rows += np.float32(1.0)
        yield rows, products


def _numbers(
    rng: np.random.Generator, distribution: Distribution, shape: tuple[int, int]
) -> Float32[np.ndarray, "length columns"]:
    if distribution == "normal":
        return rng.standard_normal(shape, np.float32)
    if distribution == "uniform":
        uniform = rng.random(shape, np.float32)
        return np.float32(math.sqrt(12.0)) * (uniform - np.float32(0.5))
    return rng.laplace(scale=math.sqrt(0.5), size=shape).astype(np.float32)


def _exact_sums(
    signs: Float32[np.ndarray, "signs length"], products: Float32[np.ndarray, "length columns"]
) -> Float64[np.ndarray, "signs columns"]:
    """Sums in float64, a slice of products at a time."""
    step = max(1, _CACHED // max(signs.shape[0], products.shape[1]))
    total = np.zeros((signs.shape[0], products.shape[1]))
    for first in range(0, signs.shape[1], step):
        some = slice(first, first + step)
        total += signs[:, some].astype(np.float64) @ products[some].astype(np.float64)
    return total
