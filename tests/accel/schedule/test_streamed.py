"""Tensors kept whole between operators, judged by every choice of gaps and by replay of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.schedule.streamed import Kept, Residency, Streaming, Use, keep, streaming_of
from accel.workload import Operator, Role, Tensor, Workload
from numerics.formats import parse_format

BACKENDS = ("dynamic-program", "integer-program")


@dataclass(frozen=True)
class Case:
    """A problem in the words of its definition; `touches` are the steps of a tensor and their costs."""

    sizes: Mapping[str, int]
    touches: Mapping[str, tuple[tuple[int, int], ...]]
    produced: frozenset[str]
    outputs: frozenset[str]
    capacity: tuple[int, ...]

    def problem(self) -> Streaming:
        costs = {
            Use(name, step, name in self.produced and i == 0): cost
            for name, touches in self.touches.items()
            for i, (step, cost) in enumerate(touches)
        }
        return Streaming.from_uses(self.sizes, costs, self.capacity, outputs=self.outputs)


@st.composite
def cases(draw, *, most_tensors=5, most_steps=8, most_uses=4, most_size=9):
    steps = draw(st.integers(1, most_steps))
    names = "abcdefghijklmnopqrst"[: draw(st.integers(0, most_tensors))]
    sizes = {name: draw(st.integers(1, most_size)) for name in names}
    touches = {}
    for name in names:
        at = draw(st.sets(st.integers(0, steps - 1), min_size=1, max_size=min(steps, most_uses)))
        extra = st.one_of(st.just(0), st.integers(0, 2 * most_size))
        touches[name] = tuple((step, sizes[name] + draw(extra)) for step in sorted(at))
    subset = st.frozensets(st.sampled_from(names)) if names else st.just(frozenset())
    room = st.integers(0, 3 * most_size)
    capacity = draw(st.one_of(room.map(lambda c: (c,) * steps), st.tuples(*[room] * steps)))
    return Case(sizes, touches, draw(subset), draw(subset), capacity)


def choices(case: Case, name: str):
    """Cost and occupied steps of one tensor for every choice of its gaps, by the definition."""
    touches, size = case.touches[name], case.sizes[name]
    for kept in product((False, True), repeat=len(touches) - 1):
        cost = 0
        for j, (_, streamed) in enumerate(touches):
            before, after = j > 0 and kept[j - 1], j < len(kept) and kept[j]
            if j == 0 and name in case.produced:
                stored = name in case.outputs or not all(kept)
                cost += (size if after else streamed) if stored else 0
            elif not before:
                cost += size if after else streamed
        pairs = [(touches[j][0], touches[j + 1][0]) for j in range(len(kept)) if kept[j]]
        yield cost, {t for start, end in pairs for t in range(start, end + 1)}


def best(case: Case) -> tuple[int, int]:
    """Least total, and least byte-steps among plans of that total, over all choices of all gaps."""
    found = None
    for plan in product(*(choices(case, name) for name in case.sizes)):
        load = [0] * len(case.capacity)
        for size, (_, occupied) in zip(case.sizes.values(), plan, strict=True):
            for t in occupied:
                load[t] += size
        if all(here <= room for here, room in zip(load, case.capacity, strict=True)):
            value = sum(cost for cost, _ in plan), sum(load)
            found = value if found is None else min(found, value)
    assert found is not None
    return found


def replay(plan: Kept) -> tuple[Mapping[Use, int], list[int]]:
    """What each use costs and the bytes at each step, read off the residencies alone."""
    problem = plan.problem
    stays = {name: [stay for stay in plan.residency if stay.tensor == name] for name in problem.tensors}
    costs = {}
    for v, name in enumerate(problem.tensors):
        size, mine = int(problem.size_bytes[v]), stays[name]
        span = range(int(problem.first[v]), int(problem.first[v + 1]))
        steps = [int(problem.step[i]) for i in span]
        stays_throughout = len(mine) == 1 and (mine[0].start, mine[0].end) == (steps[0], steps[-1])
        for i, step in zip(span, steps, strict=True):
            use = problem.uses[i]
            is_inside = any(stay.start < step <= stay.end for stay in mine)
            is_start = any(stay.start == step for stay in mine)
            cost = 0 if is_inside else size if is_start else int(problem.streamed_bytes[i])
            if use.writes and not problem.is_output[v] and (stays_throughout or len(steps) == 1):
                cost = 0
            costs[use] = cost
    load = [
        sum(stay.bytes for stay in plan.residency if stay.start <= t <= stay.end)
        for t in range(problem.capacity_bytes.size)
    ]
    return costs, load


def check(plan: Kept) -> None:
    costs, load = replay(plan)
    problem = plan.problem
    assert plan.costs == costs
    assert plan.total_bytes == sum(costs.values())
    assert plan.resident_bytes.tolist() == load
    assert all(here <= room for here, room in zip(load, problem.capacity_bytes.tolist(), strict=True))
    assert plan.peak_bytes == max(load, default=0)
    assert plan.byte_steps == sum(load)
    assert problem.compulsory_bytes <= plan.bound_bytes <= plan.total_bytes <= problem.layer_by_layer_bytes
    assert plan.is_optimal == (plan.gap == 0)
    assert sum(map(len, plan.gaps.values())) == plan.kept.sum()


@given(case=cases())
def test_no_choice_of_gaps_is_better(case):
    plan = keep(case.problem())
    check(plan)
    assert plan.is_optimal
    assert (plan.total_bytes, plan.byte_steps) == best(case)


@given(case=cases())
def test_both_engines_find_the_same_optimum(case):
    wanted = best(case)
    for backend in BACKENDS:
        plan = keep(case.problem(), backend=backend)
        check(plan)
        assert plan.is_optimal
        assert (plan.total_bytes, plan.byte_steps) == wanted


@settings(max_examples=40)
@given(case=cases(most_tensors=16, most_steps=20, most_uses=5, most_size=40))
def test_engines_agree_where_there_are_too_many_choices_to_list(case):
    plans = [keep(case.problem(), backend=backend) for backend in BACKENDS]
    for plan in plans:
        check(plan)
        assert plan.is_optimal
    assert len({(plan.total_bytes, plan.byte_steps) for plan in plans}) == 1


@given(case=cases(most_tensors=8, most_steps=12), more=st.integers(1, 9), step=st.integers(0, 11))
def test_more_capacity_never_costs(case, more, step):
    problem = case.problem()
    everywhere = replace(problem, capacity_bytes=problem.capacity_bytes + more)
    here = problem.capacity_bytes.copy()
    here[step % here.size] += more
    total = keep(problem).total_bytes
    assert keep(everywhere).total_bytes <= keep(replace(problem, capacity_bytes=here)).total_bytes <= total


@given(case=cases(most_tensors=8, most_steps=12))
def test_the_least_is_reached_where_all_gaps_fit_and_no_earlier(case):
    problem = case.problem()
    enough = problem.compulsory_capacity_bytes

    def at(capacity):
        return keep(replace(problem, capacity_bytes=np.full(len(case.capacity), capacity)))

    assert at(enough).total_bytes == problem.compulsory_bytes
    assert at(enough).method == "fits"
    if enough:
        assert at(enough - 1).total_bytes > problem.compulsory_bytes
    nothing = at(0)
    assert nothing.total_bytes == problem.layer_by_layer_bytes
    assert not nothing.residency


@settings(max_examples=40)
@given(case=cases(most_tensors=10, most_steps=12))
def test_equal_problems_get_equal_plans(case):
    for backend in BACKENDS:
        first, second = (keep(case.problem(), backend=backend) for _ in range(2))
        assert first.kept.tolist() == second.kept.tolist()


def skip_block(**capacity):
    """``b = f(a)``, ``c = g(b)``, ``d = a + c``; a use of `a` streams it twice, c is stored three times."""
    return Case(
        sizes={"x": 4, "a": 8, "b": 12, "c": 8, "d": 8},
        touches={
            "x": ((0, 6),),
            "a": ((0, 8), (1, 16), (3, 8)),
            "b": ((1, 12), (2, 12)),
            "c": ((2, 24), (3, 8)),
            "d": ((3, 8),),
        },
        produced=frozenset("abcd"),
        outputs=frozenset("d"),
        capacity=(capacity["bytes"],) * 4,
    ).problem()


def test_a_skip_connection_by_hand():
    # Nothing kept: 6 + (8 + 16 + 8) + (12 + 12) + (24 + 8) + 8.
    assert skip_block(bytes=0).layer_by_layer_bytes == 102
    # With 12 bytes b (saves 24) would be in the way of a, 0..1 (16) and of c (32): a, 0..1, must be stored
    # all the same, is written through, and is read again at step 3.
    plan = keep(skip_block(bytes=12))
    assert plan.residency == (
        Residency(tensor="a", start=0, end=1, bytes=8),
        Residency(tensor="c", start=2, end=3, bytes=8),
    )
    assert {(use.tensor, use.step): cost for use, cost in plan.costs.items() if cost} == {
        ("x", 0): 6,
        ("a", 0): 8,
        ("a", 3): 8,
        ("b", 1): 12,
        ("b", 2): 12,
        ("d", 3): 8,
    }
    assert (plan.total_bytes, plan.peak_bytes, plan.byte_steps) == (54, 8, 32)
    # With 16 bytes a and c together are better: 6 + 24 + 8.
    plan = keep(skip_block(bytes=16))
    assert plan.gaps == {"x": (), "a": ((0, 1), (1, 3)), "b": (), "c": ((2, 3),), "d": ()}
    assert (plan.total_bytes, plan.peak_bytes) == (38, 16)
    plan = keep(skip_block(bytes=28))
    assert (plan.total_bytes, plan.method, plan.solver) == (14, "fits", "none")


def test_a_residency_that_begins_at_a_use_brings_the_tensor_in_whole_and_once():
    problem = Case(
        sizes={"w": 10},
        touches={"w": ((0, 40), (1, 30), (2, 20))},
        produced=frozenset(),
        outputs=frozenset(),
        capacity=(9, 10, 10),
    ).problem()
    plan = keep(problem)
    assert list(plan.costs.values()) == [40, 10, 0]
    assert plan.gaps == {"w": ((1, 2),)}


def test_a_kept_output_is_written_through_whole():
    case = Case({"y": 5}, {"y": ((0, 15), (2, 5))}, frozenset("y"), frozenset("y"), (5, 5, 5))
    assert list(keep(case.problem()).costs.values()) == [5, 0]
    assert list(keep(replace(case, capacity=(5, 4, 5)).problem()).costs.values()) == [15, 5]


def test_a_late_drop_pays_for_the_store_that_an_early_one_would_have_paid():
    # p is kept at first and dropped when q, which costs more, needs the room.
    case = Case(
        sizes={"p": 6, "q": 6},
        touches={"p": ((0, 6), (1, 6), (4, 6)), "q": ((2, 60), (3, 60))},
        produced=frozenset("p"),
        outputs=frozenset(),
        capacity=(6,) * 5,
    )
    plan = keep(case.problem())
    assert plan.residency == (
        Residency(tensor="p", start=0, end=1, bytes=6),
        Residency(tensor="q", start=2, end=3, bytes=6),
    )
    assert [cost for use, cost in plan.costs.items() if use.tensor == "p"] == [6, 0, 6]


def test_of_equal_totals_the_one_of_fewer_byte_steps_is_taken():
    touches = {"long": ((0, 4), (5, 4)), "short": ((2, 4), (3, 4))}
    for names in (("long", "short"), ("short", "long")):
        case = Case(
            dict.fromkeys(names, 4),
            {name: touches[name] for name in names},
            frozenset(),
            frozenset(),
            (4,) * 6,
        )
        for backend in BACKENDS:
            plan = keep(case.problem(), backend=backend)
            assert [stay.tensor for stay in plan.residency] == ["short"]


def test_a_capacity_is_not_exceeded_by_a_byte_where_floats_would_not_tell():
    sizes = {"p": 50_000_000, "q": 50_000_001, "r": 50_000_000}
    touches = {name: ((i, 3 * size), (4 + i, 3 * size)) for i, (name, size) in enumerate(sizes.items())}
    case = Case(sizes, touches, frozenset(), frozenset(), (100_000_000,) * 7)
    for backend in BACKENDS:
        plan = keep(case.problem(), backend=backend)
        check(plan)
        assert plan.is_optimal
        assert [stay.tensor for stay in plan.residency] == ["p", "r"]


def nested(tensors: int) -> Case:
    """Results that are read again in reverse order, as those of a training step are."""
    rng = np.random.default_rng(tensors)
    sizes = {f"t{i}": int(rng.integers(50, 1000)) for i in range(tensors)}
    touches = {}
    for i, (name, size) in enumerate(sizes.items()):
        last = 2 * tensors - 1 - i
        costs = size * rng.integers(1, 4, 3)
        touches[name] = tuple(zip(sorted({i, min(i + 1, last), last}), map(int, costs), strict=False))
    capacity = sum(sizes.values()) // 3
    return Case(sizes, touches, frozenset(sizes), frozenset(), (capacity,) * (2 * tensors))


def test_a_wide_problem_is_left_to_the_integer_program():
    plan = keep(nested(60).problem())
    check(plan)
    assert plan.method == "integer-program"
    assert "HiGHS" in plan.solver
    assert plan.is_optimal


def test_a_time_limit_leaves_a_plan_that_fits_and_a_bound_below_it():
    problem = nested(60).problem()
    plan = keep(problem, time_limit_s=1e-9)
    check(plan)
    assert plan.method == "greedy"
    assert not plan.is_optimal
    assert plan.bound_bytes <= keep(problem).total_bytes <= plan.total_bytes < problem.layer_by_layer_bytes


def test_a_tolerance_is_kept_and_its_bound_is_honest():
    problem = nested(60).problem()
    plan = keep(problem, tolerance=0.01)
    check(plan)
    assert plan.gap <= 0.01
    assert plan.bound_bytes <= keep(problem).total_bytes <= plan.total_bytes


def test_parts_that_share_no_full_step_are_chosen_apart():
    # Twenty blocks side by side, each with more choices than one dynamic program over all could hold.
    sizes, touches = {}, {}
    for block in range(20):
        for i in range(10):
            name = f"{block}.{i}"
            sizes[name] = 3 + i
            touches[name] = ((12 * block + i // 2, 3 + i), (12 * block + 6 + i // 2, 6 + i))
    case = Case(sizes, touches, frozenset(), frozenset(), (30,) * 240)
    plan = keep(case.problem())
    check(plan)
    assert plan.is_optimal
    assert plan.method == "dynamic-program"
    first = {name: size for name, size in sizes.items() if name.startswith("0.")}
    one = Case(first, {name: touches[name] for name in first}, frozenset(), frozenset(), (30,) * 12)
    assert plan.total_bytes == 20 * best(one)[0]


# From workloads


def as_case(workload: Workload, capacity: int) -> Case:
    """Definition of the special case in which every streamed use costs the tensor's size."""
    sizes = {name: tensor.bytes for name, tensor in workload.tensors.items() if tensor.bytes}
    touches: dict[str, list[int]] = {}
    for step, operator in enumerate(workload.operators):
        for name in {*operator.inputs, *operator.outputs} & set(sizes):
            touches.setdefault(name, []).append(step)
    return Case(
        {name: sizes[name] for name in touches},
        {name: tuple((step, sizes[name]) for step in steps) for name, steps in touches.items()},
        frozenset(workload.producer),
        frozenset(workload.outputs),
        (capacity,) * len(workload.operators),
    )


