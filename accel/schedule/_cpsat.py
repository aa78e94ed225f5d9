"""The integer program of order, residency and placement, for OR-Tools CP-SAT.

One binary per operator and step, one per tensor and step for residency and for fetch, one spill per
tensor, after the time-indexed formulation of [COSMA]_. With addresses it is the joint problem,
without them its capacity relaxation.

References
----------
.. [COSMA] Y. Li, A. Gupta, S. Malik, "COSMA", arXiv 2311.18246, 2023: the problem and the family of
   models. The spill has no step of its own here, as its price does not depend on one.
"""

from __future__ import annotations

from collections import defaultdict
from time import perf_counter
from typing import Any

import ortools
from ortools.sat.python import cp_model

from accel.schedule._instance import Instance
from accel.schedule._placement import Placed
from accel.schedule._residency import Residency, kept_gaps
from accel.schedule._search import Relaxed

VERSION = f"OR-Tools CP-SAT {ortools.__version__}"


def new_solver(*, deadline_s: float, seed: int) -> Any:
    """CP-SAT solver with one worker, so that the same seed gives the same plan."""
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    solver.parameters.max_time_in_seconds = max(deadline_s - perf_counter(), 0.0)
    return solver


def solve_capacity(instance: Instance, *, hint: Placed, deadline_s: float, seed: int) -> Relaxed:
    """Least non-compulsory traffic, in units, below that of `hint`, placement left out."""
    try:
        model = _Program(instance, deadline_s=deadline_s)
    except TimeoutError:
        return Relaxed(0, None)
    bound, solver = model.minimise(lower=0, hint=hint, seed=seed)
    return Relaxed(bound, None if solver is None else model.residency(solver))


def solve_joint(
    instance: Instance, *, lower: int, hint: Placed, deadline_s: float, seed: int
) -> tuple[int, Placed | None]:
    """Least non-compulsory traffic, in units, from `lower` up to below that of `hint`, with addresses.

    Returns
    -------
    A lower bound, which is the cost of `hint` where nothing is cheaper, and the best plan found.
    """
    try:
        model = _Program(instance, deadline_s=deadline_s)
        model.place()
    except TimeoutError:
        return lower, None
    bound, solver = model.minimise(lower=lower, hint=hint, seed=seed)
    return bound, None if solver is None else model.placed(solver)


