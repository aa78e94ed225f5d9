"""Back ends: what computes the bound of a schedule, and what decides where its plan cannot be placed.

Every back end answers two questions about an instance: the least traffic without addresses, and the
least traffic with them. ``"search"`` answers the first by shortest path over machine states and hands
the second to CP-SAT; ``"cp-sat"`` and ``"highs"`` answer both by an integer program; any other solver
is a function, see :mod:`accel.schedule.integer_program`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from time import perf_counter
from typing import Any, Literal, Protocol, TypeAlias

from accel.schedule._atomic.gap_model import replace_optimally
from accel.schedule._atomic.search import Relaxed, search
from accel.schedule._instance import Instance
from accel.schedule._placement import Placed
from accel.schedule._solvers.asking import Answer, ask
from accel.schedule._solvers.plans import clash
from accel.schedule._solvers.refuting import refuse_bound_above_plan
from accel.schedule._solvers.rows import ProgramTooLargeError, ScheduleProgram
from accel.schedule.integer_program import HIGHS_VERSION, SolverFunction, Status, solve_with_highs

NAMES = ("search", "cp-sat", "highs")

_TOO_LATE = "out of time while the model was written down"

Problem: TypeAlias = Literal["capacity", "joint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverRun:
    """One question to a solver.

    Attributes
    ----------
    problem
        Without addresses (``"capacity"``) or with them (``"joint"``).
    solver
        Name and version.
    columns, rows
        Variables and constraints of the model as it was handed over; 0 for the search, which has none,
        and for a model that was not finished, see `note`.
    is_warm
        Whether the solver started from the plan at hand.
    status
        ``"optimal"`` or ``"infeasible"`` (nothing is cheaper than the plan at hand) where the question is
        decided.
    seconds
        Time spent, writing the model included.
    note
        Why there is no answer, or why the solver's was not accepted; mostly empty.
    """

    problem: Problem
    solver: str
    columns: int = 0
    rows: int = 0
    is_warm: bool = False
    status: Status
    seconds: float = field(compare=False)
    note: str = ""

    @property
    def model_size(self) -> str:
        """Such as ``"1204 columns, 2380 rows"``; empty without a model."""
        return f"{self.columns} columns, {self.rows} rows" if self.columns else ""


class Backend(Protocol):
    """What the scheduler asks; costs and bounds are in units of the instance.

    Attributes
    ----------
    name, version
        As chosen by the caller, and of what computes the bound.
    log
        Every question so far, in order.
    """

    name: str
    version: str
    log: list[SolverRun]

    def solve_capacity(
        self, instance: Instance, *, upper: int, hint: Placed | None, deadline_s: float, seed: int
    ) -> Relaxed:
        """Least traffic below `upper` without addresses."""
        ...

    def solve_joint(
        self, instance: Instance, *, lower: int, hint: Placed | None, deadline_s: float, seed: int
    ) -> tuple[int, Placed | None]:
        """Bound on the traffic with addresses, and a plan cheaper than `hint` if one was found."""
        ...


def resolve(backend: str | SolverFunction) -> Backend:
    """Back end of a name, of a solver function, or of the place of one, ``"package.module:function"``.

    Raises
    ------
    ValueError
        The name is none of ours, what it needs is not installed, or the place holds no function.

    Examples
    --------
    >>> resolve("highs").name
    'highs'
    >>> resolve("accel.schedule.integer_program:solve_with_highs").version
    'accel.schedule.integer_program:solve_with_highs'
    >>> resolve("gurobi")
    Traceback (most recent call last):
    ...
    ValueError: backend 'gurobi' is not one of search, cp-sat, highs (installed: search, cp-sat, highs); any
    other solver is given as a function of a program and seconds, or as the text 'package.module:function'
    """
    if not isinstance(backend, str):
        if not callable(backend):
            raise ValueError(
                f"backend must be one of {', '.join(NAMES)}, or a solver function, got {backend!r}"
            )
        return ProgramBackend(_place(backend), backend)
    if ":" in backend:
        return ProgramBackend(backend, _imported(backend))
    if backend not in NAMES:
        raise ValueError(_unknown(backend))
    if backend == "highs":
        return ProgramBackend("highs", solve_with_highs, version=HIGHS_VERSION)
    if backend == "cp-sat":
        if not _is_installed("ortools"):
            raise ValueError(
                "backend 'cp-sat' needs the package ortools, which is not installed; installed: "
                f"{', '.join(_installed())}"
            )
        return CpSatBackend()
    return SearchBackend()


class CpSatBackend:
    """Both questions by OR-Tools CP-SAT."""

    def __init__(self) -> None:
        from accel.schedule._solvers import cpsat  # late: it takes a second, mostly in vain

        self.name = "cp-sat"
        self.version = cpsat.VERSION
        self.log: list[SolverRun] = []

    def solve_capacity(
        self, instance: Instance, *, upper: int, hint: Placed | None, deadline_s: float, seed: int
    ) -> Relaxed:
        """Least traffic below `upper` without addresses."""
        from accel.schedule._solvers import cpsat

        started_s, sizes = perf_counter(), list[cpsat.ModelSize]()
        note = ""
        try:
            found = cpsat.solve_capacity(
                instance, hint=hint, upper=upper, deadline_s=deadline_s, seed=seed, sizes=sizes
            )
        except cpsat.RejectedModelError as error:
            found, note = Relaxed(0, None), str(error)
        cost = None if found.residency is None else found.residency.cost
        self._record("capacity", sizes, found.bound, cost, upper, started_s, note)
        return found

    def solve_joint(
        self, instance: Instance, *, lower: int, hint: Placed | None, deadline_s: float, seed: int
    ) -> tuple[int, Placed | None]:
        """Bound on the traffic with addresses, and a plan cheaper than `hint` if one was found."""
        from accel.schedule._solvers import cpsat

        started_s, sizes = perf_counter(), list[cpsat.ModelSize]()
        try:
            bound, plan = cpsat.solve_joint(
                instance, lower=lower, hint=hint, deadline_s=deadline_s, seed=seed, sizes=sizes
            )
            note = "" if plan is None else clash(plan)
        except cpsat.RejectedModelError as error:
            bound, plan, note = lower, None, str(error)
        if note:
            plan = None
        cost = None if plan is None else plan.residency.cost
        upper = None if hint is None else hint.residency.cost
        self._record("joint", sizes, bound, cost, upper, started_s, note)
        return bound, plan

    def _record(
        self,
        problem: Problem,
        sizes: list[Any],
        bound: int,
        cost: int | None,
        upper: int | None,
        started_s: float,
        note: str = "",
    ) -> None:
        size = sizes[-1] if sizes else None
        if size is None:
            note = _TOO_LATE
        self.log.append(
            SolverRun(
                problem=problem,
                solver=self.version,
                columns=0 if size is None else size.variables,
                rows=0 if size is None else size.constraints,
                is_warm=size is not None and size.is_warm,
                status=_status(bound, cost, upper),
                seconds=perf_counter() - started_s,
                note=note,
            )
        )


class ProgramBackend:
    """Both questions as an integer program for a solver function."""

    def __init__(self, name: str, solver: SolverFunction, *, version: str = "") -> None:
        self.name = name
        self.version = version or name
        self.log: list[SolverRun] = []
        self._solver = solver

    def solve_capacity(
        self, instance: Instance, *, upper: int, hint: Placed | None, deadline_s: float, seed: int
    ) -> Relaxed:
        """Least traffic below `upper` without addresses. The seed is the solver's own affair."""
        del seed
        started_s = perf_counter()
        start = hint if hint is not None and hint.residency.cost <= upper else None
        try:
            model = ScheduleProgram(
                instance, lower=0, hint=start, upper=upper, is_joint=False, deadline_s=deadline_s
            )
        except (TimeoutError, ProgramTooLargeError) as error:
            self._record("capacity", None, None, started_s, str(error) or _TOO_LATE)
            return Relaxed(0, None)
        answer = ask(self._solver, model.program, deadline_s=deadline_s, name=self.name)
        self._record("capacity", model, answer, started_s, answer.rejected)
        bound = max(answer.bound - model.rebate, 0)
        refuse_bound_above_plan(instance, bound, is_joint=False, name=self.name)
        return Relaxed(bound, None if answer.values is None else model.residency(answer.values))

    def solve_joint(
        self, instance: Instance, *, lower: int, hint: Placed | None, deadline_s: float, seed: int
    ) -> tuple[int, Placed | None]:
        """Bound on the traffic with addresses, and a plan cheaper than `hint` if one was found.

        The placement takes columns for every two tensors that can meet at a step: for small graphs. Of a
        larger one nothing is said but `lower`, and the log says why.
        """
        del seed
        started_s = perf_counter()
        try:
            model = ScheduleProgram(instance, lower=lower, hint=hint, is_joint=True, deadline_s=deadline_s)
        except (TimeoutError, ProgramTooLargeError) as error:
            self._record("joint", None, None, started_s, str(error) or _TOO_LATE)
            return lower, None
        answer = ask(self._solver, model.program, deadline_s=deadline_s, name=self.name)
        bound = max(answer.bound - model.rebate, lower)
        plan = None if answer.values is None else model.placed(answer.values)
        note = answer.rejected or ("" if plan is None else clash(plan))
        self._record("joint", model, answer, started_s, note)
        if bound > lower:
            refuse_bound_above_plan(instance, bound, is_joint=True, name=self.name)
        return bound, None if note else plan

    def _record(
        self,
        problem: Problem,
        model: ScheduleProgram | None,
        answer: Answer | None,
        started_s: float,
        note: str,
    ) -> None:
        rows, columns = (0, 0) if model is None else model.program.A.shape
        self.log.append(
            SolverRun(
                problem=problem,
                solver=self.version,
                columns=columns,
                rows=rows,
                is_warm=answer is not None and answer.is_warm,
                status="unknown" if answer is None or note else answer.status,
                seconds=perf_counter() - started_s,
                note=note,
            )
        )


