"""The clock of a plan: kernels that stop in time, and what is off the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import TIMEOUT_MAX, Timer
from time import perf_counter

import numpy as np
from numpy.typing import NDArray


@contextmanager
def stop_at(deadline_s: float) -> Iterator[NDArray[np.int64]]:
    """Give a number, (1,), that is 0 until the clock of `time.perf_counter` reaches `deadline_s`.

    Kernels that give up the interpreter's lock see it change.
    """
    stop = np.zeros(1, np.int64)
    stop[0] = perf_counter() >= deadline_s
    timer = Timer(min(max(0.0, deadline_s - perf_counter()), TIMEOUT_MAX), stop.fill, (1,))
    timer.daemon = True
    timer.start()
    try:
        yield stop
    finally:
        timer.cancel()


class Clock:
    """A deadline, on the clock of `time.perf_counter`, that loading kernels puts off.

    What a time limit bounds is the search for a plan, not what compiling takes once after an installation.
    `whole` is the clock of which this one is a share; it is put off too.

    Attributes
    ----------
    grace_s
        Seconds past the deadline in which a plan that is all but made may be finished.
    """

    def __init__(self, deadline_s: float, whole: Clock | None = None) -> None:
        self.deadline_s = deadline_s
        self.grace_s = 0.1 + min(1.0, 0.1 * max(0.0, deadline_s - perf_counter()))
        self._whole = whole

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return perf_counter() >= self.deadline_s

    def share(self, share: float) -> float:
        """Reading when `share` of the time left has passed."""
        now_s = perf_counter()
        return now_s + share * (self.deadline_s - now_s)

    def before_end(self, seconds: float, share: float) -> float:
        """Reading that many seconds before the deadline, but not before `share` of the time left."""
        return max(self.share(share), self.deadline_s - seconds)

    def load(self, load: Callable[[], None]) -> None:
        """Load kernels off the clock."""
        began_s = perf_counter()
        load()
        self._put_off(perf_counter() - began_s)

    def _put_off(self, seconds: float) -> None:
        self.deadline_s += seconds
        if self._whole is not None:
            self._whole._put_off(seconds)
