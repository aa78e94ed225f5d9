"""What rounding really costs a sum: a table of emulated sums, interpolated.

The table holds the relative square error and the second-moment ratio of sums of normal products
(`numerics.theory.emulated`), for each rounding, fraction bits of the products and of the accumulator, chunk
and length. `numerics.theory.calibrate` computes it.

Between lengths the logarithm of the error is linear in the logarithm of the length. A sum in chunks of c
loses about as much as a plain one of ``c + n / c`` products: what it loses more or less than that is
interpolated over the logarithm of the chunk, so a few chunks are enough. Products of zero change no sum:
they shorten the chunks and with them the sum. Beyond the longest sum of the table, four times as many
products lose as much as one bit less: a random walk has no scale of its own.
"""

from __future__ import annotations

import io
import math
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float64

ROUNDINGS: Final = ("nearest-even", "nearest-away", "toward-zero", "down", "stochastic")
PRODUCT_BITS: Final = (1, 3, 5, 7, 9, 11, 15, 21)
CHUNKS: Final = (1, 4, 16, 64, 256, 1024)  # 1: none
LENGTHS: Final = tuple(2**i for i in range(19))
ACC_BITS: Final = tuple(range(1, 24))
FLOOR: Final = 2.0**-24  # square errors below are not measured

TABLE = Path(str(resources.files("numerics.theory") / "data" / "calibration.npz"))

_STEPS = 1000  # stored units of a binary order, and of a ratio
_NOTHING = -(1 << 15)
_LEAST = 2.0**-30  # an error of zero, stored
_LOG_CHUNKS = np.log2(CHUNKS)


class Loss(NamedTuple):
    """What a sum loses with ``ACC_BITS`` fraction bits of its accumulator.

    Attributes
    ----------
    log2_error
        Binary logarithm of the relative square error.
    retention
        Second-moment ratio.
    """

    log2_error: Float64[np.ndarray, " bits"]
    retention: Float64[np.ndarray, " bits"]


def calibrated_rounding(rounding: str) -> str:
    """Rounding of the table that stands for `rounding`: of sums of mean 0, up is the mirror of down.

    Raises
    ------
    ValueError
        There is none.
    """
    found = "down" if rounding == "up" else rounding
    if found not in ROUNDINGS:
        raise ValueError(
            f"rounding must be one of the calibrated {', '.join((*ROUNDINGS, 'up'))}, got {rounding!r}; "
            "emulated_bits measures any other"
        )
    return found


def loss(
    rounding: str, product_bits: int, length: float, *, chunk: int | None = None, density: float = 1.0
) -> Loss:
    """Interpolate the table.

    Parameters
    ----------
    rounding
        See `calibrated_rounding`.
    product_bits
        Fraction bits of the products; more than 21 are as good as 21. Between those of the table, products
        of a bit more in an accumulator of a bit more lose a quarter of the square error.
    length, chunk, density
        As in `numerics.theory.required_bits`.
    """
    row = ROUNDINGS.index(calibrated_rounding(rounding))
    length, chunk_length = length * density, 1.0
    if chunk is not None and chunk * density < length:
        chunk_length = max(chunk * density, 1.0)
    bits = min(max(product_bits, PRODUCT_BITS[0]), PRODUCT_BITS[-1])
    high = next(i for i, known in enumerate(PRODUCT_BITS) if known >= bits)
    if PRODUCT_BITS[high] == bits:
        return _of_chunk(high, row, length, chunk_length)
    share = (bits - PRODUCT_BITS[high - 1]) / (PRODUCT_BITS[high] - PRODUCT_BITS[high - 1])
    low, top = (
        _as_with(bits, PRODUCT_BITS[i], _of_chunk(i, row, length, chunk_length)) for i in (high - 1, high)
    )
    return Loss(*(share * y + (1.0 - share) * x for x, y in zip(low, top, strict=True)))


def _as_with(bits: int, known: int, found: Loss) -> Loss:
    """Loss of products of other bits: as many more in the accumulator too are a finer grid, no other sum."""
    shift = bits - known
    place = np.arange(len(ACC_BITS)) - shift
    inside = np.clip(place, 0, len(ACC_BITS) - 1)
    # Where there is no such number of bits the slope goes on.
    errors = found.log2_error[inside] - 2.0 * shift + 2.0 * (inside - place)
    return Loss(errors, found.retention[inside])


