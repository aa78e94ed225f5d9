"""A schedule in time: its operators and transfers on compute units and DMA channels.

A plan counts bytes; here they take time. Operators are tasks for compute units and transfers tasks for
DMA channels, in a discrete-event simulation of queues (:func:`run_tasks`). What each task waits for
follows from data and memory alone, see ``accel.schedule._queues.schedule_graph``; the rest is the policy's.
:func:`open_queue` runs the same queues under random load, for comparison with queueing theory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from math import ceil, inf
from operator import index
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

import numpy as np
import pandas as pd

from accel._given import whole
from accel.schedule._queues.open_queue import open_queue
from accel.schedule._queues.schedule_graph import Cause, TaskGraph, task_graph
from accel.schedule._queues.tasks import (
    POLICIES,
    Policy,
    Server,
    Task,
    Trace,
    check_servers,
    run_indexed,
    run_tasks,
)
from accel.schedule.plan import Schedule, Transfer
from accel.workload import Operator

__all__ = [
    "POLICIES",
    "STALLS",
    "Channel",
    "Policy",
    "Resources",
    "Server",
    "Simulation",
    "Task",
    "Trace",
    "open_queue",
    "run_tasks",
    "simulate",
]

Direction: TypeAlias = Literal["in", "out", "both"]

#: Cycles of an operator, or by kind of compute unit where units differ.
Cycles: TypeAlias = int | Mapping[str, int]

#: Why time passes before an operator starts, see :attr:`Simulation.stalls`.
STALLS = ("data", "memory", "issue", "dma", "order", "unit", "end")

_EXACT = 2**53  # times are whole numbers in float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """DMA channels between off-chip memory and the scratchpad; each moves one tensor at a time.

    A transfer takes ``latency_cycles + ceil(bytes / bytes_per_cycle)`` cycles of its channel.

    Attributes
    ----------
    direction
        ``"in"`` to the scratchpad, ``"out"`` of it, or ``"both"``, one at a time.
    count
        Channels of that bandwidth each.

    Raises
    ------
    ValueError
        The bandwidth is not above 0 and finite, the latency below 0, the count below 1, or there is no
        such direction.
    """

    name: str = "dma"
    bytes_per_cycle: float
    latency_cycles: int = 0
    direction: Direction = "both"
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.bytes_per_cycle < inf:
            raise ValueError(
                f"bytes_per_cycle of channel {self.name} must be above 0 and finite, "
                f"got {self.bytes_per_cycle}"
            )
        if self.direction not in get_args(Direction):
            allowed = ", ".join(get_args(Direction))
            raise ValueError(
                f"direction of channel {self.name} must be one of {allowed}; got {self.direction!r}"
            )
        latency = whole(f"latency_cycles of channel {self.name}", self.latency_cycles, least=0)
        object.__setattr__(self, "latency_cycles", latency)
        object.__setattr__(self, "count", whole(f"count of channel {self.name}", self.count))

    def moves(self, transfer: Transfer) -> bool:
        """Whether the transfer goes its way."""
        return self.direction in ("both", "out" if transfer.kind in ("spill", "store") else "in")

    def cycles(self, transfer: Transfer) -> int:
        """Cycles of a transfer."""
        return self.latency_cycles + ceil(transfer.bytes / self.rate)

    @property
    def rate(self) -> Fraction:
        """Bytes per cycle as written: 0.3 is three tenths, and 3 bytes take 10 cycles."""
        return Fraction(str(float(self.bytes_per_cycle)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What runs a schedule.

    Attributes
    ----------
    compute_units
        How many equal ones, or servers of one kind or several.
    channels
        DMA channels.
    double_buffering
        Whether a fetch for an operator may run beside the operator before it, if its block is free; a
        number is how many steps a fetch may be ahead. ``False`` or 0: it starts after the operator before.

    Raises
    ------
    ValueError
        A number is out of range, or two resources have the same name.
    """

    compute_units: int | tuple[Server, ...] = 1
    channels: tuple[Channel, ...]
    double_buffering: bool | int = True

    def __post_init__(self) -> None:
        units = self.compute_units
        if not isinstance(units, tuple):
            units = (Server(name="compute", count=whole("compute_units", units)),)
        if not units:
            raise ValueError("compute_units must be at least 1, got none")
        object.__setattr__(self, "compute_units", units)
        object.__setattr__(self, "channels", tuple(self.channels))
        if not isinstance(self.double_buffering, bool):
            whole("double_buffering", self.double_buffering, least=0)
        check_servers(self.servers, "fifo")

    @property
    def units(self) -> tuple[Server, ...]:
        """Compute units as servers."""
        assert isinstance(self.compute_units, tuple)
        return self.compute_units

    @property
    def servers(self) -> tuple[Server, ...]:
        """Compute units, then channels, which are of kinds of their own."""
        return (
            *self.units,
            *(
                Server(name=channel.name, kind=f"channel {channel.name}", count=channel.count)
                for channel in self.channels
            ),
        )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Simulation:
    """A schedule in time.

    Attributes
    ----------
    trace
        Operators and transfers as tasks, with queue lengths and waiting times.
    bounds
        Cycles that no run of this schedule on these resources beats, by reason: ``"compute"`` is all
        operators' shortest cycles shared by the units, ``"dma"`` all bytes (or transfers) shared by the
        channels, ``"dma_in"`` and ``"dma_out"`` those of one direction by the channels that go this way,
        and ``"path"`` the longest path of tasks that wait for one another.
    stalls_by_step
        Cycles by operator (with its step and compute unit) and by cause, see `stalls`.
    """

    schedule: Schedule
    resources: Resources
    policy: Policy
    trace: Trace
    bounds: Mapping[str, int]
    stalls_by_step: pd.DataFrame
    _graph: TaskGraph

    def __repr__(self) -> str:
        busy = ", ".join(f"{name} {100 * share:.0f} % busy" for name, share in self.utilization.items())
        name = self.schedule.workload.name
        return f"Simulation({name}: {self.makespan_cycles:,} cycles, {busy}, {self.policy})"

    @cached_property
    def makespan_cycles(self) -> int:
        """End of the last operator or transfer."""
        return round(self.trace.makespan)

    @property
    def events(self) -> pd.DataFrame:
        """One row per operator and transfer by start: name, kind, step, bytes, resource, unit, times."""
        table = self.trace.table.rename(columns={"task": "name", "server": "resource"})
        sizes = [0 if move is None else move.bytes for move in self._graph.transfers]
        table = table.assign(step=self._graph.steps, bytes=sizes)
        table = table.astype(dict.fromkeys(("ready", "start", "end"), "int64"))
        columns = ["name", "kind", "step", "bytes", "resource", "unit", "ready", "start", "end"]
        return table[columns].sort_values(["start", "end"], kind="stable", ignore_index=True)

    @property
    def stalls(self) -> Mapping[str, int]:
        """Cycles lost by compute units, by cause.

        While a unit is idle before an operator, the time counts as the first of these that holds.
        ``"data"``: an operator whose result it reads has not ended. ``"memory"``: the block of its result
        is in use; and of the time that its last operand is late, as much as that operand's block, in use,
        held up the fetch. ``"issue"``: a fetch may not be so far ahead (``double_buffering``). ``"dma"``:
        the rest of the time that an operand is late, its fetch being on its way, or waiting for a channel
        or for its own spill. ``"order"``: the operator before it has not started (only with ``in_order``).
        ``"end"`` is idle time after a unit's last operator: last stores, and other units. These and the
        operators' cycles fill all units from 0 to the makespan. ``"unit"`` is not idle time: what
        operators waited, ready, for a busy unit.
        """
        totals = {cause: int(self.stalls_by_step[cause].sum()) for cause in STALLS[:-1]}
        units = sum(server.count for server in self.resources.units)
        busy = sum(self.trace.busy[server.name] for server in self.resources.units)
        idle = sum(totals[cause] for cause in STALLS[:-2])
        return MappingProxyType(totals | {"end": round(units * self.makespan_cycles - busy) - idle})

    @property
    def utilization(self) -> Mapping[str, float]:
        """Share of the makespan that each resource is busy, over all its units."""
        return self.trace.utilization


