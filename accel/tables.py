"""Workloads and costs as pandas tables, units in the column names."""

from __future__ import annotations

import pandas as pd

from accel.cost import Cost
from accel.workload import Workload


def workload_table(workload: Workload) -> pd.DataFrame:
    """One row per operator in file order; sizes of its matrix product are missing where it has none."""
    rows = []
    for operator in workload.operators:
        gemm = operator.gemm
        rows.append(
            {
                "operator": operator.name,
                "kind": operator.kind,
                "phase": str(operator.phase),
                "m": gemm.m if gemm else None,
                "n": gemm.n if gemm else None,
                "k": gemm.k if gemm else None,
                "count": gemm.count if gemm else None,
                "macs": gemm.macs if gemm else 0,
                "vector_ops": operator.vector_ops,
                "input_bytes": sum(workload.tensors[name].bytes for name in dict.fromkeys(operator.inputs)),
                "output_bytes": sum(workload.tensors[name].bytes for name in operator.outputs),
            }
        )
    columns = ["operator", "kind", "phase", "m", "n", "k", "count", "macs", "vector_ops"]
    frame = pd.DataFrame(rows, columns=[*columns, "input_bytes", "output_bytes"])
    return frame.astype(dict.fromkeys(["m", "n", "k", "count"], "Int64"))


def cost_table(cost: Cost) -> pd.DataFrame:
    """One row per operator in the order of the run: cycles, what bounds it, traffic, energy."""
    rows = [
        {
            "operator": operator.name,
            "macs": operator.macs,
            "cycles": operator.cycles,
            "bound": operator.bound,
            "array_cycles": operator.array_cycles,
            "vector_cycles": operator.vector_cycles,
            "offchip_cycles": operator.offchip_cycles,
            "scratchpad_cycles": operator.scratchpad_cycles,
            "offchip_bytes": operator.offchip_bytes,
            **{f"{part}_pj": energy for part, energy in operator.energy_pj.items()},
            "total_pj": sum(operator.energy_pj.values()),
        }
        for operator in cost.operators
    ]
    return pd.DataFrame(rows)
