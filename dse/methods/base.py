"""What a method is: a function from a history to the next designs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np

from dse.fidelity import Level
from dse.history import History
from dse.objective import Objective
from dse.space import Design, Space

_FEWEST, _MOST = 5, 20  # trials of an initial design, unless the campaign says how many


@dataclass(frozen=True, slots=True)
class Proposal:
    """Designs to evaluate next, and what the method has to say about them.

    Attributes
    ----------
    designs
        Feasible, distinct and new to the campaign; fewer than wanted where fewer are left.
    notes
        For the record: a fallback, a warning of a fit.
    levels
        Fidelity of each design; empty for full.
    once
        As notes, but kept only where the campaign does not have them yet.
    """

    designs: tuple[Design, ...]
    notes: tuple[str, ...] = ()
    levels: tuple[Level, ...] = ()
    once: tuple[str, ...] = ()


class Method(Protocol):
    """Proposes designs: a function of its arguments and of what it was made from, and of nothing else."""

    def propose(self, number: int, history: History, n: int) -> Proposal:
        """Up to `n` new designs.

        Parameters
        ----------
        number
            Id of the first new trial: what is random is drawn from the seed and this number.
        """


def stream(seed: int, *path: int) -> np.random.Generator:
    """Random numbers of one purpose and one trial, none of which another stream repeats."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=path))


def default_initial(space: Space) -> int:
    """Size of the initial design: twice the number of searched parameters plus two, within 5..20."""
    return min(max(2 * (len(space.parameters) + 1), _FEWEST), _MOST)


class Start:
    """Designs along one sequence of the space: all of random and Sobol search, and how others begin.

    A proposal depends on the history alone: those designs of the sequence come first that the campaign
    does not have.
    """

    def __init__(self, space: Space, *, seed: int, sobol: bool) -> None:
        self._sequence: Iterator[Design] = space.sequence(stream(seed, 0), sobol=sobol)
        self._drawn: list[Design] = []

    def next(self, history: History, n: int, *, without: Sequence[Design] = ()) -> tuple[Design, ...]:
        """Up to `n` designs that are neither in the history nor among `without`."""
        taken = frozenset(without)
        fresh = (design for design in self._all() if design not in history.asked and design not in taken)
        return tuple(islice(fresh, n))

    def _all(self) -> Iterator[Design]:
        yield from self._drawn
        for design in self._sequence:
            self._drawn.append(design)
            yield design


def check(objectives: Sequence[Objective], *, seed: int, initial: int | None) -> None:
    """``ValueError`` of what no method can work with."""
    if not objectives:
        raise ValueError("a method must have at least one objective, got none")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ValueError(f"seed must be an integer in 0..2**63 - 1, got {seed!r}")
    if initial is not None and (isinstance(initial, bool) or not isinstance(initial, int) or initial < 1):
        raise ValueError(f"initial must be at least 1, got {initial!r}")
