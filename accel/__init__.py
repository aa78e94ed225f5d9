"""Accelerators: workloads, hardware costs and schedules."""

from accel.accumulations import Network, NetworkError, TrainingProducts
from accel.cost import COMPONENTS, Cost, OperatorCost, evaluate
from accel.dataflow import ArrayCounts, Dataflow, array_counts
from accel.design import Design
from accel.hardware import Mac, MacCost, SramCost, mac_cost, offchip_memory, sram_cost
from accel.networks import NETWORKS, ExampleInput, NamedNetwork, named_products
from accel.training import training_step
from accel.workload import Gemm, Operator, Phase, Role, Tensor, Window, Workload

__all__ = [
    "COMPONENTS",
    "NETWORKS",
    "ArrayCounts",
    "Cost",
    "Dataflow",
    "Design",
    "ExampleInput",
    "Gemm",
    "Mac",
    "MacCost",
    "NamedNetwork",
    "Network",
    "NetworkError",
    "Operator",
    "OperatorCost",
    "Phase",
    "Role",
    "SramCost",
    "Tensor",
    "TrainingProducts",
    "Window",
    "Workload",
    "array_counts",
    "evaluate",
    "mac_cost",
    "named_products",
    "offchip_memory",
    "sram_cost",
    "training_step",
]