def simulate(
    schedule: Schedule,
    resources: Resources,
    *,
    compute_cycles: Mapping[str, Cycles] | Callable[[Operator], Cycles],
    policy: Policy = "fifo",
    in_order: bool = False,
) -> Simulation:
    """Run `schedule` on `resources`.

    Parameters
    ----------
    compute_cycles
        Of each operator without its off-chip transfers, by name or as a function. From a cost:
        ``{op.name: op.cycles - op.cycle_parts["offchip"] for op in evaluate(design, graph).operators}``.
        Where compute units are of several kinds, cycles may be by kind; kinds not named cannot run it.
    policy
        Which of the operators or transfers that wait comes first, and where, see :data:`POLICIES`.
    in_order
        Operators start in the order of the schedule. Otherwise an operator whose data and block are
        there may start before an earlier one that still waits.

    Raises
    ------
    TypeError
        Cycles are no whole number.
    ValueError
        An operator has no cycles, negative ones, or none for a kind of unit that there is; no channel goes
        the way of a transfer; there is no such policy; or the schedule cannot run.

    Examples
    --------
    >>> from accel import Operator, Role, Tensor, Workload
    >>> from accel.schedule import schedule
    >>> graph = Workload(
    ...     name="pair",
    ...     operators=(
    ...         Operator(name="A", kind="relu", inputs=("x",), outputs=("a",)),
    ...         Operator(name="B", kind="relu", inputs=("a",), outputs=("b",)),
    ...     ),
    ...     tensors={n: Tensor(name=n, shape=(8,), role="activation", format="int8") for n in "xab"},
    ...     inputs=("x",), outputs=("b",),
    ... )
    >>> dma = Channel(bytes_per_cycle=4, latency_cycles=1)  # 3 cycles for 8 bytes
    >>> run = simulate(schedule(graph, 16), Resources(channels=(dma,)), compute_cycles={"A": 5, "B": 7})
    >>> run.makespan_cycles, run.stalls["dma"], run.stalls["end"]  # load 3, A 5, B 7, store 3
    (18, 3, 3)
    """
    graph = task_graph(schedule, index(resources.double_buffering))
    operators = {operator.name: operator for operator in schedule.workload.operators}
    service: list[Mapping[str, int]] = []
    names, kinds = [], []
    for step, transfer in zip(graph.steps, graph.transfers, strict=True):
        if transfer is None:
            operator = operators[schedule.order[step]]
            names.append(operator.name)
            kinds.append("compute")
            service.append(_operator_cycles(operator, compute_cycles, resources))
        else:
            names.append(transfer.tensor)
            kinds.append(transfer.kind)
            service.append(_transfer_cycles(transfer, resources))
    if (most := sum(max(times.values()) for times in service)) >= _EXACT:
        raise ValueError(f"cycles of all operators and transfers must sum to less than 2**53, got {most}")
    count = len(names)
    milestones = [f"operators up to step {step}" for step in range(graph.milestones)]
    trace = run_indexed(
        [*names, *milestones],
        [*kinds, *[""] * len(milestones)],
        np.zeros(count + len(milestones)),
        [*service, *[{}] * len(milestones)],
        list(graph.edges),
        resources.servers,
        policy=policy,
        starts_after=dict(zip(graph.operator[1:], graph.operator, strict=False)) if in_order else None,
    )
    bounds = _bounds(graph, service, resources, trace)
    stalls = _stalls(graph, schedule, trace)
    arrays = {
        name: getattr(trace, name)[:count] for name in ("arrival", "ready", "start", "end", "server", "unit")
    }
    return Simulation(
        schedule=schedule,
        resources=resources,
        policy=policy,
        trace=replace(trace, tasks=names, kinds=kinds, **arrays),
        bounds=MappingProxyType(bounds),
        stalls_by_step=stalls,
        _graph=graph,
    )


