"""How fast codes and packed tensors are beside a copy of the float32 array: ratios on one thread.

Three tables. For n = 1..16 bits: pack (codes to the bit string, codes checked), codes (back), and unpack
(to float32). For named formats: encode and decode. For block formats: cast, pack (rounding, codes and
bit strings) and unpack. Every call is timed in turns with ``np.copyto`` of as many float32 elements,
after a warm-up that also compiles; the ratio is that of the medians.

Bits are checked in the same run: all bit strings of the first table against ``np.packbits`` of the codes
bit by bit, and the values against a look-up; codes of the others on a small case against exact
rationals, decoding of all that was encoded against the cast.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from timing import machine, medians

from numerics import NAMED_FORMATS, PackedTensor, cast, decode, encode, parse_format

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from oracles.blocks import EMAX, bit_string, code_of, mx_blocks, nv_blocks
from oracles.rational import round_rational

NAMES = "u1.0 s1.0 e1m1none e2m1 e2m2 e3m2 e3m3 e4m3fn e4m4 e5m4 e5m5 e6m5 e6m6 e6m7 e6m8 bf16"
WIDTHS = NAMES.split()  # the format of n bits has place n - 1
FORMATS = ["e4m3fn", "e5m2", "e2m1", "e4m3fnuz", "int8", "binary16", "bf16", "e6m9"]
BLOCKS = [*EMAX, "nvfp4"]


def rates(works: Iterable[Callable[[], object]], copy: Callable[[], object], elements: int, repeats: int):
    """Cells of a row: GElem/s of each call and its rate over that of the copy."""
    for work in works:
        taken, copied = medians(work, copy, repeats)
        yield f"{elements / taken / 1e9:.2f}"
        yield f"{copied / taken:.2f}"


def copy_of(elements: int) -> Callable[[], object]:
    source, copy = np.ones(elements, np.float32), np.ones(elements, np.float32)
    return lambda: np.copyto(copy, source)


def bits_of(codes: np.ndarray, bits: int) -> np.ndarray:
    """The bit string by numpy alone, some elements at a time."""
    step = 1 << 16  # a multiple of eight: every part is whole bytes
    parts = [
        np.packbits(codes[i : i + step, None] >> np.arange(bits, dtype=codes.dtype) & 1, bitorder="little")
        for i in range(0, codes.size, step)
    ]
    return np.concatenate(parts)


def packing_row(bits: int, elements: int, repeats: int) -> tuple[str, ...]:
    fmt = parse_format(WIDTHS[bits - 1])
    assert fmt.bits == bits
    dtype = np.uint8 if bits <= 8 else np.uint16
    codes = np.random.default_rng(bits).integers(0, 1 << bits, elements, dtype)
    packed = PackedTensor.from_codes(codes, bits, fmt)
    values = np.ones(elements, np.float32)

    np.testing.assert_array_equal(packed.data, bits_of(codes, bits))
    np.testing.assert_array_equal(packed.codes(), codes)
    packed.unpack(out=values)
    table = decode(np.arange(1 << bits).astype(dtype), fmt)
    np.testing.assert_array_equal(values.view(np.uint32), table[codes].view(np.uint32))

    works = (
        lambda: PackedTensor.from_codes(codes, bits, fmt),
        packed.codes,
        lambda: packed.unpack(out=values),
    )
    return str(bits), str(fmt), *rates(works, copy_of(elements), elements, repeats)


def check_codes(text: str) -> None:
    """Codes of 500 elements against rationals."""
    fmt = parse_format(text)
    x = np.random.default_rng(1).normal(0.0, 4.0, 500).astype(np.float32)
    expected = [code_of(round_rational(float(value), fmt, overflow="saturate"), fmt) for value in x]
    np.testing.assert_array_equal(encode(x, text), expected)


def coding_row(text: str, elements: int, repeats: int) -> tuple[str, ...]:
    check_codes(text)
    x = np.random.default_rng(0).normal(0.0, 4.0, elements).astype(np.float32)
    codes = encode(x, text)
    np.testing.assert_array_equal(decode(codes, text).view(np.uint32), cast(x, text).view(np.uint32))
    works = (lambda: encode(x, text), lambda: decode(codes, text))
    return text, *rates(works, copy_of(elements), elements, repeats)


def check_blocks(name: str) -> None:
    """Bit strings of 4 rows of 100 elements against rationals."""
    fmt = NAMED_FORMATS[name]
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(4, 100)) * 2.0 ** rng.integers(-20, 20, (4, 1))).astype(np.float32)
    packed = PackedTensor.pack(x, name)
    if name in EMAX:
        blocks = [block for row in x for block in mx_blocks(row, fmt.element, EMAX[name], "nearest-even")]
        scales = [shared + 127 for shared, _ in blocks]
    else:
        tensor, rows = nv_blocks(x, fmt, "nearest-even")
        assert packed.tensor_scale == tensor
        blocks = [block for row in rows for block in row]
        scales = [code_of(scale, fmt.scale) for scale, _ in blocks]
    codes = [code_of(value, fmt.element) for _, elements in blocks for value in elements]
    assert packed.data.tobytes() == bit_string(codes, fmt.element.bits)
    assert packed.scales.data.tolist() == scales


def block_row(name: str, elements: int, repeats: int) -> tuple[str, ...]:
    check_blocks(name)
    x = np.random.default_rng(0).normal(0.0, 4.0, elements).astype(np.float32).reshape(-1, 4096)
    packed, out = PackedTensor.pack(x, name), np.empty_like(x)
    np.testing.assert_array_equal(packed.unpack().view(np.uint32), cast(x, name).view(np.uint32))
    works = (
        lambda: cast(x, name, out=out),
        lambda: PackedTensor.pack(x, name),
        lambda: packed.unpack(out=out),
        lambda: cast(x, name, rounding="stochastic", seed=0, out=out),
    )
    return name, *rates(works, copy_of(elements), elements, repeats)


def show(header: str, rows: Iterable[tuple[str, ...]]) -> None:
    table = [tuple(header.split()), *rows]
    widths = [max(len(cells[i]) for cells in table) for i in range(len(table[0]))]
    print()
    for cells in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each, at least 5")
    parser.add_argument("--elements", type=int, default=1 << 23, help="of a tensor, a multiple of 4096")
    arguments = parser.parse_args()
    n, repeats = arguments.elements, max(5, arguments.repeats)
    print(machine())
    print(f"{n} elements; GElem/s, and the rate over that of a float32 np.copyto")
    show(
        "bits format pack ratio codes ratio unpack ratio",
        (packing_row(bits, n, repeats) for bits in range(1, 17)),
    )
    show("format encode ratio decode ratio", (coding_row(text, n, repeats) for text in FORMATS))
    show(
        "blocks cast ratio pack ratio unpack ratio stochastic ratio",
        (block_row(name, n, repeats) for name in BLOCKS),
    )


if __name__ == "__main__":
    main()
