"""Candidates in a few words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UPDATES = {"stochastic": "SR", "nearest-even": "RNE"}  # of the weight update


def numerics_text(row: Mapping[str, Any]) -> str:
    """Formats and rounding of a candidate or table row, such as ``e5m2 + e6m5 chunk=64, SR``.

    The last word is the rounding of the weight update. The full-precision twin has no accumulator column.
    """
    if _missing(row.get("accumulator_frac_bits")):
        return "float32 everywhere"
    chunk = f" chunk={int(row['chunk'])}" if row["chunk"] else ""
    accumulator = f"e{int(row['accumulator_exp_bits'])}m{int(row['accumulator_frac_bits'])}"
    update = _UPDATES.get(row["update_rounding"], row["update_rounding"])
    return f"{formats_text(row)} + {accumulator}{chunk}, {update}"


def formats_text(row: Mapping[str, Any]) -> str:
    """Operand format of a candidate, and that of its errors if it has one of its own: ``e4m3fn/e5m2``."""
    backward = row.get("backward_format")
    same = _missing(backward) or backward == row["format"]
    return str(row["format"]) if same else f"{row['format']}/{backward}"


def design_text(row: Mapping[str, Any]) -> str:
    """Accelerator of a candidate or table row, such as ``16x16 ws, 320 KiB, 8 B/cycle``."""
    return (
        f"{int(row['rows'])}x{int(row['columns'])} {row['dataflow']}, "
        f"{row['scratchpad_bytes'] / 1024:g} KiB, {row['offchip_bytes_per_cycle']:g} B/cycle"
    )


def _missing(value: Any) -> bool:
    return value is None or value != value  # NaN, from a table
