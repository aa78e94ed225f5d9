"""A campaign: a space, objectives, and the history of a search that survives its process."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from dse.ledger import OPEN, Ledger
from dse.metrics import hypervolume, non_dominated
from dse.objective import Objective
from dse.search import METHODS, Search
from dse.space import Space, Value
from dse.store import Record, to_json
from dse.surrogate import History, reference_point
from dse.trial import Asked, Done, Event, Failed, Json, Started, State, Trial

if TYPE_CHECKING:
    import pandas as pd

Evaluation: TypeAlias = Mapping[str, float] | tuple[Mapping[str, float], Mapping[str, Json]]
Evaluator: TypeAlias = Callable[[dict[str, Value]], Evaluation]

MAX_RETRIES = 3  #: of a trial whose evaluation the infrastructure failed
_MAX_ABANDONED = 3  # trials abandoned in a row, after which a run gives up
_COLUMNS = ("id", "state", "seconds", "error")


class InfrastructureError(Exception):
    """Raised by an evaluator: the evaluation failed, but not because of the design."""


class Campaign:
    """Search of a space for the Pareto front of some objectives, by ask and tell.

    Parameters
    ----------
    space, objectives
        What varies, and what is wanted.
    seed
        Non-negative. Equal seeds and histories give equal proposals, resumed or not.
    method
        ``"random"``, ``"sobol"``, ``"qlognehvi"``, or ``"auto"``, which is the last one.
    initial
        Trials of the scrambled Sobol sequence with which ``"qlognehvi"`` begins.
    store
        File in which every event is kept, and from which the campaign resumes; without one it
        lives in memory.
    config, versions
        JSON kept with the store: the configuration must be the same on resuming, the software
        versions are recorded with every evaluation.

    Raises
    ------
    ValueError
        Names that repeat or are unknown, or an option out of range.
    StoreMismatch, StoreError, CampaignLocked
        The file is another campaign's, not a store, or in use.

    Examples
    --------
    >>> from dse import Campaign, Objective, Ordinal, Space
    >>> space = Space([Ordinal("x", range(10)), Ordinal("y", range(10))])
    >>> wanted = [Objective("cost", known=lambda p: p["x"] + p["y"]), Objective("loss")]
    >>> with Campaign(space, wanted, seed=0, method="sobol") as campaign:
    ...     campaign.run(lambda p: {"loss": (p["x"] - 7) ** 2 + (p["y"] - 2) ** 2}, budget=20)
    ...     front = campaign.pareto()
    >>> list(front.columns)
    ['id', 'state', 'x', 'y', 'cost', 'loss', 'seconds', 'error']
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        *,
        seed: int,
        method: Literal["auto", "random", "sobol", "qlognehvi"] = "auto",
        initial: int = 10,
        store: str | Path | None = None,
        config: Json = None,
        versions: Json = None,
    ) -> None:
        self.space = space
        self.objectives = tuple(objectives)
        _check(space, self.objectives, seed=seed, method=method, initial=initial)
        method = "qlognehvi" if method == "auto" else method
        to_json(config, "config")
        to_json(versions, "versions")
        self._versions = versions
        self._search = Search(space, self.objectives, seed=seed, method=method, initial=initial)
        identity = {
            "seed": seed,
            "method": method,
            "initial": initial,
            "space": space.describe(),
            "objectives": [objective.describe() for objective in self.objectives],
            "config": config,
        }
        self._ledger = Ledger(space, store, identity=identity, versions=versions)

    def __enter__(self) -> Campaign:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the store; asking and telling then raise, reading still works."""
        self._ledger.close()

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, by id."""
        return tuple(self._ledger.trials)

    @property
    def notes(self) -> tuple[tuple[int, str], ...]:
        """What the search had to say on a proposal, as (trial, text): a fallback, a fit's warning."""
        return tuple(self._ledger.notes)

    @property
    def finished(self) -> int:
        """Number of trials done or failed."""
        return sum(trial.state in (State.DONE, State.FAILED) for trial in self._ledger.trials)

    def ask(self, n: int = 1) -> list[Trial]:
        """Return up to `n` trials to evaluate: interrupted ones first, then new designs.

        Fewer come back where fewer designs are left, and none when the space is exhausted. No
        design is proposed twice.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        asked: list[Trial] = []
        while len(asked) < n and self._ledger.again:
            trial = self._ledger.again[0]
            # Written again, so that the file too has it pending.
            self._ledger.record(Record(trial.id, "ask", {"parameters": trial.parameters}))
            asked.append(self._ledger.again.popleft())
        while len(asked) < n:
            new = len(self._ledger.trials)
            design, notes = self._search.propose(new, self._history())
            if design is None:
                break
            self._ledger.record(
                Record(new, "ask", {"parameters": self.space.parameters_of(design)}),
                *(Record(new, "note", {"text": note}) for note in notes),
            )
            asked.append(self._ledger.trials[new])
        return asked

    def start(self, trial: Trial) -> None:
        """Record that the evaluation of an asked trial begins."""
        self._ledger.record(Record(self._ledger.open(trial).id, "start", {}))

    def tell(
        self,
        trial: Trial,
        values: Mapping[str, float],
        *,
        metrics: Mapping[str, Json] | None = None,
        seconds: float | None = None,
    ) -> None:
        """Record the result of a trial; when this returns, it is on disk.

        Parameters
        ----------
        values
            Every learnt objective by name, and nothing else; known ones are computed here.
        metrics
            Whatever else was measured, as JSON. Scalars become columns of `frame`.
        seconds
            Wall-clock time of the evaluation.

        Raises
        ------
        ValueError
            An objective is missing, unknown, known, not finite, or not positive with log; a metric
            is not JSON or bears another column's name; or the trial is not open.
        """
        open_trial = self._ledger.open(trial)
        learnt = {objective.name for objective in self.objectives if objective.known is None}
        for name in values:
            if name not in learnt:
                kind = "known, hence computed and not told" if name in self._names() else "not an objective"
                raise ValueError(f"values must be of {', '.join(sorted(learnt))}; {name!r} is {kind}")
        told: dict[str, float] = {}
        for objective in self.objectives:
            if objective.known is not None:
                told[objective.name] = self._search.known(objective, self._ledger.designs[open_trial.id])
            elif objective.name not in values:
                raise ValueError(f"objective {objective.name} is missing in the values {dict(values)}")
            else:
                told[objective.name] = objective.check(values[objective.name])
        measured = dict(metrics or {})
        taken = {*_COLUMNS, *self.space.names, *self._names()}
        for name, metric in measured.items():
            if not isinstance(name, str) or name in taken:
                raise ValueError(f"a metric must have a name of its own as text, got {name!r}")
            to_json(metric, f"metric {name}")
        if seconds is not None and not (isfinite(seconds) and seconds >= 0):
            raise ValueError(f"seconds must be finite and at least 0, got {seconds}")
        payload = {"values": told, "metrics": measured, "seconds": seconds, "versions": self._versions}
        self._ledger.record(Record(open_trial.id, "tell", payload))

    def fail(
        self,
        trial: Trial,
        reason: str,
        kind: Literal["design", "infrastructure"] = "design",
        *,
        seconds: float | None = None,
        trace: str | None = None,
    ) -> None:
        """Record that a trial has no result.

        Parameters
        ----------
        reason
            One line for tables.
        kind
            ``"design"``: it cannot be evaluated, and counts as finished. ``"infrastructure"``: not
            its fault; it is asked again up to 3 times, and then abandoned.
        seconds, trace
            Wall-clock time, and a traceback for the store.
        """
        if kind not in ("design", "infrastructure"):
            raise ValueError(f"kind must be design or infrastructure, got {kind!r}")
        open_trial = self._ledger.open(trial)
        attempts = open_trial.attempts + (kind == "infrastructure")
        if kind == "design":
            state = State.FAILED
        else:
            state = State.PENDING if attempts <= MAX_RETRIES else State.ABANDONED
        payload = {
            "state": state,
            "kind": kind,
            "error": str(reason),
            "attempts": attempts,
            "seconds": seconds,
            "trace": trace,
            "versions": self._versions,
        }
        self._ledger.record(Record(open_trial.id, "fail", payload))
        if state is State.PENDING:
            self._ledger.again.append(open_trial)

    def run(
        self,
        evaluator: Evaluator,
        *,
        budget: int,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        """Evaluate one design after the other until `budget` trials are finished.

        Finished is done or failed, trials from before a resume included. The run also ends when no
        design is left.

        Parameters
        ----------
        evaluator
            Function of the parameters that returns the learnt objectives by name, or a pair of them
            and metrics. What it raises is recorded as a failure of the design, an
            `InfrastructureError` as one of the infrastructure. An interrupt is passed on, and the
            trial is evaluated again on resuming.
        budget
            At least 0.
        on_event
            Called with `Asked`, `Started`, `Done` and `Failed`, after each is stored.

        Raises
        ------
        RuntimeError
            The infrastructure failed three trials in a row, each with all its retries.
        """
        if budget < 0:
            raise ValueError(f"budget must be at least 0, got {budget}")

        def emit(kind: type[Event], trial: Trial) -> None:
            if on_event is not None:
                on_event(kind(trial, self.finished, budget))

        abandoned = 0
        while self.finished < budget and (asked := self.ask()):
            trial = asked[0]
            try:
                emit(Asked, trial)
                self._evaluate(trial, evaluator, emit)
            finally:
                if trial.state in OPEN and trial not in self._ledger.again:  # interrupted
                    self._ledger.again.appendleft(trial)
            if trial.state in (State.DONE, State.FAILED):
                abandoned = 0
            abandoned += trial.state is State.ABANDONED
            if abandoned == _MAX_ABANDONED:
                raise RuntimeError(
                    f"the infrastructure failed {abandoned} trials in a row, {MAX_RETRIES + 1} times each; "
                    f"the last error: {trial.error}"
                )

    def _evaluate(
        self, trial: Trial, evaluator: Evaluator, emit: Callable[[type[Event], Trial], None]
    ) -> None:
        self.start(trial)
        emit(Started, trial)
        begin = time.perf_counter()
        try:
            result = evaluator(dict(trial.parameters))
            seconds = time.perf_counter() - begin
            values, metrics = result if isinstance(result, tuple) else (result, None)
            if not isinstance(values, Mapping):
                raise TypeError(f"an evaluator must return values by objective name, got {values!r}")
            self.tell(trial, values, metrics=metrics, seconds=seconds)
        except Exception as error:
            self.fail(
                trial,
                f"{type(error).__name__}: {error}",
                "infrastructure" if isinstance(error, InfrastructureError) else "design",
                seconds=time.perf_counter() - begin,
                trace=traceback.format_exc(),
            )
        emit(Done if trial.state is State.DONE else Failed, trial)

    def frame(self) -> pd.DataFrame:
        """One row per trial: id, state, parameters, objectives, scalar metrics, seconds, error."""
        import pandas as pd

        metrics = dict.fromkeys(
            name
            for trial in self._ledger.trials
            for name, value in trial.metrics.items()
            if isinstance(value, str | int | float | None)
        )
        columns = ["id", "state", *self.space.names, *self._names(), *metrics, "seconds", "error"]
        rows = [
            {
                "id": trial.id,
                "state": str(trial.state),
                **trial.parameters,
                **trial.values,
                **{name: trial.metrics.get(name) for name in metrics},
                "seconds": trial.seconds,
                "error": trial.error,
            }
            for trial in self._ledger.trials
        ]
        return pd.DataFrame(rows, columns=columns)

    def pareto(self) -> pd.DataFrame:
        """Rows of `frame` that are done and not dominated, by ascending first objective."""
        frame = self.frame()
        done, costs = self._done()
        front = [trial.id for trial, best in zip(done, non_dominated(costs), strict=True) if best]
        return frame.loc[front].sort_values(self.objectives[0].name, kind="stable", ignore_index=True)

    def hypervolume(self, reference: Mapping[str, float] | None = None) -> float:
        """Hypervolume of the done trials, with log objectives in log10; 0 without any.

        Parameters
        ----------
        reference
            Worst value of interest of every objective. Without it, the threshold, or the worst value
            so far plus 10 % of the range: this moves, so give a fixed one to compare.
        """
        _, costs = self._done()
        if reference is not None and sorted(reference) != sorted(self._names()):
            raise ValueError(f"reference must have {', '.join(self._names())}, got {', '.join(reference)}")
        if reference is not None:
            corner = np.array(
                [
                    objective.cost(np.array([objective.check(reference[objective.name])]))[0]
                    for objective in self.objectives
                ]
            )
        elif len(costs):
            corner = reference_point(costs, self.objectives)
        else:
            return 0.0
        return hypervolume(costs, corner)

    def _names(self) -> list[str]:
        return [objective.name for objective in self.objectives]

    def _done(self) -> tuple[list[Trial], Float[np.ndarray, "n m"]]:
        done = [trial for trial in self._ledger.trials if trial.state is State.DONE]
        costs = [
            objective.cost(np.array([trial.values[objective.name] for trial in done]))
            for objective in self.objectives
        ]
        return done, np.column_stack(costs)

    def _history(self) -> History:
        done, costs = self._done()
        return History(
            done=[self._ledger.designs[trial.id] for trial in done],
            costs=costs,
            pending=[self._ledger.designs[trial.id] for trial in self._ledger.trials if trial.state in OPEN],
            asked=set(self._ledger.designs),
        )


def _check(space: Space, objectives: Sequence[Objective], *, seed: int, method: str, initial: int) -> None:
    if not objectives:
        raise ValueError("a campaign must have at least one objective, got none")
    names = [objective.name for objective in objectives]
    for index, name in enumerate(names):
        if name in names[:index] or name in space.names or name in _COLUMNS:
            raise ValueError(f"objective names must be distinct and no parameter's or column's, got {name!r}")
    if reserved := [name for name in space.names if name in _COLUMNS]:
        raise ValueError(f"parameter names must not be {', '.join(_COLUMNS)}, got {reserved[0]!r}")
    for objective in objectives:
        for name in objective.inputs or ():
            if name not in space.names:
                raise ValueError(
                    f"inputs of {objective.name} must be among {', '.join(space.names)}, got {name!r}"
                )
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ValueError(f"seed must be an integer in 0..2**63 - 1, got {seed!r}")
    if method not in ("auto", *METHODS):
        raise ValueError(f"method must be one of auto, {', '.join(METHODS)}, got {method!r}")
    if initial < 1:
        raise ValueError(f"initial must be at least 1, got {initial}")
