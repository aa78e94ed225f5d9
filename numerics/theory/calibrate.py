"""Emulate sums of every length under every calibrated accumulator, and store what they lose.

    python -m numerics.theory.calibrate [--out FILE] [--parts FOLDER]

Takes about half an hour on one core. Each (product bits, length) is stored in the folder of parts when it is
finished, so a run that was stopped goes on. Every number depends on its own seed alone, and
`tests/numerics/theory/test_calibration.py` computes some of them again.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from numerics.accumulator import Accumulator
from numerics.theory.calibration import (
    ACC_BITS,
    CHUNKS,
    FLOOR,
    LENGTHS,
    PRODUCT_BITS,
    ROUNDINGS,
    TABLE,
    encode_table,
)
from numerics.theory.emulated import Sums

_SATURATED = 0.8  # relative square error beyond which a longer sum is not measured with as few bits
SAMPLES = 4096  #: sums of each kind


def accumulator_of(rounding: str, chunk: int, acc_bits: int) -> Accumulator:
    """An accumulator with as many exponent bits as there may be: only the significand loses."""
    chunked = f" chunk={chunk}" if chunk > 1 else ""
    return Accumulator.parse(f"e8m{acc_bits} rounding={rounding}{chunked}")


def sums_of(product_bits: int, length: int) -> Sums:
    """Sums of the table of one kind and length."""
    seed = 100 * product_bits + LENGTHS.index(length)
    return Sums(length, product_bits=product_bits, samples=SAMPLES, seed=seed)


def part(
    product_bits: int, length: int, shorter: Float64[np.ndarray, "2 roundings chunks bits"] | None
) -> Float64[np.ndarray, "2 roundings chunks bits"]:
    """Square errors and ratios of one length; NaN where they are not worth measuring.

    `shorter` is that of the length before, which tells where so few bits are hopeless.
    """
    sums = sums_of(product_bits, length)
    result = np.full((2, len(ROUNDINGS), len(CHUNKS), len(ACC_BITS)), np.nan)
    for (i, rounding), (j, chunk) in itertools.product(enumerate(ROUNDINGS), enumerate(CHUNKS)):
        if length <= chunk > 1:
            result[:, i, j] = result[:, i, 0]
            continue
        for k, acc_bits in enumerate(ACC_BITS):
            if shorter is not None and _hopeless(shorter[0, i, j], k):
                continue
            kept = sums.under(accumulator_of(rounding, chunk, acc_bits))
            result[:, i, j, k] = kept.error.value**2, kept.variance.value
            if result[0, i, j, k] < FLOOR:
                break
    return result


def _hopeless(errors: Float64[np.ndarray, " bits"], k: int) -> bool:
    """Whether a shorter sum lost nearly all with so few bits, or was not measured for that reason."""
    measured = np.flatnonzero(~np.isnan(errors))
    return bool(k < measured[0] or errors[k] > _SATURATED)


def main() -> None:
    """Compute all parts that are missing, and write the table."""
    parser = argparse.ArgumentParser(description="Emulate sums under every calibrated accumulator.")
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--parts", type=Path, default=Path("runs/calibration"))
    options = parser.parse_args()
    options.parts.mkdir(parents=True, exist_ok=True)
    whole = []
    for product_bits in PRODUCT_BITS:
        shorter = None
        for length in LENGTHS:
            file = options.parts / f"{product_bits}-{length}.npy"
            if not file.exists():
                found = part(product_bits, length, shorter)
                with file.with_suffix(".tmp").open("wb") as stream:
                    np.save(stream, found)
                file.with_suffix(".tmp").rename(file)
                print(f"{product_bits} product bits, length {length}", flush=True)  # noqa: T201
            shorter = np.load(file)
            whole.append(shorter)
    table = np.stack(whole).reshape(len(PRODUCT_BITS), len(LENGTHS), *whole[0].shape)
    options.out.write_bytes(encode_table(table))


if __name__ == "__main__":
    main()
