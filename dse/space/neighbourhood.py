"""Designs near a design: one parameter changes, and what that switches on or off follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from dse.space.conditions import Conditions
from dse.space.parameter import Design, Parameter

_SWITCHED = 64  # a move that activates other parameters takes up to so many of their combinations


def moves(parameters: Sequence[Parameter], conditions: Conditions, design: Design) -> Iterator[Design]:
    """Every design that one of the moves of one parameter leads to.

    Parameters that become active take every combination of their values up to 64 of them, and their
    defaults otherwise.
    """
    for position, parameter in enumerate(parameters):
        if not conditions.is_active(design, position):
            continue
        for value in parameter.moves(design[position]):
            moved = (*design[:position], value, *design[position + 1 :])
            if not conditions.any:
                yield moved
                continue
            count = conditions.count_all(conditions.newly_awake(design, position, value))
            if count is not None and count <= _SWITCHED:
                yield from conditions.complete(moved)
            else:
                yield conditions.settle(moved, lambda child: parameters[child].default)


def mutated(
    parameters: Sequence[Parameter], conditions: Conditions, design: Design, rng: np.random.Generator
) -> Design | None:
    """Values after one random parameter has changed; ``None`` if none can.

    Conditions are not looked at: a parameter may have a value that is inactive now, or lack one.
    """
    free = [
        position
        for position, parameter in enumerate(parameters)
        if parameter.size != 1 and conditions.is_active(design, position)
    ]
    if not free:
        return None
    position = free[int(rng.integers(len(free)))]
    value = parameters[position].mutate(design[position], rng)
    return (*design[:position], value, *design[position + 1 :])
