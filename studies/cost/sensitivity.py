"""What each parameter of a design does to energy, time and area: one change at a time, remapped.

Sizes are halved and doubled, formats lose and gain one bit, choices take their alternatives. Word and
banks of the scratchpad, if they are not given, follow what they are derived from. Off-chip bandwidth is
per cycle, so that a faster clock has more of it per second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf, isfinite, log
from typing import Any

import pandas as pd

from accel.cost import Cost
from accel.dataflow import DATAFLOWS, FOLD_OVERLAPS
from accel.design import Design
from accel.evaluation import evaluate_many
from accel.mapping.search import Objective
from accel.workload import Workload
from numerics import Accumulator, FusedAdder, IntegerAccumulator
from numerics.accumulate import AnyAccumulator
from numerics.block import BlockFormat
from numerics.formats import FixedFormat, FloatFormat, Format

#: Columns of :func:`sensitivity`; changes are relative, ``-0.5`` is half.
COLUMNS = (
    "parameter",
    "now",
    "value",
    "direction",
    "feasible",
    "violation",
    "energy_pj",
    "seconds",
    "area_um2",
    "energy_change",
    "time_change",
    "area_change",
)

_COUNTS = (
    "rows",
    "columns",
    "scratchpad_bytes",
    "accumulator_bytes",
    "scratchpad_width_bits",
    "scratchpad_banks",
    "mac_stages",
)
_QUANTITIES = ("offchip_bytes_per_cycle", "clock_mhz", "overhead")
_OVERLAPS = (1.0, 2.0, inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A design that differs in one parameter.

    Attributes
    ----------
    now, value
        Of the parameter, as text.
    direction
        ``"down"``, ``"up"``, or ``"other"`` of a choice.
    settings
        What is changed.
    """

    parameter: str
    now: str
    value: str
    direction: str
    settings: Mapping[str, Any]


def neighbours(design: Design) -> list[Neighbour]:
    """All that are tried, possible or not, parameter by parameter."""
    found = [
        Neighbour(parameter=name, now=now, value=value, direction=direction, settings=settings)
        for name, now, value, direction, settings in _changes(design)
    ]
    return [neighbour for neighbour in found if neighbour.value != neighbour.now]


def sensitivity(
    design: Design,
    workload_of: Callable[[Design], Workload],
    *,
    cost: Cost,
    objective: Objective = "balanced",
) -> pd.DataFrame:
    """Energy, time and area of all neighbours, each with the best mapping.

    Parameters
    ----------
    workload_of
        The workload with the formats that a design stores; equal workloads may be one object.
    cost
        Of `design` itself.

    Returns
    -------
    DataFrame
        Columns :data:`COLUMNS`; parameters with the largest effect on energy or time come first.
        Infeasible neighbours have a reason and no numbers.
    """
    found = neighbours(design)
    groups: dict[tuple[str, str], list[int]] = {}
    for index, neighbour in enumerate(found):
        formats = (neighbour.settings.get("operand"), neighbour.settings.get("weight"))
        groups.setdefault((str(formats[0]), str(formats[1])), []).append(index)
    rows: dict[int, Mapping[str, Any]] = {}
    for indices in groups.values():
        keys = dict.fromkeys(key for index in indices for key in found[index].settings)
        frame = pd.DataFrame(
            [[found[index].settings.get(key) for key in keys] for index in indices],
            index=indices,
            columns=list(keys),
            dtype=object,
        )
        stored = _with_formats(design, found[indices[0]].settings)
        if isinstance(stored, str):
            rows |= {index: {"feasible": False, "violation": stored} for index in indices}
            continue
        priced = evaluate_many(frame, workload_of(stored), base=design, objective=objective)
        for index, row in zip(indices, priced.to_dict("records"), strict=True):
            rows[index] = {str(name): value for name, value in row.items()}
    table = pd.DataFrame([_row(found[index], rows[index], cost) for index in range(len(found))])
    effect = table.assign(
        effect=[max(_size(row["energy_change"]), _size(row["time_change"])) for _, row in table.iterrows()]
    )
    largest = effect.groupby("parameter")["effect"].max()
    order = effect.assign(largest=effect["parameter"].map(largest))
    order = order.sort_values(["largest", "parameter"], ascending=[False, True], kind="stable")
    return order[list(COLUMNS)].reset_index(drop=True)


def _size(change: float) -> float:
    """Of a relative change; a half is as much as a double."""
    return 0.0 if pd.isna(change) else abs(log(1 + change)) if change > -1 else inf


