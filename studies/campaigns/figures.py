"""Plotly figures of any campaign."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from dse.diagnostics import Model
from dse.space import Design, Space
from studies.campaigns.runs import Run, Wanted
from studies.page import COLORS, styled

_DECADE = 20.0  # ratio of the largest to the smallest value from which an axis is logarithmic
_BAND = 1.645  # standard deviations of an interval of 90 %
_ACROSS = 4  # slices side by side
_CROWDED = 24  # letters of labels side by side under a slice, beyond which they are slanted
_STEPS = 12  # values up to which an axis of parallel coordinates has a step for each
_GREY = "#9a9a9a"


def is_logarithmic(wanted: Wanted, values: Float[np.ndarray, " n"]) -> bool:
    """Whether a quantity is drawn and modelled in the logarithm: so transformed, or over some decades."""
    if len(values) == 0 or values.min() <= 0 or wanted.transform in ("none", "logit"):
        return False
    return wanted.transform == "log" or bool(values.max() > _DECADE * values.min())


def text_of(value: Any) -> str:
    """A parameter's value for a reader: lists with spaces, nothing for what is inactive."""
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _hover(run: Run, rows: pd.DataFrame) -> list[str]:
    found = []
    for row in rows.to_dict("records"):
        head = f"<b>trial {row['trial_id']}</b>"
        knobs = [f"{name} = {text_of(row[name])}" for name in run.names]
        goals = [f"{wanted.label}: {text_of(row[wanted.name])}" for wanted in run.objectives]
        found.append("<br>".join([head, *goals, *knobs]))
    return found


def fronts(run: Run) -> list[go.Figure]:
    """Every pair of the first three objectives; a single objective against the trials."""
    if len(run.objectives) == 1:
        return [_history(run, run.objectives[0])]
    pairs = combinations(run.objectives[:3], 2)
    return [_pair(run, first, second) for first, second in pairs]


def _pair(run: Run, across: Wanted, up: Wanted) -> go.Figure:
    """Trials by two objectives: the front joined, those that break an outcome constraint as crosses."""
    figure = go.Figure()
    done, broken = run.done, run.frame[run.frame["trial_state"] == "infeasible"]
    best = done[run.on_front]
    for rows, name, marker in (
        (broken, "outside an outcome constraint", {"color": COLORS[1], "symbol": "x", "size": 8}),
        (done[~run.on_front], "dominated", {"color": _GREY, "size": 7, "opacity": 0.8}),
        (best, "on the front", {"color": COLORS[0], "size": 10}),
    ):
        if rows.empty:
            continue
        figure.add_trace(
            go.Scatter(
                x=rows[across.name],
                y=rows[up.name],
                mode="markers",
                name=f"{name} ({len(rows)})",
                marker=marker,
                text=_hover(run, rows),
                hovertemplate="%{text}<extra></extra>",
            )
        )
    if len(run.objectives) == 2 and len(best) > 1:
        stairs = best.sort_values(across.name)
        # Between two designs, the earlier one's second objective is still the best there is.
        shape = "hv" if across.minimize else "vh"
        figure.add_trace(
            go.Scatter(
                x=stairs[across.name],
                y=stairs[up.name],
                mode="lines",
                line={"color": COLORS[0], "width": 1.2, "shape": shape},
                hoverinfo="skip",
                showlegend=False,
            )
        )
    for wanted, axis in ((across, figure.update_xaxes), (up, figure.update_yaxes)):
        goal = "low is good" if wanted.minimize else "high is good"
        values = run.frame[wanted.name].dropna().to_numpy(dtype=np.float64)
        axis(title=f"{wanted.label} ({goal})", type="log" if is_logarithmic(wanted, values) else "linear")
    return styled(figure, 480)


def _history(run: Run, wanted: Wanted) -> go.Figure:
    done = run.done
    values = done[wanted.name].to_numpy(dtype=np.float64)
    best = np.minimum.accumulate(values) if wanted.minimize else np.maximum.accumulate(values)
    figure = go.Figure(
        [
            go.Scatter(
                x=done["trial_id"] + 1,
                y=values,
                mode="markers",
                name="trials",
                marker={"color": _GREY, "size": 7},
                text=_hover(run, done),
                hovertemplate="%{text}<extra></extra>",
            ),
            go.Scatter(
                x=done["trial_id"] + 1,
                y=best,
                mode="lines",
                name="best so far",
                line={"color": COLORS[0], "shape": "hv"},
            ),
        ]
    )
    figure.update_xaxes(title="trial")
    figure.update_yaxes(title=wanted.label, type="log" if is_logarithmic(wanted, values) else "linear")
    return styled(figure, 420)


