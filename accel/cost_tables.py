"""Costs as pandas tables, units in the column names."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from accel.cost import COMPONENTS, CYCLE_PARTS, LEVELS, OPERANDS, Cost, Grouping, OperatorCost


def cost_table(cost: Cost) -> pd.DataFrame:
    """One row per operator in the order of the run: cycles, what bounds it, traffic, energy."""
    rows = [
        {
            "operator": operator.name,
            "kind": operator.kind,
            "phase": str(operator.phase),
            "macs": operator.macs,
            "cycles": operator.cycles,
            "bound": operator.bound,
            **{f"{part}_cycles": getattr(operator, f"{part}_cycles") for part in CYCLE_PARTS},
            "offchip_bytes": operator.offchip_bytes,
            **{f"{part}_pj": energy for part, energy in operator.energy_pj.items()},
            "total_pj": operator.total_pj,
            "tiling": str(operator.tiling or ""),
        }
        for operator in cost.operators
    ]
    columns = [
        "operator", "kind", "phase", "macs", "cycles", "bound", *(f"{part}_cycles" for part in CYCLE_PARTS),
        "offchip_bytes", *(f"{part}_pj" for part in COMPONENTS), "total_pj", "tiling",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def traffic_table(cost: Cost) -> pd.DataFrame:
    """Bytes read and written by operator, level and operand."""
    rows = [
        (operator.name, str(operator.phase), level, operand, read, written)
        for operator in cost.operators
        for (level, operand), (read, written) in operator.traffic.items()
    ]
    return pd.DataFrame(
        rows, columns=["operator", "phase", "level", "operand", "read_bytes", "written_bytes"]
    )


def breakdown(cost: Cost, by: Grouping) -> pd.DataFrame:
    """Energy, cycles and bytes by group; each column adds up to the total."""
    if by == "component":
        return _by_component(cost)
    if by == "level":
        return _by_level(cost)
    if by == "operand":
        return _by_operand(cost)
    keys: dict[Grouping, Callable[[OperatorCost], str]] = {
        "operator": lambda operator: operator.name,
        "phase": lambda operator: str(operator.phase),
        "kind": lambda operator: operator.kind,
    }
    groups: dict[str, list[OperatorCost]] = {}
    for operator in cost.operators:
        groups.setdefault(keys[by](operator), []).append(operator)
    rows = [
        {
            by: name,
            "macs": sum(operator.macs for operator in found),
            "cycles": sum(operator.cycles for operator in found),
            "offchip_bytes": sum(operator.offchip_bytes for operator in found),
            "energy_pj": sum(operator.total_pj for operator in found),
        }
        for name, found in groups.items()
    ]
    return pd.DataFrame(rows, columns=[by, "macs", "cycles", "offchip_bytes", "energy_pj"]).set_index(by)


def _by_component(cost: Cost) -> pd.DataFrame:
    """Energy and area of each component, and the cycles that are spent on it."""
    energy, area, cycles = cost.energy_pj, cost.area_um2, cost.cycle_parts
    names = dict.fromkeys((*COMPONENTS, *CYCLE_PARTS, *area))
    rows = [(name, energy.get(name, 0.0), cycles.get(name, 0), area.get(name, 0.0)) for name in names]
    columns = ["component", "energy_pj", "cycles", "area_um2"]
    return pd.DataFrame(rows, columns=columns).set_index("component")


def _by_level(cost: Cost) -> pd.DataFrame:
    """Energy at each level, with the bytes that each memory reads and writes."""
    names = dict.fromkeys((*LEVELS, *(cost.level_of(part) for part in COMPONENTS)))
    energy = dict.fromkeys(names, 0.0)
    for part, found in cost.energy_pj.items():
        energy[cost.level_of(part)] += found
    moved = {name: [0.0, 0.0] for name in names}
    for operator in cost.operators:
        for (level, _), (read, written) in operator.traffic.items():
            moved[level][0] += read
            moved[level][1] += written
    rows = [(name, *moved[name], energy[name]) for name in names]
    return pd.DataFrame(rows, columns=["level", "read_bytes", "written_bytes", "energy_pj"]).set_index(
        "level"
    )


def _by_operand(cost: Cost) -> pd.DataFrame:
    """Bytes read and written at each level for each operand."""
    totals = {(level, operand): [0.0, 0.0] for level in LEVELS for operand in OPERANDS}
    for operator in cost.operators:
        for key, (read, written) in operator.traffic.items():
            totals[key][0] += read
            totals[key][1] += written
    rows = [(level, operand, read, written) for (level, operand), (read, written) in totals.items()]
    columns = ["level", "operand", "read_bytes", "written_bytes"]
    return pd.DataFrame(rows, columns=columns).set_index(["level", "operand"])


def roofline(cost: Cost) -> pd.DataFrame:
    """One row per matrix product; MACs per cycle against MACs per off-chip byte."""
    rows = []
    for operator in cost.operators:
        if not operator.macs:
            continue
        moved = operator.offchip_bytes
        intensity = operator.macs / moved if moved else float("inf")
        attainable = min(float(cost.cells), intensity * cost.offchip_bytes_per_cycle)
        reached = operator.macs / operator.cycles
        rows.append(
            {
                "operator": operator.name,
                "phase": str(operator.phase),
                "macs_per_byte": intensity,
                "macs_per_cycle": reached,
                "attainable_macs_per_cycle": attainable,
                "efficiency": reached / attainable,
                "utilization": reached / cost.cells,
                "bound": operator.bound,
            }
        )
    columns = [
        "operator", "phase", "macs_per_byte", "macs_per_cycle", "attainable_macs_per_cycle", "efficiency",
        "utilization", "bound",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)
