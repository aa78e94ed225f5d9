"""How fast the kernels are beside numpy: ratios measured in one process, on one thread.

Every row times the kernel and its numpy reference in turns, after a warm-up that also compiles, and
prints the ratio of the medians of processor time. The same run first checks the bits of each
configuration on a small case against exact rationals. The last table compares one thread with two, by
the clock.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits
from timing import machine, medians

from numerics import Accumulator, Certificate, FloatFormat, FusedAdder, cast, matmul, parse_format, threads

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from oracles.orders import fused_rational
from oracles.philox import cast_draws, sum_draws
from oracles.rational import matmul_rational, round_rational


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


def check_fused(text: str, operand: str) -> None:
    """Bits of a product of 3 x 150 by 150 x 2 against rationals."""
    rng = np.random.default_rng(2)
    a, b = (cast(rng.normal(size=shape).astype(np.float32), operand) for shape in ((3, 150), (150, 2)))
    adder, fmt = FusedAdder.parse(text), FloatFormat.parse(operand)
    expected = [
        [
            fused_rational(
                row.tolist(),
                column.tolist(),
                (fmt, fmt),
                block=adder.block,
                align_bits=adder.align_bits,
                output=adder.output,
                mode=adder.rounding.mode.value,
                promote=adder.promote,
            )
            for column in b.T
        ]
        for row in a
    ]
    np.testing.assert_array_equal(matmul(a, b, text, formats=(operand, operand)), expected)


def fused_row(text: str, size: int, goal: float, repeats: int, operand: str = "e4m3fn") -> tuple[str, ...]:
    """Product of square matrices under a fused adder against numpy's in float32."""
    check_fused(text, operand)
    rng = np.random.default_rng(0)
    a, b = (cast(rng.normal(size=(size, size)).astype(np.float32), operand) for _ in range(2))
    formats = (operand, operand)
    taken, reference = medians(lambda: matmul(a, b, text, formats=formats), lambda: a @ b, repeats)
    rate = f"{size**3 / taken / 1e9:.3f} GMAC/s"
    return (
        "b7",
        f"{operand} into {text}, {size} cubed",
        rate,
        f"{reference / taken:.4f} of numpy",
        f"{goal:.2f}",
    )


def layout_rows(repeats: int) -> list[tuple[str, ...]]:
    """Transposed and strided operands against the same ones in C order, for a deep and a shallow product."""
    rows = []
    for m, n, k in ((1024, 1024, 1024), (512, 512, 48)):
        rng = np.random.default_rng(0)
        a, b = (cast(rng.normal(size=size).astype(np.float32), "e4m3fn") for size in ((m, k), (k, n)))
        layouts = {
            "a transposed": (np.asfortranarray(a), b),
            "b transposed": (a, np.asfortranarray(b)),
            "both strided": (np.repeat(a, 2, 1)[:, ::2], np.repeat(b, 2, 0)[::2]),
        }
        for what, (left, right) in layouts.items():
            taken, reference = medians(
                lambda x=left, y=right: matmul(x, y, "e6m9"), lambda x=a, y=b: matmul(x, y, "e6m9"), repeats
            )
            text = f"{what}, {m} x {n} x {k}"
            rows.append(("13", text, "", f"{taken / reference:.3f} of the time in C order", "1.10"))
    return rows


def thread_row(repeats: int) -> tuple[str, ...]:
    """1024 cubed on one thread and on two, by the clock."""
    rng = np.random.default_rng(0)
    a, b = (cast(rng.normal(size=(1024, 1024)).astype(np.float32), "e4m3fn") for _ in range(2))
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeats + 1):
        for count in (1, 2):
            threads.limit(count)
            start = time.perf_counter()
            matmul(a, b, "e6m9")
            times[count].append(time.perf_counter() - start)
    threads.limit(1)
    one, two = (float(np.median(times[count][1:])) for count in (1, 2))
    return (
        "13",
        "two threads against one, 1024 cubed",
        f"{1024**3 / two / 1e9:.2f} GMAC/s",
        f"{one / two:.3f}",
        "1.80",
    )


def chunked_row(shape: tuple[int, int, int], repeats: int) -> tuple[str, ...]:
    """Chunks of 64 against one sum of the same operands."""
    check_matmul("e4m3fn", "e6m9 chunk=64", "float32", 1.0)
    m, n, k = shape
    rng = np.random.default_rng(0)
    a, b = (cast(rng.normal(size=size).astype(np.float32), "e4m3fn") for size in ((m, k), (k, n)))
    taken, plain = medians(lambda: matmul(a, b, "e6m9 chunk=64"), lambda: matmul(a, b, "e6m9"), repeats)
    rate = f"{m * n * k / taken / 1e9:.3f} GMAC/s"
    return "b2", f"e4m3fn into e6m9 chunk=64, {m} x {n} x {k}", rate, f"{plain / taken:.3f} of b1", "0.97"


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
            *(chunked_row(shape, repeats) for shape in (cube, large)),
            matmul_row("b3", "e6m9", deep, "float32", 0.33, repeats),
            matmul_row("b3", "e6m9 chunk=64", deep, "float32", 0.33, repeats),
            matmul_row("b4", "e6m9 rounding=stochastic", cube, "float32", 0.20, repeats),
            matmul_row("b4", "e6m9 rounding=stochastic", large, "float32", 0.20, repeats),
            matmul_row("b4", "e6m9 rounding=stochastic:10", cube, "float32", 0.20, repeats),
            matmul_row("b5", "e5m10", cube, "float32-full", 0.12, repeats, operand="e5m2", scale=200.0),
            matmul_row("b5", "e5m10", cube, "float32-full", 0.12, repeats, operand="e5m2", scale=1e-3),
            matmul_row("b6", "e6m3", cube, "float64", 0.15, repeats),
            fused_row("fused products=16 align_bits=13 output=e8m13", 512, 0.18, repeats),
            fused_row("hopper-fp8", 512, 0.18, repeats),
            fused_row("hopper-fp8 promote=128", 512, 0.18, repeats),
            matmul_row("-", "e6m9 rounding=toward-zero", cube, "float32", 0.0, repeats),
            matmul_row("-", "e5m2", cube, "float64-full", 0.0, repeats),
            matmul_row(
                "-",
                "e5m10 rounding=stochastic",
                cube,
                "float64-full",
                0.0,
                repeats,
                operand="e5m2",
                scale=1e-3,
            ),
            *layout_rows(repeats),
        ]
    with threadpool_limits(limits=1, user_api="blas"):
        rows.append(thread_row(repeats))
    header = ("id", "kernel", "rate", "ratio", "goal")
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(5)]
    for row in (header, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
