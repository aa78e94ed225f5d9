"""Baselines by hand, by replay of what they did, and against the optimum."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations, pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.schedule import schedule, working_set_minimum
from accel.schedule._instance import build_instance
from accel.schedule._rules.placement import _leave_early, _stacks, place_largest_first, replace_and_place
from accel.schedule._rules.replacement import cheapest_cover, replace_by_rule
from accel.schedule.baselines import baseline, baselines, layer_by_layer
from accel.schedule.peak import peak_minimum
from accel.schedule.working_set import WorkingSetError
from accel.workload import Role
from oracles.scratchpads import graphs

ORDERS, REPLACEMENTS, ALLOCATIONS = (
    ("default", "mpmf"),
    ("lru", "belady", "greedy"),
    ("none", "online", "offline"),
)


def traffic(graph, scratchpad_bytes, replacement, allocation="none", **options):
    return baseline(
        graph, scratchpad_bytes, replacement=replacement, allocation=allocation, **options
    ).noncompulsory_bytes


def replay(graph, capacity, found):
    """Follow the events through a memory; return bytes spilled, refetched and relocated."""
    size = {name: tensor.bytes for name, tensor in graph.tensors.items()}
    operators = {op.name: op for op in graph.operators}
    order = [operators[name] for name in found.operators]
    assert sorted(found.operators) == sorted(operators)
    last = {name: t for t, op in enumerate(order) for name in (*op.inputs, *op.outputs)}
    copies = {*graph.inputs, *graph.outputs}
    memory, loaded, computed = {}, set(), set(graph.inputs)
    spilled = refetched = relocated = 0
    events = list(found.events)
    for t, op in enumerate(order):
        while events and events[0].step == t:
            event = events.pop(0)
            name, charge = event.tensor, 0
            if event.kind == "load":
                assert name in set(graph.inputs) - loaded
                loaded.add(name)
            elif event.kind == "refetch":
                assert name in copies & computed
                charge = size[name]
                refetched += charge
            elif event.kind == "spill":
                assert name in computed.intersection(memory) - copies
                copies.add(name)
                charge = size[name]
                spilled += charge
            elif event.kind == "move":
                if name in computed:
                    charge = size[name] * (1 if name in copies else 2)
                    copies.add(name)
                relocated += charge
            assert event.noncompulsory_bytes == charge
            if event.kind in ("evict", "free"):
                assert memory.pop(name) == event.address
                assert (event.kind == "evict") == (last[name] >= t)
                assert event.kind == "free" or name in copies
                continue
            if event.kind == "overwrite":
                assert op.in_place
                dying = [
                    dead
                    for dead in op.inputs
                    if memory.get(dead, -1) == event.address
                    and last[dead] == t
                    and size[dead] >= size[name]
                    and dead not in graph.outputs
                ]
                del memory[dying[0]]
            if event.kind == "allocate":
                assert name in op.outputs
            memory[name] = event.address
            if event.kind != "spill" and event.address is not None:
                blocks = sorted((at, at + size[other]) for other, at in memory.items())
                assert all(
                    first[1] <= second[0] for first, second in pairwise([(0, 0), *blocks, (capacity, 0)])
                )
        assert sum(size[name] for name in memory) <= capacity
        overwritten = {e.tensor for e in found.events if e.step == t and e.kind == "overwrite"}
        for name in {*op.inputs, *op.outputs}:
            assert name in memory or not size[name] or (overwritten and last[name] == t)
        computed.update(op.outputs)
    assert not events
    return spilled, refetched, relocated


# x leaves room for a and b; then c needs that of one of them, and a is read first.
TWO_WAIT = (
    "A: x->a; B: x->b; C: x->c; D: a,c->d; E: d,b->e",
    {"x": 1, "a": 2, "b": 2, "c": 2, "d": 1, "e": 1},
)


def test_lru_and_belady_by_hand(make_graph):
    graph = make_graph(*TWO_WAIT)
    assert traffic(graph, 5, "lru") == 8  # a leaves for c, comes back in place of b, which comes back
    assert traffic(graph, 5, "belady") == 4  # b leaves and comes back


def test_greedy_takes_what_costs_least_now(make_graph):
    graph = make_graph(
        "A: y->a; B: x->c; C: y,c->d; D: d,a->e", {"y": 3, "a": 2, "x": 1, "c": 3, "d": 1, "e": 1}
    )
    assert (
        traffic(graph, 7, "greedy") == 3 + 4
    )  # y (3, has a copy) leaves rather than a (2 + 2), then a as well
    assert traffic(graph, 7, "belady") == 4


def test_belady_takes_the_larger_of_equally_far_ones(make_graph):
    graph = make_graph(
        "A: x->a; B: x->b; C: x->c; D: c->d; E: d,a,b->e",
        {"x": 1, "a": 1, "b": 3, "c": 3, "d": 1, "e": 1},
    )
    found = baseline(graph, 6, replacement="belady", allocation="none")
    assert [event.tensor for event in found.events if event.kind == "evict"] == ["b"]


def test_relocation_by_hand(make_graph):
    text, sizes = "A: x->a; B: a->b", {"x": 2, "a": 3, "b": 3}
    graph = make_graph(text, sizes)
    found = baseline(graph, 6, replacement="lru", allocation="online")
    # a lies above x at 2..5, so b has no hole of 3 until a is moved to 0: one store, one load.
    assert (found.relocations, found.relocated_bytes, found.noncompulsory_bytes) == (1, 6, 6)
    assert found.offchip_bytes == 6 + 2 + 3
    assert [(e.kind, e.tensor, e.address) for e in found.events] == [
        ("load", "x", 0),
        ("allocate", "a", 2),
        ("free", "x", 0),
        ("move", "a", 0),
        ("allocate", "b", 3),
    ]
    stored = make_graph(text, sizes, outputs=("a", "b"))
    assert baseline(stored, 6, replacement="lru", allocation="online").relocated_bytes == 3
    assert traffic(graph, 6, "lru", "none") == traffic(graph, 6, "lru", "offline") == 0


def test_fragmentation_makes_one_more_tensor_leave(make_graph):
    # Free units are below and above b, which leaves although 4 of 7 units are free when c (4) comes.
    graph = make_graph("A: x->b; B: y->c; C: b,c->d", {"x": 2, "b": 2, "y": 1, "c": 3, "d": 1})
    found = baseline(graph, 6, replacement="belady", allocation="online")
    assert [(e.kind, e.tensor) for e in found.events if e.kind in ("evict", "move")] == [("evict", "b")]
    assert traffic(graph, 6, "belady", "online") == 4
    assert traffic(graph, 6, "belady", "none") == 0


def test_layer_by_layer_by_hand(reference_graphs):
    found = layer_by_layer(reference_graphs["T5"])
    assert found.spilled_bytes == 3 + 4 + 4 + 3 + 5
    assert found.refetched_bytes == 3 * 3 + 4 + 4 + 3 + 5
    assert found.compulsory_bytes == 1 + 1


def test_minimal_peak_order_saves_what_the_order_costs(reference_graphs):
    graph = reference_graphs["T2"]
    assert traffic(graph, 8, "belady") >= 24
    assert traffic(graph, 8, "belady", order="mpmf") == 0


@settings(max_examples=100)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=7),
    need=st.integers(1, 40),
)
def test_the_cheapest_cover_is_that_of_all_sets(sizes, need):
    items = [(size * (1 + twice), size, v) for v, (size, twice) in enumerate(sizes)]
    subsets = chain.from_iterable(combinations(items, count) for count in range(len(items) + 1))
    covers = [found for found in subsets if sum(size for _, size, _ in found) >= need] or [tuple(items)]
    rank = [
        (sum(i[0] for i in found), -sum(i[1] for i in found), tuple(i[2] for i in found)) for found in covers
    ]
    assert cheapest_cover(items, need) == min(rank)[2]


@settings(max_examples=40)
@given(graph=graphs(3, 7, max_size=9, in_place=True), slack=st.integers(0, 3))
def test_every_baseline_can_be_replayed(graph, slack):
    capacity = max(working_set_minimum(graph, order="given") + slack, 1)
    for order, replacement, allocation in product(ORDERS, REPLACEMENTS, ALLOCATIONS):
        try:
            found = baseline(graph, capacity, order=order, replacement=replacement, allocation=allocation)
        except WorkingSetError:  # an operator is in place in file order alone
            assert order == "mpmf"
            continue
        if found.events or not found.noncompulsory_bytes:
            parts = replay(graph, capacity, found)
            assert parts == (found.spilled_bytes, found.refetched_bytes, found.relocated_bytes)
        else:  # nothing could be placed
            assert found.noncompulsory_bytes == layer_by_layer(graph).noncompulsory_bytes


@settings(max_examples=25)
@given(graph=graphs(3, 6), slack=st.integers(0, 3))
def test_none_with_addresses_moves_less_than_the_optimum(graph, slack):
    capacity = max(working_set_minimum(graph) + slack, 1)
    plan = schedule(graph, capacity)
    assert plan.status == "OPTIMAL"
    for order, replacement, allocation in product(ORDERS, REPLACEMENTS, ("online", "offline")):
        found = baseline(graph, capacity, order=order, replacement=replacement, allocation=allocation)
        assert found.noncompulsory_bytes >= plan.noncompulsory_bytes
        assert found.compulsory_bytes == plan.compulsory_bytes
    assert layer_by_layer(graph).noncompulsory_bytes >= plan.noncompulsory_bytes


@settings(max_examples=40)
@given(
    graph=graphs(3, 7, max_size=9, in_place=True), slack=st.integers(0, 3), rule=st.sampled_from(REPLACEMENTS)
)
def test_no_larger_budget_places(graph, slack, rule):
    instance = build_instance(
        graph,
        max(working_set_minimum(graph, order="given") + slack, 1),
        alignment=1,
        fixed_order=False,
    )
    order = tuple(range(len(graph.operators)))
    expected = None
    for budget in range(instance.capacity, -1, -1):
        trace = replace_by_rule(instance, order, budget, rule, addressed=False)
        if place_largest_first(
            instance, _stacks(instance, order, _leave_early(instance, order, trace.events))
        ):
            expected = sum(event.charged for event in trace.events)
            break
    found = replace_and_place(instance, order, rule)
    assert (None if found is None else sum(event.charged for event in found)) == expected


def test_the_table_has_every_combination_once(reference_graphs):
    graph = reference_graphs["T6"]
    table = baselines(graph, 16)
    assert len(table) == 2 * 3 * 3 + 1
    for row in table.iloc[:-1].itertuples():
        found = baseline(graph, 16, order=row.order, replacement=row.replacement, allocation=row.allocation)
        assert row.noncompulsory_bytes == found.noncompulsory_bytes
        assert row.noncompulsory_bytes == row.spilled_bytes + row.refetched_bytes + row.relocated_bytes
        assert (row.relocations, row.offchip_bytes) == (found.relocations, found.offchip_bytes)
    assert table.iloc[-1].replacement == "layer-by-layer"
    assert table.iloc[-1].noncompulsory_bytes == layer_by_layer(graph).noncompulsory_bytes


def test_nothing_moves_without_addresses_where_the_peak_fits(reference_graphs):
    for graph in reference_graphs.values():
        for rule in REPLACEMENTS:
            assert traffic(graph, peak_minimum(graph), rule, order="mpmf") == 0


def test_weights_and_alignment_count(make_graph):
    graph = make_graph("A: x,v->a; B: a,w->b", {"x": 2, "v": 30, "a": 5, "w": 40, "b": 3})
    tensors = dict(graph.tensors)
    for name in ("v", "w"):
        tensors[name] = replace(tensors[name], role=Role.WEIGHT)
    graph = replace(graph, tensors=tensors)
    assert baseline(graph, 8).compulsory_bytes == 2 + 3 + 30 + 40
    assert baseline(graph, 48, weights="tracked").compulsory_bytes == 2 + 3 + 30 + 40
    pinned = baseline(graph, 78, weights="resident")
    assert pinned.compulsory_bytes == 2 + 3
    assert min(event.address for event in pinned.events) == 70  # above the weights
    assert baseline(graph, 12, alignment=4).compulsory_bytes == 4 + 4 + 32 + 40
    with pytest.raises(WorkingSetError, match=r"scratchpad_bytes must be at least 78, .* got 77"):
        baseline(graph, 77, weights="resident")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "random"}, "order must be one of default, mpmf; got 'random'"),
        ({"replacement": "fifo"}, "replacement must be one of lru, belady, greedy; got 'fifo'"),
        ({"allocation": "buddy"}, "allocation must be one of none, online, offline; got 'buddy'"),
    ],
)
def test_bad_options(reference_graphs, options, message):
    with pytest.raises(ValueError, match=message):
        baseline(reference_graphs["T1"], 8, **options)