def _of_chunk(kind: int, row: int, length: float, chunk: float) -> Loss:
    """Loss of a sum in chunks of any length."""
    plain = _of_length(kind, row, 0, _alike(length, chunk))
    if chunk == 1.0:
        return plain
    place = float(np.interp(math.log2(chunk), _LOG_CHUNKS, range(len(CHUNKS))))
    low = min(math.floor(place), len(CHUNKS) - 2)
    found = [*plain]
    for j, share in ((low, low + 1.0 - place), (low + 1, place - low)):
        if 1 < CHUNKS[j] < length:
            alike = _of_length(kind, row, 0, _alike(length, CHUNKS[j]))
            there = _of_length(kind, row, j, length)
            found = [x + share * (y - z) for x, y, z in zip(found, there, alike, strict=True)]
    return Loss(*found)


def _alike(length: float, chunk: float) -> float:
    """Length of a plain sum that loses about as much."""
    return length if chunk <= 1.0 or chunk >= length else chunk + length / chunk


def _of_length(kind: int, row: int, column: int, length: float) -> Loss:
    """Loss of a sum of any length, for a chunk of the table."""
    place = math.log2(max(length, 1.0))
    shorter = max(0, math.ceil((place - (len(LENGTHS) - 1)) / 2.0))  # by powers of four, and bits as many
    place -= 2.0 * shorter
    low = min(math.floor(place), len(LENGTHS) - 2)
    share = place - low
    found = []
    for table, hopeless in zip(_tables(), (0.0, 0.0), strict=True):
        part = table[kind, low : low + 2, row, column]
        values = (1.0 - share) * part[0] + share * part[1]
        found.append(np.concatenate([np.full(shorter, hopeless), values])[: len(ACC_BITS)])
    return Loss(*found)


@cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Both tables without gaps."""
    logs, ratios = decode_table(TABLE.read_bytes())
    for errors, kept in zip(
        logs.reshape(-1, logs.shape[-1]), ratios.reshape(-1, logs.shape[-1]), strict=True
    ):
        known = np.flatnonzero(~np.isnan(errors))
        first, last = known[0], known[-1]
        # With fewer bits, and with those between, a sum is hopeless: it is no better than nothing.
        between = np.isnan(errors[:last])
        errors[:last][between] = max(0.0, errors[first])
        kept[:] = np.interp(range(kept.size), known, kept[known])
        # Each bit more than were measured halves the error.
        errors[last + 1 :] = errors[last] - 2.0 * np.arange(1, errors.size - last)
    return logs, ratios


def encode_table(table: Float64[np.ndarray, "product_bits lengths 2 roundings chunks bits"]) -> bytes:
    """Bytes of a file with the table: binary logarithms of the errors, and the ratios, as int16."""
    errors, ratios = table[:, :, 0], table[:, :, 1]
    logs = np.log2(np.maximum(errors, _LEAST))
    file = io.BytesIO()
    np.savez_compressed(file, log2_error=_stored(logs), retention=_stored(ratios))
    return file.getvalue()


def _stored(values: np.ndarray) -> np.ndarray:
    steps = np.clip(np.rint(values * _STEPS), _NOTHING + 1, -_NOTHING - 1)  # a ratio of 32 is all one asks
    whole: np.ndarray = np.where(np.isnan(values), _NOTHING, steps).astype(np.int16)
    return whole


def decode_table(
    content: bytes,
) -> tuple[
    Float64[np.ndarray, "product_bits lengths roundings chunks bits"],
    Float64[np.ndarray, "product_bits lengths roundings chunks bits"],
]:
    """Binary logarithms of the errors, and ratios; NaN where nothing was measured."""
    with np.load(io.BytesIO(content)) as stored:
        logs, ratios = (
            np.where(stored[name] == _NOTHING, np.nan, stored[name] / _STEPS)
            for name in ("log2_error", "retention")
        )
    return logs, ratios
