"""The gaps to keep by a dynamic program over steps, part by part, and a greedy plan beside it."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from accel.schedule._kernels.streamed import ALWAYS, sort_gaps
from accel.schedule._kernels.streamed_states import solve_parts

Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]


def rank(size: Ints, first: Ints, step: Ints, streamed: Ints, capacity: Ints) -> Ints:
    """Gaps in the order in which a plan is filled up: most bytes saved per share of the capacity."""
    is_gap = np.ones(step.size, np.bool_)
    is_gap[first[1:] - 1] = False
    gaps = np.flatnonzero(is_gap)
    shares = np.append(0.0, np.cumsum(1.0 / np.maximum(1, capacity)))
    share = shares[step[gaps + 1] + 1] - shares[step[gaps]]
    saved = streamed[gaps + 1] / np.repeat(size, np.diff(first) - 1)
    return gaps[np.argsort(-saved / share, kind="stable")]


def solve(
    size: Ints,
    first: Ints,
    step: Ints,
    streamed: Ints,
    is_produced: Bools,
    is_output: Bools,
    capacity: Ints,
    most_work: int,
) -> tuple[Bools, Ints, Bools]:
    """Best gaps to keep, (u,), the fate of every gap, (u,), and which parts were too much work.

    In such a part the gaps are those of a greedy plan.
    """
    fate, parts = sort_gaps(size, first, step, is_produced, is_output, capacity)
    if parts == 0:
        return fate == ALWAYS, fate, np.zeros(0, np.bool_)
    ranked = rank(size, first, step, streamed, capacity)
    kept, is_left = solve_parts(
        size,
        first,
        step,
        streamed,
        is_produced,
        is_output,
        capacity,
        np.argsort(step, kind="stable"),
        ranked,
        fate,
        parts,
        most_work,
    )
    return kept, fate, is_left
