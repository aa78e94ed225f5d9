"""Solvers as functions of an integer program, and what is believed of their answers."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from functools import partial
from itertools import pairwise
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.sparse import csr_array

from accel.schedule import schedule, working_set_minimum
from accel.schedule._atomic.greedy import greedy
from accel.schedule._atomic.search import search
from accel.schedule._instance import build_instance
from accel.schedule._placement import Placed
from accel.schedule._residency import Residency, all_gaps
from accel.schedule._running import in_an_order_that_runs
from accel.schedule._solvers import cpsat
from accel.schedule._solvers.asking import ask
from accel.schedule._solvers.packing import pack_or_refute
from accel.schedule._solvers.plans import clash
from accel.schedule._solvers.rows import ScheduleProgram
from accel.schedule._solvers.symmetry import in_given_order, interchangeable, renamed
from accel.schedule.backends import resolve
from accel.schedule.integer_program import IntegerProgram, Solution, solve_with_highs
from oracles.scratchpads import graphs, joint_optimum


def soon():
    return perf_counter() + 60


def instance_of(graph, capacity=None, *, order="free"):
    capacity = working_set_minimum(graph, order=order) if capacity is None else capacity
    instance = build_instance(graph, max(capacity, 1), alignment=1, fixed_order=order == "given")
    return in_an_order_that_runs(instance)


def branch_and_bound(program, time_limit_s):
    """A solver of a page: linear relaxations by SciPy, branching on the most fractional column."""
    assert time_limit_s > 0
    dense = program.A.toarray()
    up, down = np.isfinite(program.row_upper), np.isfinite(program.row_lower)
    rows = np.vstack([dense[up], -dense[down]])
    right = np.concatenate([program.row_upper[up], -program.row_lower[down]])
    best, cost, stack = None, program.upper_bound, [(program.lower, program.upper)]
    while stack:
        lower, upper = stack.pop()
        relaxed = linprog(program.c, A_ub=rows, b_ub=right, bounds=np.stack([lower, upper], axis=1))
        if relaxed.status == 2 or relaxed.fun > cost - 1 + 1e-6:
            continue
        fraction = np.abs(relaxed.x - np.rint(relaxed.x))
        j = int(np.argmax(fraction))
        if fraction[j] < 1e-6:
            best, cost = relaxed.x, round(relaxed.fun)
            continue
        below, above = upper.copy(), lower.copy()
        below[j], above[j] = np.floor(relaxed.x[j]), np.ceil(relaxed.x[j])
        stack += [(lower, below), (above, upper)]
    if best is None:
        return Solution(status="infeasible")
    return Solution(status="optimal", values=best, bound=cost)


def start_only(program, time_limit_s):
    """A solver that knows nothing but how to start from the hint."""
    return Solution(status="feasible", values=program.hint, is_warm=True)


def knapsack(**changes):
    program = IntegerProgram(
        c=np.array([-5.0, -6.0]),
        A=csr_array([[2.0, 3.0]]),
        row_lower=np.array([-np.inf]),
        row_upper=np.array([4.0]),
        lower=np.zeros(2),
        upper=np.ones(2),
        integrality=np.ones(2, np.uint8),
        names=("first", "second"),
    )
    return replace(program, **changes)


@pytest.mark.parametrize(("name", "capacity", "optimum"), [("T1", 7, 4), ("T4", 9, 4)])
def test_a_function_is_a_back_end(reference_graphs, name, capacity, optimum):
    instance = instance_of(reference_graphs[name], capacity)
    solver = resolve(branch_and_bound)
    relaxed = solver.solve_capacity(instance, upper=99, hint=None, deadline_s=soon(), seed=0)
    bound, plan = solver.solve_joint(instance, lower=0, hint=None, deadline_s=soon(), seed=0)
    assert relaxed.bound == relaxed.residency.cost == bound == plan.residency.cost == optimum
    assert not clash(plan)
    assert solver.name == solver.version == solver.log[0].solver
    assert solver.name.endswith("test_backends:branch_and_bound")
    assert [(run.problem, run.status, run.note) for run in solver.log] == [
        ("capacity", "optimal", ""),
        ("joint", "optimal", ""),
    ]


def test_a_callable_object_is_a_back_end_too():
    assert resolve(partial(branch_and_bound)).name == "functools:partial"


def test_the_log_tells_model_size_and_warm_start(reference_graphs):
    instance = instance_of(reference_graphs["T5"], 10)
    hint = greedy(instance)
    for name, is_warm in (("cp-sat", True), ("highs", False)):
        solver = resolve(name)
        solver.solve_joint(instance, lower=0, hint=hint, deadline_s=soon(), seed=0)
        (run,) = solver.log
        assert run.is_warm is is_warm
        assert run.columns > len(instance.tensors) + len(instance.operators)
        assert run.model_size == f"{run.columns} columns, {run.rows} rows"
    searched = resolve("search")
    searched.solve_capacity(instance, upper=hint.residency.cost, hint=hint, deadline_s=soon(), seed=0)
    searched.solve_joint(instance, lower=0, hint=hint, deadline_s=soon(), seed=0)
    assert [run.solver for run in searched.log] == ["state search", cpsat.VERSION]
    assert searched.log[0].model_size == ""


@settings(max_examples=30)
@given(graph=graphs(2, 7, in_place=True), slack=st.integers(0, 3), order=st.sampled_from(["free", "given"]))
def test_the_plan_at_hand_is_a_complete_start_of_both_models(graph, slack, order):
    instance = instance_of(graph, working_set_minimum(graph, order=order) + slack, order=order)
    hint = greedy(instance)
    for is_joint in (False, True):
        rows = ScheduleProgram(instance, lower=0, hint=hint, is_joint=is_joint, deadline_s=soon())
        assert rows.program.violation(rows.program.hint) == ""
        assert rows.program.objective(rows.program.hint) == rows.program.upper_bound
    assert rows.placed(rows.program.hint) == renamed(hint)
    model = cpsat.Program(instance, deadline_s=soon())
    model.place()
    model.start_from(hint)
    solver = cpsat.new_solver(deadline_s=soon(), seed=0)
    solver.parameters.fix_variables_to_their_hinted_value = True
    model.solve(solver)
    assert model.placed(solver) == renamed(hint)
    assert len(model.model.proto.solution_hint.vars) == len(model.model.proto.variables)


def test_a_start_is_no_better_plan_but_is_told_as_warm(reference_graphs):
    instance = instance_of(reference_graphs["T3"], 13)
    solver = resolve(start_only)
    found = solver.solve_joint(instance, lower=3, hint=greedy(instance), deadline_s=soon(), seed=0)
    assert found == (3, None)
    assert (solver.log[0].is_warm, solver.log[0].status) == (True, "unknown")


def rounded(values):
    return lambda program, time_limit_s: Solution(status="optimal", values=np.array(values), bound=-99.0)


def test_values_are_rounded_to_the_nearest_integer_and_held_against_the_rows():
    answer = ask(rounded([1e-7, 1 - 1e-7]), knapsack(), deadline_s=soon(), name="near")
    assert (answer.values.tolist(), answer.bound, answer.status, answer.rejected) == (
        [0, 1],
        -6,
        "optimal",
        "",
    )
    answer = ask(rounded([0.5, 1.0]), knapsack(), deadline_s=soon(), name="far")
    assert (answer.values, answer.bound, answer.status) == (None, -11, "unknown")
    assert answer.rejected == "row 0 must be in -inf..4, is 5: +2 first +3 second"
    answer = ask(rounded([np.nan, 1.0]), knapsack(), deadline_s=soon(), name="nan")
    assert answer.rejected == "first must be an integer in 0..1, is nan"


def test_an_optimum_above_a_known_cost_is_not_believed():
    program = knapsack(upper_bound=-6.0)
    answer = ask(rounded([1.0, 0.0]), program, deadline_s=soon(), name="poor")
    assert (answer.values, answer.status) == (None, "unknown")
    assert answer.rejected == "calls a cost of -5 optimal, though one of -6 is known"


def test_infeasible_means_that_nothing_is_below_the_known_cost():
    nothing = lambda program, time_limit_s: Solution(status="infeasible")  # noqa: E731
    answer = ask(nothing, knapsack(upper_bound=-6.0), deadline_s=soon(), name="none")
    assert (answer.bound, answer.status, answer.rejected) == (-6, "infeasible", "")
    answer = ask(nothing, knapsack(), deadline_s=soon(), name="none")
    assert (answer.bound, answer.status) == (-11, "unknown")
    assert "infeasible" in answer.rejected
    assert solve_with_highs(knapsack(upper_bound=-6.0), 10.0).status == "infeasible"
    assert solve_with_highs(knapsack(upper_bound=-5.0), 10.0).values.tolist() == [0, 1]


def test_highs_begins_no_program_that_it_has_no_time_to_prepare():
    program = knapsack(
        A=csr_array(np.full((1000, 2), 1.0)), row_lower=np.zeros(1000), row_upper=np.ones(1000)
    )
    assert solve_with_highs(program, 0.03).status == "unknown"
    assert solve_with_highs(program, 10.0).status == "optimal"


def test_a_solver_out_of_time_is_not_asked():
    answer = ask(lambda *_: pytest.fail("asked"), knapsack(), deadline_s=perf_counter() - 1, name="late")
    assert (answer.values, answer.bound, answer.status) == (None, -11, "unknown")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((1, 2), "solver mine must return a Solution, returned tuple"),
        (
            Solution(status="done"),
            "solver mine must return a status of optimal, feasible, infeasible, unknown; returned 'done'",
        ),
        (
            Solution(status="optimal", values=np.zeros(3)),
            r"solver mine must return values of shape \(2,\), returned \(3,\)",
        ),
        (
            Solution(status="feasible", values=np.array(["0", "1"])),
            r"solver mine must return values that are numbers, returned array\(\['0', '1'\], dtype='<U1'\)",
        ),
        (
            Solution(status="feasible", values=[[1], [1, 2]]),
            r"solver mine must return values that are numbers, returned \[\[1\], \[1, 2\]\]",
        ),
        (
            Solution(status="unknown", bound=None),
            "solver mine must return a bound that is a number, returned None",
        ),
        (
            Solution(status="unknown", bound="5"),
            "solver mine must return a bound that is a number, returned '5'",
        ),
        (
            Solution(status="feasible", values=np.array([0.0, 1.0]), bound=1e18),
            r"solver mine must return a bound that no values are below, returned 1e\+18 with .* cost -6",
        ),
    ],
)
def test_an_answer_of_the_wrong_kind_is_an_error(answer, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        ask(lambda *_: answer, knapsack(), deadline_s=soon(), name="mine")


LIES = {
    "nothing is cheaper": lambda program, seconds: Solution(status="infeasible"),
    "the start is optimal": lambda program, seconds: Solution(status="optimal", values=program.hint),
    "a bound out of the air": lambda program, seconds: Solution(status="unknown", bound=1e18),
}


@pytest.mark.parametrize("solver", LIES.values(), ids=LIES)
def test_a_bound_that_a_quick_plan_is_below_is_refused(reference_graphs, solver):
    # The plan at hand costs 32, the optimum is 14.
    message = r"^solver \S+ must return a bound that no plan is below, returned one of 32 bytes .* of 1[0-4]$"
    with pytest.raises(ValueError, match=message):
        schedule(reference_graphs["T3"], 13, backend=solver)


def test_a_joint_bound_is_held_against_plans_with_addresses(reference_graphs):
    instance = instance_of(reference_graphs["T1"], 7)
    start = greedy(instance)
    assert start.residency.cost == 4
    high = resolve(lambda program, seconds: Solution(status="unknown", bound=6.0 + 1))  # 1 is compulsory
    with pytest.raises(ValueError, match=r"returned one of 6 bytes .*, and there is a plan of 4$"):
        high.solve_joint(instance, lower=0, hint=None, deadline_s=soon(), seed=0)
    right = resolve(lambda program, seconds: Solution(status="unknown", bound=4.0 + 1))
    assert right.solve_joint(instance, lower=0, hint=None, deadline_s=soon(), seed=0) == (4, None)


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("cp-sat", "CP-SAT rejected the model: "),
        ("highs", "costs add up to 5.18815e+18 units, of less than 2**53"),
    ],
)
def test_sizes_beyond_the_numbers_of_a_solver_leave_the_question_open(make_graph, name, note):
    huge = 2**58
    sizes = {"x": 1, "a": 2 * huge, "b": 3 * huge, "c": 3 * huge, "d": 2 * huge}
    graph = make_graph("A: x->a; B: a->b; C: b->c; D: a,c->d", sizes)
    solver, instance = resolve(name), instance_of(graph, 7 * huge)
    options = {"hint": None, "deadline_s": soon(), "seed": 0}
    relaxed = solver.solve_capacity(instance, upper=1 << 60, **options)
    assert (relaxed.bound, relaxed.residency) == (0, None)
    assert solver.solve_joint(instance, lower=3, **options) == (3, None)
    assert [run.status for run in solver.log] == ["unknown", "unknown"]
    for run in solver.log:
        assert run.note.startswith(note)
        assert "\n" not in run.note
    assert schedule(graph, 7 * huge, backend=name).noncompulsory_bytes == 4 * huge


def test_an_overlap_is_reported_and_its_plan_not_returned(reference_graphs, monkeypatch):
    # What a lax solver does: two blocks of one step at one address, and rows that do not object.
    instance = instance_of(reference_graphs["T5"], 10)
    exact = ScheduleProgram.placed
    monkeypatch.setattr(IntegerProgram, "violation", lambda self, values, tolerance=0.0: "")
    monkeypatch.setattr(
        ScheduleProgram,
        "placed",
        lambda self, values: Placed(exact(self, values).residency, (0,) * len(exact(self, values).addresses)),
    )
    solver = resolve("highs")
    bound, plan = solver.solve_joint(instance, lower=0, hint=None, deadline_s=soon(), seed=0)
    assert (bound, plan, solver.log[0].status) == (9, None, "unknown")
    assert solver.log[0].note == "x and a overlap at step 0: [0, 1) and [0, 3)"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gurobi", r"^backend 'gurobi' is not .*\(installed: search, .*'package.module:function'$"),
        ("scip", r"^backend 'scip' is not one of search, cp-sat, highs \(installed: .*$"),
        ("cplex", r"^backend 'cplex' is not one of search, cp-sat, highs \(installed: .*$"),
        ("", r"^backend '' is not one of search, cp-sat, highs \(installed: .*$"),
        ("highspy", r"^backend 'highspy' cannot share a process with ortools; 'highs' is .*$"),
        ("nowhere.solvers:f", "^backend 'nowhere.solvers:f' cannot be imported: No module named 'nowhere'$"),
        ("math:solve", "^backend 'math:solve' cannot be imported: module 'math' has no attribute 'solve'$"),
        (":solve", "^backend ':solve' cannot be imported: Empty module name$"),
        ("math:", "^backend 'math:' cannot be imported: .*$"),
        ("math:pi", "^backend 'math:pi' must be a function, is float$"),
        (3, "^backend must be one of search, cp-sat, highs, or a solver function, got 3$"),
    ],
)  # fmt: skip
def test_a_back_end_that_is_not_there_is_an_error_of_one_line(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        resolve(name)
    assert "\n" not in str(caught.value)


@pytest.fixture
def no_ortools(monkeypatch):
    found = importlib.util.find_spec
    for module in [name for name in sys.modules if name.split(".")[0] == "ortools"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, "accel.schedule._solvers.cpsat", raising=False)
    monkeypatch.setattr(
        "accel.schedule.backends.find_spec", lambda name: None if name == "ortools" else found(name)
    )
    monkeypatch.setitem(sys.modules, "ortools", None)  # importing it now raises ImportError


def test_without_ortools_the_error_says_what_there_is(no_ortools):
    with pytest.raises(ValueError, match=r"^backend 'cp-sat' needs the package ortools.*: search, highs$"):
        resolve("cp-sat")
    with pytest.raises(ValueError, match=r"\(installed: search, highs\)"):
        resolve("gurobi")


def test_without_ortools_the_search_asks_highs_for_addresses(no_ortools, reference_graphs):
    instance = instance_of(reference_graphs["T5"], 10)
    solver = resolve("search")
    bound, plan = solver.solve_joint(instance, lower=0, hint=None, deadline_s=soon(), seed=0)
    assert bound == plan.residency.cost == 9
    assert "HiGHS" in solver.log[0].solver


def test_a_large_placement_is_refused_in_the_log(make_graph, monkeypatch):
    monkeypatch.setattr("accel.schedule._solvers.rows.MAX_PAIRS", 3)
    instance = instance_of(make_graph("A: x->a; B: a,x->b", {"x": 1, "a": 1, "b": 1}))
    solver = resolve("highs")
    assert solver.solve_joint(instance, lower=2, hint=None, deadline_s=soon(), seed=0) == (2, None)
    assert solver.log[0].note.startswith("4 pairs of tensors can meet at a step, of at most 3")
    assert (solver.log[0].columns, solver.log[0].status) == (0, "unknown")


@pytest.mark.parametrize("name", ["cp-sat", "highs", "search"])
def test_out_of_time_the_bound_is_what_was_known(reference_graphs, name):
    instance = instance_of(reference_graphs["T3"], 13)
    solver, late = resolve(name), perf_counter() - 1
    hint = greedy(instance)
    options = {"hint": hint, "deadline_s": late, "seed": 0}
    relaxed = solver.solve_capacity(instance, upper=hint.residency.cost, **options)
    assert 0 <= relaxed.bound <= 12
    assert solver.solve_joint(instance, lower=5, **options) == (5, None)
    assert {run.status for run in solver.log} == {"unknown"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"c": np.zeros(3)}, r"c must have shape \(2,\), as A has \(1, 2\); got \(3,\)"),
        ({"row_upper": np.zeros(2)}, r"row_upper must have shape \(1,\), as A has \(1, 2\); got \(2,\)"),
        ({"names": ("one",)}, "names must be 2, one for each column of A, got 1"),
    ],
)
def test_a_program_has_one_shape(changes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        knapsack(**changes)


def test_a_program_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        knapsack().c[0] = 1.0


def heads(make_graph):
    return make_graph("q: x->a; r: x->b; s: x->c; o: a,b,c->y", {"x": 2, "a": 3, "b": 3, "c": 3, "y": 1})


def test_operators_that_can_be_swapped_run_in_their_given_order(make_graph):
    instance = instance_of(heads(make_graph), 12)
    assert interchangeable(instance) == ((0, 1, 2),)
    assert [steps.start for steps in in_given_order(instance).windows] == [0, 1, 2, 3]
    order = (2, 0, 1, 3)
    gaps = all_gaps(instance, order) - {(3, 0)}  # c is dropped after it was made
    plan = renamed(Placed(Residency(instance, order, gaps), (9, 0, 3, 6, 6, 1)))
    assert plan.residency.order == (0, 1, 2, 3)
    dropped = all_gaps(instance, (0, 1, 2, 3)) - plan.residency.kept
    assert {(instance.tensors[v], t) for v, t in dropped} == {("a", 0)}
    assert plan.residency.cost == 6


def test_a_different_size_or_reader_is_not_interchangeable(make_graph):
    graph = make_graph("q: x->a; r: x->b; o: a,b->y", {"x": 2, "a": 3, "b": 4, "y": 1})
    assert interchangeable(instance_of(graph)) == ()
    graph = make_graph("q: x->a; r: x->b; o: a,b->y; p: b->z", {"x": 2, "a": 3, "b": 3, "y": 1, "z": 1})
    assert interchangeable(instance_of(graph)) == ()
    assert interchangeable(instance_of(heads(make_graph), order="given")) == ()


@pytest.mark.parametrize(("capacity", "optimum"), [(11, 2), (12, 0)])
@pytest.mark.parametrize("backend", ["cp-sat", "highs"])
def test_the_order_of_swappable_operators_costs_nothing(make_graph, backend, capacity, optimum):
    # The join of a, b and c takes 10, so that x (2) stays beside it only in 12.
    graph = make_graph(
        "s: x->c; q: x->a; r: x->b; o: a,b,c->y; p: x,y->z", {"x": 2, "a": 3, "b": 3, "c": 3, "y": 1, "z": 1}
    )
    instance = instance_of(graph, capacity)
    assert interchangeable(instance) == ((0, 1, 2),)
    bound, plan = resolve(backend).solve_joint(instance, lower=0, hint=None, deadline_s=soon(), seed=0)
    assert bound == plan.residency.cost == joint_optimum(graph, capacity)
    assert bound == optimum
    assert [i for i in plan.residency.order if i < 3] == [0, 1, 2]


def residency_of(graph, capacity, *, dropped=()):
    instance = instance_of(graph, capacity, order="given")
    order = tuple(range(len(instance.operators)))
    return Residency(instance, order, all_gaps(instance, order) - set(dropped))


def test_packing_tells_what_cannot_be_placed_from_what_was_not_decided(reference_graphs):
    placed, is_decided = pack_or_refute(residency_of(reference_graphs["T2"], 13), deadline_s=soon(), seed=0)
    assert is_decided
    assert not clash(placed)
    crowded = residency_of(reference_graphs["T2"], 12)
    assert pack_or_refute(crowded, deadline_s=soon(), seed=0) == (None, True)
    # Twelve units suffice for this graph without addresses, and with them fourteen are needed.
    fragmented = search(instance_of(reference_graphs["T3"], 13), upper=14, deadline_s=soon()).residency
    assert fragmented.cost == 12
    assert pack_or_refute(fragmented, deadline_s=soon(), seed=0) == (None, True)
    assert pack_or_refute(fragmented, deadline_s=perf_counter() - 1, seed=0) == (None, False)


@settings(max_examples=40)
@given(graph=graphs(3, 5, max_size=3, in_place=True), slack=st.integers(0, 2), data=st.data())
def test_packing_agrees_with_every_address_tried(graph, slack, data):
    instance = instance_of(graph, working_set_minimum(graph, order="given") + slack, order="given")
    order = tuple(range(len(instance.operators)))
    gaps = sorted(all_gaps(instance, order))
    kept = frozenset(gap for gap in gaps if data.draw(st.booleans()))
    residency = Residency(instance, order, kept)
    placed, is_decided = pack_or_refute(residency, deadline_s=soon(), seed=0)
    assert is_decided
    assert (placed is not None) == any_addresses(residency)
    if placed is not None:
        assert not clash(placed)


def any_addresses(residency):
    """Whether some addresses pass the replay of blocks, every one tried in turn."""
    blocks, size = residency.blocks, residency.instance.size
    capacity = residency.instance.capacity
    last = [uses[-1] for uses in residency.instance.uses(residency.order)]

    def over(new, old, t):
        i = residency.order[t]
        return (
            old.tensor in residency.instance.in_place[i]
            and new.tensor in residency.instance.writes[i]
            and last[old.tensor] == t == old.end == new.start
        )

    def fits(k, at, placed):
        here = blocks[k]
        for j, low in placed.items():
            there = blocks[j]
            if at + size[here.tensor] <= low or low + size[there.tensor] <= at:
                continue
            for t in range(max(here.start, there.start), min(here.end, there.end) + 1):
                inside = (
                    low <= at and at + size[here.tensor] <= low + size[there.tensor] and over(here, there, t),
                    at <= low and low + size[there.tensor] <= at + size[here.tensor] and over(there, here, t),
                )
                if not any(inside):
                    return False
        return True

    def fill(queue, placed):
        if not queue:
            return True
        k, *rest = queue
        return any(
            fits(k, at, placed) and fill(rest, placed | {k: at})
            for at in range(capacity - size[blocks[k].tensor] + 1)
        )

    for t in range(len(residency.order)):  # a quick no
        alone = [size[b.tensor] for b in blocks if b.start <= t <= b.end]
        spared = max((size[b.tensor] for b in blocks for c in blocks if over(b, c, t)), default=0)
        if sum(alone) - spared > capacity:
            return False
    return fill(sorted(range(len(blocks)), key=lambda k: -size[blocks[k].tensor]), {})


def test_a_program_is_written_in_the_order_of_its_names(reference_graphs):
    instance = instance_of(reference_graphs["T1"], 7)
    program = ScheduleProgram(instance, lower=0, hint=None, is_joint=True, deadline_s=soon()).program
    assert program.names[:4] == ("x[A,0]", "x[B,1]", "x[C,2]", "x[D,3]")
    assert len(set(program.names)) == len(program.names)
    assert all(low < high for low, high in pairwise(program.A.indptr))  # no empty row
