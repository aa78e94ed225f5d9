"""Tasks that queue for servers: a discrete-event simulation, and what it measured.

The model is that of A. Vega et al., "STOMP: A Tool for Evaluation of Scheduling Policies in
Heterogeneous Multi-Processors", arXiv 2007.14371, with dependencies: a task takes another time on
each kind of server, and a policy says which waiting task starts where.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, isfinite
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from accel._given import whole
from accel.schedule._kernels import events as kernel

Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]
Names: TypeAlias = Sequence[str] | range | NDArray[np.object_]  # many random tasks have numbers for names

#: Which waiting task starts first, and where. ``"fifo"``: in order of readiness. ``"critical-path"``: the
#: one with the longest path of remaining tasks, itself included and each at its fastest server. Both start
#: a task as soon as a server that can run it is idle, on the fastest of those. ``"earliest-finish"``: in
#: order of readiness each task goes to the server that ends it first, and waits there if that is busy.
#: Ties go to the task, then to the server, that is listed first.
Policy: TypeAlias = Literal["fifo", "critical-path", "earliest-finish"]
POLICIES: tuple[Policy, ...] = get_args(Policy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Equal units that each run one task at a time.

    Attributes
    ----------
    kind
        What service times refer to; the name where it is empty.
    count
        Units.

    Raises
    ------
    ValueError
        The count is below 1.
    """

    name: str
    kind: str = ""
    count: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", self.kind or self.name)
        object.__setattr__(self, "count", whole(f"count of server {self.name}", self.count))


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Work that runs once, on one server, without a break.

    Attributes
    ----------
    service
        Time by kind of server; kinds that are not named cannot run it.
    after
        Tasks that must end before it starts.
    arrival
        It does not start before.
    kind
        A label for tables.

    Raises
    ------
    ValueError
        A time is negative or not finite, or no kind of server is named.
    """

    name: str
    service: Mapping[str, float]
    after: tuple[str, ...] = ()
    arrival: float = 0.0
    kind: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "service", MappingProxyType(dict(self.service)))
        object.__setattr__(self, "after", tuple(self.after))
        if not self.service:
            raise ValueError(f"service of task {self.name} must name at least 1 kind of server, got none")
        times = [(f"service on {kind}", time) for kind, time in self.service.items()]
        for what, time in (*times, ("arrival", self.arrival)):
            if not (isfinite(time) and time >= 0):
                raise ValueError(f"{what} of task {self.name} must be at least 0 and finite, got {time}")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Trace:
    """When and where each task ran. All arrays have one entry per task.

    Attributes
    ----------
    tasks, kinds
        Names and labels.
    arrival, ready, start, end
        Times. A task is ready when it has arrived and all it comes after has ended.
    server, unit
        Index of the server, and of the unit within it.
    path
        Longest path of tasks after one another, from an arrival on, each at its fastest server.
    lower_bound
        No policy ends before: the larger of the path, and of the fastest times of all tasks that only
        certain servers can run, shared evenly by the units of these.
    """

    servers: tuple[Server, ...]
    tasks: Names
    kinds: Names
    arrival: Floats
    ready: Floats
    start: Floats
    end: Floats
    server: Indices
    unit: Indices
    path: float
    lower_bound: float

    def __repr__(self) -> str:
        names = ", ".join(f"{server.name} x {server.count}" for server in self.servers)
        return f"Trace({len(self.tasks):,} tasks on {names}, makespan {self.makespan:g})"

    @property
    def table(self) -> pd.DataFrame:
        """One row per task: task, kind, server, unit, arrival, ready, start, end."""
        names = np.array([server.name for server in self.servers], dtype=object)
        head = {"task": self.tasks, "kind": self.kinds, "server": names[self.server], "unit": self.unit}
        times = {"arrival": self.arrival, "ready": self.ready, "start": self.start, "end": self.end}
        return pd.DataFrame(head | times)

    @cached_property
    def makespan(self) -> float:
        """End of the last task, from time 0."""
        return float(self.end.max(initial=0.0))

    @property
    def waiting(self) -> Floats:
        """Time from readiness to start, by task."""
        return self.start - self.ready

    @property
    def response(self) -> Floats:
        """Time from readiness to end, by task: waiting and service."""
        return self.end - self.ready

    @property
    def mean_waiting(self) -> float:
        """Mean over the tasks, 0 without any."""
        return float(self.waiting.mean()) if self.waiting.size else 0.0

    @property
    def mean_response(self) -> float:
        """Mean over the tasks, 0 without any."""
        return float(self.response.mean()) if self.response.size else 0.0

    @property
    def stalls(self) -> Mapping[str, float]:
        """Task time lost since arrival: to ``"dependency"`` on others' ends, and to busy ``"server"``."""
        dependency = float((self.ready - self.arrival).sum())
        return MappingProxyType({"dependency": dependency, "server": float(self.waiting.sum())})

    @property
    def busy(self) -> Mapping[str, float]:
        """Time served, by server, over all its units."""
        totals = np.bincount(self.server, self.end - self.start, minlength=len(self.servers))
        names = (server.name for server in self.servers)
        return MappingProxyType(dict(zip(names, map(float, totals), strict=True)))

    @property
    def utilization(self) -> Mapping[str, float]:
        """Share of the makespan that the units of a server are busy, 0 where nothing takes time."""
        return MappingProxyType(
            {
                server.name: self.busy[server.name] / (server.count * self.makespan) if self.makespan else 0.0
                for server in self.servers
            }
        )

    def queue_lengths(self, server: str | None = None) -> pd.DataFrame:
        """Tasks that are ready and have not started, after every time at which their number changes.

        Parameters
        ----------
        server
            Only tasks that this server will run.

        Raises
        ------
        ValueError
            There is no such server.
        """
        waits = self.waiting > 0
        if server is not None:
            waits &= self.server == self._server(server)
        times = np.concatenate((self.ready[waits], self.start[waits]))
        changes = np.repeat((1, -1), waits.sum())
        moments, where = np.unique(times, return_inverse=True)
        lengths = np.cumsum(np.bincount(where, changes, minlength=moments.size)).astype(np.int64)
        return pd.DataFrame({"time": moments, "waiting": lengths})

    def mean_queue_length(self, server: str | None = None) -> float:
        """Mean of `queue_lengths` over the makespan."""
        mine = slice(None) if server is None else self.server == self._server(server)
        return float(self.waiting[mine].sum()) / self.makespan if self.makespan else 0.0

    def _server(self, name: str) -> int:
        known = [server.name for server in self.servers]
        if name not in known:
            raise ValueError(f"server must be one of {', '.join(known)}; got {name!r}")
        return known.index(name)


