"""The report of a campaign: one self-contained HTML page, and its tables as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pandas as pd

from accel.schedule import Schedule
from studies.codesign import figures
from studies.codesign.campaign import Result
from studies.codesign.describe import design_text, numerics_text
from studies.codesign.recommend import Recommendation, recommended
from studies.codesign.savings import rows_of as savings_rows
from studies.codesign.savings import savings_of
from studies.codesign.sensitivity import sensitivity_of
from studies.memory_map import memory_map
from studies.page import figure_html, write_page, write_plain


def write_report(result: Result, path: Path) -> Path:
    """Write the page, which needs no other file and no network, and beside it its tables as Markdown.

    Returns
    -------
    Path of the Markdown file: that of the page with the suffix ``.md``.
    """
    context: dict[str, Any] = {
        "config": result.config,
        "quality": result.quality,
        "task": result.task.title,
        "front": [_row(row) for _, row in result.front.iterrows()],
        "reference": _row(result.reference),
        "cheapest": None,
        "evaluations": len(result.trials),
        "trained": len(result.trained),
        "brief": len(result.brief),
        "failures": [(trial.id, numerics_text(trial.parameters), trial.error) for trial in result.failed],
        "notes": result.notes,
        "macs": result.pricing.step.macs,
        "optimizer": _optimizer_text(result),
    }
    if not result.front.empty:
        context |= _answers(result)
        context |= _pictures(result, context["recommended"])
    write_page("campaign.html.j2", context, path)
    tables = path.with_suffix(".md")
    write_plain("campaign.md.j2", context, tables)
    return tables


def _answers(result: Result) -> dict[str, Any]:
    """What an architect asks first: which designs, what limits them, what saves, and what matters."""
    designs = recommended(result)
    for design in designs:
        design.row.update(numerics=numerics_text(design.row), design=design_text(design.row))
    cheapest = next((design for design in designs if design.title.startswith("cheapest")), None)
    twin, _ = result.pricing.full_precision()
    explained = cheapest or designs[0]
    savings = savings_of(result.pricing, explained.parameters, twin)
    sensitivity = sensitivity_of(result)
    return {
        "recommended": designs,
        "parameters": result.space.names,
        "cheapest": cheapest,
        "explained": explained,
        "savings": savings,
        "savings_rows": savings_rows(savings),
        "on_front": set(result.front["id"]),
        "savings_plot": figure_html(figures.waterfall(savings)),
        "sensitivity": sensitivity,
        "sensitivity_plot": None if sensitivity is None else figure_html(figures.pinned(sensitivity)),
    }


def _pictures(result: Result, designs: list[Recommendation]) -> dict[str, Any]:
    """Figures, and the schedule that one of them shows."""
    chosen = scheduled_design(result)
    parameters = next(trial.parameters for trial in result.trials if trial.id == chosen["id"])
    plan = schedule_of(result, chosen)
    plots = {
        "front": figures.front(result, rings=designs),
        "loss": figures.front(result, height="training_loss", rings=designs),
        "breakdown": figures.breakdown(result, designs),
        "bits": figures.quality_against_bits(result),
        "memory": memory_map(plan),
        "progress": figures.hypervolume_trace(result),
    }
    return {
        "plan": plan,
        "chosen": {**chosen, "design": str(result.pricing.design(parameters))},
        "plots": {name: figure_html(figure) for name, figure in plots.items()},
        "beyond": beyond_the_edge(result),
    }


def beyond_the_edge(result: Result) -> int:
    """How many designs a picture of the front draws at its edge."""
    heights: tuple[Literal["metric", "training_loss"], ...] = ("metric", "training_loss")
    columns = (result.quality.column, "training_loss")
    far = [
        result.done[column] > figures.upper_fence(result, height)
        for column, height in zip(columns, heights, strict=True)
    ]
    return int((far[0] | far[1]).sum())


def _optimizer_text(result: Result) -> str:
    """Optimizer of the training in words."""
    rule = result.config.training.rule
    kind = {"sgd": f"SGD with momentum {rule.momentum}", "adam": "Adam", "adamw": "AdamW"}[rule.kind]
    schedule = "" if rule.schedule == "constant" else f" falling to zero ({rule.schedule})"
    return f"{kind}, learning rate {rule.learning_rate}{schedule}"


def scheduled_design(result: Result) -> dict[str, Any]:
    """Design whose schedule is shown: on the front, with the most avoidable traffic."""
    rows = [_row(row) for _, row in result.front.iterrows()]
    return max(rows, key=lambda row: schedule_of(result, row).noncompulsory_bytes)


def schedule_of(result: Result, row: dict[str, Any]) -> Schedule:
    """Schedule of a table row's training step."""
    return result.pricing.schedule(result.pricing.storage(row), int(row["scratchpad_bytes"]))


def _row(row: pd.Series[Any]) -> dict[str, Any]:
    cells = {str(name): value for name, value in row.items()}
    return {**cells, "numerics": numerics_text(cells), "design": design_text(cells)}
