"""The best replacement in file order: what a cache that knows the future would move, without addresses."""

from __future__ import annotations

from collections.abc import Collection
from time import perf_counter

from accel.schedule._atomic.gap_model import replace_optimally
from accel.schedule._instance import build_instance
from accel.schedule._weights import Weights, plan_weights
from accel.schedule.working_set import WorkingSetError, largest_working_set
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
    ValueError
        An option is out of range.
    """
    if not time_limit_s > 0:
        raise ValueError(f"time_limit_s must be positive, got {time_limit_s}")
    minimum, where = largest_working_set(graph, weights=weights, resident=resident, alignment=alignment)
    if scratchpad_bytes < minimum:
        raise WorkingSetError(
            f"scratchpad_bytes must be at least {minimum}, the working-set minimum of operator {where}, "
            f"got {scratchpad_bytes}"
        )
    plan = plan_weights(graph, weights, resident=resident, alignment=alignment)
    instance = build_instance(
        graph,
        scratchpad_bytes // alignment * alignment - plan.resident_bytes,
        alignment=alignment,
        fixed_order=True,
        left_out=plan.left_out,
    )
    order = range(len(instance.operators))
    _, bound = replace_optimally(instance, order, deadline_s=perf_counter() + time_limit_s)
    return bound * instance.unit_bytes
