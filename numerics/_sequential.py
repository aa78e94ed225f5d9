"""Sequential and chunked sums in a floating-point register: the choice of kernel."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numba import config

from numerics._kernels import batches, loops, random, roundings, tiles, vectors
from numerics._kernels import rounding as modes
from numerics._packing import SelfPacking, over_panels, pack, row_starts, scratch, share
from numerics._target import Target, full_setting
from numerics.accumulator import Accumulator
from numerics.certificate import Certificate
from numerics.rounding import Rounding

_FROM_ZERO = (roundings.Full32, roundings.Binary32)  # kinds that know the sign of a zero
_NARROW = (roundings.Random32, roundings.Sieved32)
_BLOCK = 512  # columns per pass of the plain loops: the running sums stay in the first-level cache


def sequential(
    a: np.ndarray, b: np.ndarray, accumulator: Accumulator, key: tuple[int, int, int]
) -> np.ndarray:
    """``a @ b`` for checked operands, neither of them empty; (m, n) float32.

    `key` is seed, stream and the number of the first output element.
    """
    # A strided operand is read twice, and both times faster from a copy.
    a, b = (x if x.flags.forc else np.ascontiguousarray(x) for x in (a, b))
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
    elif is_checked(certificate, target):
        steps = (1, b.shape[1]) if flip else (b.shape[1], 1)
        out = checked(left, right, chunk, target, certificate, (key[2], *steps), key[:2])
    else:
        out = _in_tiles(left, right, chunk, *setting_of(certificate, target))
    return out.T if flip else out


class Way(NamedTuple):
    """How tiles compute sums of so many products, for all products of some operands.

    Attributes
    ----------
    chunk
        Products of an inner sum, all of them without chunks.
    """

    certificate: Certificate
    target: Target
    rounding: Rounding
    chunk: int

    @classmethod
    def of(
        cls,
        accumulator: object,
        left: np.ndarray,
        right: np.ndarray,
        length: int,
    ) -> Way | None:
        """The way for sums of products of two operands, or ``None`` where tiles cannot.

        Zeros beside those of the operands change nothing that a certificate looks at.
        """
        if not isinstance(accumulator, Accumulator) or not accumulator.is_plain:
            return None
        if config.DISABLE_JIT or 0 in (left.size, right.size, length):
            return None
        left, right = (np.ascontiguousarray(x).reshape(-1) for x in (left, right))
        found = Certificate.of(left, right, accumulator, length)
        if found.path == "exact":
            return None
        target = Target.of(accumulator.format, accumulator.rounding)
        return cls(found, target, accumulator.rounding, min(accumulator.chunk or length, length))

    @property
    def is_checked(self) -> bool:
        """Whether the tiles must be checked."""
        return is_checked(self.certificate, self.target)

    @property
    def tiles(self) -> Tiles:
        """Kind of tile and what its kernels want to know of it."""
        setting, control = setting_of(self.certificate, self.target)
        wide, from_zero = isinstance(setting, roundings.Nearest64), isinstance(setting, _FROM_ZERO)
        return Tiles(setting, control, 1 if wide else 2, from_zero, wide)


class Tiles(NamedTuple):
    """Arguments of the kernels of tiles that need no check: see `numerics._kernels.tiles.gemm`.

    Attributes
    ----------
    wide
        Whether the rows of the left operand are float64.
    """

    setting: Any
    control: int
    panels: int
    from_zero: bool
    wide: bool


def is_checked(certificate: Certificate, target: Target) -> bool:
    """Whether tiles must be checked (`checked`), where a certificate allows tiles; else see `setting_of`."""
    return target.mode == modes.STOCHASTIC or certificate.path == "float64-full"


def setting_of(certificate: Certificate, target: Target) -> tuple[Any, int]:
    """Kind of tile, and the direction in which the processor must round."""
    frac_bits, shift = target.frac_bits, 23 - target.frac_bits
    if certificate.path == "binary32":
        return roundings.Binary32(32), vectors.TO_NEAREST
    if certificate.path == "float64":
        return roundings.Nearest64(52 - frac_bits), vectors.TO_NEAREST
    if certificate.path == "float32-full":
        return roundings.Full32(*full_setting(target)), vectors.TO_NEAREST
    unit = 1 << shift
    cut: dict[int, tuple[int, int, int]] = {
        modes.TOWARD_ZERO: (0, 0, vectors.TOWARD_ZERO),
        modes.NEAREST_AWAY: (unit >> 1, unit >> 1, vectors.TOWARD_ZERO),
        modes.UP: (unit - 1, 0, vectors.UPWARD),
        modes.DOWN: (0, unit - 1, vectors.DOWNWARD),
    }
    if target.mode not in cut:
        return roundings.Nearest32(shift), vectors.TO_NEAREST
    positive, negative, control = cut[target.mode]
    return roundings.Biased32(positive, negative, -unit), control


def _in_tiles(
    a: np.ndarray, b: np.ndarray, chunk: int, setting: tuple[float, ...], control: int
) -> Float[np.ndarray, "m n"]:
    """Share the panels of columns among threads."""
    from_zero, wide = isinstance(setting, _FROM_ZERO), isinstance(setting, roundings.Nearest64)
    rows, starts, columns = pack(a, b, tiles.height_of(setting))
    out = (np.zeros if from_zero else np.empty)((len(a), columns.shape[0] * columns.shape[2]), np.float32)
    rows = rows.astype(np.float64) if wide else rows
    settings = (chunk, setting, control, 1 if wide else 2, from_zero)
    over_panels(partial(tiles.gemm, rows, starts, columns, out, *settings), columns, len(a))
    return out[:, : b.shape[1]]


def batched(
    a: Float[np.ndarray, "batch m k"],
    b: Float[np.ndarray, "batch k n"],
    accumulator: object,
) -> Float[np.ndarray, "batch m n"] | None:
    """Many products in one call, or ``None`` where their tiles must be checked or there can be none."""
    if a.dtype != np.float32 or b.dtype != np.float32:
        return None
    way = Way.of(accumulator, a, b, a.shape[2])
    if way is None or way.is_checked:
        return None
    # As in one product, lanes run over columns, and over rows where there are too few columns.
    flip = b.shape[2] < 2 * vectors.LANES_32 and a.shape[1] > b.shape[2]
    left, right = (b.swapaxes(1, 2), a.swapaxes(1, 2)) if flip else (a, b)
    left, right = np.ascontiguousarray(left), np.ascontiguousarray(right)
    count, m, depth = left.shape
    n = right.shape[2]
    kind = way.tiles
    starts = row_starts(m, tiles.height_of(kind.setting))
    out = np.empty((count, m, n), np.float32)

    def work(first: int, last: int) -> None:
        panels = 2 * -(-n // (2 * vectors.LANES_32))
        width = panels * vectors.LANES_32
        narrow = scratch("a", m * depth)
        columns = scratch("b", depth * width).reshape(panels, depth, vectors.LANES_32)
        sums = scratch("sums", m * width).reshape(m, width)
        batches.gemm_batch(
            left, right, out, starts, way.chunk, kind.setting, kind.control, kind.panels, kind.from_zero,
            narrow, np.empty(narrow.size) if kind.wide else narrow,
            columns, sums, first, last,
        )  # fmt: skip

    share(work, count, count * m * depth * n)
    return out.swapaxes(1, 2) if flip else out


def checked(
    a: np.ndarray,
    b: np.ndarray | SelfPacking,
    chunk: int,
    target: Target,
    certificate: Certificate,
    elements: tuple[int, int, int],
    key: tuple[int, int],
) -> Float[np.ndarray, "m n"]:
    """The same where each tile is checked: first in float32, then in float64, at last by plain loops.

    Element i, j has the number ``elements[0] + i * elements[1] + j * elements[2]``; `key` is seed and stream.
    """
    stochastic, full = target.mode == modes.STOCHASTIC, certificate.path == "float64-full"
    attempts = _random_settings(target, full=full) if stochastic else [(_any_setting(target), True)]
    rows, starts, columns = pack(a, b, tiles.height_of(attempts[-1][0]))
    out = (np.zeros if full else np.empty)((len(a), columns.shape[0] * columns.shape[2]), np.float32)
    hashes, steps = (np.empty(shape, np.uint32) for shape in ((1, 1), (1, 2)))
    if stochastic:
        hashes = np.empty((out.shape[0], out.shape[1]), np.uint32)
        steps = np.empty((a.shape[1] - (-a.shape[1] // chunk), 2), np.uint32)
        tiles.fill_words(hashes, steps, elements, *key)
    control = vectors.TOWARD_ZERO if stochastic else vectors.TO_NEAREST
    wide_rows, depth = rows.astype(np.float64), a.shape[1]

    def attempt(kind: tuple[Any, bool], stops: np.ndarray) -> int:
        """Go on with every tile up to its stop, where that can be decided; products done in all tiles."""
        setting, exactly = kind
        panels, left = (2, rows) if isinstance(setting, _NARROW) else (1, wide_rows)
        settings = (chunk, setting, control, panels, exactly, certificate.ceiling, full)
        work = partial(tiles.gemm_checked, left, starts, columns, out, *settings, hashes, steps, done, stops)
        over_panels(work, columns, len(a))
        return int(done[:, ::2].sum())

    done = np.zeros((len(starts) - 1, columns.shape[0]), np.int64)
    ends, whole = np.full_like(done, depth), done[:, ::2].size * depth
    *narrow, wide = attempts
    before, worthwhile = 0, bool(narrow)
    while worthwhile and before < whole:
        # Where float32 fails float64 makes one step, unless float32 fails nearly everywhere.
        left, before = whole - before, attempt(narrow[0], ends)
        worthwhile = 2 * (whole - before) < left
        if worthwhile and before < whole:
            before = attempt(wide, np.minimum(done + 1, depth))
    if before < whole and attempt(wide, ends) < whole:
        words = random.stream_key(*key)
        for t, pair in np.argwhere(done[:, ::2] < depth):
            tile = (int(t), 2 * int(pair), int(done[t, 2 * pair]))
            tiles.finish_exactly(rows, starts, columns, out, chunk, target.scalars(), elements, words, *tile)
    return out[:, : b.shape[1]]


def _random_settings(target: Target, *, full: bool) -> list[tuple[Any, bool]]:
    """Kinds of tiles in the order of their speed, and whether the sums of each must be exact."""
    bits, shift, place = target.random_bits, 23 - target.frac_bits, 52 - target.frac_bits
    low = (1 << place) - 1
    undecided = low if bits else min(low, 0xFFFFFFFF << max(place - 32, 0))
    numbers = (64 - place, -1 << place, _upper(place, bits), low, undecided)
    if full:
        ends = (target.max_value, target.limits()[1])
        # Below the normal range the sums are lifted, and must be whole for that.
        return [(roundings.AnyRandom64(*_lift(target), *numbers, *ends), True)]
    narrow: Any = roundings.Random32(32 - shift, -1 << shift)
    if shift == 0 or 0 < bits < shift:
        narrow = roundings.Sieved32(min(32 - shift, 31), -1 << shift, _upper(shift, bits))
    # Beside r bits a float64 has room for the 24 bits of any format, but not for 32 of them.
    exactly = [bits == modes.EXACT or bits > lost for lost in (shift, place)]
    return [(narrow, exactly[0]), (roundings.Random64(*numbers), exactly[1])]


def _any_setting(target: Target) -> roundings.Any64:
    place = 52 - target.frac_bits
    half, low = 1 << (place - 1), (1 << place) - 1
    positive, negative, odd = {
        modes.NEAREST_EVEN: (half - 1, half - 1, 1),
        modes.NEAREST_AWAY: (half, half, 0),
        modes.TOWARD_ZERO: (0, 0, 0),
        modes.DOWN: (0, low, 0),
        modes.UP: (low, 0, 0),
        modes.TO_ODD: (low, low, -low),
    }[target.mode]
    under, over = target.overflowed()
    return roundings.Any64(*_lift(target), place, positive, negative, odd, target.max_value, over, -under)


def _lift(target: Target) -> tuple[int, int]:
    """Patterns of the smallest normal number, and of what is added to smaller ones before they are rounded.

    Without subnormals the spacing below the smallest normal number is that number, not its last place.
    """
    exponent = target.emin + (target.frac_bits if target.flush else 0)
    return (target.emin + 1023) << 52, (exponent + 1023) << 52


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
