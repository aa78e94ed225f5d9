"""Some gaps of a problem of streamed operands, chosen with the alike counted, and laid out by a beam.

The linear relaxation prices the room at each step. With these prices every choice has a known least cost,
so a walk over all states within a little of the relaxation's cost is short: it gives the exact optimum
without addresses, and for each state what the best plan from there on costs. The prices are rounded to
integers before anything is counted with them, and any prices give a bound: what is proved does not rest on
the solver's arithmetic; see ``accel.schedule._kernels.streamed_counts`` for the proof. A beam over layouts
then needs to look only at what can still end at that optimum.

Wherever a tensor is streamed, it is at its size. A cost is a number of units dropped, times the scale of
the prices, plus byte-steps (in units) where these sum up to less than the scale, so that of the plans of
least cost the one of fewest byte-steps is found.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_array

from accel.schedule._clock import stop_at
from accel.schedule._kernels.streamed import fill
from accel.schedule._kernels.streamed_best import costs_from, follow
from accel.schedule._kernels.streamed_counts import COUNTED, NOTHING, Program, costs_to_go, count_states
from accel.schedule._kernels.streamed_layouts import lay_out
from accel.schedule._solvers.quiet import without_stray_lines
from accel.schedule._streaming.problem import Streaming

STATES = 8_000_000  # most that are walked over at once: 33 bytes each, which are taken as they are needed
_LAYER_BYTES = 1 << 27  # of the states of one layer, and of those that follow it
_SLACK = 5e-4  # share of the relaxation's cost by which the first walks exceed it
_LEAST_SCALE, _LARGEST = 1 << 16, 1 << 61

Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """All states without addresses within a cost: the layers of a walk, and what is left to pay.

    Attributes
    ----------
    best
        Least cost without addresses, in units.
    most
        Cost that the walk was limited to, in units.
    """

    best: int
    most: int
    layers: Ints
    child: NDArray[np.int32]
    charge: Ints
    before: NDArray[np.int8]
    least: Ints
    marks: Ints
    mark_at: Ints
    rest: Ints


class Window:
    """The gaps `is_open`, (u,), to choose among; `is_kept`, (u,), are others that stay.

    Costs are counted in units, the divisor of the sizes: of each open gap that is dropped, and of a store
    that this makes necessary.
    """

    def __init__(self, problem: Streaming, is_open: Bools, is_kept: Bools, *, deadline_s: float) -> None:
        self.problem = problem
        self._is_choice = is_open
        tensors = np.unique(problem.owner[is_open])
        size = problem.size_bytes[tensors]
        self.unit_bytes = int(np.gcd.reduce(size)) or 1
        self._size = size // self.unit_bytes
        self._capacity = problem.capacity_bytes // self.unit_bytes
        is_stored = problem.is_output.copy()
        is_stored[problem.owner[problem.is_gap & ~is_open & ~is_kept]] = True
        self._is_tied = (problem.is_produced & ~is_stored)[tensors]
        ends = is_open.copy()
        ends[1:] |= is_open[:-1]
        self.use = np.flatnonzero(ends)  # of the problem
        self._owner = np.searchsorted(tensors, problem.owner[self.use])
        self._step = problem.step[self.use]
        self._is_open = is_open[self.use]
        last = np.searchsorted(self._owner, np.arange(tensors.size), side="right") - 1
        self._kind = self._kinds(last)
        self._scale, self._area = self._scales()
        self._likely = np.zeros(self._step.size)  # share of each gap that the relaxation keeps
        price = self._prices(deadline_s)
        price[: self._step.min()] = price[self._step.max() + 1 :] = 0  # no walk pays there
        by_step = np.argsort(self._step, kind="stable")
        columns = self._size, self._step, self._owner, last, self._is_open, self._is_tied
        to_go = costs_to_go(*columns, price, self._scale, self._area)
        self._program = Program(*columns, self._kind, by_step, price, self._capacity, *to_go)
        first = np.searchsorted(self._owner, np.arange(tensors.size))
        self._base = int(to_go[2][first, 0, 0].sum() - (price * self._capacity).sum())

    @property
    def bound(self) -> int:
        """Cost of the relaxation, in units: no plan has less."""
        return max(0, self._base // self._scale)  # byte-steps are less than the scale

    def _kinds(self, last: Ints) -> Ints:
        """Number of each use, (u,), the same where the tensors are alike from there on."""
        kind = np.zeros(self._step.size, np.int64)
        known: dict[tuple[int, ...], int] = {}
        for i in range(self._step.size - 1, -1, -1):
            v = self._owner[i]
            key: tuple[int, ...] = (self._size[v],)
            if i < last[v]:
                key += (self._is_tied[v], self._is_open[i], self._step[i + 1], kind[i + 1])
            kind[i] = known.setdefault(tuple(map(int, key)), len(known))
        return kind

    def _scales(self) -> tuple[int, int]:
        """Cost of a unit that is dropped, and of one that stays for a step."""
        gaps = np.flatnonzero(self._is_open)
        size = self._size[self._owner[gaps]]
        byte_steps = int((size * (self._step[gaps + 1] - self._step[gaps] + 1)).sum())
        # Drops, stores and room at prices, of which the relaxation pays no more than for all drops.
        most = 8 * (int(size.sum()) + int(self._size.sum()) + 1)
        scale = max(_LEAST_SCALE, 1 << byte_steps.bit_length())
        if scale * most <= _LARGEST:
            return scale, 1
        return max(1, 1 << ((_LARGEST // most).bit_length() - 1)), 0

    def _prices(self, deadline_s: float) -> Ints:
        """Cost of a unit of room at each step, (T,), near that of the linear relaxation."""
        gaps = np.flatnonzero(self._is_open)
        column = np.full(self._step.size, -1)
        column[gaps] = np.arange(gaps.size)
        size = self._size[self._owner].astype(float)
        # Columns: kept; a stay begins, of gaps that follow an open one; the store is paid, of a tensor.
        follows = gaps[(gaps > 0) & (column[gaps - 1] >= 0) & (self._owner[gaps] == self._owner[gaps - 1])]
        begins = column.copy()
        begins[follows] = gaps.size + np.arange(follows.size)
        tied = np.flatnonzero(self._is_tied)
        store = np.full(self._size.size, -1)
        store[tied] = gaps.size + follows.size + np.arange(tied.size)
        held = gaps[self._is_tied[self._owner[gaps]]]
        cost = np.concatenate([-size[gaps], np.zeros(follows.size), self._size[tied]])
        rows = [np.repeat(np.arange(follows.size), 3)]
        columns = [np.stack([column[follows], column[follows - 1], begins[follows]], 1).ravel()]
        values = [np.tile([1.0, -1.0, -1.0], follows.size)]
        rows.append(follows.size + np.repeat(np.arange(held.size), 2))
        columns.append(np.stack([column[held], store[self._owner[held]]], 1).ravel())
        values.append(np.full(2 * held.size, -1.0))
        start = follows.size + held.size
        length = self._step[gaps + 1] - self._step[gaps]
        offset = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
        rows += [start + np.repeat(self._step[gaps] + 1, length) + offset, start + self._step[gaps]]
        columns += [np.repeat(column[gaps], length), begins[gaps]]
        values += [np.repeat(size[gaps], length), size[gaps]]
        high = np.concatenate([np.zeros(follows.size), np.full(held.size, -1.0), self._capacity])
        matrix = csr_array(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
            shape=(high.size, cost.size),
        )
        with without_stray_lines():
            # The stubs of SciPy know no sparse matrices here.
            result = linprog(  # type: ignore[call-overload]
                cost,
                A_ub=matrix,
                b_ub=high,
                bounds=(0, 1),
                method="highs",
                options={"time_limit": max(1e-3, deadline_s - perf_counter())},
            )
        if result.status != 0:  # out of time: any prices will do
            return np.zeros(self._capacity.size, np.int64)
        price = np.maximum(0.0, -np.asarray(result.ineqlin.marginals[start:], np.float64))
        self._likely[gaps] = result.x[: gaps.size]
        if not (price * self._capacity).sum() <= 2.0 * size[gaps].sum():  # more than dropping all gaps costs
            return np.zeros(self._capacity.size, np.int64)
        return np.round(price * self._scale).astype(np.int64)

    def filled(self, kept: Bools) -> Bools:
        """Plan of the gaps outside in `kept`, filled up with those that the relaxation keeps most of."""
        problem, found = self.problem, kept & ~self._is_choice
        ranked = self.use[np.argsort(-self._likely, kind="stable")]
        fill(
            problem.size_bytes,
            problem.first,
            problem.step,
            problem.capacity_bytes,
            self._is_choice,
            ranked,
            found,
        )
        return found

    def _within(self, most: int) -> int:
        """Cost below which lie all plans of at most `most` units."""
        return (most + 1) * self._scale - 1

    def count(self, most: int, *, deadline_s: float, states: int = STATES) -> Counted | int | None:
        """All states of plans within `most` units; ``most + 1``, a bound, if there is no such plan.

        ``None`` where there are more than `states`, or time is out.
        """
        in_layer = _LAYER_BYTES // (2 * (self._size.size + 24))  # a row and three numbers
        with stop_at(deadline_s) as stop:
            outcome, *walk = count_states(
                self._program, self._base, self._area, self._within(most), states, in_layer, stop
            )
        if outcome != COUNTED:
            return most + 1 if outcome == NOTHING else None
        layers, child, charge, before, marks, mark_at = walk
        least, rest = costs_from(layers, child, charge, mark_at, marks.size)
        best = (self._base + (int(least[0]) if least.size else 0)) // self._scale
        return Counted(best, most, layers, child, charge, before, least, marks, mark_at, rest)

    def optimum(self, upper: int, *, deadline_s: float) -> Counted | int:
        """States of plans within a little of the least cost; `upper` units is known to be some plan's.

        A bound in units where that takes too many states or too long.
        """
        bound = first = self.bound
        slack = 0
        while bound <= upper:
            found = self.count(min(upper, first + slack), deadline_s=deadline_s)
            if isinstance(found, Counted):
                return found
            if found is None:
                return min(bound, upper)
            bound = found
            slack = max(1, int(_SLACK * first)) if slack == 0 else 2 * slack
        return upper

    def kept(self, counted: Counted) -> Bools:
        """Gaps of a best plan without addresses, of all uses of the problem."""
        chosen = np.zeros(self._step.size, np.bool_)
        follow(
            self._program,
            self._area,
            counted.layers,
            counted.child,
            counted.charge,
            counted.before,
            counted.least,
            chosen,
        )
        found = np.zeros(self.problem.step.size, np.bool_)
        found[self.use] = chosen
        return found

    def lay_out(
        self, counted: Counted, most: int, *, width: int, children: int, deadline_s: float
    ) -> Ints | None:
        """Address in bytes of each gap that is kept, (u,), else -1, of a plan within `most` units."""
        found = np.full(self._step.size, -1)
        with stop_at(deadline_s) as stop:
            is_found = lay_out(
                self._program,
                self._base,
                self._area,
                self._scale,
                self._within(most),
                counted.marks,
                counted.rest,
                counted.mark_at,
                width,
                children,
                stop,
                found,
            )
        if not is_found:
            return None
        addresses = np.full(self.problem.step.size, -1)
        addresses[self.use] = np.where(found >= 0, found * self.unit_bytes, -1)
        return addresses
