"""Groups of tensors that share a format, and the bytes that they move [VaPr]_.

References
----------
.. [VaPr] "VaPr: Variable-Precision Tensors to Accelerate Robot Motion Planning", arXiv 2310.07854.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from numerics import BlockFormat
from numerics.block import parse_any_format

Assignment: TypeAlias = Mapping[str, str]  #: format of each group, by name


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorGroup:
    """Tensors that are stored in one format.

    Attributes
    ----------
    name
        Of the group.
    elements
        Numbers in it, at least 1.
    accesses
        How often each of them is read or written, on average; positive.
    fixed_bytes
        Moved in any format, such as scales.

    Examples
    --------
    >>> group = TensorGroup(name="weights", elements=1000, accesses=2.0)
    >>> traffic_bytes([group], {"weights": "e3m2"})
    1500.0
    """

    name: str
    elements: int
    accesses: float = 1.0
    fixed_bytes: float = 0.0

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("the name of a tensor group must not be empty")
        if self.elements < 1:
            raise ValueError(f"elements of {self.name} must be at least 1, got {self.elements}")
        if not (isfinite(self.accesses) and self.accesses > 0):
            raise ValueError(f"accesses of {self.name} must be positive and finite, got {self.accesses}")
        if not (isfinite(self.fixed_bytes) and self.fixed_bytes >= 0):
            raise ValueError(f"fixed_bytes of {self.name} must be at least 0, got {self.fixed_bytes}")

    def bytes_in(self, fmt: str) -> float:
        """Bytes moved if the group is stored in a format."""
        return self.elements * self.accesses * bits_per_value(fmt) / 8 + self.fixed_bytes


def bits_per_value(fmt: str) -> float:
    """Bits of a number of a format, its share of a block's scale included."""
    parsed = parse_any_format(fmt)
    return parsed.bits_per_value if isinstance(parsed, BlockFormat) else float(parsed.bits)


def traffic_bytes(groups: Sequence[TensorGroup], assignment: Assignment | str) -> float:
    """Bytes moved by all groups, with a format for each or one for all."""
    total = 0.0
    for group in groups:
        total += group.bytes_in(assignment if isinstance(assignment, str) else assignment[group.name])
    return total


def traffic_table(groups: Sequence[TensorGroup], formats: Sequence[str]) -> Float[np.ndarray, "g o"]:
    """Bytes moved by each group in each format, (g, o)."""
    return np.array([[group.bytes_in(fmt) for fmt in formats] for group in groups])
