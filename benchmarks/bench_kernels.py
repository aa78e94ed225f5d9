"""How fast the kernels are beside numpy: ratios measured in one process, on one thread.

Every row times the kernel and its numpy reference in turns, after a warm-up that also compiles, and
prints the ratio of the medians. The same run first checks the bits of each configuration on a small
case against exact rationals.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from numerics import Accumulator, Certificate, cast, matmul, parse_format, threads

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from oracles.philox import cast_draws, sum_draws
from oracles.rational import matmul_rational, round_rational

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


def check_cast(text: str, rounding: str) -> None:
    """Bits of 500 elements against rationals, with the same random words."""
    x = np.random.default_rng(1).normal(0.0, 4.0, 500).astype(np.float32)
    x[:3] = 0.0, 1e30, -1e-30
    draw = cast_draws(0, 0, 0)
    expected = [
        round_rational(float(value), parse_format(text), rounding, draw=draw(i)) for i, value in enumerate(x)
    ]
    np.testing.assert_array_equal(cast(x, text, rounding=rounding, seed=0), expected)


def check_matmul(operand: str, accumulator: str, path: str, scale: float) -> None:
    """Bits of a product of 5 x 150 by 150 x 6 against rationals, on the path that is timed."""
    rng = np.random.default_rng(2)
    a, b = (
        cast((rng.normal(size=shape) * scale).astype(np.float32), operand, overflow="saturate")
        for shape in ((5, 150), (150, 6))
    )
    parsed = Accumulator.parse(accumulator)
    assert Certificate.of(a, b, parsed).path == path
    expected = matmul_rational(
        a.tolist(),
        b.tolist(),
        parsed.format,
        parsed.rounding.mode.value,
        chunk=parsed.chunk,
        draws=sum_draws(0, 0, 0),
    )
    np.testing.assert_array_equal(matmul(a, b, parsed, seed=0), expected)


def cast_row(name: str, text: str, rounding: str, goal: float, repeats: int) -> tuple[str, ...]:
    """Cast of 2**24 float32 from N(0, 4) into a given array, against a copy of it."""
    check_cast(text, rounding)
    x = np.random.default_rng(0).normal(0.0, 4.0, 1 << 24).astype(np.float32)
    out = np.empty_like(x)
    taken, copied = medians(
        lambda: cast(x, text, rounding=rounding, seed=0, out=out), lambda: np.copyto(out, x), repeats
    )
    rate = f"{x.size / taken / 1e9:.2f} GElem/s"
    return name, f"{rounding} to {text}", rate, f"{copied / taken:.3f} of a copy", f"{goal:.2f}"


def cached_cast_row(text: str, repeats: int) -> tuple[str, ...]:
    """The same on 2**14 elements that stay in the cache."""
    x = np.random.default_rng(0).normal(0.0, 4.0, 1 << 14).astype(np.float32)
    out = np.empty_like(x)

    def work() -> None:
        for _ in range(200):
            cast(x, text, out=out)

    taken, _ = medians(work, lambda: None, repeats)
    rate = 200 * x.size / taken / 1e9
    return "a3", f"nearest-even to {text}, in cache", f"{rate:.2f} GElem/s", "", "2.80 GElem/s"


def matmul_row(
    name: str,
    accumulator: str,
    shape: tuple[int, int, int],
    path: str,
    goal: float,
    repeats: int,
    *,
    operand: str = "e4m3fn",
    scale: float = 1.0,
) -> tuple[str, ...]:
    """Product of (m, k) by (k, n) against numpy's in float32; `scale` moves data out of range."""
    check_matmul(operand, accumulator, path, scale)
    m, n, k = shape
    rng = np.random.default_rng(0)
    a, b = (
        cast((rng.normal(size=size) * scale).astype(np.float32), operand, overflow="saturate")
        for size in ((m, k), (k, n))
    )
    chosen = Certificate.of(a, b, Accumulator.parse(accumulator)).path
    assert chosen == path, f"{operand} into {accumulator} took {chosen}, not {path}"
    taken, reference = medians(lambda: matmul(a, b, accumulator, seed=0), lambda: a @ b, repeats)
    what = f"{operand} into {accumulator}, {m} x {n} x {k}, {path}"
    rate = f"{m * n * k / taken / 1e9:.3f} GMAC/s"
    return name, what, rate, f"{reference / taken:.4f} of numpy", f"{goal:.2f}"


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each, at least 5")
    repeats = max(5, parser.parse_args().repeats)
    with threadpool_limits(limits=1, user_api="blas"):
        print(machine())
        threads.limit(1)
        cube, large, deep = (512, 512, 512), (1024, 1024, 1024), (128, 256, 4096)
        rows = [
            *(cast_row("a1", text, "nearest-even", 0.95, repeats) for text in ("e5m2", "e4m3fn", "e6m9")),
            *(cast_row("a2", text, "stochastic", 0.50, repeats) for text in ("e5m2", "e6m9")),
            cached_cast_row("e4m3fn", repeats),
            matmul_row("b1", "e6m9", cube, "float32", 0.30, repeats),
            matmul_row("b1", "e6m9", large, "float32", 0.30, repeats),
            matmul_row("b2", "e6m9 chunk=64", cube, "float32", 0.29, repeats),
            matmul_row("b2", "e6m9 chunk=64", large, "float32", 0.29, repeats),
            matmul_row("b3", "e6m9", deep, "float32", 0.33, repeats),
            matmul_row("b3", "e6m9 chunk=64", deep, "float32", 0.33, repeats),
            matmul_row("b4", "e6m9 rounding=stochastic", (128, 128, 128), "exact", 0.20, repeats),
            matmul_row("b5", "e5m10", cube, "float32-full", 0.12, repeats, operand="e5m2", scale=200.0),
            matmul_row("b5", "e5m10", cube, "float32-full", 0.12, repeats, operand="e5m2", scale=1e-3),
            matmul_row("b6", "e6m3", cube, "float64", 0.15, repeats),
            matmul_row("-", "e6m9 rounding=toward-zero", (96, 96, 96), "exact", 0.0, repeats),
        ]
    header = ("id", "kernel", "rate", "ratio", "goal")
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(5)]
    for row in (header, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
