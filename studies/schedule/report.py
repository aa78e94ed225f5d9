"""Schedules as one self-contained page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studies import units
from studies.memory_map import memory_map
from studies.page import figure_html, write_page
from studies.schedule import figures
from studies.schedule.run import Answer
from studies.schedule.sizes import size_text
from studies.schedule.tables import moved_tensors, savings, traffic_by_size
from studies.schedule.terminal import header, too_small


def write_report(answer: Answer, path: Path) -> None:
    """Write the page; it needs no other file and no network."""
    plan = answer.plan
    plots = {"memory": memory_map(plan)}
    if answer.saving is not None and answer.saving.reference_bytes:
        plots["savings"] = figures.savings(answer)
    if len(answer.sweep) > 1:
        plots["traffic"] = figures.traffic(answer)
    context: dict[str, Any] = {
        "answer": answer,
        "plan": plan,
        "header": header(answer),
        "size": size_text(plan.scratchpad_bytes),
        "baselines": [] if answer.baselines is None else answer.baselines.to_dict("records"),
        "savings": [] if answer.saving is None else savings(answer),
        "moved": moved_tensors(plan).to_dict("records"),
        "sweep": traffic_by_size(answer).to_dict("records") if answer.sweep else [],
        "too_small": too_small(answer) if answer.too_small else "",
        "size_text": size_text,
        "units": units,
        "plots": {name: figure_html(figure) for name, figure in plots.items()},
    }
    write_page("schedule.html.j2", context, path)
