"""Brute force, the scheduler's own search and placement, CP-SAT and MILP agree on the joint optimum."""

from __future__ import annotations

from time import perf_counter

import pytest
from hypothesis import given, settings, target
from hypothesis import strategies as st

from accel.schedule import schedule, working_set_minimum
from accel.schedule._atomic.greedy import greedy
from accel.schedule._instance import build_instance
from accel.schedule._solvers.plans import clash
from accel.schedule.backends import resolve
from oracles.scratchpads import graphs, joint_optimum

ORDERS = ("free", "given")


def instance_of(graph, capacity, order):
    return build_instance(graph, capacity, alignment=1, fixed_order=order == "given")


def solved(backend, instance, *, is_hinted):
    """Joint optimum in bytes by one back end, its plan checked on the way."""
    hint = greedy(instance) if is_hinted else None
    solver = resolve(backend)
    bound, plan = solver.solve_joint(instance, lower=0, hint=hint, deadline_s=perf_counter() + 60, seed=0)
    assert solver.log[-1].status in ("optimal", "infeasible")
    assert not solver.log[-1].note
    if plan is None:  # nothing is cheaper than the hint
        assert bound == hint.residency.cost
    else:
        assert bound == plan.residency.cost
        assert not clash(plan)
    return bound * instance.unit_bytes


def everyone(graph, capacity, order, *, is_hinted):
    instance = instance_of(graph, capacity, order)
    values = {"brute force": joint_optimum(graph, capacity, order=order)}
    values |= {backend: solved(backend, instance, is_hinted=is_hinted) for backend in ("cp-sat", "highs")}
    plan = schedule(graph, capacity, order=order)
    assert plan.status == "OPTIMAL"
    return values | {"search": plan.noncompulsory_bytes}


def check(graph, slack, *, is_hinted):
    capacity = max(working_set_minimum(graph, order="given") + slack, 1)
    totals = {}
    for order in ORDERS:
        values = everyone(graph, capacity, order, is_hinted=is_hinted)
        assert len(set(values.values())) == 1, (order, values)
        totals[order] = values["search"]
    target(totals["given"])
    assert totals["free"] <= totals["given"]


@settings(max_examples=25)
@given(graph=graphs(4, 7), slack=st.integers(0, 2))
def test_all_four_agree_on_the_joint_optimum(graph, slack):
    check(graph, slack, is_hinted=True)


@pytest.mark.slow
@settings(max_examples=1000)
@given(graph=graphs(2, 7), slack=st.integers(0, 2), is_hinted=st.booleans())
def test_all_four_agree_on_a_thousand_graphs(graph, slack, is_hinted):
    check(graph, slack, is_hinted=is_hinted)


@settings(max_examples=12)
@given(graph=graphs(3, 5, in_place=True), slack=st.integers(0, 2), is_hinted=st.booleans())
def test_all_agree_where_operators_are_in_place(graph, slack, is_hinted):
    check(graph, slack, is_hinted=is_hinted)


@pytest.mark.slow
@settings(max_examples=500)
@given(graph=graphs(2, 7, in_place=True), slack=st.integers(0, 2), is_hinted=st.booleans())
def test_all_agree_on_many_graphs_in_place(graph, slack, is_hinted):
    check(graph, slack, is_hinted=is_hinted)


@settings(max_examples=15)
@given(graph=graphs(4, 8, in_place=True), slack=st.integers(0, 3), order=st.sampled_from(ORDERS))
def test_placement_never_lowers_the_traffic(graph, slack, order):
    instance = instance_of(graph, max(working_set_minimum(graph, order="given") + slack, 1), order)
    solver, hint = resolve("cp-sat"), greedy(instance)
    options = {"hint": hint, "deadline_s": perf_counter() + 60, "seed": 0}
    relaxed = solver.solve_capacity(instance, upper=hint.residency.cost, **options)
    assert relaxed.bound <= solver.solve_joint(instance, lower=0, **options)[0]


@pytest.mark.slow
def test_all_four_see_that_the_capacity_optimum_has_no_addresses(reference_graphs):
    values = everyone(reference_graphs["T6"], 16, "free", is_hinted=True)  # 22 without addresses
    assert set(values.values()) == {27}
