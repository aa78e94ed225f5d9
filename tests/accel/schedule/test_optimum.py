"""The optimum of random small graphs, against two oracles that share no code with the package."""

from __future__ import annotations

from dataclasses import replace
from heapq import heappop, heappush

import pytest
from hypothesis import assume, given, settings, target
from hypothesis import strategies as st

from accel.schedule import schedule, working_set_minimum
from oracles.scratchpads import graphs, joint_optimum


def simulated_optimum(graph, capacity):
    """Least avoidable bytes by shortest path over every state of a machine with addresses.

    One move fetches, stores or drops one tensor, or runs one operator; nothing is decided ahead.
    """
    size = {name: tensor.bytes for name, tensor in graph.tensors.items() if tensor.bytes}
    producer = {name: op.name for op in graph.operators for name in op.outputs}
    everything = frozenset(op.name for op in graph.operators)

    def placements(blocks, names):
        if not names:
            yield blocks
            return
        height = size[names[0]]
        for at in range(capacity - height + 1):
            if all(at >= a + size[name] or at + height <= a for name, a in blocks):
                yield from placements(blocks | {(names[0], at)}, names[1:])

    start = (frozenset(), frozenset(), frozenset(), frozenset())
    best, queue, serial = {start: 0}, [(0, 0, start)], 0
    while queue:
        cost, _, state = heappop(queue)
        if cost > best[state]:
            continue
        done, blocks, copies, loaded = state
        if done == everything:
            return cost
        here = {name for name, _ in blocks}
        wanted = {name for op in graph.operators if op.name not in done for name in op.inputs}
        moves = []
        for name, at in blocks:
            moves.append((0, (done, blocks - {(name, at)}, copies, loaded)))
            if name not in copies and name not in graph.inputs and name not in graph.outputs:
                moves.append((size[name], (done, blocks, copies | {name}, loaded)))
        for name in (wanted & set(size)) - here:
            first = name in graph.inputs and name not in loaded
            produced = producer.get(name) in done
            if name in graph.inputs or name in copies or (produced and name in graph.outputs):
                price = 0 if first else size[name]
                moves += [
                    (price, (done, after, copies, loaded | {name})) for after in placements(blocks, (name,))
                ]
        for op in graph.operators:
            ready = op.name not in done and all(
                name in here if name in size else producer.get(name, "") in {*done, ""} for name in op.inputs
            )
            if ready:
                made = tuple(name for name in op.outputs if name in size)
                moves += [
                    (0, (done | {op.name}, after, copies, loaded)) for after in placements(blocks, made)
                ]
        for price, after in moves:
            if cost + price < best.get(after, 1 << 60):
                best[after] = cost + price
                serial += 1
                heappush(queue, (cost + price, serial, after))
    raise AssertionError("no plan, though every working set fits")


@settings(max_examples=100)
@given(graph=graphs(4, 7), slack=st.integers(0, 2))
def test_free_order_equals_brute_force(graph, slack):
    capacity = max(working_set_minimum(graph) + slack, 1)
    plan = schedule(graph, capacity)
    target(plan.noncompulsory_bytes)
    assert plan.status == "OPTIMAL"
    assert plan.noncompulsory_bytes == joint_optimum(graph, capacity)


@settings(max_examples=60)
@given(graph=graphs(4, 8), slack=st.integers(0, 2))
def test_given_order_equals_brute_force(graph, slack):
    capacity = max(working_set_minimum(graph) + slack, 1)
    plan = schedule(graph, capacity, order="given")
    target(plan.noncompulsory_bytes)
    assert plan.status == "OPTIMAL"
    assert plan.noncompulsory_bytes == joint_optimum(graph, capacity, order="given")


@settings(max_examples=30)
@given(graph=graphs(2, 4, max_size=3), slack=st.integers(0, 2))
def test_free_order_equals_a_simulated_machine(graph, slack):
    capacity = max(working_set_minimum(graph) + slack, 1)
    assume(capacity <= 9)
    plan = schedule(graph, capacity)
    target(plan.noncompulsory_bytes)
    assert plan.noncompulsory_bytes == simulated_optimum(graph, capacity)


@settings(max_examples=15)
@given(
    graph=graphs(5, 9, max_size=9),
    slack=st.integers(0, 6),
    order=st.sampled_from(["free", "given"]),
)
def test_the_backends_agree(graph, slack, order):
    capacity = max(working_set_minimum(graph) + slack, 1)
    plans = [schedule(graph, capacity, order=order, backend=b) for b in ("search", "cp-sat", "highs")]
    assert [plan.status for plan in plans] == ["OPTIMAL"] * 3
    assert len({plan.noncompulsory_bytes for plan in plans}) == 1


@settings(max_examples=30)
@given(graph=graphs(5, 9, max_size=9))
def test_more_scratchpad_or_freedom_never_costs_traffic(graph):
    minimum = max(working_set_minimum(graph), 1)
    curves = {
        order: [
            schedule(graph, capacity, order=order).noncompulsory_bytes
            for capacity in range(minimum, minimum + 10, 3)
        ]
        for order in ("free", "given")
    }
    for curve in curves.values():
        assert curve == sorted(curve, reverse=True)
    assert all(free <= given for free, given in zip(curves["free"], curves["given"], strict=True))


@settings(max_examples=60)
@given(graph=graphs(6, 14, max_size=9), slack=st.integers(0, 4))
def test_out_of_time_the_plan_is_legal_and_no_better_than_the_optimum(graph, slack):
    capacity = max(working_set_minimum(graph) + slack, 1)
    hasty, optimal = schedule(graph, capacity, time_limit_s=1e-9), schedule(graph, capacity)
    hasty.check()
    assert hasty.bound_bytes <= optimal.noncompulsory_bytes <= hasty.noncompulsory_bytes
    assert optimal.status == "OPTIMAL"


@pytest.mark.parametrize(("name", "optimum"), [("T1", 4), ("T2", 4), ("T4", 4), ("T5", 9)])
def test_the_oracle_knows_the_reference_graphs(reference_graphs, name, optimum):
    graph = reference_graphs[name]
    assert joint_optimum(graph, working_set_minimum(graph)) == optimum


def test_the_oracle_writes_in_place_over_an_input_that_dies(make_graph):
    # a (3) is needed beside b (2) and c (2), 7 in all, unless c takes the place of b: then 5.
    graph = make_graph("A: x->a,b; C: b->c; D: a,c->d", {"x": 1, "a": 3, "b": 2, "c": 2, "d": 1})
    in_place = replace(graph, operators=tuple(replace(op, in_place=op.name == "C") for op in graph.operators))
    assert joint_optimum(graph, 6) == 6
    assert joint_optimum(in_place, 6) == 0