def hypervolume_trace(run: Run) -> go.Figure:
    """Share of the box between the best values and the reference point that is dominated, by trial."""
    shares = 100 * run.hypervolumes()
    figure = go.Figure(
        go.Scatter(
            x=run.done["trial_id"] + 1,
            y=shares,
            mode="lines+markers",
            line={"color": COLORS[0], "shape": "hv"},
            marker={"size": 4},
        )
    )
    lost = run.frame[run.frame["trial_state"].isin(["failed", "infeasible", "abandoned"])]
    if not lost.empty:
        figure.add_trace(
            go.Scatter(
                x=lost["trial_id"] + 1,
                y=np.zeros(len(lost)),
                mode="markers",
                marker={"color": COLORS[1], "symbol": "x", "size": 7},
                text=[f"trial {row.trial_id}: {row.trial_state}" for row in lost.itertuples()],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title="trials")
    figure.update_yaxes(title="hypervolume, % of the box", rangemode="tozero")
    return styled(figure, 340)


def calibration(models: Mapping[str, Model], run: Run, logarithmic: Mapping[str, bool]) -> go.Figure:
    """Measured values against their left-out predictions, with intervals of 90 %."""
    wanted = {objective.name: objective for objective in run.objectives}
    figure = make_subplots(1, len(models), subplot_titles=[wanted[name].label for name in models])
    for place, (name, model) in enumerate(models.items(), start=1):
        low = model.left_out - _BAND * model.left_out_std
        high = model.left_out + _BAND * model.left_out_std
        middle, low, high, values = (
            10**array if logarithmic[name] else array for array in (model.left_out, low, high, model.values)
        )
        inside = (values >= low) & (values <= high)
        figure.add_trace(
            go.Scatter(
                x=values,
                y=middle,
                mode="markers",
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": high - middle,
                    "arrayminus": middle - low,
                    "thickness": 1,
                    "width": 0,
                    "color": "rgba(120, 120, 120, 0.5)",
                },
                marker={"color": np.where(inside, COLORS[0], COLORS[1]).tolist(), "size": 6},
                hovertemplate="measured %{x:.4g}, predicted %{y:.4g}<extra></extra>",
            ),
            1,
            place,
        )
        ends = [values.min(), values.max()]
        figure.add_trace(
            go.Scatter(
                x=ends, y=ends, mode="lines", line={"dash": "dot", "color": "#444444"}, hoverinfo="skip"
            ),
            1,
            place,
        )
        kind = "log" if logarithmic[name] else "linear"
        figure.update_xaxes(title="measured", type=kind, row=1, col=place)
        figure.update_yaxes(title="predicted without it" if place == 1 else "", type=kind, row=1, col=place)
    figure.update_layout(showlegend=False)
    return styled(figure, 420)


