"""Maximum of a score over designs that are too many to list: the best of a pool, then hill climbs.

Designs are opaque here. Climbs move from design to design, never over a relaxation that is rounded
afterwards: rounding repeats old designs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float

T = TypeVar("T", bound=Hashable)

_STEPS = 100  # of one climb


def maximise(
    score: Callable[[Sequence[T]], Float[np.ndarray, " n"]],
    pool: Sequence[T],
    *,
    moves: Callable[[T], Sequence[T]] | None = None,
    climbs: int = 3,
    rng: np.random.Generator,
) -> tuple[T, float]:
    """Best design found, and its score.

    Parameters
    ----------
    score
        Scores of designs, (n,).
    pool
        Distinct designs, at least one.
    moves
        Neighbours of a design that may be chosen; without them the pool is all there is.
    climbs
        Number of designs of the pool, best first, that steepest ascents start from.
    rng
        Tells equal scores apart, so that the order of the pool does not matter.

    Raises
    ------
    ValueError
        An empty pool.
    """
    if not pool:
        raise ValueError("a pool must have at least one design, got none")
    shuffled = [pool[index] for index in rng.permutation(len(pool))]
    values = score(shuffled)
    order = np.argsort(-values, kind="stable")
    best, best_value = shuffled[order[0]], float(values[order[0]])
    if moves is None:
        return best, best_value
    scored = dict(zip(shuffled, values.tolist(), strict=True))
    for start in order[:climbs].tolist():
        top = _climb(shuffled[start], score, moves, scored)
        if scored[top] > best_value:
            best, best_value = top, scored[top]
    return best, best_value


def _climb(
    design: T,
    score: Callable[[Sequence[T]], Float[np.ndarray, " n"]],
    moves: Callable[[T], Sequence[T]],
    scored: dict[T, float],
) -> T:
    """Steepest ascent to a design that no neighbour betters; `scored` keeps what was scored."""
    for _ in range(_STEPS):
        near = list(dict.fromkeys(moves(design)))
        fresh = [move for move in near if move not in scored]
        if fresh:
            scored.update(zip(fresh, score(fresh).tolist(), strict=True))
        top = max(near, key=scored.__getitem__, default=design)
        if scored[top] <= scored[design]:
            break
        design = top
    return design
