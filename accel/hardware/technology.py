"""Scaling of logic between technology nodes and supply voltages: an estimate, and flagged as one.

References
----------
.. [Stillmaker17] A. Stillmaker and B. Baas, "Scaling equations for the accurate prediction of CMOS
   device performance from 180 nm to 7 nm", Integration 58, 2017.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from math import exp, log

from accel.hardware.library import DEFAULT, Library

BASE_NODE_NM = 45  #: node of the MAC laws and unit energies


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicScale:
    """Factors that take area and energy of logic to another node and supply voltage.

    Attributes
    ----------
    area, energy
        Multiply um2, and pJ at 0.9 V.
    scaled
        False only where nothing was scaled: an estimate otherwise.
    """

    area: float
    energy: float
    scaled: bool


@lru_cache(maxsize=1024)
def logic_scale(
    node_nm: int,
    voltage_v: float | None = None,
    *,
    from_nm: int = BASE_NODE_NM,
    library: Library = DEFAULT,
) -> LogicScale:
    """Factors from `from_nm` at 0.9 V to `node_nm` at `voltage_v` [Stillmaker17]_.

    ``E(node, V) = E(from, 0.9) P_node(V) / P_from(0.9)`` with the node's ``P = a2 V^2 + a1 V + a0``;
    between two tabled nodes, log-log interpolation.

    Parameters
    ----------
    node_nm
        7..130 nm, or as far as the library's table goes.
    voltage_v
        Supply voltage, 0.6..1.1 V; the library's own, 0.9 V, if absent.
    from_nm
        Node of the constants to be scaled.

    Raises
    ------
    ValueError
        A node or the voltage is outside the table; the message names the range.

    Examples
    --------
    >>> scale = logic_scale(7)
    >>> round(scale.area, 3), round(scale.energy, 4), scale.scaled
    (0.059, 0.1024, True)
    >>> round(logic_scale(45, 0.7).energy, 3)  # 0.7^2 / 0.9^2 is 0.605: leakage and short circuits stay
    0.668
    """
    data = library.section("technology")
    reference_v, volts = data["reference_voltage_v"], data["voltage_v"] if voltage_v is None else voltage_v
    lowest, highest = data["lowest_voltage_v"], data["highest_voltage_v"]
    if not lowest <= volts <= highest:
        raise ValueError(f"voltage_v must be in {lowest:g}..{highest:g}, got {volts:g}")
    if node_nm == from_nm and volts == reference_v:
        return LogicScale(area=1.0, energy=1.0, scaled=False)
    area, energy = _relative(node_nm, volts, library)
    from_area, from_energy = _relative(from_nm, reference_v, library)
    return LogicScale(area=area / from_area, energy=energy / from_energy, scaled=True)


def logic_nodes(node_nm: int, *, library: Library = DEFAULT) -> tuple[int, ...]:
    """Node of the table that is `node_nm`, or the two around it, ascending.

    Raises
    ------
    ValueError
        The node is outside the table; the message names the range.
    """
    nodes = sorted(int(node) for node in library.section("technology")["nodes"])
    if not nodes[0] <= node_nm <= nodes[-1]:
        raise ValueError(f"node_nm must be in {nodes[0]}..{nodes[-1]}, got {node_nm}")
    above = bisect_left(nodes, node_nm)
    return (node_nm,) if nodes[above] == node_nm else (nodes[above - 1], nodes[above])


def _relative(node_nm: int, volts: float, library: Library) -> tuple[float, float]:
    """Area and energy in the table's relative units."""
    rows = library.section("technology")["nodes"]
    nodes = logic_nodes(node_nm, library=library)
    found = []
    for node in nodes:
        row = rows[str(node)]
        found.append((log(row["area_factor"]), log((row["a2"] * volts + row["a1"]) * volts + row["a0"])))
    (area, energy), *above = found
    if above:
        weight = log(node_nm / nodes[0]) / log(nodes[1] / nodes[0])
        area += weight * (above[0][0] - area)
        energy += weight * (above[0][1] - energy)
    return exp(area), exp(energy)
