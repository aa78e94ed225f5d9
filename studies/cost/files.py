"""Costs as CSV and JSON."""

from __future__ import annotations

import json
from math import isfinite, isnan
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from accel.cost import Grouping
from accel.design import Design
from studies.cost.run import NOT_MODELLED, Answer, Priced, notes
from studies.cost.tables import METRICS, layers
from studies.files import write_text


def write_csv(answer: Answer, path: Path) -> None:
    """Write one row per design and operator, at once or not at all."""
    write_text(path, layers(answer).to_csv(index=False))


def write_json(answer: Answer, path: Path) -> None:
    """Write totals, all tables, layers and remarks, at once or not at all; what does not apply is null."""
    document = {
        "model": answer.model.text,
        "training": answer.model.training,
        "batch": answer.workload.batch,
        "objective": answer.objective,
        "stored": answer.stored,
        "designs": [_design(priced) for priced in answer.designs],
        "sensitivity": None if answer.sensitivity is None else _records(answer.sensitivity),
        "notes": notes(answer.workload),
        "not_modelled": list(NOT_MODELLED),
    }
    write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def _design(priced: Priced) -> dict[str, Any]:
    cost = priced.cost
    values = {key: getattr(priced.design, key) for key in Design.keys() if key != "library"}  # noqa: SIM118
    settings = {
        key: _plain(value) if isinstance(value, int | float) else str(value) for key, value in values.items()
    }
    found: dict[str, Any] = {
        "name": priced.name,
        "file": str(priced.path),
        "design": settings,
        "tables": priced.design.library.name,
        "feasible": cost.feasible,
        "violations": [
            {key: getattr(broken, key) for key in ("constraint", "needed", "available", "unit", "where")}
            for broken in cost.violations
        ],
        "timing": [str(line) for line in cost.timing],
        "estimates": list(cost.estimates),
        "replaced": list(cost.replaced),
        "totals": {
            metric.key: metric.value(cost) if cost.feasible or metric.of_design else None
            for metric in METRICS
        },
        "area_um2": dict(cost.area_um2),
    }
    if cost.feasible:
        found["macs"] = cost.macs
        found["by"] = {by: _records(cost.breakdown(by).reset_index()) for by in get_args(Grouping)}
        found["operators"] = _records(cost.table())
        found["traffic"] = _records(cost.traffic())
        found["roofline"] = _records(cost.roofline())
    return found


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of plain values: null for what is missing, text for infinity."""
    return [{str(key): _plain(value) for key, value in row.items()} for row in table.to_dict("records")]


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not isfinite(value):
        return None if isnan(value) else str(value)
    return value
