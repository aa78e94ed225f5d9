"""Flip-flops: operand forwarding, partial sums that travel through the array, small buffers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from accel.hardware.library import DEFAULT, Library
from accel.hardware.technology import BASE_NODE_NM, logic_scale


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterCost:
    """One flip-flop bit: its area, and its energy per clock.

    Attributes
    ----------
    scaled
        The values were scaled from another node or voltage.
    """

    area_um2: float
    energy_pj: float
    scaled: bool = False


@lru_cache(maxsize=1024)
def register_cost(node_nm: int = BASE_NODE_NM, *, library: Library = DEFAULT) -> RegisterCost:
    """Area and clock energy of one flip-flop bit.

    Examples
    --------
    >>> bit = register_cost()
    >>> bit.area_um2, bit.energy_pj, bit.scaled
    (4.5, 0.008, False)
    """
    data = library.section("register")
    scale = logic_scale(node_nm, from_nm=data["node_nm"], library=library)
    return RegisterCost(
        area_um2=data["area_um2"] * scale.area,
        energy_pj=data["energy_pj"] * scale.energy,
        scaled=scale.scaled,
    )
