"""Plots of schedules."""

from __future__ import annotations

from math import log10

import plotly.graph_objects as go

from studies.page import COLORS, styled
from studies.schedule.run import Answer
from studies.schedule.sizes import size_text
from studies.schedule.tables import traffic_by_size


def traffic(answer: Answer) -> go.Figure:
    """Non-compulsory bytes against the size of the scratchpad: optimum, its bound and baselines."""
    table = traffic_by_size(answer)
    figure = go.Figure()
    names = [name for name in table.columns if name not in ("scratchpad_bytes", "status", "bound_bytes")]
    for index, name in enumerate(names):
        is_optimum = name == "optimum_bytes"
        figure.add_trace(
            go.Scatter(
                x=table["scratchpad_bytes"] / 1024,
                y=table[name] / 1e6,
                mode="lines+markers",
                name=name.removesuffix("_bytes"),
                # Many times the others in atomic mode, which would be flat lines beside it.
                visible="legendonly" if name == "layer by layer" and answer.plan.mode == "atomic" else True,
                line={"color": COLORS[index % len(COLORS)], "width": 3 if is_optimum else 1.5},
                text=[size_text(size) for size in table["scratchpad_bytes"]],
                hovertemplate="%{text}: %{y:.4g} MB<extra>%{fullData.name}</extra>",
            )
        )
    if (table["bound_bytes"] < table["optimum_bytes"]).any():
        figure.add_trace(
            go.Scatter(
                x=table["scratchpad_bytes"] / 1024,
                y=table["bound_bytes"] / 1e6,
                mode="lines",
                name="lower bound",
                line={"color": COLORS[0], "dash": "dot"},
            )
        )
    for size, text in ((answer.working_set_bytes, "M_R"), (answer.peak_bytes, "M_P")):
        figure.add_vline(x=size / 1024, line={"dash": "dot", "color": "#444444"})
        # Of an annotation on a logarithmic axis the logarithm is asked for.
        figure.add_annotation(
            x=log10(size / 1024), y=1, yref="paper", yanchor="bottom", text=text, showarrow=False
        )
    figure.update_xaxes(title="scratchpad, KiB", type="log")
    figure.update_yaxes(title="non-compulsory traffic, MB", rangemode="tozero")
    return styled(figure, 460)


def savings(answer: Answer) -> go.Figure:
    """What the optimum saves of the reference baseline, as one bar in parts."""
    saving, plan = answer.saving, answer.plan
    assert saving is not None
    figure = go.Figure()
    parts = (
        ("left: the optimum", plan.noncompulsory_bytes),
        ("saved by order", saving.order_bytes),
        ("saved by replacement", saving.replacement_bytes),
        ("saved by placement", saving.fragmentation_bytes),
    )
    for index, (name, bytes_) in enumerate(parts):
        figure.add_trace(
            go.Bar(
                x=[bytes_ / 1e6],
                y=["LRU, file order, online"],
                orientation="h",
                name=name,
                marker={"color": COLORS[index]},
                hovertemplate="%{x:.4g} MB<extra>%{fullData.name}</extra>",
            )
        )
    figure.update_layout(barmode="relative")
    figure.update_xaxes(title="non-compulsory traffic, MB")
    return styled(figure, 220)
