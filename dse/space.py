"""The design space: a product of finite parameters, minus what known constraints forbid.

A design has two forms. `parameters` is a dict by name, as a person writes it; a `Design` is a tuple
with one choice index per parameter, which hashes, compares and encodes cheaply.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise, product
from math import isfinite, prod
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

Value: TypeAlias = str | int | float | bool | None
Design: TypeAlias = tuple[int, ...]
Constraint: TypeAlias = Callable[[dict[str, Value]], str | None]

ENUMERABLE = 200_000  #: products up to this size may be walked completely
_DRAWS = 1024  # points of a sequence drawn at a time; a power of two keeps Sobol points balanced
# Draws in a row without a new feasible design after which a sequence is given up. A product that can
# be walked loses nothing by that; in a larger one, designs rarer than this are not found by sampling.
_PATIENCE, _PATIENCE_LARGE = 4096, 65_536


@dataclass(frozen=True, slots=True)
class Ordinal:
    """A parameter with a finite list of increasing numbers.

    Attributes
    ----------
    name
        Unique in its space.
    choices
        Finite and strictly increasing; a single one is a constant and is not searched.
    log
        Encode ``log2`` of the choices, which must then be positive.

    Examples
    --------
    >>> Ordinal("rows", (4, 8, 16), log=True).encoding
    array([0. , 0.5, 1. ])
    """

    name: str
    choices: Sequence[int | float]
    log: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", _plain(self.name, self.choices))
        for value in self.choices:
            if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
                raise ValueError(f"choices of {self.name} must be finite numbers, got {value!r}")
            if self.log and value <= 0:
                raise ValueError(f"choices of {self.name} must be positive with log, got {value!r}")
        for before, after in pairwise(self.choices):
            if before > after:
                raise ValueError(f"choices of {self.name} must increase, got {after!r} after {before!r}")

    @property
    def encoding(self) -> Float[np.ndarray, " k"]:
        """Position of each choice in the unit interval, (k,)."""
        values = np.array(self.choices, dtype=np.float64)
        values = np.log2(values) if self.log else values
        return (values - values[0]) / np.ptp(values) if len(values) > 1 else np.zeros(1)

    def describe(self) -> dict[str, object]:
        """As plain JSON data."""
        return {"name": self.name, "kind": "ordinal", "choices": list(self.choices), "log": self.log}


@dataclass(frozen=True, slots=True)
class Categorical:
    """A parameter whose choices have no order: text, numbers, booleans or ``None``.

    Examples
    --------
    >>> Categorical("dataflow", ("weight", "output")).encoding
    array([0., 1.])
    """

    name: str
    choices: Sequence[Value]

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", _plain(self.name, self.choices))
        for value in self.choices:
            if not isinstance(value, str | int | float | None) or (
                isinstance(value, float) and not isfinite(value)
            ):
                raise ValueError(
                    f"choices of {self.name} must be text, finite numbers, booleans or None, got {value!r}"
                )

    @property
    def encoding(self) -> Float[np.ndarray, " k"]:
        """Index of each choice, (k,), for a kernel that only asks whether two are equal."""
        return np.arange(len(self.choices), dtype=np.float64)

    def describe(self) -> dict[str, object]:
        """As plain JSON data."""
        return {"name": self.name, "kind": "categorical", "choices": list(self.choices)}


Parameter: TypeAlias = Ordinal | Categorical


def _plain(name: str, choices: Iterable[object]) -> tuple[object, ...]:
    """Choices as Python scalars: NumPy's do not go through JSON."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"the name of a parameter must be a non-empty text, got {name!r}")
    if isinstance(choices, str):
        raise ValueError(f"choices of {name} must be a list, got the text {choices!r}")
    plain = tuple(value.item() if isinstance(value, np.generic) else value for value in choices)
    if not plain:
        raise ValueError(f"choices of {name} must not be empty")
    for index, value in enumerate(plain):
        if value in plain[:index]:
            raise ValueError(f"choices of {name} must be distinct, got {value!r} twice")
    return plain


