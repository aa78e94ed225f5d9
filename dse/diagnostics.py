"""What a model makes of the trials so far: how well it predicts them, and which parameters matter.

For reports and for people. A search fits models of its own.

References
----------
.. [Jansen99] M. J. W. Jansen, "Analysis of Variance Designs for Model Output", Computer Physics
   Communications 117, 1999: the estimator of total effects.
.. [Saltelli10] A. Saltelli et al., "Variance Based Sensitivity Analysis of Model Output. Design and Estimator
   for the Total Sensitivity Index", Computer Physics Communications 181, 2010.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from dse._threads import one_thread
from dse.space import Design, Encoded, Space, Value
from dse.space.parameter import Parameter

FEWEST = 5  #: results from which a model is worth looking at
_SAMPLES = 512  # designs over which effects are averaged


class Model:
    """A committee of models of one quantity, fitted to designs and their values.

    Parameters
    ----------
    space
        Where the designs come from.
    designs, values
        At least 5 results; model the logarithm of what spans orders of magnitude.
    seed
        Equal seeds and results give equal models.

    Attributes
    ----------
    values, left_out, left_out_std
        The values, and mean and standard deviation of the prediction of each by the model fitted
        without it, (n,).

    Raises
    ------
    ValueError
        Too few results, values that are constant or not finite, or parameters that do not vary.
    """

    def __init__(
        self, space: Space, designs: Sequence[Design], values: Float[np.ndarray, " n"], *, seed: int = 0
    ) -> None:
        self.values: Float[np.ndarray, " n"] = np.asarray(values, dtype=np.float64)
        if self.values.shape != (len(designs),):
            raise ValueError(f"values must have the shape ({len(designs)},), got {self.values.shape}")
        if len(designs) < FEWEST:
            raise ValueError(f"a model needs at least {FEWEST} results, got {len(designs)}")
        if not np.isfinite(self.values).all():
            raise ValueError(f"values must be finite, got {self.values[~np.isfinite(self.values)][0]}")
        if np.ptp(self.values) == 0:
            raise ValueError(f"values must vary, got {self.values[0]} everywhere")
        self._space, self._seed = space, seed
        encoded = space.encode(designs)
        if len(encoded.rows) and not (encoded.rows != encoded.rows[:1]).any():
            raise ValueError("designs must differ in a parameter")
        self._fitted = fit_rows(encoded, encoded.rows, self.values, seed)
        loo = self._fitted.loo
        self.left_out: Float[np.ndarray, " n"] = loo.mean
        self.left_out_std: Float[np.ndarray, " n"] = np.sqrt(loo.variance)

    @property
    def explained(self) -> float:
        """Share of the variance of the values that the left-out predictions explain, at most 1."""
        residual = float(((self.values - self.left_out) ** 2).mean())
        return 1.0 - residual / float(self.values.var())

    def coverage(self, deviations: float) -> float:
        """Share of the values within so many standard deviations of their left-out predictions."""
        return float((np.abs(self.values - self.left_out) <= deviations * self.left_out_std).mean())

    def predict(self, designs: Sequence[Design]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Mean and standard deviation of a measurement of each design, (n,) each."""
        mean, std = self._fitted.predict(self._space.encode(designs).rows)
        return mean, std

    def effects(self) -> dict[str, float]:
        """Total effect of each searched parameter: the share of the predicted variance it is part of.

        Over designs drawn uniformly, constraints aside: half the mean square by which the prediction
        changes when the parameter alone is drawn again [Jansen99]_, over the variance. Where parameters
        act together the shares add up to more than 1 [Saltelli10]_.
        """
        return _effects(self._space, lambda designs: self.predict(designs)[0], self._seed)

    def along(self, design: Design, name: str, points: int = 25) -> list[Design]:
        """Designs that differ from one in a parameter alone, over its whole range, at most so many.

        What becomes active takes its default. Constraints are not asked.
        """
        position = self._space.names.index(name)
        return [
            varied(self._space, design, {position: value})
            for value in values_of(self._space.parameters[position], points)
        ]


