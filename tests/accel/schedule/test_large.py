"""Search by levels, windows and placement of large graphs, on graphs small enough to know the optimum."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, permutations, product
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.schedule._atomic.beam import EXACT, Options, Part, residency_of
from accel.schedule._atomic.gap_model import room_by_step
from accel.schedule._atomic.windows import improve_by_windows, improve_large, lower_bound, place_adjusted
from accel.schedule._instance import build_instance
from accel.schedule._placement import place
from accel.schedule._residency import Residency
from accel.workload import Operator, Role, Tensor, Workload
from numerics.formats import parse_format

INT8 = parse_format("int8")


def workload(operators, sizes, outputs):
    return Workload(
        name="random",
        operators=tuple(operators),
        tensors={k: Tensor(name=k, shape=(s,), role=Role.ACTIVATION, format=INT8) for k, s in sizes.items()},
        inputs=("x",),
        outputs=tuple(outputs),
    )


def working_set_minimum(operators, sizes):
    return max(sum(sizes[t] for t in {*op.inputs, *op.outputs}) for op in operators)


@st.composite
def instances(draw, min_operators, max_operators, slack=3):
    """Graphs that branch and join, where old tensors wait, near their working-set minimum."""
    sizes = {"x": draw(st.integers(1, 6))}
    operators = []
    count = draw(st.integers(min_operators, max_operators))
    for i in range(count):
        known = list(sizes)
        read = [draw(st.sampled_from(known)), *draw(st.lists(st.sampled_from(known), max_size=1))]
        if i == count - 1:
            seen = {t for op in operators for t in op.inputs}
            read += [t for t in known if t not in seen][:3]
        sizes[f"t{i}"] = draw(st.integers(1, 6))
        is_in_place = draw(st.sampled_from((False, False, True)))
        operators.append(
            Operator(name=f"o{i}", kind="op", inputs=tuple(read), outputs=(f"t{i}",), in_place=is_in_place)
        )
    outputs = {operators[-1].outputs[0], draw(st.sampled_from(operators)).outputs[0]}
    graph = workload(operators, sizes, outputs)
    capacity = working_set_minimum(operators, sizes) + draw(st.integers(0, slack))
    return build_instance(graph, capacity, alignment=1, fixed_order=False)


def cheapest(instance):
    """Try every order and every set of kept gaps."""
    best = None
    for order in permutations(range(len(instance.operators))):
        step = {i: t for t, i in enumerate(order)}
        if any(step[p] > step[i] for i in order for p in instance.after[i]):
            continue
        uses = {}
        for t, i in enumerate(order):
            for v in {*instance.reads[i], *instance.writes[i]}:
                uses.setdefault(v, []).append(t)
        held = [sum(instance.size[v] for v in {*instance.reads[i], *instance.writes[i]}) for i in order]
        for t, i in enumerate(order):
            if any(uses[v][-1] == t for v in instance.in_place[i]):
                held[t] -= instance.size[instance.writes[i][0]]
        gaps = [(v, a, b) for v, at in uses.items() for a, b in pairwise(at) if b > a + 1]
        for choice in product((True, False), repeat=len(gaps)):
            load = list(held)
            dropped = []
            for (v, a, b), keeps in zip(gaps, choice, strict=True):
                for t in range(a + 1, b) if keeps else ():
                    load[t] += instance.size[v]
                if not keeps:
                    dropped.append(v)
            if max(load) > instance.capacity:
                continue
            spilled = {v for v in dropped if not instance.is_input[v] and not instance.is_output[v]}
            cost = sum(instance.size[v] for v in dropped) + sum(instance.size[v] for v in spilled)
            best = cost if best is None else min(best, cost)
    return best


def assert_runs(residency):
    """Check the order, and that what is held fits at every step."""
    instance = residency.instance
    step = {i: t for t, i in enumerate(residency.order)}
    assert sorted(residency.order) == list(range(len(instance.operators)))
    assert all(step[p] < step[i] for i in residency.order for p in instance.after[i])
    room = room_by_step(instance, residency.order)
    for v, uses in enumerate(instance.uses(residency.order)):
        for a, b in pairwise(uses):
            if (v, a) in residency.kept:
                room[a + 1 : b] -= instance.size[v]
    assert (room >= 0).all()


def nothing_kept(instance):
    order = tuple(range(len(instance.operators)))
    uses = instance.uses(order)
    return Residency(
        instance, order, frozenset((v, a) for v, at in enumerate(uses) for a, b in pairwise(at) if b == a + 1)
    )


def place_briefly(residency):
    return place(residency, deadline_s=perf_counter() + 2, seed=0)[0]


def whole(instance):
    return Part(instance, range(len(instance.operators)))


@settings(max_examples=60)
@given(instance=instances(1, 5))
def test_unlimited_width_is_exact(instance):
    found = whole(instance).search(EXACT)
    residency = residency_of(instance, found.moves)
    assert_runs(residency)
    assert found.cost == found.bound == residency.cost == cheapest(instance)


@settings(max_examples=60)
@given(instance=instances(5, 14), width=st.integers(1, 6), options=st.sampled_from((0, 50, 100)))
def test_any_width_gives_a_plan_and_an_honest_bound(instance, width, options):
    optimum = whole(instance).search(EXACT).cost
    narrow = whole(instance).search(replace(EXACT, width=width))
    assert 0 <= narrow.bound <= optimum <= narrow.cost
    fast = whole(instance).search(Options(width=width, most_per_set=2, most_drops=2, foresight=options))
    residency = residency_of(instance, fast.moves)
    assert_runs(residency)
    assert optimum <= residency.cost == fast.cost


@settings(max_examples=40)
@given(instance=instances(4, 12))
def test_bounds_from_parts_stay_below_the_optimum(instance):
    optimum = whole(instance).search(EXACT)
    order = tuple(move.operator for move in optimum.moves)
    bound = lower_bound(instance, order, upper=optimum.cost, deadline_s=perf_counter() + 20)
    assert bound == optimum.cost
    for count in range(1, len(order)):
        part = Part(instance, tuple(sorted(order[:count])), is_alone=True)
        assert part.search(EXACT).cost <= optimum.cost


@settings(max_examples=40)
@given(instance=instances(4, 14))
def test_windows_never_worsen_and_no_plan_undercuts_the_optimum(instance):
    start = nothing_kept(instance)
    later = perf_counter() + 20
    windows = improve_by_windows(start, deadline_s=later, stop=np.zeros(1, np.int64), seed=0)
    assert_runs(windows)
    assert windows.cost <= start.cost
    best = improve_large(instance, start, deadline_s=later, seed=0)
    assert_runs(best)
    assert whole(instance).search(EXACT).cost <= best.cost <= start.cost


def cell_network(cells, seed):
    """Cells of separable convolutions on random pairs of states, after a large first tensor read often."""
    random = np.random.default_rng(seed)
    sizes, operators = {"x": 12}, []

    def add(read, size):
        name = f"t{len(operators)}"
        sizes[name] = size
        operators.append(
            Operator(name=f"o{len(operators)}", kind="op", inputs=tuple(dict.fromkeys(read)), outputs=(name,))
        )
        return name

    def branch(read, size):
        for _ in range(2):
            read = add([add([add([read], sizes[read])], size)], size)
        return read

    before, last, size = add(["x"], 64), "", 8
    last = add([before], 32)
    for _ in range(cells):
        states = [add([add([v], sizes[v])], size) for v in (before, last)]
        for _ in range(4):
            pair = [states[k] for k in random.integers(0, len(states), 2)]
            states.append(add([branch(v, size) for v in pair], size))
        before, last = last, add(states[2:], 4 * size)
    graph = workload(operators, sizes, (last,))
    return build_instance(graph, working_set_minimum(operators, sizes), alignment=1, fixed_order=False)


def test_the_same_seed_gives_the_same_plan():
    instance = cell_network(2, seed=1)
    start = nothing_kept(instance)
    one, two = (improve_large(instance, start, deadline_s=perf_counter() + 60, seed=5) for _ in range(2))
    assert one.order == two.order
    assert one.kept == two.kept
    assert one.cost < start.cost


def test_windows_change_the_order(reference_graphs):
    instance = build_instance(reference_graphs["T2"], 7, alignment=1, fixed_order=False)
    start, later = nothing_kept(instance), perf_counter() + 20
    replaced = improve_by_windows(start, deadline_s=later, stop=np.ones(1, np.int64), seed=0)
    assert (replaced.order, replaced.cost) == (start.order, 26)  # the optimum of the listed order
    assert improve_by_windows(start, deadline_s=later, stop=np.zeros(1, np.int64), seed=0).cost == 4


def test_a_deadline_in_the_past_returns_at_once_with_a_plan_no_worse():
    instance = cell_network(8, seed=3)
    start = nothing_kept(instance)
    begun_s = perf_counter()
    best = improve_large(instance, start, deadline_s=begun_s, seed=0)
    assert perf_counter() - begun_s < 5  # compilation, on a machine that has not run it before, apart
    assert_runs(best)
    assert best.cost <= start.cost


def test_a_good_enough_start_is_returned_as_it_is():
    instance = cell_network(1, seed=4)
    start = nothing_kept(instance)
    assert improve_large(instance, start, deadline_s=perf_counter() + 20, seed=0, lower=start.cost) is start


@pytest.mark.parametrize(("name", "capacity", "relaxed", "placed"), [("T3", 13, 12, 14), ("T6", 16, 22, 27)])
def test_an_optimum_without_placement_gives_way_to_one_that_can_be_placed(
    reference_graphs, name, capacity, relaxed, placed
):
    instance = build_instance(reference_graphs[name], capacity, alignment=1, fixed_order=False)
    best = improve_large(instance, nothing_kept(instance), deadline_s=perf_counter() + 20, seed=0)
    assert best.cost == relaxed
    plan = place_adjusted(best, place_briefly, deadline_s=perf_counter() + 20)
    assert plan is not None
    assert plan.residency.cost >= placed
    assert_runs(plan.residency)
    blocks = list(zip(plan.residency.blocks, plan.addresses, strict=True))
    for k, (block, at) in enumerate(blocks):
        assert 0 <= at <= capacity - instance.size[block.tensor]
        for other, low in blocks[:k]:
            is_apart = at + instance.size[block.tensor] <= low or low + instance.size[other.tensor] <= at
            assert is_apart or block.end < other.start or other.end < block.start


def test_an_empty_graph_is_left_alone():
    instance = build_instance(workload([], {"x": 1}, ["x"]), 1, alignment=1, fixed_order=False)
    start = Residency(instance, (), frozenset())
    assert improve_large(instance, start, deadline_s=perf_counter() + 20, seed=0) is start


@pytest.mark.slow
def test_several_hundred_operators_are_proved_optimal():
    instance = cell_network(12, seed=6)
    assert len(instance.operators) > 600
    best = improve_large(instance, nothing_kept(instance), deadline_s=perf_counter() + 60, seed=0)
    assert_runs(best)
    assert lower_bound(instance, best.order, upper=best.cost, deadline_s=perf_counter() + 60) == best.cost
    assert place_adjusted(best, place_briefly, deadline_s=perf_counter() + 60) is not None
