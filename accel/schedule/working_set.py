"""The smallest scratchpad on which every operator of a workload can run with all its tensors there."""

from __future__ import annotations

from collections.abc import Collection

from accel.schedule._weights import Weights, plan_weights
from accel.workload import Operator, Workload


class WorkingSetError(ValueError):
    """The scratchpad cannot hold what one operator reads and writes."""


def working_set_minimum(
    graph: Workload,
    *,
    weights: Weights = "streamed",
    resident: Collection[str] | None = None,
    alignment: int = 1,
) -> int:
    """Bytes of the smallest scratchpad on which every operator of `graph` can run: M_R.

    An operator in place needs no room for its output where one of its inputs is dead afterwards in
    every order, that is, where all other readers of the input come before it.

    Parameters
    ----------
    weights, resident
        What becomes of parameters, see :func:`accel.schedule.schedule`.
    alignment
        Sizes are rounded up to it.

    Raises
    ------
    ValueError
        An option is out of range.
    """
    return largest_working_set(graph, weights=weights, resident=resident, alignment=alignment)[0]


def largest_working_set(
    graph: Workload, *, weights: Weights, resident: Collection[str] | None, alignment: int
) -> tuple[int, str]:
    """Bytes of the largest working set with resident weights, and the first operator that has it."""
    plan = plan_weights(graph, weights, resident=resident, alignment=alignment)
    left_out = plan.left_out
    size = {
        name: 0 if name in left_out else -(-tensor.bytes // alignment) * alignment
        for name, tensor in graph.tensors.items()
    }
    before: dict[str, frozenset[str]] = {}
    if any(operator.in_place for operator in graph.operators):
        before = _ancestors(graph)
    best = (plan.resident_bytes, "")
    for operator in graph.operators:
        used = sum(size[name] for name in {*operator.inputs, *operator.outputs})
        if operator.in_place and _dies(graph, operator, size, before):
            used -= size[operator.outputs[0]]
        if plan.resident_bytes + used > best[0]:
            best = (plan.resident_bytes + used, operator.name)
    return best


def _dies(
    graph: Workload, operator: Operator, size: dict[str, int], before: dict[str, frozenset[str]]
) -> bool:
    """Whether an input whose block the output may take is dead afterwards in every order."""
    room = size[operator.outputs[0]]
    return any(
        size[name] >= room > 0
        and name not in graph.outputs
        and all(other is operator or other.name in before[operator.name] for other in graph.consumers[name])
        for name in operator.inputs
    )


def _ancestors(graph: Workload) -> dict[str, frozenset[str]]:
    """Names of the operators that must run before each operator."""
    found: dict[str, frozenset[str]] = {}
    for operator in graph.operators:
        makers = {graph.producer[name].name for name in operator.inputs if name in graph.producer}
        found[operator.name] = frozenset(makers).union(*(found[name] for name in makers))
    return found
