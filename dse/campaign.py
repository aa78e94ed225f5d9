"""A campaign: a space, objectives, and the history of a search that survives its process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dse import tables
from dse._schema import restate_as
from dse._threads import one_thread
from dse.executors.base import Closing, Evaluator, Executor
from dse.executors.inprocess import InProcess
from dse.executors.runner import BackOff
from dse.executors.runner import run as run_all
from dse.fidelity import Fidelity, Level
from dse.ledger import Ledger
from dse.methods import make
from dse.objective import Objective, OutcomeConstraint
from dse.outcomes import Outcomes
from dse.results import Results
from dse.space import Design, Space
from dse.store import Record, read_store, to_json
from dse.trial import Event, Json, State, Trial

if TYPE_CHECKING:
    import pandas as pd

    from dse.transfer import Source

_SETTINGS = ("seed", "method", "initial", "config")
MAX_RETRIES = 3  #: of a trial whose evaluation the infrastructure failed


class Campaign(Results, Closing):
    """Search of a space for the Pareto front of some objectives, by ask and tell.

    Parameters
    ----------
    space, objectives
        What varies, and what is wanted.
    outcome_constraints
        Limits on measured quantities. A design that breaks one is infeasible: it is known, but on no
        front.
    fidelity
        How exactly a design may be evaluated, see `Fidelity`. Methods that know no improvements make full
        evaluations only.
    budget
        Evaluations that `run` makes where it is not told another number; with a fidelity, full evaluations
        or what costs as much.
    seed
        Non-negative. Equal seeds and histories give equal proposals, resumed or not.
    method
        One of `dse.methods.METHODS`: ``"auto"`` chooses by the number of objectives, ``"predict"``
        chooses what teaches most instead of what is best.
    initial
        Trials of a Sobol sequence with which methods that learn begin, attached ones included; by
        default 5 for a Bayesian search, for others twice the number of parameters plus two, within 5..20.
    store
        File in which every event is kept, and from which the campaign resumes; without one it
        lives in memory.
    transfer
        Data frames or campaigns of earlier searches to learn from.
    cost_aware
        Expected improvement per second of evaluation, where evaluation times were told and differ;
        methods without a model ignore it.
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
        outcome_constraints: Sequence[OutcomeConstraint] = (),
        fidelity: Fidelity | None = None,
        budget: int | None = None,
        method: str = "auto",
        initial: int | None = None,
        store: str | Path | None = None,
        transfer: Sequence[pd.DataFrame | Campaign | Source] = (),
        cost_aware: bool = False,
        config: Json = None,
        versions: Json = None,
    ) -> None:
        self.space, self.fidelity = space, fidelity
        self._outcomes = Outcomes(space, objectives, outcome_constraints, fidelity)
        self.budget = None if budget is None else checked_budget(budget)
        for name, value in (("config", config), ("versions", versions)):
            to_json(value, name)
        self._versions, self._seed, self._transfer = versions, seed, tuple(transfer)
        self._method = make(
            method,
            space,
            self.objectives,
            self.outcome_constraints,
            seed=seed,
            initial=initial,
            transfer=self._transfer,
            cost_aware=cost_aware,
            fidelity=fidelity,
        )
        identity = {
            "seed": seed,
            "method": method,
            "initial": initial,
            "space": space.describe(),
            "objectives": [objective.describe() for objective in self.objectives],
            "outcome_constraints": [limit.describe() for limit in self.outcome_constraints],
            "fidelity": None if fidelity is None else fidelity.describe(),
            "config": config,
        }
        if cost_aware:
            identity["cost_aware"] = True
        self._ledger = Ledger(
            space,
            store,
            identity=identity,
            versions=versions,
            upgrade=partial(restate_as, identity),
            fidelity=fidelity,
        )

    @classmethod
    def resume(
        cls, path: str | Path, space: Space, objectives: Sequence[Objective], **options: Any
    ) -> Campaign:
        """Open a stored campaign: its seed, method, fidelity and other settings are read from the file.

        Space and objectives are given again, for functions cannot be stored; they must be the same.

        Parameters
        ----------
        options
            Of a campaign: `outcome_constraints`, `budget`, `transfer`, `versions`.

        Raises
        ------
        StoreMismatch, StoreError, CampaignLocked
            There is no such file, or it is another campaign's, not a store, or in use.
        """
        meta, _ = read_store(path)
        settings = {name: value for name, value in meta.items() if name in _SETTINGS}
        if meta.get("fidelity") is not None:
            settings["fidelity"] = Fidelity.of(meta["fidelity"])
        return cls(space, objectives, **(settings | options), store=path)

    def close(self) -> None:
        """Release the store; asking and telling then raise, reading still works."""
        self._ledger.close()

    def ask(self, n: int = 1) -> list[Trial]:
        """Return up to `n` trials to evaluate: interrupted and lost ones first, then new designs.

        Fewer come back where fewer designs are left, and none when the space is exhausted. No
        design is proposed twice, but for a higher fidelity than it had before.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"n must be at least 1, got {n!r}")
        asked: list[Trial] = []
        while len(asked) < n and self._ledger.again:
            trial = self._ledger.again[0]
            # Written again, so that the file too has it pending.
            again = {} if trial.fidelity is None else {"fidelity": trial.fidelity}
            self._ledger.record(Record(trial.id, "ask", {"parameters": trial.parameters, **again}))
            asked.append(self._ledger.again.popleft())
        if len(asked) == n:
            return asked
        first = len(self._ledger.trials)
        with one_thread():
            proposal = self._method.propose(first, self.history(), n - len(asked))
        full = None if self.fidelity is None else self.fidelity.full
        levels = proposal.levels or (full,) * len(proposal.designs)
        pairs = enumerate(zip(proposal.designs, levels, strict=True), first)
        records = [Record(number, "ask", self._asked(*pair)) for number, pair in pairs]
        if records:
            said = {text for _, text in self._ledger.notes}
            texts = [*(text for text in proposal.once if text not in said), *proposal.notes]
            notes = [Record(first, "note", {"text": text}) for text in texts]
            self._ledger.record(*records, *notes)
        return [*asked, *self._ledger.trials[first:]]

    def _asked(self, design: Design, level: Level | None) -> dict[str, Json]:
        payload: dict[str, Json] = {"parameters": self.space.parameters_of(design)}
        if self.space.is_table:
            payload["row"] = self.space.row(design)
        if level is not None:
            payload["fidelity"] = level
        return payload

    def attach(self, frame: pd.DataFrame) -> list[Trial]:
        """Add trials that were measured elsewhere; all of them, or none where one is not acceptable.

        They inform the search and do not count towards a budget.

        Parameters
        ----------
        frame
            Parameters and learnt objectives by name, as `frame` of a campaign returns them. With a
            column ``state`` (``trial_state`` where that is a name of the problem), rows that are neither
            done, infeasible nor failed are passed over. A column of the fidelity's name holds the levels;
            what has none is full. Other columns become metrics.

        Raises
        ------
        ValueError
            A column is missing, a row is not legal, or its design is there already.
        """
        first = len(self._ledger.trials)
        seen = {(self._ledger.designs[trial.id], trial.fidelity): trial.id for trial in self.trials}
        records: list[Record] = []
        for design, event in tables.rows_to_attach(self.space, self._outcomes, frame):
            key = (design, event.get("fidelity"))
            if key in seen:
                named = self.space.parameters_of(design)
                raise ValueError(f"designs must be attached once, got {named} again (trial {seen[key]})")
            seen[key] = first + len(records)
            records.append(Record(first + len(records), "attach", {**event, "versions": self._versions}))
        if records:
            self._ledger.record(*records)
        return self._ledger.trials[first:]

    def start(self, trial: Trial) -> None:
        """Record that the evaluation of an asked trial begins."""
        self._ledger.record(Record(self._ledger.open(trial).id, "start", {}))

    def release(self, trial: Trial) -> None:
        """Hand out an open trial again before new ones: its evaluation was interrupted."""
        self._ledger.release(trial)

    def tell(
        self,
        trial: Trial,
        values: Mapping[str, float],
        *,
        metrics: Mapping[str, Json] | None = None,
        seconds: float | None = None,
        cached: bool = False,
    ) -> None:
        """Record the result of a trial; when this returns, it is on disk.

        Parameters
        ----------
        values
            Every learnt objective and limited quantity by name, and nothing else; known objectives
            are computed here.
        metrics
            Whatever else was measured, as JSON. Scalars become columns of `frame`.
        seconds
            Wall-clock time of the evaluation.
        cached
            The result was computed by an earlier campaign.

        Raises
        ------
        ValueError
            A value is missing, unknown, known, not finite, or not in the domain of the objective's
            transform; a metric is not JSON or bears another column's name; or the trial is not open.
        """
        open_trial = self._ledger.open(trial)
        found, limits, state = self._outcomes.measured(self._ledger.designs[open_trial.id], values)
        measured = dict(metrics or {})
        self._outcomes.check_metrics(measured)
        payload = {
            "values": found,
            "constraints": limits,
            "state": state,
            "metrics": measured,
            "seconds": checked_seconds(seconds),
            "versions": self._versions,
            "cached": cached,
        }
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
        retried = State.LOST if attempts <= MAX_RETRIES else State.ABANDONED
        state = State.FAILED if kind == "design" else retried
        payload = {
            "state": state,
            "kind": kind,
            "error": str(reason),
            "attempts": attempts,
            "seconds": checked_seconds(seconds),
            "trace": trace,
            "versions": self._versions,
        }
        self._ledger.record(Record(open_trial.id, "fail", payload))
        if state is State.LOST:
            self._ledger.release(open_trial)

    def run(
        self,
        evaluator: Evaluator,
        executor: Executor | None = None,
        *,
        budget: int | None = None,
        on_event: Callable[[Event], None] | None = None,
        backoff: BackOff | None = None,
    ) -> None:
        """Evaluate designs until `budget` trials are finished, those before a resume included.

        The run also ends when no design is left. It goes on where an interrupted one stopped. With a
        fidelity, each trial takes its price, and a run ends where no full one can be paid.

        Parameters
        ----------
        evaluator
            Function of the parameters, and of the fidelity under its name, that returns the learnt
            objectives and limited quantities by name, or a pair of them and metrics. What it raises is
            recorded as a failure of the design, an `InfrastructureError` as one of the infrastructure. An
            interrupt is passed on, and the trial is evaluated again on resuming.
        executor
            Where it runs, see `dse.executors`; by default in this process, one after the other.
        budget
            At least 0; by default the campaign's.
        on_event
            Called with `Asked`, `Started`, `Done` and `Failed`, after each is stored.
        backoff
            Waits before a trial is tried again that the infrastructure failed.

        Raises
        ------
        ValueError
            No budget, or one that is not a number of trials.
        InfrastructureDown
            The infrastructure failed three trials in a row, each with all its retries.
        """
        wanted = self.budget if budget is None else checked_budget(budget)
        if wanted is None:
            raise ValueError("budget must be a number of trials, of the campaign or of the run; got none")
        with InProcess() as here:
            run_all(
                self,
                evaluator,
                executor or here,
                budget=wanted,
                on_event=on_event,
                backoff=backoff or BackOff(),
            )


def checked_budget(budget: Any) -> int:
    """`budget` as a number of trials, or ``ValueError``."""
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 0:
        raise ValueError(f"budget must be at least 0, got {budget!r}")
    return budget


def checked_seconds(seconds: float | None) -> float | None:
    """`seconds`, or ``ValueError`` where it is no duration."""
    if seconds is not None and not (np.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"seconds must be finite and at least 0, got {seconds}")
    return seconds