class _Program:
    """Variables by operator or tensor, then by step: x runs, r resident, f fetched, a address.

    The program of a large graph takes long to write down; `TimeoutError` says it took too long.
    """

    def __init__(self, instance: Instance, *, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._instance = instance
        self._model = cp_model.CpModel()
        self._x = [{t: self._model.new_bool_var("") for t in steps} for steps in instance.windows]
        self._r: list[dict[int, Any]] = []
        self._f: list[dict[int, Any]] = []
        self._a: list[dict[int, Any]] = []
        self._traffic: list[Any] = []
        self._order()
        for v in range(len(instance.tensors)):
            self._reside(v)
        for t in range(len(instance.operators)):
            here = [(size, r[t]) for size, r in zip(instance.size, self._r, strict=True) if t in r]
            if here:
                self._model.add(sum(size * r for size, r in here) <= instance.capacity)

    def _order(self) -> None:
        """One step for each operator, one operator at each step, producers first."""
        model, x = self._model, self._x
        for steps in x:
            model.add_exactly_one(steps.values())
        for t in range(len(x)):
            model.add_exactly_one(steps[t] for steps in x if t in steps)
        for i, before in enumerate(self._instance.after):
            self._check_time()
            for p in before:
                for t in x[i]:
                    if t <= max(x[p]):
                        done = [x[p][u] for u in x[p] if u < t]
                        model.add(sum(x[i][u] for u in x[i] if u <= t) <= sum(done))

    def _reside(self, v: int) -> None:
        """Residency of one tensor: where it is needed, and only with a cause."""
        self._check_time()
        instance, model, x = self._instance, self._model, self._x
        p, readers = instance.producer[v], instance.consumers[v]
        users = [x[i] for i in (readers if p is None else (p, *readers))]
        made = {} if p is None else x[p]
        steps = range(min(map(min, users)), max(map(max, users)) + 1)
        r = {t: model.new_bool_var("") for t in steps}
        # To fetch before a reader runs never saves traffic, so only there a fetch exists.
        read = {t: here for t in steps if (here := [x[c][t] for c in readers if t in x[c]])}
        f = {t: model.new_bool_var("") for t in read}
        for t in steps:
            for user in users:
                if t in user:
                    model.add_implication(user[t], r[t])
            causes = [found[at] for found, at in ((r, t - 1), (f, t), (made, t)) if at in found]
            model.add_bool_or([*causes, ~r[t]])
            if t in f:
                model.add_bool_or([*read[t], ~f[t]])
                model.add_at_most_one([f[t], *(made[u] for u in made if u >= t)])
        self._r.append(r)
        self._f.append(f)
        size = instance.size[v]
        self._traffic.extend(size * fetched for fetched in f.values())
        if instance.is_input[v]:
            self._traffic.append(-size)  # the first load is compulsory
        elif f and not instance.is_output[v]:
            spilled = model.new_bool_var("")
            for fetched in f.values():
                model.add_implication(fetched, spilled)
            self._traffic.append(size * spilled)

    def place(self) -> None:
        """Add addresses: blocks disjoint at every step, and still while they stay."""
        model = self._model
        blocks: defaultdict[int, list[Any]] = defaultdict(list)
        for size, r, f in zip(self._instance.size, self._r, self._f, strict=True):
            self._check_time()
            a = {t: model.new_int_var(0, self._instance.capacity - size, "") for t in r}
            for t in r:
                blocks[t].append(model.new_optional_fixed_size_interval_var(a[t], size, r[t], ""))
                if t - 1 in r:
                    stays = [r[t], r[t - 1], *([~f[t]] if t in f else [])]
                    model.add(a[t] == a[t - 1]).only_enforce_if(stays)
            self._a.append(a)
        for intervals in blocks.values():
            model.add_no_overlap(intervals)

    def _check_time(self) -> None:
        if perf_counter() > self._deadline_s:
            raise TimeoutError

    def minimise(self, *, lower: int, hint: Placed, seed: int) -> tuple[int, Any]:
        """Lower bound, and the solver where it holds a solution cheaper than `hint`."""
        model, upper = self._model, hint.residency.cost
        traffic = sum(self._traffic)
        model.add(traffic >= lower)
        model.add(traffic <= upper - 1)
        model.minimize(traffic)
        self._hint(hint)
        solver = new_solver(deadline_s=self._deadline_s, seed=seed)
        status = solver.solve(model)
        if status == cp_model.INFEASIBLE:
            return upper, None
        bound = max(lower, round(solver.best_objective_bound))
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return bound, solver
        if status == cp_model.UNKNOWN:
            return min(bound, upper), None
        raise RuntimeError(f"CP-SAT rejected the model: {model.validate()}")

    def _hint(self, hint: Placed) -> None:
        """Tell the solver the plan at hand; it is a little too dear, but near a better one."""
        model, order = self._model, hint.residency.order
        address: dict[tuple[int, int], int] = {}
        fetched: set[tuple[int, int]] = set()
        for block, at in zip(hint.residency.blocks, hint.addresses, strict=True):
            address.update(((block.tensor, t), at) for t in range(block.start, block.end + 1))
            if self._instance.producer[block.tensor] != order[block.start]:
                fetched.add((block.tensor, block.start))
        for i, x in enumerate(self._x):
            for t, var in x.items():
                model.add_hint(var, order[t] == i)
        for v, (r, f) in enumerate(zip(self._r, self._f, strict=True)):
            for t, var in r.items():
                model.add_hint(var, (v, t) in address)
            for t, var in f.items():
                model.add_hint(var, (v, t) in fetched)
        for v, a in enumerate(self._a):
            for t, var in a.items():
                if (v, t) in address:
                    model.add_hint(var, address[v, t])

    def residency(self, solver: Any) -> Residency:
        """Return order and kept gaps of the solution."""
        chosen = {t: i for i, x in enumerate(self._x) for t, var in x.items() if solver.boolean_value(var)}
        order = tuple(chosen[t] for t in range(len(chosen)))

        def stays(v: int, t: int) -> bool:
            fetched = t in self._f[v] and solver.boolean_value(self._f[v][t])
            return bool(solver.boolean_value(self._r[v][t])) and not fetched

        return Residency(self._instance, order, kept_gaps(self._instance, order, stays))

    def placed(self, solver: Any) -> Placed:
        """Return the solution with its addresses."""
        residency = self.residency(solver)
        return Placed(residency, tuple(solver.value(self._a[b.tensor][b.start]) for b in residency.blocks))
