"""Search without learning: feasible designs uniformly or along a scrambled Sobol sequence, none twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dse.history import History
from dse.methods.base import Proposal, Start
from dse.objective import Objective
from dse.space import Space


class SequenceSearch:
    """The baselines that every other method must beat: ``"random"``, and the more even ``"sobol"``."""

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],  # noqa: ARG002  the same for every method
        outcome_constraints: Sequence[Any] = (),  # noqa: ARG002
        *,
        method: str = "random",
        seed: int,
        initial: int | None = None,  # noqa: ARG002  all of it is the same sequence
    ) -> None:
        self._sequence = Start(space, seed=seed, sobol=method == "sobol")

    def propose(self, number: int, history: History, n: int) -> Proposal:  # noqa: ARG002
        """Next designs of the sequence that the campaign does not have."""
        return Proposal(self._sequence.next(history, n))
