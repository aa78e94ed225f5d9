"""Predicted bits put to the test: real or sampled operands, emulated at the bits and one fewer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float32

from numerics import Accumulator, FloatFormat, cast, matmul
from numerics.theory.emulated import Retention, compare
from studies.predict.bits import Arithmetic

_ROOM = 1 << 25  # elements of an operand
_SIDE = 64  # rows and columns of a product

COLUMNS = (
    "layer",
    "gemm",
    "length",
    "operands",
    "chunk",
    "bits",
    "retained_variance",
    "relative_error",
    "relative_error_one_bit_fewer",
    "verdict",
)

#: Operands of a product of a layer, (rows, k) and (k, columns) float32.
Operands = Mapping[tuple[str, str], tuple[Float32[np.ndarray, "m k"], Float32[np.ndarray, "k n"]]]


@dataclass(frozen=True, kw_only=True)
class _Case:
    layer: str
    gemm: str
    length: int
    density: float


def most_demanding(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The `count` products that need the most bits, the longest first; equal ones once."""
    ordered = table.sort_values(
        ["bits_emulated", "bits_emulated_chunked", "length"], ascending=False, kind="stable"
    )
    return ordered.drop_duplicates(["gemm", "length", "density"]).head(count)


def verify(
    table: pd.DataFrame, arithmetic: Arithmetic, count: int, *, operands: Operands, seed: int
) -> pd.DataFrame:
    """Emulate the most demanding products at the predicted bits and one fewer, plain and chunked.

    Parameters
    ----------
    table
        Of `studies.predict.bits.predict`.
    operands
        Real ones, where there are any. Each is scaled by a power of two so that its largest magnitude just
        fits its format, and rounded to it. Other products have normal operands of the format, and so many
        zeros in the first as the density asks.

    Returns
    -------
    DataFrame
        `COLUMNS`; `relative_error` is a root mean square over that of the exact sums.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for _, row in most_demanding(table, count).iterrows():
        case = _Case(
            layer=row["layer"], gemm=row["gemm"], length=int(row["length"]), density=float(row["density"])
        )
        given = operands.get((case.layer, case.gemm))
        real = given is not None and given[0].shape[1] == case.length
        a, b = given if real and given is not None else _sampled(case, rng)
        a, b = (_on(x, format_) for x, format_ in zip((a, b), arithmetic.operands, strict=True))
        exact = a.astype(np.float64) @ b.astype(np.float64)
        if not exact.any():
            continue
        for chunk, column in ((None, "bits_emulated"), (arithmetic.chunk, "bits_emulated_chunked")):
            bits = int(row[column])
            kept, fewer = (
                _kept(a, b, exact, width, chunk, arithmetic, seed) for width in (bits, max(bits - 1, 1))
            )
            rows.append(
                (
                    case.layer,
                    case.gemm,
                    case.length,
                    "real" if real else "sampled",
                    chunk or 0,
                    bits,
                    kept.variance.value,
                    kept.error.value,
                    fewer.error.value,
                    _verdict(kept, fewer, arithmetic, bits),
                )
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _verdict(kept: Retention, fewer: Retention, arithmetic: Arithmetic, bits: int) -> str:
    allowed = np.sqrt(arithmetic.allowed)
    if not kept.error.value <= allowed:
        return "too few" if kept.error.low > allowed else "at the limit"
    if fewer.error.value > allowed:
        return "as few as can be"
    return "as few as the products" if bits == arithmetic.product_bits else "one to spare"


def _kept(
    a: np.ndarray,
    b: np.ndarray,
    exact: np.ndarray,
    bits: int,
    chunk: int | None,
    arithmetic: Arithmetic,
    seed: int,
) -> Retention:
    chunked = "" if chunk is None else f" chunk={chunk}"
    accumulator = Accumulator.parse(f"e8m{bits} rounding={arithmetic.rounding}{chunked}")
    found = matmul(a, b, accumulator, seed=seed)
    return compare(exact.ravel(), found.astype(np.float64).ravel())


def _sampled(case: _Case, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    side = max(8, min(_SIDE, _ROOM // case.length))
    a = rng.standard_normal((side, case.length), np.float32)
    b = rng.standard_normal((case.length, side), np.float32)
    if case.density < 1.0:
        a *= rng.random(a.shape, np.float32) < case.density
    return a, b


def _on(x: np.ndarray, format_: FloatFormat) -> np.ndarray:
    """Values of the format, scaled by a power of two to fill its range; float32 exponents set the end."""
    largest = float(np.abs(x).max(initial=0.0))
    if largest == 0.0:
        return x
    exponent = int(np.floor(np.log2(min(format_.info().max, 2.0**30) / largest)))
    rounded: np.ndarray = cast(np.ldexp(x, exponent).astype(np.float32), format_, overflow="saturate")
    return rounded
