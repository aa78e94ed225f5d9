"""The page of a campaign: one self-contained HTML file for any problem."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dse.diagnostics import FEWEST, Model
from dse.space import Space
from studies.campaigns import figures
from studies.campaigns.feasibility import draw, feasibility_map, given
from studies.campaigns.runs import Run
from studies.campaigns.space_of import space_of
from studies.page import figure_html, write_page

_MODELLED = 3  # objectives of which slices are drawn
_LISTED = 2000  # rows of the table that a browser filters quickly


@dataclass(frozen=True, eq=False)
class Look:
    """What models say of a run.

    Attributes
    ----------
    models
        By learnt objective, in the logarithm where `logarithmic` says so.
    missing
        Why an objective has none, by name.
    """

    space: Space
    models: Mapping[str, Model]
    logarithmic: Mapping[str, bool]
    missing: Mapping[str, str]


def look(run: Run) -> Look:
    """Fit a model to each learnt objective of a run."""
    space = space_of(run)
    done = run.done
    designs = [space.design(given(space, row)) for row in done.to_dict("records")]
    models, logarithmic, missing = {}, {}, {}
    for wanted in run.objectives:
        if wanted.known:
            missing[wanted.name] = "it is known exactly and not learnt"
            continue
        values = done[wanted.name].to_numpy(dtype=np.float64)
        logarithmic[wanted.name] = figures.is_logarithmic(wanted, values)
        try:
            models[wanted.name] = Model(
                space, designs, np.log10(values) if logarithmic[wanted.name] else values, seed=run.seed
            )
        except ValueError as error:
            missing[wanted.name] = str(error)
    return Look(space, models, logarithmic, missing)


def knee(run: Run) -> int | None:
    """Trial on the front that is closest to the best value of every objective, each scaled by the front."""
    front, costs = run.done[run.on_front], run.costs[run.on_front]
    if len(front) == 0:
        return None
    width = np.ptp(costs, axis=0)
    scaled = (costs - costs.min(axis=0)) / np.where(width > 0, width, 1.0)
    return int(front["trial_id"].iloc[int(np.argmin((scaled**2).sum(axis=1)))])


def write_report(run: Run, path: Path) -> None:
    """Write the page; it needs no other file and no network."""
    chosen = knee(run)
    context: dict[str, Any] = {
        "run": run,
        "states": dict(run.states),
        "front": int(run.on_front.sum()) if len(run.done) else 0,
        "share": float(run.hypervolumes()[-1]) if len(run.done) else None,
        "knee": chosen,
        "plots": {},
        "slices": [],
        "quality": [],
        "missing": {},
        "listed": _LISTED,
        "table": _table(run, chosen),
        "failures": _failures(run),
        "fewest": FEWEST,
        "feasibility": None,
        "feasibility_missing": None,
    }
    if len(run.done):
        context |= _pictures(run, chosen)
    if run.states["failed"]:
        context |= _feasibility(run)
    write_page("campaign_page.html.j2", context, path)


def _pictures(run: Run, chosen: int | None) -> dict[str, Any]:
    found = look(run)
    plots = {
        "progress": figures.hypervolume_trace(run),
        "parallel": figures.parallel(run),
    }
    slices: list[tuple[str, Any]] = []
    if found.models:
        plots["calibration"] = figures.calibration(found.models, run, found.logarithmic)
        effects = {name: model.effects() for name, model in found.models.items()}
        plots["importance"] = figures.importance(effects)
        row = run.done[run.done["trial_id"] == chosen].to_dict("records")[0]
        base = found.space.design(given(found.space, row))
        for wanted in run.objectives:
            if wanted.name in found.models and len(slices) < _MODELLED:
                figure = figures.slices(
                    run,
                    wanted,
                    found.models[wanted.name],
                    found.space,
                    base,
                    found.logarithmic[wanted.name],
                )
                slices.append((wanted.name, figure_html(figure)))
    return {
        "plots": {name: figure_html(figure) for name, figure in plots.items()},
        "fronts": [figure_html(figure) for figure in figures.fronts(run)],
        "slices": slices,
        "quality": [_quality(name, model, found.logarithmic[name]) for name, model in found.models.items()],
        "missing": found.missing,
    }


def _feasibility(run: Run) -> dict[str, Any]:
    """Picture of where designs fail, or why there is none."""
    try:
        found = feasibility_map(run, space_of(run))
    except ValueError as error:
        return {"feasibility_missing": str(error)}
    return {"feasibility": figure_html(draw(run, found)), "feasibility_names": found.names}


def _quality(name: str, model: Model, logarithmic: bool) -> dict[str, Any]:
    return {
        "name": name,
        "scale": "log10" if logarithmic else "as measured",
        "results": len(model.values),
        "explained": model.explained,
        "rmse": float(np.sqrt(((model.values - model.left_out) ** 2).mean())),
        "half": model.coverage(0.6745),
        "ninety": model.coverage(1.6449),
    }


def _table(run: Run, chosen: int | None) -> dict[str, Any]:
    """Columns and rows of the table in which a reader chooses a design, the front first."""
    front = set(run.done["trial_id"][run.on_front]) if len(run.done) else set()
    measured = run.frame[run.frame["trial_state"].isin(["done", "infeasible"])]
    outcomes = [name for name in run.outcomes if name not in [wanted.name for wanted in run.objectives]]
    columns = [
        *({"name": wanted.name, "label": wanted.label, "number": True} for wanted in run.objectives),
        *({"name": name, "label": name, "number": True} for name in outcomes),
        *({"name": name, "label": name, "number": _is_number(run, name)} for name in run.names),
    ]
    rows = []
    for row in measured.to_dict("records"):
        cells = [row[column["name"]] for column in columns]
        rows.append(
            {
                "id": int(row["trial_id"]),
                "front": row["trial_id"] in front,
                "knee": row["trial_id"] == chosen,
                "broken": row["trial_state"] == "infeasible",
                "cells": [
                    _plain(cell) if column["number"] else figures.text_of(cell)
                    for cell, column in zip(cells, columns, strict=True)
                ],
            }
        )
    rows.sort(key=lambda row: (not row["front"], row["id"]))
    return {"columns": columns, "rows": rows[:_LISTED], "all": len(rows)}


def _is_number(run: Run, name: str) -> bool:
    kinds = run.frame[name].map(lambda value: isinstance(value, int | float) and not isinstance(value, bool))
    return bool(kinds.all())


def _plain(value: Any) -> float | int | None:
    """JSON number of a cell; a table of numbers has NaN for what is missing."""
    number = float(value)
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _failures(run: Run) -> list[dict[str, Any]]:
    rows = run.frame[run.frame["trial_state"].isin(["failed", "abandoned"])]
    return [
        {
            "id": int(row["trial_id"]),
            "state": row["trial_state"],
            "error": row["trial_error"] or "",
            "parameters": ", ".join(f"{name} = {figures.text_of(row[name])}" for name in run.names),
        }
        for row in rows.to_dict("records")
    ]