class SearchBackend:
    """The first question by shortest path over machine states, the second by CP-SAT.

    Where ortools is not installed, HiGHS takes the second; the log names who answered.
    """

    def __init__(self) -> None:
        self.name = "search"
        self.version = "state search"
        self.log: list[SolverRun] = []
        self._joint: Backend | None = None

    def solve_capacity(
        self, instance: Instance, *, upper: int, hint: Placed | None, deadline_s: float, seed: int
    ) -> Relaxed:
        """Least traffic below `upper` without addresses. Neither hint nor seed is needed."""
        del hint, seed
        started_s = perf_counter()
        if instance.is_in_order:
            found = _replaced(instance, upper=upper, deadline_s=deadline_s)
        else:
            found = search(instance, upper=upper, deadline_s=deadline_s)
        cost = None if found.residency is None else found.residency.cost
        self.log.append(
            SolverRun(
                problem="capacity",
                solver=self.version,
                status=_status(found.bound, cost, upper),
                seconds=perf_counter() - started_s,
            )
        )
        return found

    def solve_joint(
        self, instance: Instance, *, lower: int, hint: Placed | None, deadline_s: float, seed: int
    ) -> tuple[int, Placed | None]:
        """Bound on the traffic with addresses, and a plan cheaper than `hint` if one was found."""
        if self._joint is None:
            self._joint = resolve("cp-sat" if _is_installed("ortools") else "highs")
            self._joint.log = self.log
        return self._joint.solve_joint(instance, lower=lower, hint=hint, deadline_s=deadline_s, seed=seed)


