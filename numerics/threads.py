"""Threads of the kernels. Results never depend on their number.

Kernels release the interpreter's lock, so plain threads share the work; Numba's own parallel loops
cannot be cached safely.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

_limit: int | None = None


def limit(count: int | None) -> None:
    """Use at most `count` threads in this process; ``None``: as many as there are usable cores.

    Raises
    ------
    ValueError
        `count` is below 1.
    """
    global _limit
    if count is not None and count < 1:
        raise ValueError(f"threads must be at least 1, got {count}")
    _limit = count


def number() -> int:
    """Threads that a large product uses: the limit, NUMBA_NUM_THREADS, or the usable cores."""
    if _limit is not None:
        return _limit
    if (setting := os.environ.get("NUMBA_NUM_THREADS", "")).isdecimal() and int(setting) > 0:
        return int(setting)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parts(count: int, *, work: int, least: int) -> list[tuple[int, int]]:
    """Split ``0 .. count - 1`` into even runs, one per thread that has at least `least` work."""
    runs = max(1, min(number(), count // 2, work // least))
    # Tiles take two at a time: only the last run may be odd.
    edges = [2 * round(count / 2 * part / runs) for part in range(runs)] + [count]
    return list(pairwise(edges))


def run(tasks: Sequence[Callable[[], object]]) -> None:
    """Run all tasks, the first one here."""
    futures = [_pool().submit(task) for task in tasks[1:]]
    tasks[0]()
    for future in futures:
        future.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 1)), thread_name_prefix="numerics")
