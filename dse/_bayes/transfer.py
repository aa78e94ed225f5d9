"""Models of a target that also learn from sources: earlier campaigns on related problems.

Four ways, and a choice between them that falls back to none [Kennedy00]_, [Bonilla07]_, [Feurer18]_:

- ``"mean"``: the source's prediction, times a coefficient rho that is learnt, is the target's prior mean;
- ``"icm"``: one process over all tasks, `dse._bayes.coregionalisation`;
- ``"rgpe"``: an ensemble weighted by ranking, `dse._bayes.ranking`;
- ``"none"``: no transfer;
- ``"auto"``: all of them, weighted by how well each predicts the left-out targets. A source whose
  predictions do not follow the target's measurements is left out, and so is transfer altogether where
  it predicts worse than none by more than a tolerance.

References
----------
.. [Kennedy00] M. C. Kennedy, A. O'Hagan, "Predicting the Output from a Complex Computer Code When Fast
   Approximations Are Available", Biometrika 87(1), 2000.
.. [Bonilla07] E. Bonilla, K. M. Chai, C. Williams, "Multi-task Gaussian Process Prediction", NIPS 2007.
.. [Feurer18] M. Feurer, B. Letham, F. Hutter, E. Bakshy, "Practical Transfer Learning for Bayesian
   Optimization", arXiv 1802.02219.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float

from dse._bayes.columns import Columns, Rows, check_training
from dse._bayes.committee import Committee, members, stack
from dse._bayes.coregionalisation import Coregionalised, fit_coregionalised
from dse._bayes.correlations import Shape
from dse._bayes.loo import LeaveOneOut
from dse._bayes.ranking import RankingEnsemble
from dse._bayes.surrogates import FitError, Fitted, SingleTarget, Surrogate, fit_gp, standardising

Way: TypeAlias = Literal["none", "mean", "icm", "rgpe", "auto"]

SOURCE_ROWS = 300  #: of a larger source a random part is fitted
_RHO = 0.5  # prior mean of rho, between standardised predictions and targets
_RANKED = 8  # targets from which on their rank correlation with a source says something
_LEAST_RANK = 0.2
_AGAINST = -0.5  # rank correlation from which down a source runs against the target
WITH_SOURCES = ("mean", "icm", "icm product32", "rgpe")  #: members that transfer adds to the committee
_FAVOUR = 4.0  # pseudo-observations for each of them: who names a source expects that it helps
_TOLERANCE = 0.2  # of the left-out log density per target, which few targets do not tell apart


@dataclass(frozen=True, slots=True)
class Task:
    """A source: rows in the target's columns, NaN where it does not have one, and targets.

    Attributes
    ----------
    name
        For reports.
    rows : (m, c)
        As the target's space encodes them.
    y : (m,)
        On the scale the target is modelled on.
    """

    name: str
    rows: Rows
    y: Float[np.ndarray, " m"]

    def columns(self, columns: Columns) -> Columns:
        """Those of the columns that this source has.

        Raises
        ------
        ValueError
            There is none, or one is given for some rows only.
        """
        missing = np.isnan(self.rows)
        has = ~missing.any(axis=0)
        if partial := np.flatnonzero(missing.any(axis=0) & ~missing.all(axis=0)).tolist():
            raise ValueError(f"source {self.name} has column {partial[0]} for some of its rows only")
        shared = columns.where(has)
        if not len(shared):
            raise ValueError(f"source {self.name} has no parameter in common with the target")
        return shared


class SourceModel(SingleTarget):
    """A process fitted to a source once, in standardised units, that reads only the columns it has."""

    def __init__(self, task: Task, columns: Columns, seed: int) -> None:
        self.name, self.task = task.name, task
        shared = task.columns(columns)
        kept = np.arange(len(task.y))
        if len(kept) > SOURCE_ROWS:
            generator = np.random.default_rng([seed, 4])
            kept = np.sort(generator.choice(len(kept), SOURCE_ROWS, replace=False))
        if not np.ptp(task.y):
            raise ValueError(f"source {task.name} has the same value {task.y[0]:g} for all its rows")
        centre, spread = standardising(task.y)
        z, unit = (task.y[kept] - centre) / spread, (0.0, 1.0)
        # Columns that it does not have are filled with anything: the fit leaves them out.
        rows = np.nan_to_num(task.rows[kept], nan=0.0)
        super().__init__(fit_gp(rows, z, shared, family="matern52", scale=unit).process, z, unit)


class PriorMean(SingleTarget):
    """A process about the sources' predictions, each times a coefficient rho of its own [Kennedy00]_.

    Attributes
    ----------
    rho
        Posterior means of the coefficients, (s,).
    """

    def __init__(
        self, rows: Rows, y: Float[np.ndarray, " n"], columns: Columns, sources: Sequence[SourceModel]
    ) -> None:
        def extended(at: Rows) -> Rows:
            return np.column_stack([at, *(source.predict(at)[0] for source in sources)])

        trend = tuple(range(rows.shape[1], rows.shape[1] + len(sources)))
        known, scale = extended(rows), standardising(y)
        predicted = known[:, trend]
        # What departs from the prior mean of rho is a linear part of the covariance.
        rest = y - scale[1] * _RHO * predicted.sum(axis=1)
        widened = replace(columns, trend=trend)
        process = fit_gp(known, rest, widened, family="matern52", scale=scale).process
        super().__init__(process, y, scale, extended)
        self._sources = sources
        self.rho = _RHO + np.exp(process.theta[-2]) * (predicted.T @ process.alpha)

    def predict(self, rows: Rows) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Mean and standard deviation of a new measurement of each row, (n,) each."""
        mean, deviation = super().predict(rows)
        predicted = np.sum([source.predict(rows)[0] for source in self._sources], axis=0)
        return mean + self._spread * _RHO * predicted, deviation