def _replaced(instance: Instance, *, upper: int, deadline_s: float) -> Relaxed:
    """Best replacement in the one order there is: what the search would find, without its states."""
    order = range(len(instance.operators))
    residency, bound = replace_optimally(instance, order, deadline_s=deadline_s)
    if residency.cost >= upper:
        return Relaxed(min(bound, upper), None)
    return Relaxed(bound, residency)


def _status(bound: int, cost: int | None, upper: int | None) -> Status:
    """What a bound, the cost of a plan and the cost to beat add up to."""
    if cost is not None:
        return "optimal" if cost <= bound else "feasible"
    return "infeasible" if upper is not None and bound >= upper else "unknown"


def _place(function: Callable[..., Any]) -> str:
    """Module and name of a function, to be told apart in a report."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '?')}:{name}"


def _imported(place: str) -> SolverFunction:
    """Function at ``"package.module:function"``."""
    module_name, _, name = place.partition(":")
    try:
        found: Any = import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"backend {place!r} cannot be imported: {reason}") from error
    if not callable(found):
        raise ValueError(f"backend {place!r} must be a function, is {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def _unknown(name: str) -> str:
    how = (
        "any other solver is given as a function of a program and seconds, or as the text "
        "'package.module:function'"
    )
    if name == "highspy":
        reason = "cannot share a process with ortools; 'highs' is the same solver through SciPy"
        return f"backend 'highspy' {reason}; {how}"
    return f"backend {name!r} is not one of {', '.join(NAMES)} (installed: {', '.join(_installed())}); {how}"


def _installed() -> list[str]:
    return [name for name in NAMES if name != "cp-sat" or _is_installed("ortools")]


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # an import that is blocked, or a half-made module
        return False
