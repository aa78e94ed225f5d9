"""How one matrix product is cut into tiles, and in which order they run.

A product ``O[m, n] += A[m, k] W[k, n]`` that is larger than the memories runs tile by tile: three
loops over tiles of m, n and k around the array. The next tile of a streamed operand arrives while
one is worked on, so there are two in the scratchpad; of a tensor that is a single tile there is one,
and of a stationary operand that the array reads once for each time it is fetched, two loads of the
array. Open sums wait in the accumulator buffer at the accumulator's width, and sums that must leave
it unfinished travel off chip and back at that width.

The rows of A that a convolution lowers to are never stored: a tile of outputs fetches the lines of
the input that its windows touch, and while tiles slide along an axis only the lines that are new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, prod
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float, Int

from accel.mapping import _tilings as kernel
from accel.workload import Operator, Window, Workload

LoopOrder: TypeAlias = Literal["mnk", "nmk", "mkn", "nkm", "kmn", "knm"]
LOOP_ORDERS: tuple[LoopOrder, ...] = get_args(LoopOrder)

_EXACT = 32  # tile counts up to which every one is a candidate; beyond, one in ten per cent
_LADDER = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # multiples of the edges of the array


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """Tile sizes and loop order of one product.

    Attributes
    ----------
    samples, rows, columns
        Of one tile of m: ``m = samples x rows x columns`` outputs. A product that is no convolution in one
        or two dimensions, or one with a window of a single input, has one sample and one column; its
        rows are those of A.
    n, k
        Columns of W, and terms of the sum, of one tile.
    order
        Of the loops over tiles, outermost first.

    Examples
    --------
    >>> print(Tiling(samples=1, rows=8, columns=56, n=64, k=576, order="mnk"))
    m=1x8x56 n=64 k=576 order=mnk
    """

    samples: int = 1
    rows: int
    columns: int = 1
    n: int
    k: int
    order: LoopOrder = "mnk"

    def __post_init__(self) -> None:
        for name in ("samples", "rows", "columns", "n", "k"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} of a tile must be a whole number, got {value!r}")
            if value < 1:
                raise ValueError(f"{name} of a tile must be at least 1, got {value}")
        if self.order not in LOOP_ORDERS:
            raise ValueError(f"order must be one of {', '.join(LOOP_ORDERS)}; got {self.order!r}")

    @property
    def m(self) -> int:
        """Rows of A in one tile."""
        return self.samples * self.rows * self.columns

    def __str__(self) -> str:
        return f"m={self.samples}x{self.rows}x{self.columns} n={self.n} k={self.k} order={self.order}"


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis along which a window slides; an axis of a plain product has a window of 1."""

    output: int
    input: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    padding: int = 0

    def lines(self, first: int, after: int) -> int:
        """Input lines that the windows of outputs ``first..after - 1`` touch, without padding.

        Windows that overlap or meet touch all lines between the first and the last.
        """
        return int(kernel.lines(self.entries(), first, after))

    def entries(self) -> Int[np.ndarray, " 6"]:
        """Axis as the kernels read it."""
        return np.array(
            [self.output, self.input, self.kernel, self.stride, self.dilation, self.padding], dtype=np.int64
        )


@dataclass(frozen=True, slots=True)
class Geometry:
    """Shape of one product as its tiles see it.

    Attributes
    ----------
    samples, rows, columns
        Structure of m.
    n, k
        Of one product.
    taps
        Elements of k that belong to one input channel; tiles of k hold whole channels.
    a_share
        Elements of A that exist per element of the lowered product, where no window tells: below 1
        where a lowering repeats them.
    """

    samples: int
    rows: Axis
    columns: Axis
    n: int
    k: int
    taps: int
    a_share: float

    @property
    def m(self) -> int:
        """Rows of A."""
        return self.samples * self.rows.output * self.columns.output


@dataclass(frozen=True, slots=True)
class Layer:
    """One operator's product: geometry, how often it occurs, and bits of an element of each tensor.

    Attributes
    ----------
    count
        Products of this geometry.
    a_bits, w_bits, o_bits
        Of an element, scales included.
    w_share, o_share
        Elements of W and of the result that exist per element of the lowered product.
    a_repeat, w_repeat
        Products that share one A or one W: `count` where all do, as the steps of a recurrent layer
        share its weight; else 1.
    """

    geometry: Geometry
    count: int
    a_bits: float
    w_bits: float
    o_bits: float
    w_share: float
    o_share: float
    a_repeat: int = 1
    w_repeat: int = 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.geometry.m * self.geometry.n * self.geometry.k * self.count


def layer_of(workload: Workload, operator: Operator) -> Layer:
    """Product of `operator` with the sizes and formats of its tensors.

    Raises
    ------
    ValueError
        The operator has no product, or has one but not two operands and a result.
    """
    gemm = operator.gemm
    if gemm is None or len(operator.inputs) < 2 or not operator.outputs:
        raise ValueError(f"operator {operator.name} needs a matrix product, two operands and a result")
    a, w = (workload.tensors[name] for name in operator.inputs[:2])
    out = workload.tensors[operator.outputs[0]]
    a_repeat = gemm.count if a.elements == gemm.m * gemm.k else 1
    w_repeat = gemm.count if w.elements == gemm.n * gemm.k else 1
    return Layer(
        geometry=_geometry(operator, a.elements * a_repeat),
        count=gemm.count,
        a_bits=_bits(a.bits, a.elements),
        w_bits=_bits(w.bits, w.elements),
        o_bits=_bits(out.bits, out.elements),
        w_share=min(1.0, w.elements * w_repeat / (gemm.n * gemm.k * gemm.count)),
        o_share=min(1.0, out.elements / (gemm.m * gemm.n * gemm.count)),
        a_repeat=a_repeat,
        w_repeat=w_repeat,
    )