def fit_sources(tasks: Sequence[Task], columns: Columns, seed: int) -> tuple[SourceModel, ...]:
    """Fit each source once, to be used by all later fits of the target."""
    return tuple(SourceModel(task, columns, seed) for task in tasks)


@dataclass(frozen=True, slots=True)
class Report:
    """What a transfer did, to be shown to the user.

    Attributes
    ----------
    way
        The way that was used; ``"none"`` after a fall-back.
    sources
        By name: ``spearman``, the rank correlation of its predictions with the target's measurements;
        ``rho``, its coefficient in the prior mean; ``correlation``, that of the joint process; ``weight``,
        that of the ranking ensemble. Those of ways that were not fitted are missing.
    weights
        By member of the committee; those of transfer are `WITH_SOURCES`.
    log_density
        Left-out log density per target: of ``"none"``, and of what was used.
    """

    way: str
    sources: Mapping[str, Mapping[str, float]]
    weights: Mapping[str, float]
    log_density: Mapping[str, float]

    def lines(self) -> tuple[str, ...]:
        """As text, one line per source and one for the choice."""
        used = sum(self.weights.get(way, 0.0) for way in WITH_SOURCES)
        densities = ", ".join(f"{name} {value:.2f}" for name, value in self.log_density.items())
        head = f"transfer: {self.way}, weight {used:.2f}; left-out log density: {densities}"
        each = (
            f"source {name}: " + ", ".join(f"{key} {value:.2f}" for key, value in facts.items())
            for name, facts in self.sources.items()
        )
        return head, *each


