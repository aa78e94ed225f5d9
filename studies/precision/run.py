"""`bitfront train`: all runs of a study, in this process or in several, in a folder that survives a kill."""

from __future__ import annotations

import multiprocessing
import pickle
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pandas as pd
from filelock import FileLock, Timeout

from numerics.warm import compile_kernels
from studies.precision.files import FolderError, write_whole
from studies.precision.folder import StudyFolder
from studies.precision.plan import Plan
from studies.precision.results import write_record
from studies.precision.settings import Settings
from studies.precision.study import Study
from studies.precision.table import summary
from studies.precision.trainer import Outcome, Run, StoppedError, curve, finished, statistics_of, tidy, train
from studies.replicas import WorkerLostError, WorkerPool

if TYPE_CHECKING:
    from ctypes import Array

    from studies.tasks import Data, Task

_POLL_SECONDS = 0.2
_ORPHAN_SECONDS = 60.0  # for which a process of a killed study may still hold its run


class Active(NamedTuple):
    """A run that is being trained: its last step and loss."""

    run: Run
    steps: int
    loss: float


class Watcher(Protocol):
    """Who is told what happens."""

    def stage(self, text: str) -> None:
        """A new stage begins."""

    def begin(self, runs: Sequence[Run], finished: Sequence[Outcome]) -> None:
        """Training begins: all runs of the study, and the outcomes of those that were finished before."""

    def active(self, runs: Sequence[Active]) -> None:
        """The runs that are being trained, several times a second."""

    def done(self, outcome: Outcome) -> None:
        """A run is finished."""


class Silent:
    """A watcher that tells nobody."""

    def stage(self, text: str) -> None:
        """Nothing."""

    def begin(self, runs: Sequence[Run], finished: Sequence[Outcome]) -> None:
        """Nothing."""

    def active(self, runs: Sequence[Active]) -> None:
        """Nothing."""

    def done(self, outcome: Outcome) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Result:
    """A finished study.

    Attributes
    ----------
    folder
        Where everything is.
    table
        One row per policy, the twin first: see `studies.precision.table.summary`; and a column for each path
        that a sweep varies.
    runs
        One row per run: the fields of `studies.precision.trainer.Outcome`.
    """

    study: Study
    plan: Plan
    folder: Path
    table: pd.DataFrame
    runs: pd.DataFrame

    @cached_property
    def statistics(self) -> pd.DataFrame:
        """What rounding did: ``policy``, ``seed`` and the columns of `numerics.torch.Statistics`."""
        runs = self.plan.runs(self.folder)
        found = [(run, table) for run in runs if (table := statistics_of(run)) is not None]
        tables = [table.assign(policy=run.name, seed=run.seed) for run, table in found]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    @cached_property
    def curves(self) -> pd.DataFrame:
        """All curves: ``policy``, ``seed`` and the columns of `studies.precision.trainer.curve`."""
        return pd.concat(
            [curve(run).assign(policy=run.name, seed=run.seed) for run in self.plan.runs(self.folder)],
            ignore_index=True,
        )


def run(
    study: Study,
    folder: Path,
    *,
    workers: int = 1,
    force: bool = False,
    watcher: Watcher | None = None,
) -> Result:
    """Train what the folder has not yet, and judge every policy.

    Parameters
    ----------
    folder
        A new one, or one of the same study, which goes on. Policies and seeds may have been added at the end.
    workers
        Processes; results do not depend on it. One: everything happens in this process.
    force
        Replace another study in the folder.

    Raises
    ------
    studies.config.ConfigError
        The study cannot be trained; before anything is.
    FolderError
        The folder holds something else, or a file in it is damaged or foreign; before anything is trained.
    studies.replicas.WorkerLostError
        A process died. The same call goes on.
    """
    watcher = watcher or Silent()
    watcher.stage("reading the data")
    plan = Plan.of(study)
    payload = _pickled(study.task, workers)
    with StudyFolder(folder, study.dump(), force=force):
        runs = plan.runs(folder)
        write_record(plan, folder)
        before = {each.folder: outcome for each in runs if (outcome := finished(each)) is not None}
        left = [each for each in runs if each.folder not in before]
        for each in runs:
            if each.folder in before:  # but it was killed, perhaps, before it had tidied up
                tidy(each)
        if left:
            plan.check_checkpoints(left)
            if workers > 1:
                compile_kernels()  # several processes must not fill one cache
            watcher.stage("rehearsing a step of every policy")
            plan.rehearse({each.name for each in left})
            watcher.stage("training")
        watcher.begin(runs, list(before.values()))
        job = _Job(study, plan, watcher)
        here = job.in_process(left) if workers == 1 else job.in_pool(left, workers, payload)
        outcomes = {**before, **here}
        watcher.stage("writing the tables")
        return _result(study, plan, folder, [outcomes[each.folder] for each in runs])


