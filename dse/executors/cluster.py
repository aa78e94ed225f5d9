"""Evaluation on a Dask cluster: SLURM, LSF or PBS by dask-jobqueue, or any other. An optional extra."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from dse.executors._apart import evaluate_apart
from dse.executors._logs import log_of, prepared
from dse.executors.base import Closing, Evaluator, Kind, Outcome, SetupError, one_line
from dse.space import Value


class Dask(Closing):
    """Evaluates on the workers of a Dask cluster, each evaluation in a process of its own.

    An evaluator may therefore crash or hang without harm to the worker, and what it started ends with
    it. When a worker is lost, Dask moves its evaluations to another one; when that happens too often,
    or the whole cluster is lost, it is a failure of the infrastructure.

    Parameters
    ----------
    client
        A ``distributed.Client``, which stays open, or the address of a scheduler.
    workers
        Evaluations at a time; by default one per thread that the cluster has at the moment, and at
        least one.
    time_limit_s, timeout
        As `LocalProcesses` takes them; the start of the process counts.
    logs
        As `LocalProcesses` takes it; workers must see the folder too.

    Raises
    ------
    SetupError
        Dask is not installed, no scheduler answers at the address, or the folder cannot be made.
    ValueError
        An option out of range.
    """

    def __init__(
        self,
        client: Any,
        *,
        workers: int | None = None,
        time_limit_s: float | None = None,
        timeout: Literal["design", "infrastructure"] = "design",
        logs: str | Path | None = None,
    ) -> None:
        if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
            raise ValueError(f"workers must be an integer of at least 1, got {workers!r}")
        if time_limit_s is not None and not time_limit_s > 0:
            raise ValueError(f"time_limit_s must be positive, got {time_limit_s}")
        if timeout not in ("design", "infrastructure"):
            raise ValueError(f"timeout must be design or infrastructure, got {timeout!r}")
        distributed = _dask()
        self._logs = prepared(logs)
        self._is_ours = isinstance(client, str)
        if isinstance(client, str):
            try:
                client = distributed.Client(client, set_as_default=False)
            except (OSError, ValueError) as error:
                raise SetupError(f"no Dask scheduler answers at {client}: {one_line(error)}") from None
        self._client = client
        self._workers = workers
        self._time_limit_s = time_limit_s
        self._timeout: Kind = timeout
        self._futures: dict[int, Any] = {}
        self._early: list[tuple[int, Outcome]] = []
        self._evaluator: tuple[Evaluator, bytes] | None = None
        self._submitted = 0

    @property
    def workers(self) -> int:
        """Evaluations at a time."""
        if self._workers is not None:
            return self._workers
        try:
            return max(1, int(sum(self._client.nthreads().values())))
        except (OSError, TimeoutError, ValueError):  # no connection; submitting tells
            return 1

    def prepare(self, evaluator: Evaluator) -> None:
        """Pickle the evaluator as it is now; functions of a script and local ones are sent by value."""
        cloudpickle = import_module("cloudpickle")  # comes with Dask
        if not callable(evaluator):
            raise TypeError(f"an evaluator must be callable, got {evaluator!r}")
        try:
            self._evaluator = (evaluator, cloudpickle.dumps(evaluator))
        except Exception as error:
            raise TypeError(
                f"an evaluator for a cluster must be picklable, got {evaluator!r}: {one_line(error)}"
            ) from None

    def submit(self, evaluator: Evaluator, parameters: Mapping[str, Value]) -> int:
        """Send a design to the cluster."""
        if self._evaluator is None or self._evaluator[0] is not evaluator:
            self.prepare(evaluator)
        assert self._evaluator is not None
        self._submitted += 1
        try:
            self._futures[self._submitted] = self._client.submit(
                _on_worker,
                self._evaluator[1],
                dict(parameters),
                self._time_limit_s,
                self._timeout,
                log_of(self._logs, parameters),
                pure=False,  # equal designs are tried again, not looked up
                retries=0,
            )
        except Exception as error:
            lost = Outcome("infrastructure", error=f"the cluster is lost: {one_line(error)}")
            self._early.append((self._submitted, lost))
        return self._submitted

    def poll(self, timeout_s: float) -> list[tuple[int, Outcome]]:
        """Outcomes since the last call; waits up to `timeout_s` for the first one."""
        outcomes, self._early = self._early, []
        finished = [handle for handle, future in self._futures.items() if future.done()]
        if not outcomes and not finished and timeout_s > 0:
            begin = time.monotonic()
            try:
                _dask().wait(list(self._futures.values()), timeout=timeout_s, return_when="FIRST_COMPLETED")
            except TimeoutError:
                return []
            except Exception:  # a future was cancelled or lost, as its state tells
                if time.monotonic() - begin < 0.1:  # not a loop without rest
                    time.sleep(min(timeout_s, 0.1))
            finished = [handle for handle, future in self._futures.items() if future.done()]
        for handle in finished:
            outcomes.append((handle, _outcome(self._futures.pop(handle))))
        return outcomes

    def cancel(self, handle: int) -> None:
        """Take an evaluation back; its process ends within a second."""
        self._early = [(early, outcome) for early, outcome in self._early if early != handle]
        if (future := self._futures.pop(handle, None)) is not None:
            _cancel(future)

    def close(self) -> None:
        """Take all evaluations back; a client that was made here is closed."""
        for handle in list(self._futures):
            self.cancel(handle)
        if self._is_ours:
            self._client.close()


def _dask() -> Any:
    """Return the module, which is untyped, or say how to get it."""
    try:
        return import_module("distributed")
    except ImportError:
        raise SetupError("the Dask executor needs an extra: pip install 'bitfront[cluster]'") from None


def _cancel(future: Any) -> None:
    with suppress(Exception):  # the cluster is gone, and the evaluation with it
        future.cancel()


def _outcome(future: Any) -> Outcome:
    """Outcome of a future that is done: finished, in error, cancelled or lost."""
    try:
        outcome: Outcome = future.result(timeout=60)
    except Exception as error:
        # Our task raises nothing of its own: a worker died too often, or cannot import what it needs.
        return Outcome("infrastructure", error=f"the cluster failed: {one_line(error)}")
    return outcome


def _on_worker(
    packed: bytes,
    parameters: dict[str, Value],
    time_limit_s: float | None,
    timeout: Kind,
    log: Path | None,
) -> Outcome:
    """Evaluate on a worker, for as long as the scheduler wants the result."""
    worker = _dask().get_worker()
    key = worker.get_current_task()

    def is_wanted() -> bool:
        # The scheduler takes a task back when it is cancelled, and when its client is gone.
        task = worker.state.tasks.get(key)
        return task is not None and task.state in ("executing", "long-running")

    return evaluate_apart(
        packed, parameters, time_limit_s=time_limit_s, timeout=timeout, is_wanted=is_wanted, log=log
    )
