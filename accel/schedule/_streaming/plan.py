"""Plans in streamed mode: order, stays with addresses, and transfers.

A use of a tensor that is not in the scratchpad streams it through the tile reserve, at its size. For a
given order the plan is the optimum over all gaps to keep and all addresses; for a free order it is the
best over some orders.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Literal, Protocol

import numpy as np

from accel.schedule._clock import Clock
from accel.schedule._streaming.kept import KeepMethod, Kept
from accel.schedule._streaming.layout import PlacedKept, load_first
from accel.schedule._streaming.orders import free_bound_bytes, likely_orders
from accel.schedule._streaming.placement import KnownStays, keep_placed
from accel.schedule.plan import Run, Transfer, TransferKind
from accel.schedule.streamed import Streaming, streaming_of
from accel.workload import Workload


class KnownPlan(Protocol):
    """Order and stays of a plan, as a schedule has them."""

    @property
    def order(self) -> tuple[str, ...]:
        """Operator names by step."""

    @property
    def residency(self) -> tuple[Run, ...]:
        """Stays, of tensors that take no part as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedPlan:
    """What a schedule in streamed mode is made of; tensors that are left out appear nowhere.

    Attributes
    ----------
    order
        Operator names by step.
    residency
        Stays in the scratchpad below the tile reserve, by tensor, then by start.
    transfers
        By step; within one step fetches come before stores.
    bound_bytes
        No plan (in this order, where it was given) has less non-compulsory traffic.
    method
        What chose the gaps to keep, see :class:`accel.schedule.streamed.Kept`.
    solver
        Name and version of the integer program's solver, ``"none"`` without one.
    """

    order: tuple[str, ...]
    residency: tuple[Run, ...]
    transfers: tuple[Transfer, ...]
    bound_bytes: int
    method: KeepMethod
    solver: str

    @property
    def noncompulsory_bytes(self) -> int:
        """Spills and refetches."""
        return sum(move.bytes for move in self.transfers if move.kind in ("spill", "refetch"))


def streamed_plan(
    graph: Workload,
    scratchpad_bytes: int,
    *,
    order: Literal["given", "free"] = "given",
    left_out: Collection[str] = (),
    tile_reserve_bytes: int = 0,
    alignment: int = 1,
    time_limit_s: float = 60.0,
    seed: int = 0,
    known: KnownPlan | None = None,
    orders: Sequence[Sequence[str]] = (),
) -> StreamedPlan:
    """Plan of least non-compulsory traffic in streamed mode.

    Parameters
    ----------
    order
        ``"given"``: as the operators are listed. ``"free"``: the best of some orders; its bound holds
        for every order, and is mostly below the plan.
    left_out
        Tensors that take no part.
    tile_reserve_bytes
        At the top of the scratchpad, where no stay lies.
    alignment
        Sizes are rounded up to it, addresses are multiples of it.
    time_limit_s
        Seconds, by the clock; a plan is returned in any case, with the bound reached by then. Plans are
        reproducible as long as the limit is not met.
    known
        A plan for this graph, such as that for a smaller scratchpad: the result is not worse if its stays
        lie in the capacity.
    orders
        Further orders to try where the order is free.

    Raises
    ------
    ValueError
        An option is out of range, `known` or `orders` do not fit the graph, or the graph's operators do
        not have a name each.
    """
    started_s = perf_counter()
    names = tuple(operator.name for operator in graph.operators)
    _check_options(names, scratchpad_bytes, order, tile_reserve_bytes, alignment, time_limit_s)
    capacity = (scratchpad_bytes - tile_reserve_bytes) // alignment * alignment
    problem = streaming_of(graph, capacity_bytes=capacity, left_out=left_out, alignment=alignment)
    clock = Clock(started_s + time_limit_s)
    clock.load(load_first)
    candidates = [tuple(range(len(names)))]
    known_order = None if known is None else _indices(graph, known.order)
    if order == "free":
        given = [*candidates, *(_indices(graph, listed) for listed in orders)]
        if known_order is not None:
            given.append(known_order)
        candidates = likely_orders(graph, problem, given, seed=seed, deadline_s=clock.share(0.5))
        if known_order is not None and known_order not in candidates:
            candidates.append(known_order)
    best: tuple[tuple[int, ...], PlacedKept] | None = None
    for done, candidate in enumerate(candidates):
        if best is not None and best[1].kept.total_bytes == problem.compulsory_bytes:
            break
        reordered = streaming_of(
            graph, capacity_bytes=capacity, left_out=left_out, alignment=alignment, order=candidate
        )
        stays = known.residency if known is not None and known_order == candidate else None
        found = keep_placed(
            reordered,
            capacity,
            Clock(clock.share(1 / (len(candidates) - done)), clock),
            seed=seed,
            known=None if stays is None else _known_stays(reordered, stays, capacity),
        )
        if best is None or found.kept.total_bytes < best[1].kept.total_bytes:
            best = candidate, found
    assert best is not None
    chosen, found = best
    bound_bytes = found.kept.bound_bytes - problem.compulsory_bytes
    if order == "free" and bound_bytes:
        bound_bytes = min(
            found.kept.total_bytes - problem.compulsory_bytes,
            free_bound_bytes(problem, time_limit_s=max(1e-3, clock.deadline_s - perf_counter())),
        )
    return StreamedPlan(
        order=tuple(names[i] for i in chosen),
        residency=tuple(
            Run(tensor=stay.tensor, start=stay.start, end=stay.end, address=address, bytes=stay.bytes)
            for stay, address in zip(found.kept.residency, found.addresses.tolist(), strict=True)
        ),
        transfers=_transfers(found.kept),
        bound_bytes=bound_bytes,
        method=found.kept.method,
        solver=found.kept.solver,
    )


