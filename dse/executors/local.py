"""Evaluation in processes of this machine, which may crash, hang or be killed without any harm."""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.util
import os
import pickle
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Literal
from weakref import WeakSet

from dse.executors._logs import last_line, log_of, prepared
from dse.executors._processes import kill_session
from dse.executors._worker import BEGUN, HELLO, serve
from dse.executors.base import Closing, Evaluator, Kind, Outcome, ended, one_line, pickled
from dse.space import Value

_START_LIMIT_S = 300.0  # to import the evaluator's modules, on a busy machine or a slow disk
_LOOK_S = 2.0  # a process forked by an evaluator may hold open what tells us that a worker died


@dataclass(slots=True, eq=False)
class _Worker:
    """One process, the handle it works on, and which evaluator it has."""

    process: SpawnProcess
    connection: Connection
    evaluator: bytes | None = None
    handle: int | None = None
    is_there: bool = False
    begun: float | None = None
    deadline: float = inf
    log: Path | None = None

    @property
    def last_line(self) -> str:
        """What the evaluation printed last, as the end of a message."""
        return "" if self.log is None else last_line(self.log)


class LocalProcesses(Closing):
    """Evaluates in worker processes, each reused for one design after the other.

    A worker that crashes or is killed is replaced when the next design comes. When it goes, or when
    the campaign's process goes for whatever reason, everything it started goes with it.

    Parameters
    ----------
    workers
        Processes at most; by default one per usable core.
    time_limit_s
        Of one evaluation, from the call of the evaluator on; its process is killed then.
    timeout
        What exceeding the limit means: ``"design"``, the default, or ``"infrastructure"``, which is
        tried again.
    logs
        Folder for what evaluations print: a file per design, to which every attempt adds. Without one
        it goes where the campaign's own output goes.

    Raises
    ------
    ValueError, SetupError
        An option out of range, or a folder that cannot be made.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        time_limit_s: float | None = None,
        timeout: Literal["design", "infrastructure"] = "design",
        logs: str | Path | None = None,
    ) -> None:
        workers = _usable_cores() if workers is None else workers
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise ValueError(f"workers must be an integer of at least 1, got {workers!r}")
        if time_limit_s is not None and not time_limit_s > 0:
            raise ValueError(f"time_limit_s must be positive, got {time_limit_s}")
        if timeout not in ("design", "infrastructure"):
            raise ValueError(f"timeout must be design or infrastructure, got {timeout!r}")
        self.workers = workers
        self._time_limit_s = inf if time_limit_s is None else time_limit_s
        self._timeout: Kind = timeout
        self._logs = prepared(logs)
        self._context = multiprocessing.get_context("spawn")
        self._team: list[_Worker] = []
        self._early: list[tuple[int, Outcome]] = []
        self._evaluator: tuple[Evaluator, bytes] | None = None
        self._submitted = 0
        _EXECUTORS.add(self)

    def prepare(self, evaluator: Evaluator) -> None:
        """Pickle the evaluator as it is now, or raise ``TypeError``."""
        if not callable(evaluator):
            raise TypeError(f"an evaluator must be callable, got {evaluator!r}")
        self._evaluator = (evaluator, pickled(evaluator))

    def submit(self, evaluator: Evaluator, parameters: Mapping[str, Value]) -> int:
        """Send a design to an idle worker, or to a new one.

        Raises
        ------
        RuntimeError
            All workers are busy.
        """
        if self._evaluator is None or self._evaluator[0] is not evaluator:
            self.prepare(evaluator)
        assert self._evaluator is not None
        packed = self._evaluator[1]
        for worker in [worker for worker in self._team if worker.handle is None]:
            if _is_dead(worker):  # while idle
                self._dismiss(worker)
        if sum(worker.handle is not None for worker in self._team) >= self.workers:
            raise RuntimeError(f"all {self.workers} workers are busy")
        self._submitted += 1
        handle = self._submitted
        try:
            idle = (worker for worker in self._team if worker.handle is None)
            worker = next(idle, None) or self._hire()
        except OSError as error:  # no memory, or too many processes
            reason = f"a worker process cannot be started: {one_line(error)}"
            self._early.append((handle, Outcome("infrastructure", error=reason)))
            return handle
        worker.handle, worker.begun, worker.log = handle, None, log_of(self._logs, parameters)
        worker.deadline = time.monotonic() + _START_LIMIT_S
        has_it = worker.evaluator == packed
        worker.evaluator = packed
        with suppress(OSError):  # if it has just died, the next poll finds out
            message = (None if has_it else packed, dict(parameters), worker.log)
            worker.connection.send_bytes(pickle.dumps(message))
        return handle

    def _hire(self) -> _Worker:
        here, there = self._context.Pipe()
        try:
            # Not a daemon, for those may not have children of their own.
            process = self._context.Process(target=serve, args=(there,), daemon=False)
            process.start()
        except BaseException:
            here.close()
            raise
        finally:
            there.close()
        worker = _Worker(process, here)
        self._team.append(worker)
        return worker

    def poll(self, timeout_s: float) -> list[tuple[int, Outcome]]:
        """Outcomes since the last call; waits up to `timeout_s` for the first one."""
        end = time.monotonic() + timeout_s
        while True:
            outcomes, self._early = self._early, []
            busy = [worker for worker in self._team if worker.handle is not None]
            for worker in busy:
                handle = worker.handle
                if handle is not None and (outcome := self._outcome(worker)) is not None:
                    outcomes.append((handle, outcome))
            now = time.monotonic()
            if outcomes or now >= end:
                return outcomes
            signs = [sign for worker in busy for sign in (worker.connection, worker.process.sentinel)]
            until = min([end, now + _LOOK_S, *(worker.deadline for worker in busy)])
            wait(signs, max(until - now, 0.0))

    def _outcome(self, worker: _Worker) -> Outcome | None:
        """Outcome of a busy worker, if there is one by now."""
        # Asked first: what a process sent before it died is then surely in the connection.
        is_dead = _is_dead(worker)
        try:
            while worker.connection.poll():
                if (outcome := self._receive(worker, worker.connection.recv_bytes())) is not None:
                    return outcome
        except (EOFError, OSError):  # it is just going: its own exit status is wanted, not that of our kill
            wait([worker.process.sentinel], 1.0)
            is_dead = True
        if is_dead:
            seconds = None if worker.begun is None else time.monotonic() - worker.begun
            was_there = worker.is_there
            exitcode = self._dismiss(worker)
            if not was_there and exitcode > 0:
                return Outcome(
                    "setup",
                    error=f"a worker process left with status {exitcode} before it was ready; a script that "
                    'runs a campaign must do so under `if __name__ == "__main__":`',
                )
            kind, reason = ended(exitcode)
            return Outcome(kind, error=f"{reason}{worker.last_line}", seconds=seconds)
        if time.monotonic() >= worker.deadline:
            begun = worker.begun
            self._dismiss(worker)
            if begun is None:
                reason = f"a worker process was not ready within {_START_LIMIT_S:g} s"
                return Outcome("infrastructure", error=reason)
            reason = f"the evaluation exceeded its time limit of {self._time_limit_s:g} s{worker.last_line}"
            return Outcome(self._timeout, error=reason, seconds=time.monotonic() - begun)
        return None

    def _receive(self, worker: _Worker, message: bytes) -> Outcome | None:
        if message == HELLO:
            worker.is_there = True
            return None
        if message.startswith(BEGUN):
            worker.begun = float(message.removeprefix(BEGUN))
            worker.deadline = worker.begun + self._time_limit_s
            return None
        worker.handle, worker.deadline = None, inf
        try:
            outcome: Outcome = pickle.loads(message)  # noqa: S301  from our own worker
        except Exception as error:
            reason = f"the result of an evaluator must be picklable: {one_line(error)}"
            return Outcome("design", error=reason)
        if outcome.kind == "setup":
            worker.evaluator = None
        return outcome

    def cancel(self, handle: int) -> None:
        """Kill the worker that evaluates it, if any does."""
        self._early = [(early, outcome) for early, outcome in self._early if early != handle]
        for worker in [worker for worker in self._team if worker.handle == handle]:
            self._dismiss(worker)

    def close(self) -> None:
        """Kill all workers and wait until they are gone."""
        for worker in list(self._team):
            self._dismiss(worker)

    def _dismiss(self, worker: _Worker) -> int:
        """Kill a worker and all it started; returns its exit status."""
        pid = worker.process.pid
        assert pid is not None
        # Before it is waited for: until then its number belongs to nobody else.
        kill_session(pid)
        worker.process.kill()
        worker.process.join()
        exitcode = worker.process.exitcode
        assert exitcode is not None
        self._team.remove(worker)
        worker.connection.close()
        worker.process.close()
        return exitcode


def _is_dead(worker: _Worker) -> bool:
    """Whether the process ended; it is not waited for, so that its number stays its own."""
    pid = worker.process.pid
    assert pid is not None
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # somebody else waited for it
        return True


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_EXECUTORS: WeakSet[LocalProcesses] = WeakSet()


@atexit.register
def _close_all() -> None:
    """Before Python waits for the processes that it started, which would be for ever."""
    for executor in list(_EXECUTORS):
        executor.close()
