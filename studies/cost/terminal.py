"""Costs on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isinf
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from accel.cost import COMPONENTS, CYCLE_PARTS, LEVELS, OPERANDS, Cost, Grouping
from accel.mapping.search import Objective
from accel.workload import Phase
from studies import units
from studies.console import count, new_console, plain_table, section
from studies.cost import tables
from studies.cost.run import NOT_MODELLED, Answer, Priced, notes
from studies.units import NOT_APPLICABLE

_SHOWN_PARAMETERS = 12
_SHOWN_CHOICES = 2  # of a choice with many alternatives: the least and the most energy


def show(
    answer: Answer, *, by: Sequence[Grouping] = (), top: int = 12, console: Console | None = None
) -> None:
    """Print totals, tables, layers, sensitivity, comparison and warnings.

    Parameters
    ----------
    by
        Only these tables and the totals.
    top
        How many layers are listed, those of most energy first.
    """
    out = console or new_console()
    first = answer.first
    cost = first.cost
    for line in _header(answer):
        out.print(line, soft_wrap=True)
    section(out, "", _totals(cost))
    is_training = any(operator.phase is not Phase.FORWARD for operator in cost.operators)
    shown: Sequence[Grouping] = ("component", "level", "phase") if is_training else ("component", "level")
    for name in by or shown:
        section(out, *_grouped(cost, name, out.width))
    if not by:
        _layers(out, first, top)
        section(out, f"what bounds the layers, {_ridge(first)}", _bounds(cost))
        if answer.sensitivity is not None:
            _sensitivity(out, answer.sensitivity)
    if len(answer.designs) > 1:
        section(out, f"beside {first.name}", _comparison(answer.designs))
    for line in remarks(answer):
        out.print(line, style="dim", soft_wrap=True)


def _grouped(cost: Cost, by: Grouping, width: int) -> tuple[str, Table]:
    """Title and table of one grouping."""
    if by == "component":
        return "by component", _components(cost)
    if by == "level":
        return "by level, bytes read / written", _levels(cost, width)
    if by == "operand":
        return "by operand, bytes read / written", _operands(cost)
    return f"by {'kind of operator' if by == 'kind' else by}", _groups(cost, by)


def _fitting(
    rows: Sequence[Mapping[str, str]], width: int, *, text: Sequence[str] = ("",), drop: Sequence[str] = ()
) -> Table:
    """Table of the columns of `rows`, without as many of `drop`, in this order, as do not fit."""
    columns = list(rows[0])
    wide = {column: max(len(column), *(len(row[column]) for row in rows)) for column in columns}
    for column in drop:
        if sum(wide[name] + 2 for name in columns) - 2 > width:
            columns.remove(column)
    grid = plain_table(*columns, text=[place for place, column in enumerate(columns) if column in text])
    for row in rows:
        grid.add_row(*(row[column] for column in columns))
    return grid


def _header(answer: Answer) -> list[str]:
    first = answer.first
    return [
        f"{first.name}: {first.design}",
        f"{workload_line(answer, first)}; mapped for {best_in(answer.objective)}",
    ]


def best_in(objective: Objective) -> str:
    """What an objective is, in words."""
    best = {
        "balanced": "little off-chip traffic on a busy array",
        "offchip": "least off-chip traffic",
        "energy": "least energy",
        "cycles": "least time",
        "edp": "least energy x time",
    }
    return best[objective]


def workload_line(answer: Answer, priced: Priced) -> str:
    """Network, pass, sizes and formats in one line."""
    workload, model = priced.workload, answer.model
    positions = "".join(
        f", {name} {value}"
        for name, value in (("tokens", model.tokens), ("context", model.context))
        if value is not None
    )
    return (
        f"{answer.network}, {'training step' if model.training else 'inference'}, batch {workload.batch}"
        f"{positions}: {count(len(workload.operators), 'operator')}, {units.si(workload.macs, 'MAC')}, "
        f"{units.si(workload.parameters, '')} parameters in {units.si(workload.weight_bytes, 'B')}, "
        f"activations {units.si(workload.activation_bytes, 'B')}; stored {answer.stored}"
    )


def _totals(cost: Cost) -> Table:
    grid = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(6):
        grid.add_column(overflow="fold")
    facts = [(metric.name, metric.text(cost)) for metric in tables.METRICS]
    for start in range(0, len(facts), 3):
        row = [cell for name, value in facts[start : start + 3] for cell in (name, f"{value}    ")]
        grid.add_row(*row)
    return grid


def _components(cost: Cost) -> Table:
    grid = plain_table("", "energy", "share", "area", "share", "cycles", "share")
    energy, area, cycles = cost.energy_pj, cost.area_um2, cost.cycle_parts
    for name in dict.fromkeys((*COMPONENTS, *area, *CYCLE_PARTS)):
        grid.add_row(
            name,
            units.energy(energy.get(name)),
            units.share(energy.get(name), cost.total_energy_pj),
            units.area(area.get(name)),
            units.share(area.get(name), cost.total_area_um2),
            units.si(cycles.get(name), ""),
            units.share(cycles.get(name), cost.cycles),
        )
    grid.add_row(
        "total", units.energy(cost.total_energy_pj), "", units.area(cost.total_area_um2), "",
        units.si(cost.cycles, ""), "",
        style="bold",
    )  # fmt: skip
    return grid


def _levels(cost: Cost, width: int) -> Table:
    levels, moved = cost.breakdown("level").to_dict("index"), tables.traffic_by_level(cost)
    rows = []
    for level in LEVELS:
        row = levels[level]
        rows.append(
            {
                "": level,
                "energy": units.energy(row["energy_pj"]),
                **{operand.replace("_", " "): _moved(moved.get((level, operand))) for operand in OPERANDS},
                "all": _moved((row["read_bytes"], row["written_bytes"])),
            }
        )
    return _fitting(rows, width, drop=("all", "other"))


def _operands(cost: Cost) -> Table:
    grid = plain_table("", *LEVELS)
    moved = tables.traffic_by_level(cost)
    for operand in OPERANDS:
        grid.add_row(operand.replace("_", " "), *(_moved(moved.get((level, operand))) for level in LEVELS))
    return grid


def _moved(access: tuple[float, float] | None) -> str:
    """Bytes read and written; a dash where a level never moves such."""
    if access is None or not any(access):
        return NOT_APPLICABLE
    read, written = access
    return f"{units.si(read, 'B')} / {units.si(written, 'B')}"


def _groups(cost: Cost, by: Grouping) -> Table:
    grid = plain_table("", "MACs", "energy", "share", "cycles", "share", "off-chip")
    for name, row in cost.breakdown(by).iterrows():
        grid.add_row(
            str(name),
            units.si(row["macs"], "") if row["macs"] else NOT_APPLICABLE,
            units.energy(row["energy_pj"]),
            units.share(row["energy_pj"], cost.total_energy_pj),
            units.si(row["cycles"], ""),
            units.share(row["cycles"], cost.cycles),
            units.si(row["offchip_bytes"], "B"),
        )
    return grid


def _layers(out: Console, priced: Priced, top: int) -> None:
    cost = priced.cost
    run = sorted(cost.operators, key=lambda operator: operator.total_pj, reverse=True)[:top]
    if not run:
        return
    rows = [
        {
            "": operator.name,
            "kind": operator.kind,
            "MACs": units.si(operator.macs, "") if operator.macs else NOT_APPLICABLE,
            "energy": units.energy(operator.total_pj),
            "share": units.share(operator.total_pj, cost.total_energy_pj),
            "cycles": units.si(operator.cycles, ""),
            "of cycles": units.share(operator.cycles, cost.cycles),
            "bound by": operator.bound,
            "util.": units.share(tables.utilization(operator, cost), 1.0),
            "off-chip": units.si(operator.offchip_bytes, "B"),
            "tiling": str(operator.tiling or NOT_APPLICABLE),
        }
        for operator in run
    ]
    grid = _fitting(
        rows, out.width, text=("", "kind", "bound by", "tiling"), drop=("of cycles", "MACs", "kind", "share")
    )
    section(out, f"the {len(run)} of {len(cost.operators)} operators with the most energy", grid)


def _ridge(priced: Priced) -> str:
    design = priced.design
    if isinf(design.offchip_bytes_per_cycle):
        return "with off-chip bandwidth without end"
    return (
        f"array and memory are in balance at "
        f"{units.si(design.rows * design.columns / design.offchip_bytes_per_cycle, 'MAC')} per off-chip byte"
    )


def _bounds(cost: Cost) -> Table:
    grid = plain_table("", "operators", "MACs", "share", "cycles", "share", "reached of roof")
    for row in tables.bounds(cost):
        grid.add_row(
            row.part,
            str(row.operators),
            units.si(row.macs, "") if row.macs else NOT_APPLICABLE,
            units.share(row.macs, cost.macs) if row.macs else NOT_APPLICABLE,
            units.si(row.cycles, ""),
            units.share(row.cycles, cost.cycles),
            units.share(row.efficiency, 1.0),
        )
    return grid


def _sensitivity(out: Console, table: pd.DataFrame) -> None:
    names = list(dict.fromkeys(table["parameter"]))
    shown = names[:_SHOWN_PARAMETERS]
    grid = plain_table("", "now", "then", "energy", "time", "area", text=(0, 1, 2))
    reasons = []
    for name in shown:
        rows = _least_and_most(table[table["parameter"] == name])
        for place, (_, row) in enumerate(rows.iterrows()):
            head = (name, row["now"]) if place == 0 else ("", "")
            if row["feasible"]:
                changes = [units.change(row[f"{of}_change"]) for of in ("energy", "time", "area")]
            else:
                changes = ["infeasible", NOT_APPLICABLE, NOT_APPLICABLE]
                reasons.append(f"{name} {row['value']}: {row['violation']}")
            grid.add_row(*head, row["value"], *changes)
    rest = len(names) - len(shown)
    more = f"; {rest} with less effect are in the page and in --json" if rest else ""
    section(out, f"one parameter changed at a time, mapped anew{more}", grid)
    for reason in reasons:
        out.print(f"infeasible: {reason}", soft_wrap=True)


def _least_and_most(rows: pd.DataFrame) -> pd.DataFrame:
    """All rows of a size; of a long list of alternatives those of least and of most energy."""
    found = rows[rows["feasible"].astype(bool)]
    if len(rows) <= _SHOWN_CHOICES or len(found) <= _SHOWN_CHOICES:
        return rows
    ordered = found.sort_values(["energy_change", "time_change"], kind="stable")
    return ordered.iloc[[0, -1]]


def _comparison(designs: Sequence[Priced]) -> Table:
    grid = plain_table("", *(priced.name for priced in designs))
    costs = [priced.cost for priced in designs]
    for metric in tables.METRICS:
        grid.add_row(metric.name, *_beside([_value(metric, cost) for cost in costs], metric.show))
    for part in COMPONENTS:
        values = [cost.energy_pj[part] if cost.feasible else None for cost in costs]
        grid.add_row(f"energy: {part}", *_beside(values, units.energy))
    return grid


def _value(metric: tables.Metric, cost: Cost) -> float | None:
    return metric.value(cost) if cost.feasible or metric.of_design else None


def _beside(values: Sequence[float | None], show: Any) -> list[str]:
    """Values, from the second on with their ratio to the first."""
    base, *others = values
    return [
        show(base),
        *(NOT_APPLICABLE if v is None else f"{show(v)}  {units.ratio(v, base):>6}" for v in others),
    ]


def remarks(answer: Answer) -> list[str]:
    """What to be wary of, design by design, and what is not modelled."""
    lines = [f"note: {line}" for line in notes(answer.workload)]
    several = len(answer.designs) > 1
    for priced in answer.designs:
        of = f" ({priced.name})" if several else ""
        cost = priced.cost
        lines += [f"timing{of}: {line}" for line in cost.timing]
        lines += [f"estimated{of}: {line}" for line in cost.estimates]
        lines += [f"replaced{of}: {line}" for line in cost.replaced]
    return [*lines, *(f"not modelled: {line}" for line in NOT_MODELLED)]
