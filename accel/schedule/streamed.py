"""Which whole tensors stay in the scratchpad between operators, where all others are streamed in tiles.

Operators run in a fixed order. What is not resident passes through a tile reserve, and costs what the
operator's tiling makes it cost, which may be more than its size. Between two uses of a tensor lies a
*gap*; keeping the gap holds the whole tensor, at both uses and at every step between them, against the
capacity that the tile reserve leaves. Keeping a tensor for a part of a gap saves nothing.

- A use inside or at the end of a residency costs nothing; one that begins a residency brings the tensor
  in once, whole; any other is streamed.
- A produced tensor is stored at its production if it is a graph output or if some gap of it is dropped:
  written through whole where a residency begins there, else streamed. Tensors do not change, so a later
  drop is free. A tensor that nobody reads and that is no output costs nothing.

Costs are in bytes. The plan is of least total, and of those of least byte-steps: bytes times steps of
residency. (Where the integer program chooses, of the fewest that a limited search finds.) Only
capacities are kept here: addresses, and whether the residencies can be laid out without gaps between
them, are the business of the schedules with addresses.

This is the gap model of replacement with known future, extended to streamed operands; capacity and
tile reserve together make up the scratchpad of [COSMA]_, whose operators hold all operands instead.

References
----------
.. [COSMA] Y. Li, A. Gupta, S. Malik, "COSMA", arXiv 2311.18246, 2023: order, residency, placement.
"""

from __future__ import annotations

from time import perf_counter
from typing import Literal, TypeAlias, get_args

import numpy as np

from accel.schedule._streaming import dynamic_program, gap_program
from accel.schedule._streaming.kept import KeepMethod, Kept, Residency
from accel.schedule._streaming.problem import Streaming, Use, streaming_of

__all__ = ["Backend", "KeepMethod", "Kept", "Residency", "Streaming", "Use", "keep", "streaming_of"]

Backend: TypeAlias = Literal["auto", "dynamic-program", "integer-program", "greedy"]

_MOST_WORK = 400_000  # states of a dynamic program, over all its decisions, before the other takes over
_MOST_WORK_ALONE = 4_000_000  # where there is no other


def keep(
    problem: Streaming,
    *,
    time_limit_s: float = 10.0,
    tolerance: float = 0.0,
    backend: Backend = "auto",
) -> Kept:
    """Gaps to keep for the least total.

    Parts of the problem that share no step at which the capacity binds are chosen apart: each by a
    dynamic program over steps, or, where that would hold too many sets of gaps at once, by an integer
    program.

    Parameters
    ----------
    time_limit_s
        Of the integer programs together, by the clock. A plan is returned in any case, with the bound
        reached by then; plans are reproducible as long as the limit is not met.
    tolerance
        Share of the least total by which a plan of the integer programs may exceed it, 0..1: with a
        little of it they take a fraction of the time. The dynamic program is always exact.
    backend
        ``"dynamic-program"`` or ``"integer-program"`` forces one engine, to compare the two. ``"greedy"``
        leaves the integer programs out: a plan at once, the same on every machine, whose bound is what no
        plan can avoid.

    Raises
    ------
    ValueError
        An option is out of range, or the dynamic program that is asked for would need too many states.

    Examples
    --------
    A block with a skip connection: ``b = f(a)``, ``c = g(b)``, ``d = a + c``.

    >>> steps = {"x": (0,), "a": (0, 1, 3), "b": (1, 2), "c": (2, 3), "d": (3,)}
    >>> sizes = {"x": 4, "a": 8, "b": 12, "c": 8, "d": 8}
    >>> costs = {
    ...     Use(name, step, name != "x" and i == 0): sizes[name]
    ...     for name, found in steps.items()
    ...     for i, step in enumerate(found)
    ... }
    >>> for capacity_bytes in (7, 12, 20, 28):
    ...     plan = keep(Streaming.from_uses(sizes, costs, capacity_bytes, outputs=["d"]))
    ...     print(plan.total_bytes, *((stay.tensor, stay.start, stay.end) for stay in plan.residency))
    76
    52 ('b', 1, 2)
    28 ('a', 0, 3) ('b', 1, 2)
    12 ('a', 0, 3) ('b', 1, 2) ('c', 2, 3)
    """
    started_s = perf_counter()
    if not time_limit_s > 0:
        raise ValueError(f"time_limit_s must be above 0, got {time_limit_s}")
    if not 0 <= tolerance <= 1:
        raise ValueError(f"tolerance must be in 0..1, got {tolerance}")
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}, got {backend!r}")
    most_work = {"dynamic-program": _MOST_WORK_ALONE, "integer-program": 0}.get(backend, _MOST_WORK)
    kept, fate, is_left = dynamic_program.solve(
        problem.size_bytes,
        problem.first,
        problem.step,
        problem.streamed_bytes,
        problem.is_produced,
        problem.is_output,
        problem.capacity_bytes,
        most_work,
    )
    method: KeepMethod = "fits" if is_left.size == 0 else "dynamic-program"
    solver, missing = "none", 0
    if is_left.any() and backend == "greedy":
        method = "greedy"
        missing = int(problem.costs(kept).sum()) - problem.compulsory_bytes
    elif is_left.any():
        if backend == "dynamic-program":
            raise ValueError(
                f"backend 'dynamic-program' takes at most {_MOST_WORK_ALONE} states, this problem needs more"
            )
        chosen = gap_program.solve_parts(
            problem,
            kept,
            fate,
            np.flatnonzero(is_left),
            deadline_s=perf_counter() + time_limit_s,
            tolerance=tolerance,
        )
        kept, missing, solver = chosen.kept, chosen.missing_bytes, gap_program.SOLVER
        method = "greedy" if chosen.is_greedy else "integer-program"
    kept.setflags(write=False)
    total_bytes = int(problem.costs(kept).sum())
    return Kept(
        problem=problem,
        kept=kept,
        bound_bytes=total_bytes - missing,
        method=method,
        solver=solver,
        seconds=perf_counter() - started_s,
    )
