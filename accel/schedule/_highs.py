"""The capacity relaxation as a mixed-integer program for HiGHS, through SciPy.

A second statement of the order and residency rules for a solver of another kind. It shares no code
with the constraint program, so that one can judge the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, inf
from time import perf_counter

import numpy as np
import scipy
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from accel.schedule._instance import Instance
from accel.schedule._residency import Residency, kept_gaps
from accel.schedule._search import Relaxed

VERSION = f"SciPy {scipy.__version__} HiGHS"


def solve_capacity(instance: Instance, *, upper: int, deadline_s: float) -> Relaxed:
    """Least non-compulsory traffic, in units, below `upper`, placement left out."""
    model = _Program(instance)
    model.row(dict(enumerate(model.cost)), high=upper - 1 + model.rebate)
    values = [value for row in model.rows for value in row.values()]
    columns = [column for row in model.rows for column in row]
    starts = np.cumsum([0, *(len(row) for row in model.rows)])
    matrix = csr_array((values, columns, starts), shape=(len(model.rows), len(model.cost)))
    remaining_s = deadline_s - perf_counter()
    if remaining_s <= 0:
        return Relaxed(0, None)
    result = milp(
        c=model.cost,
        integrality=np.ones(len(model.cost), np.int64),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(matrix, model.low, model.high),
        options={"time_limit": remaining_s, "mip_rel_gap": 0.0},
    )
    if result.status == 2:
        return Relaxed(upper, None)
    # Floats: a bound a hair above an integer is that integer, and no bound at all is zero.
    dual = result.mip_dual_bound
    bound = 0 if dual is None or not np.isfinite(dual) else ceil(dual * (1 - 1e-9) - 1e-6) - model.rebate
    residency = None if result.x is None else model.residency(result.x)
    return Relaxed(min(max(bound, 0), upper), residency)


class _Program:
    """Columns are binaries, rows are ``low <= row <= high``."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self.cost: list[float] = []
        self.rows: list[Mapping[int, float]] = []
        self.low: list[float] = []
        self.high: list[float] = []
        n = len(instance.operators)
        self._x = [{t: self._column() for t in steps} for steps in instance.windows]
        for x in self._x:
            self.row(dict.fromkeys(x.values(), 1.0), low=1, high=1)
        for t in range(n):
            self.row({x[t]: 1.0 for x in self._x if t in x}, low=1, high=1)
        for i, before in enumerate(instance.after):
            for p in before:
                self._precede(self._x[p], self._x[i])
        self._r: list[dict[int, int]] = []
        self._f: list[dict[int, int]] = []
        for v in range(len(instance.tensors)):
            self._reside(v)
        for t in range(n):
            here = {r[t]: float(size) for size, r in zip(instance.size, self._r, strict=True) if t in r}
            self.row(here, high=instance.capacity)
        # The first load of each graph input is in the sum of fetches, but compulsory.
        self.rebate = sum(size for size, given in zip(instance.size, instance.is_input, strict=True) if given)

    def row(self, entries: Mapping[int, float], *, low: float = -inf, high: float = inf) -> None:
        """Add a constraint."""
        self.rows.append(entries)
        self.low.append(low)
        self.high.append(high)

    def _column(self, cost: int = 0) -> int:
        self.cost.append(cost)
        return len(self.cost) - 1

    def _precede(self, first: Mapping[int, int], second: Mapping[int, int]) -> None:
        """At every step, `second` has run only if `first` ran at an earlier one."""
        for t in second:
            run = {column: 1.0 for u, column in second.items() if u <= t}
            self.row(run | {column: -1.0 for u, column in first.items() if u < t}, high=0)

    def _reside(self, v: int) -> None:
        instance = self._instance
        p, size = instance.producer[v], instance.size[v]
        readers = [self._x[i] for i in instance.consumers[v]]
        made = {} if p is None else self._x[p]
        users = [*readers, made] if made else readers
        steps = range(min(t for x in users for t in x), max(t for x in users for t in x) + 1)
        r = {t: self._column() for t in steps}
        f = {t: self._column(size) for t in steps if any(t in x for x in readers)}
        for t in steps:
            for x in users:
                if t in x:
                    self.row({x[t]: 1.0, r[t]: -1.0}, high=0)
            causes = [column[at] for column, at in ((r, t - 1), (f, t), (made, t)) if at in column]
            self.row({r[t]: 1.0} | dict.fromkeys(causes, -1.0), high=0)
            unmade = {column: 1.0 for u, column in made.items() if u > t}
            self.row({r[t]: 1.0} | unmade, high=1)
            if t in f:
                self.row({f[t]: 1.0} | {x[t]: -1.0 for x in readers if t in x}, high=0)
                self.row({f[t]: 1.0} | unmade | ({made[t]: 1.0} if t in made else {}), high=1)
        if f and not instance.always_backed[v]:
            spilled = self._column(size)
            for column in f.values():
                self.row({column: 1.0, spilled: -1.0}, high=0)
        self._r.append(r)
        self._f.append(f)

    def residency(self, solution: np.ndarray) -> Residency:
        """Order and kept gaps of a solution."""
        is_set = solution > 0.5
        chosen = {t: i for i, x in enumerate(self._x) for t, column in x.items() if is_set[column]}
        order = tuple(chosen[t] for t in range(len(chosen)))

        def stays(v: int, t: int) -> bool:
            return bool(is_set[self._r[v][t]]) and not (t in self._f[v] and is_set[self._f[v][t]])

        return Residency(self._instance, order, kept_gaps(self._instance, order, stays))
