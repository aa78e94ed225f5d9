"""Sequential and chunked sums in a floating-point register: the choice of kernel."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float
from numba import config

from numerics._kernels import loops, panels, random, tiles, vectors
from numerics._kernels import rounding as modes
from numerics._packing import over_panels, pack
from numerics._target import Target, full_setting
from numerics.accumulator import Accumulator
from numerics.certificate import Certificate

_BLOCK = 512  # columns per pass of the plain loops: the running sums stay in the first-level cache


def sequential(
    a: np.ndarray, b: np.ndarray, accumulator: Accumulator, key: tuple[int, int, int]
) -> np.ndarray:
    """``a @ b`` for checked operands, neither of them empty; (m, n) float32.

    `key` is seed, stream and the number of the first output element.
    """
    certificate = Certificate.of(a, b, accumulator)
    target = Target.of(accumulator.format, accumulator.rounding)
    chunk = min(accumulator.chunk or a.shape[1], a.shape[1])
    to_nearest = target.mode == modes.NEAREST_EVEN
    plain = certificate.path in ("float32", "float64") and to_nearest
    if certificate.path == "exact" or (config.DISABLE_JIT and not plain):
        out = np.empty((a.shape[0], b.shape[1]), np.float32)
        left, right = np.ascontiguousarray(a), np.ascontiguousarray(b)
        loops.gemm_exact(left, right, out, chunk, target.scalars(), *key)
        return out
    # Lanes run over columns; a result too narrow for them is computed transposed, with the same sums.
    flip = b.shape[1] < 2 * vectors.LANES_32 and a.shape[0] > b.shape[1]
    left, right = (b.T, a.T) if flip else (a, b)
    if config.DISABLE_JIT:
        out = _loops(left, right, chunk, target.frac_bits, wide=certificate.path == "float64")
    elif target.mode == modes.STOCHASTIC:
        steps = (1, b.shape[1]) if flip else (b.shape[1], 1)
        words = random.stream_key(*key[:2])
        out = _stochastic(left, right, chunk, target, certificate.ceiling, (key[2], *steps), words)
    else:
        out = _in_tiles(left, right, chunk, *_setting(certificate, target))
    return out.T if flip else out


def _setting(certificate: Certificate, target: Target) -> tuple[Any, int]:
    """Kind of tile, and the direction in which the processor must round."""
    frac_bits, shift = target.frac_bits, 23 - target.frac_bits
    if certificate.path == "float64":
        return tiles.Nearest64(52 - frac_bits), vectors.TO_NEAREST
    if certificate.path == "float32-full":
        return tiles.Full32(*full_setting(target)), vectors.TO_NEAREST
    unit = 1 << shift
    cut: dict[int, tuple[int, int, int]] = {
        modes.TOWARD_ZERO: (0, 0, vectors.TOWARD_ZERO),
        modes.NEAREST_AWAY: (unit >> 1, unit >> 1, vectors.TOWARD_ZERO),
        modes.UP: (unit - 1, 0, vectors.UPWARD),
        modes.DOWN: (0, unit - 1, vectors.DOWNWARD),
    }
    if target.mode not in cut:
        return tiles.Nearest32(shift), vectors.TO_NEAREST
    positive, negative, control = cut[target.mode]
    return tiles.Biased32(positive, negative, -unit), control


def _in_tiles(
    a: np.ndarray, b: np.ndarray, chunk: int, setting: tuple[float, ...], control: int
) -> Float[np.ndarray, "m n"]:
    """Share the panels of columns among threads."""
    top, from_zero = tiles.height_of(setting), isinstance(setting, tiles.Full32)
    wide = isinstance(setting, tiles.Nearest64)
    packed_a, packed_b = pack(a, b, top)
    out = (np.zeros if from_zero else np.empty)((len(a), packed_b.shape[0] * packed_b.shape[2]), np.float32)
    over_panels(
        partial(
            tiles.gemm, packed_a, packed_b, out, chunk, top, setting, control, 1 if wide else 2, from_zero
        ),
        packed_b,
        len(a),
    )
    return out[:, : b.shape[1]]


def _stochastic(
    a: np.ndarray,
    b: np.ndarray,
    chunk: int,
    target: Target,
    ceiling: float,
    elements: tuple[int, int, int],
    key: tuple[int, int],
) -> Float[np.ndarray, "m n"]:
    """The same with a random word for each addition of each output element."""
    bits, frac_bits = target.random_bits, target.frac_bits
    drop, shift, wide = 32, 23 - frac_bits, 52 - frac_bits
    narrow = tiles.Random32(min(drop - shift, 31), _upper(shift, bits), -1 << shift)
    low = (1 << wide) - 1
    undecided = low if bits else 0xFFFFFFFF << max(wide - 32, 0)
    doubtful = tiles.Random64(64 - wide, _upper(wide, bits), -1 << wide, low, min(low, undecided))
    exact_narrow = bits == modes.EXACT or bits > shift
    # Beside r bits a float64 has room for the 24 bits of any format, but not for 32 of them.
    exact_wide = bits == modes.EXACT or bits > wide

    top = tiles.height_of(narrow)
    packed_a, packed_b = pack(a, b, top)
    out = np.empty((len(a), packed_b.shape[0] * packed_b.shape[2]), np.float32)
    hashes = np.empty(out.shape, np.uint32)
    tiles.fill_hashes(hashes, *elements)
    chunks = -(-a.shape[1] // chunk)
    steps = np.empty((a.shape[1] + chunks, 2), np.uint32)
    tiles.fill_steps(steps, *key)
    stopped = np.zeros((len(a), packed_b.shape[0]), np.int64)
    work = partial(
        tiles.gemm_random,
        packed_a,
        packed_b,
        out,
        chunk,
        top,
        narrow,
        doubtful,
        (exact_narrow, exact_wide),
        ceiling,
        hashes,
        steps,
        stopped,
    )
    over_panels(work, packed_b, len(a))
    step = chunk if chunk < a.shape[1] else min(chunk, tiles.DEPTH)
    for i, p in np.argwhere(stopped):
        height = panels.height_at(int(i), len(a), top)
        at = (int(i), height, int(p), 2, int(stopped[i, p]) - 1)
        tiles.finish_exactly(packed_a, packed_b, out, chunk, step, at, target.scalars(), elements, key)
    return out[:, : b.shape[1]]


def _upper(width: int, bits: int) -> int:
    """Mask of the upper `bits` of `width` bits, of all of them for 0."""
    return (1 << width) - (1 << max(width - (bits or width), 0))


def _loops(
    a: np.ndarray, b: np.ndarray, chunk: int, frac_bits: int, *, wide: bool
) -> Float[np.ndarray, "m n"]:
    """The same by plain loops, which run without a compiler."""
    dtype, kernel = (np.float64, loops.gemm_f64) if wide else (np.float32, loops.gemm_f32)
    out = np.empty((a.shape[0], b.shape[1]), np.float32)
    kernel(np.ascontiguousarray(a, dtype), np.ascontiguousarray(b, dtype), out, chunk, frac_bits, _BLOCK)
    return out
