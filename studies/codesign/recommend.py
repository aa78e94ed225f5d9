"""Three designs of a campaign that an architect would look at first, and what limits each.

What limits a design is computed: its time from the cost model's cycles by part, its traffic from the
schedule, and its accuracy from the calibrated theory of sums (``numerics.theory``): an accumulator limits
where rounding in it adds more error than the operand formats do already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from accel import Cost, Phase
from accel.schedule import Schedule
from numerics.theory import required_bits
from studies.codesign.pricing import Parameters, Pricing, Storage

if TYPE_CHECKING:
    from studies.codesign.campaign import Result

MARGIN = 0.01  #: of full precision's metric, within which a design counts as as good

_LITTLE = 0.005  # of the off-chip bytes, that may come back without being named a limit

_PARTS = {
    "array": "compute (the array)",
    "vector": "compute (the vector unit)",
    "scratchpad": "scratchpad ports",
    "accumulator": "accumulator ports",
    "offchip": "off-chip bandwidth",
}


@dataclass(frozen=True, slots=True)
class Sum:
    """The sums of one product of a training step, and the bits they need.

    Attributes
    ----------
    operator
        Name of the product.
    length
        Products in a sum.
    bits
        Fraction bits with which rounding the sums adds no more error than rounding the operands did;
        ``None`` if no accumulator of the calibrated table has as many.
    """

    operator: str
    length: int
    bits: int | None

    @property
    def need(self) -> float:
        """Bits for comparisons."""
        return np.inf if self.bits is None else float(self.bits)


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds a design back.

    Attributes
    ----------
    time
        Share of the cycles by part of the machine, the largest first.
    energy
        Share of the energy by component, the largest first.
    avoidable
        Share of the off-chip bytes that a larger scratchpad would save.
    frac_bits
        Of the accumulator.
    worst
        The sums that need the most bits.
    short
        How many of all products have sums that need more bits than there are.
    products
        How many products there are.
    """

    time: Mapping[str, float]
    energy: Mapping[str, float]
    avoidable: float
    frac_bits: int
    worst: Sum
    short: int
    products: int

    def lines(self) -> tuple[str, ...]:
        """In words: time, energy, traffic, accuracy."""
        part, share = next(iter(self.time.items()))
        component, energy = next(iter(self.energy.items()))
        traffic = (
            f"traffic: scratchpad, {100 * self.avoidable:.0f} % of the off-chip bytes go out and come back"
            if self.avoidable >= _LITTLE
            else "traffic: compulsory, no larger scratchpad saves any to speak of"
        )
        need = "more than the 23 of the table" if self.worst.bits is None else f"{self.worst.bits}"
        of = (
            f"{self.worst.operator} sums {self.worst.length} products and needs {need} fraction bits, "
            f"there are {self.frac_bits}"
        )
        accuracy = (
            f"accuracy: accumulator precision, {self.short} of {self.products} products are short of bits: "
            f"{of}"
            if self.short
            else f"accuracy: operand formats, the accumulator adds less error than they do: {of}"
        )
        return (
            f"time: {_PARTS.get(part, part)}, {100 * share:.0f} % of the cycles",
            f"energy: {component}, {100 * energy:.0f} %",
            traffic,
            accuracy,
        )


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A design that was evaluated, and why it is shown.

    Attributes
    ----------
    title
        Such as ``"cheapest within 1 % of full precision"``.
    row
        Of the table of evaluations.
    parameters
        Of the design.
    saving
        Energy of the full-precision twin over that of the design.
    """

    title: str
    row: dict[str, Any]
    parameters: Parameters
    saving: float
    limits: Limits


def recommended(result: Result) -> list[Recommendation]:
    """Cheapest as good as full precision, knee of the front, and most accurate; those that there are."""
    quality = result.quality
    best = "most accurate" if quality.is_accuracy else f"best {quality.metric.name}"
    picks = [
        (f"cheapest within {100 * MARGIN:.0f} % of full precision", cheapest_within(result, MARGIN)),
        ("knee of the front", knee(result)),
        (best, most_accurate(result)),
    ]
    found = []
    for title, row in picks:
        if row is None:
            continue
        trial = next(trial for trial in result.trials if trial.id == row["id"])
        limits = limits_of(result.pricing, trial.parameters)
        saving = result.reference["energy_pj"] / row["energy_pj"]
        found.append(Recommendation(title, row, trial.parameters, saving, limits))
    return found


def cheapest_within(result: Result, share: float) -> dict[str, Any] | None:
    """Evaluated design of least energy whose metric is within a margin of the twin's.

    Of accuracy the margin is in points, of another metric it is a part.
    """
    quality = result.quality
    wanted = quality.worst_within(result.reference[quality.column], share)
    good = [quality.is_as_good(value, wanted) for value in result.done[quality.column]]
    return _cheapest(result.done[good])


def most_accurate(result: Result) -> dict[str, Any] | None:
    """Evaluated design of the best metric; of several, that of least training loss, then of least energy."""
    if result.done.empty:
        return None
    column = result.quality.column
    best = result.quality.best(result.done[column].tolist())
    ties = result.done[result.done[column] == result.done[column].iloc[best]]
    return _cheapest(ties[ties["training_loss"] == ties["training_loss"].min()])


def knee(result: Result) -> dict[str, Any] | None:
    """Design of the front that is furthest from the plane through the best of each objective.

    Objectives are compared as they are searched, each scaled to the front; designs worse than a threshold
    are of no interest. None if the front has fewer than three designs.
    """
    objectives = result.objectives
    front = result.front
    for objective in objectives:
        if objective.threshold is not None:
            front = front[front[objective.name] <= objective.threshold]
    if len(front) < 3:
        return None
    costs = np.column_stack(
        [objective.cost(front[objective.name].to_numpy(dtype=float)) for objective in objectives]
    )
    span = np.ptp(costs, axis=0)
    scaled = (costs - costs.min(axis=0)) / np.where(span > 0, span, 1.0)
    return _cells(front.iloc[int(scaled.sum(axis=1).argmin())])


def limits_of(pricing: Pricing, parameters: Parameters) -> Limits:
    """What holds a candidate back."""
    cost = pricing.cost(parameters)
    storage = pricing.storage(parameters)
    plan = pricing.schedule(storage, parameters["scratchpad_bytes"])
    sums = sums_of(pricing, parameters)
    frac_bits = parameters["accumulator_frac_bits"]
    return Limits(
        time=_shares(cost.cycle_parts),
        energy=_shares(cost.energy_pj),
        avoidable=_avoidable(cost, plan),
        frac_bits=frac_bits,
        worst=max(sums, key=lambda found: (found.need, found.length)),
        short=sum(found.need > frac_bits for found in sums),
        products=len(sums),
    )


def sums_of(pricing: Pricing, parameters: Parameters) -> list[Sum]:
    """Bits that the sums of every product of a training step need, in the order of the graph."""
    storage, chunk = pricing.storage(parameters), parameters["chunk"] or None
    found = []
    for operator in pricing.step.gemms():
        assert operator.gemm is not None  # the graph lists it among its products
        length = operator.gemm.k
        try:
            bits: int | None = int(
                required_bits(
                    length,
                    _product_bits(storage, operator.phase),
                    chunk=chunk,
                    rule="emulated",
                    minimum=1,
                )
            )
        except ValueError:  # more than the table has
            bits = None
        found.append(Sum(operator.name, length, bits))
    return found


def _product_bits(storage: Storage, phase: Phase) -> int:
    """Fraction bits of the exact products of a phase."""
    other = storage.operand if phase is Phase.FORWARD else storage.error
    return storage.operand.frac_bits + other.frac_bits + 1


def _shares(parts: Mapping[str, float]) -> dict[str, float]:
    total = sum(parts.values())
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    return {name: value / total for name, value in ordered}


def _avoidable(cost: Cost, plan: Schedule) -> float:
    return plan.noncompulsory_bytes / cost.offchip_bytes if cost.offchip_bytes else 0.0


def _cheapest(rows: pd.DataFrame) -> dict[str, Any] | None:
    return None if rows.empty else _cells(rows.iloc[int(rows["energy_pj"].argmin())])


def _cells(row: pd.Series[Any]) -> dict[str, Any]:
    return {str(name): value for name, value in row.items()}