@pytest.mark.parametrize("name", ["T1", "T2", "T3", "T4", "T5", "T6"])
def test_streamed_traffic_of_the_reference_graphs(reference_graphs, name):
    graph = reference_graphs[name]
    enough = streaming_of(graph).compulsory_capacity_bytes
    for capacity in range(enough + 2):
        plan = keep(streaming_of(graph, capacity_bytes=capacity))
        check(plan)
        if sum(len(uses) - 1 for uses in as_case(graph, 0).touches.values()) <= 12:
            assert (plan.total_bytes, plan.byte_steps) == best(as_case(graph, capacity))
    sizes = {tensor: graph.tensors[tensor].bytes for tensor in graph.tensors}
    compulsory = sum(sizes[tensor] for tensor in (*graph.inputs, *graph.outputs))
    assert plan.total_bytes == compulsory


def test_nothing_kept_is_one_store_per_result_and_one_load_per_use(reference_graphs):
    graph = reference_graphs["T3"]
    sizes = {name: tensor.bytes for name, tensor in graph.tensors.items()}
    loads = sum(sizes[name] for operator in graph.operators for name in operator.inputs)
    stores = sum(sizes[name] for operator in graph.operators for name in operator.outputs)
    assert keep(streaming_of(graph, capacity_bytes=0)).total_bytes == loads + stores


