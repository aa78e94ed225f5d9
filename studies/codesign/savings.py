"""How the energy saved against float32 splits between formats, accumulator, hardware and schedule.

The start is full precision, layer by layer: float32 operands, storage and sums on the twin's hardware, every
operator fetching what it reads and storing what it makes. The end is the candidate with its optimal
schedule. In between, one thing changes at a time; what a change saves depends on what was changed before, so
that its share is the mean over all orders, the value of [Shapley53]_: the shares add up to the whole.

References
----------
.. [Shapley53] L. S. Shapley, "A Value for n-Person Games", Contributions to the Theory of Games II, 1953.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from accel import Design
from numerics import BINARY32, Accumulator
from studies.codesign.pricing import HARDWARE, Parameters, Pricing, Storage, accumulator_of
from studies.codesign.schedules import layer_by_layer

#: What changes: how tensors are stored and multiplied, how products are added, on what, and in which order.
FACTORS = ("formats", "accumulator", "hardware", "schedule")


@dataclass(frozen=True, slots=True)
class Savings:
    """Energy of one training step, from full precision to a candidate.

    Attributes
    ----------
    start_pj, end_pj
        Of full precision layer by layer, and of the candidate.
    saved_pj
        By factor: the mean over all orders of what its change saves; negative if it costs.
    least_pj, most_pj
        By factor: over the orders.
    enlarged
        Combinations whose scratchpad had to be enlarged to hold one operator's tensors.
    """

    start_pj: float
    end_pj: float
    saved_pj: Mapping[str, float]
    least_pj: Mapping[str, float]
    most_pj: Mapping[str, float]
    enlarged: int

    def share(self, factor: str) -> float:
        """Part of the whole saving that is this factor's."""
        return self.saved_pj[factor] / (self.start_pj - self.end_pj)


def savings_of(pricing: Pricing, parameters: Parameters, twin: Design) -> Savings:
    """Split what a candidate saves.

    Parameters
    ----------
    twin
        Hardware of full precision, see `Pricing.full_precision`.

    Notes
    -----
    Wide tensors may not fit a narrow candidate's scratchpad. In such a combination the scratchpad is the next
    power of two that holds the tensors of every operator.
    """
    enlarged: set[frozenset[str]] = set()

    def energy_pj(changed: frozenset[str]) -> float:
        storage = pricing.storage(parameters) if "formats" in changed else Storage.uniform(BINARY32)
        accumulator = accumulator_of(parameters) if "accumulator" in changed else Accumulator(BINARY32)
        hardware = {
            name: parameters[name] if "hardware" in changed else getattr(twin, name) for name in HARDWARE
        }
        if (least := pricing.working_set(storage)) > hardware["scratchpad_bytes"]:
            hardware["scratchpad_bytes"] = 1 << (least - 1).bit_length()
            enlarged.add(changed)
        design = pricing.design_of(storage, accumulator, hardware)
        size = design.scratchpad_bytes
        plan = None if "schedule" in changed else layer_by_layer(pricing.workload(storage), size)
        return pricing.price(design, storage, plan=plan).total_energy_pj

    start, end, gains = split(energy_pj, FACTORS)
    return Savings(
        start_pj=start,
        end_pj=end,
        saved_pj={factor: sum(found) / len(found) for factor, found in gains.items()},
        least_pj={factor: min(found) for factor, found in gains.items()},
        most_pj={factor: max(found) for factor, found in gains.items()},
        enlarged=len(enlarged),
    )


def split(
    value: Callable[[frozenset[str]], float], factors: Sequence[str]
) -> tuple[float, float, dict[str, list[float]]]:
    """Value with nothing changed and with everything, and by factor what it saves in each order.

    Parameters
    ----------
    value
        Of the set of changed factors; asked once for each of the ``2 ** len(factors)`` sets.

    Examples
    --------
    >>> start, end, gains = split(lambda changed: 8.0 / 2 ** len(changed), ("a", "b"))
    >>> start, end, gains
    (8.0, 2.0, {'a': [4.0, 2.0], 'b': [2.0, 4.0]})
    """
    known: dict[frozenset[str], float] = {}

    def at(changed: frozenset[str]) -> float:
        if changed not in known:
            known[changed] = value(changed)
        return known[changed]

    gains: dict[str, list[float]] = {factor: [] for factor in factors}
    for order in permutations(factors):
        changed: frozenset[str] = frozenset()
        for factor in order:
            gains[factor].append(at(changed) - at(changed | {factor}))
            changed = changed | {factor}
    return at(frozenset()), at(frozenset(factors)), gains


def rows_of(savings: Savings) -> list[dict[str, Any]]:
    """One row per factor, the largest saving first: energy, share, and the span over the orders, in uJ."""
    return [
        {
            "factor": factor,
            "saved_uj": saved / 1e6,
            "share": savings.share(factor),
            "least_uj": savings.least_pj[factor] / 1e6,
            "most_uj": savings.most_pj[factor] / 1e6,
        }
        for factor, saved in sorted(savings.saved_pj.items(), key=lambda item: -item[1])
    ]
