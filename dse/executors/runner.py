"""A campaign on many workers: each gets a new design as soon as it is free."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import Literal, Protocol

from dse.executors.base import Evaluator, Executor, Outcome, SetupError, one_line
from dse.fidelity import affordable
from dse.store import StoreError
from dse.trial import FINISHED, MEASURED, OPEN, Asked, Done, Event, Failed, Json, Started, State, Trial

_LOOK_S = 60.0  # longest wait for an outcome before the number of workers is looked at again


class InfrastructureDown(RuntimeError):  # noqa: N818  a public name
    """The infrastructure failed several trials in a row, each with all its retries."""


class Searching(Protocol):
    """What a run needs of a campaign."""

    @property
    def trials(self) -> Sequence[Trial]:
        """All trials, by id."""

    @property
    def finished(self) -> int:
        """Number of trials that count towards the budget."""

    @property
    def spent(self) -> float:
        """What the finished trials took from the budget: one each, or the price of their fidelity."""

    def ask(self, n: int = 1) -> list[Trial]:
        """Up to `n` trials to evaluate: released and lost ones first, none when there is nothing left."""

    def start(self, trial: Trial) -> None:
        """Record that the evaluation begins."""

    def tell(
        self,
        trial: Trial,
        values: Mapping[str, float],
        *,
        metrics: Mapping[str, Json] | None = None,
        seconds: float | None = None,
        cached: bool = False,
    ) -> None:
        """Record a result, or raise if it is not one."""

    def fail(
        self,
        trial: Trial,
        reason: str,
        kind: Literal["design", "infrastructure"] = "design",
        *,
        seconds: float | None = None,
        trace: str | None = None,
    ) -> None:
        """Record a failure; a trial that the infrastructure failed is asked again, or abandoned."""

    def release(self, trial: Trial) -> None:
        """Return an open trial, to be asked again first."""


@dataclass(frozen=True, slots=True)
class BackOff:
    """How long a trial waits after its n-th infrastructure failure: first_s * factor^(n - 1), bounded.

    Raises
    ------
    ValueError
        A negative wait, a factor below 1, or a bound below the first wait.
    """

    first_s: float = 1.0
    factor: float = 4.0
    longest_s: float = 300.0

    def __post_init__(self) -> None:
        if not 0 <= self.first_s <= self.longest_s < inf:
            raise ValueError(f"waits must be 0 <= first_s <= longest_s, got {self.first_s}, {self.longest_s}")
        if not 1 <= self.factor < inf:
            raise ValueError(f"factor must be at least 1, got {self.factor}")

    def wait_s(self, failures: int) -> float:
        """Seconds to wait after so many failures."""
        wait = self.first_s
        for _ in range(failures - 1):
            wait = min(wait * self.factor, self.longest_s)
        return wait


def run(
    campaign: Searching,
    evaluator: Evaluator,
    executor: Executor,
    *,
    budget: int,
    on_event: Callable[[Event], None] | None = None,
    backoff: BackOff = BackOff(),
    most_abandoned: int = 3,
) -> None:
    """Evaluate designs on all workers until `budget` trials are finished or no design is left.

    In a campaign with a fidelity the budget is one of full evaluations, and every trial takes its price.

    Results that are found at the same moment are told in the order of their trials. With one worker
    the history depends on the seed alone; with several also on which result came first.

    However a run ends, what has finished by then is told, evaluations under way are stopped, and
    their trials are asked again by the next run. The executor stays open.

    Parameters
    ----------
    campaign
        Its finished trials count towards the budget.
    on_event
        Called with `Asked`, `Started`, `Done` and `Failed`, after each is stored.
    backoff
        Waits before a trial is tried again that the infrastructure failed; how often is the
        campaign's affair.
    most_abandoned
        Trials abandoned in a row with which the run gives up.

    Raises
    ------
    ValueError, TypeError, SetupError
        Before a trial is asked: a negative budget, or an evaluator that the executor cannot run.
        `SetupError` also comes later, from the evaluator.
    InfrastructureDown
        See `most_abandoned`.
    StoreError
        The store cannot be written.
    """
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 0:
        raise ValueError(f"budget must be at least 0, got {budget!r}")
    if most_abandoned < 1:
        raise ValueError(f"most_abandoned must be at least 1, got {most_abandoned}")
    executor.prepare(evaluator)
    session = _Session(campaign, evaluator, executor, budget, on_event, backoff, most_abandoned)
    try:
        session.work()
    except BaseException as error:
        if not isinstance(error, StoreError):
            with suppress(StoreError, SetupError, InfrastructureDown):
                session.collect(0.0, silent=True)
        raise
    finally:
        session.leave()


@dataclass(slots=True)
class _Session:
    """Trials of one run by where they are: on a worker, or waiting to be tried again."""

    campaign: Searching
    evaluator: Evaluator
    executor: Executor
    budget: int
    on_event: Callable[[Event], None] | None
    backoff: BackOff
    most_abandoned: int
    running: dict[int, Trial] = field(default_factory=dict)  # by handle
    waiting: dict[int, Trial] = field(default_factory=dict)  # by trial
    not_before: dict[int, float] = field(default_factory=dict)  # by trial, on the monotonic clock
    arrived: dict[int, tuple[Trial, Outcome]] = field(default_factory=dict)  # by trial, not yet told
    mine: dict[int, Trial] = field(default_factory=dict)  # every trial this run was given
    earlier: int = field(init=False)
    abandoned: int = 0
    exhausted: bool = False

    def __post_init__(self) -> None:
        self.earlier = len(self.campaign.trials)

    def work(self) -> None:
        """Loop until the budget is spent."""
        while True:
            # First what there is, so that proposals know it.
            self.collect(0.0)
            self.fill()
            if not self.running and not self.waiting:
                return
            next_try = min((self.not_before[id_] for id_ in self.waiting), default=inf)
            patience = min(next_try - time.monotonic(), _LOOK_S) if self.free else _LOOK_S
            if self.running:
                self.collect(max(patience, 0.001))
            else:
                time.sleep(max(patience, 0.001))

    @property
    def free(self) -> int:
        return self.executor.workers - len(self.running)

    def fill(self) -> None:
        """Give every free worker a trial: one whose wait is over, or one that is asked."""
        now = time.monotonic()
        for id_ in sorted(self.waiting):
            if self.free > 0 and self.not_before[id_] <= now:
                self.submit(self.waiting.pop(id_))
        while (wanted := self.wanted) > 0 and not self.exhausted:
            asked = self.campaign.ask(wanted)
            self.mine.update({trial.id: trial for trial in asked})
            self.exhausted = not asked
            for trial in asked:
                self.emit(Asked, trial)
                if self.not_before.get(trial.id, 0.0) > time.monotonic():
                    self.waiting[trial.id] = trial
                else:
                    self.submit(trial)

    @property
    def wanted(self) -> int:
        """Trials to ask for now."""
        begun = [*self.running.values(), *self.waiting.values()]
        left = self.budget - self.campaign.spent - sum(trial.price for trial in begun)
        return min(self.free, affordable(left))  # each may be a full evaluation

    def submit(self, trial: Trial) -> None:
        self.campaign.start(trial)
        self.emit(Started, trial)
        self.running[self.executor.submit(self.evaluator, trial.settings)] = trial

    def collect(self, timeout_s: float, *, silent: bool = False) -> None:
        """Tell what has finished."""
        for handle, outcome in self.executor.poll(timeout_s):
            if (trial := self.running.pop(handle, None)) is not None:
                self.arrived[trial.id] = (trial, outcome)
        told = []
        # What ends the run comes last.
        for id_ in sorted(self.arrived, key=lambda id_: (self.arrived[id_][1].kind == "setup", id_)):
            trial, outcome = self.arrived[id_]
            if trial.state in OPEN:  # an interrupt may have come just after it was told
                self.settle(trial, outcome)
            del self.arrived[id_]
            told.append(trial)
            if not silent:
                self.emit(Done if trial.state in MEASURED else Failed, trial)
        for trial in told:
            self.count(trial)

    def settle(self, trial: Trial, outcome: Outcome) -> None:
        if outcome.kind == "setup":
            raise SetupError(outcome.error)
        if outcome.measurement is None:
            kind: Literal["design", "infrastructure"] = (
                "infrastructure" if outcome.kind == "infrastructure" else "design"
            )
            self.campaign.fail(trial, outcome.error, kind, seconds=outcome.seconds, trace=outcome.trace)
            return
        result = outcome.measurement
        try:
            self.campaign.tell(
                trial, result.values, metrics=result.metrics, seconds=outcome.seconds, cached=result.cached
            )
        except StoreError:
            raise
        except Exception as error:
            self.campaign.fail(trial, one_line(error), seconds=outcome.seconds, trace=traceback.format_exc())

    def count(self, trial: Trial) -> None:
        if trial.state in FINISHED:
            self.abandoned = 0
            return
        self.exhausted = False  # there is at least this one to ask again
        if trial.state is not State.ABANDONED:
            self.not_before[trial.id] = time.monotonic() + self.backoff.wait_s(trial.attempts)
            return
        self.abandoned += 1
        if self.abandoned >= self.most_abandoned:
            raise InfrastructureDown(
                f"the infrastructure failed {self.abandoned} trials in a row, {trial.attempts} times each; "
                f"the last error: {trial.error}"
            )

    def emit(self, kind: type[Event], trial: Trial) -> None:
        if self.on_event is not None:
            campaign = self.campaign
            self.on_event(kind(trial, campaign.finished, self.budget, campaign.spent))

    def leave(self) -> None:
        """Stop what is under way; whatever this run began and did not finish is asked again."""
        for handle in list(self.running):
            self.executor.cancel(handle)
        begun = {**self.mine, **{trial.id: trial for trial in self.campaign.trials[self.earlier :]}}
        for id_ in sorted(begun):
            if begun[id_].state in OPEN:
                self.campaign.release(begun[id_])
