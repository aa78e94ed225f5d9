"""How fast packed tensors are beside a copy of the float32 array: ratios in one process, on one thread.

For n = 1..16 bits: pack (codes to the bit string, codes checked), codes (back), and unpack (to float32).
Every call is timed in turns with ``np.copyto`` of as many float32 elements, after a warm-up that also
compiles; the ratio is that of the medians. All bits that were timed are checked in the same run: against
``np.packbits`` of the codes bit by bit, and the values against a look-up in the values of the format.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np

from numerics import parse_format
from numerics.codes import decode
from numerics.packed import PackedTensor

NAMES = "u1.0 s1.0 e1m1none e2m1 e2m2 e3m2 e3m3 e4m3fn e4m4 e5m4 e5m5 e6m5 e6m6 e6m7 e6m8 bf16"
FORMATS = NAMES.split()

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


def bit_string(codes: np.ndarray, bits: int) -> np.ndarray:
    """The bit string by numpy alone, some elements at a time."""
    step = 1 << 16  # a multiple of eight: every part is whole bytes
    parts = [
        np.packbits(codes[i : i + step, None] >> np.arange(bits, dtype=codes.dtype) & 1, bitorder="little")
        for i in range(0, codes.size, step)
    ]
    return np.concatenate(parts)


def row(bits: int, elements: int, repeats: int) -> tuple[str, ...]:
    fmt = parse_format(FORMATS[bits - 1])
    assert fmt.bits == bits
    dtype = np.uint8 if bits <= 8 else np.uint16
    codes = np.random.default_rng(bits).integers(0, 1 << bits, elements, dtype)
    packed = PackedTensor.from_codes(codes, bits, fmt)
    values, source, copy = (np.ones(elements, np.float32) for _ in range(3))

    np.testing.assert_array_equal(packed.data, bit_string(codes, bits))
    np.testing.assert_array_equal(packed.codes(), codes)
    packed.unpack(out=values)
    table = decode(np.arange(1 << bits).astype(dtype), fmt)
    np.testing.assert_array_equal(values.view(np.uint32), table[codes].view(np.uint32))

    cells = []
    for work in (
        lambda: PackedTensor.from_codes(codes, bits, fmt),
        packed.codes,
        lambda: packed.unpack(out=values),
    ):
        taken, copied = medians(work, lambda: np.copyto(copy, source), repeats)
        cells += [f"{elements / taken / 1e9:.2f}", f"{copied / taken:.2f}"]
    return str(bits), str(fmt), *cells


def machine() -> str:
    """Processor, versions and load."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text(encoding="utf-8").splitlines()
        model = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model
        )
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{model}, {os.cpu_count()} cores{load}; Python {platform.python_version()}, "
        f"numpy {np.__version__}, Numba {numba.__version__}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each, at least 5")
    parser.add_argument("--elements", type=int, default=1 << 23, help="elements of a tensor")
    arguments = parser.parse_args()
    print(machine())
    print(f"{arguments.elements} elements; GElem/s, and the rate over that of a float32 np.copyto")
    header = ("bits", "format", "pack", "ratio", "codes", "ratio", "unpack", "ratio")
    repeats = max(5, arguments.repeats)
    table = [header, *(row(bits, arguments.elements, repeats) for bits in range(1, 17))]
    widths = [max(len(cells[i]) for cells in table) for i in range(len(header))]
    for cells in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))


if __name__ == "__main__":
    main()
