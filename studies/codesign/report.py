"""The report of a campaign: one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from accel.schedule import Schedule
from numerics import FloatFormat
from studies.codesign import figures
from studies.codesign.campaign import Result
from studies.codesign.describe import design_text, numerics_text
from studies.memory_map import memory_map
from studies.page import figure_html, write_page
from studies.tasks import TASKS


def write_report(result: Result, path: Path) -> None:
    """Write the page; it needs no other file and no network."""
    context: dict[str, Any] = {
        "config": result.config,
        "task": TASKS[result.config.training.task].title,
        "front": [_row(row) for _, row in result.front.iterrows()],
        "reference": _row(result.reference),
        "cheapest": cheapest_within(result, 0.01),
        "evaluations": len(result.trials),
        "trained": len(result.trained),
        "failures": [(trial.id, numerics_text(trial.parameters), trial.error) for trial in result.failed],
        "notes": result.notes,
        "macs": result.pricing.step.macs,
    }
    if not result.front.empty:
        context |= _pictures(result)
    write_page("campaign.html.j2", context, path)


def _pictures(result: Result) -> dict[str, Any]:
    """Figures, and the schedule that one of them shows."""
    chosen = scheduled_design(result)
    plan = schedule_of(result, chosen)
    plots = {
        "front": figures.front(result),
        "loss": figures.front(result, quality="training_loss"),
        "breakdown": figures.breakdown(result),
        "bits": figures.accuracy_against_bits(result),
        "memory": memory_map(plan),
        "progress": figures.hypervolume_trace(result),
    }
    return {
        "plan": plan,
        "chosen": {**chosen, "design": str(result.pricing.design(result.trials[chosen["id"]].parameters))},
        "plots": {name: figure_html(figure) for name, figure in plots.items()},
    }


def cheapest_within(result: Result, loss_of_accuracy: float) -> dict[str, Any] | None:
    """Evaluated design of least energy whose accuracy is within a margin of the twin's."""
    reference = result.reference
    done = result.evaluations[result.evaluations["state"] == "done"]
    good = done[done["test_accuracy"] >= reference["test_accuracy"] - loss_of_accuracy]
    if good.empty:
        return None
    row = _row(good.loc[good["energy_pj"].idxmin()])
    return {**row, "saving": reference["energy_pj"] / row["energy_pj"]}


def scheduled_design(result: Result) -> dict[str, Any]:
    """Design whose schedule is shown: on the front, with the most avoidable traffic."""
    rows = [_row(row) for _, row in result.front.iterrows()]
    return max(rows, key=lambda row: schedule_of(result, row).noncompulsory_bytes)


def schedule_of(result: Result, row: dict[str, Any]) -> Schedule:
    """Schedule of a table row's training step."""
    return result.pricing.schedule(
        FloatFormat.parse(row["format"]),
        FloatFormat.parse(result.config.training.update_format),
        int(row["scratchpad_bytes"]),
    )


def _row(row: pd.Series[Any]) -> dict[str, Any]:
    cells = {str(name): value for name, value in row.items()}
    return {**cells, "numerics": numerics_text(cells), "design": design_text(cells)}
