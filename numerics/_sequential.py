"""Sequential and chunked sums in a floating-point register: the choice of kernel."""

from __future__ import annotations

from functools import partial
from threading import local

import numpy as np
from jaxtyping import Float, Int32
from numba import config

from numerics import threads
from numerics._kernels import loops, tiles
from numerics._target import Target
from numerics.accumulator import Accumulator
from numerics.certificate import Certificate

_BLOCK = 512  # columns per pass of the plain loops: the running sums stay in the first-level cache
_CERTIFIED = np.empty(0, np.int32)  # no setting: the sums are certified
_KEPT_BYTES = 1 << 25  # of packed operands, per thread and operand
_room = local()
_LEAST_WORK = 4_000_000  # multiply-adds worth a second thread


def sequential(a: np.ndarray, b: np.ndarray, accumulator: Accumulator, seed: int, stream: int) -> np.ndarray:
    """``a @ b`` for checked operands, neither of them empty; (m, n) float32."""
    certificate = Certificate.of(a, b, accumulator)
    target = Target.of(accumulator.format, accumulator.rounding)
    chunk = min(accumulator.chunk or a.shape[1], a.shape[1])
    if certificate.path == "exact" or (certificate.path == "float32-full" and config.DISABLE_JIT):
        out = np.empty((a.shape[0], b.shape[1]), np.float32)
        left, right = np.ascontiguousarray(a), np.ascontiguousarray(b)
        loops.gemm_exact(left, right, out, chunk, tuple(target), seed, stream)
        return out
    # Lanes run over columns; a result too narrow for them is computed transposed, with the same sums.
    flip = b.shape[1] < 2 * tiles.LANES_32 and a.shape[0] > b.shape[1]
    left, right = (b.T, a.T) if flip else (a, b)
    if certificate.path == "float32-full":
        setting = tiles.full_setting(target.frac_bits, target.emin, target.max_value, target.limits()[1])
        out = _in_tiles(left, right, chunk, target.frac_bits, setting=setting)
    else:
        compute = _loops if config.DISABLE_JIT else _in_tiles
        out = compute(left, right, chunk, target.frac_bits, wide=certificate.path == "float64")
    return out.T if flip else out


def _in_tiles(
    a: np.ndarray,
    b: np.ndarray,
    chunk: int,
    frac_bits: int,
    *,
    wide: bool = False,
    setting: Int32[np.ndarray, " s"] = _CERTIFIED,
) -> Float[np.ndarray, "m n"]:
    """Pack both operands, and share the panels of columns among threads."""
    dtype, lanes, precision = (np.float64, tiles.LANES_64, 52) if wide else (np.float32, tiles.LANES_32, 23)
    (rows, depth), columns = a.shape, b.shape[1]
    panels = -(-columns // lanes)
    packed_a = _scratch("a", rows * depth, dtype)
    packed_b = _scratch("b", panels * depth * lanes, dtype).reshape(panels, depth, lanes)
    out = (np.zeros if setting.size else np.empty)((rows, panels * lanes), dtype)
    tiles.pack_rows(a, packed_a)
    tiles.pack_columns(b, packed_b, abs(b.strides[0]) < abs(b.strides[1]))
    lift = dtype(2.0 ** (precision - frac_bits))
    parts = threads.parts(panels, work=rows * columns * depth, least=_LEAST_WORK)
    threads.run(
        [partial(tiles.gemm, packed_a, packed_b, out, chunk, lift, setting, low, high) for low, high in parts]
    )
    return out[:, :columns].astype(np.float32, copy=False)


def _scratch(name: str, size: int, dtype: type[np.floating]) -> np.ndarray:
    """Room for packed operands, kept by each thread: fresh pages cost more than the packing."""
    wanted = size * np.dtype(dtype).itemsize
    if wanted > _KEPT_BYTES:
        return np.empty(size, dtype)
    kept = getattr(_room, name, None)
    if kept is None or kept.nbytes < wanted:
        kept = np.empty(max(wanted, 1), np.uint8)
        setattr(_room, name, kept)
    return kept[:wanted].view(dtype)


def _loops(
    a: np.ndarray, b: np.ndarray, chunk: int, frac_bits: int, *, wide: bool
) -> Float[np.ndarray, "m n"]:
    """The same by plain loops, which run without a compiler."""
    dtype, kernel = (np.float64, loops.gemm_f64) if wide else (np.float32, loops.gemm_f32)
    out = np.empty((a.shape[0], b.shape[1]), np.float32)
    kernel(np.ascontiguousarray(a, dtype), np.ascontiguousarray(b, dtype), out, chunk, frac_bits, _BLOCK)
    return out