def run_tasks(tasks: Sequence[Task], servers: Sequence[Server], *, policy: Policy = "fifo") -> Trace:
    """Run `tasks` on `servers`.

    Raises
    ------
    ValueError
        Two tasks or servers have the same name, a task comes after an unknown one, no server can run it,
        dependencies form a cycle, or there is no such policy.

    Examples
    --------
    Times on the accelerator are a tenth, but there is only one of it:

    >>> servers = (Server(name="cpu", count=2), Server(name="fft"))
    >>> tasks = [Task(name=f"t{i}", service={"cpu": 20, "fft": 2}) for i in range(4)]
    >>> run_tasks(tasks, servers).makespan  # t0 on the accelerator, t1 and t2 on the processors
    20.0
    >>> run_tasks(tasks, servers, policy="earliest-finish").makespan  # all four on the accelerator
    8.0
    """
    index: dict[str, int] = {}
    for i, task in enumerate(tasks):
        if index.setdefault(task.name, i) != i:
            raise ValueError(f"task names must differ, got {task.name} twice")
    edges = []
    for i, task in enumerate(tasks):
        for before in dict.fromkeys(task.after):
            if before not in index:
                raise ValueError(f"task {task.name} comes after {before!r}, which is no task")
            edges.append((index[before], i))
    return run_indexed(
        [task.name for task in tasks],
        [task.kind for task in tasks],
        np.array([task.arrival for task in tasks], dtype=np.float64),
        [task.service for task in tasks],
        edges,
        servers,
        policy=policy,
    )


def run_indexed(
    names: Sequence[str],
    kinds: Sequence[str],
    arrival: Floats,
    service: Sequence[Mapping[str, float]],
    edges: Sequence[tuple[int, int]],
    servers: Sequence[Server],
    *,
    policy: Policy,
    starts_after: Mapping[int, int] | None = None,
) -> Trace:
    """Run tasks that are given by index.

    Parameters
    ----------
    service
        Times by kind of server, by task; empty of a milestone, which takes no time and no server.
    edges
        Pairs of tasks, the first of which ends before the second starts.
    starts_after
        By task the one that must have started before; each at most once.
    """
    check_servers(servers, policy)
    times = np.full((len(names), len(servers)), inf)
    for i, by_kind in enumerate(service):
        for s, server in enumerate(servers):
            times[i, s] = by_kind.get(server.kind, inf)
        if by_kind and not (times[i] < inf).any():
            offered = ", ".join(dict.fromkeys(server.kind for server in servers))
            raise ValueError(
                f"task {names[i]} runs on {', '.join(by_kind)}, and the kinds of servers are {offered}"
            )
    successors: list[list[int]] = [[] for _ in names]
    missing = np.ones(len(names), dtype=np.int64)  # its arrival
    for before, after in dict.fromkeys(edges):
        successors[before].append(after)
        missing[after] += 1
    shortest = np.where((times < inf).any(axis=1), times.min(axis=1, initial=inf), 0.0)
    order = _topological(successors, missing - 1, names)
    earliest, remaining = arrival.astype(np.float64), shortest.copy()
    for i in order:
        for j in successors[i]:
            earliest[j] = max(earliest[j], earliest[i] + shortest[i])
    for i in reversed(order):
        if successors[i]:
            remaining[i] += max(remaining[j] for j in successors[i])
    next_start = np.full(len(names), -1, dtype=np.int64)
    for after, before in (starts_after or {}).items():
        next_start[before] = after
        missing[after] += 1
    return run_arrays(
        names, kinds, arrival, times, servers, policy=policy, missing=missing, successors=successors,
        next_start=next_start, priority=-remaining, path=float((earliest + shortest).max(initial=0.0)),
    )  # fmt: skip


