"""Replay of a schedule, apart from everything that makes one.

Nothing here knows the models or the placement: it reads the workload and the plan, runs the plan on
an imaginary machine, and says what breaks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accel.schedule.plan import Run, Schedule


class ScheduleError(ValueError):
    """A schedule breaks a rule of the machine."""


def check_schedule(schedule: Schedule) -> None:
    """Raise :class:`ScheduleError` unless `schedule` can run and moves the bytes it lists."""
    graph, alignment = schedule.workload, schedule.alignment
    size = {name: -(-tensor.bytes // alignment) * alignment for name, tensor in graph.tensors.items()}
    step = _check_order(schedule)
    _check_blocks(schedule, size)
    _check_operands(schedule, size)
    _check_transfers(schedule, size, step)
    if not 0 <= schedule.bound_bytes <= schedule.noncompulsory_bytes:
        raise ScheduleError(
            f"bound_bytes must be in 0..{schedule.noncompulsory_bytes}, the non-compulsory bytes of the "
            f"plan, got {schedule.bound_bytes}"
        )


def _check_order(schedule: Schedule) -> dict[str, int]:
    """Find the step of each operator: each runs once, after the producers of what it reads."""
    graph = schedule.workload
    wanted, given = Counter(op.name for op in graph.operators), Counter(schedule.order)
    if wanted != given:
        odd = sorted((wanted - given) + (given - wanted))[0]
        raise ScheduleError(f"operator {odd} must run {wanted[odd]} times, runs {given[odd]} times")
    step = {name: t for t, name in enumerate(schedule.order)}
    for op in graph.operators:
        for tensor in op.inputs:
            if (producer := graph.producer.get(tensor)) and step[producer.name] >= step[op.name]:
                raise ScheduleError(
                    f"operator {op.name} at step {step[op.name]} reads {tensor}, which {producer.name} "
                    f"produces at step {step[producer.name]}"
                )
    return step


def _check_blocks(schedule: Schedule, size: Mapping[str, int]) -> None:
    """Every block in bounds, aligned, whole, and apart from all others at the same time."""
    for run in schedule.residency:
        where = f"{run.tensor} at steps {run.start}..{run.end}"
        if run.tensor not in size:
            raise ScheduleError(f"{where} is no tensor of the workload")
        if not 0 <= run.start <= run.end < len(schedule.order):
            raise ScheduleError(f"{where} leaves the steps 0..{len(schedule.order) - 1}")
        if run.bytes != size[run.tensor] or run.bytes == 0:
            raise ScheduleError(f"{where} must take {size[run.tensor]} bytes, takes {run.bytes}")
        if run.address % schedule.alignment:
            raise ScheduleError(f"{where} has address {run.address}, no multiple of {schedule.alignment}")
        if run.address < 0 or run.address + run.bytes > schedule.scratchpad_bytes:
            raise ScheduleError(
                f"{where} takes [{run.address}, {run.address + run.bytes}) of a scratchpad of "
                f"{schedule.scratchpad_bytes} bytes"
            )
    for t in range(len(schedule.order)):
        present = sorted(
            (run for run in schedule.residency if run.start <= t <= run.end), key=lambda run: run.address
        )
        for low, high in pairwise(present):
            if low.address + low.bytes > high.address:
                raise ScheduleError(
                    f"{low.tensor} and {high.tensor} overlap at step {t}: [{low.address}, "
                    f"{low.address + low.bytes}) and [{high.address}, {high.address + high.bytes})"
                )
        if twice := [name for name, count in Counter(run.tensor for run in present).items() if count > 1]:
            raise ScheduleError(f"{twice[0]} is in the scratchpad twice at step {t}")


def _check_operands(schedule: Schedule, size: Mapping[str, int]) -> None:
    """Everything an operator reads or writes is there while it runs."""
    operators = {op.name: op for op in schedule.workload.operators}
    for t, name in enumerate(schedule.order):
        present = {run.tensor for run in schedule.residency if run.start <= t <= run.end}
        for tensor in (*operators[name].inputs, *operators[name].outputs):
            if size[tensor] and tensor not in present:
                raise ScheduleError(f"operator {name} at step {t} needs {tensor}, which is not resident")


def _check_transfers(schedule: Schedule, size: Mapping[str, int], step: Mapping[str, int]) -> None:
    """Every stay begins with a production or a fetch of valid data; nothing else moves."""
    graph = schedule.workload
    for move in schedule.transfers:
        what = f"{move.kind} of {move.tensor} at step {move.step}"
        if not 0 <= move.step < len(schedule.order):
            raise ScheduleError(f"{what} leaves the steps 0..{len(schedule.order) - 1}")
        if move.bytes != size.get(move.tensor):
            raise ScheduleError(f"{what} must move {size.get(move.tensor)} bytes, moves {move.bytes}")
        if not move.bytes:
            raise ScheduleError(f"{what} moves nothing")
    listed = Counter((move.kind, move.tensor, move.step) for move in schedule.transfers)
    if repeated := [key for key, count in listed.items() if count > 1]:
        kind, tensor, at = repeated[0]
        raise ScheduleError(f"{kind} of {tensor} at step {at} is listed twice")
    for tensor, bytes_ in size.items():
        if not bytes_:
            continue
        made = step[graph.producer[tensor].name] if tensor in graph.producer else None
        stays = sorted((run for run in schedule.residency if run.tensor == tensor), key=lambda r: r.start)
        moves = {
            kind: sorted(
                move.step for move in schedule.transfers if (move.kind, move.tensor) == (kind, tensor)
            )
            for kind in ("load", "refetch", "spill", "store")
        }
        if made is not None and (not stays or stays[0].start != made):
            raise ScheduleError(f"{tensor} must be resident first at step {made}, where it is produced")
        fetches = [run.start for run in stays if run.start != made]
        loads = fetches[:1] if made is None else []
        for kind, expected in (("load", loads), ("refetch", fetches[len(loads) :])):
            if moves[kind] != expected:
                raise ScheduleError(
                    f"{tensor} needs a {kind} at steps {expected}, where its stays begin, and has "
                    f"{moves[kind]}"
                )
        is_output = tensor in graph.outputs and made is not None
        _check_stores(tensor, stays, moves, is_output=is_output, has_copy=is_output or made is None)


def _check_stores(
    tensor: str, stays: list[Run], moves: Mapping[str, list[int]], *, is_output: bool, has_copy: bool
) -> None:
    """Require one store of a graph output, one spill of another tensor before its first refetch."""
    if len(moves["store"]) != is_output:
        raise ScheduleError(f"{tensor} must be stored {int(is_output)} times, has {len(moves['store'])}")
    needed = bool(moves["refetch"]) and not has_copy
    if len(moves["spill"]) != needed:
        raise ScheduleError(f"{tensor} must be spilled {int(needed)} times, has {len(moves['spill'])}")
    for at in (*moves["spill"], *moves["store"]):
        if not any(run.start <= at <= run.end for run in stays):
            raise ScheduleError(f"{tensor} is written off chip after step {at}, where it is not resident")
        if moves["refetch"] and at >= moves["refetch"][0]:
            raise ScheduleError(
                f"{tensor} is fetched before step {moves['refetch'][0]}, but written off chip only after "
                f"step {at}"
            )
