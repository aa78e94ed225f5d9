"""Prediction from few evaluations: a model of a quantity everywhere in a space, with or without sources.

The active-learning job is a campaign with the method ``"predict"``; here is its model, which campaigns
that search have as well. Everything is on the scale that the model is fitted on: take logarithms of what
spans orders of magnitude.

References
----------
.. [Ghaffari23] A. Ghaffari, M. Asgharian, Y. Savaria, "Statistical Hardware Design with Multi-model Active
   Learning", arXiv 2303.08054: several models, active and transfer learning for design-space exploration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from dse.features import Features, Scale
from dse.objective import Objective
from dse.space import Design, Space
from dse.transfer import Scale as CostScale
from dse.transfer import Source, tasks

if TYPE_CHECKING:
    from dse._bayes.columns import Columns
    from dse._bayes.surrogates import Fitted
    from dse._bayes.transfer import SourceModel, Transferred

FEWEST = 5  #: results from which a model is fitted
_LARGEST = 1e150  # the square of which is still a number


class PredictionError(ValueError):
    """No model can be fitted to the results."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """A fitted model of one objective.

    Attributes
    ----------
    fitted
        Its model. Leave-one-out quality on results that active learning chose is biased, mostly towards
        pessimism.
    encode
        From designs to the rows that the model reads.
    """

    space: Space
    fitted: Transferred
    encode: Callable[[Sequence[Design]], Float[np.ndarray, "n c"]]

    @property
    def rmse(self) -> float:
        """Leave-one-out root mean squared error."""
        return self.fitted.loo.rmse

    @property
    def log_density(self) -> float:
        """Leave-one-out log density, the mean per result."""
        return self.fitted.loo.log_density

    @property
    def weights(self) -> Mapping[str, float]:
        """Weights of the committee's members, by name."""
        return self.fitted.report.weights

    @property
    def report(self) -> tuple[str, ...]:
        """Weights of the models, and what was transferred, line by line."""
        weights = ", ".join(f"{name} {weight:.2f}" for name, weight in self.weights.items() if weight)
        return (f"models: {weights}", *self.fitted.report.lines())

    def predict(self, designs: Sequence[Design]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Mean and standard deviation of a measurement of each design, (n,) each."""
        return self.fitted.predict(self.encode(designs))


class Predictor:
    """Fits objectives of a space, with the sources fitted once.

    Parameters
    ----------
    space
        Where the designs come from.
    objectives
        Learnt ones.
    transfer
        Sources, data frames or campaigns.
    seed
        Equal seeds and results give equal models.
    scale
        Applied to the costs of a source, (n,), where those given to `fit` are on another scale than
        the objective's.

    Raises
    ------
    ValueError
        A source has no parameter in common with the space, or none of the objectives.
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        *,
        transfer: Sequence[object] = (),
        seed: int = 0,
        scale: CostScale | None = None,
    ) -> None:
        self.space, self.objectives, self._seed, self._scale = space, tuple(objectives), seed, scale
        self.sources = [Source.of(given, f"source {i + 1}") for i, given in enumerate(transfer)]
        names = [objective.name for objective in self.objectives]
        for source in self.sources:
            source.shared(space)
            if not any(name in source.frame.columns for name in names):
                raise ValueError(f"transfer {source.name} has none of the objectives {', '.join(names)}")
        self._models: dict[str, tuple[SourceModel, ...]] = {}
        self._features = Features(space, self.objectives, seed)
        self._places = {objective.name: j for j, objective in enumerate(self.objectives)}

    def fit(
        self, objective: Objective, designs: Sequence[Design], costs: Float[np.ndarray, " n"]
    ) -> Prediction:
        """Model of an objective from the results of designs.

        Raises
        ------
        PredictionError
            Fewer than 5 results, costs that are constant or not finite, or designs that are all equal.
        """
        from dse._bayes.transfer import fit_transfer

        costs = np.asarray(costs, dtype=np.float64)
        if costs.shape != (len(designs),):
            raise PredictionError(f"costs of {objective.name} must be ({len(designs)},), got {costs.shape}")
        if len(designs) < FEWEST:
            raise PredictionError(f"a model of {objective.name} needs {FEWEST} results, got {len(designs)}")
        if not np.isfinite(costs).all():
            raise PredictionError(f"costs of {objective.name} must be finite")
        if np.abs(costs).max() > _LARGEST:
            raise PredictionError(
                f"costs of {objective.name} must be at most {_LARGEST:g} for a model, got "
                f"{np.abs(costs).max():g}; transform='log' has no such limit"
            )
        if np.ptp(costs) == 0:
            raise PredictionError(f"costs of {objective.name} must vary, got {costs[0]:g} everywhere")
        encode = partial(self._rows, self._features.scale(designs))
        rows = encode(designs)
        if not (rows != rows[:1]).any():
            raise PredictionError("designs must differ in a parameter")
        sources = self._sources(objective)
        way = "auto" if sources else "none"
        columns = self._columns(objective)
        fitted = fit_transfer(rows, costs, columns, sources, self._seed, way=way)  # type: ignore[arg-type]
        return Prediction(self.space, fitted, encode)

    def _rows(self, scale: Scale, designs: Sequence[Design]) -> Float[np.ndarray, "n c"]:
        """Encoding of designs, then the features of all objectives, (n, c)."""
        encoded = self.space.encode(designs)
        rows = encoded.rows.reshape(len(designs), len(encoded.names))
        return np.column_stack([rows, scale(self._features.values(designs))])

    def choose(
        self,
        predictions: Sequence[Prediction],
        candidates: Sequence[Design],
        n: int,
        *,
        pending: Sequence[Design] = (),
        seed: int = 0,
    ) -> tuple[Design, ...]:
        """Candidates whose measurement leaves the least variance over all, summed over objectives, (n,)."""
        from dse._bayes.active import choose

        if not predictions:
            raise ValueError("predictions must be at least one, got none")
        rows = predictions[0].encode([*candidates, *pending])
        models: list[Fitted] = [prediction.fitted for prediction in predictions]
        count = len(candidates)
        picked = choose(models, rows[:count], n, pending=rows[count:], seed=seed)
        return tuple(candidates[index] for index in picked.tolist())

    def _columns(self, objective: Objective) -> Columns:
        from dse._bayes.columns import Columns

        encoded = self.space.encode([])
        own = self._features.columns(self._places.get(objective.name, -1), len(encoded.names))
        return Columns(encoded.numeric, encoded.categorical, (*encoded.features, *own))

    def _sources(self, objective: Objective) -> tuple[SourceModel, ...]:
        from dse._bayes.transfer import fit_sources

        if objective.name not in self._models:
            found = tasks(self.sources, self.space, objective, scale=self._scale)
            # Features are computed for designs of this space; of a source's, they are not known.
            width = self._features.values([]).shape[1]
            padded = [
                replace(t, rows=np.column_stack([t.rows, np.full((len(t.rows), width), np.nan)]))
                for t in found
            ]
            columns = self._columns(objective)
            self._models[objective.name] = fit_sources(padded, columns, self._seed)
        return self._models[objective.name]
