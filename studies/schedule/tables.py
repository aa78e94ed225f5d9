"""What tells a schedule from others, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from accel.schedule import Schedule
from studies.schedule.run import Answer

#: Baselines beside the optimum in tables and plots by size: order, replacement, allocation.
SHOWN = ("default lru online", "default belady online", "mpmf belady online")


def savings(answer: Answer) -> Sequence[tuple[str, int]]:
    """What the optimum saves of the reference, by cause, and in all."""
    saving = answer.saving
    assert saving is not None
    return (
        ("order", saving.order_bytes),
        ("replacement", saving.replacement_bytes),
        ("fragmentation", saving.fragmentation_bytes),
        ("all", saving.bytes),
    )


def moved_tensors(plan: Schedule) -> pd.DataFrame:
    """Tensors with non-compulsory traffic, those that move most bytes first.

    Columns: tensor, bytes, moved_bytes, spilled_after (operator, or empty), fetched_before (operators).
    """
    moves: dict[str, list[tuple[str, int]]] = {}
    for move in plan.transfers:
        if move.kind in ("spill", "refetch"):
            moves.setdefault(move.tensor, []).append((move.kind, move.step))
    size = {move.tensor: move.bytes for move in plan.transfers}
    rows = [
        {
            "tensor": name,
            "bytes": size[name],
            "moved_bytes": size[name] * len(found),
            "spilled_after": next((plan.order[step] for kind, step in found if kind == "spill"), ""),
            "fetched_before": [plan.order[step] for kind, step in found if kind == "refetch"],
        }
        for name, found in moves.items()
    ]
    columns = ["tensor", "bytes", "moved_bytes", "spilled_after", "fetched_before"]
    return pd.DataFrame(rows, columns=columns).sort_values("moved_bytes", ascending=False, kind="stable")


def traffic_by_size(answer: Answer) -> pd.DataFrame:
    """Non-compulsory bytes by size of the scratchpad: optimum, bound, and some baselines where they exist.

    Columns: scratchpad_bytes, status, optimum_bytes, bound_bytes, then baselines by name.
    """
    rows = []
    others = answer.sweep_baselines
    known = {name for row in others.values() for name in row}
    names = [name for name in (*SHOWN, "layer by layer") if name in known]
    for plan in answer.sweep:
        size = plan.scratchpad_bytes
        row: dict[str, Any] = {
            "scratchpad_bytes": size,
            "status": plan.status,
            "optimum_bytes": plan.noncompulsory_bytes,
            "bound_bytes": plan.bound_bytes,
        }
        row |= {name: others.get(size, {}).get(name) for name in names}
        rows.append(row)
    return pd.DataFrame(rows)
