"""One thread for linear algebra: models of tens of points get slower with more, and other last bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Run what is inside with one thread of every library for linear algebra, and restore what was."""
    # SciPy brings a library of its own, which must be loaded to be found.
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield
