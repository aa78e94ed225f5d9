"""What a method may look at: the history of a campaign as plain arrays."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from dse.space import Design


@dataclass(frozen=True, eq=False, slots=True)
class History:
    """Trials of a campaign, as a method sees them.

    Costs are minimised and transformed as each objective says; no NaN and no infinity is among them.

    Attributes
    ----------
    done
        Designs of the finished trials, by trial.
    costs : (n, m)
        Their objectives.
    constraints : (n, k)
        Their outcome constraints, met where not positive.
    failed
        Designs that could not be evaluated: nothing is known of them but that.
    pending
        Designs asked and not finished, by trial.
    asked
        Every design ever asked or attached; none of them is proposed.
    seconds : (n,)
        What the evaluation of each finished trial took, or NaN.

    Raises
    ------
    ValueError
        Arrays of another length than `done`, or costs or constraints that are not finite.
    """

    done: Sequence[Design]
    costs: Float[np.ndarray, "n m"]
    constraints: Float[np.ndarray, "n k"]
    failed: Sequence[Design]
    pending: Sequence[Design]
    asked: Collection[Design]
    seconds: Float[np.ndarray, " n"]

    def __post_init__(self) -> None:
        for name in ("done", "failed", "pending"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "asked", frozenset(self.asked))
        for name, axes in (("costs", 2), ("constraints", 2), ("seconds", 1)):
            array = np.asarray(getattr(self, name), dtype=np.float64)
            if array.ndim != axes or len(array) != len(self.done):
                wanted = "(n, k)" if axes == 2 else "(n,)"
                raise ValueError(
                    f"{name} must have the shape {wanted} with n = {len(self.done)}, got {array.shape}"
                )
            if name != "seconds" and not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
            object.__setattr__(self, name, array)

    @property
    def feasible(self) -> Bool[np.ndarray, " n"]:
        """Which finished trials meet every outcome constraint, (n,)."""
        met: Bool[np.ndarray, " n"] = np.all(self.constraints <= 0, axis=1)
        return met

    @staticmethod
    def empty(objectives: int, constraints: int = 0) -> History:
        """History of a campaign that has not begun."""
        return History((), np.empty((0, objectives)), np.empty((0, constraints)), (), (), (), np.empty(0))
