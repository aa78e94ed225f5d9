"""On-chip memories: energy, area, leakage and access time from tables, by size, width and node.

The built-in tables are a sweep of CACTI 7 over sizes and widths in powers of two at 45, 32 and 22 nm,
with a third of the points absent; :mod:`accel.hardware._sram_grids` completes them and makes them
monotone in size and width. Between grid points, and between nodes, interpolation is log-log.

Below the smallest tabled node, energy falls with the square root of the node and area and leakage
with the node, at best, and the access time stays. Supply voltage is that of the table's cells.

Not modelled: bank conflicts, sense-amplifier gating of part of a word, ECC, power gating. Memories
smaller than the tables are registers (:mod:`accel.hardware.register`), wider ones are banks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, exp, floor, log
from typing import TypeAlias

import numpy as np

from accel.hardware._sram_grids import Grids, Key, complete
from accel.hardware.library import DEFAULT, Library

#: ``"lop"``, ``"hp"``, ``"lstp"``, or a type that a user's library tables.
Cells: TypeAlias = str


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
        The node is not one of the tables' and the values were scaled.
    """

    read_pj: float
    write_pj: float
    area_um2: float
    leakage_mw: float
    access_ns: float
    scaled: bool


def sram_range(
    node_nm: int = 45, cells: Cells = "lop", *, library: Library = DEFAULT
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Smallest and largest memory (bytes) and word (bits) that :func:`sram_cost` takes.

    Examples
    --------
    >>> sram_range()
    ((1024, 16777216), (8, 512))
    """
    (smallest, largest), (narrowest, widest) = _range(
        sram_nodes(node_nm, cells, library=library), cells, library
    )
    return (ceil(smallest), floor(largest)), (ceil(narrowest), floor(widest))


@lru_cache(maxsize=4096)
def sram_cost(
    size_bytes: float,
    width_bits: float,
    node_nm: int = 45,
    cells: Cells = "lop",
    *,
    library: Library = DEFAULT,
) -> SramCost:
    """Cost of one memory of `size_bytes`, read and written `width_bits` at a time.

    Parameters
    ----------
    size_bytes, width_bits
        Anywhere in :func:`sram_range`, not only at powers of two.
    node_nm
        7..45, or as far as the library's tables go.
    cells
        ``"lop"`` low operating power, ``"lstp"`` low standby power, ``"hp"`` high performance.
    library
        A user's tables in place of ours.

    Raises
    ------
    ValueError
        A value is outside the tables; the message names the range.

    Examples
    --------
    >>> word = sram_cost(64 * 1024, 64)
    >>> round(word.read_pj, 2), round(word.area_um2), word.scaled
    (10.79, 233735, False)
    """
    nodes = sram_nodes(node_nm, cells, library=library)
    for name, value, (low, high) in zip(
        ("size_bytes", "width_bits"), (size_bytes, width_bits), _range(nodes, cells, library), strict=True
    ):
        if not low <= value <= high:
            raise ValueError(f"{name} of an SRAM must be in {low:.0f}..{high:.0f}, got {value:g}")
    points = [_grids(library)[node, cells].at(size_bytes, width_bits) for node in nodes]
    logs = points[0]
    if len(nodes) == 2:
        weight = log(node_nm / nodes[0]) / log(nodes[1] / nodes[0])
        logs = [low + weight * (high - low) for low, high in zip(*points, strict=True)]
    read_pj, write_pj, area_mm2, leakage_mw, access_ns = map(exp, logs)
    energy = area = 1.0
    if node_nm < nodes[0]:
        rule = library.section("technology")["sram"]
        energy = (node_nm / nodes[0]) ** rule["energy_exponent"]
        area = (node_nm / nodes[0]) ** rule["area_exponent"]
    return SramCost(
        read_pj=read_pj * energy,
        write_pj=write_pj * energy,
        area_um2=area_mm2 * 1e6 * area,
        leakage_mw=leakage_mw * area,
        access_ns=access_ns,
        scaled=nodes != (node_nm,),
    )


@lru_cache(maxsize=256)
def sram_nodes(node_nm: int, cells: Cells, *, library: Library = DEFAULT) -> tuple[int, ...]:
    """Node of the table that serves `node_nm`, or the two around it.

    Raises
    ------
    ValueError
        No table has such cells, or the node is out of reach of those that have.
    """
    tables = library.section("sram")["table"]
    nodes = sorted(table["node_nm"] for table in tables if table["cells"] == cells)
    if not nodes:
        known = ", ".join(sorted({table["cells"] for table in tables}))
        raise ValueError(f"cells must be one of {known}; got {cells!r}")
    smallest = min(library.section("technology")["sram"]["smallest_node_nm"], nodes[0])
    if not smallest <= node_nm <= nodes[-1]:
        raise ValueError(
            f"node_nm of an SRAM must be in {smallest}..{nodes[-1]}, got {node_nm}"
            + ("" if library is DEFAULT else f" ({cells} cells, tables of {library.name})")
        )
    if node_nm in nodes:
        return (node_nm,)
    below = [node for node in nodes if node < node_nm]
    return (below[-1], nodes[len(below)]) if below else (nodes[0],)


@lru_cache(maxsize=256)
def _range(
    nodes: tuple[int, ...], cells: Cells, library: Library
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Range of size and of width that all tables of `nodes` share."""
    sizes, widths = zip(*(_grids(library)[node, cells].ranges for node in nodes), strict=True)
    return (
        (max(low for low, _ in sizes), min(high for _, high in sizes)),
        (max(low for low, _ in widths), min(high for _, high in widths)),
    )


@lru_cache(maxsize=64)
def _grids(library: Library) -> Mapping[Key, Grids]:
    """Complete tables; a user's are completed from one another alone, and so are ours."""
    data = library.section("sram")
    tables = [table for table in data["table"] if library is DEFAULT or "origin" in table]
    rows = {(t["node_nm"], t["cells"]): np.array(t["rows"], dtype=np.float64) for t in tables}
    found = complete(rows, data["completion"]) if rows else {}
    return found if library is DEFAULT else {**_grids(DEFAULT), **found}
