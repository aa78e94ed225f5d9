"""A prediction on the terminal and as a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from rich.console import Console
from rich.table import Table

from accel.accumulations import Network
from numerics.theory import variance_retention
from numerics.theory.calibration import ACC_BITS, loss
from studies.page import COLORS, figure_html, write_page
from studies.predict.bits import BITS, PRODUCTS, Arithmetic, most

_WIDE = 120  # of a log file, which does not wrap
_SHOWN_BITS = 20


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A network, what its accumulators need, and how that was checked."""

    network: Network
    arithmetic: Arithmetic
    table: pd.DataFrame
    verified: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()

    @property
    def all_notes(self) -> list[str]:
        """Those of the network, of its layers, of which equal ones are one, and of the measurement."""
        layers: dict[str, list[str]] = {}
        for layer in self.network.products:
            for note in layer.notes:
                layers.setdefault(note, []).append(layer.layer)
        of_layers = (
            f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {note}"
            for note, names in layers.items()
        )
        return [*self.network.notes, *of_layers, *self.notes]


def show(prediction: Prediction) -> None:
    """Print the table, the largest bits of each product, the verification, and the notes."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDE
    arithmetic, network = prediction.arithmetic, prediction.network
    console.print(f"{network.name}, batch {network.batch}: {_question(arithmetic)}")
    console.print(_grid(prediction.table))
    console.print("largest, for one accumulator in the whole network:")
    console.print(_grid(most(prediction.table)))
    if prediction.verified is not None:
        limit = 100.0 * np.sqrt(arithmetic.allowed)
        console.print(f"emulated at these bits and one fewer; a relative error of {limit:.2g} % is allowed:")
        console.print(_verified(prediction.verified))
    for note in prediction.all_notes:
        console.print(f"note: {note}", style="dim", markup=False)


def _question(arithmetic: Arithmetic) -> str:
    first, second = arithmetic.operands
    operands = str(first) if first == second else f"{first} x {second}"
    return (
        f"fraction bits of the accumulators of {operands} products, which have {arithmetic.product_bits}, "
        f"plain and in chunks of {arithmetic.chunk}, rounding {arithmetic.rounding}"
    )


_HEADINGS = {
    "bits_theory": "theory",
    "bits_theory_chunked": "theory, chunked",
    "bits_emulated": "emulated",
    "bits_emulated_chunked": "emulated, chunked",
}


def _grid(table: pd.DataFrame) -> Table:
    grid = Table(box=None, pad_edge=False)
    columns = [str(column) for column in table.columns]
    for column in columns:
        text = column in ("layer", "gemm")
        grid.add_column(_HEADINGS.get(column, column), justify="left" if text else "right", overflow="fold")
    for _, row in table.iterrows():
        grid.add_row(*(f"{row[c]:.3g}" if c == "density" else str(row[c]) for c in columns))
    return grid


def _verified(table: pd.DataFrame) -> Table:
    grid = Table(box=None, pad_edge=False)
    for column in (
        "layer",
        "gemm",
        "length",
        "operands",
        "chunk",
        "bits",
        "variance",
        "error",
        "1 bit fewer",
        "",
    ):
        text = column in ("layer", "gemm", "operands", "")
        grid.add_column(column, justify="left" if text else "right", overflow="fold")
    for _, row in table.iterrows():
        grid.add_row(
            row["layer"],
            row["gemm"],
            str(row["length"]),
            row["operands"],
            str(row["chunk"] or "-"),
            str(row["bits"]),
            f"{row['retained_variance']:.4f}",
            f"{100 * row['relative_error']:.3g} %",
            f"{100 * row['relative_error_one_bit_fewer']:.3g} %",
            row["verdict"],
        )
    return grid


def write_report(prediction: Prediction, path: Path) -> None:
    """Write the page; it needs no other file and no network."""
    table, verified = prediction.table, prediction.verified
    context: dict[str, Any] = {
        "network": prediction.network,
        "question": _question(prediction.arithmetic),
        "arithmetic": prediction.arithmetic,
        "bits": BITS,
        "allowed_error": float(np.sqrt(prediction.arithmetic.allowed)),
        "largest": most(table).to_dict("records"),
        "rows": table.to_dict("records"),
        "verified": None if verified is None else verified.to_dict("records"),
        "notes": prediction.all_notes,
        "plots": [figure_html(figure) for figure in (knees(prediction), by_layer(prediction))],
    }
    write_page("prediction.html.j2", context, path)


def knees(prediction: Prediction) -> go.Figure:
    """Retained variance against bits for the most demanding product of each kind, with the answers marked."""
    figure = go.Figure()
    table, arithmetic = prediction.table, prediction.arithmetic
    bits = np.array([m for m in ACC_BITS if m <= _SHOWN_BITS])
    for color, product in zip(COLORS, PRODUCTS, strict=False):
        rows = table[table["gemm"] == product]
        if rows.empty:
            continue
        row = rows.loc[rows["bits_emulated"].eq(rows["bits_emulated"].max())].nlargest(1, "length").iloc[0]
        length, density = int(row["length"]), float(row["density"])
        for chunk, dash, suffix in ((None, "solid", ""), (arithmetic.chunk, "dot", "_chunked")):
            name = f"{product}, {length} products" + (f" in chunks of {chunk}" if chunk else "")
            theory = variance_retention(bits, arithmetic.product_bits, length, chunk=chunk, density=density)
            found = loss(
                arithmetic.rounding, arithmetic.product_bits, length, chunk=chunk, density=density
            ).retention[: len(bits)]
            for kind, values, width in (("emulated", found, 2.5), ("theory", np.asarray(theory), 1.0)):
                answer = int(row[f"bits_{kind}{suffix}"])
                figure.add_trace(
                    go.Scatter(
                        x=bits,
                        y=values,
                        mode="lines+markers",
                        name=f"{name}, {kind}",
                        line={"color": color, "dash": dash, "width": width},
                        marker={
                            "size": [11 if m == answer else 1 for m in bits],
                            "symbol": "circle" if kind == "emulated" else "circle-open",
                        },
                        hovertemplate=f"{name}, {kind}<br>%{{x}} bits: %{{y:.4f}}<extra></extra>",
                    )
                )
    figure.update_layout(
        xaxis_title="fraction bits of the accumulator (marked: the answer)",
        yaxis_title="retained variance",
        template="plotly_white",
        height=520,
        margin={"t": 30},
        legend={"font": {"size": 11}},
    )
    return figure


def by_layer(prediction: Prediction) -> go.Figure:
    """Bits of every layer and product, plain and chunked, by emulation."""
    figure = go.Figure()
    for color, product in zip(COLORS, PRODUCTS, strict=False):
        rows = prediction.table[prediction.table["gemm"] == product]
        for column, symbol in (("bits_emulated", "circle"), ("bits_emulated_chunked", "triangle-down-open")):
            figure.add_trace(
                go.Scatter(
                    x=rows["layer"],
                    y=rows[column],
                    mode="markers",
                    name=f"{product}, {'chunked' if column.endswith('chunked') else 'plain'}",
                    marker={"color": color, "symbol": symbol, "size": 8},
                )
            )
    figure.update_layout(
        yaxis_title="fraction bits, emulated",
        template="plotly_white",
        height=460,
        margin={"t": 30},
        legend={"font": {"size": 11}},
    )
    return figure
