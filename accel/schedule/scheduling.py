"""The least off-chip traffic of a workload on a scratchpad, with the plan that attains it.

References
----------
.. [COSMA] Y. Li, A. Gupta, S. Malik, "COSMA", arXiv 2311.18246, 2023: the problem.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from time import perf_counter
from typing import Any

from accel._given import whole, wholes
from accel.schedule._running import in_an_order_that_runs
from accel.schedule._scheduling_options import Options, check_known, read_options
from accel.schedule._streaming.plan import streamed_plan
from accel.schedule._weights import WeightPlan, Weights, plan_weights
from accel.schedule.backends import resolve
from accel.schedule.bound_and_pack import Found, solve
from accel.schedule.integer_program import SolverFunction
from accel.schedule.plan import Mode, Run, Schedule, Transfer
from accel.schedule.working_set import Order, check_room
from accel.workload import Workload


def schedule(
    graph: Workload,
    scratchpad_bytes: int,
    *,
    mode: Mode = "atomic",
    order: Order | None = None,
    weights: Weights = "streamed",
    resident: Collection[str] | None = None,
    backend: str | SolverFunction = "search",
    time_limit_s: float = 60.0,
    seed: int = 0,
    alignment: int = 1,
    tile_reserve_bytes: int = 0,
    check: bool = True,
    known: Schedule | None = None,
) -> Schedule:
    """Schedule of least off-chip traffic: operator order, residency and addresses together [COSMA]_.

    Non-compulsory traffic is minimised: spills of intermediate tensors, each paid once, and refetches.
    Compulsory is one load of each graph input that is read, one store of each graph output.

    Parameters
    ----------
    scratchpad_bytes
        Capacity; rounded down to `alignment`.
    mode
        ``"atomic"``: while an operator runs, all it reads and writes is in the scratchpad, each tensor in
        one block. ``"streamed"``: what is not there is streamed, at its size for each use, so any size
        will do; a tensor that stays from one use to another is there at both.
    order
        ``"free"`` lets the operators change places, ``"given"`` keeps them in file order; by default free
        in atomic mode and given in streamed mode, where the optimum is proved for a given order only.
    weights
        ``"streamed"``: parameters pass by the scratchpad, one load each however many operators read them.
        ``"tracked"``: they are graph inputs like any other, so that one which several operators read may
        stay, or be fetched again; the choice for training graphs. ``"resident"``: they lie in the
        scratchpad for the whole run, loaded beforehand.
    resident
        Names of the parameters that stay with ``"resident"``, all by default; the others are streamed.
    backend
        What computes bounds and joint programs: ``"search"``, our own search over machine states, with
        CP-SAT where an optimal residency has no placement; ``"cp-sat"`` or ``"highs"`` for all of it; any
        other solver as a function, see :mod:`accel.schedule.integer_program`, or as the text
        ``"package.module:function"``. Streamed mode has engines of its own.
    time_limit_s
        Seconds, by the clock; a placed plan is returned in any case, with the bound reached by then. What
        compiling our kernels takes on the first use after an installation is not counted.
        Plans are reproducible as long as the limit is not met.
    seed
        Of everything that has one, 0..2**31 - 1.
    alignment
        Addresses are multiples of it, and sizes are rounded up to it.
    tile_reserve_bytes
        In streamed mode: part of the scratchpad for what is streamed.
    check
        Replay the plan before it is returned.
    known
        In streamed mode: a schedule of this graph, with these options, on no larger a scratchpad; the
        result does not move more. Atomic mode has no use for one and refuses it.

    Raises
    ------
    WorkingSetError
        In atomic mode, an operator alone needs more than the scratchpad has.
    TypeError
        An option is of the wrong kind.
    ValueError
        An option is out of range, a back end is not installed, or two operators share a name.
    ScheduleError
        The replay found that the plan breaks a rule, which is a defect.

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
    scratchpad_bytes = whole("scratchpad_bytes", scratchpad_bytes)
    plan = plan_weights(graph, weights, resident=resident, alignment=alignment)
    given = read_options(
        mode=mode,
        order=order,
        time_limit_s=time_limit_s,
        seed=seed,
        alignment=alignment,
        tile_reserve_bytes=tile_reserve_bytes,
    )
    order, alignment, tile_reserve_bytes = given.order, given.alignment, given.tile_reserve_bytes
    if known is not None:
        options = {"weights": weights, "resident": plan.resident, "alignment": alignment}
        check_known(known, mode, scratchpad_bytes, options)
    solver = resolve(backend)
    _check_room(graph, scratchpad_bytes, mode, order, plan, alignment, tile_reserve_bytes)
    deadline_s = started_s + given.time_limit_s
    if mode == "streamed":
        known = None if known is None else _moved_down(known, plan.resident_bytes)
        found = _streamed(graph, scratchpad_bytes, plan, given, deadline_s=deadline_s, known=known)
    else:
        instance = plan.instance(graph, scratchpad_bytes, fixed_order=order == "given")
        found = solve(in_an_order_that_runs(instance), solver, deadline_s=deadline_s, seed=given.seed)
    steps = {name: t for t, name in enumerate(found.order)}
    moved = [
        Transfer(
            step=min(steps[operator.name] for operator in graph.consumers[name]),
            tensor=name,
            bytes=plan.rounded(graph.tensors[name]),
            kind="load",
        )
        for name in plan.streamed
    ]
    result = Schedule(
        workload=graph,
        scratchpad_bytes=scratchpad_bytes,
        alignment=alignment,
        mode=mode,
        weights=weights,
        resident=plan.resident,
        tile_reserve_bytes=tile_reserve_bytes,
        order=found.order,
        residency=(
            *_resident_runs(graph, plan),
            *(replace(run, address=run.address + plan.resident_bytes) for run in found.residency),
        ),
        transfers=tuple(sorted((*moved, *found.transfers), key=lambda move: move.step)),
        bound_bytes=found.bound_bytes,
        method=found.method,
        solver=found.solver,
        model_size=found.model_size,
        warm_start=found.warm_start,
        seconds=perf_counter() - started_s,
    )
    if check:
        result.check()
    return result


