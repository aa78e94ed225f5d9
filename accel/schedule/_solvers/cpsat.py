"""The integer program of order, residency and placement, for OR-Tools CP-SAT.

One binary per operator and step, two per tensor and step for being resident and being fetched, one spill
per tensor, after the time-indexed formulation of [COSMA]_. With addresses it is the
joint problem, without them its capacity relaxation.

References
----------
.. [COSMA] Y. Li, A. Gupta, S. Malik, "COSMA", arXiv 2311.18246, 2023: the problem and the family of
   models. The spill has no step of its own here, as its price does not depend on one.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import ortools
from ortools.sat.python import cp_model

from accel.schedule._atomic.search import Relaxed
from accel.schedule._instance import Instance
from accel.schedule._placement import Placed
from accel.schedule._residency import Residency, kept_gaps
from accel.schedule._solvers.plans import plan_steps
from accel.schedule._solvers.symmetry import in_given_order, renamed

VERSION = f"OR-Tools CP-SAT {ortools.__version__}"


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Variables and constraints of a model as it is handed over, and whether a start went with it."""

    variables: int
    constraints: int
    is_warm: bool


def new_solver(*, deadline_s: float, seed: int) -> Any:
    """CP-SAT solver with one worker, so that the same seed gives the same plan."""
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    solver.parameters.max_time_in_seconds = max(deadline_s - perf_counter(), 0.0)
    return solver


def solve_capacity(
    instance: Instance,
    *,
    hint: Placed | None,
    deadline_s: float,
    seed: int,
    upper: int | None = None,
    sizes: list[ModelSize] | None = None,
) -> Relaxed:
    """Least non-compulsory traffic, in units, below that of `hint`, placement left out.

    Parameters
    ----------
    upper
        Only less traffic than this is looked for; that of `hint` if left out.
    sizes
        The size of the model is appended to it.

    Raises
    ------
    RejectedModelError
        The sizes are too large.
    """
    try:
        model = Program(instance, deadline_s=deadline_s)
    except TimeoutError:
        return Relaxed(0, None)
    bound, solver = model.minimise(lower=0, hint=hint, upper=upper, seed=seed, sizes=sizes)
    return Relaxed(bound, None if solver is None else model.residency(solver))


def solve_joint(
    instance: Instance,
    *,
    lower: int,
    hint: Placed | None,
    deadline_s: float,
    seed: int,
    sizes: list[ModelSize] | None = None,
) -> tuple[int, Placed | None]:
    """Least non-compulsory traffic, in units, from `lower` up to below that of `hint`, with addresses.

    Returns
    -------
    A lower bound, which is the cost of `hint` where nothing is cheaper, and the best plan found.
    """
    try:
        model = Program(instance, deadline_s=deadline_s)
        model.place()
    except TimeoutError:
        return lower, None
    bound, solver = model.minimise(lower=lower, hint=hint, seed=seed, sizes=sizes)
    return bound, None if solver is None else model.placed(solver)


class RejectedModelError(Exception):
    """CP-SAT does not take the model: sums of the sizes do not fit into its 64 bits."""


