"""NSGA-II, the usual evolutionary search, from pymoo.

In the steady-state form: the population is what survives of all evaluations so far, by rank and crowding,
and every proposal is a child of it. So it depends on the history alone, and goes on after an interruption
or with many evaluations at once as if nothing had been.

References
----------
.. [Deb02] K. Deb, A. Pratap, S. Agarwal, T. Meyarivan, "A Fast and Elitist Multiobjective Genetic Algorithm:
   NSGA-II", IEEE Transactions on Evolutionary Computation 6(2), 2002.
.. [Durillo09] J. J. Durillo, A. J. Nebro, F. Luna, E. Alba, "On the Effect of the Steady-State Selection
   Scheme in Multi-Objective Genetic Algorithms", EMO 2009.
.. [Blank20] J. Blank, K. Deb, "pymoo: Multi-Objective Optimization in Python", arXiv 2002.04504.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from dse.methods.mixed import Gene, Number
from dse.methods.population import PopulationSearch, Wish
from dse.space import Design

_POPULATION = 20
_ROUNDS = 5  # generations of children before a search for a new one is given up


class EvolutionarySearch(PopulationSearch):
    """NSGA-II [Deb02]_ with one population, replaced one by one [Durillo09]_."""

    need = "parents need"

    def __init__(self, *problem: Any, **options: Any) -> None:
        import pymoo  # noqa: F401  asked for now, so that a missing one is reported before the campaign

        super().__init__(*problem, **options)

    def _found(self, wish: Wish) -> list[Design]:
        """Children of the best so far."""
        found: list[Design] = []
        for children in self._children(wish.designs, wish.costs, wish.violations, wish.n, wish.rng):
            for wished in children:
                if len(found) < wish.n and (child := self._repair(wished, wish.taken, wish.rng)) is not None:
                    found.append(child)
                    wish.taken.add(child)
            if len(found) == wish.n:
                break
        return found

    def _children(
        self,
        designs: list[Design],
        costs: Float[np.ndarray, "n m"],
        violations: Float[np.ndarray, " n"],
        n: int,
        rng: np.random.Generator,
    ) -> Iterator[list[Design]]:
        """Some generations of children, as designs that may be infeasible or old."""
        from pymoo.algorithms.moo.nsga2 import NSGA2, binary_tournament
        from pymoo.core.mixed import MixedVariableDuplicateElimination, MixedVariableMating
        from pymoo.core.population import Population
        from pymoo.core.problem import Problem
        from pymoo.operators.selection.tournament import TournamentSelection
        from pymoo.operators.survival.rank_and_crowding import RankAndCrowding

        problem = Problem(
            vars={gene.name: _variable(gene) for gene in self._genome.genes},
            n_obj=self._objectives,
            n_ieq_constr=1,
        )
        # An inactive parameter has no number: it takes one at random, from which its child may start.
        people = Population.new(
            X=[self._complete(design, rng) for design in designs], F=costs, G=violations[:, None]
        )
        for person in people:
            person.evaluated = {"F", "G"}
        people = RankAndCrowding().do(
            problem, people, n_survive=min(_POPULATION, len(people)), random_state=rng
        )
        algorithm = NSGA2(
            pop_size=len(people),
            n_offsprings=max(2 * n, _POPULATION),
            sampling=people,
            mating=MixedVariableMating(
                selection=TournamentSelection(func_comp=binary_tournament),
                eliminate_duplicates=MixedVariableDuplicateElimination(),
                n_max_iterations=_ROUNDS,
            ),
            eliminate_duplicates=MixedVariableDuplicateElimination(),
        )
        algorithm.setup(problem, seed=int(rng.integers(2**31)))
        algorithm.tell(infills=algorithm.ask())
        for _ in range(_ROUNDS):
            children = algorithm.ask()
            if children is None or len(children) == 0:
                return
            yield [self._genome.design(partial(_number, child.X)) for child in children]

    def _complete(self, design: Design, rng: np.random.Generator) -> dict[str, Any]:
        numbers = self._genome.numbers(design)
        return {
            gene.name: numbers[gene] if gene in numbers else _random_number(gene, rng)
            for gene in self._genome.genes
        }


def _number(numbers: Mapping[str, Number], gene: Gene) -> Number:
    return numbers[gene.name]


def _random_number(gene: Gene, rng: np.random.Generator) -> float:
    return rng.random() if gene.kind == "unit" else int(rng.integers(gene.size))


def _variable(gene: Gene) -> Any:
    from pymoo.core.variable import Choice, Integer, Real

    if gene.kind == "unit":
        return Real(bounds=(0.0, 1.0))
    if gene.kind == "rank":
        return Integer(bounds=(0, gene.size - 1))
    return Choice(options=list(range(gene.size)))