def _operator_cycles(
    operator: Operator,
    compute_cycles: Mapping[str, Cycles] | Callable[[Operator], Cycles],
    resources: Resources,
) -> Mapping[str, int]:
    """Cycles of an operator by kind of compute unit."""
    if callable(compute_cycles):
        given = compute_cycles(operator)
    elif operator.name in compute_cycles:
        given = compute_cycles[operator.name]
    else:
        raise ValueError(f"compute_cycles must have every operator, has none for {operator.name}")
    kinds = dict.fromkeys(unit.kind for unit in resources.units)
    by_kind = given if isinstance(given, Mapping) else dict.fromkeys(kinds, given)
    what = f"compute_cycles of {operator.name}"
    if unknown := [kind for kind in by_kind if kind not in kinds]:
        raise ValueError(f"{what} must be on the kinds {', '.join(kinds)}; got {unknown[0]!r}")
    if not by_kind:
        raise ValueError(f"{what} must be on at least 1 of the kinds {', '.join(kinds)}, got none")
    return {kind: whole(what, cycles, least=0) for kind, cycles in by_kind.items()}


def _transfer_cycles(transfer: Transfer, resources: Resources) -> Mapping[str, int]:
    """Cycles of a transfer by kind of channel."""
    found = {
        f"channel {channel.name}": channel.cycles(transfer)
        for channel in resources.channels
        if channel.moves(transfer)
    }
    if not found:
        way = "out" if transfer.kind in ("spill", "store") else "in"
        raise ValueError(
            f"channels must have one of direction {way} or both, for the {transfer.kind} of {transfer.tensor}"
        )
    return found


