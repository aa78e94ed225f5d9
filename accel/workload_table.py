"""Workloads as pandas tables, units in the column names."""

from __future__ import annotations

import pandas as pd

from accel.workload import Role, Tensor, Workload


def workload_table(workload: Workload) -> pd.DataFrame:
    """One row per operator in file order; sizes of its matrix product are missing where it has none.

    Each tensor that an operator reads counts once: in ``weight_bytes`` where it is a parameter, in
    ``input_bytes`` otherwise. ``formats`` are those of inputs, then of outputs, as ``e4m3fn, e5m2 -> e8m23``.
    """
    rows = []
    for operator in workload.operators:
        gemm = operator.gemm
        read = [workload.tensors[name] for name in dict.fromkeys(operator.inputs)]
        written = [workload.tensors[name] for name in operator.outputs]
        rows.append(
            {
                "operator": operator.name,
                "kind": operator.kind,
                "phase": str(operator.phase),
                "m": gemm.m if gemm else None,
                "n": gemm.n if gemm else None,
                "k": gemm.k if gemm else None,
                "count": gemm.count if gemm else None,
                "macs": operator.macs,
                "vector_ops": operator.vector_ops,
                "input_bytes": sum(tensor.bytes for tensor in read if tensor.role is not Role.WEIGHT),
                "weight_bytes": sum(tensor.bytes for tensor in read if tensor.role is Role.WEIGHT),
                "output_bytes": sum(tensor.bytes for tensor in written),
                "formats": f"{_formats(read)} -> {_formats(written)}",
            }
        )
    frame = pd.DataFrame(rows, columns=_WORKLOAD_COLUMNS)
    return frame.astype(dict.fromkeys(["m", "n", "k", "count"], "Int64"))


_WORKLOAD_COLUMNS = [
    *("operator", "kind", "phase", "m", "n", "k", "count", "macs", "vector_ops"),
    *("input_bytes", "weight_bytes", "output_bytes", "formats"),
]


def _formats(tensors: list[Tensor]) -> str:
    """Different formats of some tensors, in their order."""
    return ", ".join(dict.fromkeys(str(tensor.format) for tensor in tensors))