def test_costs_by_use(make_graph):
    graph = make_graph("A: x,w->a; B: a,w->b", {"x": 2, "w": 5, "a": 3, "b": 4})
    costs = {Use("w", 0, False): 15, Use("w", 1, False): 10, Use("a", 0, True): 9}
    problem = streaming_of(graph, costs, capacity_bytes=[0, 0])
    assert problem.layer_by_layer_bytes == 2 + 15 + 9 + 3 + 10 + 4
    assert problem.compulsory_bytes == 2 + 5 + 4
    assert dict(zip(problem.uses, problem.streamed_bytes.tolist(), strict=True)) == {
        Use("x", 0, False): 2,
        Use("a", 0, True): 9,
        Use("a", 1, False): 3,
        Use("b", 1, True): 4,
        **costs,
    }
    # Five bytes hold w or a: w saves 15 + 10 - 5, a saves 9 + 3 and leaves the longer way.
    assert keep(streaming_of(graph, costs, capacity_bytes=5)).gaps["w"] == ((0, 1),)
    assert keep(streaming_of(graph, costs, capacity_bytes=[3, 4])).gaps["a"] == ((0, 1),)


def test_an_empty_graph_moves_nothing(make_graph):
    plan = keep(streaming_of(make_graph("", {}), capacity_bytes=8))
    check(plan)
    assert (plan.total_bytes, plan.peak_bytes, plan.residency, plan.is_optimal) == (0, 0, (), True)


