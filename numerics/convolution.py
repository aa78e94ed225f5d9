"""The three products of a convolution under a declared accumulator, exact to the bit.

Each is defined as a batched `numerics.matmul` of lowered operands, with the groups as leading axis; see
`convolve`, `convolve_input_gradient` and `convolve_weight_gradient`. The zeros of padding, and those that a
stride puts between the errors, take part: they change a sum only where they meet an infinity or a NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from operator import le
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int64
from numpy.lib.stride_tricks import as_strided

from numerics._kernels import tiles, vectors
from numerics._kernels import windows as kernels
from numerics._packing import row_starts, scratch, share
from numerics._sequential import Way, checked
from numerics._target import check_seed
from numerics.accumulate import AnyAccumulator, Formats, matmul, parse_accumulator

Pair: TypeAlias = tuple[int, int]
Key: TypeAlias = tuple[int | None, int]  # seed and stream of a stochastic accumulator


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a kernel meets an image; rows come first in every pair.

    Attributes
    ----------
    kernel
        Rows and columns of a kernel.
    stride
        Steps from one window to the next.
    padding
        Zeros before and after each axis.
    dilation
        Steps from one element of a window to the next.
    groups
        Runs of channels that meet kernels of their own.

    Raises
    ------
    TypeError, ValueError
        Numbers that are no integers or too small.

    Examples
    --------
    >>> Geometry((3, 3), stride=(2, 2), padding=(1, 1)).output_size((8, 9))
    (4, 5)
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        for name, least in (("kernel", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            pair = getattr(self, name)
            if not isinstance(pair, tuple) or len(pair) != 2 or not all(_is_integer(v) for v in pair):
                raise TypeError(f"{name} must be a pair of integers, got {pair!r}")
            if min(pair) < least:
                raise ValueError(f"{name} must be at least {least}, got {pair}")
        if not _is_integer(self.groups):
            raise TypeError(f"groups must be an integer, got {self.groups!r}")
        if self.groups < 1:
            raise ValueError(f"groups must be at least 1, got {self.groups}")

    @property
    def reach(self) -> Pair:
        """Rows and columns from the first to the last element of a window."""
        (rows, columns), (down, across) = self.kernel, self.dilation
        return down * (rows - 1), across * (columns - 1)

    def output_size(self, size: Pair) -> Pair:
        """Windows along each axis of an image of `size`.

        Raises
        ------
        ValueError
            No window fits.
        """
        rows, columns = (
            (size[d] + 2 * self.padding[d] - self.reach[d] - 1) // self.stride[d] + 1 for d in (0, 1)
        )
        if min(rows, columns) < 1:
            raise ValueError(f"no window of {self} fits an image of size {size}")
        return rows, columns


def convolve(
    images: Float[np.ndarray, "n c h w"],
    kernel: Float[np.ndarray, "o i kh kw"],
    geometry: Geometry,
    accumulator: AnyAccumulator | str,
    *,
    seed: int | None = None,
    stream: int = 0,
    formats: Formats | None = None,
) -> Float[np.ndarray, "n o oh ow"]:
    """Convolution (as torch says it: a correlation) summed as `accumulator` says.

    It is ``matmul(kernels, windows)`` with kernels (groups, o / groups, k) and windows
    (groups, k, n * oh * ow); k counts (input channel, kernel row, kernel column), and windows are counted by
    (sample, row, column), the last fastest.

    Parameters
    ----------
    images, kernel : (n, c, h, w), (o, c / groups, kh, kw)
        float32 of any strides, used as they are.
    seed, stream
        As in `matmul`: the random number of an addition is that of this batched product.
    formats
        Of `kernel` and `images`, in this order, for a fused adder.

    Returns
    -------
    (n, o, oh, ow), C-contiguous, of the dtype of `matmul`.

    Raises
    ------
    TypeError, ValueError
        Other dtypes, shapes that do not match, and what `matmul` raises.

    Examples
    --------
    >>> images = np.ones((1, 1, 2, 4), np.float32)
    >>> convolve(images, np.ones((1, 1, 2, 2), np.float32), Geometry((2, 2)), "e6m9")
    array([[[[4., 4., 4.]]]], dtype=float32)
    """
    _check("images", images)
    _check_kernel(kernel, geometry)
    if images.shape[1] != kernel.shape[1] * geometry.groups:
        raise ValueError(_mismatch("images", images, 1, kernel.shape[1] * geometry.groups))
    groups, size = geometry.groups, geometry.output_size(images.shape[2:])
    left = np.ascontiguousarray(kernel).reshape(groups, kernel.shape[0] // groups, -1)
    windows = _Windows(images, geometry, geometry.padding, (1, 1), size)
    return _convolved(left, windows, accumulator, (seed, stream), formats)


def convolve_input_gradient(
    errors: Float[np.ndarray, "n o oh ow"],
    kernel: Float[np.ndarray, "o i kh kw"],
    size: Pair,
    geometry: Geometry,
    accumulator: AnyAccumulator | str,
    *,
    seed: int | None = None,
    stream: int = 0,
    formats: Formats | None = None,
) -> Float[np.ndarray, "n c h w"]:
    """Gradient of `convolve` by its images of `size` (h, w), a transposed convolution.

    It is ``matmul(kernels, windows)`` with kernels (groups, c / groups, k) and windows
    (groups, k, n * h * w); k counts (output channel, kernel row, kernel column) of the flipped kernel, and
    the windows are those of the errors with ``stride - 1`` zeros between them and zeros around.

    Parameters and errors are as for `convolve`; the result is (n, c, h, w), `formats` are those of `kernel`
    and `errors`.

    Examples
    --------
    >>> errors = np.ones((1, 1, 1, 3), np.float32)
    >>> convolve_input_gradient(errors, np.ones((1, 1, 2, 2), np.float32), (2, 4), Geometry((2, 2)), "e6m9")
    array([[[[1., 2., 2., 1.],
             [1., 2., 2., 1.]]]], dtype=float32)
    """
    _check("errors", errors)
    _check_kernel(kernel, geometry)
    _check_errors(errors, kernel.shape[0], geometry.output_size(size))
    groups, taps = geometry.groups, geometry.kernel
    flipped = kernel[:, :, ::-1, ::-1].reshape(groups, -1, kernel.shape[1], *taps)
    left = np.ascontiguousarray(flipped.swapaxes(1, 2)).reshape(groups, kernel.shape[1], -1)
    before = (geometry.reach[0] - geometry.padding[0], geometry.reach[1] - geometry.padding[1])
    places = Geometry(taps, dilation=geometry.dilation, groups=groups)
    windows = _Windows(errors, places, before, geometry.stride, (size[0], size[1]))
    return _convolved(left, windows, accumulator, (seed, stream), formats)


def convolve_weight_gradient(
    errors: Float[np.ndarray, "n o oh ow"],
    images: Float[np.ndarray, "n c h w"],
    geometry: Geometry,
    accumulator: AnyAccumulator | str,
    *,
    seed: int | None = None,
    stream: int = 0,
    formats: Formats | None = None,
) -> Float[np.ndarray, "o i kh kw"]:
    """Gradient of `convolve` by its kernel.

    It is ``matmul(errors, windows)`` with errors (groups, o / groups, n * oh * ow) and the windows of
    `convolve` transposed, (groups, n * oh * ow, k): sums over (sample, output row, output column), the last
    fastest.

    Parameters and errors are as for `convolve`; the result is (o, c / groups, kh, kw), `formats` are those of
    `errors` and `images`.

    Examples
    --------
    >>> errors, images = np.ones((1, 1, 1, 3), np.float32), np.ones((1, 1, 2, 4), np.float32)
    >>> convolve_weight_gradient(errors, images, Geometry((2, 2)), "e6m9")
    array([[[[3., 3.],
             [3., 3.]]]], dtype=float32)
    """
    _check("errors", errors)
    _check("images", images)
    n, groups, size = images.shape[0], geometry.groups, geometry.output_size(images.shape[2:])
    for name, x in (("images", images), ("errors", errors)):
        if x.shape[1] % groups:
            raise ValueError(f"{name} must have channels in {groups} groups, got shape {x.shape}")
    if errors.shape[0] != n:
        raise ValueError(_mismatch("errors", errors, 0, n))
    _check_errors(errors, errors.shape[1], size)
    windows = _Windows(images, geometry, geometry.padding, (1, 1), size)
    product = _correlated(errors, windows, accumulator, (seed, stream), formats)
    return product.reshape(errors.shape[1], images.shape[1] // groups, *geometry.kernel)


@dataclass(frozen=True, slots=True)
class _Windows:
    """Windows of images that are spread among zeros.

    Attributes
    ----------
    images
        (n, c, h, w).
    geometry
        Of the windows; its padding is not looked at.
    before
        Zeros before each axis; below 0, what is left out there.
    spread
        Steps from one pixel to the next; 1 along an axis of a stride above 1.
    size
        Positions of windows along each axis.
    """

    images: np.ndarray
    geometry: Geometry
    before: Pair
    spread: Pair
    size: Pair

    @property
    def extent(self) -> Pair:
        """Rows and columns that the windows see."""
        geometry = self.geometry
        rows, columns = ((self.size[d] - 1) * geometry.stride[d] + geometry.reach[d] + 1 for d in (0, 1))
        return rows, columns

    @property
    def shape(self) -> tuple[int, int, int]:
        """(groups, k, n * positions) of the lowered matrices."""
        geometry = self.geometry
        taps = self.images.shape[1] // geometry.groups * geometry.kernel[0] * geometry.kernel[1]
        return geometry.groups, taps, self.images.shape[0] * self.size[0] * self.size[1]

    def lowered(self) -> Float[np.ndarray, "g k positions"]:
        """The matrices themselves."""
        geometry, groups, (n, channels) = self.geometry, self.geometry.groups, self.images.shape[:2]
        placed, parts = np.zeros((n, channels, *self.extent), np.float32), []
        for d in (0, 1):
            skipped = max(0, -(self.before[d] // self.spread[d]))
            first = self.before[d] + skipped * self.spread[d]
            fitting = -((first - self.extent[d]) // self.spread[d])
            count = max(0, min(self.images.shape[2 + d] - skipped, fitting))
            last = first + count * self.spread[d] if count else first
            parts.append((slice(first, last, self.spread[d]), slice(skipped, skipped + count)))
        (to_rows, rows), (to_columns, columns) = parts
        placed[:, :, to_rows, to_columns] = self.images[:, :, rows, columns]
        steps = placed.strides
        shape = (groups, channels // groups, *geometry.kernel, n, *self.size)
        strides = (
            channels // groups * steps[1],
            steps[1],
            *(step * by for step, by in zip(steps[2:], geometry.dilation, strict=True)),
            steps[0],
            *(step * by for step, by in zip(steps[2:], geometry.stride, strict=True)),
        )
        return as_strided(placed, shape, strides).reshape(self.shape)

    def in_phases(self) -> _Phases:
        """The images as kernels read them, in room that the next product of this thread takes over."""
        images, geometry, spread = np.ascontiguousarray(self.images), self.geometry, self.spread
        n, channels, *planes = images.shape
        phases, plain = geometry.stride, geometry.stride == spread == (1, 1) and self.before == (0, 0)
        if plain and all(map(le, self.extent, planes)):
            placed = images.reshape(n, channels, 1, 1, *planes)
        else:
            planes = [-(-extent // by) for extent, by in zip(self.extent, phases, strict=True)]
            shape = (n, channels, *phases, *planes)
            placed = scratch("images", prod(shape)).reshape(shape)
            kernels.place(images, placed, self.before, spread)
        inner = channels // geometry.groups
        plane = phases[0] * phases[1] * planes[0] * planes[1]
        offsets = _offsets(inner, geometry.kernel, geometry.dilation, placed.shape[2:])
        steps = (channels * plane, planes[1])
        return _Phases(placed.reshape(-1), inner * plane, offsets, (n, *self.size), steps)


class _Phases(NamedTuple):
    """Images in phases and the places of windows in them, in elements."""

    images: Float[np.ndarray, " size"]
    group_step: int
    offsets: Int64[np.ndarray, " k"]
    size: tuple[int, int, int]
    steps: Pair


class _Lines(NamedTuple):
    """The windows of a group as a right operand (k, n * positions) that packs itself."""

    phases: _Phases
    group: int
    shape: tuple[int, int]

    def pack_columns(self, out: Float[np.ndarray, "panels k lanes"]) -> None:
        images, group_step, *places = self.phases
        kernels.line_up(images, self.group * group_step, *places, out)


class _LinesAcross(_Lines):
    """The same transposed, (n * positions, k)."""

    def pack_columns(self, out: Float[np.ndarray, "panels k lanes"]) -> None:
        images, group_step, *places = self.phases
        height = -(-self.shape[1] // vectors.LANES_32) * vectors.LANES_32
        lines = scratch("lines", height * vectors.LANES_32).reshape(1, height, vectors.LANES_32)
        kernels.line_up_across(images, self.group * group_step, *places, lines, out)


_BLOCK = 1 << 14  # elements of packed operands that stay in the near caches


@lru_cache(maxsize=256)
def _offsets(channels: int, kernel: Pair, dilation: Pair, planes: tuple[int, ...]) -> Int64[np.ndarray, " k"]:
    """Places of the elements of a window, after that of the first, in (channel, phases, rows, columns)."""
    row_phases, column_phases, rows, columns = planes
    channel = np.arange(channels)[:, None, None] * (row_phases * column_phases * rows * columns)
    y = np.arange(kernel[0])[:, None] * dilation[0]
    x = np.arange(kernel[1]) * dilation[1]
    phase = y % row_phases * column_phases + x % column_phases
    within = (phase * rows + y // row_phases) * columns + x // column_phases
    offsets: np.ndarray = (channel + within).reshape(-1)
    offsets.flags.writeable = False
    return offsets


def _convolved(
    left: Float[np.ndarray, "g m k"],
    windows: _Windows,
    accumulator: AnyAccumulator | str,
    key: Key,
    formats: Formats | None,
) -> Float[np.ndarray, "n c rows columns"]:
    """``left @ windows`` of every group, by samples."""
    accumulator = parse_accumulator(accumulator)
    groups, m, taps = left.shape
    columns = windows.shape[2]
    way = None
    if columns >= 2 * vectors.LANES_32 or columns >= m:  # else lanes are better used the other way round
        way = None if formats else Way.of(accumulator, left, windows.images, taps)
    n, size = windows.images.shape[0], windows.size
    if way is None:
        product = matmul(left, windows.lowered(), accumulator, seed=key[0], stream=key[1], formats=formats)
    elif way.is_checked:
        product = _checked(left, windows, way, key, _Lines)
    else:
        check_seed(way.rounding, *key)
        return _in_tiles(left, windows, way).reshape(n, groups * m, *size)
    return np.ascontiguousarray(product.reshape(groups * m, n, *size).swapaxes(0, 1))


def _correlated(
    errors: Float[np.ndarray, "n o rows columns"],
    windows: _Windows,
    accumulator: AnyAccumulator | str,
    key: Key,
    formats: Formats | None,
) -> Float[np.ndarray, "g m k"]:
    """``errors @ windows.T`` of every group."""
    accumulator = parse_accumulator(accumulator)
    groups, _, depth = windows.shape
    way = None if formats else Way.of(accumulator, errors, windows.images, depth)
    if way is not None and not way.is_checked:
        check_seed(way.rounding, *key)
        return _gradient_in_tiles(np.ascontiguousarray(errors), windows, way)
    left = np.ascontiguousarray(errors.swapaxes(0, 1)).reshape(groups, errors.shape[1] // groups, depth)
    if way is not None:
        return _checked(left, windows, way, key, _LinesAcross)
    right = windows.lowered().swapaxes(1, 2)
    return matmul(left, right, accumulator, seed=key[0], stream=key[1], formats=formats)


def _checked(
    left: Float[np.ndarray, "g m k"], windows: _Windows, way: Way, key: Key, kind: type[_Lines]
) -> Float[np.ndarray, "g m n"]:
    """Products in tiles that are checked, group by group."""
    groups, m, _ = left.shape
    pair = check_seed(way.rounding, *key)
    phases, (_, taps, positions) = windows.in_phases(), windows.shape
    shape = (taps, positions) if kind is _Lines else (positions, taps)
    out = np.empty((groups, m, shape[1]), np.float32)
    for group in range(groups):
        elements = (group * m * shape[1], shape[1], 1)
        right = kind(phases, group, shape)
        out[group] = checked(left[group], right, way.chunk, way.target, way.certificate, elements, pair)
    return out


def _in_tiles(
    left: Float[np.ndarray, "g m k"], windows: _Windows, way: Way
) -> Float[np.ndarray, "n g m positions"]:
    """``left @ windows`` in tiles that need no check."""
    groups, m, taps = left.shape
    setting, control, panels_of_tile, from_zero, wide = way.tiles
    starts = row_starts(m, tiles.height_of(setting))
    rows = scratch("a", left.size).reshape(groups, m * taps)
    kernels.pack_groups(left, starts, rows)
    rows = rows.astype(np.float64) if wide else rows
    images, group_step, offsets, size, steps = windows.in_phases()
    vector = 2 * vectors.LANES_32
    whole = windows.shape[2]
    pairs = -(-whole // vector)
    most = min(pairs, max(1, _BLOCK // (max(m, taps) * vector)))
    out = np.empty((size[0], groups, m, size[1] * size[2]), np.float32)

    def work(first: int, last: int) -> None:
        lines = scratch("b", most * vector * taps).reshape(2 * most, taps, vectors.LANES_32)
        sums = scratch("sums", m * most * vector).reshape(m, most * vector)
        kernels.convolve(
            rows, starts, images, group_step, offsets, size, steps, out, way.chunk, setting, control,
            panels_of_tile, from_zero, lines, sums, first, last,
        )  # fmt: skip

    share(work, groups * pairs, groups * pairs * m * taps * vector)
    return out


def _gradient_in_tiles(
    errors: Float[np.ndarray, "n o rows columns"], windows: _Windows, way: Way
) -> Float[np.ndarray, "g m k"]:
    """``errors @ windows.T`` in tiles that need no check."""
    groups, taps, depth = windows.shape
    m = errors.shape[1] // groups
    setting, control, panels_of_tile, from_zero, wide = way.tiles
    top, vector = tiles.height_of(setting), 2 * vectors.LANES_32
    top = top if top in (4, 8) else 4  # rows are interleaved by powers of two
    # Lanes run over the axis that fills them better.
    upright = taps * -(-m // vector) < m * -(-taps // vector)
    images, group_step, offsets, size, steps = windows.in_phases()
    out = np.empty((groups, m, taps), np.float32)
    by_groups = groups > 1
    step = 1 if by_groups else top if upright else vector

    def work(first: int, last: int) -> None:
        low, high = (0, taps) if by_groups else (first * step, min(last * step, taps))
        height, columns = (high - low, m) if upright else (m, high - low)
        panels = 2 * -(-columns // vector)
        width, room = panels * vectors.LANES_32, high - low + m + 2 * vectors.LANES_32
        block = max(way.chunk if way.chunk < depth else 0, min(depth, tiles.DEPTH, max(128, _BLOCK // room)))
        block = vectors.LANES_32 * -(-block // vectors.LANES_32)
        starts = row_starts(height, top)
        rows = scratch("a", height * block)
        columns_room = scratch("b", panels * block * vectors.LANES_32)
        kernels.weight_gradient(
            errors.reshape(-1), images, group_step, offsets, size, steps, out, way.chunk, setting, control,
            panels_of_tile, from_zero, upright, starts, rows, np.empty(rows.size if wide else 0),
            columns_room.reshape(panels, block, vectors.LANES_32),
            scratch("lines", room * vectors.LANES_32).reshape(1, room, vectors.LANES_32),
            scratch("sums", height * width).reshape(height, width),
            *((first, last) if by_groups else (0, 1)), low, high,
        )  # fmt: skip

    share(work, groups if by_groups else -(-taps // step), groups * m * taps * depth)
    return out


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check(name: str, x: object) -> None:
    if not isinstance(x, np.ndarray) or x.dtype != np.float32:
        raise TypeError(f"{name} must be a float32 array, got {getattr(x, 'dtype', type(x).__name__)}")
    if x.ndim != 4:
        raise ValueError(f"{name} must have four axes, got shape {x.shape}")


def _check_kernel(kernel: np.ndarray, geometry: Geometry) -> None:
    _check("kernel", kernel)
    rows, columns = geometry.kernel
    if kernel.shape[2:] != (rows, columns):
        raise ValueError(f"kernel must be (o, c / groups, {rows}, {columns}), got shape {kernel.shape}")
    if kernel.shape[0] % geometry.groups:
        raise ValueError(f"kernel must have outputs in {geometry.groups} groups, got shape {kernel.shape}")


def _check_errors(errors: np.ndarray, channels: int, size: Pair) -> None:
    if errors.shape[1:] != (channels, *size):
        raise ValueError(f"errors must be (n, {channels}, {size[0]}, {size[1]}), got shape {errors.shape}")


def _mismatch(name: str, x: np.ndarray, axis: int, wanted: int) -> str:
    return f"{name} must have {wanted} along axis {axis}, got shape {x.shape}"
