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

from numerics import Accumulator, Certificate, cast, matmul, parse_format

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from oracles.philox import draws
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
    draw = draws(0, 0, 24)
    expected = [
        round_rational(float(value), parse_format(text), rounding, draw=draw(i, 0))
        for i, value in enumerate(x)
    ]
    np.testing.assert_array_equal(cast(x, text, rounding=rounding, seed=0), expected)


def check_matmul(operand: str, accumulator: str, path: str) -> None:
    """Bits of a product of 5 x 150 by 150 x 6 against rationals, on the path that is timed."""
    rng = np.random.default_rng(2)
    a, b = (cast(rng.normal(size=shape).astype(np.float32), operand) for shape in ((5, 150), (150, 6)))
    parsed = Accumulator.parse(accumulator)
    assert Certificate.of(a, b, parsed).path == path
    expected = matmul_rational(
        a.tolist(),
        b.tolist(),
        parsed.format,
        parsed.rounding.mode.value,
        chunk=parsed.chunk,
        draws=draws(0, 0, 24),
    )
    np.testing.assert_array_equal(matmul(a, b, parsed, seed=0), expected)


def cast_row(text: str, rounding: str, elements: int, repeats: int) -> tuple[str, ...]:
    check_cast(text, rounding)
    x = np.random.default_rng(0).normal(0.0, 4.0, elements).astype(np.float32)
    out = np.empty_like(x)
    taken, copied = medians(
        lambda: cast(x, text, rounding=rounding, seed=0, out=out), lambda: np.copyto(out, x), repeats
    )
    name = f"cast {rounding} {text}, {elements} float32"
    return name, f"{elements / taken / 1e9:.3f} GElem/s", "np.copyto", f"{copied / taken:.3f}"


def matmul_row(operand: str, accumulator: str, size: int, path: str, repeats: int) -> tuple[str, ...]:
    check_matmul(operand, accumulator, path)
    rng = np.random.default_rng(0)
    a, b = (cast(rng.normal(size=(size, size)).astype(np.float32), operand) for _ in range(2))
    chosen = Certificate.of(a, b, Accumulator.parse(accumulator)).path
    assert chosen == path, f"{operand} into {accumulator} took {chosen}, not {path}"
    taken, reference = medians(lambda: matmul(a, b, accumulator, seed=0), lambda: a @ b, repeats)
    name = f"matmul {operand} into {accumulator}, {size}^3, {path} path"
    return name, f"{size**3 / taken / 1e9:.4f} GMAC/s", "float32 a @ b", f"{reference / taken:.4f}"


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
        rows = [
            cast_row(text, rounding, 1 << 22, repeats)
            for rounding in ("nearest-even", "stochastic")
            for text in ("e5m2", "e4m3fn", "e6m9")
        ]
        rows += [
            matmul_row("e4m3fn", "e6m9", 512, "float32", repeats),
            matmul_row("e4m3fn", "e6m9 chunk=64", 512, "float32", repeats),
            matmul_row("e4m3fn", "e6m3", 512, "float64", repeats),
            matmul_row("e4m3fn", "e6m9 rounding=toward-zero", 96, "exact", repeats),
            matmul_row("e4m3fn", "e6m9 rounding=stochastic", 96, "exact", repeats),
        ]
    header = ("kernel", "rate", "reference", "rate / rate of reference")
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(4)]
    for row in (header, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
