"""Bit-true training in PyTorch."""

from numerics.torch.emulate import emulate, restore
from numerics.torch.fixed_point import assign_fixed_point
from numerics.torch.fixed_point_training import FixedPointSGD, fixed_point_twin
from numerics.torch.optimizer import LossScaler, LowPrecision
from numerics.torch.policy import LayerPolicy, Policy
from numerics.torch.stationarity import StationarityTest

__all__ = [
    "FixedPointSGD",
    "LayerPolicy",
    "LossScaler",
    "LowPrecision",
    "Policy",
    "StationarityTest",
    "assign_fixed_point",
    "emulate",
    "fixed_point_twin",
    "restore",
]
