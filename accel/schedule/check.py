"""Replay of a schedule, apart from everything that makes one.

Nothing here knows the models or the placement: it reads the workload and the plan, runs the plan on
an imaginary machine, and says what breaks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accel.schedule.plan import Run, Schedule
    from accel.workload import Operator

_KINDS = ("load", "refetch", "spill", "store")


class ScheduleError(ValueError):
    """A schedule breaks a rule of the machine."""


def check_schedule(schedule: Schedule) -> None:
    """Raise :class:`ScheduleError` unless `schedule` can run and moves the bytes it lists."""
    _Replay(schedule).run()


@dataclass(frozen=True, slots=True)
class _Part:
    """What a tensor takes part in: its size, and whether it lies in the scratchpad."""

    bytes: int
    is_streamed_weight: bool
    is_resident_weight: bool


class _Replay:
    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.graph = schedule.workload
        self.steps = len(schedule.order)
        self.operators = {op.name: op for op in self.graph.operators}
        self.readers: dict[str, list[Operator]] = {}
        for op in self.graph.operators:
            for name in dict.fromkeys(op.inputs):
                self.readers.setdefault(name, []).append(op)
        self.parts = {name: self._part(name) for name in self.graph.tensors}

    def _part(self, name: str) -> _Part:
        plan, tensor = self.schedule, self.graph.tensors[name]
        padded = -(-tensor.bytes // plan.alignment) * plan.alignment
        is_weight = tensor.role.is_parameter and name in self.graph.inputs and name in self.readers
        stays = plan.weights == "resident" and name in plan.resident
        passes = plan.weights == "streamed" or (plan.weights == "resident" and not stays)
        return _Part(padded, is_weight and passes, is_weight and stays)

    def run(self) -> None:
        schedule = self.schedule
        self._check_options()
        self.step = self._check_order()
        self._check_blocks()
        if schedule.mode == "atomic":
            self._check_operands()
        self._check_transfers()
        if not 0 <= schedule.bound_bytes <= schedule.noncompulsory_bytes:
            raise ScheduleError(
                f"bound_bytes must be in 0..{schedule.noncompulsory_bytes}, the non-compulsory bytes of the "
                f"plan, got {schedule.bound_bytes}"
            )

    def _check_options(self) -> None:
        schedule = self.schedule
        for name, value, allowed in (
            ("mode", schedule.mode, ("atomic", "streamed")),
            ("weights", schedule.weights, ("streamed", "tracked", "resident")),
        ):
            if value not in allowed:
                raise ScheduleError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
        for name in schedule.resident:
            if name not in self.parts or not self.parts[name].is_resident_weight:
                raise ScheduleError(f"{name} is resident, but no parameter that the workload reads")
        limit = schedule.scratchpad_bytes if schedule.mode == "streamed" else 0
        if not 0 <= schedule.tile_reserve_bytes <= limit:
            raise ScheduleError(
                f"tile_reserve_bytes must be in 0..{limit}, got {schedule.tile_reserve_bytes}"
            )

    def _check_order(self) -> dict[str, int]:
        """Find the step of each operator: each runs once, after the producers of what it reads."""
        graph, schedule = self.graph, self.schedule
        wanted, given = Counter(op.name for op in graph.operators), Counter(schedule.order)
        if wanted != given:
            odd = sorted((wanted - given) + (given - wanted))[0]
            raise ScheduleError(f"operator {odd} must run {wanted[odd]} times, runs {given[odd]} times")
        step = {name: t for t, name in enumerate(schedule.order)}
        made_by = {name: op.name for op in graph.operators for name in op.outputs}
        for op in graph.operators:
            for tensor in op.inputs:
                producer = made_by.get(tensor)
                if producer is not None and step[producer] >= step[op.name]:
                    raise ScheduleError(
                        f"operator {op.name} at step {step[op.name]} reads {tensor}, which {producer} "
                        f"produces at step {step[producer]}"
                    )
        self.made = {name: step[op] for name, op in made_by.items()}
        return step

    def _check_blocks(self) -> None:
        """Every block in bounds, aligned, whole, and apart from all others at the same time."""
        schedule = self.schedule
        top = schedule.scratchpad_bytes - schedule.tile_reserve_bytes
        for run in schedule.residency:
            where = f"{run.tensor} at steps {run.start}..{run.end}"
            if run.tensor not in self.parts:
                raise ScheduleError(f"{where} is no tensor of the workload")
            part = self.parts[run.tensor]
            if not 0 <= run.start <= run.end < self.steps:
                raise ScheduleError(f"{where} leaves the steps 0..{self.steps - 1}")
            if part.is_streamed_weight:
                raise ScheduleError(f"{where} is a streamed weight, which has no block")
            if run.bytes != part.bytes or run.bytes == 0:
                raise ScheduleError(f"{where} must take {part.bytes} bytes, takes {run.bytes}")
            if run.address % schedule.alignment:
                raise ScheduleError(f"{where} has address {run.address}, no multiple of {schedule.alignment}")
            if run.address < 0 or run.address + run.bytes > top:
                raise ScheduleError(
                    f"{where} takes [{run.address}, {run.address + run.bytes}) of a scratchpad of {top} bytes"
                )
        present: list[list[Run]] = [[] for _ in range(self.steps)]
        for run in schedule.residency:
            for t in range(run.start, run.end + 1):
                present[t].append(run)
        for t, runs in enumerate(present):
            self._check_step(t, sorted(runs, key=lambda run: (run.address, -run.bytes)))
        self.present = [{run.tensor for run in runs} for runs in present]

    def _check_step(self, t: int, runs: Sequence[Run]) -> None:
        """No tensor twice at step `t`, no two blocks over each other but one taken over in place."""
        counts = Counter(run.tensor for run in runs)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise ScheduleError(f"{twice[0]} is in the scratchpad twice at step {t}")
        kept: list[Run] = []
        for run in runs:
            if kept and self._takes_over(t, kept[-1], run):
                continue
            if kept and self._takes_over(t, run, kept[-1]):
                kept[-1] = run
                continue
            kept.append(run)
        for low, high in pairwise(kept):
            if low.address + low.bytes > high.address:
                raise ScheduleError(
                    f"{low.tensor} and {high.tensor} overlap at step {t}: [{low.address}, "
                    f"{low.address + low.bytes}) and [{high.address}, {high.address + high.bytes})"
                )

    def _takes_over(self, t: int, old: Run, new: Run) -> bool:
        """Whether the operator at step `t` may write `new` into the block of `old`, which dies there."""
        op = self.operators[self.schedule.order[t]]
        return (
            op.in_place
            and old.tensor in op.inputs
            and new.tensor in op.outputs
            and old.tensor not in self.graph.outputs
            and old.end == t
            and all(self.step[reader.name] <= t for reader in self.readers[old.tensor])
            and not self.parts[old.tensor].is_resident_weight
            and old.address <= new.address
            and new.address + new.bytes <= old.address + old.bytes
        )

    def _check_operands(self) -> None:
        """Everything an operator reads or writes is there while it runs, but for streamed weights."""
        for t, name in enumerate(self.schedule.order):
            op = self.operators[name]
            for tensor in (*op.inputs, *op.outputs):
                part = self.parts[tensor]
                if part.bytes and not part.is_streamed_weight and tensor not in self.present[t]:
                    raise ScheduleError(
                        f"operator {op.name} at step {t} needs {tensor}, which is not resident"
                    )

    def _check_transfers(self) -> None:
        """Every stay begins with a production or a fetch of valid data; nothing else moves."""
        schedule = self.schedule
        for move in schedule.transfers:
            what = f"{move.kind} of {move.tensor} at step {move.step}"
            if move.tensor not in self.parts:
                raise ScheduleError(f"{what} moves no tensor of the workload")
            if move.kind not in _KINDS:
                raise ScheduleError(f"{what} must be one of {', '.join(_KINDS)}")
            if not 0 <= move.step < self.steps:
                raise ScheduleError(f"{what} leaves the steps 0..{self.steps - 1}")
            if move.bytes != self.parts[move.tensor].bytes:
                raise ScheduleError(
                    f"{what} must move {self.parts[move.tensor].bytes} bytes, moves {move.bytes}"
                )
            if not move.bytes:
                raise ScheduleError(f"{what} moves nothing")
        listed = Counter((move.kind, move.tensor, move.step) for move in schedule.transfers)
        if repeated := [key for key, count in listed.items() if count > 1]:
            kind, tensor, at = repeated[0]
            raise ScheduleError(f"{kind} of {tensor} at step {at} is listed twice")
        moves: dict[str, dict[str, list[int]]] = {
            name: {kind: [] for kind in _KINDS} for name in self.graph.tensors
        }
        for move in sorted(schedule.transfers, key=lambda move: move.step):
            moves[move.tensor][move.kind].append(move.step)
        stays: dict[str, list[Run]] = {name: [] for name in self.graph.tensors}
        for run in sorted(schedule.residency, key=lambda run: run.start):
            stays[run.tensor].append(run)
        for name, part in self.parts.items():
            if part.is_resident_weight:
                self._check_resident_weight(name, stays[name], moves[name])
            elif part.bytes:
                self._check_tensor(name, stays[name], moves[name])

    def _check_resident_weight(
        self, name: str, stays: Sequence[Run], moves: Mapping[str, Sequence[int]]
    ) -> None:
        """There from the first step to the last, in one block, without traffic."""
        if self.parts[name].bytes and [(run.start, run.end) for run in stays] != [(0, self.steps - 1)]:
            raise ScheduleError(f"resident weight {name} must have one stay, 0..{self.steps - 1}")
        if any(moves.values()):
            raise ScheduleError(f"resident weight {name} must not move")

    def _check_tensor(self, name: str, stays: Sequence[Run], moves: Mapping[str, Sequence[int]]) -> None:
        """Fetches where data must come from off chip, a copy off chip before the first that needs one."""
        made = self.made.get(name)
        if made is not None:
            first = stays[0].start if stays else self.steps
            if first != made if self.schedule.mode == "atomic" else first < made:
                raise ScheduleError(f"{name} must be resident first at step {made}, where it is produced")
        fetches = self._fetches(name, stays)
        loads = fetches[:1] if made is None else []
        for kind, expected in (("load", loads), ("refetch", fetches[len(loads) :])):
            if list(moves[kind]) != expected:
                raise ScheduleError(
                    f"{name} needs a {kind} at steps {expected}, where its stays begin or it is streamed, "
                    f"and has {list(moves[kind])}"
                )
        self._check_stores(name, stays, moves)

    def _fetches(self, name: str, stays: Sequence[Run]) -> list[int]:
        """Steps before which the tensor must come from off chip."""
        made = self.made.get(name)
        found = {run.start for run in stays if run.start != made}
        reads = sorted(self.step[op.name] for op in self.readers.get(name, ()))
        if self.parts[name].is_streamed_weight:
            return reads[:1]  # however many operators share it
        if self.schedule.mode == "streamed":
            found.update(t for t in reads if not any(run.start <= t <= run.end for run in stays))
        return sorted(found)

    def _check_stores(self, name: str, stays: Sequence[Run], moves: Mapping[str, Sequence[int]]) -> None:
        """Require one store of a graph output, one spill of another tensor before its first refetch."""
        made = self.made.get(name)
        is_output = made is not None and name in self.graph.outputs
        if len(moves["store"]) != is_output:
            raise ScheduleError(f"{name} must be stored {int(is_output)} times, has {len(moves['store'])}")
        needed = bool(moves["refetch"]) and made is not None and not is_output
        if len(moves["spill"]) != needed:
            raise ScheduleError(f"{name} must be spilled {int(needed)} times, has {len(moves['spill'])}")
        for at in (*moves["spill"], *moves["store"]):
            is_there = any(run.start <= at <= run.end for run in stays)
            if not is_there and not (self.schedule.mode == "streamed" and at == made):
                raise ScheduleError(f"{name} is written off chip after step {at}, where it is not resident")
            if moves["refetch"] and at >= moves["refetch"][0]:
                raise ScheduleError(
                    f"{name} is fetched before step {moves['refetch'][0]}, but written off chip only after "
                    f"step {at}"
                )
