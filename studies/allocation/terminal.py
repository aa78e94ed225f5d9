"""Allocations on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from studies.allocation.groups import traffic_bytes
from studies.allocation.layer_bits import LayerBits
from studies.allocation.search import Found
from studies.allocation.subject import Subject
from studies.console import new_console, paragraph, plain_table, section
from studies.units import si

if TYPE_CHECKING:
    import pandas as pd

_WIDE, _HALF = "binary32", "binary16"  # formats for all groups that savings are told against


def show_formats(
    subject: Subject, found: Sequence[Found], *, threshold: float, console: Console | None = None
) -> None:
    """Print what each method saves, and the formats of the best assignment."""
    out = console or new_console()
    sign = ">=" if subject.higher_is_better else "<="
    paragraph(
        out,
        f"{subject.title}: {len(subject.groups)} tensor groups, {subject.quality} {sign} {threshold:g}; "
        f"in {_WIDE} {si(traffic_bytes(subject.groups, _WIDE), 'B')} are moved",
    )
    table = plain_table("method", "bytes moved", "saved of FP32", "of FP16", "quality", "tried", "calls")
    for result in found:
        table.add_row(
            result.method,
            si(result.traffic_bytes, "B"),
            f"{100 * result.saved(_WIDE):.1f} %",
            f"{100 * result.saved(_HALF):.1f} %",
            f"{result.quality:.4g}",
            str(len(result.asked)),
            str(result.calls),
        )
    section(out, "least traffic found", table)
    best = min(found, key=lambda result: result.traffic_bytes)
    rows = plain_table("tensor group", "numbers", "accesses", "format", "bytes moved", text=(0, 3))
    for group in sorted(best.groups, key=lambda group: -group.bytes_in(_WIDE)):
        fmt = best.assignment[group.name]
        moved = si(group.bytes_in(fmt), "B")
        rows.add_row(group.name, f"{group.elements:,}", f"{group.accesses:.4g}", fmt, moved)
    section(out, f"formats by {best.method}", rows)


def assignments(found: Sequence[Found]) -> pd.DataFrame:
    """A row for each method: traffic, quality, and the format of each group."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "method": result.method,
                "traffic_bytes": result.traffic_bytes,
                "quality": result.quality,
                "asked": len(result.asked),
                **result.assignment,
            }
            for result in found
        ]
    )


def show_bits(
    layers: LayerBits,
    under: pd.DataFrame,
    reaching: pd.DataFrame,
    *,
    mean_bits: float,
    accuracy: float,
    console: Console | None = None,
) -> None:
    """Print sensitivities of the layers, and what each method makes of them."""
    out = console or new_console()
    rows = plain_table("layer", "weights", "trace of the Hessian", "standard error")
    for name, size in zip(layers.names, layers.sizes, strict=True):
        trace = layers.traces[name]
        rows.add_row(name, f"{size:.0f}", f"{trace.mean:.3g}", f"{trace.error:.2g}")
    section(out, "curvature of the training loss", rows)
    for title, frame in (
        (f"at most {mean_bits:g} bits per weight", under),
        (f"fewest bits for an accuracy of {accuracy:.2f} %", reaching),
    ):
        heads = ["method", "sensitivity", "bits", "bits per weight", "training loss", "accuracy, %"]
        table = plain_table(*heads, *(["tried"] if "asked" in frame else []), text=(0, 1, 2))
        for row in frame.to_dict("records"):
            table.add_row(
                row["method"],
                row["sensitivity"],
                row["bits"],
                f"{row['bits_per_weight']:.3f}",
                f"{row['training_loss']:.4f}",
                f"{row['accuracy_percent']:.2f}",
                *([str(row["asked"])] if "asked" in frame else []),
            )
        section(out, title, table)