def test_one_operator_streams_all_it_touches(make_graph):
    plan = keep(streaming_of(make_graph("A: x,w->y", {"x": 3, "w": 4, "y": 5}), capacity_bytes=100))
    check(plan)
    assert (plan.total_bytes, plan.residency) == (12, ())


def test_an_operand_read_twice_by_one_operator_is_one_use(make_graph):
    problem = streaming_of(make_graph("A: v,v->y", {"v": 3, "y": 5}))
    assert problem.uses == (Use("v", 0, False), Use("y", 0, True))


def test_tensors_without_bytes_and_without_uses_take_no_part(make_graph):
    graph = make_graph("A: x,none->y; B: y->z", {"x": 3, "none": 0, "y": 2, "z": 1, "idle": 7})
    problem = streaming_of(graph, {Use("none", 0, False): 0}, capacity_bytes=2)
    assert problem.tensors == ("x", "y", "z")
    assert keep(problem).total_bytes == 4


def test_a_graph_input_that_is_an_output_is_not_stored(make_graph):
    graph = make_graph("A: x->y; B: x->z", {"x": 3, "y": 2, "z": 1}, outputs=("x", "y", "z"))
    assert keep(streaming_of(graph, capacity_bytes=0)).total_bytes == 3 + 2 + 3 + 1
    assert keep(streaming_of(graph, capacity_bytes=3)).total_bytes == 3 + 2 + 1


