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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from dse.history import History
from dse.methods.base import Proposal, Start, default_initial, stream
from dse.methods.mixed import Gene, Genome, Number, Repair, ranked
from dse.objective import Objective
from dse.space import Design, Space

_ASKED = 15  # wishes per design, after which neighbours of the best are searched for a legal, new one
_BEST = 20


class TreeParzenSearch:
    """Multivariate TPE. The study is rebuilt from the history before every proposal."""

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        outcome_constraints: Sequence[Any] = (),
        *,
        method: str = "tpe",  # noqa: ARG002
        seed: int,
        initial: int | None = None,
    ) -> None:
        import optuna  # noqa: F401  asked for now, so that a missing one is reported before the campaign

        self._seed = seed
        self._objectives = len(objectives)
        self._constrained = bool(outcome_constraints)
        self._conditional = any(parameter.active_if is not None for parameter in space.parameters)
        self._initial = default_initial(space) if initial is None else initial
        self._start = Start(space, seed=seed, sobol=True)
        self._genome = Genome(space)
        self._repair = Repair(space)

    def propose(self, number: int, history: History, n: int) -> Proposal:
        """What Optuna would try next; the Sobol sequence until there are enough evaluations."""
        if len(history.asked) < self._initial:
            return Proposal(self._start.next(history, n))
        designs, costs, violations = ranked(history)
        if len(designs) < 2 or not self._genome.genes:
            note = f"Sobol design: TPE needs 2 evaluations, got {len(designs)}"
            return Proposal(self._start.next(history, n), (note,) if self._genome.genes else ())
        rng = stream(self._seed, 1, number)
        taken = set(history.asked)
        found: list[Design] = []
        with _quiet():
            study = self._study(int(rng.integers(2**31)))
            told = self._constrained or violations.any()
            for design, values, violation in zip(designs, costs.tolist(), violations.tolist(), strict=True):
                self._add(study, design, values=values, constraints={"feasible": violation} if told else {})
            for design in history.pending:
                self._add(study, design)
            for _ in range(_ASKED * n):
                if len(found) == n:
                    return Proposal(tuple(found))
                trial = study.ask()
                wish = self._genome.design(partial(_suggest, trial))
                if (design_or_none := self._repair(wish, taken, rng)) is not None:
                    found.append(design_or_none)
                    taken.add(design_or_none)
        if len(found) < n:
            order = np.lexsort((costs.sum(axis=1), violations))[:_BEST]
            found += self._repair.neighbours([designs[i] for i in order], taken, rng, n - len(found))
        return Proposal((*found, *self._start.next(history, n - len(found), without=found)))

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
