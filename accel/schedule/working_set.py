"""The smallest scratchpad on which every operator of a workload can run with all its tensors there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from accel.schedule._options import one_of
from accel.schedule._running import least_room
from accel.schedule._weights import WeightPlan, Weights, plan_weights
from accel.workload import Workload

Order: TypeAlias = Literal["free", "given"]


class WorkingSetError(ValueError):
    """The scratchpad cannot hold what one operator reads and writes."""


@dataclass(frozen=True, slots=True)
class WorkingSet:
    """The smallest scratchpad in bytes, and the operator that needs it (empty if resident weights do)."""

    bytes: int
    operator: str


def working_set_minimum(
    graph: Workload,
    *,
    weights: Weights = "streamed",
    resident: Collection[str] | None = None,
    alignment: int = 1,
    order: Order = "free",
) -> int:
    """Bytes of the smallest scratchpad on which every operator of `graph` can run: M_R.

    An operator in place needs no room for its output where it is the last to read one of its inputs.

    Parameters
    ----------
    weights, resident
        What becomes of parameters, see :func:`accel.schedule.schedule`.
    alignment
        Sizes are rounded up to it.
    order
        ``"free"``: of the best order, which matters to operators in place alone; ``"given"``: in file
        order.

    Raises
    ------
    ValueError
        An option is out of range.
    """
    plan = plan_weights(graph, weights, resident=resident, alignment=alignment)
    one_of("order", order, get_args(Order))
    return largest_working_set(graph, plan, order=order).bytes


def largest_working_set(graph: Workload, plan: WeightPlan, *, order: Order) -> WorkingSet:
    """Working-set minimum with resident weights, and the operator that needs it."""
    instance = plan.instance(graph, fixed_order=order == "given")
    found = least_room(instance)
    where = "" if found.operator is None else instance.operators[found.operator]
    return WorkingSet(plan.resident_bytes + found.units * instance.unit_bytes, where)


def check_room(graph: Workload, plan: WeightPlan, scratchpad_bytes: int, *, order: Order) -> None:
    """Refuse a scratchpad on which not every operator can run.

    Raises
    ------
    WorkingSetError
        It is below the working-set minimum.
    """
    least = largest_working_set(graph, plan, order=order)
    if scratchpad_bytes < least.bytes:
        beside = f" beside {plan.resident_bytes} bytes of resident weights" if plan.resident_bytes else ""
        in_order = ""
        if order == "given" and least.bytes > largest_working_set(graph, plan, order="free").bytes:
            in_order = " in file order"
        raise WorkingSetError(
            f"scratchpad_bytes must be at least {least.bytes}, the working-set minimum{in_order}: operator "
            f"{least.operator} needs {least.bytes - plan.resident_bytes} bytes at once{beside}; got "
            f"{scratchpad_bytes}; mode='streamed' has no such limit"
        )
