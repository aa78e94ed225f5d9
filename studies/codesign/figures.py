"""Plotly figures of a campaign."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from accel import COMPONENTS
from dse import hypervolume
from studies.codesign.describe import design_text, formats_text, numerics_text
from studies.codesign.quality import Quality
from studies.page import COLORS, styled

if TYPE_CHECKING:
    from studies.codesign.campaign import Result
    from studies.codesign.savings import Savings
    from studies.codesign.sensitivity import Sensitivity

_LOSS_SHOWN = 10.0  # a broken network may have any loss: those above are drawn here
_MARKERS = ("circle", "square", "diamond", "cross", "triangle-up", "star")


def front(result: Result, height: Literal["metric", "training_loss"] = "metric") -> go.Figure:
    """Every evaluation by energy and quality, the front joined, the float32 twin's quality as a line.

    Designs with the same numerics train alike, so they share their height. Accuracy is drawn by its
    error, on a logarithmic axis. The twin's energy would squeeze all else to the left, so it is in words.
    """
    figure = go.Figure()
    done, quality = result.done, result.quality
    column = quality.column if height == "metric" else height
    for index, name in enumerate(result.config.space.format):
        rows = done[done["format"] == name]
        figure.add_trace(
            go.Scatter(
                x=rows["energy_pj"] / 1e6,
                y=_height(rows, column),
                mode="markers",
                name=name,
                marker={
                    "color": COLORS[index % len(COLORS)],
                    "symbol": _MARKERS[index % len(_MARKERS)],
                    "size": 9,
                    "opacity": 0.8,
                },
                text=[_hover(row, quality) for _, row in rows.iterrows()],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    best = result.front.sort_values("energy_pj")
    figure.add_trace(
        go.Scatter(
            x=best["energy_pj"] / 1e6,
            y=_height(best, column),
            mode="lines+text",
            name="front of the search",
            line={"color": "#444444", "width": 1.5, "shape": "hv"},
            text=_sparse_labels(best, np.ptp(done["energy_pj"])),
            textposition="top center" if column == "test_accuracy" else "bottom center",
            textfont={"size": 11, "color": "#222222"},
            hoverinfo="skip",
        )
    )
    twin = result.reference
    ends = [done["energy_pj"].min() / 1e6, done["energy_pj"].max() / 1e6]
    figure.add_trace(
        _level(
            ends,
            _height(twin.to_frame().T, column).iloc[0],
            f"float32 twin, {twin['energy_pj'] / 1e6:.0f} uJ",
        )
    )
    figure.update_xaxes(title="energy of one training step, uJ")
    if height == "metric":
        _quality_axis(figure, quality)
    else:
        figure.update_yaxes(title=f"final training loss, at most {_LOSS_SHOWN:g}", type="log", dtick="D2")
    return styled(figure, 480)


def _level(ends: Sequence[float], height: float, name: str) -> go.Scatter:
    """Dotted horizontal line; as a trace, for Plotly misplaces such shapes on logarithmic axes."""
    return go.Scatter(
        x=ends, y=[height, height], mode="lines", name=name, line={"dash": "dot", "color": "#444444"}
    )


def _sparse_labels(rows: pd.DataFrame, width_pj: float) -> list[str]:
    """Labels of a front by ascending energy, where there is room for one."""
    labels, last = [], -np.inf
    for _, row in rows.iterrows():
        roomy = row["energy_pj"] - last > 0.1 * width_pj
        labels.append(_label(row) if roomy else "")
        last = row["energy_pj"] if roomy else last
    return labels


def breakdown(result: Result) -> go.Figure:
    """Energy of the designs on the front by component, and of the twin."""
    rows = result.front.sort_values("energy_pj")
    labels = [f"{_label(row)} (#{row['id']})" for _, row in rows.iterrows()]
    table = pd.concat([rows, result.reference.to_frame().T])
    labels.append("float32")
    figure = go.Figure()
    for index, part in enumerate(COMPONENTS):
        figure.add_trace(
            go.Bar(
                y=labels,
                x=table[f"energy_{part}_pj"].astype(float) / 1e6,
                name=part,
                orientation="h",
                marker={"color": COLORS[index % len(COLORS)]},
                hovertemplate=f"%{{y}}<br>{part}: %{{x:.3g}} uJ<extra></extra>",
            )
        )
    figure.update_layout(barmode="stack", legend_traceorder="normal")
    figure.update_xaxes(title="energy of one training step, uJ")
    figure.update_yaxes(autorange="reversed")
    return styled(figure, 160 + 28 * len(labels))


def quality_against_bits(result: Result) -> go.Figure:
    """Test metric by accumulator fraction bits, one colour per format, one symbol per chunk."""
    figure = go.Figure()
    done, quality = result.done.drop_duplicates("trained_in"), result.quality
    column = quality.column
    chunks = list(result.config.space.chunk)
    for index, name in enumerate(result.config.space.format):
        for number, chunk in enumerate(chunks):
            rows = done[(done["format"] == name) & (done["chunk"] == chunk)]
            rows = rows.sort_values("accumulator_frac_bits")
            if rows.empty:
                continue
            spread = 0.08 * (number - (len(chunks) - 1) / 2)
            figure.add_trace(
                go.Scatter(
                    x=rows["accumulator_frac_bits"] + spread,
                    y=_height(rows, column),
                    error_y=_whiskers(rows, column),
                    mode="markers",
                    name=f"{name}, chunk {chunk}" if chunk else f"{name}, one sum",
                    marker={
                        "color": COLORS[index % len(COLORS)],
                        "symbol": _MARKERS[number % len(_MARKERS)],
                        "size": 9,
                    },
                    text=[_hover(row, quality) for _, row in rows.iterrows()],
                    hovertemplate="%{text}<extra></extra>",
                )
            )
    ends = [min(result.config.space.accumulator_frac_bits), max(result.config.space.accumulator_frac_bits)]
    figure.add_trace(_level(ends, _height(result.reference.to_frame().T, column).iloc[0], "float32 twin"))
    figure.update_xaxes(title="fraction bits of the accumulator", dtick=1)
    _quality_axis(figure, quality)
    return styled(figure, 440)


def waterfall(savings: Savings) -> go.Figure:
    """Energy from full precision to a design, by what changed; the means over all orders."""
    ordered = sorted(savings.saved_pj, key=lambda factor: -savings.saved_pj[factor])
    steps = [-savings.saved_pj[factor] / 1e6 for factor in ordered]
    figure = go.Figure(
        go.Waterfall(
            x=["float32, layer by layer", *ordered, "this design"],
            y=[savings.start_pj / 1e6, *steps, savings.end_pj / 1e6],
            measure=["absolute", *["relative"] * len(steps), "total"],
            text=[f"{value:.1f}" for value in (savings.start_pj / 1e6, *steps, savings.end_pj / 1e6)],
            textposition="outside",
            decreasing={"marker": {"color": COLORS[2]}},
            increasing={"marker": {"color": COLORS[1]}},
            totals={"marker": {"color": COLORS[0]}},
            cliponaxis=False,
        )
    )
    figure.update_yaxes(title="energy of one training step, uJ")
    return styled(figure, 380)


def pinned(sensitivity: Sensitivity) -> go.Figure:
    """Hypervolume lost by each parameter at each value, one row of marks for each parameter."""
    rows = sensitivity.rows()[::-1]
    figure = go.Figure()
    for row in rows:
        values = row["values"]
        figure.add_trace(
            go.Scatter(
                x=[100 * lost for _, lost in values],
                y=[row["parameter"]] * len(values),
                mode="lines+markers+text",
                text=[str(value) for value, _ in values],
                textposition="top center",
                textfont={"size": 10},
                marker={"size": 9, "color": COLORS[0]},
                line={"color": "#BBBBBB", "width": 1},
                showlegend=False,
                hovertemplate="%{y} = %{text}<br>loses %{x:.1f} %<extra></extra>",
            )
        )
    figure.update_xaxes(title="hypervolume lost when the parameter is pinned to the value, %")
    return styled(figure, 140 + 44 * len(rows))


def hypervolume_trace(result: Result) -> go.Figure:
    """Hypervolume of the front against evaluations, relative to the final one."""
    objectives = [
        (name, name not in ("test_error", "test_metric")) for name in result.config.search.objectives
    ]
    done = result.done.sort_values("id")
    costs = np.column_stack(
        [np.log10(done[name].astype(float)) if log else done[name].astype(float) for name, log in objectives]
    )
    corner = costs.max(axis=0) + 0.1 * np.ptp(costs, axis=0)
    trace = [hypervolume(costs[: count + 1], corner) for count in range(len(costs))]
    figure = go.Figure(
        go.Scatter(
            x=done["id"] + 1,
            y=[100 * value / trace[-1] if trace[-1] else 0.0 for value in trace],
            mode="lines+markers",
            line={"color": COLORS[0], "shape": "hv"},
            name="hypervolume",
        )
    )
    if (initial := result.config.search.initial) is not None:
        figure.add_vline(
            x=initial + 0.5,
            line={"dash": "dot", "color": "#444444"},
            annotation_text="end of the Sobol start",
        )
    figure.update_xaxes(title="evaluations")
    figure.update_yaxes(title="hypervolume, % of the final", rangemode="tozero")
    return styled(figure, 340)


def _height(rows: pd.DataFrame, column: str) -> pd.Series[Any]:
    values = rows[column].astype(float)
    if column.startswith("test_accuracy"):
        return _error(values)  # type: ignore[no-any-return]  # NumPy's ufunc of a series
    return values.clip(upper=_LOSS_SHOWN) if column == "training_loss" else values


def _whiskers(rows: pd.DataFrame, column: str) -> dict[str, Any]:
    """From the least to the most of the replicates."""
    middle = _height(rows, column)
    ends = np.array([_height(rows, f"{column}_{end}") for end in ("min", "max")])
    return {
        "type": "data",
        "symmetric": False,
        "array": ends.max(axis=0) - middle,
        "arrayminus": middle - ends.min(axis=0),
        "thickness": 1,
    }


def _error(accuracy: Any) -> Any:
    """Error in percent, at least that of a perfect score drawn at 99.9 %."""
    return np.maximum(100 * (1 - accuracy), 0.1)


def _quality_axis(figure: go.Figure, quality: Quality) -> None:
    """Label the axis of the metric.

    Of errors with accuracies: close to 100 % every error counts, far from it none.
    """
    if not quality.is_accuracy:
        figure.update_yaxes(title=quality.title)
        return
    ticks = [0.1, 0.2, 0.5, 1, 2, 3, 4, 5, 7, 10, 20, 30, 50, 90]
    figure.update_yaxes(
        title="test accuracy, %",
        type="log",
        autorange="reversed",
        tickvals=ticks,
        ticktext=[f"{100 - tick:g}" for tick in ticks],
    )


def _cells(row: pd.Series[Any]) -> dict[str, Any]:
    return {str(name): value for name, value in row.items()}


def _label(row: pd.Series[Any]) -> str:
    chunk = f" c{int(row['chunk'])}" if row["chunk"] else ""
    return f"{formats_text(_cells(row))}+m{int(row['accumulator_frac_bits'])}{chunk}"


def _hover(row: pd.Series[Any], quality: Quality) -> str:
    cells = _cells(row)
    head = f"<b>#{row['id']}</b> " if row["id"] >= 0 else ""
    return (
        f"{head}{numerics_text(cells)}<br>{design_text(cells)}"
        f"<br>{quality.title}: {quality.of(cells)}, training loss {row['training_loss']:.4f}"
        f"<br>{row['energy_pj'] / 1e6:.2f} uJ, {row['step_ms']:.3f} ms, {row['area_um2'] / 1e6:.2f} mm2"
    )
