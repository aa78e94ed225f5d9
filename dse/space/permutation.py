"""An order of items, such as the loops of a nest from the outermost inwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from math import factorial
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from dse.space.parameter import Parameter, Scalar, Value, is_number, plain

LONGEST = 32  #: items; an order has a column per item and a neighbour per pair of them


@dataclass(frozen=True)
class Permutation(Parameter):
    """A parameter whose values are the orders of some items, as tuples.

    It is encoded as the position of every item, so that the squared distance of two orders is
    Spearman's. Lists are accepted for tuples, as JSON has no others.

    Attributes
    ----------
    items
        From 1 to 32 distinct texts or numbers.

    Examples
    --------
    >>> Permutation("loops", ("m", "n", "k")).encode([("k", "m", "n")])
    array([[0.5, 1. , 0. ]])
    """

    kind: ClassVar[str] = "permutation"
    items: Sequence[Scalar]

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.items, str):
            raise ValueError(f"items of {self.name} must be a list, got the text {self.items!r}")
        items = tuple(map(plain, self.items))
        object.__setattr__(self, "items", items)
        if not 1 <= len(items) <= LONGEST:
            raise ValueError(f"items of {self.name} must number 1 to {LONGEST}, got {len(items)}")
        for position, item in enumerate(items):
            if not isinstance(item, str) and not is_number(item):
                raise ValueError(f"items of {self.name} must be text or finite numbers, got {item!r}")
            if item in items[:position]:
                raise ValueError(f"items of {self.name} must be distinct, got {item!r} twice")

    @property
    def size(self) -> int:
        """Number of orders."""
        return factorial(len(self.items))

    def check(self, value: object) -> Value:
        """Return the order as a tuple of the items."""
        if isinstance(value, list | tuple | np.ndarray):
            given = tuple(map(plain, value))
            if len(given) == len(self.items) and all(given.count(item) == 1 for item in self.items):
                return tuple(self.items[self.items.index(item)] for item in given)
        every = ", ".join(map(str, self.items))
        raise ValueError(f"{self.name} must be an order of {every}, got {value!r}")

    def values(self) -> Iterator[Value]:
        """Every order, lexicographic in the items as given."""
        return permutations(self.items)

    @property
    def width(self) -> int:
        """One coordinate per item."""
        return len(self.items)

    def from_unit(self, points: Float[np.ndarray, "n w"]) -> list[Value]:
        """Items by ascending coordinate."""
        return [tuple(self.items[i] for i in order) for order in np.argsort(points, axis=1).tolist()]

    @property
    def default(self) -> Value:
        """The items as given."""
        return tuple(self.items)

    def moves(self, value: Value) -> Iterator[Value]:
        """Exchange any two items."""
        assert isinstance(value, tuple)
        for first, second in combinations(range(len(value)), 2):
            moved = list(value)
            moved[first], moved[second] = moved[second], moved[first]
            yield tuple(moved)

    def mutate(self, value: Value, rng: np.random.Generator) -> Value:
        """Exchange two items, or put one of them elsewhere."""
        assert isinstance(value, tuple)
        if len(value) == 1:
            return value
        first, second = rng.choice(len(value), 2, replace=False).tolist()
        moved = list(value)
        if rng.random() < 0.5:
            moved[first], moved[second] = moved[second], moved[first]
        else:
            moved.insert(second, moved.pop(first))
        return tuple(moved)

    @property
    def columns(self) -> tuple[str, ...]:
        """One per item."""
        return tuple(f"{self.name}[{item}]" for item in self.items)

    def encode(self, values: Sequence[Value]) -> Float[np.ndarray, "n c"]:
        """Position of each item in [0, 1]; one column per item."""
        index = {item: position for position, item in enumerate(self.items)}
        shape = (len(values), len(self.items))
        order = np.array([[index[item] for item in value] for value in values], dtype=np.intp)  # type: ignore[union-attr]
        return np.argsort(order.reshape(shape), axis=1) / max(len(self.items) - 1, 1)

    def _describe(self) -> dict[str, object]:
        return {"items": list(self.items)}
