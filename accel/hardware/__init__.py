"""Hardware units and what they cost, with the source of every constant in ``accel/data``."""

from accel.hardware.library import DEFAULT, Library, LibraryError
from accel.hardware.mac import Mac, MacCost, MacParts, mac_area_scale, mac_cost
from accel.hardware.offchip import OffchipMemory, offchip_memory
from accel.hardware.overrides import unused_entries
from accel.hardware.register import RegisterCost, register_cost
from accel.hardware.sram import SramCost, sram_cost, sram_range
from accel.hardware.technology import LogicScale, logic_scale
from accel.hardware.vector import LaneCost, lane_cost

__all__ = [
    "DEFAULT",
    "LaneCost",
    "Library",
    "LibraryError",
    "LogicScale",
    "Mac",
    "MacCost",
    "MacParts",
    "OffchipMemory",
    "RegisterCost",
    "SramCost",
    "lane_cost",
    "logic_scale",
    "mac_area_scale",
    "mac_cost",
    "offchip_memory",
    "register_cost",
    "sram_cost",
    "sram_range",
    "unused_entries",
]
