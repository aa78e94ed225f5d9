"""Runs of a workload on a design's engine: mappings chosen, operators costed.

See ``accel.evaluation`` for what a mapping is made of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count, takewhile

import numpy as np

from accel._units import Units
from accel.cost import OperatorCost, Violation
from accel.mapping.search import (
    Engine,
    Objective,
    Stays,
    Tiled,
    best_tiling,
    best_tilings,
    least_tile_bytes,
    measure_tiling,
)
from accel.mapping.tiling import Layer, Tiling
from accel.movement import scheduled, streamed
from accel.operator_cost import Work, operator_cost
from accel.schedule import Schedule
from accel.schedule.streamed import Kept, keep
from accel.workload import Operator

Tilings = Mapping[str, Tiling]

_LEAST_RESERVE_BYTES = 1024
_RESERVE_STEP = 2  # from one size of the tile reserve to the next
_TRAFFIC = ("balanced", "offchip")  # objectives that look at bytes alone
_ALL_STAY: Stays = (True, True, True)


def run_schedule(
    work: Work, units: Units, schedule: Schedule, given: Tilings, objective: Objective
) -> list[OperatorCost]:
    """Operators in the order of a schedule that holds all their tensors."""
    movements = scheduled(schedule)
    place = {operator.name: step for step, operator in enumerate(work.workload.operators)}
    engine = _without_time(units.engine) if objective in _TRAFFIC else units.engine
    run = []
    for name in schedule.order:
        step = place[name]
        layer = work.layers[step]
        tiled = None
        if layer is not None and name in given:
            tiled = measure_tiling(given[name], layer, engine, stays=_ALL_STAY)
        elif layer is not None:
            tiled = _cached_in_place(layer, engine, objective)
            assert tiled is not None, "a tile of one row and one column needs one sum per column"
        run.append(operator_cost(work, units, step, tiled, movements[name]))
    return run


def run_streamed(
    work: Work, units: Units, given: Tilings, objective: Objective
) -> tuple[list[OperatorCost], tuple[Violation, ...], bool]:
    """Operators in file order, with the plan that suits the objective best.

    Or why there is none; and whether what stays in the scratchpad is the optimum of its plan.
    """
    known: dict[tuple[object, ...], OperatorCost] = {}
    plans = list(_plans(work, units, given, objective))
    if objective != "balanced":  # what stays may be worth more than tilings that take no heed of it
        plans += _plans(work, units, given, "balanced")
    if objective == "offchip":
        timeless = replace(units, engine=_without_time(units.engine))  # bytes do not depend on bandwidth
        plans += (plan for plan in _plans(work, timeless, given, "energy") if _on_grid(plan.reserve_bytes))
    if not plans:
        return [], _why_not(work, units.engine, given), True
    if objective in _TRAFFIC:
        plan = min(plans, key=lambda plan: (plan.offchip_bytes, -plan.reserve_bytes))
    else:
        plan = min(plans, key=lambda plan: _worth(_run(work, units, plan, known), objective))
    run = _run(work, units, plan, known)
    if objective not in _TRAFFIC:
        run = _retiled(work, units, plan, run, given, objective)
    return run, (), plan.kept.method != "greedy"


@dataclass(frozen=True, slots=True)
class _Plan:
    """Tilings that fit one reserve, and the tensors that stay beside them."""

    reserve_bytes: int
    tiled: tuple[Tiled | None, ...]  # by operator
    kept: Kept
    spilled_bytes: int  # partial sums, both ways

    @property
    def offchip_bytes(self) -> int:
        return self.kept.total_bytes + self.spilled_bytes


def _plans(work: Work, units: Units, given: Tilings, objective: Objective) -> Iterator[_Plan]:
    """One plan for each reserve that a tiling of every operator fits."""
    reserves = _reserves(units.engine.tile_bytes)
    by_operator = [
        _tile(operator, layer, units, given.get(operator.name), objective, reserves)
        for operator, layer in zip(work.workload.operators, work.layers, strict=True)
    ]
    for place, reserve_bytes in enumerate(reserves):
        tiled = tuple(found if found is None else found[place] for found in by_operator)
        if all(found is not None or layer is None for found, layer in zip(tiled, work.layers, strict=True)):
            # Where bytes alone count, nothing stays beside a reserve that no larger scratchpad offers:
            # so each finds all plans of the smaller ones.
            beside = objective not in _TRAFFIC or _on_grid(reserve_bytes)
            yield _Plan(
                reserve_bytes,
                tiled,
                *_keep(work, tiled, units.engine.tile_bytes if beside else 0, reserve_bytes),
            )


def _worth(run: Sequence[OperatorCost], objective: Objective) -> tuple[float, float]:
    """What the objective minimises, then what decides between equals."""
    cycles = sum(operator.cycles for operator in run)
    energy_pj = sum(operator.total_pj for operator in run)
    if objective == "energy":
        return energy_pj, cycles
    return (cycles, energy_pj) if objective == "cycles" else (energy_pj * cycles, energy_pj)


def _retiled(
    work: Work, units: Units, plan: _Plan, run: list[OperatorCost], given: Tilings, objective: Objective
) -> list[OperatorCost]:
    """Run in which an operator has another tiling where that is better, now that what stays is known."""
    movements = streamed(work.workload, plan.kept)
    room = units.engine.tile_bytes - plan.kept.resident_bytes
    again = list(run)
    for step, (operator, layer) in enumerate(zip(work.workload.operators, work.layers, strict=True)):
        if layer is None or operator.name in given:
            continue
        moved = movements[operator.name]
        a, w, result = *operator.inputs[:2], operator.outputs[0]
        stays = (a in moved.resident, w in moved.resident, result in moved.resident)
        engine = replace(units.engine, tile_bytes=int(room[step]))
        vector_cycles = -(-operator.vector_ops // engine.columns)
        found = best_tiling(layer, engine, objective, stays=stays, vector_cycles=vector_cycles)
        if found is None:
            continue
        fetched: dict[str, int] = {}
        for name, stay, moved_bytes in ((a, stays[0], found.input_bytes), (w, stays[1], found.weight_bytes)):
            if not stay:
                fetched[name] = fetched.get(name, 0) + moved_bytes
        whole = {name: max(size, work.workload.tensors[name].bytes) for name, size in fetched.items()}
        other = operator_cost(
            work, units, step, found, replace(moved, read_bytes={**moved.read_bytes, **whole})
        )
        again[step] = min(run[step], other, key=lambda cost: _worth([cost], objective))
    return min(run, again, key=lambda found: _worth(found, objective))


def _reserves(scratchpad_bytes: int) -> tuple[int, ...]:
    """Sizes of the tile reserve, ascending: some that do not depend on the scratchpad, and all of it."""
    sizes = (_LEAST_RESERVE_BYTES * _RESERVE_STEP**power for power in count())
    return (*takewhile(lambda size: size < scratchpad_bytes, sizes), scratchpad_bytes)


def _on_grid(reserve_bytes: int) -> bool:
    """Whether larger scratchpads offer this reserve, too."""
    return reserve_bytes in _reserves(reserve_bytes + 1)[:-1]


def _tile(
    operator: Operator,
    layer: Layer | None,
    units: Units,
    given: Tiling | None,
    objective: Objective,
    reserves: tuple[int, ...],
) -> tuple[Tiled | None, ...] | None:
    """Tiling of an operator for each reserve, ``None`` where none fits; ``None`` if it has no product."""
    if layer is None:
        return None
    engine = units.engine
    if given is not None:
        found = measure_tiling(given, layer, engine)
        if found.sums_per_column > engine.sums_per_column:
            return (None,) * len(reserves)
        return tuple(found if found.tile_bytes <= size else None for size in reserves)
    vector_cycles = -(-operator.vector_ops // engine.columns)
    if objective in _TRAFFIC:  # what that choice does not depend on must not spoil the cache
        engine = _without_time(engine)
        vector_cycles = 0
    return _cached_best(layer, engine, objective, reserves, vector_cycles)


@lru_cache(maxsize=4096)
def _without_time(engine: Engine) -> Engine:
    return replace(
        engine, leakage_pj_per_cycle=0.0, offchip_bytes_per_cycle=1.0, port_bits=1, overlap=1.0, mac_pj=0.0
    )


@lru_cache(maxsize=1 << 16)
def _cached_best(
    layer: Layer, engine: Engine, objective: Objective, reserves: tuple[int, ...], vector_cycles: int
) -> tuple[Tiled | None, ...]:
    return best_tilings(layer, engine, objective, reserves, vector_cycles=vector_cycles)


@lru_cache(maxsize=1 << 16)
def _cached_in_place(layer: Layer, engine: Engine, objective: Objective) -> Tiled | None:
    """Best tiling where all tensors of the operator lie in the scratchpad."""
    return best_tiling(layer, engine, objective, stays=_ALL_STAY)


def _keep(
    work: Work, tiled: Sequence[Tiled | None], scratchpad_bytes: int, reserve_bytes: int
) -> tuple[Kept, int]:
    """Whole tensors that stay beside the tiles of each operator, and bytes of spilled partial sums.

    None stays where `scratchpad_bytes` is 0. Optimal where the graph is narrow enough for a dynamic
    program, greedy where it is not.
    """
    base = work.streaming
    costs = np.zeros_like(base.streamed_bytes)
    # Element-wise operators stream through the least reserve.
    tiles = np.full(len(tiled), min(reserve_bytes, _LEAST_RESERVE_BYTES), dtype=np.int64)
    spills = 0
    for step, found in enumerate(tiled):
        if found is not None:
            tiles[step] = found.tile_bytes
            for uses, moved in (
                (work.a_use, found.input_bytes),
                (work.w_use, found.weight_bytes),
                (work.o_use, found.result_bytes),
            ):
                if uses[step] >= 0:
                    costs[uses[step]] += moved
            spills += 2 * found.spill_bytes
    problem = replace(
        base,
        # A tensor of which an operator reads a part is still fetched whole.
        streamed_bytes=np.maximum(costs, base.streamed_bytes),
        capacity_bytes=np.maximum(0, scratchpad_bytes - tiles),
    )
    return keep(problem, backend="greedy"), spills


def _why_not(work: Work, engine: Engine, given: Tilings) -> tuple[Violation, ...]:
    """Constraints that keep operators from running with the whole scratchpad to themselves."""
    found = []
    for operator, layer in zip(work.workload.operators, work.layers, strict=True):
        if layer is None:
            continue
        if (tiling := given.get(operator.name)) is not None:
            measured = measure_tiling(tiling, layer, engine)
            needed = measured.tile_bytes
            if measured.sums_per_column > engine.sums_per_column:
                found.append(
                    Violation(
                        constraint="accumulator_bytes",
                        needed=measured.sums_per_column,
                        available=engine.sums_per_column,
                        unit="sums per column",
                        where=operator.name,
                    )
                )
        else:
            needed = least_tile_bytes(layer, engine)
        if needed > engine.tile_bytes:
            found.append(
                Violation(
                    constraint="scratchpad_bytes",
                    needed=needed,
                    available=engine.tile_bytes,
                    unit="bytes",
                    where=operator.name,
                )
            )
    return tuple(found)


def _run(
    work: Work, units: Units, plan: _Plan, known: dict[tuple[object, ...], OperatorCost]
) -> list[OperatorCost]:
    """Operators of one plan; plans of one design share those that they treat alike, in `known`."""
    movements = streamed(work.workload, plan.kept)
    run = []
    for step, (operator, found) in enumerate(zip(work.workload.operators, plan.tiled, strict=True)):
        tiling, moved = found.tiling if found else None, movements[operator.name]
        key = (step, tiling, moved.resident, *moved.read_bytes.items(), None, *moved.written_bytes.items())
        if key not in known:
            known[key] = operator_cost(work, units, step, found, moved)
        run.append(known[key])
    return run