def _streamed(
    graph: Workload,
    scratchpad_bytes: int,
    plan: WeightPlan,
    options: Options,
    *,
    deadline_s: float,
    known: Schedule | None,
) -> Found:
    """Plan in streamed mode, in the terms of atomic ones."""
    found = streamed_plan(
        graph,
        scratchpad_bytes // options.alignment * options.alignment - plan.resident_bytes,
        order=options.order,
        left_out=plan.left_out,
        tile_reserve_bytes=options.tile_reserve_bytes,
        alignment=options.alignment,
        time_limit_s=max(deadline_s - perf_counter(), 1e-9),
        seed=options.seed,
        known=known,
    )
    return Found(
        order=found.order,
        residency=found.residency,
        transfers=found.transfers,
        bound_bytes=found.bound_bytes,
        method=found.method,
        solver=found.solver,
        model_size="",
        warm_start=known is not None,
    )


def sweep(
    graph: Workload,
    scratchpad_sizes: Iterable[int],
    *,
    on_plan: Callable[[Schedule], None] | None = None,
    **options: Any,
) -> tuple[Schedule, ...]:
    """Schedules for several sizes, ascending; none moves more than that of a smaller size.

    A plan for a smaller scratchpad is a plan for a larger one, so it takes the place of a plan that the
    time limit left worse.

    Parameters
    ----------
    scratchpad_sizes
        Bytes, in any order.
    on_plan
        Called with each plan when it is there.
    options
        Of :func:`schedule`, but for `known`; the time limit is that of each size.

    Raises
    ------
    TypeError, ValueError
        A size or an option is wrong; before the first schedule, unless the option is of a larger size.
    """
    if "known" in options:
        raise TypeError("known is no option of a sweep, which hands each plan to the next size")
    if on_plan is not None and not callable(on_plan):
        raise TypeError(f"on_plan must be a function of a schedule, got {on_plan!r:.80}")
    plans: list[Schedule] = []
    for size in sorted(set(wholes("scratchpad_sizes", scratchpad_sizes))):
        known = plans[-1] if plans and options.get("mode") == "streamed" else None
        plan = schedule(graph, size, known=known, **options)
        if plans and plans[-1].noncompulsory_bytes < plan.noncompulsory_bytes:
            plan = replace(plans[-1], scratchpad_bytes=size, bound_bytes=plan.bound_bytes)
        plans.append(plan)
        if on_plan is not None:
            on_plan(plan)
    return tuple(plans)


def _resident_runs(graph: Workload, plan: WeightPlan) -> list[Run]:
    """Resident weights from address 0 on, for the whole run."""
    runs: list[Run] = []
    address = 0
    for name in plan.resident:
        size = plan.rounded(graph.tensors[name])
        runs.append(Run(tensor=name, start=0, end=len(graph.operators) - 1, address=address, bytes=size))
        address += size
    return runs


def _moved_down(known: Schedule, resident_bytes: int) -> Schedule:
    """`known` with the addresses that its stays have above the resident weights."""
    stays = (replace(run, address=run.address - resident_bytes) for run in known.residency)
    return replace(known, residency=tuple(stays))


def _check_room(
    graph: Workload,
    scratchpad_bytes: int,
    mode: Mode,
    order: Order,
    plan: WeightPlan,
    alignment: int,
    tile_reserve_bytes: int,
) -> None:
    if scratchpad_bytes < alignment:
        what = "" if alignment == 1 else ", the alignment"
        raise ValueError(f"scratchpad_bytes must be at least {alignment}{what}, got {scratchpad_bytes}")
    if mode == "streamed":
        needed = tile_reserve_bytes + plan.resident_bytes
        if scratchpad_bytes // alignment * alignment < needed:
            raise ValueError(
                f"scratchpad_bytes must be at least {needed}, tile reserve and resident weights together, "
                f"got {scratchpad_bytes}"
            )
        return
    check_room(graph, plan, scratchpad_bytes, order=order)
