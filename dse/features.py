"""What is known of an objective before any evaluation, as further columns that its model reads.

Theory predicts much of what an evaluation measures: a bound on an error, a roofline. A model that reads the
prediction learns only what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
from jaxtyping import Float

from dse.objective import Objective, finite
from dse.space import Design, Space

_LISTED = 5000  # designs of a space up to which all of them set the scale
_SAMPLE = 512  # of a larger one
_STREAM = 21  # of random numbers, apart from those of the methods


@dataclass(frozen=True)
class Scale:
    """Smallest and largest value of each of f columns, which become 0 and 1."""

    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __call__(self, values: Float[np.ndarray, "n f"]) -> Float[np.ndarray, "n f"]:
        """Values on this scale, (n, f); 0 where a column does not vary."""
        low, high = np.array(self.low), np.array(self.high)
        scaled: Float[np.ndarray, "n f"] = (values - low) / np.where(high > low, high - low, 1.0)
        return scaled


class Features:
    """Columns of the features of all objectives, those of one objective beside each other.

    Parameters
    ----------
    space
        Where the designs come from; of a large one, a sample and the designs seen so far set the scale.
    objectives
        With and without features.
    seed
        Of the sample.

    Raises
    ------
    ValueError
        When features are computed: no mapping, no feature, names that change, or a value that is not finite.
    """

    def __init__(self, space: Space, objectives: Sequence[Objective], seed: int) -> None:
        self._space, self._seed = space, seed
        self._having = {
            j: objective for j, objective in enumerate(objectives) if objective.features is not None
        }
        self._names: dict[int, tuple[str, ...]] = {}
        self._values: dict[Design, list[float]] = {}

    def __bool__(self) -> bool:
        return bool(self._having)

    def columns(self, j: int, start: int) -> tuple[int, ...]:
        """Columns of objective `j`, where the first of all is column `start`."""
        if j not in self._having:
            return ()
        _ = self._range  # computing any features tells their names
        before = sum(len(names) for k, names in self._names.items() if k < j)
        return tuple(range(start + before, start + before + len(self._names[j])))

    def scale(self, seen: Sequence[Design] = ()) -> Scale:
        """Scale over what the space offers and the designs seen."""
        low, high = self._range
        if seen:
            values = self.values(seen)
            low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
        return Scale(tuple(low.tolist()), tuple(high.tolist()))

    def values(self, designs: Sequence[Design]) -> Float[np.ndarray, "n f"]:
        """Features of designs as they are, (n, f); each design's are computed once."""
        if not self._having:
            return np.empty((len(designs), 0))
        for design in designs:
            if design not in self._values:
                self._values[design] = [
                    value for j, objective in self._having.items() for value in self._of(j, objective, design)
                ]
        width = sum(map(len, self._names.values()))
        return np.array([self._values[design] for design in designs]).reshape(len(designs), width)

    @cached_property
    def _range(self) -> tuple[Float[np.ndarray, " f"], Float[np.ndarray, " f"]]:
        if not self._having:
            return np.empty(0), np.empty(0)
        size = self._space.size
        if self._space.is_table or (size is not None and size <= _LISTED):
            designs = list(self._space.designs())
        else:
            rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(_STREAM,)))
            designs = list(islice(self._space.sequence(rng), _SAMPLE))
        values = self.values(designs)
        return values.min(axis=0), values.max(axis=0)

    def _of(self, j: int, objective: Objective, design: Design) -> list[float]:
        assert objective.features is not None
        parameters = self._space.parameters_of(design)
        try:
            found = objective.features(parameters)
            if not isinstance(found, Mapping) or not found:
                raise ValueError(f"features must be numbers by name, got {found!r}")
            names = self._names.setdefault(j, tuple(found))
            if set(found) != set(names):
                raise ValueError(
                    f"features must always be {', '.join(names)}, got {', '.join(map(str, found))}"
                )
            return [finite(f"feature {name}", found[name]) for name in names]
        except Exception as error:
            error.add_note(f"in the features of the objective {objective.name} of {parameters}")
            raise
