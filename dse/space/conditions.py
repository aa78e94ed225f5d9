"""Which parameters exist in a design: conditions, each on the value of one other parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from math import prod

from dse.space.parameter import Design, Parameter, Value
from dse.space.permutation import Permutation
from dse.space.ranged import Real

_HELD = 200_000  # values of one parameter that may be held at a time


class Conditions:
    """The forest of parents and children.

    Raises
    ------
    ValueError
        A parent that is unknown or can be no parent, a value that the parent does not have, or
        parameters that wait for each other.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._parameters = parameters
        names = [parameter.name for parameter in parameters]
        self._parent: list[int | None] = []
        self._when: list[frozenset[Value]] = []
        self._children: list[list[int]] = [[] for _ in parameters]
        for position, parameter in enumerate(parameters):
            if parameter.active_if is None:
                self._parent.append(None)
                self._when.append(frozenset())
                continue
            name, values = parameter.active_if
            if name not in names:
                raise ValueError(
                    f"the parent of {parameter.name} must be among {', '.join(names)}, got {name!r}"
                )
            parent = parameters[names.index(name)]
            if isinstance(parent, Real | Permutation):
                raise ValueError(
                    f"the parent of {parameter.name} must have a list of values, got the {parent.kind} {name}"
                )
            try:
                self._when.append(frozenset(parent.check(value) for value in values))
            except ValueError as error:
                raise ValueError(f"active_if of {parameter.name}: {error}") from None
            self._parent.append(names.index(name))
            self._children[names.index(name)].append(position)
        self.any = any(parent is not None for parent in self._parent)
        self._order = self._parents_first()

    def _parents_first(self) -> list[int]:
        order: list[int] = []
        for position in range(len(self._parameters)):
            line: list[int] = []
            at: int | None = position
            while at is not None and at not in order:
                if at in line:
                    names = [self._parameters[i].name for i in [*line[line.index(at) :], at]]
                    raise ValueError(f"conditions must not go in a circle, got {' on '.join(names)}")
                line.append(at)
                at = self._parent[at]
            order += reversed(line)
        return order

    def is_active(self, values: Sequence[Value], position: int) -> bool:
        """Whether a parameter exists where its parent has the value in `values`, ``None`` if inactive."""
        parent = self._parent[position]
        return parent is None or values[parent] in self._when[position]

    def count(self, position: int) -> int | None:
        """Number of ways to set a parameter and all below it; ``None`` if one is a continuum."""
        parameter, children = self._parameters[position], self._children[position]
        if parameter.size is None or not children:
            return parameter.size
        switching = frozenset[Value]().union(*(self._when[child] for child in children))
        total: int | None = parameter.size - len(switching)
        for value in switching:
            total = _plus(total, self.count_all(self._awake(position, value)))
        return total

    def count_all(self, positions: Sequence[int]) -> int | None:
        """Product of `count`."""
        counts = [self.count(position) for position in positions]
        return None if None in counts else prod(count for count in counts if count is not None)

    @property
    def size(self) -> int | None:
        """Number of designs."""
        return self.count_all([p for p, parent in enumerate(self._parent) if parent is None])

    def _awake(self, position: int, value: Value) -> list[int]:
        return [child for child in self._children[position] if value in self._when[child]]

    def newly_awake(self, design: Design, position: int, value: Value) -> list[int]:
        """Inactive parameters that come to exist when one takes a new value, those below them not."""
        return [child for child in self._awake(position, value) if design[child] is None]

    def settle(self, values: Sequence[Value], choose: Callable[[int], Value]) -> Design:
        """Return a design: ``None`` for what is inactive, a chosen value for what has come to be active."""
        settled = list(values)
        for position in self._order if self.any else ():
            if not self.is_active(settled, position):
                settled[position] = None
            elif settled[position] is None and self._parent[position] is not None:
                settled[position] = choose(position)
        return tuple(settled)

    def complete(self, values: Sequence[Value]) -> Iterator[Design]:
        """Every design that `settle` can return."""
        return self._walk(values, fixed=True)

    def _walk(self, values: Sequence[Value], *, fixed: bool) -> Iterator[Design]:
        """Set one parameter after the other; `fixed` ones keep their value where they have one."""
        settled = list(values)

        def walk(depth: int) -> Iterator[Design]:
            if depth == len(self._order):
                yield tuple(settled)
                return
            position = self._order[depth]
            options: Iterable[Value] = (values[position],)
            if not self.is_active(settled, position):
                options = (None,)
            elif not fixed or (values[position] is None and self._parent[position] is not None):
                options = self._parameters[position].values()
            for option in options:
                settled[position] = option
                yield from walk(depth + 1)

        return walk(0)

    def designs(self) -> Iterator[Design]:
        """Every design, parents before their children, the last parameter varying fastest."""
        # `product` is three times as fast, but holds the values of every parameter.
        if self.any or any((parameter.size or 0) > _HELD for parameter in self._parameters):
            return self._walk([None] * len(self._parameters), fixed=False)
        return product(*(parameter.values() for parameter in self._parameters))


def _plus(total: int | None, more: int | None) -> int | None:
    return None if total is None or more is None else total + more
