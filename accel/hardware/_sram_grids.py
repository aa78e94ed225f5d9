"""From scattered memories to complete, monotone grids over size and width.

A table of memories has holes. A missing point is estimated by kriging (Gaussian-process regression
with fixed parameters) on the logarithms of all tables together: the covariance of two points is

    (lines + variance exp(-|d size| / l_size - |d width| / l_width)) r_node r_cells

with distances in doublings, straight lines in log size, log width and the curve
``log(1 + width / 62 bits)`` that the two-term law ``sqrt(size) (alpha + beta width)`` has along width,
``r_node`` below one between two nodes, and ``r_cells`` likewise. So a hole at one node learns the
organisation of the memory from the same point at another node, and the ratio between the two nodes
from the points around. Given points are kept as they are.

The grid is then made monotone, so that a search never gains from a larger or wider memory by an
accident of the table: estimates are clipped between the given points below and above them, and every
remaining dip becomes the mean of the least monotone grid above it and the greatest below it. The
access time is levelled along size alone: a wider word is often the faster one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float

COLUMNS = ("read_pj", "write_pj", "area_mm2", "leakage_mw", "access_ns")
RISES_WITH_WIDTH = (True, True, True, True, False)

Key: TypeAlias = tuple[int, str]  # node in nm, cell type
Grid: TypeAlias = Float[np.ndarray, "sizes widths"]
Rows: TypeAlias = Float[np.ndarray, "points 7"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grids:
    """One table: natural logarithms of `COLUMNS` on a full grid, monotone.

    Attributes
    ----------
    sizes, widths
        In bytes and in bits, ascending, with their logarithms to base 2.
    logs : (5, sizes, widths)
        Of the columns.
    """

    sizes: tuple[float, ...]
    widths: tuple[float, ...]
    log2_sizes: tuple[float, ...]
    log2_widths: tuple[float, ...]
    logs: Float[np.ndarray, "5 sizes widths"]

    @property
    def ranges(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Smallest and largest size in bytes, and width in bits."""
        return (self.sizes[0], self.sizes[-1]), (self.widths[0], self.widths[-1])

    def at(self, size_bytes: float, width_bits: float) -> list[float]:
        """Bilinear in logarithms, which keeps the grid's monotony; the point must be in range."""
        i, u = _place(self.log2_sizes, log2(size_bytes))
        j, v = _place(self.log2_widths, log2(width_bits))
        squares = self.logs[:, i : i + 2, j : j + 2].tolist()  # five small squares: plain floats are faster
        return [
            (1 - u) * ((1 - v) * small_narrow + v * small_wide)
            + u * ((1 - v) * large_narrow + v * large_wide)
            for (small_narrow, small_wide), (large_narrow, large_wide) in squares
        ]


def _place(axis: tuple[float, ...], value: float) -> tuple[int, float]:
    """Interval of the axis that holds `value`, and how far along it."""
    index = min(max(bisect_right(axis, value) - 1, 0), len(axis) - 2)
    return index, (value - axis[index]) / (axis[index + 1] - axis[index])


