"""Scaling of logic between technology nodes.

References
----------
.. [Stillmaker17] A. Stillmaker and B. Baas, "Scaling equations for the accurate prediction of CMOS
   device performance from 180 nm to 7 nm", Integration 58, 2017.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cache
from math import exp, log

from accel.hardware._data import load

BASE_NODE_NM = 45  #: node of the MAC laws and unit energies


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicScale:
    """Factors that take area and energy of logic from 45 nm to another node.

    Attributes
    ----------
    area, energy
        Multiply um2 and pJ at 45 nm; energy is at equal supply voltage, 0.9 V.
    scaled
        False only at 45 nm itself, where nothing was scaled.
    """

    area: float
    energy: float
    scaled: bool


@cache
def _nodes() -> tuple[tuple[int, float, float], ...]:
    """(node in nm, area factor, energy factor), ascending in node, relative to 45 nm."""
    data = load("technology")
    voltage: float = data["voltage_v"]

    def energy(row: dict[str, float]) -> float:
        return (row["a2"] * voltage + row["a1"]) * voltage + row["a0"]

    rows = {int(node): row for node, row in data["nodes"].items()}
    base = rows[BASE_NODE_NM]
    return tuple(
        (node, row["area_factor"] / base["area_factor"], energy(row) / energy(base))
        for node, row in sorted(rows.items())
    )


@cache
def logic_scale(node_nm: int) -> LogicScale:
    """Factors from 45 nm to `node_nm` [Stillmaker17]_; between two tabled nodes, log-log interpolation.

    Raises
    ------
    ValueError
        The node is outside the table, 7..130 nm.

    Examples
    --------
    >>> scale = logic_scale(7)
    >>> round(scale.area, 3), round(scale.energy, 4), scale.scaled
    (0.059, 0.1024, True)
    """
    table = _nodes()
    nodes = [node for node, _, _ in table]
    if not nodes[0] <= node_nm <= nodes[-1]:
        raise ValueError(f"node_nm must be in {nodes[0]}..{nodes[-1]}, got {node_nm}")
    above = bisect_left(nodes, node_nm)
    node, area, energy = table[above]
    if node != node_nm:
        low_node, low_area, low_energy = table[above - 1]
        weight = log(node / node_nm) / log(node / low_node)
        area *= exp(weight * log(low_area / area))
        energy *= exp(weight * log(low_energy / energy))
    return LogicScale(area=area, energy=energy, scaled=node_nm != BASE_NODE_NM)
