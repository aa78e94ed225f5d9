"""The best replacement for a fixed order, against all choices of what to keep."""

from __future__ import annotations

from itertools import pairwise, product
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.schedule._atomic.gap_model import replace_optimally, room_by_step
from accel.schedule._instance import build_instance
from accel.workload import Operator, Role, Tensor, Workload
from numerics.formats import parse_format

INT8 = parse_format("int8")


@st.composite
def instances(draw, max_operators=7, slack=4):
    """Small graphs that reread old tensors, on a scratchpad near their working-set minimum."""
    sizes = {"x": draw(st.integers(1, 5))}
    operators = []
    for i in range(draw(st.integers(1, max_operators))):
        known = list(sizes)
        read = [known[-1], *draw(st.lists(st.sampled_from(known), max_size=2))]
        sizes[f"t{i}"] = draw(st.integers(1, 5))
        is_in_place = draw(st.booleans())
        operators.append(
            Operator(name=f"o{i}", kind="op", inputs=tuple(read), outputs=(f"t{i}",), in_place=is_in_place)
        )
    graph = Workload(
        name="random",
        operators=tuple(operators),
        tensors={k: Tensor(name=k, shape=(s,), role=Role.ACTIVATION, format=INT8) for k, s in sizes.items()},
        inputs=("x",),
        outputs=tuple({operators[-1].outputs[0], draw(st.sampled_from(operators)).outputs[0]}),
    )
    needed = max(sum(sizes[t] for t in {*op.inputs, *op.outputs}) for op in operators)
    capacity = needed + draw(st.integers(0, slack))
    return build_instance(graph, capacity, alignment=1, fixed_order=False)


def least_traffic(instance, order, capacity):
    """Try every set of kept gaps; sizes, room and traffic are worked out here."""
    n = len(order)
    uses = {}
    for t, i in enumerate(order):
        for v in {*instance.reads[i], *instance.writes[i]}:
            uses.setdefault(v, []).append(t)
    gaps = [(v, a, b) for v, at in uses.items() for a, b in pairwise(at)]
    held = [sum(instance.size[v] for v in {*instance.reads[i], *instance.writes[i]}) for i in order]
    for t, i in enumerate(order):
        if any(uses[v][-1] == t for v in instance.in_place[i]):
            held[t] -= instance.size[instance.writes[i][0]]
    best = None
    for choice in product((True, False), repeat=len(gaps)):
        load = list(held)
        for (v, a, b), keeps in zip(gaps, choice, strict=True):
            for t in range(a + 1, b) if keeps else ():
                load[t] += instance.size[v]
        if any(load[t] > capacity[t] for t in range(n)):
            continue
        dropped = [v for (v, _, _), keeps in zip(gaps, choice, strict=True) if not keeps]
        spilled = {v for v in dropped if not instance.is_input[v] and not instance.is_output[v]}
        cost = sum(instance.size[v] for v in dropped) + sum(instance.size[v] for v in spilled)
        best = cost if best is None else min(best, cost)
    return best


def fits(residency, capacity):
    room = room_by_step(residency.instance, residency.order) - residency.instance.capacity + capacity
    for v, uses in enumerate(residency.instance.uses(residency.order)):
        for a, b in pairwise(uses):
            if (v, a) in residency.kept:
                room[a + 1 : b] -= residency.instance.size[v]
    return (room >= 0).all()


@settings(max_examples=80)
@given(instance=instances(), most_work=st.sampled_from((10**6, 0)))
def test_equals_the_best_of_all_sets_of_kept_gaps(instance, most_work):
    order = tuple(range(len(instance.operators)))
    capacity = np.full(len(order), instance.capacity)
    residency, bound = replace_optimally(
        instance, order, deadline_s=perf_counter() + 20, most_work=most_work
    )  # without work for the dynamic program the integer program decides
    assert residency.cost == bound == least_traffic(instance, order, capacity)
    assert fits(residency, capacity)


@settings(max_examples=60)
@given(instance=instances(), data=st.data())
def test_capacities_by_step_are_kept_and_used(instance, data):
    order = tuple(range(len(instance.operators)))
    least = instance.capacity - room_by_step(instance, order)
    capacity = np.array([data.draw(st.integers(int(low), instance.capacity)) for low in least])
    residency, bound = replace_optimally(instance, order, deadline_s=perf_counter() + 20, capacity=capacity)
    assert residency.cost == bound == least_traffic(instance, order, capacity)
    assert fits(residency, capacity)


def long_skips(make_graph, count=10):
    """A chain whose every result is read once more at the end, in the same order."""
    chain = "; ".join(f"c{i}: a{i}->a{i + 1}" for i in range(count))
    ends = "; ".join(f"e{i}: a{i},b{i}->b{i + 1}" for i in range(1, count))
    sizes = {f"a{i}": 3 + i * 7 % 5 for i in range(count + 1)} | {f"b{i}": 1 for i in range(1, count + 1)}
    graph = make_graph(f"{chain}; s: a{count}->b1; {ends}", sizes)
    return build_instance(graph, 22, alignment=1, fixed_order=True)


def test_both_engines_agree_where_many_tensors_wait(make_graph):
    instance = long_skips(make_graph)
    order = range(len(instance.operators))
    costs = {
        replace_optimally(instance, order, deadline_s=perf_counter() + 20, most_work=work)[0].cost
        for work in (0, 10**7)
    }
    assert len(costs) == 1
    assert costs.pop() > 0


def test_a_deadline_in_the_past_gives_a_residency_that_fits_and_an_honest_bound(make_graph):
    instance = long_skips(make_graph)
    order = range(len(instance.operators))
    residency, bound = replace_optimally(instance, order, deadline_s=perf_counter() - 1, most_work=0)
    best, _ = replace_optimally(instance, order, deadline_s=perf_counter() + 20)
    assert fits(residency, np.full(len(residency.order), instance.capacity))
    assert 0 <= bound <= best.cost <= residency.cost


def test_an_input_that_is_read_again_pays_no_spill(reference_graphs):
    instance = build_instance(reference_graphs["T4"], 9, alignment=1, fixed_order=True)
    residency, bound = replace_optimally(instance, (0, 1, 2), deadline_s=perf_counter() + 20)
    assert residency.cost == bound == 4


@pytest.mark.parametrize(("capacity", "cost"), [(13, 59), (14, 41), (15, 41), (16, 20)])
def test_listed_order_of_a_reference_graph(reference_graphs, capacity, cost):
    instance = build_instance(reference_graphs["T3"], capacity, alignment=1, fixed_order=True)
    residency, _ = replace_optimally(instance, range(10), deadline_s=perf_counter() + 20)
    assert residency.cost == cost


def test_a_capacity_of_the_wrong_shape_or_too_small_is_named(reference_graphs):
    instance = build_instance(reference_graphs["T1"], 8, alignment=1, fixed_order=True)
    with pytest.raises(ValueError, match=r"shape \(4,\).*got \(3,\)"):
        replace_optimally(instance, range(4), deadline_s=0, capacity=np.full(3, 8))
    with pytest.raises(ValueError, match=r"step 2 must be at least 6 units, what operator C needs, got 5"):
        replace_optimally(instance, range(4), deadline_s=0, capacity=np.array([8, 8, 5, 8]))