@dataclass(frozen=True)
class _Job:
    study: Study
    plan: Plan
    watcher: Watcher

    def in_process(self, runs: Sequence[Run]) -> dict[Path, Outcome]:
        found = {}
        for run in runs:
            told = _Throttled(run, self.watcher)
            found[run.folder] = _locked(run, self.study.task, self.plan.data, self.study.settings, told)
            self.watcher.done(found[run.folder])
        return found

    def in_pool(self, runs: Sequence[Run], workers: int, payload: bytes) -> dict[Path, Outcome]:
        # Shared memory without a lock: a process that is killed cannot leave it locked.
        board = multiprocessing.get_context("spawn").RawArray("d", 1 + 2 * len(runs))
        found: dict[Path, Outcome] = {}
        with WorkerPool(
            min(workers, max(1, len(runs))),
            prepare=_prepare,
            arguments=(payload, board),
            ignore_interrupt=True,
        ) as pool:
            futures: dict[Future[Outcome], int] = {
                pool.submit(_work, run, self.study.settings, index): index for index, run in enumerate(runs)
            }
            try:
                while futures:
                    ended, _ = wait(futures, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                    for future in ended:
                        run = runs[futures.pop(future)]
                        found[run.folder] = future.result()
                        self.watcher.done(found[run.folder])
                    self.watcher.active(
                        [
                            Active(runs[index], int(board[1 + 2 * index]), board[2 + 2 * index])
                            for index in sorted(futures.values())
                            if board[1 + 2 * index]
                        ]
                    )
            except BrokenProcessPool as error:
                raise WorkerLostError(
                    f"a training process died ({error}); nothing saved is lost, the same command goes on"
                ) from None
            finally:
                board[0] = 1.0  # whoever still trains saves and stops
                for future in futures:
                    future.cancel()
        return found


class _Throttled:
    """Tells a watcher of a run in this process, not more often than it can look."""

    def __init__(self, run: Run, watcher: Watcher) -> None:
        self._run, self._watcher = run, watcher
        self._last = 0.0

    def __call__(self, steps: int, loss: float) -> bool:
        if time.monotonic() - self._last >= _POLL_SECONDS:
            self._last = time.monotonic()
            self._watcher.active([Active(self._run, steps, loss)])
        return True


_payload: bytes = b""
_board: Array[Any] | None = None
_loaded: tuple[Task, Data] | None = None


def _prepare(payload: bytes, board: Array[Any]) -> None:
    global _payload, _board
    _payload, _board = payload, board


def _work(run: Run, settings: Settings, index: int) -> Outcome:
    """One run in a worker process, which reads the data once."""
    global _loaded
    board = _board
    assert board is not None
    if board[0]:
        raise StoppedError
    if _loaded is None:
        task: Task = pickle.loads(_payload)  # noqa: S301  from the parent
        _loaded = task, task.load()

    def tell(steps: int, loss: float) -> bool:
        board[1 + 2 * index], board[2 + 2 * index] = steps, loss
        return not board[0]

    return _locked(run, *_loaded, settings, tell)


def _locked(
    run: Run, task: Task, data: Data, settings: Settings, tell: Callable[[int, float], bool]
) -> Outcome:
    """Train a run that no other process works on; one whose parent was killed may, for a moment."""
    run.folder.mkdir(parents=True, exist_ok=True)
    path = run.folder / "run.lock"
    try:
        with FileLock(path).acquire(timeout=_ORPHAN_SECONDS):
            outcome = finished(run) or train(run, task, data, settings, tell)
            path.unlink(missing_ok=True)
            return outcome
    except Timeout:
        raise FolderError(f"{run.folder}: is in use by another process") from None


def _pickled(task: Task, workers: int) -> bytes:
    """The task as worker processes get it.

    Raises
    ------
    ValueError
        It cannot be sent.
    """
    if workers == 1:
        return b""
    try:
        return pickle.dumps(task)
    except Exception as error:  # whatever a user's object raises
        raise ValueError(
            f"workers must be 1 for a task that cannot be pickled, got {workers}: {error}"
        ) from None


def _result(study: Study, plan: Plan, folder: Path, outcomes: Sequence[Outcome]) -> Result:
    from studies.precision.predicted import study_bits  # and with it the reader of networks

    runs = pd.DataFrame([asdict(outcome) for outcome in outcomes])
    metric = study.task.metric
    table = summary(
        runs, metric=metric.name, larger_is_better=metric.higher_is_better, resolution=plan.resolution
    )
    swept = pd.DataFrame([{"policy": point.name, **point.swept} for point in plan.points])
    table = table.merge(swept, on="policy", how="left")
    for name, frame in (("table", table), ("runs", runs)):
        write_whole(folder / f"{name}.parquet", frame.to_parquet(index=False))
    write_whole(folder / "table.csv", table.to_csv(index=False).encode())
    write_whole(folder / "bits.parquet", study_bits(plan).to_parquet(index=False))
    return Result(study, plan, folder, table, runs)


__all__ = ["Active", "Result", "Silent", "StoppedError", "Watcher", "run"]
