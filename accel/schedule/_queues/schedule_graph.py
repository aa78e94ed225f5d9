"""The tasks of a schedule: operators and transfers, and what each must wait for.

Conditions follow data and memory:

- an operator waits for the operators whose results it finds in the scratchpad, and for the fetches of
  its other operands; a fetch of a spilled tensor waits for the spill;
- a spill or a store waits for the operator of its step;
- a block is free once all that use its earlier occupants have ended: operators, fetches and stores. A
  fetch waits for the block it fills, an operator for those of its results. Of an operator in place,
  whose result lies on an operand, the operator itself is no such user;
- a transfer of a tensor without a residency run at its step is streamed and needs no block;
- a fetch waits until all operators more than a number of steps ahead of its own have ended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accel.schedule.plan import Run, Schedule, Transfer


class Cause(IntEnum):
    """What a condition is about; `ISSUE` is the number of steps that a fetch may be ahead."""

    DATA = 0
    MEMORY = 1
    DMA = 2
    ISSUE = 3


@dataclass(slots=True)
class TaskGraph:
    """Operators and transfers by index, step by step: fetches, the operator, then what it sends out.

    Attributes
    ----------
    steps, transfers
        By task: its step, and its transfer (``None`` of an operator).
    operator
        Task of the operator at each step.
    milestones
        Tasks without work that follow all others: one ends with the operators up to a step.
    edges
        Pairs (before, after) and why.
    """

    steps: list[int] = field(default_factory=list)
    transfers: list[Transfer | None] = field(default_factory=list)
    operator: list[int] = field(default_factory=list)
    milestones: int = 0
    edges: dict[tuple[int, int], Cause] = field(default_factory=dict)

    def add(self, step: int, transfer: Transfer | None) -> int:
        """Append a task and return its index."""
        self.steps.append(step)
        self.transfers.append(transfer)
        return len(self.steps) - 1

    def link(self, before: Iterable[int], after: int, cause: Cause) -> None:
        """Let a task wait for others; the first cause of a pair stays."""
        for task in before:
            self.edges.setdefault((task, after), cause)


def task_graph(schedule: Schedule, depth: int) -> TaskGraph:
    """Tasks and conditions of `schedule`; fetches are issued at most `depth` steps ahead.

    Raises
    ------
    ValueError
        An operand is neither in the scratchpad nor fetched, a run begins with neither a production nor a
        fetch, or two runs take the same bytes at once.
    """
    graph = TaskGraph()
    fetches: dict[tuple[str, int], int] = {}
    sends: dict[str, list[int]] = defaultdict(list)
    by_step: list[tuple[list[Transfer], list[Transfer]]] = [([], []) for _ in schedule.order]
    for move in schedule.transfers:
        by_step[move.step][move.kind in ("spill", "store")].append(move)
    for step, (incoming, outgoing) in enumerate(by_step):
        for move in incoming:
            fetches[move.tensor, step] = graph.add(step, move)
        graph.operator.append(graph.add(step, None))
        for move in outgoing:
            sends[move.tensor].append(graph.add(step, move))
    _link_data(graph, schedule, fetches, sends)
    _link_memory(graph, schedule, fetches, sends)
    _link_issue(graph, fetches, depth)
    return graph


def _link_data(
    graph: TaskGraph,
    schedule: Schedule,
    fetches: dict[tuple[str, int], int],
    sends: dict[str, list[int]],
) -> None:
    """Operators after what they read, fetches after spills, spills after operators."""
    workload = schedule.workload
    operators = {operator.name: operator for operator in workload.operators}
    step_of = {name: step for step, name in enumerate(schedule.order)}
    runs: dict[str, list[Run]] = defaultdict(list)
    for stay in schedule.residency:
        runs[stay.tensor].append(stay)
    loaded: dict[str, int] = {}  # parameters that a transfer has brought
    for step, name in enumerate(schedule.order):
        task = graph.operator[step]
        for tensor in dict.fromkeys(operators[name].inputs):
            maker, declared = workload.producer.get(tensor), workload.tensors[tensor]
            run = next((stay for stay in runs[tensor] if stay.start <= step <= stay.end), None)
            fetch = fetches.get((tensor, step))
            if fetch is None and run is not None:
                fetch = fetches.get((tensor, run.start))
            if fetch is None and run is None:
                fetch = loaded.get(tensor)  # a streamed parameter is loaded once for all that share it
            if fetch is not None:
                graph.link([fetch], task, Cause.DMA)
                if declared.role.is_parameter and maker is None:
                    loaded[tensor] = fetch
            elif run is None and declared.bytes and (maker is not None or not declared.role.is_parameter):
                raise ValueError(
                    f"operator {name} at step {step} reads {tensor}, which is neither in the scratchpad "
                    f"nor fetched"
                )
            elif maker is not None:
                graph.link([graph.operator[step_of[maker.name]]], task, Cause.DATA)
    for (tensor, step), task in fetches.items():
        copies = [sent for sent in sends[tensor] if graph.steps[sent] < step]
        if tensor in workload.producer and not copies:
            raise ValueError(f"{tensor} is fetched before step {step}, but not stored before")
        graph.link(copies, task, Cause.DATA)
    for tensor, tasks in sends.items():
        made = [graph.operator[step_of[workload.producer[tensor].name]]] if tasks else []
        for sent in tasks:
            graph.link([*made, graph.operator[graph.steps[sent]]], sent, Cause.DATA)


def _link_memory(
    graph: TaskGraph,
    schedule: Schedule,
    fetches: dict[tuple[str, int], int],
    sends: dict[str, list[int]],
) -> None:
    """What fills a block after all that use the blocks it takes the bytes of.

    Only the last occupant of each byte counts: it has waited for the one before it.
    """
    workload = schedule.workload
    step_of = {name: step for step, name in enumerate(schedule.order)}
    in_place = {step_of[operator.name] for operator in workload.operators if operator.in_place}
    made = {tensor: step_of[operator.name] for tensor, operator in workload.producer.items()}
    touched = {
        tensor: [*(step_of[op.name] for op in readers), *([made[tensor]] if tensor in made else [])]
        for tensor, readers in workload.consumers.items()
    }
    occupied: list[tuple[int, int, Run]] = []  # disjoint pieces of memory with their last occupants
    # Of two that begin at a step, an operand is there before the result that may be written over it.
    for run in sorted(
        schedule.residency, key=lambda run: (run.start, made.get(run.tensor) == run.start, run.address)
    ):
        where = f"{run.tensor} at steps {run.start}..{run.end}"
        low, high = run.address, run.address + run.bytes
        before = [piece for piece in occupied if piece[0] < high and low < piece[1]]
        filler = fetches.get((run.tensor, run.start))
        if filler is None and made.get(run.tensor) == run.start:
            filler = graph.operator[run.start]
        is_resident_weight = workload.tensors[run.tensor].role.is_parameter and run.tensor not in made
        if filler is None and (before or run.start > 0 or not is_resident_weight):
            raise ValueError(f"{where} begins with neither a production nor a fetch")
        for _, _, old in before:
            taken_over = (
                old.end == run.start
                and run.start in in_place
                and filler == graph.operator[run.start]
                and run.start in touched[old.tensor]
            )
            if old.end >= run.start and not taken_over:
                raise ValueError(
                    f"{where} overlaps {old.tensor}, which stays at steps {old.start}..{old.end}"
                )
            assert filler is not None
            users = {graph.operator[step] for step in touched[old.tensor] if old.start <= step <= old.end}
            users.update(sent for sent in sends[old.tensor] if old.start <= graph.steps[sent] <= old.end)
            users.update([fetches[old.tensor, old.start]] if (old.tensor, old.start) in fetches else [])
            graph.link(sorted(users - {filler}), filler, Cause.MEMORY)
        rest = [piece for piece in occupied if not (piece[0] < high and low < piece[1])]
        rest += [(start, low, old) for start, _, old in before if start < low]
        rest += [(high, end, old) for _, end, old in before if high < end]
        occupied = [*rest, (low, high, run)]


def _link_issue(graph: TaskGraph, fetches: dict[tuple[str, int], int], depth: int) -> None:
    """Fetches after the operators that are more than `depth` steps before their own."""
    first, tasks = len(graph.steps), len(graph.operator)
    graph.milestones = tasks
    for step, operator in enumerate(graph.operator):
        graph.link([operator], first + step, Cause.ISSUE)
        if step:
            graph.link([first + step - 1], first + step, Cause.ISSUE)
    for (_, step), fetch in fetches.items():
        if (last := step - 1 - depth) >= 0:
            graph.link([first + last], fetch, Cause.ISSUE)
