"""Designs as lists of numbers that general optimisers can vary, and back to legal, new designs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from dse.history import History
from dse.space import Categorical, Design, Ordinal, Space, Value
from dse.space.parameter import Parameter

_MUTATIONS = 200  # random neighbours that are tried before the search falls back to its sequence

Number: TypeAlias = int | float


@dataclass(frozen=True, slots=True)
class Gene:
    """One number of a design.

    Attributes
    ----------
    kind
        ``"rank"``: index among `size` ordered choices; ``"code"``: index among `size` choices without
        order; ``"unit"``: a real number in [0, 1].
    """

    name: str
    kind: Literal["rank", "code", "unit"]
    size: int = 0


class Genome:
    """The genes of a space.

    Attributes
    ----------
    genes
        Those of every parameter with more than one value, parents before their children.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._parameters = _parents_first(space.parameters)
        self._genes = {
            parameter.name: _genes(parameter, place) for place, parameter in enumerate(space.parameters)
        }
        self.genes = [gene for parameter in self._parameters for gene in self._genes[parameter.name]]

    def design(self, number: Callable[[Gene], Number]) -> Design:
        """Design of some numbers, feasible or not; those of inactive parameters are not asked for."""
        values: dict[str, Value] = {}
        for parameter in self._parameters:
            genes = self._genes[parameter.name]
            if not _is_active(parameter, values):
                values[parameter.name] = None
            elif not genes:
                values[parameter.name] = parameter.from_unit(np.full((1, parameter.width), 0.5))[0]
            elif genes[0].kind == "unit":
                point = np.array([[number(gene) for gene in genes]], dtype=np.float64)
                values[parameter.name] = parameter.from_unit(np.clip(point, 0.0, 1.0))[0]
            else:
                values[parameter.name] = tuple(parameter.values())[int(number(genes[0]))]
        return tuple(values[name] for name in self._space.names)

    def numbers(self, design: Design) -> dict[Gene, Number]:
        """Numbers of a design: the inverse of `design`, without those of inactive parameters."""
        found: dict[Gene, Number] = {}
        for parameter, value in zip(self._space.parameters, design, strict=True):
            genes = self._genes[parameter.name]
            if not genes or (value is None and parameter.active_if is not None):
                continue
            if genes[0].kind == "unit":
                # Of kinds without choices, `encode` is the inverse of `from_unit`.
                found.update(zip(genes, parameter.encode([value])[0].tolist(), strict=True))
            else:
                found[genes[0]] = tuple(parameter.values()).index(value)
        return found


def _genes(parameter: Parameter, place: int) -> tuple[Gene, ...]:
    """Genes of a parameter, named by its place: names of its own could meet those of others."""
    if parameter.size == 1:
        return ()
    if isinstance(parameter, Categorical | Ordinal):
        kind: Literal["rank", "code"] = "code" if parameter.is_categorical else "rank"
        return (Gene(str(place), kind, parameter.size),)
    return tuple(Gene(f"{place}.{index}", "unit") for index in range(parameter.width))


def _is_active(parameter: Parameter, values: dict[str, Value]) -> bool:
    return parameter.active_if is None or values[parameter.active_if[0]] in parameter.active_if[1]


def _parents_first(parameters: Iterable[Parameter]) -> list[Parameter]:
    left, ordered, known = list(parameters), [], set[str]()
    while left:
        ready = [p for p in left if p.active_if is None or p.active_if[0] in known]
        ordered += ready
        known |= {parameter.name for parameter in ready}
        left = [parameter for parameter in left if parameter.name not in known]
    return ordered


class Repair:
    """Legal, new designs next to what an optimiser wants.

    In a table that is the closest row that the campaign does not have. In other spaces a wish that is
    feasible and new is taken as it is, and all others are refused.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._rows: Float[np.ndarray, "n c"] | None = None
        self._designs: list[Design] = []
        if space.is_table:
            self._designs = list(space.designs())
            self._place = {design: place for place, design in enumerate(self._designs)}
            self._codes = np.concatenate([[p.is_categorical] * len(p.columns) for p in space.parameters])
            self._rows = self._encode(self._designs)

    def _encode(self, designs: list[Design]) -> Float[np.ndarray, "n c"]:
        columns = [
            parameter.encode([design[position] for design in designs])
            for position, parameter in enumerate(self._space.parameters)
        ]
        return np.hstack(columns)

    def __call__(self, design: Design, taken: set[Design], rng: np.random.Generator) -> Design | None:
        """Legal design for a wish that is not among those `taken`, or ``None``."""
        if self._rows is None:
            return design if design not in taken and self._space.is_feasible(design) else None
        gap = np.abs(self._rows - self._encode([design]))
        gap[:, self._codes] = gap[:, self._codes] > 0
        distance = (gap**2).sum(axis=1)
        distance[[self._place[other] for other in taken if other in self._place]] = np.inf
        least = distance.min()
        if not np.isfinite(least):
            return None
        # Rows at the same distance are equally good, whatever their place in the table.
        return self._designs[int(rng.choice(np.flatnonzero(distance <= least + 1e-12)))]

    def neighbours(
        self, designs: list[Design], taken: set[Design], rng: np.random.Generator, n: int
    ) -> list[Design]:
        """Up to `n` new feasible designs by changing some of these at random; they become `taken`."""
        found: list[Design] = []
        for _ in range(_MUTATIONS * n if designs else 0):
            if len(found) == n:
                break
            start = designs[int(rng.integers(len(designs)))]
            changed = self._space.mutate(start, rng)
            if changed is not None and changed not in taken:
                found.append(changed)
                taken.add(changed)
        return found


def ranked(history: History) -> tuple[list[Design], Float[np.ndarray, "n m"], Float[np.ndarray, " n"]]:
    """Designs with a result or a failure, their costs and how far each is from being feasible.

    A failed design gets the worst cost seen in each objective, and a violation beyond any measured one:
    what is worse than everything else teaches a search to stay away, without saying where to go.
    """
    designs = [*history.done, *history.failed]
    worst = history.costs.max(axis=0, keepdims=True) if len(history.done) else np.zeros((1, _width(history)))
    costs = np.vstack([history.costs, np.repeat(worst, len(history.failed), axis=0)])
    scale = np.abs(history.constraints).max(axis=0, initial=0.0)
    over = (np.clip(history.constraints, 0.0, None) / np.where(scale > 0, scale, 1.0)).sum(axis=1)
    beyond = 1.0 + over.max(initial=0.0)
    return designs, costs, np.concatenate([over, np.full(len(history.failed), beyond)])


def _width(history: History) -> int:
    return int(history.costs.shape[1])
