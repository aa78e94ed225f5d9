"""Accelerators: workloads, hardware costs and schedules."""

from accel.accumulations import Network, NetworkError, TrainingProducts
from accel.cost import COMPONENTS, Cost, InfeasibleError, OperatorCost, Violation
from accel.dataflow import ArrayCounts, Dataflow, array_counts
from accel.design import Design
from accel.evaluation import evaluate, evaluate_many
from accel.hardware import (
    Library,
    LibraryError,
    Mac,
    MacCost,
    SramCost,
    mac_cost,
    offchip_memory,
    sram_cost,
)
from accel.mapping.tiling import Tiling
from accel.networks import NETWORKS, ExampleInput, NamedNetwork, Positions, named_products, named_workload
from accel.training import training_step
from accel.workload import ElementFormat, Gemm, Operator, Phase, Role, Tensor, Window, Workload

__all__ = [
    "COMPONENTS",
    "NETWORKS",
    "ArrayCounts",
    "Cost",
    "Dataflow",
    "Design",
    "ElementFormat",
    "ExampleInput",
    "Gemm",
    "InfeasibleError",
    "Library",
    "LibraryError",
    "Mac",
    "MacCost",
    "NamedNetwork",
    "Network",
    "NetworkError",
    "Operator",
    "OperatorCost",
    "Phase",
    "Positions",
    "Role",
    "SramCost",
    "Tensor",
    "Tiling",
    "TrainingProducts",
    "Violation",
    "Window",
    "Workload",
    "array_counts",
    "evaluate",
    "evaluate_many",
    "mac_cost",
    "named_products",
    "named_workload",
    "offchip_memory",
    "sram_cost",
    "training_step",
]