def _bounds(
    graph: TaskGraph, service: list[Mapping[str, int]], resources: Resources, trace: Trace
) -> dict[str, int]:
    """Lower bounds of the makespan, rounded up to whole cycles."""
    units = sum(unit.count for unit in resources.units)
    computed = sum(
        min(times.values()) for times, move in zip(service, graph.transfers, strict=True) if move is None
    )
    found = {"compute": -(-computed // units)}
    for name, ways in (("dma", ("in", "out")), ("dma_in", ("in",)), ("dma_out", ("out",))):
        moved = [
            (move.bytes, min(times.values()))
            for times, move in zip(service, graph.transfers, strict=True)
            if move is not None and ("out" if move.kind in ("spill", "store") else "in") in ways
        ]
        channels = [channel for channel in resources.channels if channel.direction in ("both", *ways)]
        bandwidth = sum((channel.count * channel.rate for channel in channels), Fraction(0))
        count = sum(channel.count for channel in channels)
        found[name] = (
            max(ceil(sum(size for size, _ in moved) / bandwidth), -(-sum(time for _, time in moved) // count))
            if moved
            else 0
        )
    return found | {"path": round(trace.path)}


def _stalls(graph: TaskGraph, schedule: Schedule, trace: Trace) -> pd.DataFrame:
    """Stalls of each operator by cause; `trace` still has the milestones."""
    latest = np.zeros((len(Cause), len(trace.end)))  # by cause, the last end that a task waits for
    fetches: dict[int, list[int]] = {task: [] for task in graph.operator}
    for (before, after), cause in graph.edges.items():
        latest[cause, after] = max(latest[cause, after], trace.end[before])
        if cause is Cause.DMA:
            fetches[after].append(before)
    held_up = np.maximum(latest[Cause.MEMORY] - np.maximum(latest[Cause.DATA], latest[Cause.ISSUE]), 0)
    free: dict[tuple[int, int], float] = {}
    rows = []
    for task in sorted(graph.operator, key=lambda task: (trace.start[task], trace.end[task])):
        place = (int(trace.server[task]), int(trace.unit[task]))
        now, start = free.get(place, 0.0), float(trace.start[task])
        free[place] = float(trace.end[task])
        spent = dict.fromkeys(STALLS[:-1], 0)
        for reason, limit in (
            ("data", latest[Cause.DATA, task]),
            ("memory", latest[Cause.MEMORY, task]),
            ("issue", max((latest[Cause.ISSUE, fetch] for fetch in fetches[task]), default=0.0)),
            ("dma", latest[Cause.DMA, task]),
            ("order", start),
        ):
            until = min(max(float(limit), now), start)
            spent[reason] = round(until - now)
            now = until
        if spent["dma"]:
            last = max(fetches[task], key=lambda fetch: float(trace.end[fetch]))
            by_memory = min(spent["dma"], round(held_up[last]))
            spent["memory"] += by_memory
            spent["dma"] -= by_memory
        spent["unit"] = round(start - float(trace.ready[task]))
        step = graph.steps[task]
        unit = f"{trace.servers[place[0]].name}[{place[1]}]"
        rows.append((step, schedule.order[step], unit, *spent.values()))
    return pd.DataFrame(rows, columns=["step", "operator", "compute_unit", *STALLS[:-1]]).sort_values(
        "step", ignore_index=True
    )
