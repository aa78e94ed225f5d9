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
    from studies.codesign.recommend import Recommendation
    from studies.codesign.savings import Savings
    from studies.codesign.sensitivity import Sensitivity

_FENCE = 1.5  # interquartile ranges above the upper quartile: a broken network may have any loss
_DECADE = 5.0  # ratio of the ends from which an axis of losses is logarithmic
_ROOM = 0.0068  # width of a letter of a label, of that of the axis
_RINGS = ("circle-open", "square-open", "diamond-open")
_MARKERS = ("circle", "square", "diamond", "cross", "triangle-up", "star")


def front(
    result: Result,
    height: Literal["metric", "training_loss"] = "metric",
    rings: Sequence[Recommendation] = (),
) -> go.Figure:
    """Every evaluation by energy and quality, the front joined, the float32 twin's quality as a line.

    Designs with the same numerics train alike, so they share their height. Accuracy is drawn by its
    error, on a logarithmic axis. What is far worse than the rest is drawn at the upper edge. The twin's
    energy would squeeze all else to the left, so it is in words.

    Parameters
    ----------
    rings
        Designs to mark by a ring, with their titles in the legend.
    """
    figure = go.Figure()
    done, quality = result.done, result.quality
    column = quality.column if height == "metric" else height
    fence = upper_fence(result, height)
    for index, name in enumerate(result.config.space.format):
        rows = done[done["format"] == name]
        figure.add_trace(
            go.Scatter(
                x=rows["energy_pj"] / 1e6,
                y=_height(rows, column).clip(upper=fence),
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
            y=_height(best, column).clip(upper=fence),
            mode="lines+text",
            name="front of the search",
            line={"color": "#444444", "width": 1.5, "shape": "hv"},
            text=_sparse_labels(best, np.ptp(done["energy_pj"])),
            textposition=_beside_a_front(len(best), "top" if column == "test_accuracy" else "bottom"),
            textfont={"size": 11, "color": "#222222"},
            hoverinfo="skip",
        )
    )
    for index, found in enumerate(rings):
        row = pd.DataFrame([found.row])
        figure.add_trace(
            go.Scatter(
                x=row["energy_pj"] / 1e6,
                y=_height(row, column).clip(upper=fence),
                mode="markers",
                name=found.title,
                marker={
                    "symbol": _RINGS[index % len(_RINGS)],
                    "size": 16 + 5 * index,
                    "line": {"width": 2},
                    "color": "#000000",
                },
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
        shown = _height(done, column).clip(upper=fence)
        wide = shown.max() > _DECADE * shown.min()
        figure.update_yaxes(title="final training loss", **({"type": "log", "dtick": "D2"} if wide else {}))
    return styled(figure, 480)


def upper_fence(result: Result, height: Literal["metric", "training_loss"]) -> float:
    """Height above which designs are drawn at the edge: Tukey's fence of all, of losses by factors.

    Infinite for accuracies, whose errors end at 100 %.
    """
    quality = result.quality
    if height == "metric" and (quality.is_accuracy or quality.metric.higher_is_better):
        return np.inf
    values = result.done[quality.column if height == "metric" else height].to_numpy(dtype=float)
    low, high = np.quantile(np.log(values) if height == "training_loss" else values, (0.25, 0.75))
    fence = high + _FENCE * (high - low)
    return float(np.exp(fence) if height == "training_loss" else fence)


def _level(ends: Sequence[float], height: float, name: str) -> go.Scatter:
    """Dotted horizontal line; as a trace, for Plotly misplaces such shapes on logarithmic axes."""
    return go.Scatter(
        x=ends, y=[height, height], mode="lines", name=name, line={"dash": "dot", "color": "#444444"}
    )


def _beside_a_front(count: int, better: str) -> list[str]:
    """Positions of labels: on the side where no design is, but of the leftmost, which has no room there."""
    worse = {"top": "bottom", "bottom": "top"}[better]
    return [f"{worse} right", *[f"{better} left"] * (count - 1)]


def _sparse_labels(rows: pd.DataFrame, width_pj: float) -> list[str]:
    """Labels of a front by ascending energy, where there is room for one."""
    labels, last = [], -np.inf
    for _, row in rows.iterrows():
        roomy = row["energy_pj"] - last > 0.1 * width_pj
        labels.append(_label(row) if roomy else "")
        last = row["energy_pj"] if roomy else last
    return labels


def breakdown(result: Result, others: Sequence[Recommendation] = ()) -> go.Figure:
    """Energy of the designs on the front and of `others` by component, and of the twin."""
    wanted = {*result.front["id"], *(found.row["id"] for found in others)}
    rows = result.done[result.done["id"].isin(wanted)].sort_values("energy_pj")
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
    labels, heights, bases = ["float32, layer by layer"], [savings.start_pj], [0.0]
    texts, colors = [f"{savings.start_pj / 1e6:.1f}"], [COLORS[0]]
    left = savings.start_pj
    for factor in ordered:
        saved = savings.saved_pj[factor]
        labels.append(factor)
        heights.append(abs(saved))
        bases.append(min(left, left - saved))
        texts.append(f"{-saved / 1e6:+.1f} ({100 * savings.share(factor):.0f} %)")
        colors.append(COLORS[2] if saved >= 0 else COLORS[1])
        left -= saved
    figure = go.Figure(
        go.Bar(
            x=[*labels, "this design"],
            y=[height / 1e6 for height in (*heights, savings.end_pj)],
            base=[base / 1e6 for base in (*bases, 0.0)],
            text=[*texts, f"{savings.end_pj / 1e6:.1f}"],
            textposition="outside",  # above, for every bar has a positive height
            marker={"color": [*colors, COLORS[0]]},
            cliponaxis=False,
        )
    )
    figure.update_yaxes(title="energy of one training step, uJ")
    return styled(figure, 380)


def pinned(sensitivity: Sensitivity) -> go.Figure:
    """Hypervolume lost by each parameter at each value, one row of marks for each parameter."""
    rows = sensitivity.rows()[::-1]
    figure = go.Figure()
    room = 100 * _ROOM * max(row["most"] for row in rows)
    for row in rows:
        values = sorted(row["values"], key=lambda pair: pair[1])
        names, lost = [str(value) for value, _ in values], [100 * share for _, share in values]
        figure.add_trace(
            go.Scatter(
                x=lost,
                y=[row["parameter"]] * len(values),
                mode="lines+markers",
                marker={"size": 9, "color": COLORS[0]},
                line={"color": "#BBBBBB", "width": 1},
                showlegend=False,
                text=names,
                hovertemplate="%{y} = %{text}<br>loses %{x:.1f} %<extra></extra>",
            )
        )
        labels = joined_labels(names, lost, room)
        figure.add_trace(
            go.Scatter(
                x=[place for place, _ in labels],
                y=[row["parameter"]] * len(labels),
                mode="markers+text",
                marker={"size": 9, "opacity": 0},  # keeps the text clear of the marks below it
                text=[text for _, text in labels],
                textposition="top center",
                textfont={"size": 10},
                cliponaxis=False,
                showlegend=False,
                hoverinfo="skip",
            )
        )
    figure.update_xaxes(title="hypervolume lost when the parameter is pinned to the value, %")
    return styled(figure, 140 + 44 * len(rows))


def joined_labels(names: Sequence[str], places: Sequence[float], room: float) -> list[tuple[float, str]]:
    """Places and texts of labels: neighbours that would overlap share one, centred over them.

    Parameters
    ----------
    places
        Ascending.
    room
        Width of a letter.
    """
    groups = [(place, place, name) for name, place in zip(names, places, strict=True)]  # first, last, text
    index = 0
    while index + 1 < len(groups):
        (begin, end, text), (begin_of_next, end_of_next, next_text) = groups[index : index + 2]
        apart = (begin_of_next + end_of_next - begin - end) / 2
        if apart < room * (len(text) + len(next_text) + 2) / 2:
            groups[index : index + 2] = [(begin, end_of_next, f"{text}, {next_text}")]
            index = max(index - 1, 0)  # the wider one may reach the one before
        else:
            index += 1
    return [((begin + end) / 2, text) for begin, end, text in groups]


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
    return values


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
