"""The tree-structured Parzen estimator of Optuna, an optional extra.

References
----------
.. [Bergstra11] J. Bergstra, R. Bardenet, Y. Bengio, B. Kegl, "Algorithms for Hyper-Parameter Optimization",
   NeurIPS 2011.
.. [Ozaki22] Y. Ozaki, Y. Tanigaki, S. Watanabe, M. Nomura, M. Onishi, "Multiobjective Tree-Structured Parzen
   Estimator", Journal of Artificial Intelligence Research 73, 2022.
.. [Watanabe23] S. Watanabe, F. Hutter, "c-TPE: Tree-structured Parzen Estimator with Inequality Constraints
   for Expensive Hyperparameter Optimization", arXiv 2211.14411.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from dse.methods.mixed import Gene, Number
from dse.methods.population import PopulationSearch, Wish
from dse.space import Design, Space

_ASKED = 15  # wishes per design, after which neighbours of the best are searched for a legal, new one


class TreeParzenSearch(PopulationSearch):
    """Multivariate TPE. The study is rebuilt from the history before every proposal."""

    need = "TPE needs"

    def __init__(self, space: Space, *problem: Any, **options: Any) -> None:
        import optuna  # noqa: F401  asked for now, so that a missing one is reported before the campaign

        super().__init__(space, *problem, **options)
        self._conditional = any(parameter.active_if is not None for parameter in space.parameters)

    def _found(self, wish: Wish) -> list[Design]:
        """What Optuna would try next."""
        found: list[Design] = []
        with _quiet():
            study = self._study(int(wish.rng.integers(2**31)))
            told = self._constrained or wish.violations.any()
            evaluated = zip(wish.designs, wish.costs.tolist(), wish.violations.tolist(), strict=True)
            for design, values, violation in evaluated:
                self._add(study, design, values=values, constraints={"feasible": violation} if told else {})
            for design in wish.history.pending:
                self._add(study, design)
            for _ in range(_ASKED * wish.n):
                if len(found) == wish.n:
                    break
                wished = self._genome.design(partial(_suggest, study.ask()))
                if (design_or_none := self._repair(wished, wish.taken, wish.rng)) is not None:
                    found.append(design_or_none)
                    wish.taken.add(design_or_none)
        return found

    def _study(self, seed: int) -> Any:
        import optuna

        sampler = optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=self._conditional, n_startup_trials=0
        )
        return optuna.create_study(sampler=sampler, directions=["minimize"] * self._objectives)

    def _add(
        self,
        study: Any,
        design: Design,
        values: list[float] | None = None,
        constraints: dict[str, float] | None = None,
    ) -> None:
        from optuna.trial import TrialState, create_trial

        numbers = self._genome.numbers(design)
        study.add_trial(
            create_trial(
                state=TrialState.RUNNING if values is None else TrialState.COMPLETE,
                values=values,
                params={gene.name: number for gene, number in numbers.items()},
                distributions={gene.name: _distribution(gene) for gene in numbers},
                constraints=constraints,
            )
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's lines on every trial, and its warnings of multivariate TPE being experimental."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _distribution(gene: Gene) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if gene.kind == "unit":
        return FloatDistribution(0.0, 1.0)
    if gene.kind == "rank":
        return IntDistribution(0, gene.size - 1)
    return CategoricalDistribution(range(gene.size))


def _suggest(trial: Any, gene: Gene) -> Number:
    """Number of a trial; those of inactive parameters are never suggested."""
    if gene.kind == "unit":
        return float(trial.suggest_float(gene.name, 0.0, 1.0))
    if gene.kind == "rank":
        return int(trial.suggest_int(gene.name, 0, gene.size - 1))
    return int(trial.suggest_categorical(gene.name, range(gene.size)))