def complete(tables: Mapping[Key, Rows], rule: Mapping[str, float]) -> dict[Key, Grids]:
    """Complete and monotone grids of tables that one source made.

    Parameters
    ----------
    tables
        Rows (size in bytes, width in bits, and `COLUMNS`), all above zero, by node and cell type; at
        least two sizes and two widths each.
    rule
        Parameters of the covariance, ``[completion]`` of ``accel/data/sram.toml``.
    """
    nodes, cells = (list(dict.fromkeys(key[part] for key in tables)) for part in (0, 1))
    grids: list[Grids] = []
    given: list[Bool[np.ndarray, "sizes widths"]] = []
    known, values, absent = [], [], []
    for (node_nm, kind), rows in tables.items():
        sizes, i = np.unique(rows[:, 0], return_inverse=True)
        widths, j = np.unique(rows[:, 1], return_inverse=True)
        logs = np.full((len(COLUMNS), len(sizes), len(widths)), np.nan)
        logs[:, i, j] = np.log(rows[:, 2:]).T
        given.append(~np.isnan(logs[0]))
        grids.append(
            Grids(
                sizes=tuple(sizes.tolist()),
                widths=tuple(widths.tolist()),
                log2_sizes=tuple(np.log2(sizes).tolist()),
                log2_widths=tuple(np.log2(widths).tolist()),
                logs=logs,
            )
        )
        place = (nodes.index(node_nm), cells.index(kind))
        holes = np.argwhere(~given[-1])
        known.append(_points(sizes[i], widths[j], *place))
        values.append(np.log(rows[:, 2:]))
        absent.append(_points(sizes[holes[:, 0]], widths[holes[:, 1]], *place))
    if any(map(len, absent)):
        estimates = _krige(np.concatenate(known), np.concatenate(values), np.concatenate(absent), rule)
        parts = np.split(estimates, np.cumsum([len(holes) for holes in absent])[:-1])
        for grid, part, points in zip(grids, parts, given, strict=True):
            grid.logs[:, ~points] = part.T
    for grid, points in zip(grids, given, strict=True):
        for column, wide in enumerate(RISES_WITH_WIDTH):
            grid.logs[column] = monotone(grid.logs[column], points, wide=wide)
    return dict(zip(tables, grids, strict=True))


def _points(
    sizes: Float[np.ndarray, " n"], widths: Float[np.ndarray, " n"], node: int, cells: int
) -> Float[np.ndarray, "n 4"]:
    """Logarithms of size and width to base 2, and the numbers of node and cell type."""
    return np.column_stack(
        [np.log2(sizes), np.log2(widths), np.full(len(sizes), node), np.full(len(sizes), cells)]
    )


def _krige(
    known: Float[np.ndarray, "n 4"],
    values: Float[np.ndarray, "n 5"],
    absent: Float[np.ndarray, "m 4"],
    rule: Mapping[str, float],
) -> Float[np.ndarray, "m 5"]:
    """Expected logarithms at the absent points."""
    centre = known[:, :2].mean(axis=0)

    def covariance(a: Float[np.ndarray, "a 4"], b: Float[np.ndarray, "b 4"]) -> Float[np.ndarray, "a b"]:
        size, width, node, cells = (np.abs(np.subtract.outer(a[:, c], b[:, c])) for c in range(4))
        found: Float[np.ndarray, "a b"] = rule["level_variance"] + rule["variance"] * np.exp(
            -size / rule["size_doublings"] - width / rule["width_doublings"]
        )
        for left, right in zip(_lines(a, centre, rule), _lines(b, centre, rule), strict=True):
            found += rule["slope_variance"] * np.outer(left, right)
        found *= np.where(node > 0, rule["other_node"], 1.0) * np.where(cells > 0, rule["other_cells"], 1.0)
        return found

    own = covariance(known, known)
    own[np.diag_indices(len(own))] += rule["scatter"] ** 2
    return np.asarray(covariance(absent, known) @ np.linalg.solve(own, values))


def _lines(
    points: Float[np.ndarray, "n 4"], centre: Float[np.ndarray, " 2"], rule: Mapping[str, float]
) -> Sequence[Float[np.ndarray, " n"]]:
    """Functions along which the tables are nearly straight."""
    curve = np.log1p(2.0 ** points[:, 1] / rule["curve_bits"])
    return points[:, 0] - centre[0], points[:, 1] - centre[1], curve


def monotone(grid: Grid, given: Bool[np.ndarray, "sizes widths"], *, wide: bool) -> Grid:
    """Level a grid along size, and along width if `wide`; estimates give way to given points."""
    least = _running_max(np.where(given, grid, -np.inf), wide=wide)
    most = -_running_max(-np.where(given, grid, np.inf)[::-1, ::-1], wide=wide)[::-1, ::-1]
    clipped = np.where(given, grid, np.clip(grid, np.minimum(least, most), np.maximum(least, most)))
    above = _running_max(clipped, wide=wide)
    below = -_running_max(-clipped[::-1, ::-1], wide=wide)[::-1, ::-1]
    return np.asarray((above + below) / 2)


def _running_max(grid: Grid, *, wide: bool) -> Grid:
    found = np.maximum.accumulate(grid, axis=0)
    return np.maximum.accumulate(found, axis=1) if wide else found
