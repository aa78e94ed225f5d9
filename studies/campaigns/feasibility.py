"""Where designs fail: a map of the probability that a design has a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from dse.diagnostics import Feasibility, values_of, varied
from dse.space import Space, Value
from studies.campaigns import figures
from studies.campaigns.runs import Run
from studies.page import COLORS, styled

_OTHERS = 48  # designs over which the parameters that the map does not show are averaged
_VALUES = 20  # along a side


@dataclass(frozen=True, eq=False)
class FeasibilityMap:
    """Probability of a result over the parameters that decide most about it.

    Attributes
    ----------
    names
        Of the one or two parameters, the more important one first.
    values
        Those of each of them that are shown.
    probability : (k, m)
        By value of the second parameter and of the first, averaged over designs that are drawn uniformly
        otherwise; one row with one parameter.
    """

    names: tuple[str, ...]
    values: tuple[tuple[Value, ...], ...]
    probability: Float[np.ndarray, "k m"]


def feasibility_map(run: Run, space: Space) -> FeasibilityMap:
    """Map of a run, in which trials that were lost with the infrastructure say nothing.

    Raises
    ------
    ValueError
        Too few trials, or none that failed.
    """
    rows = run.frame[run.frame["trial_state"].isin(["done", "infeasible", "failed"])]
    designs = [space.design(given(space, row)) for row in rows.to_dict("records")]
    model = Feasibility(space, designs, rows["trial_state"].to_numpy() != "failed", seed=run.seed)
    effects = model.effects()
    names = tuple(sorted(effects, key=lambda name: -effects[name])[:2])
    places = [space.names.index(name) for name in names]
    values = tuple(tuple(values_of(space.parameters[place], _VALUES)) for place in places)
    rng = np.random.default_rng(np.random.SeedSequence(run.seed, spawn_key=(2,)))
    others = list(islice(Space(space.parameters).sequence(rng), _OTHERS))
    up = values[1] if len(names) == 2 else (None,)
    cells = [
        varied(space, other, {places[0]: across, **({places[1]: value} if len(names) == 2 else {})})
        for value in up
        for across in values[0]
        for other in others
    ]
    shape = (len(up), len(values[0]), len(others))
    return FeasibilityMap(names, values, model.probability(cells).reshape(shape).mean(axis=2))


def given(space: Space, row: Mapping[Any, Any]) -> dict[str, Any]:
    """Parameters of a row; a table of numbers has NaN for what is inactive, and floats for integers."""
    return {name: None if figures.is_missing(row[name]) else row[name] for name in space.names}


def draw(run: Run, found: FeasibilityMap) -> go.Figure:
    """Colours for the probability, circles for designs with a result, crosses for those that failed."""
    pair = len(found.names) == 2
    sides = [_Side.of(values) for values in found.values]
    figure = go.Figure()
    if pair:
        figure.add_trace(
            go.Heatmap(
                x=sides[0].shown(found.values[0]),
                y=sides[1].shown(found.values[1]),
                z=100 * found.probability,
                zmin=0,
                zmax=100,
                colorscale=[[0, "#f3d9c9"], [0.5, "#ffffff"], [1, "#bcd9ec"]],
                colorbar={"title": "result, %"},
                hovertemplate="%{x}, %{y}: %{z:.0f} %<extra></extra>",
            )
        )
    else:
        figure.add_trace(
            go.Scatter(
                x=sides[0].shown(found.values[0]),
                y=100 * found.probability[0],
                mode="lines+markers",
                name="predicted",
                line={"color": COLORS[0]},
            )
        )
    for states, name, marker in (
        (["done", "infeasible"], "has a result", {"color": "#333333", "symbol": "circle-open", "size": 8}),
        (["failed"], "failed", {"color": COLORS[1], "symbol": "x", "size": 8}),
    ):
        rows = run.frame[run.frame["trial_state"].isin(states)]
        for each in found.names:
            rows = rows[~rows[each].map(figures.is_missing).astype(bool)]
        figure.add_trace(_marks(rows, found, sides, name, marker, 100.0 * (states != ["failed"])))
    figure.update_xaxes(title=found.names[0], type=sides[0].kind)
    figure.update_yaxes(title=found.names[1] if pair else "probability of a result, %")
    if pair:
        figure.update_yaxes(type=sides[1].kind)
    figure.update_layout(legend={"orientation": "h", "y": 1.08})
    return styled(figure, 460)


def _marks(
    rows: pd.DataFrame,
    found: FeasibilityMap,
    sides: Sequence[_Side],
    name: str,
    marker: dict[str, Any],
    height: float,
) -> go.Scatter:
    up = sides[1].shown(rows[found.names[1]].tolist()) if len(sides) == 2 else [height] * len(rows)
    return go.Scatter(
        x=sides[0].shown(rows[found.names[0]].tolist()),
        y=up,
        mode="markers",
        name=f"{name} ({len(rows)})",
        marker=marker,
        text=[f"trial {trial}" for trial in rows["trial_id"]],
        hovertemplate="%{text}<extra></extra>",
    )


@dataclass(frozen=True, slots=True)
class _Side:
    """How values stand along an axis: many numbers where they are, everything else one beside the other."""

    kind: str

    @classmethod
    def of(cls, values: Sequence[Value]) -> _Side:
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        return cls("linear" if numbers and len(values) == _VALUES else "category")

    def shown(self, values: Sequence[Any]) -> list[Any]:
        return list(values) if self.kind == "linear" else [figures.text_of(value) for value in values]
