"""A plan of our own against the bound of a solver: what is cheaper than a bound shows that it is wrong."""

from __future__ import annotations

from time import perf_counter

from accel.schedule._atomic.beam import Options, Part, residency_of
from accel.schedule._instance import Instance
from accel.schedule._placement import place

#: Narrow, so that it takes a fraction of any solver's time, and the same on every machine.
_QUICK = Options(width=20, most_per_set=5, most_drops=3, foresight=30)


def refuse_bound_above_plan(instance: Instance, bound: int, *, is_joint: bool, name: str) -> None:
    """Compare `bound`, in units, with a quick plan; a bound that passes is still the solver's word.

    Parameters
    ----------
    is_joint
        Whether the bound is for plans with addresses; else a plan without them is enough against it.
    name
        Of the solver.

    Raises
    ------
    ValueError
        The plan costs less.
    """
    if bound <= 0:
        return
    found = Part(instance, range(len(instance.operators))).search(_QUICK, upper=bound)
    if found is None:
        return
    residency = residency_of(instance, found.moves)
    if is_joint and place(residency, deadline_s=perf_counter(), seed=0)[0] is None:
        return
    unit, kind = instance.unit_bytes, "a plan" if is_joint else "a plan without addresses"
    raise ValueError(
        f"solver {name} must return a bound that no plan is below, returned one of {bound * unit} bytes of "
        f"non-compulsory traffic, and there is {kind} of {residency.cost * unit}"
    )
