"""Off-chip traffic of schedules made by rules: what an optimal schedule is compared with.

A baseline is an order, a replacement rule and a way to find addresses. All of them have the semantics
and the accounting of :func:`accel.schedule.schedule` in atomic mode, so none moves less than an optimum.

Orders
    ``"default"`` is file order; ``"mpmf"`` an order of minimal peak, the first found.
Replacement
    Tensors that the operator does not use leave until there is room. ``"lru"``: the least recently used
    one, where operands count as used in operand order, then outputs. ``"belady"``: the one whose next use
    is furthest, of several the larger, then that used first in the file. ``"greedy"``: the set of least
    cost that frees enough, where a tensor costs its size, doubled if it has no off-chip copy yet; of
    several sets the one that frees most, then that of the tensors used first in the file.
Allocation
    ``"none"``: sizes add up, there are no addresses. ``"online"``: each block goes into its lowest hole and
    stays there. If no hole is large enough, one more tensor leaves by the same rule (for ``"greedy"`` the
    one of least cost); if none is left, the working set is relocated: moved through off-chip memory so
    that it lies contiguous from address 0, in the order of the addresses. A moved tensor costs its size
    if it has an off-chip copy, else twice, and has one then; an output not computed yet costs nothing.
    ``"offline"``: the address-free residency of the largest budget, at most the scratchpad, that
    largest-first placement into lowest holes can place; of equal sizes the longer stay goes first, then
    the earlier. A stay ends with its last use. A budget below a working set leaves nothing beside it;
    where even that has no placement, nothing is reused: the traffic is that of layer by layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from itertools import product
from time import perf_counter
from typing import Literal, TypeAlias, get_args

import pandas as pd

from accel._given import whole
from accel.schedule._instance import Instance
from accel.schedule._options import one_of
from accel.schedule._rules.placement import replace_and_place
from accel.schedule._rules.replacement import Event, EventKind, Replacement, replace_by_rule
from accel.schedule._running import room_of
from accel.schedule._weights import WeightPlan, Weights, plan_weights
from accel.schedule.peak import minimal_peak_order
from accel.schedule.working_set import WorkingSetError, check_room
from accel.workload import Workload

BaselineOrder: TypeAlias = Literal["default", "mpmf"]
Allocation: TypeAlias = Literal["none", "online", "offline"]

ORDER_TIME_LIMIT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineEvent:
    """What happens to the block of a tensor.

    Attributes
    ----------
    step
        The operator before which it happens.
    kind
        ``"load"``: the first of a graph input. ``"overwrite"``: an output takes the address of a dead
        input. ``"spill"``: the first store of a tensor whose store is not compulsory. ``"evict"`` and
        ``"free"`` end a stay, with and without later use. ``"move"``: to `address` by relocation.
    address
        ``None`` where memory has no addresses.
    noncompulsory_bytes
        Traffic that it causes.
    """

    step: int
    kind: EventKind
    tensor: str
    address: int | None
    noncompulsory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """Traffic of one baseline.

    Attributes
    ----------
    order, replacement, allocation
        The rules; layer by layer is a replacement of its own.
    spilled_bytes, refetched_bytes, relocated_bytes
        Parts of the non-compulsory traffic.
    relocations
        Times that a working set was relocated.
    compulsory_bytes
        First loads of graph inputs, parameters among them, and stores of graph outputs.
    operators
        In the order they run.
    events
        All that happened, to replay it; none layer by layer.
    """

    order: BaselineOrder
    replacement: Replacement | Literal["layer-by-layer"]
    allocation: Allocation
    spilled_bytes: int
    refetched_bytes: int
    relocated_bytes: int
    relocations: int
    compulsory_bytes: int
    operators: tuple[str, ...] = field(repr=False)
    events: tuple[BaselineEvent, ...] = field(repr=False)

    @property
    def noncompulsory_bytes(self) -> int:
        """What an optimal schedule minimises."""
        return self.spilled_bytes + self.refetched_bytes + self.relocated_bytes

    @property
    def offchip_bytes(self) -> int:
        """All bytes moved to and from off-chip memory."""
        return self.compulsory_bytes + self.noncompulsory_bytes


def baseline(
    graph: Workload,
    scratchpad_bytes: int,
    *,
    order: BaselineOrder = "default",
    replacement: Replacement = "belady",
    allocation: Allocation = "online",
    weights: Weights = "streamed",
    resident: Collection[str] | None = None,
    alignment: int = 1,
) -> Baseline:
    """Traffic of `graph` under one combination of rules, see the top of this module.

    Parameters
    ----------
    weights, resident, alignment
        As in :func:`accel.schedule.schedule`.

    Raises
    ------
    WorkingSetError
        An operator alone needs more than the scratchpad has.
    TypeError, ValueError
        An option is of the wrong kind, or out of range.

    Examples
    --------
    >>> from accel.workload import Operator, Tensor
    >>> tensors = {
    ...     name: Tensor(name=name, shape=(size,), role="activation", format="int8")
    ...     for name, size in {"x": 1, "a": 2, "b": 3, "c": 3, "d": 2}.items()
    ... }
    >>> edges = (("x",), "a"), (("a",), "b"), (("b",), "c"), (("a", "c"), "d")
    >>> steps = tuple(Operator(name=out, kind="op", inputs=read, outputs=(out,)) for read, out in edges)
    >>> graph = Workload(name="skip", operators=steps, tensors=tensors, inputs=("x",), outputs=("d",))
    >>> found = baseline(graph, 7)  # a leaves to make room for c, and comes back
    >>> found.spilled_bytes, found.refetched_bytes, found.relocations, found.offchip_bytes
    (2, 2, 0, 7)
    """
    for name, value, allowed in (
        ("order", order, BaselineOrder),
        ("replacement", replacement, Replacement),
        ("allocation", allocation, Allocation),
    ):
        one_of(name, value, get_args(allowed))
    setting = _Setting(graph, scratchpad_bytes, weights, resident, alignment)
    if (needed := setting.needed_bytes(order)) > scratchpad_bytes:
        raise WorkingSetError(
            f"scratchpad_bytes must be at least {needed} with order {order!r}, got {scratchpad_bytes}"
        )
    return setting.baseline(order, replacement, allocation)


def layer_by_layer(
    graph: Workload,
    *,
    weights: Weights = "streamed",
    resident: Collection[str] | None = None,
    alignment: int = 1,
) -> Baseline:
    """Traffic without any reuse: every operator loads all it reads and stores all that is read later."""
    plan = plan_weights(graph, weights, resident=resident, alignment=alignment)
    instance = plan.instance(graph, fixed_order=False)
    return _layer_by_layer(instance, _compulsory_bytes(graph, plan, instance))


def baselines(
    graph: Workload,
    scratchpad_bytes: int,
    *,
    weights: Weights = "streamed",
    resident: Collection[str] | None = None,
    alignment: int = 1,
) -> pd.DataFrame:
    """Table of every combination of rules, and of layer by layer in the last row.

    Rules in an order that needs more room than there is are left out; operators in place can need room for
    their results in one order and not in another.

    Returns
    -------
    Columns are order, replacement, allocation, noncompulsory_bytes, spilled_bytes, refetched_bytes,
    relocated_bytes, relocations, compulsory_bytes and offchip_bytes.

    Raises
    ------
    WorkingSetError
        An operator alone needs more than the scratchpad has.
    TypeError, ValueError
        An option is of the wrong kind, or out of range.
    """
    setting = _Setting(graph, scratchpad_bytes, weights, resident, alignment)
    orders = [order for order in get_args(BaselineOrder) if setting.needed_bytes(order) <= scratchpad_bytes]
    choices = product(orders, get_args(Replacement), get_args(Allocation))
    found = [setting.baseline(*choice) for choice in choices]
    found.append(_layer_by_layer(setting.instance, setting.compulsory_bytes))
    columns = ["order", "replacement", "allocation", "noncompulsory_bytes", "spilled_bytes"]
    columns += ["refetched_bytes", "relocated_bytes", "relocations", "compulsory_bytes", "offchip_bytes"]
    return pd.DataFrame([[getattr(row, name) for name in columns] for row in found], columns=columns)


class _Setting:
    """A graph on a scratchpad; what several baselines share is computed once."""

    def __init__(
        self,
        graph: Workload,
        scratchpad_bytes: int,
        weights: Weights,
        resident: Collection[str] | None,
        alignment: int,
    ) -> None:
        scratchpad_bytes = whole("scratchpad_bytes", scratchpad_bytes)
        plan = plan_weights(graph, weights, resident=resident, alignment=alignment)
        check_room(graph, plan, scratchpad_bytes, order="free")
        self.instance = plan.instance(graph, scratchpad_bytes, fixed_order=False)
        self.compulsory_bytes = _compulsory_bytes(graph, plan, self.instance)
        self._base_bytes = plan.resident_bytes  # resident weights lie at the bottom
        self._minimal_peak: tuple[int, ...] | None = None

    def baseline(self, order: BaselineOrder, replacement: Replacement, allocation: Allocation) -> Baseline:
        """Run one combination."""
        instance, steps, relocations = self.instance, self._steps(order), 0
        if allocation == "offline":
            placed = replace_and_place(instance, steps, replacement)
            if placed is None:
                nothing = _layer_by_layer(instance, self.compulsory_bytes)
                return replace(nothing, order=order, replacement=replacement, allocation=allocation)
            events = placed
        else:
            addressed = allocation == "online"
            trace = replace_by_rule(instance, steps, instance.capacity, replacement, addressed=addressed)
            events, relocations = trace.events, trace.relocations
        charged: Counter[EventKind] = Counter()
        for event in events:
            charged[event.kind] += event.charged * instance.unit_bytes
        return Baseline(
            order=order,
            replacement=replacement,
            allocation=allocation,
            spilled_bytes=charged["spill"],
            refetched_bytes=charged["refetch"],
            relocated_bytes=charged["move"],
            relocations=relocations,
            compulsory_bytes=self.compulsory_bytes,
            operators=tuple(instance.operators[i] for i in steps),
            events=tuple(self._public(event, addressed=allocation != "none") for event in events),
        )

    def _steps(self, order: BaselineOrder) -> tuple[int, ...]:
        if order == "default":
            return tuple(range(len(self.instance.operators)))
        if self._minimal_peak is None:
            deadline_s = perf_counter() + ORDER_TIME_LIMIT_S
            self._minimal_peak = minimal_peak_order(self.instance, deadline_s=deadline_s).order
        return self._minimal_peak

    def needed_bytes(self, order: BaselineOrder) -> int:
        """Scratchpad on which the operators can run in that order."""
        return self._base_bytes + room_of(self.instance, self._steps(order)) * self.instance.unit_bytes

    def _public(self, event: Event, *, addressed: bool) -> BaselineEvent:
        unit = self.instance.unit_bytes
        return BaselineEvent(
            step=event.step,
            kind=event.kind,
            tensor=self.instance.tensors[event.tensor],
            address=self._base_bytes + event.address * unit if addressed else None,
            noncompulsory_bytes=event.charged * unit,
        )


def _compulsory_bytes(graph: Workload, plan: WeightPlan, instance: Instance) -> int:
    """First loads of graph inputs that are read and of streamed weights, and stores of graph outputs."""
    moved = sum(
        size
        for size, is_input, is_output in zip(
            instance.size, instance.is_input, instance.is_output, strict=True
        )
        if is_input or is_output
    )
    streamed = sum(plan.rounded(graph.tensors[name]) for name in plan.streamed)
    return moved * instance.unit_bytes + streamed


def _layer_by_layer(instance: Instance, compulsory_bytes: int) -> Baseline:
    spilled = refetched = 0
    for size, is_input, backed, readers in zip(
        instance.size, instance.is_input, instance.always_backed, instance.consumers, strict=True
    ):
        spilled += size * (not backed and len(readers) > 0)
        refetched += size * (len(readers) - is_input)
    return Baseline(
        order="default",
        replacement="layer-by-layer",
        allocation="none",
        spilled_bytes=spilled * instance.unit_bytes,
        refetched_bytes=refetched * instance.unit_bytes,
        relocated_bytes=0,
        relocations=0,
        compulsory_bytes=compulsory_bytes,
        operators=instance.operators,
        events=(),
    )
