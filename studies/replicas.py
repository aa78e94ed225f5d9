"""Training runs on several cores, in processes that never outlive the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from threadpoolctl import threadpool_limits

from numerics import threads
from studies.training import Numerics, Outcome, Recipe, train_watched

P = ParamSpec("P")
T = TypeVar("T")


class WorkerLostError(Exception):
    """A worker process died (killed, or out of memory): the run has no result."""


class WorkerPool:
    """Processes of one thread each, started anew (not forked), that die with their parent.

    Parameters
    ----------
    workers
        Number of processes.
    prepare, arguments
        A function that each process calls once before its first task, and what it gets.
    ignore_interrupt
        Leave Ctrl-C to the parent, for tasks that it can ask to stop.
    """

    def __init__(
        self,
        workers: int,
        *,
        prepare: Callable[..., None] | None = None,
        arguments: tuple[Any, ...] = (),
        ignore_interrupt: bool = False,
    ) -> None:
        self._workers = workers
        self._arguments = (ignore_interrupt, prepare, arguments)
        self._pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_prepare_worker,
            initargs=self._arguments,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Also after an error: an interpreter that ends while the pool still does has printed a traceback.
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, task: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Give a task to the next free process; all of it must be picklable."""
        return self._pool.submit(task, *args, **kwargs)


class ReplicaPool(WorkerPool):
    """Runs training runs that differ in their seed in parallel."""

    def run(
        self,
        recipe: Recipe,
        numerics: Numerics | None,
        seeds: Sequence[int],
        *,
        steps: Sequence[int] | None = None,
    ) -> list[list[Outcome]]:
        """What each run measured after each of `steps`, in the order of `seeds`.

        Parameters
        ----------
        steps
            Rising; a run ends with the last one. By default all steps of the recipe, at once.

        Raises
        ------
        DivergedError
            A training loss at the end is not finite.
        WorkerLostError
            A process died; the pool is ready again.
        """
        looks = [recipe.steps] if steps is None else list(steps)
        futures: list[Future[list[Outcome]]] = [
            self.submit(train_watched, recipe, numerics, seed=seed, steps=looks) for seed in seeds
        ]
        try:
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            self._pool = self._start()
            raise WorkerLostError(f"a training process died: {error}") from error
        finally:
            for future in futures:
                future.cancel()


def _prepare_worker(
    ignore_interrupt: bool, prepare: Callable[..., None] | None, arguments: tuple[Any, ...]
) -> None:
    import torch

    if ignore_interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threads.limit(1)
    threadpool_limits(1, user_api="blas")  # numpy's products, of integers among others
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if prepare is not None:
        prepare(*arguments)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
