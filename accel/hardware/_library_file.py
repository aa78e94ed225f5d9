"""Reading a user's file of tables: every key, unit and value is checked here, once."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from accel.hardware._sram_grids import RISES_WITH_WIDTH
from accel.hardware.library import DEFAULT, LibraryError

#: What may stand in a file, in the order in which it is read and reported.
_KINDS = ("name", "offchip", "sram", "cell", "register", "vector", "mac", "technology")

#: Columns of a table of memories, and their units as factors to bytes, bits, pJ, mm2, mW and ns.
_UNITS: Mapping[str, Mapping[str, float]] = {
    "size": {"byte": 1, "KiB": 1024, "MiB": 1024**2, "bit": 1 / 8},
    "width": {"bit": 1, "byte": 8},
    "read": {"pJ": 1, "fJ": 1e-3, "nJ": 1e3},
    "write": {"pJ": 1, "fJ": 1e-3, "nJ": 1e3},
    "area": {"mm2": 1, "um2": 1e-6},
    "leakage": {"mW": 1, "uW": 1e-3, "nW": 1e-6, "W": 1e3},
    "access": {"ns": 1, "ps": 1e-3},
}
_LARGEST = 1e30  # of any number; TOML has infinities, and whole numbers of any length
_MAX_ROWS = 2000  # of all tables of a file: absent points are estimated from all of them together
_MAX_FALL = 2.0  # of a value along size or width; CACTI's own falls reach 1.45
_CELL = ("cell", "node_nm", "area_um2", "energy_pj", "delay_ns")
_OFFCHIP = ("pj_per_bit", "bandwidth_gb_s", "unit", "source", "bandwidth_source")
_NODE = ("area_factor", "a2", "a1", "a0")
#: Constants that other constants of their section rest on.
_FIXED = {
    "mac": {"node_nm", "scaling.node_nm", "register"},  # the section [register] holds the last
    "technology": {"reference_voltage_v", "lowest_voltage_v", "highest_voltage_v", "nodes"},
}


@dataclass(frozen=True, slots=True)
class _Place:
    """A key in the file, for errors: ``foundry.toml: sram[0].units.read``."""

    file: str
    key: str = ""

    def __truediv__(self, key: str) -> _Place:
        key = key if key and key.isprintable() else repr(key)  # one line, whatever the file holds
        return _Place(self.file, f"{self.key}.{key}" if self.key else key)

    def at(self, index: int) -> _Place:
        return _Place(self.file, f"{self.key}[{index}]")

    def fail(self, problem: str) -> NoReturn:
        raise LibraryError(f"{self.file}: {self.key} {problem}")

    def table(self, value: Any) -> Mapping[str, Any]:
        return value if isinstance(value, dict) else self.fail(f"must be a table, got {value!r}")

    def text(self, value: Any) -> str:
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            self.fail(f"must be a line of text, got {value!r}")
        return value.strip()

    def number(self, value: Any, *, above: float | None = None) -> float:
        """Return a finite number, above `above` if that is given."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
            self.fail(f"must be a finite number, got {value!r:.60}")
        if above is not None and value <= above:
            self.fail(f"must be above {above:g}, got {value!r}")
        return float(value)

    def whole(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.fail(f"must be a whole number of at least 1, got {value!r}")
        return value

    def keys(self, given: Mapping[str, Any], allowed: Sequence[str], needed: Sequence[str] = ()) -> None:
        """Refuse unknown keys by name and absent ones."""
        for key in given:
            if key not in allowed:
                (self / key).fail(f"is not a key; allowed are {', '.join(allowed)}")
        for key in needed:
            if key not in given:
                (self / key).fail("is missing")


def read_library(path: str | PathLike[str]) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    """Name, what is replaced, and entries by section, in our units.

    Raises
    ------
    LibraryError
        The file cannot be read, or something in it is wrong.
    """
    path = Path(path)
    place = _Place(path.name)
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LibraryError(f"{path}: {error.strerror}") from None
    except ValueError as error:  # bad UTF-8 and bad TOML
        raise LibraryError(f"{path.name}: not TOML: {error}") from None
    for key in given:
        if key not in _KINDS:
            (place / key).fail(f"is not a section; sections are {', '.join(_KINDS)}")
    name = (place / "name").text(given.get("name", path.name))
    entries: dict[str, Any] = {}
    replaced: list[str] = []
    for kind in _KINDS[1:]:
        if kind in given:
            labels, entries[kind] = _READERS[kind](place / kind, given[kind], name)
            if not labels:
                (place / kind).fail("is empty")
            replaced += labels
    if not replaced:
        raise LibraryError(f"{path.name}: replaces nothing; sections are {', '.join(_KINDS[1:])}")
    return name, tuple(replaced), entries


def _constants(place: _Place, given: Any, _: str) -> tuple[list[str], dict[str, Any]]:
    """Numbers in place of ours, under the same names; at another node all of them are needed."""
    ours = DEFAULT.section(place.key)
    labels, entries = _numbers(place, given, ours, "", _FIXED.get(place.key, set()))
    if "node_nm" in entries and entries["node_nm"] != ours["node_nm"]:
        for key in _leaves(ours):
            if f"{place.key}.{key}" not in labels:
                (place / key).fail(f"is missing: it is needed at {entries['node_nm']} nm too")
    return labels, entries


def _leaves(table: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of all values."""
    found = []
    for key, value in table.items():
        name = f"{prefix}{key}"
        found += _leaves(value, f"{name}.") if isinstance(value, Mapping) else [name]
    return found


def _numbers(
    place: _Place, given: Any, ours: Mapping[str, Any], prefix: str, fixed: set[str]
) -> tuple[list[str], dict[str, Any]]:
    """Leaves of `given`, each of which must be a leaf of `ours`."""
    allowed = [
        key
        for key, value in ours.items()
        if prefix + key not in fixed and isinstance(value, Mapping | int | float)
    ]
    given = place.table(given)
    place.keys(given, allowed)
    labels: list[str] = []
    entries: dict[str, Any] = {}
    for key, value in given.items():
        where = place / key
        if isinstance(ours[key], Mapping):
            inner, entries[key] = _numbers(where, value, ours[key], f"{prefix}{key}.", fixed)
            labels += inner
            continue
        labels.append(where.key)
        if key.endswith(("_nm", "_bits")) and isinstance(ours[key], int):
            entries[key] = where.whole(value)
        else:
            entries[key] = where.number(value, above=0 if key.endswith("_v") else None)
            if entries[key] < 0:
                where.fail(f"must be at least 0, got {value!r}")
    return labels, entries


def _offchip(place: _Place, given: Any, name: str) -> tuple[list[str], dict[str, Any]]:
    labels: list[str] = []
    entries: dict[str, Any] = {}
    for key, value in place.table(given).items():
        where, memory = place / key, key.upper()
        if memory != memory.strip() or not memory:
            where.fail("must be a name without spaces around it")
        if memory in entries:
            where.fail(f"is given twice, as {memory} without regard to case")
        row = where.table(value)
        ours = DEFAULT.section("offchip").get(memory)
        where.keys(row, _OFFCHIP, needed=() if ours else ("pj_per_bit", "bandwidth_gb_s"))
        entry: dict[str, Any] = {} if ours else {"unit": "one unit", "status": "own"}
        for number, source in (("pj_per_bit", "source"), ("bandwidth_gb_s", "bandwidth_source")):
            if number in row:
                entry[number] = (where / number).number(row[number], above=0)
                entry[source] = name
            elif source in row:
                (where / source).fail(f"needs {number} beside it")
        if "pj_per_bit" in row:
            entry["status"] = "own"
        if "unit" in row and "bandwidth_gb_s" not in row:
            (where / "unit").fail("needs bandwidth_gb_s beside it")
        if "bandwidth_gb_s" in row:
            entry["unit"] = "one unit"
        for text in ("unit", "source", "bandwidth_source"):
            if text in row:
                entry[text] = (where / text).text(row[text])
        if not row:
            where.fail(f"is empty; allowed are {', '.join(_OFFCHIP)}")
        entries[memory] = entry
        labels += [f"offchip.{memory}.{number}" for number in _OFFCHIP[:2] if number in row]
    return labels, entries


def _sram(place: _Place, given: Any, name: str) -> tuple[list[str], list[dict[str, Any]]]:
    tables = [(place, given)] if isinstance(given, dict) else _each(place, given)
    labels: list[str] = []
    entries: list[dict[str, Any]] = []
    for where, value in tables:
        table = where.table(value)
        keys = ("node_nm", "cells", "units", "rows", "source")
        where.keys(table, keys, needed=keys[:-1])
        node_nm = (where / "node_nm").whole(table["node_nm"])
        cells = (where / "cells").text(table["cells"])
        label = f"sram {node_nm} nm {cells}"
        if label in labels:
            where.fail(f"is a second table of {cells} cells at {node_nm} nm")
        source = (where / "source").text(table.get("source", name))
        rows = _rows(where, table)
        labels.append(label)
        entries.append(
            {"node_nm": node_nm, "cells": cells, "rows": rows.tolist(), "source": source, "origin": name}
        )
    if (count := sum(len(table["rows"]) for table in entries)) > _MAX_ROWS:
        place.fail(f"may have {_MAX_ROWS} rows in all, got {count}")
    return labels, entries


def _rows(place: _Place, table: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Rows in our units: (n, 7), in the order of `_UNITS`."""
    units = (place / "units").table(table["units"])
    (place / "units").keys(units, tuple(_UNITS), needed=tuple(_UNITS))
    for column, unit in units.items():
        if not isinstance(unit, str) or unit not in _UNITS[column]:
            (place / "units" / column).fail(f"must be one of {', '.join(_UNITS[column])}; got {unit!r}")
    factors = [_UNITS[column][units[column]] for column in _UNITS]
    rows = []
    for where, row in _each(place / "rows", table["rows"]):
        if not isinstance(row, list) or len(row) != len(factors):
            where.fail(f"must be a list of {', '.join(_UNITS)}; got {row!r}")
        rows.append([where.number(v, above=0) * factor for v, factor in zip(row, factors, strict=True)])
    found = np.array(rows, dtype=np.float64)
    _check_grid(place / "rows", found)
    return found


def _check_grid(place: _Place, rows: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    """Enough points, each once, and none that contradicts another."""
    sizes, widths = np.unique(rows[:, 0]), np.unique(rows[:, 1])
    for axis, what in ((sizes, "sizes"), (widths, "widths")):
        if len(axis) < 2:
            place.fail(f"must have at least two {what}, got {len(axis)}")
    seen = set()
    for i, (size, width) in enumerate(rows[:, :2].tolist()):
        if (size, width) in seen:
            place.at(i).fail(f"is a second row of {size:g} bytes x {width:g} bits")
        seen.add((size, width))
    if 2 * len(rows) < (full := len(sizes) * len(widths)):
        place.fail(
            f"must give at least half of the {full} points of its {len(sizes)} sizes and {len(widths)} "
            f"widths, got {len(rows)}"
        )
    for column, (wide, name) in enumerate(zip(RISES_WITH_WIDTH, list(_UNITS)[2:], strict=True), start=2):
        # [i, j]: memory j is at least as large, and as wide or (where width may help) equally wide.
        larger = rows[None, :, 0] >= rows[:, None, 0]
        wider = rows[None, :, 1] >= rows[:, None, 1] if wide else rows[None, :, 1] == rows[:, None, 1]
        fall = np.where(larger & wider, rows[:, None, column] / rows[None, :, column], 0.0)
        small, large = np.unravel_index(np.argmax(fall), fall.shape)
        if fall[small, large] > _MAX_FALL:
            place.at(int(large)).fail(
                f"has {name} {fall[small, large]:.3g} times lower than row {small}, a memory no larger and "
                f"no wider; at most {_MAX_FALL:g} times is levelled"
            )


def _cells(place: _Place, given: Any, name: str) -> tuple[list[str], list[dict[str, Any]]]:
    from accel.hardware.mac import Mac  # whose laws read libraries

    labels: list[str] = []
    entries: list[dict[str, Any]] = []
    for where, value in _each(place, given):
        row = where.table(value)
        where.keys(row, (*_CELL, "source"), needed=_CELL)
        written = (where / "cell").text(row["cell"])
        try:
            text = str(Mac.parse(written))
        except ValueError as error:
            (where / "cell").fail(f"is not a cell: {error}")
        node_nm = (where / "node_nm").whole(row["node_nm"])
        label = f"cell {text} at {node_nm} nm"
        if label in labels:
            where.fail(f"is a second measurement of {text} at {node_nm} nm")
        labels.append(label)
        entry = {key: (where / key).number(row[key], above=0) for key in _CELL[2:]}
        source = (where / "source").text(row.get("source", name))
        entries.append({"cell": text, "node_nm": node_nm, **entry, "source": source})
    return labels, entries


def _technology(place: _Place, given: Any, _: str) -> tuple[list[str], dict[str, Any]]:
    ours = DEFAULT.section("technology")
    given = place.table(given)
    rest = {key: value for key, value in given.items() if key != "nodes"}
    labels: list[str]
    entries: dict[str, Any]
    labels, entries = _numbers(place, rest, ours, "", _FIXED["technology"])
    low, high = ours["lowest_voltage_v"], ours["highest_voltage_v"]
    if not low <= entries.get("voltage_v", low) <= high:
        (place / "voltage_v").fail(f"must be in {low:g}..{high:g}, got {entries['voltage_v']:g}")
    nodes: dict[str, Any] = {}
    for key, value in (place / "nodes").table(given.get("nodes", {})).items():
        where = place / "nodes" / key
        if not (key.isdecimal() and str(int(key)) == key and int(key) > 0):
            where.fail("must be a node in whole nanometres, as 12")
        row, base = where.table(value), ours["nodes"].get(key)
        where.keys(row, _NODE, needed=() if base else _NODE)
        if not row:
            where.fail(f"is empty; allowed are {', '.join(_NODE)}")
        nodes[key] = {name: (where / name).number(number) for name, number in row.items()}
        whole = {**(base or {}), **nodes[key]}
        if whole["area_factor"] <= 0:
            (where / "area_factor").fail(f"must be above 0, got {whole['area_factor']:g}")
        volts = np.linspace(low, high, 51)
        energy = (whole["a2"] * volts + whole["a1"]) * volts + whole["a0"]
        if energy[0] <= 0 or (np.diff(energy) < 0).any():
            where.fail(
                f"must have an energy a2 V^2 + a1 V + a0 above 0 that rises from {low:g} to {high:g} V"
            )
        labels += [f"technology.nodes.{key}.{name}" for name in row]
    return labels, {**entries, **({"nodes": nodes} if nodes else {})}


def _each(place: _Place, given: Any) -> list[tuple[_Place, Any]]:
    """Entries of an array that must not be empty."""
    if not isinstance(given, list) or not given:
        place.fail(f"must be an array with at least one entry, got {given!r:.60}")
    return [(place.at(i), value) for i, value in enumerate(given)]


_READERS: Mapping[str, Callable[[_Place, Any, str], tuple[list[str], Any]]] = {
    "offchip": _offchip,
    "sram": _sram,
    "cell": _cells,
    "register": _constants,
    "vector": _constants,
    "mac": _constants,
    "technology": _technology,
}
