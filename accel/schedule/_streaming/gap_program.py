"""The gaps to keep as an integer program for HiGHS, through SciPy, for one part of the problem.

Columns: ``k`` of each open gap, 1 if it is kept; ``begins`` of a use between two open gaps, 1 if a
residency begins there; ``late`` of a tensor whose first gap is kept and another dropped, so that it is
stored whole. Only ``k`` must be integer, the others then are of themselves.

Of the plans of least loss a second program, limited in size, looks for the one of least byte-steps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import ceil, gcd, inf
from time import perf_counter

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from accel.schedule._kernels.streamed import ALWAYS, NEVER, fill, shed
from accel.schedule._solvers.quiet import without_stray_lines
from accel.schedule._streaming.dynamic_program import rank
from accel.schedule._streaming.problem import Streaming

_ALL_NODES = 2**31 - 1
_STRAIGHTENING_NODES = 10
_SETTLING_NODES = 100  # of the search for the fewest byte-steps; a count keeps plans reproducible
SOLVER = f"SciPy {scipy.__version__} HiGHS"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Gaps to keep, what a better plan might save, and whether some part has its greedy plan."""

    kept: NDArray[np.bool_]
    missing_bytes: int
    is_greedy: bool


def solve_parts(
    problem: Streaming,
    greedy: NDArray[np.bool_],
    fate: NDArray[np.int64],
    parts: NDArray[np.int64],
    *,
    deadline_s: float,
    tolerance: float,
) -> Chosen:
    """Improve the plan `greedy` in each of `parts`; the rest of it stays as it is.

    Parameters
    ----------
    deadline_s
        On the clock of ``time.perf_counter``.
    tolerance
        Share of the total, for all parts together, that may be missing to the optimum.
    """
    allowed = int(tolerance * int(problem.costs(fate != NEVER).sum())) // len(parts)
    kept = greedy.copy()
    missing, is_greedy = 0, False
    for done, part in enumerate(parts.tolist()):
        # Parts share the time that is left, so that one cannot starve the others.
        now_s = perf_counter()
        share_s = now_s + (deadline_s - now_s) / (len(parts) - done)
        program = Program(problem, fate, part)
        bound, found = program.solve(program.loss(kept), allowed, deadline_s=share_s)
        is_greedy |= found is None
        if found is not None:
            kept = min(kept, program.repaired(found, kept), key=program.rank)
        loss = program.loss(kept)
        missing += max(0, loss - bound)
        if bound == loss and (tied := program.settle(loss, deadline_s=share_s)) is not None:
            kept = min(kept, program.repaired(tied, kept), key=program.rank)
    return Chosen(kept, missing, is_greedy)