def test_a_result_that_nobody_reads_costs_nothing(make_graph):
    graph = make_graph("A: x->y,extra", {"x": 3, "y": 2, "extra": 9}, outputs=("y",))
    assert keep(streaming_of(graph, capacity_bytes=0)).total_bytes == 5


def test_a_training_step_keeps_weights_for_their_update():
    float32, int8 = parse_format("fp32"), parse_format("int8")
    names = {"x": (4,), "w": (4, 4), "y": (4,)}
    graph = Workload(
        name="layer",
        operators=(
            Operator(name="forward", kind="linear", inputs=("x", "w"), outputs=("y",)),
            Operator(name="update", kind="sgd", inputs=("w", "y"), outputs=("new",)),
        ),
        tensors={
            **{
                n: Tensor(name=n, shape=shape, role=Role.ACTIVATION, format=float32)
                for n, shape in names.items()
            },
            "new": Tensor(name="new", shape=(4, 4), role=Role.WEIGHT, format=int8),
        },
        inputs=("x", "w"),
        outputs=("new",),
    )
    plan = keep(streaming_of(graph, capacity_bytes=64))
    assert plan.residency == (Residency(tensor="w", start=0, end=1, bytes=64),)
    assert plan.total_bytes == 16 + 64 + 16 + 16 + 16


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"capacity_bytes": [3, -1]}, "capacity must not be negative, got -1 bytes at step 1"),
        ({"streamed_bytes": [4, 3]}, "streaming tensor a at step 1 must cost at least its 4 bytes, got 3"),
        ({"size_bytes": [0]}, "size of tensor a must be at least 1 byte, got 0"),
        ({"step": [0, 2]}, "steps of tensor a must be in 0..1, got 2"),
        ({"step": [1, 1]}, "steps of tensor a must ascend, got 1 after 1"),
        ({"first": [0, 1]}, "first must ascend from 0 to 2, the number of uses"),
        ({"is_output": [False, True]}, "is_output must have 1 entries, got 2"),
        ({"streamed_bytes": [4.5, 4.5]}, "streamed_bytes must be a vector of integers, got float64"),
        ({"is_output": [1]}, "is_output must be a vector of truth values, got int64"),
        ({"size_bytes": [2**62], "streamed_bytes": [2**62] * 2}, "must be below 2\\*\\*62"),
    ],
)
def test_a_bad_value_is_named(change, message):
    case = Case({"a": 4}, {"a": ((0, 4), (1, 4))}, frozenset(), frozenset(), (4, 4))
    with pytest.raises(ValueError, match=message) as caught:
        replace(case.problem(), **{name: np.array(values) for name, values in change.items()})
    assert "\n" not in str(caught.value)