def _row(neighbour: Neighbour, priced: Mapping[str, Any], cost: Cost) -> dict[str, Any]:
    feasible = bool(priced["feasible"])
    row: dict[str, Any] = {
        "parameter": neighbour.parameter,
        "now": neighbour.now,
        "value": neighbour.value,
        "direction": neighbour.direction,
        "feasible": feasible,
        "violation": priced["violation"],
    }
    for name, change, base in (
        ("energy_pj", "energy_change", cost.total_energy_pj),
        ("seconds", "time_change", cost.seconds),
        ("area_um2", "area_change", cost.total_area_um2),
    ):
        row[name] = priced.get(name) if feasible else None
        row[change] = priced[name] / base - 1 if feasible and base else None
    return row


def _with_formats(design: Design, settings: Mapping[str, Any]) -> Design | str:
    """Design with the changed formats alone, whose operands tell what is stored; or why there is none."""
    formats = {key: settings[key] for key in ("operand", "weight") if key in settings}
    if not formats:
        return design
    try:
        return Design.from_mapping({**design.settings(), **formats})
    except (ValueError, TypeError) as error:
        return str(error)


def _changes(design: Design) -> Iterator[tuple[str, str, str, str, Mapping[str, Any]]]:
    for name in (*_COUNTS, *_QUANTITIES):
        now = getattr(design, name)
        if not now or not isfinite(now):
            continue
        for direction, value in (("down", now / 2), ("up", now * 2)):
            if name in _COUNTS:
                value = int(value)
                if value < 1:
                    continue
            yield (
                name,
                f"{now:g}" if name in _QUANTITIES else str(now),
                _text(value),
                direction,
                {name: value},
            )
    yield from _formats(design)
    yield from _nodes(design)
    library = design.library
    cells = dict.fromkeys(table["cells"] for table in library.section("sram")["table"])
    for name, choices in (
        ("dataflow", DATAFLOWS),
        ("fold_overlap", FOLD_OVERLAPS),
        ("offchip", tuple(library.section("offchip"))),
        ("sram_cells", tuple(cells)),
        ("overlap", _OVERLAPS),
    ):
        now = getattr(design, name)
        for value in choices:
            if value != now:
                yield name, _text(now), _text(value), "other", {name: value}


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _nodes(design: Design) -> Iterator[tuple[str, str, str, str, Mapping[str, Any]]]:
    """Next smaller and next larger node of the tables."""
    library, now = design.library, design.node_nm
    tables = library.section("sram")["table"]
    nodes = sorted(
        {int(node) for node in library.section("technology")["nodes"]} | {t["node_nm"] for t in tables}
    )
    largest = max(table["node_nm"] for table in tables)
    below = [node for node in nodes if node < now]
    above = [node for node in nodes if now < node <= largest]
    for direction, found in (("down", below[-1:]), ("up", above[:1])):
        for node in found:
            yield "node_nm", str(now), str(node), direction, {"node_nm": node}


def _formats(design: Design) -> Iterator[tuple[str, str, str, str, Mapping[str, Any]]]:
    """Formats with one bit fewer and one more; equal operands change together."""
    together = design.weight == design.operand
    for name in ("operand",) if together else ("operand", "weight"):
        now: Format | BlockFormat = getattr(design, name)
        for direction, bits in (("down", -1), ("up", 1)):
            if (other := _with_bits(now, bits)) is not None:
                settings = {"operand": other, "weight": other} if together else {name: other}
                yield name, str(now), str(other), direction, settings
    for direction, bits in (("down", -1), ("up", 1)):
        if (sums := _accumulator_with_bits(design.accumulator, bits)) is not None:
            yield (
                "accumulator", str(design.accumulator), str(sums), direction, {"accumulator": sums},
            )  # fmt: skip


def _with_bits(fmt: Format | BlockFormat, bits: int) -> Format | BlockFormat | None:
    """Format with more or fewer fraction bits, or whole ones if it has no others; ``None``: there is none."""
    try:
        if isinstance(fmt, BlockFormat):
            element = _with_bits(fmt.element, bits)
            assert not isinstance(element, BlockFormat)
            return None if element is None else replace(fmt, element=element)
        if isinstance(fmt, FixedFormat) and not fmt.frac_bits:
            return replace(fmt, int_bits=fmt.int_bits + bits)
        return replace(fmt, frac_bits=fmt.frac_bits + bits)
    except ValueError:
        return None


def _accumulator_with_bits(accumulator: AnyAccumulator, bits: int) -> AnyAccumulator | None:
    try:
        if isinstance(accumulator, Accumulator):
            register: FloatFormat = accumulator.format
            return replace(accumulator, format=replace(register, frac_bits=register.frac_bits + bits))
        if isinstance(accumulator, IntegerAccumulator):
            return replace(accumulator, bits=accumulator.bits + bits)
        if isinstance(accumulator, FusedAdder):
            return replace(accumulator, align_bits=accumulator.align_bits + bits)
    except ValueError:
        return None
    return None  # an exact sum has the bits that its length needs
