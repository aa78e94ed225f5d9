"""Bit-true training in PyTorch."""

from numerics.torch.emulate import emulate, emulation_state, load_emulation_state, restore
from numerics.torch.fixed_point import assign_fixed_point
from numerics.torch.fixed_point_training import FixedPointSGD, fixed_point_twin
from numerics.torch.loss_scaling import LossScaler
from numerics.torch.optimizer import LowPrecision
from numerics.torch.policy import PRESETS, LayerPolicy, Policy, PolicyError, Rule, UpdatePolicy
from numerics.torch.scaling import Scaling, TensorPolicy
from numerics.torch.stationarity import StationarityTest
from numerics.torch.statistics import Statistics

__all__ = [
    "PRESETS",
    "FixedPointSGD",
    "LayerPolicy",
    "LossScaler",
    "LowPrecision",
    "Policy",
    "PolicyError",
    "Rule",
    "Scaling",
    "StationarityTest",
    "Statistics",
    "TensorPolicy",
    "UpdatePolicy",
    "assign_fixed_point",
    "emulate",
    "emulation_state",
    "fixed_point_twin",
    "load_emulation_state",
    "restore",
]
