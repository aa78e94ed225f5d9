"""Order, residency and placement as an :class:`~accel.schedule.integer_program.IntegerProgram`.

A second statement of the rules, in rows and columns for solvers of linear programs. It shares no rule
with the constraint program, so that one can judge the other. Columns, by operator or tensor and step t:

    x[i,t]  operator i runs                          z[i,u,t]  its output lies in the block of input u
    k[v,t]  tensor v stays from step t - 1 to t      f[v,t]    it is fetched before step t
    s[v]    it is spilled                            a[v,t]    its address
    up, dn  of two tensors at a step: the first is above, or below, the second

A tensor is resident at t where it stays, was fetched or is made there: ``r = k + f + x[producer]`` needs
no column. As one operator runs at a time, all users of a tensor share one row ``sum of x <= r``, and
``r <= sum of x + k[t+1]`` says that what is not in use is on its way to a use.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from accel.schedule._instance import Instance
from accel.schedule._placement import Placed
from accel.schedule._residency import Residency, kept_gaps
from accel.schedule._solvers.plans import PlanSteps, plan_steps
from accel.schedule._solvers.symmetry import in_given_order, renamed
from accel.schedule.integer_program import IntegerProgram

Row = dict[int, float]

MAX_PAIRS = 40_000  # pairs of tensors at a step, each two columns and five rows
EXACT = 2**53  # whole numbers below it are exact in float64


class ProgramTooLargeError(Exception):
    """A solver could not be asked to take the program: too many pairs of tensors, or too large numbers."""


class ScheduleProgram:
    """The integer program of an instance, and the way from its values back to a plan.

    Parameters
    ----------
    lower
        A known lower bound, in units.
    hint
        A plan at hand, as a start; its cost is an upper bound.
    upper
        Cost of a known plan, where there is no `hint`.
    is_joint
        Whether addresses take part; else the program is the capacity relaxation.
    deadline_s
        Reading of `time.perf_counter` after which writing the program down gives up.

    Raises
    ------
    TimeoutError
        The deadline has passed.
    ProgramTooLargeError
        With addresses, more than `MAX_PAIRS` pairs of tensors can meet; or the costs add up to 2**53 units
        or more, which floating-point numbers do not hold exactly.

    Attributes
    ----------
    rebate
        Units in the objective that are compulsory: the first load of each graph input.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        lower: int,
        hint: Placed | None,
        is_joint: bool,
        deadline_s: float,
        upper: float = inf,
    ) -> None:
        self._original = instance
        self._instance = instance = in_given_order(instance)
        self._deadline_s = deadline_s
        self._cost: list[float] = []
        self._high: list[float] = []
        self._names: list[str] = []
        self._hint: list[float] = []
        self._rows: list[Mapping[int, float]] = []
        self._row_low: list[float] = []
        self._row_high: list[float] = []
        placed = None if hint is None else renamed(hint)
        self._placed = placed
        self._plan: PlanSteps | None = None if placed is None else plan_steps(placed)
        self._x: list[dict[int, int]] = []
        self._k: list[dict[int, int]] = []
        self._f: list[dict[int, int]] = []
        self._r: list[dict[int, Row]] = []
        self._z: list[dict[tuple[int, int], int]] = []
        self._a: list[dict[int, int]] = []
        self._order()
        for v in range(len(instance.tensors)):
            self._reside(v)
        for i in range(len(instance.operators)):
            self._take_over(i)
        self._present = [
            {t: self._beside(v, t) for t in r} for v, r in enumerate(self._r)
        ]  # what takes room of its own
        for t in range(len(instance.operators)):
            here: Row = {}
            for v, present in enumerate(self._present):
                if t in present:
                    _add(here, present[t], instance.size[v])
            self._row(here, high=instance.capacity)
        self.rebate = sum(size for size, given in zip(instance.size, instance.is_input, strict=True) if given)
        if lower > 0:
            self._row({j: cost for j, cost in enumerate(self._cost) if cost}, low=lower + self.rebate)
        if is_joint:
            self._place()
        if (total := sum(self._cost) + self.rebate) >= EXACT:
            raise ProgramTooLargeError(
                f"costs add up to {total:g} units, of less than 2**53 that a program holds exactly"
            )
        known = upper if hint is None else hint.residency.cost
        self.program = self._build(float(known + self.rebate))

    def _build(self, upper_bound: float) -> IntegerProgram:
        columns = len(self._cost)
        starts = np.cumsum([0, *map(len, self._rows)])
        values = np.array([value for row in self._rows for value in row.values()], np.float64)
        indices = np.array([column for row in self._rows for column in row], np.int64)
        matrix = csr_array((values, indices, starts), shape=(len(self._rows), columns))
        return IntegerProgram(
            c=np.array(self._cost, np.float64),
            A=matrix,
            row_lower=np.array(self._row_low, np.float64),
            row_upper=np.array(self._row_high, np.float64),
            lower=np.zeros(columns),
            upper=np.array(self._high, np.float64),
            integrality=np.ones(columns, np.uint8),
            names=tuple(self._names),
            hint=None if self._plan is None else np.array(self._hint, np.float64),
            upper_bound=upper_bound,
        )

    def _column(self, name: str, hint: float, *, cost: int = 0, high: int = 1) -> int:
        self._cost.append(cost)
        self._high.append(high)
        self._names.append(name)
        self._hint.append(hint)
        return len(self._cost) - 1

    def _row(self, entries: Mapping[int, float], *, low: float = -inf, high: float = inf) -> None:
        entries = {column: value for column, value in entries.items() if value}
        if not entries and low <= 0 <= high:
            return
        self._rows.append(entries)
        self._row_low.append(low)
        self._row_high.append(high)

    def _order(self) -> None:
        """One step for each operator, one operator at each step, producers first."""
        instance = self._instance
        order = () if self._placed is None else self._placed.residency.order
        for i, steps in enumerate(instance.windows):
            name = instance.operators[i]
            x = {t: self._column(f"x[{name},{t}]", bool(order) and order[t] == i) for t in steps}
            self._x.append(x)
            self._row(dict.fromkeys(x.values(), 1.0), low=1, high=1)
        for t in range(len(self._x)):
            self._row({x[t]: 1.0 for x in self._x if t in x}, low=1, high=1)
        for i, before in enumerate(instance.after):
            self._check_time()
            for p in before:
                self._precede(self._x[p], self._x[i])

    def _precede(self, first: Mapping[int, int], second: Mapping[int, int]) -> None:
        """At every step, `second` has run only if `first` ran at an earlier one."""
        for t in second:
            if t <= max(first):
                run = {column: 1.0 for u, column in second.items() if u <= t}
                self._row(run | {column: -1.0 for u, column in first.items() if u < t}, high=0)

    def _reside(self, v: int) -> None:
        self._check_time()
        instance, plan = self._instance, self._plan
        name, size, p = instance.tensors[v], instance.size[v], instance.producer[v]
        readers = [self._x[i] for i in instance.consumers[v]]
        made = {} if p is None else self._x[p]
        users = [*readers, made] if made else readers
        steps = range(min(t for x in users for t in x), max(t for x in users for t in x) + 1)
        k = {t: self._column(f"k[{name},{t}]", bool(plan and plan.stays(v, t))) for t in steps[1:]}
        f = {
            t: self._column(f"f[{name},{t}]", bool(plan and (v, t) in plan.fetched), cost=size)
            for t in steps
            if any(t in x for x in readers)
        }
        r = {t: {cause[t]: 1.0 for cause in (k, f, made) if t in cause} for t in steps}
        for t in steps:
            used = {x[t]: 1.0 for x in users if t in x}
            self._row(_sum(used, r[t], -1.0), high=0)
            self._row(_sum(r[t], used | ({k[t + 1]: 1.0} if t + 1 in k else {}), -1.0), high=0)
            self._row(r[t] | {column: 1.0 for u, column in made.items() if u > t}, high=1)
            if t in k:
                self._row(_sum({k[t]: 1.0}, r[t - 1], -1.0), high=0)
            if t in f:
                self._row({f[t]: 1.0} | {x[t]: -1.0 for x in readers if t in x}, high=0)
        if f and not instance.always_backed[v]:
            is_fetched = bool(plan and any((v, t) in plan.fetched for t in f))
            spilled = self._column(f"s[{name}]", is_fetched, cost=size)
            for column in f.values():
                self._row({column: 1.0, spilled: -1.0}, high=0)
        self._k.append(k)
        self._f.append(f)
        self._r.append(r)

    def _take_over(self, i: int) -> None:
        """The output of operator `i` may lie in the block of an input whose other readers have run."""
        instance, plan, x = self._instance, self._plan, self._x
        z: dict[tuple[int, int], int] = {}
        for u in instance.in_place[i]:
            others = [x[c] for c in instance.consumers[u] if c != i]
            for t in x[i]:
                if any(min(other) > t for other in others):
                    continue
                hint = bool(plan and plan.taken_over.get(i) == (u, t))
                z[u, t] = self._column(f"z[{instance.operators[i]},{instance.tensors[u]},{t}]", hint)
                for other in others:
                    late = {column: 1.0 for s, column in other.items() if s > t}
                    if late:
                        self._row({z[u, t]: 1.0} | late, high=1)
        for t in x[i]:
            if here := {column: 1.0 for (_, at), column in z.items() if at == t}:
                self._row(here | {x[i][t]: -1.0}, high=0)
        self._z.append(z)

    def _beside(self, v: int, t: int) -> Row:
        """Whether tensor `v` takes room of its own at step `t`, as a sum of columns."""
        p = self._instance.producer[v]
        taken = {} if p is None else {column: -1.0 for (_, at), column in self._z[p].items() if at == t}
        return self._r[v][t] | taken

    def _place(self) -> None:
        """Add addresses: blocks that meet lie above each other, and lie still while they stay."""
        instance, plan, capacity = self._instance, self._plan, self._instance.capacity
        pairs = [
            (u, v, t)
            for v in range(len(instance.tensors))
            for u in range(v)
            if not self._never_meet(u, v)
            for t in self._present[v]
            if t in self._present[u]
        ]
        if len(pairs) > MAX_PAIRS:
            raise ProgramTooLargeError(
                f"{len(pairs)} pairs of tensors can meet at a step, of at most {MAX_PAIRS} that the integer "
                "program of the placement is written for"
            )
        for v, r in enumerate(self._r):
            room, name, k = capacity - instance.size[v], instance.tensors[v], self._k[v]
            a = {
                t: self._column(f"a[{name},{t}]", plan.address.get((v, t), 0) if plan else 0, high=room)
                for t in r
            }
            self._a.append(a)
            for t in k:
                for sign in (1.0, -1.0):
                    self._row({a[t]: sign, a[t - 1]: -sign, k[t]: float(room)}, high=room)
        for i, z in enumerate(self._z):
            for (u, t), column in z.items():
                v = instance.writes[i][0]
                above, below = self._a[v][t], self._a[u][t]
                slack = capacity - instance.size[u]
                self._row({below: 1.0, above: -1.0, column: float(slack)}, high=slack)
                room = instance.size[u] - instance.size[v]
                self._row({above: 1.0, below: -1.0, column: float(slack)}, high=room + slack)
        for u, v, t in pairs:
            self._apart(u, v, t)

    def _apart(self, u: int, v: int, t: int) -> None:
        """Tensors `u` and `v` share no place at step `t`."""
        self._check_time()
        instance, plan, capacity = self._instance, self._plan, self._instance.capacity
        both = _sum(self._present[u][t], self._present[v][t], 1.0)
        heights = instance.size[u], instance.size[v]
        if sum(heights) > capacity:
            self._row(both, high=1)
            return
        name = f"{instance.tensors[u]},{instance.tensors[v]},{t}"
        at = None
        if plan and (u, t) in plan.address and (v, t) in plan.address:
            at = plan.address[u, t], plan.address[v, t]
        up = self._column(f"up[{name}]", at is not None and at[0] >= at[1] + heights[1])
        dn = self._column(f"dn[{name}]", at is not None and at[1] >= at[0] + heights[0])
        self._row(_sum(both, {up: 1.0, dn: 1.0}, -1.0), high=1)
        self._row({up: 1.0, dn: 1.0}, high=1)
        a, b = self._a[u][t], self._a[v][t]
        self._row({a: 1.0, b: -1.0, up: -float(capacity)}, low=heights[1] - capacity)
        self._row({b: 1.0, a: -1.0, dn: -float(capacity)}, low=heights[0] - capacity)

    def _never_meet(self, u: int, v: int) -> bool:
        """Whether one of two tensors has seen its last use before the other one's first, in every order."""
        return self._ends_before(u, v) or self._ends_before(v, u)

    def _ends_before(self, u: int, v: int) -> bool:
        instance = self._instance
        first = instance.consumers[v] if instance.producer[v] is None else (instance.producer[v],)
        last = instance.consumers[u] or ((p,) if (p := instance.producer[u]) is not None else ())
        return all(instance.ancestors[b] >> a & 1 for a in last for b in first if b is not None)

    def _check_time(self) -> None:
        if perf_counter() > self._deadline_s:
            raise TimeoutError

    def residency(self, values: NDArray[np.float64]) -> Residency:
        """Order and kept gaps of a solution, (n,) integers."""
        chosen = {t: i for i, x in enumerate(self._x) for t, column in x.items() if values[column]}
        order = tuple(chosen[t] for t in range(len(chosen)))
        kept = kept_gaps(self._original, order, lambda v, t: bool(values[self._k[v][t]]))
        return Residency(self._original, order, kept)

    def placed(self, values: NDArray[np.float64]) -> Placed:
        """Return a solution of the joint program, (n,) integers, with its addresses."""
        residency = self.residency(values)
        at = (self._a[block.tensor][block.start] for block in residency.blocks)
        return Placed(residency, tuple(int(values[column]) for column in at))


def _add(row: Row, other: Mapping[int, float], factor: float) -> None:
    for column, value in other.items():
        row[column] = row.get(column, 0.0) + factor * value


def _sum(row: Mapping[int, float], other: Mapping[int, float], factor: float) -> Row:
    """``row + factor * other``; entries that cancel stay as zeros until the row is added."""
    found = dict(row)
    _add(found, other, factor)
    return found