def _bits(bits: int, elements: int) -> float:
    return bits / elements if elements else 0.0


def _geometry(operator: Operator, a_elements: int) -> Geometry:
    gemm, window = operator.gemm, operator.window
    assert gemm is not None
    if window is not None and len(window.output) <= 2 and (max(window.kernel) > 1 or any(window.padding)):
        rows, columns = _axes(window)
        return Geometry(window.batch, rows, columns, gemm.n, gemm.k, prod(window.kernel), 1.0)
    # A window of one input makes a plain product of the inputs that it touches. Of three or more axes,
    # lines that windows share count once in each tile on average, and halos between tiles do not count.
    share = min(1.0, a_elements / (gemm.m * gemm.k * gemm.count))
    return Geometry(1, Axis(gemm.m, gemm.m), Axis(1, 1), gemm.n, gemm.k, 1, share)


def _axes(window: Window) -> tuple[Axis, Axis]:
    """Rows and columns of a window; that of one axis has one column."""
    fields = (window.output, window.input, window.kernel, window.stride, window.dilation, window.padding)
    rows, *rest = (Axis(*sizes) for sizes in zip(*fields, strict=True))
    return rows, rest[0] if rest else Axis(1, 1)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Tile sizes that a search tries, as the kernels read them."""

    tiles: tuple[tuple[int, int, int], ...]  # samples, rows, columns of each row of `ms`
    ms: Float[np.ndarray, "candidates 24"]
    ns: Float[np.ndarray, "candidates 4"]
    ks: Float[np.ndarray, "candidates 4"]


@lru_cache(maxsize=4096)
def candidates(geometry: Geometry, rows: int, columns: int) -> Candidates:
    """Tiles to try of a product on an array of `rows` x `columns`.

    The smallest tile for each number of tiles (for large numbers, for numbers ten per cent apart),
    and multiples of the array's edges. m is cut along samples, or within one sample along rows or
    along both axes.
    """
    samples, across, along = geometry.samples, geometry.columns.output, geometry.rows.output
    edges = {rows, columns}
    whole = [(cut, along, across) for cut in sizes(samples, set())]
    by_rows = [(1, cut, across) for cut in sizes(along, edges) if cut < along]
    both = [(1, p, q) for p in ladder(along) for q in ladder(across) if q < across]
    tiles = tuple(sorted({*whole, *by_rows, *both}, key=lambda tile: (prod(tile), tile)))
    steps = {ceil(edge * times / geometry.taps) for edge in edges for times in _LADDER}
    return Candidates(
        tiles,
        m_rows(geometry, tiles, rows, columns),
        plain_rows(geometry.n, sizes(geometry.n, edges), columns),
        plain_rows(
            geometry.k, [size * geometry.taps for size in sizes(geometry.k // geometry.taps, steps)], rows
        ),
    )


def sizes(whole: int, edges: set[int]) -> list[int]:
    """Tile sizes to try, ascending: the least for each number of tiles, and multiples of `edges`."""
    counts = list(range(1, min(whole, _EXACT) + 1))
    while counts[-1] < whole:
        counts.append(min(whole, ceil(counts[-1] * 1.1)))
    multiples = {edge * times for edge in edges for times in _LADDER}
    return sorted({ceil(whole / count) for count in counts} | {size for size in multiples if size < whole})


def ladder(whole: int) -> list[int]:
    """Few tile sizes for an axis that is cut together with another."""
    return sorted({ceil(whole / count) for count in (1, 2, 4, 8, 16, 32, 64, whole) if count <= whole})


def plain_rows(whole: int, tiles: Sequence[int], edge: int) -> Float[np.ndarray, "candidates 4"]:
    """Candidates for n or k as the kernels read them."""
    found: Float[np.ndarray, "candidates 4"] = kernel.plain_rows(whole, np.array(tiles, dtype=np.int64), edge)
    return found


def m_rows(
    geometry: Geometry, tiles: Sequence[tuple[int, int, int]], rows: int, columns: int
) -> Float[np.ndarray, "candidates 24"]:
    """Candidates for m as the kernels read them."""
    axes = np.stack([geometry.rows.entries(), geometry.columns.entries()])
    found: Float[np.ndarray, "candidates 24"] = kernel.m_rows(
        np.array(tiles, dtype=np.int64), axes, geometry.samples, geometry.a_share, rows, columns
    )
    return found


def product_row(
    layer: Layer,
    partial_sum_bits: int,
    *,
    stays: tuple[bool, bool, bool] = (False, False, False),
    vector_cycles: int = 0,
) -> Float[np.ndarray, " 22"]:
    """Row of a product as the kernels read it.

    Parameters
    ----------
    stays
        Whether A, W and the result lie in the scratchpad as whole tensors.
    """
    geometry = layer.geometry
    results = geometry.m * geometry.n * layer.count
    return np.array(
        [
            geometry.m,
            geometry.n,
            geometry.k,
            layer.count,
            layer.a_bits,
            layer.w_bits,
            layer.o_bits,
            partial_sum_bits,
            *stays,
            layer.w_share,
            layer.o_share,
            geometry.taps,
            vector_cycles,
            geometry.k // geometry.taps * layer.count * layer.a_bits / 8,
            geometry.n * geometry.k * layer.count * layer.w_share * layer.w_bits / 8,
            ceil(results * layer.o_share * layer.o_bits / 8),
            results * partial_sum_bits / 8,
            geometry.a_share,
            layer.a_repeat,
            layer.w_repeat,
        ],
        dtype=np.float64,
    )
