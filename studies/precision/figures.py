"""Plotly figures of a precision study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from studies.page import COLORS
from studies.precision.knees import Sweep
from studies.precision.results import Results
from studies.precision.rounding_errors import MEASURES, ROLES
from studies.precision.table import TWIN

NEUTRAL = "#555555"
ALARM = "#B00020"
BANDS = 6  # policies, of which more are drawn without bands

_POLICY_COLORS = COLORS[:6]  # the twin's is grey
_DASHES = ("solid", "dash", "dot", "dashdot")
_SCALE = [[0.0, "#FFFFFF"], [0.35, "#FBD9B8"], [0.7, "#E58A3C"], [1.0, "#7A2E00"]]  # darker: more is lost
_SQNR_DB = 60.0  # drawn white: nothing that matters was lost
_SHARES = (1e-4, 1.0)  # ends of the logarithmic scale of shares
_SHOWN_LOSS = 10.0  # times the first loss: higher ones are cut off


def styles(results: Results) -> dict[str, dict[str, str]]:
    """Line of each policy: the same colour and dashes in every figure, grey dots for the twin."""
    names = [policy["name"] for policy in results.record["policies"] if policy["name"] != TWIN]
    found = {TWIN: {"color": NEUTRAL, "dash": "dot"}}
    for index, name in enumerate(names):
        dash = _DASHES[index // len(_POLICY_COLORS) % len(_DASHES)]
        found[name] = {"color": _POLICY_COLORS[index % len(_POLICY_COLORS)], "dash": dash}
    return found


def metric_title(results: Results) -> str:
    """Name and unit of the metric."""
    metric = results.record["metric"]
    return f"{metric['name']}, {metric['unit']}" if metric["unit"] else str(metric["name"])


def curves(results: Results) -> go.Figure:
    """Evaluated loss and metric against the steps: mean over the seeds, range as a band.

    Runs that diverged are dashed lines of their own up to a cross.
    """
    figure = make_subplots(
        cols=2, subplot_titles=("loss on training samples", f"test {metric_title(results)}")
    )
    table = results.curves.dropna(subset=["evaluation_loss"], how="all")
    table = results.curves[results.curves["step"].isin(table["step"])]
    diverged = results.runs.loc[results.runs["diverged"].notna(), ["policy", "seed"]]
    lost = set(diverged.itertuples(index=False, name=None))
    lines = styles(results)
    bands = len(lines) - 1 <= BANDS
    for name, style in lines.items():
        mine = table[table["policy"] == name]
        if mine.empty:
            continue
        good = mine[[(name, seed) not in lost for seed in mine["seed"]]]
        for column, measure in enumerate(("evaluation_loss", "metric"), 1):
            place = {"row": 1, "col": column}
            _mean_and_band(figure, good, measure, name, style, place, band=bands)
            for seed in sorted(seed for policy, seed in lost if policy == name):
                _diverged(figure, mine[mine["seed"] == seed], measure, name, seed, style, place)
    _loss_axis(figure, table, 1)
    figure.update_xaxes(title="step")
    return _styled(figure, 480, legend_below=True)


def _mean_and_band(
    figure: go.Figure,
    table: pd.DataFrame,
    measure: str,
    name: str,
    style: Mapping[str, str],
    place: Mapping[str, int],
    *,
    band: bool,
) -> None:
    steps = table.dropna(subset=[measure]).groupby("step")[measure].agg(["mean", "min", "max"])
    if steps.empty:
        if measure == "evaluation_loss":  # keep its entry in the legend
            figure.add_trace(_line([None], [None], name, style, legend=True), **place)
        return
    if band and (steps["max"] > steps["min"]).any():
        figure.add_trace(
            go.Scatter(
                x=[*steps.index, *steps.index[::-1]],
                y=[*steps["max"], *steps["min"][::-1]],
                fill="toself",
                fillcolor=style["color"],
                opacity=0.15,
                line={"width": 0},
                legendgroup=name,
                showlegend=False,
                hoverinfo="skip",
            ),
            **place,
        )
    figure.add_trace(
        _line(steps.index, steps["mean"], name, style, legend=measure == "evaluation_loss"), **place
    )


def _line(x: Any, y: Any, name: str, style: Mapping[str, str], *, legend: bool) -> go.Scatter:
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        name=name,
        legendgroup=name,
        showlegend=legend,
        line={**style, "width": 3 if name == TWIN else 2},
        hovertemplate=f"{name}<br>step %{{x}}: %{{y:.4g}}<extra></extra>",
    )


def _diverged(
    figure: go.Figure,
    run: pd.DataFrame,
    measure: str,
    name: str,
    seed: int,
    style: Mapping[str, str],
    place: Mapping[str, int],
) -> None:
    points = run[np.isfinite(run[measure].astype(float))]
    if points.empty:
        return
    figure.add_trace(
        go.Scatter(
            x=points["step"],
            y=points[measure],
            mode="lines+markers",
            legendgroup=name,
            showlegend=False,
            line={"color": style["color"], "dash": "dash", "width": 1},
            marker={"symbol": "x", "size": [0] * (len(points) - 1) + [9], "color": style["color"]},
            hovertemplate=f"{name}, seed {seed}, diverged<br>step %{{x}}: %{{y:.4g}}<extra></extra>",
        ),
        **place,
    )


def _loss_axis(figure: go.Figure, table: pd.DataFrame, column: int) -> None:
    """Logarithmic if all losses are positive, and cut far above the start."""
    losses = table["evaluation_loss"].to_numpy(np.float64)
    losses = losses[np.isfinite(losses)]
    if not len(losses) or (losses <= 0.0).any():
        return
    figure.update_yaxes(**_logarithmic(losses), row=1, col=column)
    top = _SHOWN_LOSS * float(table.loc[table["step"] == 0, "evaluation_loss"].max())
    if losses.max() > top > losses.min():
        low = math.log10(losses.min())
        high = math.log10(top)
        figure.update_yaxes(range=[low - 0.05 * (high - low), high], row=1, col=column)


def _logarithmic(values: np.ndarray) -> dict[str, Any]:
    """A logarithmic axis, with ticks at 1, 2 and 5 where it is long enough to have some."""
    wide = len(values) and values.max() > 10.0 * values.min()
    return {"type": "log", "exponentformat": "power", **({"dtick": "D2"} if wide else {})}


def sweep(results: Results, found: Sweep) -> go.Figure:
    """Final training loss and metric against a swept value, one line per combination of the others."""
    figure = make_subplots(
        cols=2, subplot_titles=("final training loss", f"final test {metric_title(results)}")
    )
    values = found.values
    steps = np.diff([value for value in values if value or not found.is_chunk])
    even = not found.is_chunk and len(set(np.round(steps, 9))) <= 1
    labels = ["none" if found.is_chunk and not value else f"{value:g}" for value in values]
    where = {value: value if even else place for place, value in enumerate(values)}
    for index, line in enumerate(found.lines):
        color = _POLICY_COLORS[index % len(_POLICY_COLORS)]
        dash = _DASHES[index // len(_POLICY_COLORS) % len(_DASHES)]
        points = line.points
        if found.is_chunk:
            points = pd.concat([points[points["value"] > 0], points[points["value"] == 0]])
        # Lines side by side, so that their intervals do not hide each other.
        shift = 0.06 * (index - (len(found.lines) - 1) / 2) * (abs(values[1] - values[0]) if even else 1.0)
        x = [where[value] + shift for value in points["value"]]
        entry = {"color": color, "dash": dash}
        figure.add_trace(_line([None], [None], line.name, entry, legend=True), row=1, col=1)
        for column, measure in enumerate(("training_loss", "metric"), 1):
            figure.add_trace(
                go.Scatter(
                    x=x,
                    y=points[measure],
                    error_y={
                        "type": "data",
                        "array": points[f"{measure}_interval"].fillna(0.0),
                        "thickness": 1,
                        "width": 3,
                    },
                    mode="lines+markers",
                    name=line.name,
                    legendgroup=line.name,
                    showlegend=False,
                    line={"color": color, "dash": dash, "width": 2},
                    marker={
                        "opacity": 1.0,
                        "size": [15 if value == line.knee else 7 for value in points["value"]],
                        "symbol": ["circle" if not lost else "x" for lost in points["diverged"]],
                        "line": {"color": "white", "width": 1},
                    },
                    text=[_hover(row, results.metric) for _, row in points.iterrows()],
                    hovertemplate="%{text}<extra></extra>",
                ),
                row=1,
                col=column,
            )
    _twin_level(figure, results, [min(where.values()), max(where.values())])
    losses = results.table["training_loss"].dropna().to_numpy(np.float64)
    if (losses > 0.0).all():
        figure.update_yaxes(**_logarithmic(losses), row=1, col=1)
    ticks = {"tickvals": list(where.values()), "ticktext": labels}
    figure.update_xaxes(title=found.path, **ticks)
    return _styled(figure, 430, legend_below=True)


def _twin_level(figure: go.Figure, results: Results, ends: Sequence[float]) -> None:
    twin = results.table[results.table["policy"] == TWIN].iloc[0]
    for column, measure in enumerate(("training_loss", "metric"), 1):
        figure.add_trace(
            go.Scatter(
                x=ends,
                y=[twin[measure]] * 2,
                mode="lines",
                name="float32 twin",
                legendgroup="float32 twin",
                showlegend=column == 1,
                line={"color": NEUTRAL, "dash": "dot", "width": 3},
                hovertemplate="float32 twin: %{y:.4g}<extra></extra>",
            ),
            row=1,
            col=column,
        )


def _hover(row: pd.Series[Any], metric: str) -> str:
    lost = f"<br>diverged: {row['diverged']} of {row['seeds']}" if row["diverged"] else ""
    return (
        f"<b>{row['policy']}</b><br>training loss {row['training_loss']:.4g}"
        f"<br>{metric} {row['metric']:.4g}<br>{row['verdict']}{lost}"
    )


def maps(table: pd.DataFrame, kind: str) -> go.Figure:
    """Heat maps, layers by roles, of what is lost: a map for each measure, a set for each policy.

    Parameters
    ----------
    table
        As `studies.precision.rounding_errors.averaged` gives it.
    kind
        ``"tensor"`` or ``"product"``. Each trace has the name of its policy as ``meta``; those of the first
        policy are visible.
    """
    rows = table[table["role"].isin(ROLES[kind])]
    roles = [role for role in ROLES[kind] if role in set(rows["role"])]
    present = set(rows["layer"])
    layers = [layer for layer in dict.fromkeys(table["layer"]) if layer in present]  # the same order in all
    measures = MEASURES[kind]
    figure = make_subplots(
        cols=len(measures),
        shared_yaxes=True,
        horizontal_spacing=0.015,
        subplot_titles=list(measures.values()),
    )
    policies = list(dict.fromkeys(rows["policy"]))
    for policy in policies:
        mine = {
            (row["layer"], row["role"]): dict(row) for _, row in rows[rows["policy"] == policy].iterrows()
        }
        for column, measure in enumerate(measures, 1):
            places = [[(layer, role) for role in roles] for layer in layers]
            cells = [[_cell(mine, place, measure) for place in line] for line in places]
            figure.add_trace(
                go.Heatmap(
                    x=[role.replace("_", "<br>") for role in roles],
                    y=[layer or "model" for layer in layers],
                    z=[[cell[0] for cell in line] for line in cells],
                    text=[[cell[1] for cell in line] for line in cells],
                    texttemplate="%{text}",
                    textfont={"size": 11},
                    customdata=[[cell[2] for cell in line] for line in cells],
                    hovertemplate="%{y}, %{x}<br>%{customdata}<extra></extra>",
                    hoverongaps=False,
                    zmin=0.0,
                    zmax=1.0,
                    colorscale=_SCALE,
                    showscale=False,
                    xgap=2,
                    ygap=2,
                    visible=policy == policies[0],
                    meta=policy,
                ),
                row=1,
                col=column,
            )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False, tickangle=0, tickfont={"size": 10})
    _styled(figure, 130 + 30 * len(layers))
    return figure.update_layout(plot_bgcolor="#F1F1F1")


def _cell(
    mine: Mapping[tuple[str, str], Mapping[Any, Any]], place: tuple[str, str], measure: str
) -> tuple[float | None, str, str]:
    """Colour in 0..1 (darker: more is lost), text and what hovering shows."""
    if place not in mine:
        return None, "", ""
    row = mine[place]
    value = float(row[measure])
    if math.isnan(value):
        return None, "", ""
    numerics = f"{row['numerics']}" + (f", {row['length']} products" if row["length"] else "")
    if measure == "sqnr_db":
        color = 1.0 - min(max(value, 0.0), _SQNR_DB) / _SQNR_DB
        text = "exact" if math.isinf(value) and value > 0 else f"{value:.0f}"
        return color, text, f"{numerics}<br>SQNR {value:.2f} dB"
    low, high = map(math.log10, _SHARES)
    color = (math.log10(value) - low) / (high - low) if value > 0.0 else 0.0
    return min(max(color, 0.0), 1.0), share(value), f"{numerics}<br>{100 * value:.4g} %"


def share(value: float) -> str:
    """A share in percent with two digits, ``0`` for none and ``<0.01 %`` for hardly any."""
    if value == 0.0:
        return "0"
    if value < 1e-4:
        return "<0.01 %"
    percent = 100 * value
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %"


def bits(table: pd.DataFrame) -> go.Figure:
    """Fraction bits of the accumulators of each layer and product, used, by theory and by emulation.

    Parameters
    ----------
    table
        As in ``bits.parquet``. Each trace has the name of its policy as ``meta``; those of the first policy
        are visible.
    """
    figure = go.Figure()
    policies = list(dict.fromkeys(table["policy"]))
    places = [f"{row['layer'] or 'model'}, {row['product']}" for _, row in table.iterrows()]
    table = table.assign(place=places)
    for policy in policies:
        mine = table[table["policy"] == policy]
        used = _numbers(mine["used_bits"])
        short = _numbers(mine["slack"]) < 0
        text = [
            f"{row['place']}<br>{row['length']} products"
            + ("" if pd.isna(row["chunk"]) else f" in chunks of {row['chunk']}")
            for _, row in mine.iterrows()
        ]
        shared = {"y": mine["place"], "mode": "markers", "meta": policy, "visible": policy == policies[0]}
        hover = {
            "text": text,
            "hovertemplate": "%{text}<br>%{x} fraction bits<extra>%{fullData.name}</extra>",
        }
        marks: list[tuple[str, Any, dict[str, Any]]] = [
            (
                "used",
                used,
                {"symbol": "square", "size": 12, "color": np.where(short, ALARM, NEUTRAL).tolist()},
            ),
            ("theory", _numbers(mine["theory_bits"]), {"symbol": "circle-open", "size": 13,
                                                       "color": COLORS[0], "line": {"width": 2}}),
            ("emulated", _numbers(mine["emulated_bits"]), {"symbol": "diamond", "size": 8,
                                                           "color": COLORS[4]}),
        ]  # fmt: skip
        for name, values, marker in marks:
            figure.add_trace(go.Scatter(x=values, name=name, marker=marker, **shared, **hover))
    order = list(dict.fromkeys(places))
    figure.update_yaxes(autorange="reversed", type="category", categoryorder="array", categoryarray=order)
    figure.update_xaxes(title="fraction bits of the accumulator", rangemode="tozero", dtick=2)
    return _styled(figure, 150 + 24 * len(order))


def _numbers(values: pd.Series[Any]) -> np.ndarray:
    found: np.ndarray = values.astype("Float64").to_numpy(np.float64, na_value=np.nan)
    return found


def _styled(figure: go.Figure, height: int, *, legend_below: bool = False) -> go.Figure:
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    if legend_below:
        legend = {"orientation": "h", "y": -0.18, "yanchor": "top", "x": 0}
    return figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 60, "r": 20, "t": 50, "b": 60},
        legend=legend,
        font={"family": "system-ui, sans-serif", "size": 13},
    )
