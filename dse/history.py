"""What a method may look at: the history of a campaign as plain arrays."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float

from dse.fidelity import Level
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
    levels, failed_levels, pending_levels
        Fidelity of each of `done`, `failed` and `pending`; empty in a campaign without fidelity.
    abandoned
        Pairs of design and fidelity of which nothing came to be known; empty without fidelity.

    Raises
    ------
    ValueError
        Arrays or levels of another length than their designs, or costs or constraints that are not finite.
    """

    done: Sequence[Design]
    costs: Float[np.ndarray, "n m"]
    constraints: Float[np.ndarray, "n k"]
    failed: Sequence[Design]
    pending: Sequence[Design]
    asked: Collection[Design]
    seconds: Float[np.ndarray, " n"]
    levels: Sequence[Level] = field(default=(), kw_only=True)
    failed_levels: Sequence[Level] = field(default=(), kw_only=True)
    pending_levels: Sequence[Level] = field(default=(), kw_only=True)
    abandoned: Sequence[tuple[Design, Level]] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        for name in ("done", "failed", "pending"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "asked", frozenset(self.asked))
        for name, designs in (
            ("levels", self.done),
            ("failed_levels", self.failed),
            ("pending_levels", self.pending),
        ):
            levels = tuple(getattr(self, name))
            if levels and len(levels) != len(designs):
                raise ValueError(f"{name} must be {len(designs)} levels or none, got {len(levels)}")
            object.__setattr__(self, name, levels)
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

    @property
    def highest(self) -> dict[Design, Level]:
        """Highest level that was ever asked of each design; empty without fidelity."""
        pairs = [
            *zip(self.done, self.levels, strict=False),
            *zip(self.failed, self.failed_levels, strict=False),
            *zip(self.pending, self.pending_levels, strict=False),
            *self.abandoned,
        ]
        found: dict[Design, Level] = {}
        for design, level in pairs:
            found[design] = max(level, found.get(design, level))
        return found

    def at(self, full: Level) -> History:
        """What happened at full fidelity alone, and failures, which are the design's at any fidelity.

        Designs that were evaluated at lower levels only count as new.
        """
        done = np.array([level == full for level in self.levels], dtype=bool)
        pending = [d for d, level in zip(self.pending, self.pending_levels, strict=True) if level == full]
        tried = {design for design, level in self.highest.items() if level == full}
        return replace(
            self,
            done=[design for design, kept in zip(self.done, done, strict=True) if kept],
            costs=self.costs[done],
            constraints=self.constraints[done],
            seconds=self.seconds[done],
            pending=pending,
            asked=tried | set(self.failed),
            levels=(),
            failed_levels=(),
            pending_levels=(),
            abandoned=(),
        )

    def expecting(self, pairs: Sequence[tuple[Design, Level]]) -> History:
        """The same with more pending designs, each at a fidelity."""
        return replace(
            self,
            pending=(*self.pending, *(design for design, _ in pairs)),
            pending_levels=(*self.pending_levels, *(level for _, level in pairs)),
            asked=frozenset(self.asked) | {design for design, _ in pairs},
        )

    @staticmethod
    def empty(objectives: int, constraints: int = 0) -> History:
        """History of a campaign that has not begun."""
        return History((), np.empty((0, objectives)), np.empty((0, constraints)), (), (), (), np.empty(0))
