"""The tables of constants behind every cost: ours, or a user's own in their place.

A user's file is TOML. It holds what it replaces and nothing else, under the names that the tables in
``accel/data`` have::

    name = "foundry X, 12 nm"            # shown with every result; the file's name if absent

    [offchip.LPDDR4]                     # single constants of a memory that we have
    pj_per_bit = 6.5

    [offchip.MY_DDR]                     # or a memory of one's own: energy and bandwidth are needed
    pj_per_bit = 12.0
    bandwidth_gb_s = 25.6                # 10^9 bytes per second of one unit
    unit = "one 64-bit channel"
    source = "data sheet, table 7"

    [[sram]]                             # one whole table, for this node and this type of cells
    node_nm = 12
    cells = "lop"                        # or a name of one's own
    units.size = "KiB"                   # byte, KiB, MiB, bit
    units.width = "bit"                  # bit, byte
    units.read = "fJ"                    # pJ, fJ, nJ, per access of one whole word
    units.write = "fJ"
    units.area = "um2"                   # mm2, um2
    units.leakage = "uW"                 # mW, uW, nW, W
    units.access = "ps"                  # ns, ps
    rows = [                             # size, width, read, write, area, leakage, access
      [1, 32, 310, 290, 800, 21, 240],
      # ...
    ]

    [[cell]]                             # a measured multiply-accumulate cell, in place of the laws
    cell = "e4m3 x e4m3 + e6m9"
    node_nm = 12
    area_um2 = 61.0
    energy_pj = 0.09                     # per multiply-accumulate, at the voltage it was measured at
    delay_ns = 0.8

    [register]                           # a constant at another node needs all of its section there
    node_nm = 12
    area_um2 = 0.6
    energy_pj = 0.001

    [vector.energy_pj]
    fp32_add = 0.7

    [mac.float.area_um2]                 # coefficients of the laws, at 45 nm
    exponent_bit = 11.0

    [technology]
    voltage_v = 0.8                      # at which designs run

    [technology.nodes]
    12 = { area_factor = 0.13, a2 = 0.22, a1 = -0.095, a0 = 0.023 }

What a file does not name stays ours. Between the nodes of two SRAM tables, whoever made them, values are
interpolated. A file is checked as a whole when it is read: an unknown key, a wrong type, a missing or wrong
unit, a value below zero, two rows of one memory, a table that is too sparse or falls where it must rise is
one :class:`LibraryError` that names the file, the key and what is allowed.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from os import PathLike
from types import MappingProxyType
from typing import Any

#: Names of ``accel/data/*.toml``.
SECTIONS = ("mac", "offchip", "register", "sram", "technology", "vector")


class LibraryError(ValueError):
    """A user's file of tables is wrong; the message names file, key and what is allowed."""


@dataclass(frozen=True, slots=True)
class Library:
    """Tables of constants by section; equal where name and content are.

    Attributes
    ----------
    name
        ``"built-in"``, or the name of the user's tables.
    replaced
        What they replace, shown with every result, as ``("offchip.LPDDR4.pj_per_bit", "sram 12 nm lop")``.
    overrides
        The user's entries in our units, as JSON, by which libraries are told apart.

    Examples
    --------
    >>> DEFAULT.section("register")["area_um2"], DEFAULT.replaced
    (4.5, ())
    """

    name: str = "built-in"
    replaced: tuple[str, ...] = ()
    overrides: str = "{}"

    @staticmethod
    def default() -> Library:
        """Tables that the package carries."""
        return DEFAULT

    @staticmethod
    def from_toml(path: str | PathLike[str]) -> Library:
        """Our tables with those of a user's file in their place; the format is described above.

        Raises
        ------
        LibraryError
            The file cannot be read, or something in it is wrong.
        """
        from accel.hardware._library_file import read_library  # which knows the sections, and so reads us

        name, replaced, entries = read_library(path)
        return Library(name, replaced, json.dumps(entries, sort_keys=True, allow_nan=False))

    def section(self, name: str) -> Mapping[str, Any]:
        """One section as ``accel/data/<name>.toml`` lays it out; callers must not change it.

        Tables of ``sram`` that are the user's carry the key ``origin``.
        """
        return _section(self.overrides, name)

    def cell(self, text: str, node_nm: int) -> Mapping[str, Any] | None:
        """Return the user's measurement of one multiply-accumulate cell, if there is one.

        Parameters
        ----------
        text
            The cell as :class:`~accel.hardware.mac.Mac` prints it, ``e4m3fn x e4m3fn + e6m9``.

        Returns
        -------
        A mapping with ``area_um2``, ``energy_pj`` and ``delay_ns``, or None.
        """
        return _cells(self.overrides).get((text, node_nm))


DEFAULT = Library()


@cache
def _built_in(name: str) -> Mapping[str, Any]:
    if name not in SECTIONS:
        raise ValueError(f"section must be one of {', '.join(SECTIONS)}; got {name!r}")
    text = (files("accel") / "data" / f"{name}.toml").read_text(encoding="utf-8")
    return MappingProxyType(tomllib.loads(text))


@lru_cache(maxsize=256)
def _section(overrides: str, name: str) -> Mapping[str, Any]:
    ours, theirs = _built_in(name), json.loads(overrides).get(name)
    if theirs is None:
        return ours
    if name == "sram":
        replaced = {(table["node_nm"], table["cells"]) for table in theirs}
        kept = [table for table in ours["table"] if (table["node_nm"], table["cells"]) not in replaced]
        return MappingProxyType({**ours, "table": kept + theirs})
    return MappingProxyType(_merged(ours, theirs))


def _merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves of `theirs` in place of those of `ours`."""
    found = dict(ours)
    for key, value in theirs.items():
        found[key] = _merged(ours.get(key, {}), value) if isinstance(value, Mapping) else value
    return found


@lru_cache(maxsize=64)
def _cells(overrides: str) -> Mapping[tuple[str, int], Mapping[str, Any]]:
    return {
        (cell["cell"], cell["node_nm"]): MappingProxyType(cell)
        for cell in json.loads(overrides).get("cell", ())
    }
