"""Three ways to apply the theory to chunked sums, scored against published bit-widths, and what they cost.

    python benchmarks/bench_retention.py

The published rows are of ResNet-18 on ImageNet, batch 256, 5 product bits, chunk 64 (arXiv 1901.06588, table
1). The density of their products was not published, so each rule is scored twice: with dense products, and
with the one density that suits a row best. Nothing is fitted: a rule has the parameters of the paper.
"""

from __future__ import annotations

import time

import numpy as np

from numerics.theory import required_bits, variance_lost

ROWS = (
    ("forward, residual block 1", 576, (7, 5)),
    ("forward, residual block 4", 4608, (9, 6)),
    ("gradient, first convolution", 3_211_264, (15, 10)),
)
CHUNK = 64
DENSITIES = np.geomspace(0.01, 1.0, 101)


def bits_of(rule: str, length: int, density: float) -> tuple[int, int]:
    plain = required_bits(length, density=density)
    return plain, required_bits(length, chunk=CHUNK, density=density, chunk_rule=rule)


def main() -> None:
    print(f"{'rule':<8} {'row':<28} {'published':<10} {'density 1':<10} {'off':>3}  {'best density':<22} off")
    for rule in ("outer", "total", "levels"):
        scores = np.zeros((2, 2), int)  # dense or best density; exact or bits off
        for name, length, published in ROWS:
            found = [bits_of(rule, length, z) for z in DENSITIES]
            off = [sum(abs(x - y) for x, y in zip(bits, published, strict=True)) for bits in found]
            best = [z for z, bits in zip(DENSITIES, off, strict=True) if bits == min(off)]
            for i, distance in enumerate((off[-1], min(off))):
                scores[i] += distance == 0, distance
            where = f"{best[0]:.2f} to {best[-1]:.2f}"
            dense = f"{published!s:<10} {found[-1]!s:<10} {off[-1]:>3}"
            print(f"{rule:<8} {name:<28} {dense}  {where:<22} {min(off)}")
        print(
            f"{rule:<8} score: dense {scores[0, 0]} of {len(ROWS)} rows exact, {scores[0, 1]} bits off; "
            f"best density {scores[1, 0]} exact, {scores[1, 1]} off\n"
        )
    print("milliseconds of a value that is not kept, by length")
    for exponent in (10, 15, 20, 25, 30):
        spent = []
        for i in range(9):
            began = time.perf_counter()
            variance_lost(exponent // 2 + 3, 5, 2.0**exponent + i * 1e-3)
            spent.append(time.perf_counter() - began)
        print(f"2**{exponent:<3} {1e3 * sorted(spent)[4]:.2f}")


if __name__ == "__main__":
    main()
