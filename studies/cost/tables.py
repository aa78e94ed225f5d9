"""Numbers of a cost that the terminal, the page and the files share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from accel.cost import CYCLE_PARTS, Access, Cost, OperatorCost
from studies import units
from studies.cost.run import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A total.

    Attributes
    ----------
    name
        As it is shown.
    key
        In files, with its unit.
    value
        ``None`` where it does not apply, as the utilisation of a graph without products.
    of_design
        Whether a design that cannot run the workload has it, too.
    """

    name: str
    key: str
    value: Callable[[Cost], float | None]
    show: Callable[[float | None], str]
    of_design: bool = False

    def text(self, cost: Cost) -> str:
        """With unit and prefix."""
        return self.show(self.value(cost))


def _in(unit: str) -> Callable[[float | None], str]:
    return lambda value: units.si(value, unit)


METRICS = (
    Metric(name="energy", key="energy_pj", value=lambda cost: cost.total_energy_pj, show=units.energy),
    Metric(name="time", key="seconds", value=lambda cost: cost.seconds, show=_in("s")),
    Metric(
        name="area", key="area_um2", value=lambda cost: cost.total_area_um2, show=units.area, of_design=True
    ),
    Metric(name="mean power", key="power_w", value=lambda cost: cost.power_mw * 1e-3, show=_in("W")),
    Metric(name="cycles", key="cycles", value=lambda cost: cost.cycles, show=_in("cycles")),
    Metric(
        name="utilisation",
        key="utilization",
        value=lambda cost: cost.utilization if cost.macs else None,
        show=lambda value: units.share(value, 1.0),
    ),
    Metric(
        name="TOPS/W",
        key="tops_per_watt",
        value=lambda cost: cost.tops_per_watt if cost.macs else None,
        show=units.digits,
    ),
    Metric(
        name="TOPS",
        key="tops",
        value=lambda cost: 2e-12 * cost.macs / cost.seconds if cost.macs else None,
        show=units.digits,
    ),
    Metric(name="off-chip", key="offchip_bytes", value=lambda cost: cost.offchip_bytes, show=_in("B")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Operators that one part bounds.

    Attributes
    ----------
    part
        One of ``accel.cost.CYCLE_PARTS``.
    efficiency
        MACs per cycle reached over those that array and off-chip bandwidth allow, of its products
        together; ``None`` where there are none.
    """

    part: str
    operators: int
    macs: int
    cycles: int
    efficiency: float | None


def bounds(cost: Cost) -> list[Bound]:
    """Operators by what bounds them; parts that bound none are left out."""
    roofs = cost.roofline()
    found = []
    for part in CYCLE_PARTS:
        bound = [operator for operator in cost.operators if operator.bound == part]
        if not bound:
            continue
        rows = roofs[roofs["bound"] == part]
        products = [operator for operator in bound if operator.macs]
        least_cycles = sum(
            operator.macs / roof
            for operator, roof in zip(products, rows["attainable_macs_per_cycle"], strict=True)
        )
        cycles = sum(operator.cycles for operator in products)
        found.append(
            Bound(
                part=part,
                operators=len(bound),
                macs=sum(operator.macs for operator in bound),
                cycles=sum(operator.cycles for operator in bound),
                efficiency=least_cycles / cycles if products else None,
            )
        )
    return found


def utilization(operator: OperatorCost, cost: Cost) -> float | None:
    """Share of cell cycles with a multiply-accumulate; ``None`` without a product."""
    return operator.macs / (operator.cycles * cost.cells) if operator.macs else None


def traffic_by_level(cost: Cost) -> dict[tuple[str, str], Access]:
    """Bytes read and written by level and operand; what never moves is absent."""
    found: dict[tuple[str, str], Access] = {}
    for operator in cost.operators:
        for key, (read, written) in operator.traffic.items():
            before = found.get(key, (0.0, 0.0))
            found[key] = (before[0] + read, before[1] + written)
    return found


def layers(answer: Answer) -> pd.DataFrame:
    """One row per design and operator in the order of the run; units are in the column names."""
    tables = []
    for priced in answer.designs:
        if not priced.cost.feasible:
            continue
        table = priced.cost.table()
        used = [utilization(operator, priced.cost) for operator in priced.cost.operators]
        table.insert(0, "design", priced.name)
        table.insert(list(table.columns).index("bound") + 1, "utilization", used)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