class Feasibility:
    """Where designs can be evaluated at all, learnt from those that were and those that failed.

    Parameters
    ----------
    feasible : (n,)
        Which of the designs were evaluated.
    seed
        Equal seeds and trials give equal effects.

    Raises
    ------
    ValueError
        Fewer than 5 designs, none that failed, or parameters that do not vary.
    """

    def __init__(
        self, space: Space, designs: Sequence[Design], feasible: Bool[np.ndarray, " n"], *, seed: int = 0
    ) -> None:
        from dse._bayes.feasibility import FeasibilityModel
        from dse._bayes.models import Columns

        if len(designs) != len(feasible):
            raise ValueError(f"feasible must have the shape ({len(designs)},), got {np.shape(feasible)}")
        if len(designs) < FEWEST:
            raise ValueError(f"a model needs at least {FEWEST} trials, got {len(designs)}")
        if np.all(feasible):
            raise ValueError("a model of what fails needs a design that failed, got none")
        encoded = space.encode(designs)
        if not (encoded.rows != encoded.rows[:1]).any():
            raise ValueError("designs must differ in a parameter")
        columns = Columns((*encoded.numeric, *encoded.features), tuple(encoded.categorical))
        self._space, self._seed = space, seed
        with one_thread():
            self._fitted = FeasibilityModel(encoded.rows, np.asarray(feasible, dtype=bool), columns)

    def probability(self, designs: Sequence[Design]) -> Float[np.ndarray, " n"]:
        """Probability that each design can be evaluated, (n,)."""
        with one_thread():
            found: Float[np.ndarray, " n"] = np.exp(
                self._fitted.log_probability(self._space.encode(designs).rows)
            )
        return found

    def effects(self) -> dict[str, float]:
        """Total effect of each searched parameter on the probability, see `Model.effects`."""
        return _effects(self._space, self.probability, self._seed)


def values_of(parameter: Parameter, points: int) -> list[Value]:
    """All values of a parameter, or at most so many over its whole range."""
    if parameter.size is not None and parameter.size <= points:
        return list(parameter.values())
    units = np.repeat((np.arange(points) + 0.5)[:, None] / points, parameter.width, axis=1)
    return list(dict.fromkeys(parameter.from_unit(units)))


def varied(space: Space, design: Design, values: Mapping[int, Value]) -> Design:
    """Design with other values at some positions; what becomes active takes its default."""
    moved = [values.get(position, value) for position, value in enumerate(design)]
    for position, child in enumerate(space.parameters):
        if child.active_if is not None and moved[position] is None:
            moved[position] = child.default
    return Space(space.parameters).complete(moved, np.random.default_rng(0))


def _effects(
    space: Space, mean_of: Callable[[Sequence[Design]], Float[np.ndarray, " n"]], seed: int
) -> dict[str, float]:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
    free = Space(space.parameters)
    base = list(islice(free.sequence(rng, sobol=False), _SAMPLES))
    mean = mean_of(base)
    variance = float(mean.var())
    effects = {}
    for position, parameter in enumerate(free.parameters):
        if parameter.size == 1:
            continue
        drawn = parameter.from_unit(rng.random((len(base), parameter.width)))
        changed = [
            design
            if design[position] is None and parameter.active_if is not None
            else free.complete((*design[:position], value, *design[position + 1 :]), rng)
            for design, value in zip(base, drawn, strict=True)
        ]
        half = 0.5 * float(((mean_of(changed) - mean) ** 2).mean())
        effects[parameter.name] = half / variance if variance > 0 else 0.0
    return effects


def fit_rows(
    encoded: Encoded, rows: Float[np.ndarray, "n c"], values: Float[np.ndarray, " n"], seed: int
) -> Any:
    """Fit a committee to rows whose columns are those of `encoded`, on one thread."""
    from dse._bayes.columns import Columns
    from dse._bayes.committee import fit_committee

    columns = Columns(encoded.numeric, encoded.categorical, encoded.features)
    with one_thread():
        return fit_committee(rows, values, columns, seed)
