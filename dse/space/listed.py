"""Parameters with a list of values: ordered numbers or text, powers of two, and plain categories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from dse.space.parameter import (
    Parameter,
    Value,
    any_other,
    is_number,
    next_or_other,
    others,
    plain,
)
from dse.space.scale import to_unit


@dataclass(frozen=True)
class _Listed(Parameter):
    """A parameter with `choices`."""

    choices: Sequence[Any]
    _index: dict[Any, int] = field(init=False, repr=False, compare=False)
    _encoding: Float[np.ndarray, " k"] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.choices, str):
            raise ValueError(f"choices of {self.name} must be a list, got the text {self.choices!r}")
        choices = tuple(map(plain, self.choices))
        if not choices:
            raise ValueError(f"choices of {self.name} must not be empty")
        object.__setattr__(self, "choices", choices)
        index: dict[Any, int] = {}
        for position, value in enumerate(choices):
            self._check_choice(value)
            if value in index:
                raise ValueError(f"choices of {self.name} must be distinct, got {value!r} twice")
            index[value] = position
        object.__setattr__(self, "_index", index)
        self._check_all()
        object.__setattr__(self, "_encoding", self._encode_choices())

    def _check_choice(self, value: object) -> None:
        raise NotImplementedError

    def _check_all(self) -> None:
        """Check what concerns several choices."""

    def _encode_choices(self) -> Float[np.ndarray, " k"]:
        raise NotImplementedError

    @property
    def encoding(self) -> Float[np.ndarray, " k"]:
        """Number that stands for each choice, (k,)."""
        return self._encoding.copy()

    @property
    def size(self) -> int:
        """Number of choices."""
        return len(self.choices)

    def position(self, value: object) -> int:
        """Index of a choice; ``ValueError`` if it is none."""
        try:
            return self._index[value]
        except (KeyError, TypeError):
            allowed = ", ".join(map(str, self.choices[:20])) + (", ..." if len(self.choices) > 20 else "")
            raise ValueError(f"{self.name} must be one of {allowed}, got {value!r}") from None

    def check(self, value: object) -> Value:
        """Return the choice that equals `value`."""
        choice: Value = self.choices[self.position(value)]
        return choice

    def values(self) -> Sequence[Value]:
        """Return the choices."""
        return self.choices

    def from_unit(self, points: Float[np.ndarray, "n w"]) -> list[Value]:
        """Choices by equal shares of the interval."""
        # A point below 1 can round to the size when multiplied.
        indices = np.minimum((points[:, 0] * self.size).astype(np.intp), self.size - 1)
        return [self.choices[index] for index in indices.tolist()]

    def moves(self, value: Value) -> Iterator[Value]:
        """All other choices."""
        return others(self.choices, self.position(value))

    def mutate(self, value: Value, rng: np.random.Generator) -> Value:
        """Any other choice, all equally likely."""
        return any_other(self.choices, self.position(value), rng)

    def encode(self, values: Sequence[Value]) -> Float[np.ndarray, "n c"]:
        """One column."""
        try:
            indices = np.fromiter(map(self._index.__getitem__, values), np.intp, len(values))
        except (KeyError, TypeError):
            indices = np.array([self.position(value) for value in values], dtype=np.intp)
        return self._encoding[indices][:, None]

    def _describe(self) -> dict[str, object]:
        return {"choices": list(self.choices)}


@dataclass(frozen=True)
class Ordinal(_Listed):
    """A parameter with a finite list of increasing numbers, or of ordered categories as text.

    Attributes
    ----------
    choices
        Finite and strictly increasing numbers, or texts in their order. A single one is a constant
        and is not searched.
    log
        Encode ``log2`` of the numbers, which must then be at least 0; with 0 among them,
        ``log2(v + 1)``. Texts are encoded by rank.

    Examples
    --------
    >>> Ordinal("rows", (4, 8, 16), log=True).encoding
    array([0. , 0.5, 1. ])
    >>> Ordinal("family", ("fp4", "fp8", "fp16")).encoding
    array([0. , 0.5, 1. ])
    """

    kind: ClassVar[str] = "ordinal"
    log: bool = field(default=False, kw_only=True)

    def _check_choice(self, value: object) -> None:
        if isinstance(self.choices[0], str):
            if not isinstance(value, str):
                raise ValueError(f"choices of {self.name} must be all text or all numbers, got {value!r}")
            if self.log:
                raise ValueError(f"choices of {self.name} must be numbers with log, got {value!r}")
        elif not is_number(value):
            raise ValueError(f"choices of {self.name} must be finite numbers, got {value!r}")
        elif self.log and value < 0:
            raise ValueError(f"choices of {self.name} must be at least 0 with log, got {value!r}")

    def _check_all(self) -> None:
        if not isinstance(self.choices[0], str):
            for before, after in pairwise(self.choices):
                if before > after:
                    raise ValueError(f"choices of {self.name} must increase, got {after!r} after {before!r}")

    def _encode_choices(self) -> Float[np.ndarray, " k"]:
        if len(self.choices) == 1:
            return np.zeros(1)
        if isinstance(self.choices[0], str):
            return np.linspace(0.0, 1.0, len(self.choices))
        values = np.array(self.choices, dtype=np.float64)
        return to_unit(values, values[0], values[-1], log=self.log)

    def mutate(self, value: Value, rng: np.random.Generator) -> Value:
        """Half of the time the next choice above or below, otherwise any other."""
        return next_or_other(self.choices, self.position(value), rng)

    def _describe(self) -> dict[str, object]:
        return {"choices": list(self.choices), "log": self.log}


@dataclass(frozen=True)
class PowerOfTwo(Ordinal):
    """A parameter with the powers of two from `low` to `high`, encoded by their exponent.

    Attributes
    ----------
    low, high
        Powers of two, 1 <= low <= high <= 2**62.

    Examples
    --------
    >>> PowerOfTwo("rows", 4, 32).choices
    (4, 8, 16, 32)
    """

    kind: ClassVar[str] = "power_of_two"
    low: int
    high: int
    choices: Sequence[int] = field(init=False, repr=False)
    log: bool = field(default=True, init=False, repr=False)

    def __post_init__(self) -> None:
        low, high = plain(self.low), plain(self.high)
        for value in (low, high):
            if (
                isinstance(value, bool)
                or not isinstance(value, int)
                or not 1 <= value <= 1 << 62
                or value.bit_count() != 1
            ):
                raise ValueError(f"bounds of {self.name} must be powers of two in 1..2**62, got {value!r}")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        if self.low > self.high:
            raise ValueError(f"low of {self.name} must not exceed high, got {low} > {high}")
        exponents = range(self.low.bit_length() - 1, self.high.bit_length())
        object.__setattr__(self, "choices", tuple(1 << exponent for exponent in exponents))
        super().__post_init__()

    def _describe(self) -> dict[str, object]:
        return {"low": self.low, "high": self.high}


@dataclass(frozen=True)
class Categorical(_Listed):
    """A parameter whose choices have no order: text, numbers, booleans or ``None``.

    ``None`` is no choice of a conditional parameter, where it stands for inactive.

    Examples
    --------
    >>> Categorical("dataflow", ("weight", "output")).encoding
    array([0., 1.])
    """

    kind: ClassVar[str] = "categorical"
    is_categorical: ClassVar[bool] = True

    def _check_choice(self, value: object) -> None:
        if not isinstance(value, str | int | float | None) or (
            isinstance(value, float) and not isfinite(value)
        ):
            raise ValueError(
                f"choices of {self.name} must be text, finite numbers, booleans or None, got {value!r}"
            )
        if value is None and self.active_if is not None:
            raise ValueError(f"choices of {self.name} must not have None, its value while inactive")

    @property
    def default(self) -> Value:
        """The first choice."""
        choice: Value = self.choices[0]
        return choice

    def _encode_choices(self) -> Float[np.ndarray, " k"]:
        return np.arange(len(self.choices), dtype=np.float64)
