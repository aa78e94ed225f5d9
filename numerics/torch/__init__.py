"""Bit-true training in PyTorch."""

from numerics.torch.emulate import emulate, restore
from numerics.torch.optimizer import LossScaler, LowPrecision
from numerics.torch.policy import LayerPolicy, Policy

__all__ = ["LayerPolicy", "LossScaler", "LowPrecision", "Policy", "emulate", "restore"]
