"""Repeated training runs on several cores, in processes that never outlive the campaign."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType

from numerics import threads
from studies.training import Numerics, Outcome, Recipe, train


class WorkerLostError(Exception):
    """A worker process died (killed, or out of memory): the run has no result."""


class ReplicaPool:
    """Runs training runs that differ in their seed in parallel, one thread each.

    Parameters
    ----------
    workers
        Number of processes.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._workers, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare_worker
        )

    def __enter__(self) -> ReplicaPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=kind is None, cancel_futures=True)

    def run(self, recipe: Recipe, numerics: Numerics | None, seeds: Sequence[int]) -> list[Outcome]:
        """Outcomes in the order of `seeds`.

        Raises
        ------
        WorkerLostError
            A process died; the pool is ready again.
        """
        futures: list[Future[Outcome]] = [
            self._pool.submit(train, recipe, numerics, seed=seed) for seed in seeds
        ]
        try:
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            self._pool = self._start()
            raise WorkerLostError(f"a training process died: {error}") from error
        finally:
            for future in futures:
                future.cancel()


def _prepare_worker() -> None:
    import torch

    torch.set_num_threads(1)
    threads.limit(1)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