@dataclass(frozen=True, slots=True)
class Transferred:
    """A fitted target and how it was arrived at; itself a fitted surrogate."""

    model: Fitted
    report: Report

    @property
    def noise(self) -> float:
        """Variance of a measurement around the function."""
        return self.model.noise

    @property
    def loo(self) -> LeaveOneOut:
        """Leave-one-out predictions of the target."""
        return self.model.loo

    def predict(self, rows: Rows) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Mean and standard deviation of a new measurement of each row, (n,) each."""
        return self.model.predict(rows)

    def covariance(self, rows_a: Rows, rows_b: Rows) -> Float[np.ndarray, "n m"]:
        """Posterior covariance of the function between rows, without noise, (n, m)."""
        return self.model.covariance(rows_a, rows_b)


def fit_transfer(
    rows: Rows,
    y: Float[np.ndarray, " n"],
    columns: Columns,
    sources: Sequence[SourceModel],
    seed: int = 0,
    *,
    way: Way = "auto",
    surrogates: Mapping[str, Surrogate] | None = None,
) -> Transferred:
    """Fit a target with the help of sources.

    Parameters
    ----------
    rows, y
        Of the target, (n, c) and (n,).
    columns
        What the columns are.
    sources
        From `fit_sources`.
    seed
        Of draws and random parts.
    way
        One of those above.
    surrogates
        Models without transfer, by name; without them, those of the committee.
    """
    check_training(rows, y)
    if way not in get_args(Way):
        raise ValueError(f"way must be one of {', '.join(get_args(Way))}, got {way!r}")
    if way != "none" and not sources:
        raise ValueError(f"transfer by {way} needs a source, got none")
    facts: dict[str, dict[str, float]] = {source.name: {} for source in sources}
    if way in ("mean", "icm", "rgpe"):
        fitted = _fit(way, rows, y, columns, sources, seed, facts)
        alone_density: dict[str, float] = {way: fitted.loo.log_density}
        return Transferred(fitted, Report(way, facts, {way: 1.0}, alone_density))
    own = {name: fit(rows, y, columns, seed) for name, fit in (surrogates or members(columns)).items()}
    alone = Committee(own, stack([member.loo for member in own.values()], list(own)))
    density: dict[str, float] = {"none": alone.loo.log_density}
    followed = _followed(rows, y, sources, facts) if way == "auto" else []
    if not followed:
        return Transferred(alone, Report("none", facts, alone.weights, density))
    helped: dict[str, Fitted] = {
        name: _fit(name, rows, y, columns, followed, seed, facts) for name in WITH_SOURCES
    }
    together = {**own, **helped}
    prior = [1.0] * len(own) + [_FAVOUR] * len(helped)
    mixed = Committee(together, stack([member.loo for member in together.values()], list(together), prior))
    density["auto"] = mixed.loo.log_density
    if density["auto"] <= density["none"] - _TOLERANCE:
        return Transferred(alone, Report("none", facts, alone.weights, density))
    return Transferred(mixed, Report("auto", facts, mixed.weights, density))


def _followed(
    rows: Rows, y: Float[np.ndarray, " n"], sources: Sequence[SourceModel], facts: dict[str, dict[str, float]]
) -> list[SourceModel]:
    """Sources whose predictions the measurements follow, up or down, as far as there are enough."""
    followed = []
    for source in sources:
        correlation = spearman(source.predict(rows)[0], y)
        facts[source.name]["spearman"] = correlation
        if len(y) < _RANKED or abs(correlation) >= _LEAST_RANK:
            followed.append(source)
    return followed


def _fit(
    way: str,
    rows: Rows,
    y: Float[np.ndarray, " n"],
    columns: Columns,
    sources: Sequence[SourceModel],
    seed: int,
    facts: dict[str, dict[str, float]],
) -> Fitted:
    learnt: Any
    if way == "mean":
        prior_mean = PriorMean(rows, y, columns, sources)
        name, values, learnt = "rho", prior_mean.rho, prior_mean
    elif way != "rgpe":
        data = [(source.task.rows, source.task.y) for source in sources]
        family: Shape = "additive" if way == "icm" else "product32"
        against = [
            len(y) >= _RANKED and spearman(source.predict(rows)[0], y) <= _AGAINST for source in sources
        ]
        joint: Coregionalised = fit_coregionalised(
            rows, y, columns, data, seed, family=family, signs=[-1 if turned else 1 for turned in against]
        )
        name, values, learnt = "correlation", joint.correlations, joint
    else:
        target = fit_gp(rows, y, columns, family="matern52")
        ensemble = RankingEnsemble(target, sources, rows, y, seed)
        name, values, learnt = "weight", ensemble.weights, ensemble
    for source, value in zip(sources, values, strict=False):
        facts[source.name][name] = float(value)
    fitted: Fitted = learnt
    return fitted


def spearman(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Rank correlation; 0 where one of them is constant."""
    from scipy.stats import rankdata

    left, right = (rankdata(values) - (len(values) + 1) / 2 for values in (a, b))
    norm = float(np.sqrt((left @ left) * (right @ right)))
    return float(left @ right) / norm if norm else 0.0


__all__ = [
    "FitError",
    "Report",
    "SourceModel",
    "Task",
    "Transferred",
    "fit_sources",
    "fit_transfer",
    "spearman",
]
