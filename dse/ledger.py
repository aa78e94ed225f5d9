"""What happened in a campaign: trials, rebuilt from events, with a store behind them or not."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from dse.space import Design, Space
from dse.store import Record, Store
from dse.trial import Json, State, Trial

OPEN = (State.PENDING, State.RUNNING)


class Ledger:
    """Trials of a campaign by id, with their designs and the notes of the search.

    Parameters
    ----------
    path
        File that keeps the events, and from which the trials are rebuilt; ``None`` for memory only.
    identity, versions
        As `Store` takes them.

    Attributes
    ----------
    again
        Pending trials to hand out before new ones: interrupted, or failed by the infrastructure.
    """

    def __init__(
        self, space: Space, path: str | Path | None, *, identity: dict[str, Json], versions: Json
    ) -> None:
        self._space = space
        self.trials: list[Trial] = []
        self.designs: list[Design] = []
        self.notes: list[tuple[int, str]] = []
        self._store = None if path is None else Store(path, identity=identity, versions=versions)
        if self._store is not None:
            for record in self._store.records():
                self._apply(record)
        self.again = deque(trial for trial in self.trials if trial.state in OPEN)
        for trial in self.again:
            trial.state = State.PENDING

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

    def _apply(self, record: Record) -> None:
        """Change the state by one event: the only place, live and on resuming."""
        payload = record.payload
        if record.kind == "note":
            self.notes.append((record.trial, payload["text"]))
            return
        if record.kind == "ask" and record.trial == len(self.trials):
            self.designs.append(self._space.design(payload["parameters"]))
            self.trials.append(Trial(record.trial, dict(payload["parameters"])))
        trial = self.trials[record.trial]
        if record.kind == "ask":
            trial.state = State.PENDING
        elif record.kind == "start":
            trial.state = State.RUNNING
        elif record.kind == "tell":
            trial.state, trial.error = State.DONE, None
            trial.values, trial.metrics = dict(payload["values"]), dict(payload["metrics"])
            trial.seconds = payload["seconds"]
        else:
            trial.state, trial.error = State(payload["state"]), payload["error"]
            trial.attempts, trial.seconds = payload["attempts"], payload["seconds"]
