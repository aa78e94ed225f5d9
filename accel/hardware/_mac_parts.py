"""What the laws of a cell give: a split of area or energy, and the stages of its longest path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class MacParts:
    """Area or energy of one MAC by part; `total` is their sum.

    Attributes
    ----------
    multiplier
        Significand multiplier, with what subnormal operands add.
    alignment
        The shifter that brings product and sum to one exponent.
    adder
        Addition of the aligned terms.
    normaliser
        Leading-zero count and shift of the sum.
    rounding
        The increment in the last place, and the random bits that are added below it.
    exponent
        Sum and comparison of exponents.
    scale
        What the scales of block formats add.
    random_generator
        The cell's share of the shift register that makes random bits.
    register
        Accumulator registers, with those between pipeline stages.
    """

    multiplier: float = 0.0
    alignment: float = 0.0
    adder: float = 0.0
    normaliser: float = 0.0
    rounding: float = 0.0
    exponent: float = 0.0
    scale: float = 0.0
    random_generator: float = 0.0
    register: float = 0.0

    @property
    def total(self) -> float:
        """Sum of the parts."""
        return sum(value for _, value in self.items())

    def items(self) -> Iterator[tuple[str, float]]:
        """Name and value of every part, in order."""
        return ((f.name, getattr(self, f.name)) for f in fields(self))

    def __add__(self, other: MacParts) -> MacParts:
        return MacParts(**{name: value + getattr(other, name) for name, value in self.items()})

    def __mul__(self, factor: float) -> MacParts:
        return MacParts(**{name: value * factor for name, value in self.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A step of the longest path, and the bits a pipeline register behind it holds."""

    name: str
    delay_ns: float
    cut_bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One MAC by the laws: 45 nm, um2 and fJ at the voltage of the cell library.

    Attributes
    ----------
    stages
        In order; the single-cycle path is the sum of their delays.
    estimates
        What of it no synthesised cell has shown.
    per
        What area and energy are of.
    """

    area: MacParts
    energy: MacParts
    stages: tuple[Stage, ...]
    estimates: tuple[str, ...] = ()
    per: str = "cell"