def importance(effects: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """Total effect of each parameter on each objective, the most important parameter on top."""
    names = list(next(iter(effects.values())))
    weight = {name: max(shares[name] for shares in effects.values()) for name in names}
    names.sort(key=lambda name: -weight[name])
    figure = go.Figure()
    for index, (objective, shares) in enumerate(effects.items()):
        figure.add_trace(
            go.Bar(
                y=names,
                x=[100 * shares[name] for name in names],
                name=objective,
                orientation="h",
                marker={"color": COLORS[index % len(COLORS)]},
                hovertemplate=f"%{{y}}: %{{x:.1f}} % of {objective}<extra></extra>",
            )
        )
    figure.update_layout(barmode="group", legend_traceorder="normal")
    figure.update_xaxes(title="total effect, % of the variance", rangemode="tozero")
    figure.update_yaxes(autorange="reversed")
    return styled(figure, 140 + 16 * len(names) * (1 + len(effects)))


def parallel(run: Run) -> go.Figure:
    """Parameters and objectives of every measured trial as lines, coloured by the first objective."""
    done = run.done
    dimensions = [_dimension(name, done[name].tolist()) for name in run.names]
    for wanted in run.objectives:
        values = done[wanted.name].to_numpy(dtype=np.float64)
        if is_logarithmic(wanted, values):
            logs = np.log10(values)
            ticks = np.linspace(logs.min(), logs.max(), 6)
            text = [f"{10.0**tick:.4g}" for tick in ticks]
            dimensions.append(
                {"label": wanted.label, "values": logs, "tickvals": ticks.tolist(), "ticktext": text}
            )
        else:
            dimensions.append({"label": wanted.label, "values": values})
    colours = dimensions[len(run.names)]["values"]
    figure = go.Figure(
        go.Parcoords(
            dimensions=[entry for entry in dimensions if len(set(entry["values"])) > 1],
            line={"color": colours, "colorscale": "Viridis", "reversescale": run.objectives[0].minimize},
            labelangle=-20,
            labelside="bottom",
        )
    )
    styled(figure, 460)
    figure.update_layout(margin={"l": 70, "r": 70, "t": 40, "b": 90})
    return figure


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _dimension(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """Axis of a parameter: numbers as they are where there are many, otherwise one step per value."""
    if all(map(_is_number, values)) and len(set(values)) > _STEPS:
        return {"label": name, "values": np.array(values, dtype=np.float64)}
    # Few values are spaced evenly, whatever they are: powers of two would crowd one end.
    rank = {text_of(value): (1, value, "") for value in values if _is_number(value)}
    texts = sorted({text_of(value) for value in values}, key=lambda text: rank.get(text, (0, 0.0, text)))
    place = {text: index for index, text in enumerate(texts)}
    return {
        "label": name,
        "values": np.array([place[text_of(value)] for value in values], dtype=np.float64),
        "tickvals": list(range(len(texts))),
        "ticktext": texts,
    }


def slices(
    run: Run,
    wanted: Wanted,
    model: Model,
    space: Space,
    base: Design,
    logarithmic: bool,
) -> go.Figure:
    """An objective along each parameter, all others as in one design: prediction, and all trials."""
    names = [parameter.name for parameter in space.searched]
    asleep = {
        parameter.name
        for parameter, value in zip(space.parameters, base, strict=True)
        if value is None and parameter.active_if is not None
    }
    down = math.ceil(len(names) / _ACROSS)
    figure = make_subplots(
        down,
        min(_ACROSS, len(names)),
        subplot_titles=[f"{name} (inactive)" if name in asleep else name for name in names],
        shared_yaxes=True,
        vertical_spacing=0.35 / down,
        horizontal_spacing=0.03,
    )
    done = run.done
    for index, name in enumerate(names):
        row, column = index // _ACROSS + 1, index % _ACROSS + 1
        position = space.names.index(name)
        active = done[[not is_missing(value) for value in done[name]]]
        if name in asleep and not active.empty:
            # Nothing to predict: the trials in which it is active are all there is to show.
            figure.add_trace(_trials(active, active[name].map(_shown), wanted), row, column)
            figure.update_yaxes(type="log" if logarithmic else "linear", row=row, col=column)
            continue
        designs = model.along(base, name)
        mean, std = model.predict(designs)
        low, middle, high = (
            10**array if logarithmic else array for array in (mean - _BAND * std, mean, mean + _BAND * std)
        )
        values = [design[position] for design in designs]
        line = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        x: list[Any] = values if line else [text_of(value) for value in values]
        seen = pd.Series([value if line else text_of(value) for value in done[name]], dtype=object)
        figure.add_trace(_trials(done, seen, wanted), row, column)
        if line:
            figure.add_trace(
                go.Scatter(
                    x=[*x, *reversed(x)],
                    y=[*high, *reversed(low)],
                    mode="lines",
                    fill="toself",
                    fillcolor="rgba(0, 114, 178, 0.15)",
                    line={"width": 0},
                    hoverinfo="skip",
                ),
                row,
                column,
            )
        error = {"type": "data", "symmetric": False, "array": high - middle, "arrayminus": middle - low}
        figure.add_trace(
            go.Scatter(
                x=x,
                y=middle,
                mode="lines" if line else "markers",
                error_y=None if line else error,
                line={"color": COLORS[0]},
                marker={"color": COLORS[0], "size": 8},
                hovertemplate="predicted %{y:.4g}<extra></extra>",
            ),
            row,
            column,
        )
        spread = [value for value in values if isinstance(value, int | float)] if line else []
        wide = bool(spread) and min(spread) > 0 and max(spread) > _DECADE / 2 * min(spread)
        kind = "log" if wide else ("linear" if line else "category")
        crowded = kind == "category" and len(x) * max(map(len, x)) > _CROWDED
        figure.update_xaxes(type=kind, tickangle=-60 if crowded else None, row=row, col=column)
        figure.update_yaxes(type="log" if logarithmic else "linear", row=row, col=column)
        if column == 1:
            figure.update_yaxes(title=wanted.label, row=row, col=column)
    figure.update_layout(showlegend=False)
    return styled(figure, 100 + 230 * down)


def _trials(rows: pd.DataFrame, across: pd.Series[Any], wanted: Wanted) -> go.Scatter:
    return go.Scatter(
        x=across,
        y=rows[wanted.name],
        mode="markers",
        marker={"color": _GREY, "size": 5, "opacity": 0.7},
        text=[f"trial {trial}" for trial in rows["trial_id"]],
        hovertemplate="%{text}: %{y:.4g}<extra></extra>",
    )


def is_missing(value: Any) -> bool:
    """Whether a cell of a table holds nothing, as that of an inactive parameter."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _shown(value: Any) -> Any:
    return value if _is_number(value) else text_of(value)
