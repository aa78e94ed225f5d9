"""Hardware units and what they cost, with the source of every constant in ``accel/data``."""

from accel.hardware.mac import Mac, MacCost, RegisterCost, mac_cost, register_cost
from accel.hardware.offchip import OffchipMemory, offchip_memory
from accel.hardware.sram import SramCost, sram_cost, sram_range
from accel.hardware.technology import LogicScale, logic_scale
from accel.hardware.vector import LaneCost, lane_cost

__all__ = [
    "LaneCost",
    "LogicScale",
    "Mac",
    "MacCost",
    "OffchipMemory",
    "RegisterCost",
    "SramCost",
    "lane_cost",
    "logic_scale",
    "mac_cost",
    "offchip_memory",
    "register_cost",
    "sram_cost",
    "sram_range",
]