def run_arrays(
    names: Names,
    kinds: Names,
    arrival: Floats,
    times: Floats,
    servers: Sequence[Server],
    *,
    policy: Policy,
    missing: Indices,
    successors: Sequence[Sequence[int]],
    next_start: Indices,
    priority: Floats,
    path: float,
) -> Trace:
    """Run tasks with `times` ``(tasks, servers)``, infinite where a server cannot run a task.

    `path` is a lower bound of the makespan by dependencies and arrivals.
    """
    count = len(arrival)
    able, group = _groups(times < inf)
    lengths = np.fromiter(map(len, successors), np.int64, len(successors))
    flat = np.fromiter((j for later in successors for j in later), np.int64, int(lengths.sum()))
    first = np.zeros(count + 1, dtype=np.int64)
    first[1 : len(lengths) + 1] = np.cumsum(lengths)
    unit_first = np.cumsum([0, *(server.count for server in servers)], dtype=np.int64)
    ready, start, end, server, unit, ended = kernel.run(
        np.ascontiguousarray(arrival), np.argsort(arrival, kind="stable"), missing, first, flat, next_start,
        np.where(np.any(able, axis=1)[group], group, -1), able, np.ascontiguousarray(times), unit_first,
        priority, POLICIES.index(policy),
    )  # fmt: skip
    assert ended == count, "tasks without a cycle all end"
    runs = server >= 0
    return Trace(
        servers=tuple(servers),
        tasks=names,
        kinds=kinds,
        arrival=arrival,
        ready=ready,
        start=start,
        end=end,
        server=server,
        unit=np.where(runs, unit - unit_first[server], -1),
        path=path,
        lower_bound=max(path, _work_bound(times, able, group, servers)),
    )


def check_servers(servers: Sequence[Server], policy: str) -> None:
    """Raise ``ValueError`` unless names of `servers` differ and `policy` is one."""
    if policy not in POLICIES:
        raise ValueError(f"policy must be one of {', '.join(POLICIES)}; got {policy!r}")
    names = [server.name for server in servers]
    if not names:
        raise ValueError("servers must be at least 1, got none")
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ValueError(f"server names must differ, got {twice[0]} twice")


def _topological(successors: Sequence[Sequence[int]], before: Indices, names: Sequence[str]) -> list[int]:
    """Tasks after all they come after."""
    left = before.copy()
    order = [int(i) for i in np.flatnonzero(left == 0)]
    for i in order:  # grows
        for j in successors[i]:
            left[j] -= 1
            if left[j] == 0:
                order.append(j)
    if len(order) < len(names):
        stuck = set(np.flatnonzero(left > 0).tolist())
        waits_for = {j: i for i in stuck for j in successors[i] if j in stuck}
        path = [min(stuck)]
        while path[-1] not in path[:-1]:  # every stuck task waits for another, so the walk closes
            path.append(waits_for[path[-1]])
        cycle = path[path.index(path[-1]) :]
        raise ValueError(f"dependencies form a cycle: {' after '.join(names[i] for i in cycle)}")
    return order


def _groups(able: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Indices]:
    """Distinct rows of `able` ``(tasks, servers)``, and the row of each task."""
    group = np.zeros(len(able), dtype=np.int64)
    for column in able.T:  # far faster than rows compared as a whole
        _, group = np.unique(2 * group + column, return_inverse=True)
    _, example = np.unique(group, return_index=True)
    return np.ascontiguousarray(able[example]), group


def _work_bound(times: Floats, able: NDArray[np.bool_], group: Indices, servers: Sequence[Server]) -> float:
    """Time that all tasks of a set of servers take, at their fastest, if its units share them evenly."""
    units = np.array([server.count for server in servers])
    fastest = np.where(np.any(able, axis=1)[group], times.min(axis=1, initial=inf), 0.0)
    work = np.bincount(group, fastest, minlength=len(able))
    subsets = [*able, able.any(axis=0)]
    return max(
        (
            float(work[~(able & ~subset).any(axis=1)].sum() / units[subset].sum())
            for subset in subsets
            if subset.any()
        ),
        default=0.0,
    )
