"""What searches from the best designs so far have in common: how they begin, and what they fall back on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from dse.history import History
from dse.methods.base import Proposal, Start, default_initial, stream
from dse.methods.mixed import Genome, Repair, ranked
from dse.objective import Objective
from dse.space import Design, Space

_BEST = 20  # designs whose neighbours are looked at where a method finds nothing new


@dataclass(frozen=True, slots=True)
class Wish:
    """What a method is asked for, and from what.

    Attributes
    ----------
    history
        Of the campaign.
    designs, costs, violations
        Evaluated designs, their costs, (k, m), and by how much each breaks the constraints, (k,).
    n
        Designs wanted.
    taken
        Designs that may not come again; those that are found are added.
    rng
        Of this proposal.
    """

    history: History
    designs: list[Design]
    costs: Float[np.ndarray, "k m"]
    violations: Float[np.ndarray, " k"]
    n: int
    taken: set[Design]
    rng: np.random.Generator


class PopulationSearch(ABC):
    """Search by designs that a method of another library wishes for, made legal and new.

    The Sobol sequence comes first, until there are enough evaluations to learn from. Where the wishes do
    not lead to enough new designs, neighbours of the best follow, then the sequence again.
    """

    need: ClassVar[str]  #: what takes two evaluations to begin with, for the note that there are fewer

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        outcome_constraints: Sequence[Any] = (),
        *,
        method: str = "",  # noqa: ARG002  the class tells
        seed: int,
        initial: int | None = None,
    ) -> None:
        self._seed = seed
        self._objectives = len(objectives)
        self._constrained = bool(outcome_constraints)
        self._initial = default_initial(space) if initial is None else initial
        self._start = Start(space, seed=seed, sobol=True)
        self._genome = Genome(space)
        self._repair = Repair(space)

    def propose(self, number: int, history: History, n: int) -> Proposal:
        """What the method wishes for, new and feasible; the Sobol sequence until there is enough to learn."""
        if len(history.asked) < self._initial:
            return Proposal(self._start.next(history, n))
        designs, costs, violations = ranked(history)
        if len(designs) < 2 or not self._genome.genes:
            note = f"Sobol design: {self.need} 2 evaluations, got {len(designs)}"
            return Proposal(self._start.next(history, n), (note,) if self._genome.genes else ())
        wish = Wish(history, designs, costs, violations, n, set(history.asked), stream(self._seed, 1, number))
        found = self._found(wish)
        if len(found) == n:
            return Proposal(tuple(found))
        order = np.lexsort((costs.sum(axis=1), violations))[:_BEST]
        found += self._repair.neighbours([designs[i] for i in order], wish.taken, wish.rng, n - len(found))
        return Proposal((*found, *self._start.next(history, n - len(found), without=found)))

    @abstractmethod
    def _found(self, wish: Wish) -> list[Design]:
        """Legal designs that are not taken, as many as wanted or fewer."""
