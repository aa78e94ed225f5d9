"""Plotly figures of a campaign."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from accel import COMPONENTS
from dse import hypervolume
from studies.codesign.describe import design_text, numerics_text
from studies.page import COLORS, styled

if TYPE_CHECKING:
    from studies.codesign.campaign import Result

_LOSS_SHOWN = 10.0  # a broken network may have any loss: those above are drawn here
_MARKERS = ("circle", "square", "diamond", "cross", "triangle-up", "star")


def front(result: Result, quality: Literal["test_accuracy", "training_loss"] = "test_accuracy") -> go.Figure:
    """Every evaluation by energy and quality, the front joined, the float32 twin's quality as a line.

    Designs with the same numerics train alike, so they share their height. Accuracy is drawn by its
    error, on a logarithmic axis. The twin's energy would squeeze all else to the left, so it is in words.
    """
    figure = go.Figure()
    done = _done(result)
    for index, name in enumerate(result.config.space.format):
        rows = done[done["format"] == name]
        figure.add_trace(
            go.Scatter(
                x=rows["energy_pj"] / 1e6,
                y=_height(rows, quality),
                mode="markers",
                name=name,
                marker={
                    "color": COLORS[index % len(COLORS)],
                    "symbol": _MARKERS[index % len(_MARKERS)],
                    "size": 9,
                    "opacity": 0.8,
                },
                text=[_hover(row) for _, row in rows.iterrows()],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    best = result.front.sort_values("energy_pj")
    figure.add_trace(
        go.Scatter(
            x=best["energy_pj"] / 1e6,
            y=_height(best, quality),
            mode="lines+text",
            name="front of the search",
            line={"color": "#444444", "width": 1.5, "shape": "hv"},
            text=_sparse_labels(best, np.ptp(done["energy_pj"])),
            textposition="top center" if quality == "test_accuracy" else "bottom center",
            textfont={"size": 11, "color": "#222222"},
            hoverinfo="skip",
        )
    )
    twin = result.reference
    ends = [done["energy_pj"].min() / 1e6, done["energy_pj"].max() / 1e6]
    figure.add_trace(
        _level(
            ends,
            _height(twin.to_frame().T, quality).iloc[0],
            f"float32 twin, {twin['energy_pj'] / 1e6:.0f} uJ",
        )
    )
    figure.update_xaxes(title="energy of one training step, uJ")
    if quality == "test_accuracy":
        _accuracy_axis(figure)
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


def accuracy_against_bits(result: Result) -> go.Figure:
    """Test accuracy by accumulator fraction bits, one colour per format, one symbol per chunk."""
    figure = go.Figure()
    done = _done(result).drop_duplicates("trained_in")
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
                    y=_error(rows["test_accuracy"]),
                    error_y={
                        "type": "data",
                        "symmetric": False,
                        "array": _error(rows["test_accuracy_min"]) - _error(rows["test_accuracy"]),
                        "arrayminus": _error(rows["test_accuracy"]) - _error(rows["test_accuracy_max"]),
                        "thickness": 1,
                    },
                    mode="markers",
                    name=f"{name}, chunk {chunk}" if chunk else f"{name}, one sum",
                    marker={
                        "color": COLORS[index % len(COLORS)],
                        "symbol": _MARKERS[number % len(_MARKERS)],
                        "size": 9,
                    },
                    text=[_hover(row) for _, row in rows.iterrows()],
                    hovertemplate="%{text}<extra></extra>",
                )
            )
    ends = [min(result.config.space.accumulator_frac_bits), max(result.config.space.accumulator_frac_bits)]
    figure.add_trace(_level(ends, _error(result.reference["test_accuracy"]), "float32 twin"))
    figure.update_xaxes(title="fraction bits of the accumulator", dtick=1)
    _accuracy_axis(figure)
    return styled(figure, 440)


def hypervolume_trace(result: Result) -> go.Figure:
    """Hypervolume of the front against evaluations, relative to the final one."""
    objectives = [(name, name != "test_error") for name in result.config.search.objectives]
    done = _done(result).sort_values("id")
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
    figure.add_vline(
        x=result.config.search.initial + 0.5,
        line={"dash": "dot", "color": "#444444"},
        annotation_text="end of the Sobol start",
    )
    figure.update_xaxes(title="evaluations")
    figure.update_yaxes(title="hypervolume, % of the final", rangemode="tozero")
    return styled(figure, 340)


def _done(result: Result) -> pd.DataFrame:
    return result.evaluations[result.evaluations["state"] == "done"]


def _height(rows: pd.DataFrame, quality: str) -> pd.Series[Any]:
    values = rows[quality].astype(float)
    return _error(values) if quality == "test_accuracy" else values.clip(upper=_LOSS_SHOWN)


def _error(accuracy: Any) -> Any:
    """Error in percent, at least that of a perfect score drawn at 99.9 %."""
    return np.maximum(100 * (1 - accuracy), 0.1)


def _accuracy_axis(figure: go.Figure) -> None:
    """Label an axis of errors with accuracies: close to 100 % every error counts, far from it none."""
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
    return f"{row['format']}+m{int(row['accumulator_frac_bits'])}{chunk}"


def _hover(row: pd.Series[Any]) -> str:
    cells = _cells(row)
    head = f"<b>#{row['id']}</b> " if row["id"] >= 0 else ""
    return (
        f"{head}{numerics_text(cells)}<br>{design_text(cells)}"
        f"<br>accuracy {100 * row['test_accuracy']:.1f} %, training loss {row['training_loss']:.4f}"
        f"<br>{row['energy_pj'] / 1e6:.2f} uJ, {row['step_ms']:.3f} ms, {row['area_um2'] / 1e6:.2f} mm2"
    )