@dataclass(frozen=True)
class Space:
    """A product of parameters under known constraints.

    Attributes
    ----------
    parameters
        With unique names.
    constraints
        Functions of the parameters that return ``None`` for a feasible design, otherwise the reason
        why it is not. They must be deterministic.

    Raises
    ------
    ValueError
        No parameter, two of the same name, or no feasible design. A product of up to 200 000 is
        walked until a feasible design is found; a larger one is sampled.

    Examples
    --------
    >>> space = Space(
    ...     [Ordinal("rows", (4, 8, 16), log=True), Ordinal("columns", (4, 8, 16), log=True)],
    ...     constraints=[lambda p: None if p["rows"] * p["columns"] <= 64 else "over 64 units"],
    ... )
    >>> space.size, space.why_infeasible({"rows": 16, "columns": 8})
    (9, 'over 64 units')
    """

    parameters: Sequence[Parameter]
    constraints: Sequence[Constraint] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", tuple(self.parameters))
        object.__setattr__(self, "constraints", tuple(self.constraints))
        if not self.parameters:
            raise ValueError("a space must have at least one parameter, got none")
        for name, count in Counter(self.names).items():
            if count > 1:
                raise ValueError(f"parameter names must be distinct, got {name!r} {count} times")
        if self.constraints:
            walk = self.size <= ENUMERABLE
            found = self.designs() if walk else self.sequence(np.random.default_rng(0))
            if next(iter(found), None) is None:
                some = self.parameters_of((0,) * len(self.parameters))
                among = f"all {self.size}" if walk else f"{_PATIENCE_LARGE} sampled of {self.size}"
                raise ValueError(
                    f"the constraints must leave a feasible design, but they reject {among}; "
                    f"{some} for one: {self.why_infeasible(some)}"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names, in order."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def size(self) -> int:
        """Number of designs before constraints."""
        return prod(len(parameter.choices) for parameter in self.parameters)

    @property
    def searched(self) -> tuple[Parameter, ...]:
        """Parameters with more than one choice: the columns of the encoding."""
        return tuple(parameter for parameter in self.parameters if len(parameter.choices) > 1)

    def design(self, parameters: Mapping[str, Value]) -> Design:
        """Choice indices of a design given by name; feasibility is not asked.

        Raises
        ------
        ValueError
            A parameter is missing or unknown, or its value is none of the choices.
        """
        if unknown := [name for name in parameters if name not in self.names]:
            raise ValueError(f"parameters must be among {', '.join(self.names)}, got {unknown[0]!r}")
        return tuple(self._index(parameter, parameters) for parameter in self.parameters)

    @staticmethod
    def _index(parameter: Parameter, parameters: Mapping[str, Value]) -> int:
        if parameter.name not in parameters:
            raise ValueError(f"parameter {parameter.name} is missing")
        value = parameters[parameter.name]
        if value not in parameter.choices:
            allowed = ", ".join(str(choice) for choice in parameter.choices)
            raise ValueError(f"{parameter.name} must be one of {allowed}, got {value!r}")
        return parameter.choices.index(value)

    def parameters_of(self, design: Design) -> dict[str, Value]:
        """Return the values by name of a design given by choice indices."""
        return {
            parameter.name: parameter.choices[index]
            for parameter, index in zip(self.parameters, design, strict=True)
        }

    def why_infeasible(self, parameters: dict[str, Value]) -> str | None:
        """Reason of the first constraint that rejects the design, or ``None``."""
        for constraint in self.constraints:
            reason = constraint(parameters)
            if reason is not None and not isinstance(reason, str):
                raise TypeError(f"a constraint must return None or a reason as text, got {reason!r}")
            if reason is not None:
                return reason
        return None

    def is_feasible(self, design: Design) -> bool:
        """Whether no constraint rejects a design given by choice indices."""
        return not self.constraints or self.why_infeasible(self.parameters_of(design)) is None

    def designs(self) -> Iterator[Design]:
        """Every feasible design, the last parameter varying fastest."""
        everything = product(*(range(len(parameter.choices)) for parameter in self.parameters))
        return filter(self.is_feasible, everything)

    def moves(self, design: Design) -> Iterator[Design]:
        """Every design that differs in exactly one parameter, feasible or not."""
        for position, parameter in enumerate(self.parameters):
            for index in range(len(parameter.choices)):
                if index != design[position]:
                    yield (*design[:position], index, *design[position + 1 :])

    def neighbours(self, parameters: Mapping[str, Value]) -> list[dict[str, Value]]:
        """All feasible designs that differ from this one in exactly one parameter."""
        moves = self.moves(self.design(parameters))
        return [self.parameters_of(move) for move in moves if self.is_feasible(move)]

    def encode(self, designs: Sequence[Design]) -> Float[np.ndarray, "n d"]:
        """Encode designs as points for a model.

        Returns
        -------
        (n, d) float64, one column per searched parameter: an ordinal one in [0, 1], a categorical
        one as the index of its choice.
        """
        indices = np.array(designs, dtype=np.intp).reshape(len(designs), len(self.parameters))
        columns = [
            parameter.encoding[indices[:, position]]
            for position, parameter in enumerate(self.parameters)
            if len(parameter.choices) > 1
        ]
        return np.column_stack(columns) if columns else np.empty((len(designs), 0))

    def sequence(self, rng: np.random.Generator, *, sobol: bool = True) -> Iterator[Design]:
        """Feasible designs without repetition: scrambled Sobol points, or independent uniform ones.

        The sequence ends when every feasible design has come, if the product has at most 200 000
        designs. In a larger one it ends after 65 536 points in a row without a new feasible design.
        """
        sizes = np.array([len(parameter.choices) for parameter in self.parameters])
        patience = _PATIENCE if self.size <= ENUMERABLE else _PATIENCE_LARGE
        seen: set[Design] = set()
        misses = 0
        for design in self._points(rng, sizes, sobol=sobol):
            misses += 1
            if design not in seen:
                seen.add(design)
                if self.is_feasible(design):
                    misses = 0
                    yield design
            if misses >= patience or len(seen) == self.size:
                break
        if len(seen) < self.size <= ENUMERABLE:
            rest = [design for design in self.designs() if design not in seen]
            yield from (rest[index] for index in rng.permutation(len(rest)))

    @staticmethod
    def _points(rng: np.random.Generator, sizes: Int[np.ndarray, " p"], *, sobol: bool) -> Iterator[Design]:
        def uniform(n: int) -> Float[np.ndarray, "n p"]:
            return rng.random((n, len(sizes)))

        draw: Callable[[int], Float[np.ndarray, "n p"]] = uniform
        if sobol:
            # Half a second to import, which a person who only reads a campaign does not need.
            from scipy.stats import qmc

            draw = qmc.Sobol(len(sizes), scramble=True, rng=rng).random
        while True:
            # A point below 1 can round to the size when multiplied.
            indices = np.minimum((draw(_DRAWS) * sizes).astype(np.intp), sizes - 1)
            yield from map(tuple, indices.tolist())

    def sample(self, n: int, rng: np.random.Generator) -> list[dict[str, Value]]:
        """Draw `n` distinct feasible designs along a scrambled Sobol sequence.

        Returns fewer where the space has fewer, see `sequence`.
        """
        if n < 0:
            raise ValueError(f"n must be at least 0, got {n}")
        return [self.parameters_of(design) for design in islice(self.sequence(rng), n)]

    def describe(self) -> dict[str, object]:
        """As plain JSON data; of a constraint only its name, for its code cannot be compared."""
        return {
            "parameters": [parameter.describe() for parameter in self.parameters],
            "constraints": [getattr(rule, "__name__", type(rule).__name__) for rule in self.constraints],
        }
