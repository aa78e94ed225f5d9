"""Points of the unit cube as designs: scrambled Sobol points or independent uniform ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float

from dse.space.parameter import Design, Parameter, Value

DRAWS = 1024  # points drawn at a time; a power of two keeps Sobol points balanced


def unit_points(
    width: int, rng: np.random.Generator, *, sobol: bool
) -> Iterator[Float[np.ndarray, "1024 w"]]:
    """Blocks of points of the unit cube, without end."""

    def uniform(n: int) -> Float[np.ndarray, "n w"]:
        return rng.random((n, width))

    draw: Callable[[int], Float[np.ndarray, "n w"]] = uniform
    if sobol:
        # Half a second to import, which a person who only reads a campaign does not need.
        from scipy.stats import qmc

        draw = qmc.Sobol(width, scramble=True, rng=rng).random
    while True:
        yield draw(DRAWS)


def draws(
    parameters: Sequence[Parameter], rng: np.random.Generator, *, sobol: bool
) -> Iterator[tuple[Value, ...]]:
    """Values of every parameter, without end and without regard to conditions."""
    ends = np.cumsum([parameter.width for parameter in parameters]).tolist()
    for points in unit_points(ends[-1], rng, sobol=sobol):
        columns = [
            parameter.from_unit(points[:, end - parameter.width : end])
            for parameter, end in zip(parameters, ends, strict=True)
        ]
        yield from zip(*columns, strict=True)


def fresh(
    candidates: Iterable[Design],
    seen: set[Design],
    is_feasible: Callable[[Design], bool],
    patience: int,
    size: int | None,
) -> Iterator[Design]:
    """Feasible candidates not seen before, until `patience` in a row are none or all `size` are seen."""
    misses = 0
    for design in candidates:
        misses += 1
        if design not in seen:
            seen.add(design)
            if is_feasible(design):
                misses = 0
                yield design
        if misses >= patience or len(seen) == size:
            return
