"""The best replacement in file order: what a cache that knows the future would move, without addresses."""

from __future__ import annotations

from collections.abc import Collection
from time import perf_counter

from accel._given import whole
from accel.schedule._atomic.gap_model import replace_optimally
from accel.schedule._options import seconds
from accel.schedule._weights import Weights, plan_weights
from accel.schedule.working_set import check_room
from accel.workload import Workload


def replacement_minimum(
    graph: Workload,
    scratchpad_bytes: int,
    *,
    weights: Weights = "streamed",
    resident: Collection[str] | None = None,
    alignment: int = 1,
    time_limit_s: float = 60.0,
) -> int:
    """Least non-compulsory bytes in file order if only the sum of resident sizes has to fit.

    Every baseline in file order moves at least as much, placed or not. Where the time runs out, the
    result is a lower bound.

    Parameters
    ----------
    weights, resident
        What becomes of parameters, see :func:`accel.schedule.schedule`.
    alignment
        Sizes are rounded up to it.

    Raises
    ------
    WorkingSetError
        An operator alone needs more than the scratchpad has.
    TypeError, ValueError
        An option is of the wrong kind, or out of range.
    """
    time_limit_s = seconds(time_limit_s)
    scratchpad_bytes = whole("scratchpad_bytes", scratchpad_bytes)
    plan = plan_weights(graph, weights, resident=resident, alignment=alignment)
    check_room(graph, plan, scratchpad_bytes, order="given")
    instance = plan.instance(graph, scratchpad_bytes, fixed_order=True)
    order = range(len(instance.operators))
    _, bound = replace_optimally(instance, order, deadline_s=perf_counter() + time_limit_s)
    return bound * instance.unit_bytes
