"""Optuna's GPSampler behind the ask and tell of a campaign: a peer to compare with, not a method of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

import dse
from dse.history import History
from dse.methods import Method
from dse.methods.tpe import TreeParzenSearch
from dse.space import Design


class GaussianProcessSearch(TreeParzenSearch):
    """The study of `TreeParzenSearch` with another sampler; wishes go to the nearest new row as there."""

    def _study(self, seed: int) -> Any:
        import optuna

        sampler = optuna.samplers.GPSampler(seed=seed, n_startup_trials=0, deterministic_objective=False)
        return optuna.create_study(sampler=sampler, directions=["minimize"] * self._objectives)


@dataclass(eq=False)
class _Asked:
    id: int
    parameters: dict[str, Any]


@dataclass(eq=False)
class PeerCampaign:
    """As much of a campaign as the benchmark needs, around a method that `dse.Campaign` does not know."""

    space: dse.Space
    objectives: Sequence[dse.Objective]
    method: Method
    _done: list[Design] = field(default_factory=list)
    _costs: list[list[float]] = field(default_factory=list)
    _failed: list[Design] = field(default_factory=list)

    def attach(self, frame: pd.DataFrame) -> None:
        """Take over measured rows; those without objectives failed."""
        for row in frame.to_dict("records"):
            values = {each.name: row[each.name] for each in self.objectives}
            design = self.space.design({name: row[name] for name in self.space.names})
            if any(np.isnan(value) for value in values.values()):
                self._failed.append(design)
            else:
                self._keep(design, values)

    def ask(self, n: int) -> list[_Asked]:
        """Up to `n` new designs."""
        asked = [*self._done, *self._failed]
        costs = np.array(self._costs).reshape(len(self._done), len(self.objectives))
        empty = np.empty((len(self._done), 0))
        history = History(self._done, costs, empty, self._failed, (), asked, np.full(len(self._done), np.nan))
        designs = self.method.propose(len(asked), history, n).designs
        return [_Asked(len(asked) + i, self.space.parameters_of(d)) for i, d in enumerate(designs)]

    def tell(self, trial: _Asked, values: Mapping[str, float]) -> None:
        """Record a result."""
        self._keep(self.space.design(trial.parameters), values)

    def fail(self, trial: _Asked, reason: str) -> None:  # noqa: ARG002  as a campaign's
        """Record that a design has no result."""
        self._failed.append(self.space.design(trial.parameters))

    def _keep(self, design: Design, values: Mapping[str, float]) -> None:
        self._done.append(design)
        self._costs.append([float(o.cost(np.array([values[o.name]]))[0]) for o in self.objectives])
