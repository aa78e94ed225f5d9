"""Memory map of a schedule: address against step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as go

from studies.page import COLORS, styled

if TYPE_CHECKING:
    from accel.schedule import Schedule

_MOST_NAMES = 60  # operators named on the axis
_LANE = 1.12  # of the scratchpad: where moves are marked that pass it by


def memory_map(plan: Schedule) -> go.Figure:
    """Address against step: one rectangle per stay of a tensor.

    Tensors that leave and come back are outlined; a cross marks where one is spilled, a triangle where it
    is fetched again; those of tensors that are streamed lie above the scratchpad.
    """
    figure = go.Figure()
    roles = list(dict.fromkeys(tensor.role for tensor in plan.workload.tensors.values()))
    returning = {move.tensor for move in plan.transfers if move.kind == "refetch"}
    for index, role in enumerate(roles):
        runs = [run for run in plan.residency if plan.workload.tensors[run.tensor].role == role]
        if not runs:
            continue
        figure.add_trace(
            go.Bar(
                x=[(run.start + run.end) / 2 for run in runs],
                width=[run.end - run.start + 1 for run in runs],
                base=[run.address / 1024 for run in runs],
                y=[run.bytes / 1024 for run in runs],
                name=str(role).replace("_", " "),
                marker={
                    "color": COLORS[index % len(COLORS)],
                    "opacity": 0.75,
                    "line": {
                        "color": ["#B00020" if run.tensor in returning else "white" for run in runs],
                        "width": [3 if run.tensor in returning else 1 for run in runs],
                    },
                },
                text=[run.tensor if run.bytes > 0.06 * plan.scratchpad_bytes else "" for run in runs],
                textposition="inside",
                insidetextanchor="middle",
                customdata=[
                    (
                        run.tensor,
                        run.bytes,
                        run.address,
                        plan.order[run.start],
                        plan.order[run.end],
                        "leaves and comes back" if run.tensor in returning else "stays",
                    )
                    for run in runs
                ],
                hovertemplate=(
                    "%{customdata[0]}<br>%{customdata[1]} bytes at %{customdata[2]}"
                    "<br>%{customdata[3]} to %{customdata[4]}<br>%{customdata[5]}<extra></extra>"
                ),
            )
        )
    _mark_moves(figure, plan)
    figure.add_hline(
        y=plan.scratchpad_bytes / 1024,
        line={"color": "#B00020", "dash": "dash"},
        annotation_text=f"scratchpad, {plan.scratchpad_bytes / 1024:g} KiB",
    )
    figure.update_layout(barmode="overlay", bargap=0)
    named = len(plan.order) <= _MOST_NAMES
    figure.update_xaxes(
        tickvals=list(range(len(plan.order))) if named else None,
        ticktext=list(plan.order) if named else None,
        tickangle=-45 if named else 0,
        title="operator" if named else "step",
        range=[-0.5, max(1, len(plan.order)) - 0.5],
        automargin=True,
    )
    figure.update_yaxes(title="address, KiB")
    return styled(figure, 560)


def _mark_moves(figure: go.Figure, plan: Schedule) -> None:
    """Marks on the blocks from which tensors are spilled, and on those into which they are fetched again.

    A tensor that is streamed has no block there: its mark is at the step, on a lane above the scratchpad.
    """
    lane = _LANE * plan.scratchpad_bytes / 1024
    for kind, symbol, edge in (("spill", "x", 0.3), ("refetch", "triangle-up", -0.3)):
        on_block: list[tuple[int, float, str]] = []
        streamed: dict[int, list[str]] = {}
        for move in plan.transfers:
            if move.kind != kind:
                continue
            text = f"{kind} of {move.tensor}<br>{move.bytes} bytes"
            runs = [
                run
                for run in plan.residency
                if run.tensor == move.tensor and run.start <= move.step <= run.end
            ]
            on_block += [(move.step, (run.address + run.bytes / 2) / 1024, text) for run in runs]
            if not runs:
                streamed.setdefault(move.step, []).append(text)
        beside = [(step, lane, "<br>".join(texts)) for step, texts in streamed.items()]
        for name, marks, drawn in ((kind, on_block, symbol), (f"{kind}, streamed", beside, f"{symbol}-open")):
            if marks:
                figure.add_trace(
                    go.Scatter(
                        x=[step + edge for step, _, _ in marks],
                        y=[height for _, height, _ in marks],
                        mode="markers",
                        name=name,
                        marker={
                            "symbol": drawn,
                            "size": 9,
                            "color": "#B00020",
                            "line": {"color": "#B00020" if marks is beside else "white", "width": 1},
                        },
                        text=[text for _, _, text in marks],
                        hovertemplate="%{text}<extra></extra>",
                    )
                )