def _transfers(kept: Kept) -> tuple[Transfer, ...]:
    """Loads and stores of whole tensors and of those that are streamed, by step, fetches first."""
    problem = kept.problem
    is_first = np.zeros(problem.step.size, np.bool_)
    is_first[problem.first[:-1]] = True
    moves: list[tuple[int, bool, int, TransferKind]] = []
    for i in np.flatnonzero(kept.cost_bytes).tolist():
        v, writes = int(problem.owner[i]), bool(problem.writes[i])
        kind: TransferKind
        if writes:
            kind = "store" if problem.is_output[v] else "spill"
        else:
            kind = "load" if is_first[i] else "refetch"
        moves.append((int(problem.step[i]), writes, v, kind))
    return tuple(
        Transfer(step=step, tensor=problem.tensors[v], bytes=int(problem.size_bytes[v]), kind=kind)
        for step, _, v, kind in sorted(moves)
    )


def _known_stays(problem: Streaming, runs: Iterable[Run], capacity_bytes: int) -> KnownStays | None:
    """What `runs` keep of `problem`; ``None`` if they do not lie in its capacity."""
    index = {name: v for v, name in enumerate(problem.tensors)}
    mine = [run for run in runs if run.tensor in index]
    kept = np.zeros(problem.step.size, np.bool_)
    addresses = []
    for run in sorted(mine, key=lambda run: (index[run.tensor], run.start)):
        v = index[run.tensor]
        if run.bytes != problem.size_bytes[v]:
            raise ValueError(
                f"{run.tensor} takes {problem.size_bytes[v]} bytes here, {run.bytes} in the known plan"
            )
        gaps = [
            i
            for i in range(int(problem.first[v]), int(problem.first[v + 1]) - 1)
            if run.start <= problem.step[i] and problem.step[i + 1] <= run.end
        ]
        if gaps:
            kept[gaps] = True
            addresses.append(run.address)
            if run.address + run.bytes > capacity_bytes:
                return None
    return KnownStays(kept=kept, addresses=np.array(addresses, np.int64))


def _indices(graph: Workload, order: Sequence[str]) -> tuple[int, ...]:
    """Operators of `order` by index; it must be one in which they can run."""
    index = {operator.name: i for i, operator in enumerate(graph.operators)}
    counts = Counter(order)
    if odd := sorted(name for name in {*index, *counts} if name not in index or counts[name] != 1):
        raise ValueError(f"an order must name each of {len(index)} operators once, {odd[0]!r} is not")
    place = {name: step for step, name in enumerate(order)}
    for operator in graph.operators:
        for name in operator.inputs:
            maker = graph.producer.get(name)
            if maker is not None and place[maker.name] > place[operator.name]:
                raise ValueError(f"operator {operator.name} reads {name} and cannot run before {maker.name}")
    return tuple(index[name] for name in order)


def _check_options(
    names: Sequence[str],
    scratchpad_bytes: int,
    order: str,
    tile_reserve_bytes: int,
    alignment: int,
    time_limit_s: float,
) -> None:
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"operator names must differ, got {repeated[0]} {names.count(repeated[0])} times")
    if order not in ("given", "free"):
        raise ValueError(f"order must be one of given, free; got {order!r}")
    if alignment < 1:
        raise ValueError(f"alignment must be at least 1, got {alignment}")
    if not time_limit_s > 0:
        raise ValueError(f"time_limit_s must be above 0, got {time_limit_s}")
    if not 0 <= tile_reserve_bytes <= scratchpad_bytes:
        raise ValueError(
            f"tile_reserve_bytes must be in 0..{scratchpad_bytes}, the bytes of the scratchpad, "
            f"got {tile_reserve_bytes}"
        )
