"""What happened in a campaign: trials, rebuilt from events, with a store behind them or not."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path

from dse.fidelity import Fidelity
from dse.space import Design, Space, Value
from dse.store import Record, Store, StoreError, Upgrade
from dse.trial import OPEN, Json, State, Trial


class Ledger:
    """Trials of a campaign by id, with their designs and the notes of the search.

    Parameters
    ----------
    path
        File that keeps the events, and from which the trials are rebuilt; ``None`` for memory only.
    identity, versions, upgrade
        As `Store` takes them.
    fidelity
        Of the evaluations; trials of which no level is stored are at the full one.

    Attributes
    ----------
    again
        Open trials to hand out before new ones: interrupted, or lost by the infrastructure.

    Raises
    ------
    StoreError
        The file cannot be read, or its events contradict each other.
    """

    def __init__(
        self,
        space: Space,
        path: str | Path | None,
        *,
        identity: dict[str, Json],
        versions: Json,
        upgrade: Upgrade | None = None,
        fidelity: Fidelity | None = None,
    ) -> None:
        self._space, self._fidelity = space, fidelity
        self.trials: list[Trial] = []
        self.designs: list[Design] = []
        self.notes: list[tuple[int, str]] = []
        self.again: deque[Trial] = deque()
        self._store: Store | None = None
        if path is not None:
            self._store = Store(path, identity=identity, versions=versions, upgrade=upgrade)
            try:
                self._replay(self._store)
            except BaseException:
                self._store.close()
                raise
        self.again.extend(trial for trial in self.trials if trial.state in OPEN)
        for trial in self.again:
            if trial.state is State.RUNNING:  # by a process that is gone
                trial.state = State.PENDING

    def _replay(self, store: Store) -> None:
        for record in store.records():
            try:
                self._apply(record)
            except (LookupError, TypeError, ValueError) as error:
                reason = str(error).replace("\n", " ")
                raise StoreError(
                    f"{store.path}: event {record.kind} of trial {record.trial} does not fit: {reason}"
                ) from error

    def close(self) -> None:
        """Release the file."""
        if self._store is not None:
            self._store.close()

    def record(self, *records: Record) -> None:
        """Store, then apply: what the campaign believes is never ahead of the file."""
        if self._store is not None:
            self._store.append(records)
        for record in records:
            self._apply(record)

    def open(self, trial: Trial) -> Trial:
        """Return the trial if it is this campaign's and waits for a result; else ``ValueError``."""
        if not (0 <= trial.id < len(self.trials)) or self.trials[trial.id] is not trial:
            raise ValueError(f"trial {trial.id} must come from this campaign's ask or trials")
        if trial.state not in OPEN:
            raise ValueError(f"trial {trial.id} must be pending or running, got {trial.state}")
        return trial

    def release(self, trial: Trial) -> None:
        """Hand an open trial out again before new ones: its evaluation was interrupted."""
        if self.open(trial) not in self.again:
            self.again.append(trial)
            self.again = deque(sorted(self.again, key=lambda waiting: waiting.id))

    def _apply(self, record: Record) -> None:
        """Change the state by one event: the only place, live and on resuming."""
        payload = record.payload
        if record.kind == "note":
            self.notes.append((record.trial, payload["text"]))
            return
        if record.kind in ("ask", "attach") and record.trial == len(self.trials):
            trial = self._new(record)
            self.designs.append(self._space.design(trial.parameters))
            self.trials.append(trial)
        trial = self.trials[record.trial]
        if record.kind == "ask":
            trial.state = State.PENDING
        elif record.kind == "start":
            trial.state = State.RUNNING
        else:
            trial.attached = record.kind == "attach"
            self._finish(trial, payload, State(payload.get("state", State.DONE)))

    def _new(self, record: Record) -> Trial:
        payload = record.payload
        parameters = {name: _plain(value) for name, value in payload["parameters"].items()}
        if self._fidelity is None:
            return Trial(record.trial, parameters, row=payload.get("row"), settings={**parameters})
        level = self._fidelity.check(payload.get("fidelity", self._fidelity.full))
        return Trial(
            record.trial,
            parameters,
            row=payload.get("row"),
            fidelity=level,
            price=self._fidelity.price(level),
            settings={**parameters, self._fidelity.name: level},
        )

    def _finish(self, trial: Trial, payload: Mapping[str, Json], state: State) -> None:
        trial.state, trial.error, trial.seconds = state, payload.get("error"), payload.get("seconds")
        trial.attempts = payload.get("attempts", trial.attempts)
        trial.values, trial.metrics = dict(payload.get("values") or {}), dict(payload.get("metrics") or {})
        trial.constraints = dict(payload.get("constraints") or {})
        trial.cached = bool(payload.get("cached", False))
        if state not in OPEN and trial in self.again:  # a late result of a lost trial
            self.again.remove(trial)


def _plain(value: Json) -> Value:
    """Return a parameter's value as designs hold it: JSON has no tuples, so permutations come as lists."""
    plain: Value = tuple(value) if isinstance(value, list) else value
    return plain
