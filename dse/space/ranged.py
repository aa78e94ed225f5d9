"""Parameters between two bounds: real and integer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from dse.space.parameter import Parameter, Value, is_number, next_or_other, others, plain
from dse.space.scale import from_unit, step, to_unit

LISTED = 64  #: integer ranges up to this size are changed to any other value, wider ones by steps
_EXACT = 1 << 53  # float64 holds every integer up to here


@dataclass(frozen=True)
class _Ranged(Parameter):
    """A parameter with bounds, both of them legal."""

    low: float
    high: float
    log: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for which in ("low", "high"):
            value = plain(getattr(self, which))
            object.__setattr__(self, which, self._bound(which, value))
        if self.low > self.high:
            raise ValueError(f"low of {self.name} must not exceed high, got {self.low} > {self.high}")
        if not isfinite(float(self.high) - float(self.low)):
            raise ValueError(
                f"bounds of {self.name} must be a finite way apart, got {self.low} to {self.high}"
            )

    def _bound(self, which: str, value: object) -> float:
        raise NotImplementedError

    def _outside(self, value: object) -> ValueError:
        return ValueError(f"{self.name} must be {self._wanted} in {self.low}..{self.high}, got {value!r}")

    @property
    def _wanted(self) -> str:
        raise NotImplementedError

    def _unit(self, values: Sequence[Value]) -> Float[np.ndarray, " n"]:
        array = np.array(values, dtype=np.float64)
        if self.low == self.high:
            return np.zeros(len(array))
        return to_unit(array, self.low, self.high, log=self.log)

    def encode(self, values: Sequence[Value]) -> Float[np.ndarray, "n c"]:
        """One column: min-max of the values, or of their logarithm."""
        return self._unit(values)[:, None]

    def _describe(self) -> dict[str, object]:
        return {"low": self.low, "high": self.high, "log": self.log}


@dataclass(frozen=True)
class Real(_Ranged):
    """A parameter with any real value from `low` to `high`.

    Attributes
    ----------
    low, high
        Finite, low <= high; equal ones are a constant and not searched.
    log
        Draw, change and encode in the logarithm; `low` must then be positive.

    Examples
    --------
    >>> Real("rate", 1e-4, 1e-2, log=True).encode([1e-3])
    array([[0.5]])
    """

    kind: ClassVar[str] = "real"

    def _bound(self, which: str, value: object) -> float:
        if not is_number(value):
            raise ValueError(f"{which} of {self.name} must be a finite number, got {value!r}")
        if self.log and value <= 0:
            raise ValueError(f"{which} of {self.name} must be positive with log, got {value!r}")
        return float(value)

    @property
    def _wanted(self) -> str:
        return "a number"

    @property
    def size(self) -> int | None:
        """``None``, or 1 where the bounds are equal."""
        return 1 if self.low == self.high else None

    def check(self, value: object) -> Value:
        """Return the number as a float."""
        value = plain(value)
        if not is_number(value) or not self.low <= value <= self.high:
            raise self._outside(value)
        return float(value)

    def values(self) -> Sequence[Value]:
        """Return the only value of a constant."""
        if self.low != self.high:
            raise TypeError(f"the values of {self.name} are a continuum and cannot be listed")
        return (self.low,)

    def from_unit(self, points: Float[np.ndarray, "n w"]) -> list[Value]:
        """Values uniform between the bounds, or in the logarithm."""
        values: list[Value] = from_unit(points[:, 0], self.low, self.high, log=self.log).tolist()
        return values

    def moves(self, value: Value) -> Iterator[Value]:  # noqa: ARG002
        """None: see `mutate`."""
        return iter(())

    def mutate(self, value: Value, rng: np.random.Generator) -> Value:
        """Return the value after a Gaussian step in the encoding, of a random scale."""
        if self.low == self.high:
            return value
        unit = float(self._unit([value])[0])
        while True:
            moved = self.from_unit(np.array([[step(unit, rng)]]))[0]
            if moved != value:
                return moved


@dataclass(frozen=True)
class Integer(_Ranged):
    """A parameter with any integer from `low` to `high`.

    Attributes
    ----------
    low, high
        Integers of at most 2**53 in absolute value, low <= high.
    log
        Draw, change and encode in the logarithm; `low` must then be at least 0, and with 0 the
        encoding is ``log2(v + 1)``.

    Examples
    --------
    >>> Integer("depth", 0, 15, log=True).encode([0, 3, 15])
    array([[0. ],
           [0.5],
           [1. ]])
    """

    kind: ClassVar[str] = "integer"
    low: int
    high: int

    def _bound(self, which: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _EXACT:
            raise ValueError(f"{which} of {self.name} must be an integer of at most 2**53, got {value!r}")
        if self.log and value < 0:
            raise ValueError(f"{which} of {self.name} must be at least 0 with log, got {value!r}")
        return value

    @property
    def _wanted(self) -> str:
        return "an integer"

    @property
    def size(self) -> int:
        """Number of integers."""
        return self.high - self.low + 1

    def check(self, value: object) -> Value:
        """Return the integer; a float that is one is accepted, for tables hold them so."""
        value = plain(value)
        if not is_number(value) or int(value) != value or not self.low <= value <= self.high:
            raise self._outside(value)
        return int(value)

    def values(self) -> range:
        """Every integer."""
        return range(self.low, self.high + 1)

    def from_unit(self, points: Float[np.ndarray, "n w"]) -> list[Value]:
        """Integers by equal shares of the interval, or by shares like ``1 / v`` with log."""
        column = points[:, 0]
        if self.log:
            # From v to v + 1 in the logarithm; 0 is shifted as in the encoding.
            shift = float(self.low == 0)
            ends = np.log2(np.array([self.low + shift, self.high + shift + 1]))
            offset = np.floor(np.exp2(ends[0] + column * (ends[1] - ends[0])) - shift) - self.low
        else:
            offset = np.floor(column * float(self.size))
        # A point below 1 can round to the size when multiplied.
        inside = np.clip(offset, 0, self.size - 1).astype(np.int64)
        return [self.low + by for by in inside.tolist()]

    def moves(self, value: Value) -> Iterator[Value]:
        """All other integers of a range of up to 64; otherwise those 1, 2, 4, ... away."""
        assert isinstance(value, int)
        if self.size <= LISTED:
            return others(self.values(), value - self.low)
        near = (value + sign * (1 << k) for k in range(self.size.bit_length()) for sign in (-1, 1))
        return (moved for moved in near if self.low <= moved <= self.high)

    def mutate(self, value: Value, rng: np.random.Generator) -> Value:
        """Return the next or any other of up to 64; otherwise the value after a Gaussian step.

        That is taken in the encoding, at a random scale, and by at least 1.
        """
        assert isinstance(value, int)
        if self.size <= LISTED:
            return next_or_other(self.values(), value - self.low, rng)
        unit = float(self._unit([value])[0])
        moved = step(unit, rng)
        target = int(np.rint(from_unit(np.array([moved]), self.low, self.high, log=self.log)[0]))
        if target == value:
            target += 1 if value == self.low or (value < self.high and moved > unit) else -1
        return target
