"""The least off-chip traffic of a workload on a scratchpad, with the plan that attains it.

A greedy plan comes first, so there is one whatever the time limit. The exact optimum without
addresses is then a lower bound, and mostly its residency can be placed as it is: that is the
optimum. Where it cannot, the joint program of order, residency and placement decides.

References
----------
.. [COSMA] Y. Li, A. Gupta, S. Malik, "COSMA", arXiv 2311.18246, 2023: the problem.
"""

from __future__ import annotations

from collections import Counter
from time import perf_counter
from typing import Literal, TypeAlias, get_args

from accel.schedule._greedy import greedy
from accel.schedule._instance import Instance, build_instance
from accel.schedule._placement import Placed, place, place_or_shed
from accel.schedule._residency import Residency
from accel.schedule._search import Relaxed, search
from accel.schedule.plan import Method, Run, Schedule, Transfer, TransferKind
from accel.workload import Workload

Order: TypeAlias = Literal["free", "given"]
Backend: TypeAlias = Literal["search", "cp-sat", "highs"]

MAX_SEED = 2**31 - 1  # of CP-SAT


class WorkingSetError(ValueError):
    """The scratchpad cannot hold what one operator reads and writes."""


def working_set_minimum(graph: Workload, *, alignment: int = 1) -> int:
    """Bytes of the smallest scratchpad on which every operator of `graph` can run.

    Parameters
    ----------
    alignment
        Sizes are rounded up to it.
    """
    return _largest_working_set(graph, alignment)[0]


def schedule(
    graph: Workload,
    scratchpad_bytes: int,
    *,
    order: Order = "free",
    time_limit_s: float = 60.0,
    seed: int = 0,
    alignment: int = 1,
    backend: Backend = "search",
) -> Schedule:
    """Schedule of least off-chip traffic: operator order, residency and addresses together [COSMA]_.

    While an operator runs, all it reads and writes is in the scratchpad, each tensor in one block.
    Every tensor of the workload takes part: a weight or an optimizer state is a graph input.

    Parameters
    ----------
    scratchpad_bytes
        Capacity; rounded down to `alignment`.
    order
        ``"given"`` keeps the operators in file order.
    time_limit_s
        Seconds, by the clock; a plan is returned in any case, with the bound reached by then. Plans
        are reproducible as long as the limit is not met.
    seed
        Of the solvers, 0..2**31 - 1.
    alignment
        Addresses are multiples of it, and sizes are rounded up to it.
    backend
        What computes the bound: a shortest-path search over machine states, or the integer program
        of the same relaxation in CP-SAT or in HiGHS. All are exact; the search is the fastest.

    Raises
    ------
    WorkingSetError
        An operator alone needs more than the scratchpad has.
    ValueError
        An option is out of range, or two operators share a name.

    Examples
    --------
    >>> from accel.workload import Operator, Role, Tensor
    >>> names, sizes = ("x", "a", "b", "c", "d"), (1, 2, 3, 3, 2)
    >>> tensors = {n: Tensor(name=n, shape=(s,), role=Role.ACTIVATION) for n, s in zip(names, sizes)}
    >>> edges = (("x",), ("a",)), (("a",), ("b",)), (("b",), ("c",)), (("a", "c"), ("d",))
    >>> steps = tuple(
    ...     Operator(name=f"op{i}", kind="add", inputs=read, outputs=written)
    ...     for i, (read, written) in enumerate(edges)
    ... )
    >>> graph = Workload(name="skip", operators=steps, tensors=tensors, inputs=("x",), outputs=("d",))
    >>> plan = schedule(graph, 28)
    >>> [(move.kind, move.tensor, move.bytes) for move in plan.transfers]
    [('load', 'x', 4), ('spill', 'a', 8), ('refetch', 'a', 8), ('store', 'd', 8)]
    >>> plan.status, plan.noncompulsory_bytes, schedule(graph, 32).noncompulsory_bytes
    ('OPTIMAL', 16, 0)
    """
    started_s = perf_counter()
    _check_arguments(graph, scratchpad_bytes, order, time_limit_s, seed, alignment, backend)
    instance = build_instance(graph, scratchpad_bytes, alignment=alignment, fixed_order=order == "given")
    found = _Solution(instance, deadline_s=started_s + time_limit_s, seed=seed)
    found.improve(backend)
    residency, transfers = _plan(instance, found.plan)
    result = Schedule(
        workload=graph,
        scratchpad_bytes=scratchpad_bytes,
        alignment=alignment,
        order=tuple(instance.operators[i] for i in found.plan.residency.order),
        residency=residency,
        transfers=transfers,
        bound_bytes=found.bound * instance.unit_bytes,
        method=found.method,
        solver=" + ".join(found.solvers) or "none",
        seconds=perf_counter() - started_s,
    )
    result.check()
    return result


