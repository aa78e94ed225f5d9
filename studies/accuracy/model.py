"""The accuracy of a network under any numerics, predicted before it is trained.

A first guess follows from what numerics do to a task (`studies.accuracy.features`) by thresholds that all
tasks share (`studies.accuracy.survival`). What the guess gets wrong is a Gaussian process over the features,
next to the numerics themselves and the fidelity of a run. All tasks share most of it; each departs from it in
its own way, by as much as the known ones do. So a task of which only the statistics are known can be
predicted, and every run on it helps.

The process learns from guesses that did not know the configuration (`crossed`): otherwise it would believe
that the guess is as good for a new one as for those it was fitted to. Training breaks rather than degrades,
so errors have longer tails than a normal distribution: deviations are widened until nine of ten runs of a
task, each left out with all others of its configuration, are inside the interval that should hold them. A
task of few runs may be as hard to predict as the hardest one that is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

from dse.regression import TaskRegression, Term
from studies.accuracy.features import feature_names, features_of
from studies.accuracy.policies import NAMES, NumericsChoice
from studies.accuracy.scale import kept_of, kept_share, modelled, moments, twin_accuracy
from studies.accuracy.statistics import TaskStatistics, known
from studies.accuracy.survival import MODES, Survival, crossed, fit_survival

if TYPE_CHECKING:
    import pandas as pd

Policies: TypeAlias = Sequence[Mapping[str, Any] | NumericsChoice]
Inputs: TypeAlias = Literal["features", "configuration"]

#: Features that the process compares: one number for each way in which training fails.
COMPARED = tuple(mode.feature for mode in MODES)
_FIDELITY = "log2_fidelity"
_LEVEL = 0.9  # of the interval that is made to hold as many of the runs that it was not fitted to
_ENOUGH = 30  # measurements that tell how wide the intervals of a task must be
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
        self._regression = TaskRegression(_terms(inputs), seed=seed)
        self._survival: Survival | None = None
        self._inflations: dict[str, float] = {}
        self._guessed: dict[tuple[str, NumericsChoice], float] = {}

    def fit(self, runs: pd.DataFrame, *, like: AccuracyModel | None = None) -> Self:
        """Learn from runs, in place.

        Parameters
        ----------
        runs
            With the columns ``task``, ``fidelity``, ``test_accuracy`` (NaN: it diverged) and the parameters
            of `studies.accuracy.policies`; others are ignored. Rows without parameters, of the float32 twin,
            are left out.
        like
            A fitted model whose hyper-parameters are kept, which takes milliseconds.

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
        tasks = [str(task) for task in runs["task"]]
        choices = [NumericsChoice.of(row) for row in runs[list(NAMES)].to_dict("records")]  # type: ignore[arg-type]
        fidelity = runs["fidelity"].to_numpy(dtype=np.float64)
        accuracy = runs["test_accuracy"].to_numpy(dtype=np.float64)
        targets = np.empty(len(runs))
        for task in dict.fromkeys(tasks):
            rows = np.array([one == task for one in tasks])
            targets[rows] = kept_share(self._of(task), accuracy[rows], fidelity[rows])
        columns, z = self._columns(tasks, choices, fidelity), modelled(targets)
        if self.inputs == "features":
            z = z - self._first_guess(columns, z, list(zip(tasks, choices, strict=True)), like)
        old = None if like is None else like._regression
        self._regression = self._regression.fit(columns, tasks, z, hyperparameters_of=old)
        self._inflations = self._widened(tasks, choices)
        return self

    def _widened(self, tasks: Sequence[str], choices: Sequence[NumericsChoice]) -> dict[str, float]:
        """By how much deviations of each task that has enough runs are to be widened."""
        residuals, deviations = self._regression.left_out(choices)
        off, names = np.abs(residuals / deviations), np.array(tasks)
        usual = float(ndtri(0.5 + 0.5 * _LEVEL))
        return {
            task: max(1.0, float(np.quantile(off[names == task], _LEVEL)) / usual)
            for task in dict.fromkeys(tasks)
            if np.sum(names == task) >= _ENOUGH
        }

    def _first_guess(
        self,
        columns: Mapping[str, Float[np.ndarray, " n"]],
        z: Float[np.ndarray, " n"],
        keys: Sequence[tuple[str, NumericsChoice]],
        like: AccuracyModel | None,
    ) -> Float[np.ndarray, " n"]:
        """What thresholds make of runs that they were not fitted to, (n,); keeps the thresholds."""
        if like is None or like._survival is None:
            self._survival = fit_survival(columns, z)
            guess = crossed(columns, z, [choice for _, choice in keys])
            self._guessed = dict(zip(keys, guess.tolist(), strict=True))
            return guess
        self._survival, self._guessed = like._survival, like._guessed
        guess = self._survival.predict(columns)
        return np.array([self._guessed.get(key, new) for key, new in zip(keys, guess, strict=True)])

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
        kept, deviation = moments(*self._scaled(task, policies, fidelity))
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
        mean, deviation = self._scaled(task, policies, fidelity)
        reach = float(ndtri(0.5 + 0.5 * level)) * deviation
        low, width = self._range(task, fidelity)
        return low + width * kept_of(mean - reach), low + width * kept_of(mean + reach)

    def _scaled(
        self, task: str, policies: Policies, fidelity: float
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Mean and standard deviation of a run on the scale of the model."""
        if not 0.0 < fidelity <= 1.0:
            raise ValueError(f"fidelity must be in (0, 1], got {fidelity}")
        choices = [one if isinstance(one, NumericsChoice) else NumericsChoice.of(one) for one in policies]
        tasks = [task] * len(choices)
        columns = self._columns(tasks, choices, np.full(len(choices), fidelity))
        mean, deviation = self._regression.predict(columns, tasks)
        if self._survival is not None:
            mean = mean + self._survival.predict(columns)
        widest = max(self._inflations.values(), default=1.0)
        return mean, self._inflations.get(task, widest) * np.hypot(deviation, self._regression.noise)

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


def _terms(inputs: Inputs) -> list[Term]:
    raw = (*NAMES, _FIDELITY)
    offset = Term(columns=(), own=True, variance=0.1)
    if inputs == "configuration":
        return [Term(columns=raw), Term(columns=raw, own=True, variance=0.3), offset]
    compared = (*COMPARED, _FIDELITY)
    return [
        Term(columns=compared),
        Term(columns=raw, variance=0.2),
        Term(columns=compared, own=True, variance=0.2),
        offset,
    ]
