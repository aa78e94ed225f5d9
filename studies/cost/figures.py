"""Plotly figures of costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import floor, inf, isfinite, log2, log10
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from accel.cost import COMPONENTS, CYCLE_PARTS, LEVELS, OPERANDS, Cost, OperatorCost
from accel.workload import Phase
from studies import units
from studies.cost.run import Priced
from studies.cost.tables import traffic_by_level
from studies.page import COLORS

_PART_COLORS = dict(zip(COMPONENTS, COLORS, strict=False))
_ENERGY_OF = {"array": "mac"}  # parts of the time have the colour of the component they are spent on
_SHARED_NAMES = {"mac": "mac (array)"}
_CYCLE_COLORS = {part: _PART_COLORS[_ENERGY_OF.get(part, part)] for part in CYCLE_PARTS}
_OPERAND_COLORS = dict(zip(OPERANDS, COLORS, strict=False))
_SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "star")
_DASHES = ("solid", "dash", "dot", "dashdot")
_MOST_RATIO = 1.6  # of a tornado's scale, as a power of two: a third or three times as much
_MOST_NAMES = 60  # of layers along an axis; beyond, every second or third has its name
_SI = {-15: "f", -12: "p", -9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}


def by_design(designs: Sequence[Priced]) -> go.Figure:
    """Energy by component and cycles by part, one bar per design."""
    figure = make_subplots(
        cols=2, rows=1, subplot_titles=("energy", "time"), shared_yaxes=True, horizontal_spacing=0.04
    )
    names = [priced.name for priced in designs]
    power, prefix = _prefix(max(priced.cost.total_energy_pj for priced in designs) * 1e-12)
    second_power, second_prefix = _prefix(max(priced.cost.seconds for priced in designs))
    for part in COMPONENTS:
        figure.add_trace(
            go.Bar(
                y=names,
                x=[priced.cost.energy_pj[part] * 1e-12 / power for priced in designs],
                name=_SHARED_NAMES.get(part, part),
                orientation="h",
                marker={"color": _PART_COLORS[part]},
                legendgroup=part,
                hovertemplate=f"%{{y}}<br>{part}: %{{x:.3g}} {prefix}J<extra></extra>",
            ),
            row=1,
            col=1,
        )
    for part in CYCLE_PARTS:
        seconds = [
            priced.cost.cycle_parts[part] / (priced.cost.clock_mhz * 1e6) / second_power for priced in designs
        ]
        figure.add_trace(
            go.Bar(
                y=names,
                x=seconds,
                name=part,
                orientation="h",
                marker={"color": _CYCLE_COLORS[part]},
                legendgroup=_ENERGY_OF.get(part, part),
                showlegend=False,
                hovertemplate=f"%{{y}}<br>{part}: %{{x:.3g}} {second_prefix}s<extra></extra>",
            ),
            row=1,
            col=2,
        )
    figure.update_xaxes(title=f"{prefix}J", row=1, col=1)
    figure.update_xaxes(title=f"{second_prefix}s", row=1, col=2)
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(barmode="stack")
    return _styled(figure, 190 + 40 * len(names), above=90)


def energy_by_layer(designs: Sequence[Priced]) -> go.Figure:
    """Energy of each operator by component, in the order of the run, one row per design."""

    def joules(_: Priced, operator: OperatorCost, part: str) -> float:
        return operator.energy_pj[part] * 1e-12

    return _by_layer(designs, COMPONENTS, _PART_COLORS, joules, "J")


def time_by_layer(designs: Sequence[Priced]) -> go.Figure:
    """Time of each operator by what it is spent on, in the order of the run, one row per design."""

    def seconds(priced: Priced, operator: OperatorCost, part: str) -> float:
        return operator.cycle_parts[part] / (priced.cost.clock_mhz * 1e6)

    return _by_layer(designs, CYCLE_PARTS, _CYCLE_COLORS, seconds, "s")


def _by_layer(
    designs: Sequence[Priced],
    parts: Sequence[str],
    colors: Mapping[str, str],
    value: Callable[[Priced, OperatorCost, str], float],
    unit: str,
) -> go.Figure:
    """Stacked bars; all designs have one scale, so that they compare."""
    several = len(designs) > 1
    operators = designs[0].cost.operators
    places = list(range(len(operators)))
    found = {
        (priced.name, part): [value(priced, operator, part) for operator in priced.cost.operators]
        for priced in designs
        for part in parts
    }
    tallest = max(
        (
            sum(column)
            for priced in designs
            for column in zip(*(found[priced.name, p] for p in parts), strict=True)
        ),
        default=0.0,
    )
    power, prefix = _prefix(tallest)
    figure = make_subplots(
        rows=len(designs),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.18 / len(designs),
        subplot_titles=[priced.name for priced in designs] if several else None,
    )
    shown: set[str] = set()
    for row, priced in enumerate(designs, start=1):
        heads = [f"{operator.name} ({operator.kind}, {operator.phase})" for operator in priced.cost.operators]
        for part in parts:
            values = found[priced.name, part]
            if not any(values):
                continue
            figure.add_trace(
                go.Bar(
                    x=places,
                    y=[number / power for number in values],
                    name=part,
                    legendgroup=part,
                    legendrank=parts.index(part),
                    showlegend=part not in shown,
                    marker={"color": colors[part], "line": {"width": 0}},
                    customdata=heads,
                    hovertemplate=f"%{{customdata}}<br>{part}: %{{y:.3g}} {prefix}{unit}<extra></extra>",
                ),
                row=row,
                col=1,
            )
            shown.add(part)
        figure.update_yaxes(title=f"{prefix}{unit}", range=[0, 1.05 * tallest / power or 1], row=row, col=1)
    step = -(-len(places) // _MOST_NAMES)
    figure.update_xaxes(
        tickvals=places[::step],
        ticktext=[_shortened(operator.name) for operator in operators[::step]],
        tickangle=-90,
        range=[-0.6, len(places) - 0.4],
    )
    figure.update_layout(
        barmode="stack", bargap=0.15 if len(places) <= _MOST_NAMES else 0.0, legend_traceorder="normal"
    )
    _mark_phases(figure, designs[0].cost)
    figure = _styled(figure, 210 + 250 * len(designs), above=90 if several else 60)
    figure.update_xaxes(tickfont={"size": 10})
    return figure


def _mark_phases(figure: go.Figure, cost: Cost) -> None:
    """Line at the end of the forward pass of a training step; the other phases take turns."""
    phases = [operator.phase for operator in cost.operators]
    end = next((place for place, phase in enumerate(phases) if phase is not Phase.FORWARD), None)
    if end:
        figure.add_vline(
            x=end - 0.5, line={"dash": "dot", "width": 1, "color": "#555555"}, exclude_empty_subplots=False
        )


def _shortened(name: str, most: int = 24) -> str:
    return name if len(name) <= most else f"{name[: most // 2 - 1]}..{name[-most // 2 + 1 :]}"


def roofline(designs: Sequence[Priced]) -> go.Figure:
    """MACs per cycle of every product against MACs per off-chip byte, under the roof of its design.

    Marks are sized by multiply-accumulates. Products without off-chip traffic are at the right border.
    """
    figure = go.Figure()
    tables = [priced.cost.roofline() for priced in designs]
    finite = [v for table in tables for v in table["macs_per_byte"] if isfinite(v)]
    balances = [priced.cost.cells / priced.cost.offchip_bytes_per_cycle for priced in designs]
    around = [*finite, *(balance for balance in balances if balance > 0)]
    left, right = (min(around) / 2, max(around) * 4) if around else (1.0, 1e3)
    most_macs = max((o.macs for priced in designs for o in priced.cost.operators), default=1)
    for index, (priced, table) in enumerate(zip(designs, tables, strict=True)):
        color = COLORS[index % len(COLORS)]
        cost = priced.cost
        xs = np.geomspace(left, right, 200)
        figure.add_trace(
            go.Scatter(
                x=xs,
                y=np.minimum(cost.cells, xs * cost.offchip_bytes_per_cycle),
                mode="lines",
                name=f"roof of {priced.name}",
                line={"color": color, "width": 2, "dash": _DASHES[index % len(_DASHES)]},
                hoverinfo="skip",
            )
        )
        bounds = dict.fromkeys(table["bound"]) if len(designs) == 1 else {None: None}
        for number, bound in enumerate(bounds):
            rows = table if bound is None else table[table["bound"] == bound]
            macs = {operator.name: operator.macs for operator in cost.operators}
            counts = [macs[name] for name in rows["operator"]]
            figure.add_trace(
                go.Scatter(
                    x=[value if isfinite(value) else right for value in rows["macs_per_byte"]],
                    y=rows["macs_per_cycle"],
                    mode="markers",
                    name=priced.name if bound is None else f"bound by {bound}",
                    marker={
                        "color": color if bound is None else _CYCLE_COLORS[bound],
                        "symbol": _SYMBOLS[(index if bound is None else number) % len(_SYMBOLS)],
                        "size": [6 + 20 * (count / most_macs) ** 0.5 for count in counts],
                        "opacity": 0.65,
                        "line": {"width": 1, "color": "#333333"},
                    },
                    text=[
                        f"<b>{row['operator']}</b> ({row['phase']})<br>{units.si(count, 'MAC')}, bound by "
                        f"{row['bound']}<br>"
                        + (
                            f"{row['macs_per_byte']:.3g} MACs per off-chip byte"
                            if isfinite(row["macs_per_byte"])
                            else "no off-chip traffic"
                        )
                        + f"<br>{row['macs_per_cycle']:.4g} of at most "
                        f"{row['attainable_macs_per_cycle']:.4g} MACs per cycle"
                        for (_, row), count in zip(rows.iterrows(), counts, strict=True)
                    ],
                    hovertemplate="%{text}<extra></extra>",
                )
            )
    figure.update_xaxes(
        title="MACs per off-chip byte",
        range=[log10(left), log10(right) + 0.1],
        type="log",
        dtick="D2",  # labels at 1, 2 and 5
        tickformat="~s",
    )
    figure.update_yaxes(title="MACs per cycle", type="log", dtick="D2", tickformat="~s")
    figure = _styled(figure, 520)
    figure.update_layout(legend_itemsizing="constant")
    return figure


def tornado(table: pd.DataFrame) -> go.Figure:
    """Energy, time and area of every neighbour over those of the design, on logarithmic scales.

    Bars are sizes and formats, marks are the alternatives of a choice. What is beyond the scale ends at
    its border in a triangle.
    """
    shown = ("energy", "time", "area")
    figure = make_subplots(cols=3, rows=1, shared_yaxes=True, subplot_titles=shown, horizontal_spacing=0.03)
    found = table[table["feasible"].astype(bool)]
    labels = {
        str(name): _parameter_label(str(name), rows) for name, rows in table.groupby("parameter", sort=False)
    }
    for column, of in enumerate(shown, start=1):
        ratios = {index: _log2_ratio(change) for index, change in found[f"{of}_change"].items()}
        border = min(max((abs(ratio) for ratio in ratios.values()), default=0.0), _MOST_RATIO)
        for direction, color, title in (
            ("down", COLORS[0], "half, or one bit fewer"),
            ("up", COLORS[1], "double, or one bit more"),
            ("other", COLORS[2], "another choice"),
        ):
            rows = found[found["direction"] == direction]
            if rows.empty:
                continue
            inside = [max(-border, min(border, ratios[index])) for index in rows.index]
            shared: dict[str, Any] = {
                "y": [labels[name] for name in rows["parameter"]],
                "x": inside,
                "name": title,
                "legendgroup": direction,
                "showlegend": column == 1,
                "hovertext": [_neighbour_hover(row) for _, row in rows.iterrows()],
                "hovertemplate": "%{hovertext}<extra></extra>",
            }
            if direction == "other":
                beyond = [abs(ratios[index]) > border for index in rows.index]
                symbols = ["triangle-right" if outside else "diamond" for outside in beyond]
                trace: Any = go.Scatter(
                    **shared, mode="markers", marker={"color": color, "symbol": symbols, "size": 8}
                )
            else:
                trace = go.Bar(**shared, orientation="h", marker={"color": color})
            figure.add_trace(trace, row=1, col=column)
        ticks = _ratio_ticks(border)
        figure.update_xaxes(
            row=1,
            col=column,
            range=[-1.1 * border - 0.002, 1.1 * border + 0.002],
            tickvals=[log2(tick) for tick in ticks],
            ticktext=[f"{100 * (tick - 1):+.0f} %" if tick != 1 else "0" for tick in ticks],
            tickangle=0,
            zeroline=True,
            zerolinecolor="#444444",
            zerolinewidth=1,
        )
    figure.update_yaxes(categoryorder="array", categoryarray=list(labels.values()), autorange="reversed")
    figure.update_layout(barmode="overlay", bargap=0.3)
    return _styled(figure, 170 + 26 * len(labels), above=100)


def _parameter_label(name: str, rows: pd.DataFrame) -> str:
    """Parameter with its value, and a star if a neighbour is infeasible."""
    star = "" if rows["feasible"].all() else " *"
    return f"{name} = {_shortened(str(rows['now'].iloc[0]), 18)}{star}"


def _log2_ratio(change: Any) -> float:
    return log2(1 + change) if change > -1 else -inf


def _neighbour_hover(row: pd.Series[Any]) -> str:
    energy, time, area = (units.change(row[f"{of}_change"]) for of in ("energy", "time", "area"))
    return f"{row['parameter']} {row['now']} to {row['value']}<br>energy {energy}, time {time}, area {area}"


def _ratio_ticks(largest: float) -> list[float]:
    """Ratios to label within 2 ** -largest .. 2 ** largest, few enough for a third of the page."""
    choices = (
        (1.0,), (0.98, 1.0, 1.02), (0.9, 1.0, 1.1), (0.8, 1.0, 1.25), (0.5, 1.0, 2.0), (0.25, 1.0, 4.0),
        (0.1, 1.0, 10.0), (0.01, 1.0, 100.0),
    )  # fmt: skip
    return list([ticks for ticks in choices if log2(ticks[-1]) <= largest][-1])


def traffic(designs: Sequence[Priced]) -> go.Figure:
    """Bytes that each memory reads and writes, by operand."""
    figure = make_subplots(cols=len(LEVELS), rows=1, subplot_titles=LEVELS, horizontal_spacing=0.06)
    moved = [traffic_by_level(priced.cost) for priced in designs]
    several = len(designs) > 1
    shown: set[str] = set()
    for column, level in enumerate(LEVELS, start=1):
        total = max(
            sum(found[way] for (at, _), found in one.items() if at == level)
            for one in moved
            for way in (0, 1)
        )
        power, prefix = _prefix(total)
        for operand in OPERANDS:
            both = [one.get((level, operand), (0.0, 0.0)) for one in moved]
            values = [value / power for pair in both for value in pair]
            if not any(values):
                continue
            ways = [("read", "written")[way] for _ in designs for way in (0, 1)]
            names = [priced.name for priced in designs for _ in (0, 1)]
            figure.add_trace(
                go.Bar(
                    x=[names, ways] if several else ways,
                    y=values,
                    name=operand.replace("_", " "),
                    legendgroup=operand,
                    showlegend=operand not in shown,
                    marker={"color": _OPERAND_COLORS[operand]},
                    hovertemplate=f"{operand.replace('_', ' ')}, %{{x}}: %{{y:.3g}} {prefix}B<extra></extra>",
                ),
                row=1,
                col=column,
            )
            shown.add(operand)
        figure.update_yaxes(title=f"{prefix}B", title_standoff=4, row=1, col=column)
    figure.update_layout(barmode="stack", bargap=0.25)
    return _styled(figure, 420, above=100)


def _prefix(value: float) -> tuple[float, str]:
    """Power of ten and prefix in which `value` has one to three digits before the point."""
    if not value > 0:
        return 1.0, ""
    power = min(max(3 * floor(log10(value) / 3), min(_SI)), max(_SI))
    return 10.0**power, _SI[power]


_ABOVE = {"orientation": "h", "y": 1, "yref": "container", "yanchor": "top", "x": 0, "traceorder": "normal"}


def _styled(figure: go.Figure, height: int, *, above: int = 60) -> go.Figure:
    """House style, with the legend in a margin of `above` pixels."""
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 70, "r": 20, "t": above, "b": 60},
        legend=_ABOVE,
        font={"family": "system-ui, sans-serif", "size": 13},
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure
