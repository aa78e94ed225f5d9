"""The vector unit: one fp32 adder and one fp32 multiplier per lane, one operation per cycle.

Comparisons and table look-ups are costed as additions. Not modelled: its registers and the
conversion between tensor formats and fp32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from accel.hardware.library import DEFAULT, Library
from accel.hardware.technology import BASE_NODE_NM, logic_scale


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneCost:
    """One lane: energy of an addition and of a multiplication, and the area of both units.

    Attributes
    ----------
    scaled
        The values were scaled from another node or voltage.
    """

    add_pj: float
    multiply_pj: float
    area_um2: float
    scaled: bool


@lru_cache(maxsize=1024)
def lane_cost(node_nm: int = BASE_NODE_NM, *, library: Library = DEFAULT) -> LaneCost:
    """Cost of one lane.

    Examples
    --------
    >>> lane = lane_cost(); lane.add_pj, lane.multiply_pj, round(lane.area_um2, 1)
    (0.9, 3.7, 5466.8)
    """
    data = library.section("vector")
    scale = logic_scale(node_nm, from_nm=data["node_nm"], library=library)
    return LaneCost(
        add_pj=data["energy_pj"]["fp32_add"] * scale.energy,
        multiply_pj=data["energy_pj"]["fp32_multiply"] * scale.energy,
        area_um2=(data["area_um2"]["fp32_add"] + data["area_um2"]["fp32_multiply"]) * scale.area,
        scaled=scale.scaled,
    )
