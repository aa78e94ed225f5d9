"""The accuracy of a network under any numerics, predicted before it is trained.

A first guess follows from what numerics do to a task (`studies.accuracy.features`) by thresholds that all
tasks share (`studies.accuracy.survival`). What the guess gets wrong is a Gaussian process over the features,
next to the numerics themselves and the fidelity of a run. All tasks share most of it; each departs from it in
its own way, by as much as the known ones do. So a task of which only the statistics are known can be
predicted, and every run on it helps.

The process learns from guesses that did not know the configuration (`fit_crossed`), and corrects such ones:
otherwise it would believe that a guess is as good for a new one as for those it was fitted to.

Where a configuration was run, by other tasks at least, a second process that reads the raw configuration
alone has its say; `studies.accuracy.stacking` pools both and widens their intervals until left-out runs are
inside: training breaks rather than degrades, so errors have longer tails than a normal distribution.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri
from threadpoolctl import threadpool_limits

from dse.regression import TaskRegression, Term
from studies.accuracy.features import feature_names, features_of
from studies.accuracy.policies import NAMES, NumericsChoice
from studies.accuracy.scale import kept_of, kept_share, modelled, moments, twin_accuracy
from studies.accuracy.stacking import Opinions, stacking_weights, widening
from studies.accuracy.statistics import TaskStatistics, known
from studies.accuracy.survival import FOLDS, MODES, CrossedSurvival, fit_crossed, fit_survival

if TYPE_CHECKING:
    import pandas as pd

Policies: TypeAlias = Sequence[Mapping[str, Any] | NumericsChoice]
Inputs: TypeAlias = Literal["features", "configuration"]

#: Features that the process compares: one number for each way in which training fails.
COMPARED = tuple(mode.feature for mode in MODES)
_FIDELITY = "log2_fidelity"
_LEVEL = 0.9  # of the interval that is made to hold as many of the runs that it was not fitted to
_ENOUGH = 90  # measurements of a task that say as much of its intervals as all other tasks do
_FEWEST = 5  # runs from which a model is fitted


class AccuracyModel:
    """Predicts the accuracy of a task under a choice of numerics.

    Parameters
    ----------
    statistics
        Of the tasks by name; by default those that come with the package.
    inputs
        ``"features"``, or ``"configuration"``: the parameters and the fidelity only, to compare with.
    seed
        Equal seeds and runs give equal models.

    Examples
    --------
    >>> from studies.accuracy.runs import read_runs
    >>> runs = read_runs()
    >>> some = runs[(runs["task"] == "digits-mlp") & (runs["fidelity"] == 1.0)].iloc[:24]
    >>> model = AccuracyModel().fit(some)
    >>> mean, deviation = model.predict("digits-cnn", [{"forward_frac_bits": 7}, {"update_frac_bits": 3}])
    >>> mean.shape, deviation.shape
    ((2,), (2,))
    """

    def __init__(
        self,
        statistics: Mapping[str, TaskStatistics] | None = None,
        *,
        inputs: Inputs = "features",
        seed: int = 0,
    ) -> None:
        if inputs not in get_args(Inputs):
            raise ValueError(f"inputs must be one of {', '.join(get_args(Inputs))}, got {inputs!r}")
        self.statistics = dict(known() if statistics is None else statistics)
        self.inputs = inputs
        self._experts = [TaskRegression(terms, seed=seed) for terms in _terms(inputs)]
        self._weights: dict[bool, Float[np.ndarray, " e"]] = {}
        self._survival: CrossedSurvival | None = None
        self._choices: frozenset[NumericsChoice] = frozenset()
        self._widenings: dict[tuple[str | None, bool], float] = {}

    def fit(self, runs: pd.DataFrame, *, like: AccuracyModel | None = None) -> Self:
        """Learn from runs, in place.

        Parameters
        ----------
        runs
            With the columns ``task``, ``fidelity``, ``test_accuracy`` (NaN: it diverged) and the parameters
            of `studies.accuracy.policies`; others are ignored. Rows without parameters, of the float32 twin,
            are left out.
        like
            A fitted model whose hyper-parameters, weights and widths of intervals are kept, which takes a
            fraction of the time; thresholds are fitted anew. Another task than its own has the widths that
            it gives a task without runs.

        Raises
        ------
        ValueError
            No runs, too few of them, a column that is missing, or a task without statistics.
        """
        wanted = ["task", "fidelity", "test_accuracy", *NAMES]
        if missing := [name for name in wanted if name not in runs.columns]:
            raise ValueError(f"runs must have a column {missing[0]}, got {', '.join(map(str, runs.columns))}")
        runs = runs.dropna(subset=["forward_exp_bits"])
        if len(runs) < _FEWEST:
            raise ValueError(f"the accuracy model needs at least {_FEWEST} runs, got {len(runs)}")
        # More threads make sums of some hundred runs many times slower.
        with threadpool_limits(limits=1):
            return self._fit(runs, like)

    def _fit(self, runs: pd.DataFrame, like: AccuracyModel | None) -> Self:
        tasks = [str(task) for task in runs["task"]]
        choices = [NumericsChoice.of(row) for row in runs[list(NAMES)].to_dict("records")]  # type: ignore[arg-type]
        fidelity = runs["fidelity"].to_numpy(dtype=np.float64)
        accuracy = runs["test_accuracy"].to_numpy(dtype=np.float64)
        targets = np.empty(len(runs))
        for task in dict.fromkeys(tasks):
            rows = np.array([one == task for one in tasks])
            targets[rows] = kept_share(self._of(task), accuracy[rows], fidelity[rows])
        columns, z = self._columns(tasks, choices, fidelity), modelled(targets)
        guesses = np.zeros((len(self._experts), len(z)))
        if self.inputs == "features":
            start = None if like is None or like._survival is None else like._survival.whole
            self._survival = fit_crossed(columns, z, choices, start=start)
            guesses = self._guesses(columns, choices)
        old = [None] * len(self._experts) if like is None else like._experts
        self._experts = [
            expert.fit(columns, tasks, z - guess, hyperparameters_of=before)
            for expert, guess, before in zip(self._experts, guesses, old, strict=True)
        ]
        self._choices = frozenset(choices)
        if like is None:
            self._calibrate(columns, tasks, choices, z)
        else:
            self._weights, self._widenings = like._weights, like._widenings
        return self

    def _guesses(
        self, columns: Mapping[str, Float[np.ndarray, " n"]], choices: Sequence[NumericsChoice]
    ) -> Float[np.ndarray, "e n"]:
        """What each expert corrects: the first that of the thresholds, a raw process nothing."""
        guesses = np.zeros((len(self._experts), len(choices)))
        if self._survival is not None:
            guesses[0] = self._survival.predict(columns, choices)
        return guesses

    def _calibrate(
        self,
        columns: Mapping[str, Float[np.ndarray, " n"]],
        tasks: Sequence[str],
        choices: Sequence[NumericsChoice],
        z: Float[np.ndarray, " n"],
    ) -> None:
        """Weights of the experts and widths of intervals, from runs that are left out."""
        names = np.array(tasks)
        shift = np.zeros((len(self._experts), len(z)))
        numbers = {choice: index % FOLDS for index, choice in enumerate(dict.fromkeys(choices))}
        folds = [numbers[choice] for choice in choices]
        if self._survival is not None:
            for task in dict.fromkeys(tasks):
                mine = names == task
                some, own = (
                    {name: values[rows] for name, values in columns.items()} for rows in (~mine, mine)
                )
                without = fit_survival(some, z[~mine], start=self._survival.whole)
                # Thresholds that did not know the task would have guessed this much less.
                shift[0, mine] = self._survival.whole.predict(own) - without.predict(own)
        of_choice = self._left_out(choices)
        of_task, of_both = self._left_out(tasks, shift=shift), self._left_out(tasks, folds, shift=shift)
        # Where no task has run the configuration, a raw process has nothing to say that features do not.
        alone = np.eye(len(self._experts))[0]
        self._weights = {True: stacking_weights([of_choice, of_task, of_both]), False: alone}
        own, seen, new = (
            np.divide(*opinions.pooled(self._weights[is_known]))
            for opinions, is_known in ((of_choice, False), (of_task, True), (of_both, False))
        )
        known_tasks = list(dict.fromkeys(tasks))
        self._widenings = {
            (task, is_known): widening(
                own[names == task],
                [scores[names == other] for other in known_tasks if other != task],
                level=_LEVEL,
                enough=_ENOUGH,
            )
            for task in (*known_tasks, None)
            for is_known, scores in ((True, seen), (False, new))
        }

    def _left_out(self, *groups: Sequence[Any], shift: Float[np.ndarray, "e n"] | float = 0.0) -> Opinions:
        """What the experts miss of runs that they do not know."""
        found = np.array([expert.left_out(*groups) for expert in self._experts])
        return Opinions(found[:, 0] + shift, found[:, 1])

    def predict(
        self, task: str, policies: Policies, *, fidelity: float = 1.0
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Mean and standard deviation of the test accuracy of a run, (n,) each, as shares.

        Parameters
        ----------
        task
            Any that has statistics; no run of it is needed.
        policies
            Parameters of the numerics.
        fidelity
            Share of the steps of a whole run, in (0, 1].

        Raises
        ------
        ValueError
            The model is not fitted, there are no statistics of the task, or a fidelity out of its range.
        """
        mean, sure, wide = self._scaled(task, policies, fidelity)
        kept, _ = moments(mean, sure)
        _, deviation = moments(mean, wide)
        low, width = self._range(task, fidelity)
        return low + width * kept, width * deviation

    def interval(
        self, task: str, policies: Policies, *, level: float = 0.9, fidelity: float = 1.0
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Ends of the central interval that holds the accuracy of a run with probability `level`, (n,) each.

        Unlike a mean with a deviation it knows that no run keeps less than nothing or more than all.
        """
        if not 0.0 < level < 1.0:
            raise ValueError(f"level must be between 0 and 1, got {level}")
        mean, _, wide = self._scaled(task, policies, fidelity)
        reach = float(ndtri(0.5 + 0.5 * level)) * wide
        low, width = self._range(task, fidelity)
        return low + width * kept_of(mean - reach), low + width * kept_of(mean + reach)

    def _scaled(
        self, task: str, policies: Policies, fidelity: float
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Mean of a run on the scale of the model, its standard deviation, and that deviation widened.

        Widths of intervals are no reason to expect something else of a run.
        """
        if not 0.0 < fidelity <= 1.0:
            raise ValueError(f"fidelity must be in (0, 1], got {fidelity}")
        choices = [one if isinstance(one, NumericsChoice) else NumericsChoice.of(one) for one in policies]
        tasks = [task] * len(choices)
        columns = self._columns(tasks, choices, np.full(len(choices), fidelity))
        found = [expert.predict(columns, tasks) for expert in self._experts]
        means = np.array([mean for mean, _ in found]) + self._guesses(columns, choices)
        deviations = np.array(
            [
                np.hypot(deviation, expert.noise)
                for (_, deviation), expert in zip(found, self._experts, strict=True)
            ]
        )
        opinions = Opinions(means, deviations)
        group = task if (task, True) in self._widenings else None
        is_known = np.array([choice in self._choices for choice in choices])
        mean, deviation, wider = (np.empty(len(choices)) for _ in range(3))
        for kind, weights in self._weights.items():
            rows = is_known == kind
            one, other = opinions.pooled(weights)
            mean[rows] = one[rows]
            deviation[rows], wider[rows] = other[rows], self._widenings[group, kind]
        return mean, deviation, wider * deviation

    def _columns(
        self, tasks: Iterable[str], choices: Sequence[NumericsChoice], fidelity: Float[np.ndarray, " n"]
    ) -> dict[str, Float[np.ndarray, " n"]]:
        raw = [configuration(choice) for choice in choices]
        columns = {name: np.array([row[name] for row in raw]) for name in NAMES}
        columns[_FIDELITY] = np.log2(fidelity)
        if self.inputs == "features":
            rows = [features_of(self._of(task), choice) for task, choice in zip(tasks, choices, strict=True)]
            columns |= {name: np.array([row[name] for row in rows]) for name in feature_names()}
        return columns

    def _of(self, task: str) -> TaskStatistics:
        if task not in self.statistics:
            raise ValueError(f"task must be one of {', '.join(self.statistics)}, got {task!r}")
        return self.statistics[task]

    def _range(self, task: str, fidelity: float) -> tuple[float, float]:
        """Accuracy of guessing, and what the twin has above it."""
        statistics = self._of(task)
        twin = float(twin_accuracy(statistics, np.array([fidelity]))[0])
        return statistics.guess_accuracy, twin - statistics.guess_accuracy


def configuration(choice: NumericsChoice) -> dict[str, float]:
    """A choice as numbers: chunk and loss scale as logarithms, stochastic rounding as 1."""
    values = choice.parameters
    return {
        **{name: float(values[name]) for name in NAMES if name.endswith("_bits")},
        "chunk": float(np.log2(1.0 + values["chunk"])),
        "update_rounding": float(values["update_rounding"] == "stochastic"),
        "loss_scale": float(np.log2(values["loss_scale"])),
    }


def _terms(inputs: Inputs) -> list[list[Term]]:
    """Of each expert."""
    raw = (*NAMES, _FIDELITY)
    offset = Term(columns=(), own=True, variance=0.1)
    of_configuration = [Term(columns=raw), Term(columns=raw, own=True, variance=0.3), offset]
    if inputs == "configuration":
        return [of_configuration]
    compared = (*COMPARED, _FIDELITY)
    of_features = [
        Term(columns=compared),
        Term(columns=raw, variance=0.2),
        Term(columns=raw, variance=0.3, lengthscale=0.3),  # what no feature says of a configuration
        Term(columns=compared, own=True, variance=0.2),
        offset,
    ]
    return [of_features, of_configuration]