class _Solution:
    """The best plan so far and the bound below it, in units, brought together stage by stage."""

    def __init__(self, instance: Instance, *, deadline_s: float, seed: int) -> None:
        self._instance = instance
        self._deadline_s = deadline_s
        self._seed = seed
        self.plan: Placed = greedy(instance)
        self.bound = 0
        self.method: Method = "greedy"
        self.solvers: dict[str, None] = {}

    @property
    def _open(self) -> bool:
        return self.bound < self.plan.residency.cost and perf_counter() < self._deadline_s

    def improve(self, backend: Backend) -> None:
        """Bound, pack, and solve jointly where the residency of the bound has no placement."""
        if self._open:
            relaxed = self._relax(backend)
            self.bound = relaxed.bound
            if relaxed.residency is not None:
                self._place(relaxed.residency)
        if self._open:
            # Imported late: it takes a second or more, and most calls end before it is needed.
            from accel.schedule import _cpsat

            self.solvers[_cpsat.VERSION] = None
            self.bound, plan = _cpsat.solve_joint(
                self._instance,
                lower=self.bound,
                hint=self.plan,
                deadline_s=self._deadline_s,
                seed=self._seed,
            )
            self._offer(plan, "joint")

    def _relax(self, backend: Backend) -> Relaxed:
        upper = self.plan.residency.cost
        if backend == "search":
            self.solvers["state search"] = None
            return search(self._instance, upper=upper, deadline_s=self._deadline_s)
        if backend == "highs":
            from accel.schedule import _highs

            self.solvers[_highs.VERSION] = None
            return _highs.solve_capacity(self._instance, upper=upper, deadline_s=self._deadline_s)
        from accel.schedule import _cpsat

        self.solvers[_cpsat.VERSION] = None
        return _cpsat.solve_capacity(
            self._instance, hint=self.plan, deadline_s=self._deadline_s, seed=self._seed
        )

    def _place(self, residency: Residency) -> None:
        """Place `residency` as it is, or failing that with fewer kept gaps."""
        self._offer(place(residency), "first-fit")
        if self._open:
            from accel.schedule import _cpsat, _packing

            self.solvers[_cpsat.VERSION] = None
            # Half of the time at most, so that a hard placement leaves some for the joint program.
            deadline_s = (perf_counter() + self._deadline_s) / 2
            self._offer(_packing.pack(residency, deadline_s=deadline_s, seed=self._seed), "packing")
        if self._open:
            self._offer(place_or_shed(residency), "greedy")

    def _offer(self, plan: Placed | None, method: Method) -> None:
        if plan is not None and plan.residency.cost < self.plan.residency.cost:
            self.plan, self.method = plan, method


def _plan(instance: Instance, placed: Placed) -> tuple[tuple[Run, ...], tuple[Transfer, ...]]:
    """Return runs and transfers of a placed residency, in bytes."""
    residency, unit = placed.residency, instance.unit_bytes
    step = {i: t for t, i in enumerate(residency.order)}
    made = [None if i is None else step[i] for i in instance.producer]
    runs: list[Run] = []
    moves: list[tuple[int, TransferKind, int]] = []
    for block, address in zip(residency.blocks, placed.addresses, strict=True):
        v = block.tensor
        runs.append(
            Run(
                tensor=instance.tensors[v],
                start=block.start,
                end=block.end,
                address=address * unit,
                bytes=instance.size[v] * unit,
            )
        )
        if made[v] is None and block.start == residency.first_step[v]:
            moves.append((block.start, "load", v))
        elif block.start != made[v]:
            moves.append((block.start, "refetch", v))
    refetched = {v for _, kind, v in moves if kind == "refetch"}
    for v, at in enumerate(made):
        if at is not None and instance.is_output[v]:
            moves.append((at, "store", v))
        elif at is not None and v in refetched:
            moves.append((at, "spill", v))
    moves.sort(key=lambda move: (move[0], move[1] in ("spill", "store"), move[2]))
    return tuple(runs), tuple(
        Transfer(step=at, tensor=instance.tensors[v], bytes=instance.size[v] * unit, kind=kind)
        for at, kind, v in moves
    )


def _check_arguments(
    graph: Workload,
    scratchpad_bytes: int,
    order: str,
    time_limit_s: float,
    seed: int,
    alignment: int,
    backend: str,
) -> None:
    for name, value, allowed in (("order", order, Order), ("backend", backend, Backend)):
        if value not in get_args(allowed):
            raise ValueError(f"{name} must be one of {', '.join(get_args(allowed))}; got {value!r}")
    if not time_limit_s > 0:
        raise ValueError(f"time_limit_s must be positive, got {time_limit_s}")
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed must be in 0..{MAX_SEED}, got {seed}")
    names = Counter(operator.name for operator in graph.operators)
    if repeated := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"operator names must differ, got {repeated[0]} {names[repeated[0]]} times")
    minimum, where = _largest_working_set(graph, alignment)
    if scratchpad_bytes < alignment:
        raise ValueError(f"scratchpad_bytes must be at least {alignment}, got {scratchpad_bytes}")
    if scratchpad_bytes < minimum:
        raise WorkingSetError(
            f"scratchpad_bytes must be at least {minimum} (working set of {where}), got {scratchpad_bytes}"
        )


def _largest_working_set(graph: Workload, alignment: int) -> tuple[int, str]:
    """Bytes of the largest working set, and the first operator that has it."""
    if alignment < 1:
        raise ValueError(f"alignment must be at least 1, got {alignment}")
    best = (0, "")
    for operator in graph.operators:
        touched = {*operator.inputs, *operator.outputs}
        used = sum(-(-graph.tensors[name].bytes // alignment) * alignment for name in touched)
        if used > best[0]:
            best = (used, operator.name)
    return best
