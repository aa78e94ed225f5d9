"""Accelerators: workloads, hardware costs and schedules."""

from accel.cost import COMPONENTS, Cost, OperatorCost, evaluate
from accel.dataflow import ArrayCounts, Dataflow, array_counts
from accel.design import Design
from accel.hardware import Mac, MacCost, SramCost, mac_cost, offchip_memory, sram_cost
from accel.training import training_step
from accel.workload import Gemm, Operator, Phase, Role, Tensor, Workload

__all__ = [
    "COMPONENTS",
    "ArrayCounts",
    "Cost",
    "Dataflow",
    "Design",
    "Gemm",
    "Mac",
    "MacCost",
    "Operator",
    "OperatorCost",
    "Phase",
    "Role",
    "SramCost",
    "Tensor",
    "Workload",
    "array_counts",
    "evaluate",
    "mac_cost",
    "offchip_memory",
    "sram_cost",
    "training_step",
]
