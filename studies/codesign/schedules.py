"""Schedules of training steps: the best one of each scratchpad, kept across campaigns, and layer by layer."""

from __future__ import annotations

from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version
from typing import Any

from accel import Workload
from accel.schedule import Run, Schedule, ScheduleError, Transfer, schedule
from accel.schedule.plan import TransferKind
from studies.cache import Kept

_VERSION = 1  # of what is kept; a scheduler that finds other plans takes the next one
_PLAN = ("alignment", "mode", "weights", "order", "bound_bytes", "method", "solver", "model_size", "seconds")


class Schedules:
    """The schedule of least off-chip traffic of a workload on a scratchpad, made once.

    Parameters
    ----------
    kept
        Store on disk.
    time_limit_s
        For one schedule; what is found by then is kept, and the better for a longer limit.
    """

    def __init__(self, kept: Kept, *, time_limit_s: float = 60.0) -> None:
        self.kept, self._time_limit_s = kept, time_limit_s
        self._texts: dict[int, tuple[Workload, str]] = {}

    def best(self, workload: Workload, scratchpad_bytes: int) -> Schedule:
        """Schedule in atomic mode, weights as any graph input.

        A plan from the store is replayed on the workload before it is used.

        Raises
        ------
        accel.schedule.WorkingSetError
            An operator alone needs more than the scratchpad has.
        """
        key = self._key(workload, scratchpad_bytes)
        stored = self.kept.read(key)
        if stored is not None and (plan := _read(stored, workload, scratchpad_bytes)) is not None:
            return plan
        plan = schedule(workload, scratchpad_bytes, weights="tracked", time_limit_s=self._time_limit_s)
        self.kept.write(key, _values(plan))
        return plan

    def _key(self, workload: Workload, scratchpad_bytes: int) -> dict[str, Any]:
        known = self._texts.get(id(workload))
        if known is None or known[0] is not workload:
            known = self._texts[id(workload)] = workload, sha256(workload.to_json().encode()).hexdigest()
        return {
            "version": _VERSION,
            "bitfront": version("bitfront"),
            "ortools": version("ortools"),
            "workload": known[1],
            "scratchpad_bytes": scratchpad_bytes,
            "time_limit_s": self._time_limit_s,
        }


def _values(plan: Schedule) -> dict[str, Any]:
    return {
        **{name: getattr(plan, name) for name in _PLAN},
        "residency": [list(asdict(run).values()) for run in plan.residency],
        "transfers": [list(asdict(move).values()) for move in plan.transfers],
    }


def _read(stored: Any, workload: Workload, scratchpad_bytes: int) -> Schedule | None:
    """Plan of stored values, or ``None`` if they are none of this workload."""
    try:
        plan = Schedule(
            workload=workload,
            scratchpad_bytes=scratchpad_bytes,
            order=tuple(stored["order"]),
            residency=tuple(
                Run(tensor=tensor, start=start, end=end, address=address, bytes=size)
                for tensor, start, end, address, size in stored["residency"]
            ),
            transfers=tuple(
                Transfer(step=step, tensor=tensor, bytes=size, kind=kind)
                for step, tensor, size, kind in stored["transfers"]
            ),
            **{name: stored[name] for name in _PLAN if name != "order"},
        )
        plan.check()
    except (KeyError, TypeError, ValueError, AttributeError, ScheduleError):
        return None
    return plan


def layer_by_layer(workload: Workload, scratchpad_bytes: int) -> Schedule:
    """Schedule that keeps nothing: operators fetch what they read and store what they make.

    What an accelerator does whose compiler looks at one layer at a time.
    """
    tensors, graph_inputs, results = workload.tensors, set(workload.inputs), set(workload.outputs)
    read = {name for operator in workload.operators for name in operator.inputs}
    loaded: set[str] = set()
    residency, transfers = [], []
    for step, operator in enumerate(workload.operators):
        address = 0
        for name in dict.fromkeys((*operator.inputs, *operator.outputs)):
            size = tensors[name].bytes
            residency.append(Run(tensor=name, start=step, end=step, address=address, bytes=size))
            address += size
        for name in dict.fromkeys(operator.inputs):
            first = name in graph_inputs and name not in loaded
            kind: TransferKind = "load" if first else "refetch"
            transfers.append(Transfer(step=step, tensor=name, bytes=tensors[name].bytes, kind=kind))
            loaded.add(name)
        for name in operator.outputs:
            if name in results or name in read:
                kind = "store" if name in results else "spill"
                transfers.append(Transfer(step=step, tensor=name, bytes=tensors[name].bytes, kind=kind))
    plan = Schedule(
        workload=workload,
        scratchpad_bytes=scratchpad_bytes,
        alignment=1,
        weights="tracked",
        order=tuple(operator.name for operator in workload.operators),
        residency=tuple(residency),
        transfers=tuple(transfers),
        bound_bytes=0,
        method="greedy",
        solver="none",
        seconds=0.0,
    )
    plan.check()
    return plan
