"""Payments beside single operators: never above the optimum, and above what fractions of tensors give."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.schedule import working_set_minimum
from accel.schedule._atomic.search import search
from accel.schedule._atomic.step_bounds import step_bounds
from accel.schedule._atomic.whole_prices import whole_price_bound
from accel.schedule._instance import build_instance
from oracles.scratchpads import graphs

MUCH = 1 << 40


def instance_of(graph, slack=0):
    capacity = max(working_set_minimum(graph, weights="tracked") + slack, 1)
    return build_instance(graph, capacity, alignment=1, fixed_order=False)


def test_a_tensor_leaves_whole_however_little_is_over(make_graph):
    # a (9) waits while B makes b (4) of it and C c (6): c, b and a are 1 over. To drop a costs 18.
    graph = make_graph("A: x->a; B: a->b; C: b->c; D: a,c->d", {"x": 1, "a": 9, "b": 4, "c": 6, "d": 1})
    instance = build_instance(graph, 18, alignment=1, fixed_order=False)
    assert sum(bound.units for bound in step_bounds(instance, deadline_s=inf)) == 18
    assert whole_price_bound(instance, upper=MUCH, deadline_s=inf) == 18
    assert search(instance, upper=MUCH, deadline_s=inf).bound == 18


def test_a_tensor_that_is_read_in_between_is_fetched_twice_and_stored_once(reference_graphs):
    # a (3) must leave twice, for c beside b and for e beside d: one store and two fetches.
    instance = build_instance(reference_graphs["T5"], 10, alignment=1, fixed_order=False)
    assert whole_price_bound(instance, upper=MUCH, deadline_s=inf) == 9


@settings(max_examples=150)
@given(graph=graphs(4, 9, max_size=9, in_place=True), slack=st.integers(0, 3))
def test_no_plan_pays_less(graph, slack):
    instance = instance_of(graph, slack)
    optimum = search(instance, upper=MUCH, deadline_s=inf).bound
    assert whole_price_bound(instance, upper=MUCH, deadline_s=inf) <= optimum


@pytest.mark.parametrize("upper", [0, 3, MUCH])
def test_it_stops_at_what_is_known(reference_graphs, upper):
    instance = build_instance(reference_graphs["T5"], 10, alignment=1, fixed_order=False)
    assert whole_price_bound(instance, upper=upper, deadline_s=inf) == min(upper, 9)


def test_without_time_nothing_is_claimed(reference_graphs):
    instance = build_instance(reference_graphs["T5"], 10, alignment=1, fixed_order=False)
    assert whole_price_bound(instance, upper=MUCH, deadline_s=0.0) == 0