def test_bad_uses_are_named(make_graph):
    graph = make_graph("A: x,none->y", {"x": 3, "none": 0, "y": 2})
    with pytest.raises(ValueError, match="step 0, which writes x, but there is no such use"):
        streaming_of(graph, {Use("x", 0, True): 3})
    with pytest.raises(ValueError, match="tensor none of no bytes must cost 0, got 4"):
        streaming_of(graph, {Use("none", 0, False): 4})
    with pytest.raises(ValueError, match="an entry for each of 1 steps, got 2"):
        streaming_of(graph, capacity_bytes=[1, 2])
    with pytest.raises(ValueError, match="capacity must not be negative, got -5 bytes at step 0"):
        streaming_of(graph, capacity_bytes=-5)
    with pytest.raises(ValueError, match="tensor a has uses, but no size"):
        Streaming.from_uses({}, {Use("a", 0, False): 1}, 3)
    with pytest.raises(ValueError, match="production of tensor a must be its only and first, got step 1"):
        Streaming.from_uses({"a": 1}, {Use("a", 0, False): 1, Use("a", 1, True): 1}, 3)


def test_bad_options_are_named(make_graph):
    problem = streaming_of(make_graph("A: x->y", {"x": 3, "y": 2}))
    with pytest.raises(ValueError, match="time_limit_s must be above 0, got 0"):
        keep(problem, time_limit_s=0)
    with pytest.raises(ValueError, match=r"tolerance must be in 0\.\.1, got -0\.1"):
        keep(problem, tolerance=-0.1)
    with pytest.raises(ValueError, match=r"backend must be one of auto, dynamic-program, .*got 'cplex'"):
        keep(problem, backend="cplex")
    with pytest.raises(ValueError, match="takes at most 4000000 states, this problem needs more"):
        keep(nested(90).problem(), backend="dynamic-program")


@given(case=cases())
def test_greedy_plans_fit_and_are_no_better_than_the_best(case):
    problem = case.problem()
    greedy, best = keep(problem, backend="greedy"), keep(problem)
    assert (greedy.resident_bytes <= problem.capacity_bytes).all()
    assert greedy.bound_bytes <= best.total_bytes <= greedy.total_bytes


def test_a_wide_problem_has_a_greedy_plan_at_once():
    plan = keep(nested(60).problem(), backend="greedy")
    assert plan.method == "greedy"
    assert plan.bound_bytes == plan.problem.compulsory_bytes
    assert (plan.resident_bytes <= plan.problem.capacity_bytes).all()
