"""What a workload costs on a design: energy, cycles, bytes and area, each with its parts.

Energy is in picojoules at 0.9 V, area in um2, time in cycles of the design's clock. Leaves are
rounded to one common quantum, about 1e-15 of their total, so that sums over components, levels,
operators, phases and kinds all give the same total, in any order, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import frexp, isnan, ldexp
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from accel.mapping.tiling import Tiling
from accel.workload import Phase

if TYPE_CHECKING:
    import pandas as pd

#: Where energy goes:
#:
#: - ``mac``: products and sums in the array
#: - ``registers``: operands passed from cell to cell and the partial sum handed on, per product
#: - ``accumulator``: the partial-sum buffer; sums written, read back, spilled and drained
#: - ``scratchpad``: the array's and the vector unit's accesses, off-chip fills and drains
#: - ``vector``: element-wise arithmetic
#: - ``offchip``: the off-chip memory and its interface
#: - ``leakage``: both on-chip memories
COMPONENTS = ("mac", "registers", "accumulator", "scratchpad", "vector", "offchip", "leakage")

#: What the cycles of an operator are spent on: arithmetic of the longer of array and vector unit;
#: then what the ports of a memory, and last what off-chip transfers, add to it.
CYCLE_PARTS = ("array", "vector", "scratchpad", "accumulator", "offchip")

LEVELS = ("offchip", "scratchpad", "accumulator", "registers")  #: memories, outermost first
OPERANDS = ("input", "weight", "output", "partial_sum", "other")  #: what a memory moves

Grouping: TypeAlias = Literal["component", "level", "operand", "operator", "phase", "kind"]
Access: TypeAlias = tuple[float, float]  # bytes read, bytes written

_LEVEL_OF = {
    "mac": "arithmetic",
    "vector": "arithmetic",
    "registers": "registers",
    "accumulator": "accumulator",
    "scratchpad": "scratchpad",
    "offchip": "offchip",
    "leakage": "leakage",
}


class InfeasibleError(ValueError):
    """A number was asked of a design that cannot run the workload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A constraint that a design breaks, and by how much.

    Attributes
    ----------
    constraint
        Key of the design, such as ``scratchpad_bytes``, or ``clock_mhz``.
    needed, available
        In `unit`.
    where
        The operator or the part that needs it.

    Examples
    --------
    >>> print(Violation(constraint="scratchpad_bytes", needed=4608, available=2048, unit="bytes", where="fc"))
    fc needs 4608 bytes, scratchpad_bytes gives 2048: 2560 bytes short
    """

    constraint: str
    needed: float
    available: float
    unit: str
    where: str

    @property
    def short(self) -> float:
        """By how much the need exceeds what is available."""
        return abs(self.needed - self.available)

    def __str__(self) -> str:
        return (
            f"{self.where} needs {self.needed:g} {self.unit}, {self.constraint} gives "
            f"{self.available:g}: {self.short:g} {self.unit} short"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorCost:
    """One operator of the run.

    Attributes
    ----------
    tiling
        Of its matrix product, ``None`` where it has none.
    array_cycles, vector_cycles, scratchpad_cycles, accumulator_cycles, offchip_cycles
        What each part needs for itself.
    cycles
        Those of the operator, with the overlap of the design.
    traffic
        Bytes read and written by (level, operand), of :data:`LEVELS` and :data:`OPERANDS`.
    energy_pj
        By component, all of :data:`COMPONENTS`.
    """

    name: str
    kind: str
    phase: Phase
    macs: int
    tiling: Tiling | None
    array_cycles: int
    vector_cycles: int
    scratchpad_cycles: int
    accumulator_cycles: int
    offchip_cycles: int
    cycles: int
    traffic: Mapping[tuple[str, str], Access]
    energy_pj: Mapping[str, float]

    @property
    def bound(self) -> str:
        """The part that takes longest, one of :data:`CYCLE_PARTS`."""
        return max(CYCLE_PARTS, key=lambda part: getattr(self, f"{part}_cycles"))

    @property
    def cycle_parts(self) -> Mapping[str, int]:
        """Cycles by what they are spent on, see :data:`CYCLE_PARTS`."""
        busy = max(self.array_cycles, self.vector_cycles)
        ports = max(busy, self.scratchpad_cycles, self.accumulator_cycles)
        parts = dict.fromkeys(CYCLE_PARTS, 0)
        parts["array" if self.array_cycles >= self.vector_cycles else "vector"] = busy
        slower = "scratchpad" if self.scratchpad_cycles >= self.accumulator_cycles else "accumulator"
        parts[slower] = ports - busy
        parts["offchip"] = self.cycles - ports
        return MappingProxyType(parts)

    @property
    def offchip_bytes(self) -> int:
        """Bytes to and from off-chip memory."""
        return int(sum(sum(moved) for (level, _), moved in self.traffic.items() if level == "offchip"))

    @property
    def total_pj(self) -> float:
        """Energy of the operator."""
        return sum(self.energy_pj.values())


@dataclass(frozen=True, kw_only=True, repr=False)
class Cost:
    """What one workload costs on one design; totals are derived, so they agree with their parts.

    Attributes
    ----------
    run
        Operators in the order in which they run; empty if the design is infeasible.
    area_um2
        By component: ``array``, ``vector``, ``scratchpad``, ``accumulator``, ``overhead``.
    cells, clock_mhz, offchip_bytes_per_cycle
        Of the design.
    violations
        Why the design cannot run the workload, with by how much; empty if it can.
    timing
        Parts that need longer than a cycle of the clock. The design runs, if it is built otherwise
        than assumed: with a pipelined cell (``mac_stages``) or a memory of more, smaller banks.
    estimates
        Numbers that rest on no measurement or reference run: scaled nodes, recalled energies.
    replaced
        What a user's own tables replace of the built-in ones.
    """

    run: tuple[OperatorCost, ...]
    area_um2: Mapping[str, float]
    cells: int
    clock_mhz: float
    offchip_bytes_per_cycle: float
    violations: tuple[Violation, ...] = ()
    timing: tuple[Violation, ...] = ()
    estimates: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()

    def __repr__(self) -> str:
        if self.violations:
            return f"Cost(infeasible: {'; '.join(map(str, self.violations))})"
        return (
            f"Cost({self.cycles:,} cycles in {self.seconds * 1e3:.4g} ms, "
            f"{self.total_energy_pj * 1e-9:.4g} mJ, {self.total_area_um2 * 1e-6:.4g} mm2, "
            f"{self.offchip_bytes:,} bytes off chip, utilization {self.utilization:.1%})"
        )

    @property
    def feasible(self) -> bool:
        """Whether the design can run the workload at all."""
        return not self.violations

    @property
    def operators(self) -> tuple[OperatorCost, ...]:
        """Operators in the order in which they run.

        Raises
        ------
        InfeasibleError
            The design cannot run the workload; so for every total below but the area.
        """
        if self.violations:
            raise InfeasibleError(f"the design cannot run the workload: {self.violations[0]}")
        return self.run

    @property
    def cycles(self) -> int:
        """Cycles of the whole run."""
        return sum(operator.cycles for operator in self.operators)

    @property
    def seconds(self) -> float:
        """Run time."""
        return self.cycles / (self.clock_mhz * 1e6)

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return sum(operator.macs for operator in self.operators)

    @property
    def utilization(self) -> float:
        """Share of the array's cell cycles that did a multiply-accumulate; 0 for an empty run."""
        return self.macs / (self.cells * self.cycles) if self.cycles else 0.0

    @property
    def offchip_bytes(self) -> int:
        """Bytes to and from off-chip memory."""
        return sum(operator.offchip_bytes for operator in self.operators)

    @property
    def energy_pj(self) -> Mapping[str, float]:
        """Energy by component, in picojoules."""
        return MappingProxyType(
            {part: sum(operator.energy_pj[part] for operator in self.operators) for part in COMPONENTS}
        )

    @property
    def energy_pj_by_operator(self) -> Mapping[str, float]:
        """Energy by operator, in picojoules."""
        return MappingProxyType({operator.name: operator.total_pj for operator in self.operators})

    @property
    def cycle_parts(self) -> Mapping[str, int]:
        """Cycles by what they are spent on, see :data:`CYCLE_PARTS`."""
        parts = [operator.cycle_parts for operator in self.operators]
        return MappingProxyType({name: sum(found[name] for found in parts) for name in CYCLE_PARTS})

    @property
    def total_energy_pj(self) -> float:
        """Energy of the whole run, in picojoules."""
        return sum(self.energy_pj.values())

    @property
    def total_area_um2(self) -> float:
        """Area of the whole design."""
        return sum(self.area_um2.values())

    @property
    def power_mw(self) -> float:
        """Mean power: energy over run time."""
        return self.total_energy_pj * 1e-9 / self.seconds if self.cycles else 0.0

    @property
    def tops_per_watt(self) -> float:
        """Two operations for each multiply-accumulate, over energy."""
        return 2 * self.macs / self.total_energy_pj if self.macs else 0.0

    def table(self) -> pd.DataFrame:
        """One row per operator in the order of the run; units are in the column names."""
        from accel.cost_tables import cost_table

        return cost_table(self)

    def traffic(self) -> pd.DataFrame:
        """Bytes read and written, one row for each operator, level and operand that moves any."""
        from accel.cost_tables import traffic_table

        return traffic_table(self)

    def breakdown(self, by: Grouping) -> pd.DataFrame:
        """Energy, cycles and off-chip bytes, grouped; each column adds up to its total exactly.

        Parameters
        ----------
        by
            ``"component"`` (cycles by :data:`CYCLE_PARTS`), ``"level"`` (bytes of every level),
            ``"operand"`` (bytes at every level), ``"operator"``, ``"phase"`` or ``"kind"``.
        """
        from accel.cost_tables import breakdown

        if by not in get_args(Grouping):
            raise ValueError(f"by must be one of {', '.join(get_args(Grouping))}; got {by!r}")
        return breakdown(self, by)

    def roofline(self) -> pd.DataFrame:
        """Per matrix product: intensity in MACs per off-chip byte, reached and attainable MACs per cycle."""
        from accel.cost_tables import roofline

        return roofline(self)

    @staticmethod
    def level_of(component: str) -> str:
        """Level at which a component spends energy: a memory, ``arithmetic`` or ``leakage``."""
        return _LEVEL_OF[component]


def exactly(values: Sequence[float]) -> list[float]:
    """Round to a multiple of one power of two, so that every sum of the values is exact, in any order.

    Examples
    --------
    >>> a, b, c = exactly([0.1, 0.2, 0.3])
    >>> (a + b) + c == a + (b + c)
    True
    """
    total = sum(abs(value) for value in values)
    if total == 0 or isnan(total):
        return list(values)
    quantum = ldexp(1.0, frexp(total)[1] - 51)
    return [round(value / quantum) * quantum for value in values]
