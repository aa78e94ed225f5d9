"""On-chip memories: energy, area, leakage and access time from a table, by size, width and node.

The table is a sweep of CACTI 7 over sizes and widths in powers of two, with a third of the points
absent. For each node and cell type and each column, in logarithms:

1. An absent point is the mean of the straight lines through its nearest neighbours along size and
   along width; a corner without such neighbours completes the parallelogram of three known points.
   Energies are first divided by the curve ``1 + width / 62 bits``, which the two-term law
   ``sqrt(size) (alpha + beta width)`` has along width, and multiplied by it afterwards.
2. The grid is made monotone, so that a search never gains from a larger or wider memory by an
   accident of the sweep: the mean of the least monotone grid above it and the greatest below it.
   The access time is levelled along size alone: a wider word is often the faster one.
3. Between grid points, log-log interpolation, which keeps the grid's monotony.

Not modelled: bank conflicts, sense-amplifier gating of part of a word, ECC, power gating.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from math import exp, log, log2
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from accel.hardware._data import load

Cells: TypeAlias = Literal["hp", "lop", "lstp"]
Grid: TypeAlias = Float[np.ndarray, "sizes widths"]

_COLUMNS = ("read_pj", "write_pj", "area_mm2", "leakage_mw", "access_ns")
_RISES_WITH_WIDTH = {"read_pj", "write_pj", "area_mm2", "leakage_mw"}
_ENERGIES = {"read_pj", "write_pj"}
_MIN_NODE_NM = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class SramCost:
    """One single-port memory.

    Attributes
    ----------
    read_pj, write_pj
        Per access of one whole word.
    area_um2, leakage_mw, access_ns
        Of the whole memory.
    scaled
        The node is not one of the table's and the values were scaled.
    """

    read_pj: float
    write_pj: float
    area_um2: float
    leakage_mw: float
    access_ns: float
    scaled: bool


@dataclass(frozen=True, slots=True)
class _Table:
    """Complete monotone grids of natural logarithms on powers of two."""

    log2_size: int  # of the first row
    log2_width: int  # of the first column
    grids: dict[str, Grid]

    def ranges(self) -> tuple[tuple[int, int], tuple[int, int]]:
        rows, columns = self.grids["read_pj"].shape
        return (
            (1 << self.log2_size, 1 << (self.log2_size + rows - 1)),
            (1 << self.log2_width, 1 << (self.log2_width + columns - 1)),
        )


def sram_range(node_nm: int = 45, cells: Cells = "lop") -> tuple[tuple[int, int], tuple[int, int]]:
    """Smallest and largest memory (bytes) and word (bits) that :func:`sram_cost` takes.

    Examples
    --------
    >>> sram_range()
    ((1024, 16777216), (8, 512))
    """
    return _table(_table_nodes(node_nm, cells)[0], cells).ranges()


@lru_cache(maxsize=4096)
def sram_cost(size_bytes: float, width_bits: float, node_nm: int = 45, cells: Cells = "lop") -> SramCost:
    """Cost of one memory of `size_bytes`, read and written `width_bits` at a time.

    Between two nodes of the table (45, 32, 22 nm) values are interpolated in log-log; below 22 nm
    energy falls with the square root of the node and area and leakage with the node, at best, and
    the access time stays.

    Parameters
    ----------
    size_bytes, width_bits
        Anywhere in :func:`sram_range`, not only at powers of two.
    node_nm
        7..45.
    cells
        ``"lop"`` low operating power, ``"lstp"`` low standby power, ``"hp"`` high performance.

    Raises
    ------
    ValueError
        A value is outside the table; the message names the range.

    Examples
    --------
    >>> word = sram_cost(64 * 1024, 64)
    >>> round(word.read_pj, 2), round(word.area_um2), word.scaled
    (10.79, 227006, False)
    """
    nodes = _table_nodes(node_nm, cells)
    points = [_interpolate(_table(node, cells), size_bytes, width_bits) for node in nodes]
    values = points[0]
    if len(nodes) == 2:
        weight = log(node_nm / nodes[0]) / log(nodes[1] / nodes[0])
        values = {name: value + weight * (points[1][name] - value) for name, value in values.items()}
    energy, area = 1.0, 1.0
    if node_nm < nodes[0]:
        rule = load("technology")["sram"]
        energy = (node_nm / nodes[0]) ** rule["energy_exponent"]
        area = (node_nm / nodes[0]) ** rule["area_exponent"]
    return SramCost(
        read_pj=exp(values["read_pj"]) * energy,
        write_pj=exp(values["write_pj"]) * energy,
        area_um2=exp(values["area_mm2"]) * 1e6 * area,
        leakage_mw=exp(values["leakage_mw"]) * area,
        access_ns=exp(values["access_ns"]),
        scaled=nodes != (node_nm,),
    )


@cache
def _table_nodes(node_nm: int, cells: str) -> tuple[int, ...]:
    """Node of the table that serves `node_nm`, or the two around it."""
    tables = load("sram")["table"]
    if not any(table["cells"] == cells for table in tables):
        raise ValueError(
            f"cells must be one of {', '.join(sorted({t['cells'] for t in tables}))}; got {cells!r}"
        )
    nodes = sorted(table["node_nm"] for table in tables if table["cells"] == cells)
    if not _MIN_NODE_NM <= node_nm <= nodes[-1]:
        raise ValueError(f"node_nm of an SRAM must be in {_MIN_NODE_NM}..{nodes[-1]}, got {node_nm}")
    if node_nm in nodes:
        return (node_nm,)
    below = [node for node in nodes if node < node_nm]
    return (below[-1], nodes[len(below)]) if below else (nodes[0],)


def _interpolate(table: _Table, size_bytes: float, width_bits: float) -> dict[str, float]:
    """Logarithms of all columns at one point."""
    weights = []
    for name, value, first, (low, high) in zip(
        ("size_bytes", "width_bits"),
        (size_bytes, width_bits),
        (table.log2_size, table.log2_width),
        table.ranges(),
        strict=True,
    ):
        if not low <= value <= high:
            raise ValueError(f"{name} of an SRAM must be in {low}..{high}, got {value:g}")
        place = log2(value) - first
        index = min(int(place), int(log2(high)) - first - 1)
        weights.append((index, place - index))
    (i, u), (j, v) = weights
    return {
        name: float(
            (1 - u) * ((1 - v) * grid[i, j] + v * grid[i, j + 1])
            + u * ((1 - v) * grid[i + 1, j] + v * grid[i + 1, j + 1])
        )
        for name, grid in table.grids.items()
    }


@cache
def _table(node_nm: int, cells: str) -> _Table:
    (rows,) = (t["rows"] for t in load("sram")["table"] if (t["node_nm"], t["cells"]) == (node_nm, cells))
    return build_table(np.array(rows, dtype=np.float64))


def build_table(rows: Float[np.ndarray, "points 7"]) -> _Table:
    """Complete and monotone grids from rows (size, width, read, write, area, leakage, access)."""
    places = np.rint(np.log2(rows[:, :2])).astype(int)
    first = places.min(axis=0)
    shape = tuple(places.max(axis=0) - first + 1)
    index = tuple((places - first).T)
    widths = 2.0 ** (first[1] + np.arange(shape[1]))
    curve = np.log1p(widths / load("sram")["energy_curve_bits"])
    grids = {}
    for column, name in enumerate(_COLUMNS, start=2):
        grid = np.full(shape, np.nan)
        grid[index] = np.log(rows[:, column])
        trend = curve if name in _ENERGIES else 0.0
        grids[name] = _monotone(_complete(grid - trend) + trend, wide=name in _RISES_WITH_WIDTH)
    return _Table(int(first[0]), int(first[1]), grids)


def _complete(grid: Grid) -> Grid:
    """Fill absent points: lines along both axes, then parallelograms at the corners."""
    known = ~np.isnan(grid)
    lines = np.stack([_lines(grid, known), _lines(grid.T, known.T).T])
    count = (~np.isnan(lines)).sum(axis=0)
    filled = np.where(known, grid, np.nansum(lines, axis=0) / np.where(count == 0, np.nan, count))
    while len(absent := np.argwhere(np.isnan(filled))):
        corners = {
            (i, j): np.nanmean(found)
            for i, j in absent
            if not np.isnan(found := _parallelograms(filled, int(i), int(j))).all()
        }
        for place, value in corners.items():
            filled[place] = value
    return filled


def _lines(grid: Grid, known: Bool[np.ndarray, "sizes widths"]) -> Grid:
    """Straight lines along the last axis, between known points only."""
    out = np.full(grid.shape, np.nan)
    places = np.arange(grid.shape[1])
    for row, have, line in zip(grid, known, out, strict=True):
        if have.any():
            line[:] = np.interp(places, places[have], row[have], left=np.nan, right=np.nan)
    return out


def _parallelograms(grid: Grid, i: int, j: int) -> Float[np.ndarray, " found"]:
    """Completions of point (i, j) from the squares around it that lie in the grid."""
    rows, columns = grid.shape
    return np.array(
        [
            grid[i + di, j] + grid[i, j + dj] - grid[i + di, j + dj]
            for di in (-1, 1)
            for dj in (-1, 1)
            if 0 <= i + di < rows and 0 <= j + dj < columns
        ]
    )


def _monotone(grid: Grid, *, wide: bool) -> Grid:
    """Mean of the least monotone grid above and the greatest below, along size and perhaps width."""
    above = np.maximum.accumulate(grid, axis=0)
    below = np.minimum.accumulate(grid[::-1], axis=0)[::-1]
    if wide:
        above = np.maximum.accumulate(above, axis=1)
        below = np.minimum.accumulate(below[:, ::-1], axis=1)[:, ::-1]
    return (above + below) / 2
