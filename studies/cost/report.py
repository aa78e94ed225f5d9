"""Costs as one self-contained page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accel.cost import COMPONENTS, CYCLE_PARTS
from accel.hardware.offchip import offchip_memory
from studies import units
from studies.cost import figures, tables
from studies.cost.run import NOT_MODELLED, Answer, Priced, notes
from studies.cost.terminal import best_in, workload_line
from studies.page import figure_html, write_page


def write_report(answer: Answer, path: Path) -> None:
    """Write the page; it needs no other file and no network. The first design must be feasible."""
    feasible = [priced for priced in answer.designs if priced.cost.feasible]
    cost = answer.first.cost
    plots = {
        "designs": figures.by_design(feasible),
        "energy": figures.energy_by_layer(feasible),
        "time": figures.time_by_layer(feasible),
        "roofline": figures.roofline(feasible),
        "traffic": figures.traffic(feasible),
    }
    if answer.sensitivity is not None:
        plots["tornado"] = figures.tornado(answer.sensitivity)
    context: dict[str, Any] = {
        "answer": answer,
        "first": answer.first,
        "best": best_in(answer.objective),
        "workload": workload_line(answer, answer.first),
        "metrics": [_metric(metric, answer) for metric in tables.METRICS],
        "facts": {metric.key: metric.text(cost) for metric in tables.METRICS},
        "components": _components(answer.first),
        "phases": _groups(answer.first, "phase"),
        "kinds": _groups(answer.first, "kind"),
        "bounds": tables.bounds(cost),
        "layers": [_layer(row) for row in tables.layers(answer).to_dict("records")],
        "several": len(feasible) > 1,
        "sources": [(priced.name, _sources(priced)) for priced in answer.designs],
        "notes": notes(answer.workload),
        "not_modelled": NOT_MODELLED,
        "units": units,
        "plots": {name: figure_html(figure) for name, figure in plots.items()},
        "changes": [] if answer.sensitivity is None else answer.sensitivity.to_dict("records"),
    }
    write_page("cost.html.j2", context, path)


def _metric(metric: tables.Metric, answer: Answer) -> dict[str, Any]:
    """One row of the comparison: name, and a text and a ratio per design."""
    values = [
        metric.value(priced.cost) if priced.cost.feasible or metric.of_design else None
        for priced in answer.designs
    ]
    cells = [(metric.show(value), units.ratio(value, values[0])) for value in values]
    return {"name": metric.name, "cells": cells}


def _components(priced: Priced) -> list[dict[str, str]]:
    cost = priced.cost
    energy, area, cycles = cost.energy_pj, cost.area_um2, cost.cycle_parts
    return [
        {
            "name": name,
            "energy": units.energy(energy.get(name)),
            "energy_share": units.share(energy.get(name), cost.total_energy_pj),
            "area": units.area(area.get(name)),
            "area_share": units.share(area.get(name), cost.total_area_um2),
            "cycles": units.si(cycles.get(name), ""),
            "cycles_share": units.share(cycles.get(name), cost.cycles),
        }
        for name in dict.fromkeys((*COMPONENTS, *area, *CYCLE_PARTS))
    ]


def _groups(priced: Priced, by: Any) -> list[dict[str, Any]]:
    cost = priced.cost
    return [
        {
            "name": str(name),
            "macs": units.si(row["macs"], "") if row["macs"] else units.NOT_APPLICABLE,
            "energy": units.energy(row["energy_pj"]),
            "energy_share": units.share(row["energy_pj"], cost.total_energy_pj),
            "cycles": units.si(row["cycles"], ""),
            "cycles_share": units.share(row["cycles"], cost.cycles),
            "offchip": units.si(row["offchip_bytes"], "B"),
        }
        for name, row in cost.breakdown(by).iterrows()
    ]


def _layer(row: dict[Any, Any]) -> dict[str, Any]:
    """Cells of the table of layers; numbers are plain, so that columns can be sorted."""
    has_product = bool(row["macs"])
    return {
        "design": row["design"],
        "operator": row["operator"],
        "kind": row["kind"],
        "phase": row["phase"],
        "macs": row["macs"] if has_product else None,
        "energy_uj": row["total_pj"] * 1e-6,
        "parts_uj": [row[f"{part}_pj"] * 1e-6 for part in COMPONENTS],
        "cycles": row["cycles"],
        "bound": row["bound"],
        "utilization": 100 * row["utilization"] if has_product else None,
        "offchip_bytes": row["offchip_bytes"],
        "tiling": row["tiling"] or units.NOT_APPLICABLE,
    }


def _sources(priced: Priced) -> list[str]:
    """Where numbers of a design come from, what is estimated, and what a user replaced."""
    cost, design = priced.cost, priced.design
    memory = offchip_memory(design.offchip, library=design.library)
    sustained = design.offchip_bytes_per_cycle * design.clock_mhz * 1e-3
    lines = [
        f"tables: {design.library.name}",
        f"{memory.name}: {memory.pj_per_bit:g} pJ per bit, {memory.source}",
        f"the design sustains {sustained:g} GB/s; peak of {memory.unit}: {memory.bandwidth_gb_s:g} GB/s",
        *(f"timing: {line}" for line in cost.timing),
        *(f"estimated: {line}" for line in cost.estimates),
        *(f"replaced: {line}" for line in cost.replaced),
    ]
    return [*lines, *(f"infeasible: {line}" for line in cost.violations)]
