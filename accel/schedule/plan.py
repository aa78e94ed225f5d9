"""A schedule: when each operator runs, where each tensor lies, what moves off chip and when."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

import pandas as pd

from accel.schedule._weights import Weights
from accel.schedule.check import check_schedule
from accel.workload import Workload

TransferKind: TypeAlias = Literal["load", "refetch", "spill", "store"]
Mode: TypeAlias = Literal["atomic", "streamed"]
Method: TypeAlias = Literal[
    "greedy", "packing", "joint", "windows", "fits", "dynamic-program", "integer-program"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A stay of a tensor in the scratchpad, at one address.

    Attributes
    ----------
    start, end
        First and last step, both included; a step is a position in the order of operators.
    address, bytes
        The block is ``[address, address + bytes)``.
    """

    tensor: str
    start: int
    end: int
    address: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """A tensor moved between the scratchpad, or a streaming operator, and off-chip memory.

    Attributes
    ----------
    step
        The operator before which a load or a refetch is made, after which a spill or a store is.
    kind
        ``"load"`` is the first of a graph input and ``"store"`` that of a graph output: both are
        compulsory. ``"refetch"`` and ``"spill"`` are what a larger scratchpad would save.
    """

    step: int
    tensor: str
    bytes: int
    kind: TransferKind


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A plan for a workload on a scratchpad; totals are derived, so they agree with their parts.

    Sizes are those of the tensors, rounded up to `alignment`. A spill is made right after its tensor
    is produced, and a later drop of the tensor is then free.

    Attributes
    ----------
    mode
        ``"atomic"``: all that an operator reads and writes is in the scratchpad while it runs.
        ``"streamed"``: what is not there passes through the tile reserve, at its size per use.
    weights
        What becomes of the parameters: ``"streamed"`` past the scratchpad, one load each and no run;
        ``"tracked"`` like any graph input; ``"resident"``: `resident` have a run from the first step to
        the last and no load, the others are streamed.
    resident
        Parameters that stay for the whole run.
    tile_reserve_bytes
        Of the scratchpad, at its top, for what is streamed; no run lies there.
    order
        Operator names in the order they run.
    residency
        Every stay of a tensor in the scratchpad.
    transfers
        By step; within one step fetches come before stores.
    bound_bytes
        No schedule in this mode (and in this order, where the order was given) has less
        non-compulsory traffic than this.
    method
        What found the plan. Atomic: a ``"greedy"`` rule; an optimal order and residency placed by exact
        ``"packing"``; the ``"joint"`` program of order, residency and
        placement; or improvement of ``"windows"`` of a large graph. Streamed: every gap ``"fits"``, or the
        exact ``"dynamic-program"`` or ``"integer-program"``.
    solver
        Names and versions of what computed the bound and the plan; ``"none"`` where the greedy plan
        moves no byte that it need not.
    model_size
        Of the largest solver model, such as ``"812 variables, 2304 constraints"``; empty without one.
    warm_start
        Whether a solver was given a plan to start from.
    seconds
        Time spent; not part of a comparison.
    """

    workload: Workload
    scratchpad_bytes: int
    alignment: int
    mode: Mode = "atomic"
    weights: Weights = "tracked"
    resident: tuple[str, ...] = ()
    tile_reserve_bytes: int = 0
    order: tuple[str, ...]
    residency: tuple[Run, ...]
    transfers: tuple[Transfer, ...]
    bound_bytes: int
    method: Method
    solver: str
    model_size: str = ""
    warm_start: bool = False
    seconds: float = field(compare=False)

    @property
    def runs(self) -> pd.DataFrame:
        """Residency as a table: tensor, start, end (both included), address, bytes."""
        rows = [(run.tensor, run.start, run.end, run.address, run.bytes) for run in self.residency]
        return pd.DataFrame(rows, columns=["tensor", "start", "end", "address", "bytes"])

    @property
    def spills(self) -> tuple[Transfer, ...]:
        """Stores that a larger scratchpad would save."""
        return tuple(move for move in self.transfers if move.kind == "spill")

    @property
    def refetches(self) -> tuple[Transfer, ...]:
        """Loads that a larger scratchpad would save."""
        return tuple(move for move in self.transfers if move.kind == "refetch")

    def _bytes(self, *kinds: TransferKind) -> int:
        return sum(move.bytes for move in self.transfers if move.kind in kinds)

    @cached_property
    def _parameters(self) -> frozenset[str]:
        tensors = self.workload.tensors
        return frozenset(name for name in self.workload.inputs if tensors[name].role.is_parameter)

    @property
    def compulsory_bytes(self) -> int:
        """First loads of graph inputs, parameters among them, and stores of graph outputs."""
        return self._bytes("load", "store")

    @property
    def compulsory_weight_bytes(self) -> int:
        """First loads of parameters: the part of `compulsory_bytes` that is weights."""
        return sum(
            move.bytes for move in self.transfers if move.kind == "load" and move.tensor in self._parameters
        )

    @property
    def compulsory_activation_bytes(self) -> int:
        """The part of `compulsory_bytes` that is not weights."""
        return self.compulsory_bytes - self.compulsory_weight_bytes

    @property
    def spilled_bytes(self) -> int:
        """Bytes of all spills."""
        return self._bytes("spill")

    @property
    def refetched_bytes(self) -> int:
        """Bytes of all refetches."""
        return self._bytes("refetch")

    @property
    def noncompulsory_bytes(self) -> int:
        """Spills and refetches: what the scheduler minimises."""
        return self._bytes("spill", "refetch")

    @property
    def offchip_bytes(self) -> int:
        """All bytes moved to and from off-chip memory."""
        return self.compulsory_bytes + self.noncompulsory_bytes

    @property
    def bytes_by_step(self) -> tuple[int, ...]:
        """Off-chip bytes moved for each operator, in `order`."""
        totals = [0] * len(self.order)
        for move in self.transfers:
            totals[move.step] += move.bytes
        return tuple(totals)

    @property
    def peak_bytes(self) -> int:
        """End of the highest block."""
        return max((run.address + run.bytes for run in self.residency), default=0)

    @property
    def status(self) -> Literal["OPTIMAL", "FEASIBLE"]:
        """Whether the plan reaches its bound, or may be improved."""
        return "OPTIMAL" if self.noncompulsory_bytes == self.bound_bytes else "FEASIBLE"

    @property
    def gap(self) -> float:
        """Part of the non-compulsory bytes that is not proven necessary."""
        return (self.noncompulsory_bytes - self.bound_bytes) / max(self.noncompulsory_bytes, 1)

    def check(self) -> None:
        """Replay the plan step by step.

        Raises
        ------
        ScheduleError
            An operator, block or transfer breaks a rule; the message names it.
        """
        check_schedule(self)
