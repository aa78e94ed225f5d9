"""What every kind of parameter can do: check, walk, draw, change and encode its values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, ClassVar, TypeAlias, TypeGuard

import numpy as np
from jaxtyping import Float

Scalar: TypeAlias = str | int | float | bool
Value: TypeAlias = Scalar | tuple[Scalar, ...] | None  #: a tuple is a permutation
Design: TypeAlias = tuple[Value, ...]


@dataclass(frozen=True)
class Parameter(ABC):
    """One named thing that varies.

    Attributes
    ----------
    name
        Unique in its space.
    active_if
        ``(parent, values)``: the parameter exists only in designs where the parameter named `parent`
        has one of `values`; its value is ``None`` in all others.
    """

    kind: ClassVar[str]
    is_categorical: ClassVar[bool] = False  #: encoded as codes without order

    name: str
    active_if: tuple[str, Sequence[Value]] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"the name of a parameter must be a non-empty text, got {self.name!r}")
        if self.active_if is None:
            return
        try:
            parent, values = self.active_if
            values = () if isinstance(values, str) else tuple(map(plain, values))
        except (TypeError, ValueError):
            parent, values = "", ()
        if not isinstance(parent, str) or not parent or not values:
            raise ValueError(
                f"active_if of {self.name} must be (parent, list of its values), got {self.active_if!r}"
            )
        object.__setattr__(self, "active_if", (parent, values))

    @property
    @abstractmethod
    def size(self) -> int | None:
        """Number of values, ``None`` for a continuum."""

    @abstractmethod
    def check(self, value: object) -> Value:
        """Return the plain legal value that equals `value`; ``ValueError`` where there is none."""

    @abstractmethod
    def values(self) -> Iterable[Value]:
        """Every value in order; of a finite parameter only."""

    @property
    def width(self) -> int:
        """Coordinates of the unit cube that `from_unit` reads."""
        return 1

    @abstractmethod
    def from_unit(self, points: Float[np.ndarray, "n w"]) -> list[Value]:
        """Values at points of the unit cube; uniform points give uniform values."""

    @property
    def default(self) -> Value:
        """Value in the middle, at which an inactive parameter is encoded."""
        return self.from_unit(np.full((1, self.width), 0.5))[0]

    @abstractmethod
    def moves(self, value: Value) -> Iterator[Value]:
        """Finitely many other values; none for a continuum."""

    @abstractmethod
    def mutate(self, value: Value, rng: np.random.Generator) -> Value:
        """Another value at random, often a near one; the same where there is no other."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of `encode`."""
        return (self.name,)

    @abstractmethod
    def encode(self, values: Sequence[Value]) -> Float[np.ndarray, "n c"]:
        """Legal values as numbers: in [0, 1], or codes from 0 on where `is_categorical`."""

    @abstractmethod
    def _describe(self) -> dict[str, object]:
        """What the kind adds to `describe`."""

    def describe(self) -> dict[str, object]:
        """As plain JSON data."""
        found = {"name": self.name, "kind": self.kind, **self._describe()}
        if self.active_if is not None:
            parent, values = self.active_if
            found["active_if"] = {"parent": parent, "values": list(values)}
        return found


def plain(value: Any) -> Any:
    """NumPy's scalars as Python's: they do not go through JSON."""
    return value.item() if isinstance(value, np.generic) else value


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a finite number; booleans are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def any_other(values: Sequence[Value], position: int, rng: np.random.Generator) -> Value:
    """Any but the one at a position, all equally likely; the same where there is no other."""
    if len(values) == 1:
        return values[0]
    index = int(rng.integers(len(values) - 1))
    return values[index + (index >= position)]


def next_or_other(values: Sequence[Value], position: int, rng: np.random.Generator) -> Value:
    """Half of the time the next one above or below, otherwise any other."""
    if len(values) < 3 or rng.random() < 0.5:
        return any_other(values, position, rng)
    up = position == 0 or (position < len(values) - 1 and rng.random() < 0.5)
    return values[position + (1 if up else -1)]


def others(values: Sequence[Value], position: int) -> Iterator[Value]:
    """Return all but the one at a position."""
    return (value for index, value in enumerate(values) if index != position)
