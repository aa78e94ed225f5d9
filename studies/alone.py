"""A training that gives the same bits whatever else the machine does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from numerics import threads


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One thread, so that PyTorch sums in one order; a loss, not a warning, tells of infinities."""
    before, limit = torch.get_num_threads(), threads.number()
    torch.set_num_threads(1)
    threads.limit(1)
    try:
        with np.errstate(all="ignore"), threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
        threads.limit(limit)