class Program:
    """Columns in 0..1, rows ``low <= row <= high``, two objectives; bytes in units of their divisor."""

    def __init__(self, problem: Streaming, fate: NDArray[np.int64], part: int) -> None:
        self._problem, self._fate, self._part = problem, fate, part
        self._everything = fate != NEVER
        self._least = int(problem.costs(self._everything).sum())
        self._rows: list[Mapping[int, float]] = []
        self._low: list[float] = []
        self._high: list[float] = []
        self._loss: list[int] = []  # by column, in bytes
        self._area: list[int] = []
        self._sprawl: list[int] = []  # steps, and for each stay as many as there are
        self._constant = 0  # of the loss, in bytes
        self._gaps = np.flatnonzero(fate == part).tolist()
        self._k = {i: self._column() for i in self._gaps}
        self._occupancy: dict[int, dict[int, int]] = {}  # by step: bytes by column
        for v in sorted({int(problem.owner[i]) for i in self._gaps}):
            self._add_tensor(v)
        self._add_capacities()
        self._unit = gcd(self._constant, *self._loss) or 1

    def loss(self, kept: NDArray[np.bool_]) -> int:
        """Bytes by which the gaps of this part in `kept` cost more than all of them."""
        mixed = np.where(self._fate == self._part, kept, self._everything)
        return int(self._problem.costs(mixed).sum()) - self._least

    def rank(self, kept: NDArray[np.bool_]) -> tuple[int, int]:
        """Loss and byte-steps of a plan: the lesser is the better."""
        return self.loss(kept), int(self._problem.resident_bytes(kept).sum())

    def repaired(self, found: NDArray[np.bool_], others: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Plan of the gaps `found` for this part and of `others`, made to fit, then filled up."""
        problem, is_here = self._problem, self._fate == self._part
        kept = np.where(is_here, found, others)
        ranked = rank(
            problem.size_bytes, problem.first, problem.step, problem.streamed_bytes, problem.capacity_bytes
        )
        shed(
            problem.size_bytes,
            problem.first,
            problem.step,
            problem.streamed_bytes,
            problem.is_produced,
            problem.is_output,
            problem.capacity_bytes,
            kept,
        )
        fill(problem.size_bytes, problem.first, problem.step, problem.capacity_bytes, is_here, ranked, kept)
        return kept

    def forbid(self, gaps: Collection[int]) -> None:
        """Let no plan keep all of `gaps`, which are of this part."""
        self._row(dict.fromkeys((self._k[i] for i in gaps), 1.0), high=len(gaps) - 1)

    def _column(self) -> int:
        self._loss.append(0)
        self._area.append(0)
        self._sprawl.append(0)
        return len(self._loss) - 1

    def _row(self, entries: Mapping[int, float], *, low: float = -inf, high: float = inf) -> None:
        self._rows.append(entries)
        self._low.append(low)
        self._high.append(high)

    def _add_tensor(self, v: int) -> None:
        problem, k = self._problem, self._k
        start, stop = int(problem.first[v]), int(problem.first[v + 1])
        size = int(problem.size_bytes[v])
        for i in range(start, stop):
            before = k.get(i - 1) if i > start else None
            here = k.get(i)
            if before is None and here is None:
                continue
            was_kept = i > start and self._fate[i - 1] == ALWAYS
            streamed = int(problem.streamed_bytes[i])
            if i == start and problem.is_produced[v]:
                assert here is not None
                self._add_production(v, here, streamed - size)
            if here is not None:
                steps = int(problem.step[i + 1] - problem.step[i])
                self._area[here] += size * steps
                self._sprawl[here] += steps
                for t in range(int(problem.step[i]) + 1, int(problem.step[i + 1]) + 1):
                    self._occupy(t, here, size)
                if was_kept:
                    continue
                if before is None:
                    begins = here
                else:
                    begins = self._column()
                    self._row({begins: 1.0, here: -1.0, before: 1.0}, low=0)
                    self._row({begins: 1.0, here: -1.0}, high=0)
                    self._row({begins: 1.0, before: 1.0}, high=1)
                self._occupy(int(problem.step[i]), begins, size)
                self._area[begins] += size
                self._sprawl[begins] += problem.capacity_bytes.size
                if i > start or not problem.is_produced[v]:
                    self._loss[begins] -= streamed - size
                    if before is None:
                        self._constant += streamed - size
                    else:
                        self._loss[before] -= streamed
                        self._constant += streamed
            elif before is not None:
                ends_for_good = i + 1 == stop or self._fate[i] == NEVER
                cost = streamed if ends_for_good else size
                self._loss[before] -= cost
                self._constant += cost
                if not ends_for_good:
                    self._area[before] -= size
        self._add_late_store(v)

    def _add_production(self, v: int, first_gap: int, extra: int) -> None:
        """Store that is streamed if the first gap is dropped."""
        size = 0 if self._is_store_certain(v) else int(self._problem.size_bytes[v])
        self._loss[first_gap] -= extra + size
        self._constant += extra + size

    def _is_store_certain(self, v: int) -> bool:
        start, stop = self._problem.first[v], self._problem.first[v + 1]
        return bool(self._problem.is_output[v] or (self._fate[start : stop - 1] == NEVER).any())

    def _add_late_store(self, v: int) -> None:
        """Store of the whole tensor if its first gap is kept and another is dropped."""
        if not self._problem.is_produced[v] or self._is_store_certain(v):
            return
        start, stop = int(self._problem.first[v]), int(self._problem.first[v + 1])
        first_gap = self._k.get(start)
        others = [self._k[i] for i in range(start + 1, stop) if i in self._k]
        if not others:
            return
        late = self._column()
        self._loss[late] += int(self._problem.size_bytes[v])
        for other in others:
            if first_gap is None:
                self._row({late: 1.0, other: 1.0}, low=1)
            else:
                self._row({late: 1.0, first_gap: -1.0, other: 1.0}, low=0)

    def _occupy(self, t: int, column: int, size: int) -> None:
        held = self._occupancy.setdefault(t, {})
        held[column] = held.get(column, 0) + size

    def _add_capacities(self) -> None:
        """One row per step, but none that another implies: the same or more room for fewer columns."""
        capacity = self._problem.capacity_bytes
        rows: list[tuple[int, dict[int, int]]] = []
        for t in sorted(self._occupancy):
            held, room = self._occupancy[t], int(capacity[t])
            if sum(held.values()) <= room:
                continue
            while rows and room <= rows[-1][0] and rows[-1][1].items() <= held.items():
                rows.pop()
            if rows and rows[-1][0] <= room and held.items() <= rows[-1][1].items():
                continue
            rows.append((room, held))
        for room, held in rows:
            unit = gcd(*held.values())
            whole = room // unit * unit
            self._row({column: size / whole for column, size in held.items()}, high=1)

    def solve(self, known: int, allowed: int, *, deadline_s: float) -> tuple[int, NDArray[np.bool_] | None]:
        """Bound on the loss, in bytes and at most `known`, and gaps, (u,), that lose at most `allowed` more.

        The gaps are the best that were found in time, if any were.

        A solver in floats may exceed a capacity by its tolerance. Such a set of gaps is then forbidden
        by a row of ones, which no tolerance blurs, and the program is solved again.
        """
        bound = 0
        kept: NDArray[np.bool_] | None = None
        while bound < known and (remaining_s := deadline_s - perf_counter()) > 0:
            # The objective is the loss less the constant, which is not smaller.
            result = self._run(
                self._loss, self._unit, remaining_s, tolerance=allowed / max(1, self._constant)
            )
            # A bound a hair above an integer is that integer, and no bound at all is zero.
            dual = result.mip_dual_bound
            if dual is not None and np.isfinite(dual):
                units = ceil(dual - 1e-9 * abs(dual) - 1e-6)
                bound = max(bound, units * self._unit + self._constant)
            if result.x is None:
                break
            kept = self._kept(result.x)
            if not self._forbid_excess(result.x):
                break
        return min(bound, known), kept

    def settle(self, loss: int, *, deadline_s: float) -> NDArray[np.bool_] | None:
        """Gaps of a plan of least byte-steps among those of this `loss`, if it is found in time."""
        return self._among(self._area, loss, deadline_s, nodes=_SETTLING_NODES)

    def straighten(self, loss: int, *, deadline_s: float) -> NDArray[np.bool_] | None:
        """Gaps of a plan of few, short stays among those of this `loss`: it is easier to place."""
        return self._among(self._sprawl, loss, deadline_s, nodes=_STRAIGHTENING_NODES)

    def _among(
        self, objective: list[int], loss: int, deadline_s: float, *, nodes: int
    ) -> NDArray[np.bool_] | None:
        columns = {column: value for column, value in enumerate(self._loss) if value}
        scale = max(1, abs(loss - self._constant))
        target, found = loss, None
        rows = len(self._rows)
        while found is None and (remaining_s := deadline_s - perf_counter()) > 0:
            row = {column: value / scale for column, value in columns.items()}
            self._row(row, high=(target - self._constant) / scale)
            result = self._run(objective, gcd(*objective) or 1, remaining_s, nodes=nodes)
            del self._rows[rows], self._low[rows], self._high[rows]
            if result.x is None:
                break
            kept = self._kept(result.x)
            if self._forbid_excess(result.x):
                rows = len(self._rows)
            elif (excess := self.loss(kept) - loss) > 0:
                target -= excess  # that much passed for equal, so that the loss itself still does
            else:
                found = kept
        return found

    def _forbid_excess(self, solution: NDArray[np.float64]) -> bool:
        """Add a row against each set of columns that exceeds a capacity; whether there is any."""
        rows = len(self._rows)
        for t, held in self._occupancy.items():
            chosen = [column for column in held if solution[column] > 0.5]
            if sum(held[column] for column in chosen) > self._problem.capacity_bytes[t]:
                self._row(dict.fromkeys(chosen, 1.0), high=len(chosen) - 1)
        return len(self._rows) > rows

    def _run(
        self,
        objective: list[int],
        unit: int,
        time_limit_s: float,
        *,
        tolerance: float = 0.0,
        nodes: int = _ALL_NODES,
    ) -> scipy.optimize.OptimizeResult:
        values = [value for row in self._rows for value in row.values()]
        columns = [column for row in self._rows for column in row]
        starts = np.cumsum([0, *(len(row) for row in self._rows)])
        matrix = csr_array((values, columns, starts), shape=(len(self._rows), len(objective)))
        is_integer = np.zeros(len(objective), np.int64)
        is_integer[list(self._k.values())] = 1
        with without_stray_lines():
            return milp(
                c=np.array(objective, float) / unit,
                integrality=is_integer,
                bounds=Bounds(0, 1),
                constraints=LinearConstraint(matrix, self._low, self._high),
                options={"time_limit": time_limit_s, "mip_rel_gap": tolerance, "node_limit": nodes},
            )

    def _kept(self, solution: NDArray[np.float64]) -> NDArray[np.bool_]:
        found = np.zeros(self._fate.size, np.bool_)
        found[self._gaps] = solution[: len(self._gaps)] > 0.5
        return found
