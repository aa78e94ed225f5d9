"""Timing that the benchmarks share: two calls in turns, and the machine they ran on."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
from threadpoolctl import threadpool_info

Work = Callable[[], object]


def medians(work: Work, reference: Work, repeats: int) -> tuple[float, float]:
    """Median processor seconds of both, timed in turns so that a busy machine slows both."""
    work()
    reference()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for call, found in ((work, times[0]), (reference, times[1])):
            start = time.process_time()
            call()
            found.append(time.process_time() - start)
    return float(np.median(times[0])), float(np.median(times[1]))


def machine() -> str:
    """Processor, versions and the BLAS that numpy uses."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text(encoding="utf-8").splitlines()
        model = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model
        )
    blas = ", ".join(
        f"{pool['internal_api']} {pool['version']} ({pool['num_threads']} thread)"
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    )
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{model}, {os.cpu_count()} cores{load}; Python {platform.python_version()}, "
        f"numpy {np.__version__}, Numba {numba.__version__}, {blas}"
    )