class Program:
    """Variables by operator or tensor, then by step.

    x runs, r resident, f fetched, z output lies in the block of an input, a address. A tensor that no
    operator uses at a step is there only on its way to a later one, so that it is never resident before
    its first use or after its last one.

    The program of a large graph takes long to write down; `TimeoutError` says it took too long.
    """

    def __init__(self, instance: Instance, *, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._original = instance
        self._instance = instance = in_given_order(instance)
        self.model = cp_model.CpModel()
        self._x = [{t: self.model.new_bool_var("") for t in steps} for steps in instance.windows]
        self._r: list[dict[int, Any]] = []
        self._f: list[dict[int, Any]] = []
        self._z: list[dict[tuple[int, int], Any]] = [{} for _ in instance.operators]
        self._a: list[dict[int, Any]] = []
        self._beside: dict[tuple[int, int], Any] = {}
        self._spilled: dict[int, Any] = {}
        self._traffic: list[Any] = []
        self._order()
        for v in range(len(instance.tensors)):
            self._reside(v)
        for i in range(len(instance.operators)):
            self._take_over(i)
        for t in range(len(instance.operators)):
            here = [size * r[t] for size, r in zip(instance.size, self._r, strict=True) if t in r]
            here += [
                -instance.size[instance.writes[i][0]] * taken
                for i, z in enumerate(self._z)
                for (_, at), taken in z.items()
                if at == t
            ]
            if here:
                self.model.add(cp_model.LinearExpr.sum(here) <= instance.capacity)

    def _order(self) -> None:
        """One step for each operator, one operator at each step, producers first."""
        model, x = self.model, self._x
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
                        run = [x[i][u] for u in x[i] if u <= t]
                        model.add(cp_model.LinearExpr.sum(run) <= cp_model.LinearExpr.sum(done))

    def _reside(self, v: int) -> None:
        """Residency of one tensor: where it is needed, and only with a cause and a purpose."""
        self._check_time()
        instance, model, x = self._instance, self.model, self._x
        p, readers = instance.producer[v], instance.consumers[v]
        users = [x[i] for i in (readers if p is None else (p, *readers))]
        made = {} if p is None else x[p]
        steps = range(min(map(min, users)), max(map(max, users)) + 1)
        r = {t: model.new_bool_var("") for t in steps}
        # To fetch before a reader runs never saves traffic, so only there a fetch exists.
        read = {t: here for t in steps if (here := [x[c][t] for c in readers if t in x[c]])}
        f = {t: model.new_bool_var("") for t in read}
        for t in steps:
            used = [user[t] for user in users if t in user]
            for here in used:
                model.add_implication(here, r[t])
            causes = [found[at] for found, at in ((r, t - 1), (f, t), (made, t)) if at in found]
            model.add_bool_or([*causes, ~r[t]])
            # What no operator uses at this step stays until the next one.
            model.add_bool_or([*used, *([r[t + 1]] if t + 1 in r else []), ~r[t]])
            if t + 1 in f:
                model.add_bool_or([*used, ~f[t + 1], ~r[t]])
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
            self._spilled[v] = spilled = model.new_bool_var("")
            for fetched in f.values():
                model.add_implication(fetched, spilled)
            self._traffic.append(size * spilled)

    def _take_over(self, i: int) -> None:
        """The output of operator `i` may lie in the block of an input whose other readers have run."""
        model, x = self.model, self._x
        for u in self._instance.in_place[i]:
            others = [c for c in self._instance.consumers[u] if c != i]
            for t in x[i]:
                if any(min(x[c]) > t for c in others):
                    continue
                taken = self._z[i][u, t] = model.new_bool_var("")
                for c in others:
                    model.add_at_most_one([taken, *(x[c][s] for s in x[c] if s > t)])
        for t in x[i]:
            if here := [taken for (_, at), taken in self._z[i].items() if at == t]:
                model.add_at_most_one([*here, ~x[i][t]])

    def place(self) -> None:
        """Add addresses: blocks disjoint at every step, and still while they stay."""
        model, instance = self.model, self._instance
        blocks: defaultdict[int, list[Any]] = defaultdict(list)
        for v, (size, r, f) in enumerate(zip(instance.size, self._r, self._f, strict=True)):
            self._check_time()
            a = {t: model.new_int_var(0, instance.capacity - size, "") for t in r}
            self._a.append(a)
            for t in r:
                present = self._present(v, t)
                blocks[t].append(model.new_optional_fixed_size_interval_var(a[t], size, present, ""))
                if t - 1 in r:
                    stays = [r[t], r[t - 1], *([~f[t]] if t in f else [])]
                    model.add(a[t] == a[t - 1]).only_enforce_if(stays)
        for i, z in enumerate(self._z):
            for (u, t), taken in z.items():
                v = instance.writes[i][0]
                room = instance.size[u] - instance.size[v]
                model.add(self._a[v][t] >= self._a[u][t]).only_enforce_if(taken)
                model.add(self._a[v][t] <= self._a[u][t] + room).only_enforce_if(taken)
        for intervals in blocks.values():
            model.add_no_overlap(intervals)

    def _present(self, v: int, t: int) -> Any:
        """Whether tensor `v` takes room of its own at step `t`: it is resident, not over an input."""
        p = self._instance.producer[v]
        taken = [] if p is None else [z for (_, at), z in self._z[p].items() if at == t]
        if not taken:
            return self._r[v][t]
        present = self._beside[v, t] = self.model.new_bool_var("")
        self.model.add_exactly_one([present, *taken, ~self._r[v][t]])
        return present

    def _check_time(self) -> None:
        if perf_counter() > self._deadline_s:
            raise TimeoutError

    def minimise(
        self,
        *,
        lower: int,
        hint: Placed | None,
        seed: int,
        upper: int | None = None,
        sizes: list[ModelSize] | None = None,
    ) -> tuple[int, Any]:
        """Lower bound, and the solver where it holds a solution cheaper than `hint` and `upper`.

        Raises
        ------
        RejectedModelError
            The sizes are too large for it.
        """
        model = self.model
        traffic = cp_model.LinearExpr.sum(self._traffic)
        model.add(traffic >= lower)
        model.minimize(traffic)
        known = None if hint is None else hint.residency.cost
        is_warm = known is not None and (upper is None or known <= upper)
        limit = known if is_warm else upper
        if hint is not None:
            self.start_from(hint)
        if limit is not None:
            # A plan at hand that costs as much as the limit is itself a solution: the solver starts
            # from it, and may end with it.
            model.add(traffic <= limit - (not is_warm))
        if sizes is not None:
            proto = model.proto
            sizes.append(ModelSize(len(proto.variables), len(proto.constraints), is_warm))
        solver = new_solver(deadline_s=self._deadline_s, seed=seed)
        status = self.solve(solver)
        if status == cp_model.INFEASIBLE:
            if is_warm or limit is None:
                raise RuntimeError("CP-SAT finds no plan at all, though there is one")
            return limit, None
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE, cp_model.UNKNOWN):
            reason = model.validate().partition(":")[0].partition("{")[0].strip()
            raise RejectedModelError(f"CP-SAT rejected the model: {reason}")
        bound = max(lower, round(solver.best_objective_bound))
        if limit is not None:
            bound = min(bound, limit)
        if status == cp_model.UNKNOWN or (limit is not None and round(solver.objective_value) >= limit):
            return bound, None
        return bound, solver

    def solve(self, solver: Any) -> Any:
        """Status of the solver, run on the model as it stands."""
        return solver.solve(self.model)

    def start_from(self, hint: Placed) -> None:
        """Tell the solver the plan at hand, every variable of it."""
        model, instance = self.model, self._instance
        hint = renamed(hint)
        order, steps = hint.residency.order, plan_steps(hint)
        for i, x in enumerate(self._x):
            for t, var in x.items():
                model.add_hint(var, order[t] == i)
            for (u, t), var in self._z[i].items():
                model.add_hint(var, steps.taken_over.get(i) == (u, t))
        for v in range(len(instance.tensors)):
            for t, var in self._r[v].items():
                model.add_hint(var, (v, t) in steps.address)
            for t, var in self._f[v].items():
                model.add_hint(var, (v, t) in steps.fetched)
            if v in self._spilled:
                model.add_hint(self._spilled[v], any((v, t) in steps.fetched for t in self._f[v]))
        for v, a in enumerate(self._a):
            for t, var in a.items():
                model.add_hint(var, steps.address.get((v, t), 0))
        over = {(instance.writes[i][0], t) for i, (_, t) in steps.taken_over.items()}
        for (v, t), var in self._beside.items():
            model.add_hint(var, (v, t) in steps.address and (v, t) not in over)

    def residency(self, solver: Any) -> Residency:
        """Return order and kept gaps of the solution."""
        chosen = {t: i for i, x in enumerate(self._x) for t, var in x.items() if solver.boolean_value(var)}
        order = tuple(chosen[t] for t in range(len(chosen)))

        def stays(v: int, t: int) -> bool:
            is_fetched = t in self._f[v] and solver.boolean_value(self._f[v][t])
            return bool(solver.boolean_value(self._r[v][t])) and not is_fetched

        return Residency(self._original, order, kept_gaps(self._original, order, stays))

    def placed(self, solver: Any) -> Placed:
        """Return the solution with its addresses."""
        residency = self.residency(solver)
        return Placed(residency, tuple(solver.value(self._a[b.tensor][b.start]) for b in residency.blocks))
