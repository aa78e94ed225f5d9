"""Schedules as JSON, under the names that Python has for them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accel.schedule import Schedule
from studies.files import write_text
from studies.schedule.run import Answer
from studies.schedule.tables import moved_tensors


def write_json(answer: Answer, path: Path) -> None:
    """Write the schedule, baselines, savings and the sweep, at once or not at all."""
    request = answer.request
    document: dict[str, Any] = {
        "model": request.model.text,
        "training": request.model.training,
        "batch": answer.workload.batch,
        "operators": len(answer.workload.operators),
        "working_set_minimum": answer.working_set_bytes,
        "working_set_operator": answer.working_set_operator,
        "peak_minimum": answer.peak_bytes,
        "order_of_operators": answer.order,
        **totals(answer.plan),
        "order": list(answer.plan.order),
        "runs": answer.plan.runs.to_dict("records"),
        "transfers": [asdict(move) for move in answer.plan.transfers],
        "moved_tensors": moved_tensors(answer.plan).to_dict("records"),
        "baselines": None if answer.baselines is None else _records(answer.baselines),
        "saving": None if answer.saving is None else asdict(answer.saving),
        "sweep": [
            totals(plan) | {"baselines": dict(answer.sweep_baselines.get(plan.scratchpad_bytes, {}))}
            for plan in answer.sweep
        ],
        "too_small": list(answer.too_small),
    }
    write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def totals(plan: Schedule) -> dict[str, Any]:
    """Options, outcome and traffic of one schedule."""
    names = (
        "scratchpad_bytes", "alignment", "mode", "weights", "tile_reserve_bytes",
        "status", "noncompulsory_bytes", "bound_bytes", "gap", "spilled_bytes", "refetched_bytes",
        "compulsory_bytes", "compulsory_weight_bytes", "compulsory_activation_bytes", "offchip_bytes",
        "peak_bytes", "method", "solver", "model_size", "warm_start", "seconds",
    )  # fmt: skip
    return {name: getattr(plan, name) for name in names}


def _records(table: Any) -> list[dict[str, Any]]:
    return [
        {key: value.item() if hasattr(value, "item") else value for key, value in row.items()}
        for row in table.to_dict("records")
    ]
