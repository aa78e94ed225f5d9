"""The design space: what varies, minus what known constraints forbid; or the rows of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np

from dse.space.conditions import Conditions
from dse.space.constraints import Constraint, name_of, reason_against
from dse.space.encoding import Encoded, encode
from dse.space.neighbourhood import moves, mutated
from dse.space.parameter import Design, Parameter, Value
from dse.space.sequences import draws, fresh
from dse.space.table import Table, read

if TYPE_CHECKING:
    import pandas as pd

ENUMERABLE = 200_000  #: products up to this size may be walked completely
# Draws in a row without a new feasible design after which sampling is given up. A product that can be
# walked loses nothing by that; in a larger one, designs rarer than this are found near others only.
_PATIENCE, _PATIENCE_LARGE = 4096, 65_536
_TRIES = 256  # mutations tried until one is feasible


@dataclass(frozen=True)
class Space:
    """Parameters, with conditions among them, under known constraints.

    A design has two forms. The parameters are a dict by name, as a person writes it; a `Design` is
    the tuple of their values in order, with ``None`` for a parameter that is inactive.

    Attributes
    ----------
    parameters
        With unique names.
    constraints
        Functions of the parameters that return ``None`` for a feasible design, otherwise the reason
        why it is not. They must be deterministic, and find ``None`` for what is inactive.
    table
        Rows that are the only designs, see `from_table`; ``None`` for a product.

    Raises
    ------
    ValueError
        No parameter, two of the same name, bad conditions, or no feasible design. A product of up to
        200 000 is walked until a feasible design is found; a larger one is sampled.
    ConstraintError
        A constraint raised.

    Examples
    --------
    >>> from dse.space import PowerOfTwo
    >>> space = Space(
    ...     [PowerOfTwo("rows", 4, 16), PowerOfTwo("columns", 4, 16)],
    ...     constraints=[lambda p: None if p["rows"] * p["columns"] <= 64 else "over 64 units"],
    ... )
    >>> space.size, space.why_infeasible({"rows": 16, "columns": 8})
    (9, 'over 64 units')
    """

    parameters: Sequence[Parameter]
    constraints: Sequence[Constraint] = ()
    table: Table | None = field(default=None, kw_only=True, repr=False)
    _first: Sequence[Design] = field(default=(), init=False, repr=False, compare=False)  # a feasible one

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", tuple(self.parameters))
        object.__setattr__(self, "constraints", tuple(self.constraints))
        if not self.parameters:
            raise ValueError("a space must have at least one parameter, got none")
        for parameter in self.parameters:
            if not isinstance(parameter, Parameter):
                raise TypeError(f"parameters of a space must be of its own kinds, got {parameter!r}")
        for name, count in Counter(self.names).items():
            if count > 1:
                raise ValueError(f"parameter names must be distinct, got {name!r} {count} times")
        for constraint in self.constraints:
            if not callable(constraint):
                raise TypeError(f"a constraint must be a function, got {constraint!r}")
        _ = self._conditions
        if self.constraints:
            self._find_feasible()

    @classmethod
    def from_table(
        cls,
        frame: pd.DataFrame,
        columns: Sequence[str],
        *,
        features: Sequence[str] = (),
        constraints: Sequence[Constraint] = (),
    ) -> Space:
        """Space of the rows of a table.

        What kind of parameter a column is follows from its values alone. Numbers are ordinal, in the
        logarithm where that spaces them more evenly; text in an order that pandas knows is ordinal;
        other text and booleans are categories. A constant column is kept and not searched.

        Parameters
        ----------
        columns
            The parameters.
        features
            Numeric columns that are known of every row beforehand, such as the early estimates of a
            compiler: a model may look at them, but they are no parameters.
        constraints
            As of a space: rows that they reject are not proposed.

        Raises
        ------
        TypeError, ValueError
            No data frame, bad columns or values, two rows of one design, or no feasible row.
        """
        table = read(frame, columns, features)
        return cls(table.parameters, constraints, table=table)

    def _find_feasible(self) -> None:
        walk = self.is_table or (self.size is not None and self.size <= ENUMERABLE)
        found = self.designs() if walk else self.sequence(np.random.default_rng(0))
        if first := tuple(islice(found, 1)):
            object.__setattr__(self, "_first", first)
            return
        among = f"all {self.size}" if walk else f"{_PATIENCE_LARGE} sampled of {self.size or 'a continuum'}"
        defaults = [parameter.default for parameter in self.parameters]
        any_one = (
            next(self._everything()) if walk else self._conditions.settle(defaults, defaults.__getitem__)
        )
        some = self.parameters_of(any_one)
        raise ValueError(
            f"the constraints must leave a feasible design, but they reject {among}; "
            f"{some} for one: {self.why_infeasible(some)}"
        )

    @cached_property
    def _conditions(self) -> Conditions:
        return Conditions(self.parameters)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Parameter names, in order."""
        return tuple(parameter.name for parameter in self.parameters)

    @cached_property
    def size(self) -> int | None:
        """Number of designs before constraints; ``None`` with a real parameter."""
        return len(self.table.designs) if self.table is not None else self._conditions.size

    @property
    def is_table(self) -> bool:
        """Whether the designs are the rows of a table."""
        return self.table is not None

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features of a table that are not constant."""
        return () if self.table is None else tuple(self.table.feature_names)

    @property
    def searched(self) -> tuple[Parameter, ...]:
        """Parameters with more than one value: what the encoding shows."""
        return tuple(parameter for parameter in self.parameters if parameter.size != 1)

    def design(self, parameters: Mapping[str, Value]) -> Design:
        """Values in order of a design given by name, as plain Python; feasibility is not asked.

        Nor is it asked whether a table has such a row. An inactive parameter may be left out.

        Raises
        ------
        ValueError
            A parameter is missing or unknown, its value is not legal, or it is inactive and has one.
        """
        if unknown := [name for name in parameters if name not in self.names]:
            raise ValueError(f"parameters must be among {', '.join(self.names)}, got {unknown[0]!r}")
        given = [parameters.get(name) for name in self.names]
        values = [
            value
            if (name not in parameters or value is None) and parameter.active_if is not None
            else self._present(parameter, parameters)
            for name, parameter, value in zip(self.names, self.parameters, given, strict=True)
        ]
        return self._check_active(values)

    @staticmethod
    def _present(parameter: Parameter, parameters: Mapping[str, Value]) -> Value:
        if parameter.name not in parameters:
            raise ValueError(f"parameter {parameter.name} is missing")
        return parameter.check(parameters[parameter.name])

    def _check_active(self, values: Sequence[Value]) -> Design:
        for position, parameter in enumerate(self.parameters):
            if parameter.active_if is None:
                continue
            parent, allowed = parameter.active_if
            active = self._conditions.is_active(values, position)
            if active != (values[position] is not None):
                wanted = "have a value" if active else "be None"
                raise ValueError(
                    f"{parameter.name} must {wanted} where {parent} is {values[self.names.index(parent)]!r}, "
                    f"got {values[position]!r}; it belongs to {', '.join(map(repr, allowed))}"
                )
        return tuple(values)

    def parameters_of(self, design: Design) -> dict[str, Value]:
        """Return the values by name."""
        return dict(zip(self.names, design, strict=True))

    def row(self, design: Design) -> int:
        """Row of a design in the table, counted from 0.

        Raises
        ------
        ValueError
            The space has no table, or the table no such row.
        """
        if self.table is None:
            raise ValueError("only the designs of a table have rows")
        return self.table.row(design)

    def why_infeasible(self, parameters: Mapping[str, Value]) -> str | None:
        """Why a design may not be proposed, or ``None`` if it may.

        Raises
        ------
        ValueError
            As `design`.
        ConstraintError, TypeError
            A constraint raised, or returned neither ``None`` nor text.
        """
        design = self.design(parameters)
        if self.table is not None and design not in self.table.rows:
            return "the table has no such row"
        return reason_against(self.constraints, self.parameters_of(design))

    def is_feasible(self, design: Design) -> bool:
        """Whether the table, if there is one, has a design of this space and no constraint rejects it."""
        if self.table is not None and design not in self.table.rows:
            return False
        return not self.constraints or reason_against(self.constraints, self.parameters_of(design)) is None

    def _everything(self) -> Iterator[Design]:
        return iter(self.table.designs) if self.table is not None else self._conditions.designs()

    def designs(self) -> Iterator[Design]:
        """Every feasible design: the last parameter varying fastest, or by the values of a table.

        Raises
        ------
        ValueError
            The space is a continuum.
        """
        if self.size is None:
            real = next(parameter.name for parameter in self.parameters if parameter.size is None)
            raise ValueError(f"the designs of a space can be listed only if it is finite, but {real} is real")
        return filter(self.is_feasible, self._everything())

    def moves(self, design: Design) -> Iterator[Design]:
        """Finitely many designs that differ in one parameter, feasible or not; rows of the table only.

        A listed parameter takes every other value, a wide integer those 1, 2, 4, ... away, a
        permutation has two items exchanged, and a real one stays, for which there is `mutate`.
        Parameters that become inactive turn to ``None``; those that become active take every
        combination of values up to 64 of them, and their defaults otherwise.
        """
        if self.table is not None:
            return self.table.differing(design)
        return moves(self.parameters, self._conditions, design)

    def neighbours(self, parameters: Mapping[str, Value]) -> list[dict[str, Value]]:
        """Return the feasible ones among `moves`."""
        near = filter(self.is_feasible, self.moves(self.design(parameters)))
        return [self.parameters_of(design) for design in near]

    def mutate(self, design: Design, rng: np.random.Generator) -> Design | None:
        """Return a random feasible neighbour, or ``None`` where 256 tries found none.

        One parameter changes, by a step of random width if it is a number; what becomes active takes
        a random value. In a table, the row nearest to that.
        """
        for _ in range(_TRIES):
            moved = mutated(self.parameters, self._conditions, design, rng)
            if moved is not None and self.table is not None:
                moved = self.table.nearest(moved, rng, without=design)
            elif moved is not None:
                moved = self.complete(moved, rng)
            if moved is None:
                return None
            if moved != design and self.is_feasible(moved):
                return moved
        return None

    def complete(self, values: Sequence[Value], rng: np.random.Generator) -> Design:
        """Make a design of legal values: ``None`` for what is inactive, random values for what lacks one.

        For a recombination of several designs, say, in which a parent and its children come from
        different ones. Constraints and tables are not asked.
        """

        def draw(position: int) -> Value:
            parameter = self.parameters[position]
            return parameter.from_unit(rng.random((1, parameter.width)))[0]

        return self._conditions.settle(values, draw)

    def encode(self, designs: Sequence[Design]) -> Encoded:
        """Encode designs as rows for a model.

        An inactive parameter stands at a fixed default; its parent tells that it is inactive.

        Raises
        ------
        ValueError
            A design is not of this space, or no row of a table that has features.
        """
        known = np.empty((len(designs), 0)) if self.table is None else self.table.features_of(designs)
        return encode(self.parameters, designs, known, self.features)

    def columns_of(self, name: str) -> tuple[int, ...]:
        """Columns of the encoding that a parameter or a feature has, none if it is constant."""
        end = 0
        for parameter in self.searched:
            start, end = end, end + len(parameter.columns)
            if parameter.name == name:
                return tuple(range(start, end))
        return tuple(end + index for index, feature in enumerate(self.features) if feature == name)

    def sequence(self, rng: np.random.Generator, *, sobol: bool = True) -> Iterator[Design]:
        """Feasible designs without repetition: scrambled Sobol points, or independent uniform ones.

        The sequence ends when every feasible design has come, if there are at most 200 000 designs.
        In a larger space, 65 536 points in a row without a new feasible design are followed by
        mutations of the designs so far, until 4096 of these in a row are in vain. In a table it has
        every feasible row; the first 1024 are those nearest to Sobol points.
        """
        if self.table is not None:
            return filter(self.is_feasible, self.table.sequence(rng, sobol=sobol))
        return self._drawn(rng, sobol=sobol)

    def _drawn(self, rng: np.random.Generator, *, sobol: bool) -> Iterator[Design]:
        walk = self.size is not None and self.size <= ENUMERABLE
        seen: set[Design] = set()
        found: list[Design] = []
        settled = (
            # A value drawn for an inactive child is dropped, and there is none to choose.
            self._conditions.settle(values, values.__getitem__)
            for values in draws(self.parameters, rng, sobol=sobol)
        )
        for design in fresh(
            settled, seen, self.is_feasible, _PATIENCE if walk else _PATIENCE_LARGE, self.size
        ):
            found.append(design)
            yield design
        if walk and len(seen) != self.size:
            rest = [design for design in self.designs() if design not in seen]
            yield from (rest[index] for index in rng.permutation(len(rest)))
        elif not walk:
            near = chain(self._first, self._wander(found, rng))
            for design in fresh(near, seen, self.is_feasible, _PATIENCE, self.size):
                found.append(design)
                yield design

    def _wander(self, found: Sequence[Design], rng: np.random.Generator) -> Iterator[Design]:
        """Random neighbours, feasible or not, of designs from a growing list."""
        while found:
            start = found[int(rng.integers(len(found)))]
            moved = mutated(self.parameters, self._conditions, start, rng)
            if moved is None:
                return
            yield self.complete(moved, rng)

    def sample(self, n: int, rng: np.random.Generator) -> list[dict[str, Value]]:
        """Draw `n` distinct feasible designs along a scrambled Sobol sequence.

        Returns fewer where the space has fewer, see `sequence`.
        """
        if n < 0:
            raise ValueError(f"n must be at least 0, got {n}")
        return [self.parameters_of(design) for design in islice(self.sequence(rng), n)]

    def describe(self) -> dict[str, object]:
        """As plain JSON data, equal for equal spaces.

        Of a constraint only its name, for its code cannot be compared; of a table a digest.
        """
        found: dict[str, object] = {
            "parameters": [parameter.describe() for parameter in self.parameters],
            "constraints": [name_of(rule) for rule in self.constraints],
        }
        if self.table is not None:
            found |= self.table.describe()
        return found
