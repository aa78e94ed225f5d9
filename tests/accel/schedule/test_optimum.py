"""The optimum of random small graphs, against two oracles that share no code with the package."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import permutations, product

import pytest
from hypothesis import assume, given, settings, target
from hypothesis import strategies as st

from accel.schedule import schedule, working_set_minimum
from accel.workload import Operator, Role, Tensor, Workload
from numerics.formats import parse_format

INT8 = parse_format("int8")


@st.composite
def graphs(draw, min_operators, max_operators, max_size=5):
    """Graphs with repeated operands, dead and empty tensors, and inputs or results that are outputs.

    Each operator reads a recent tensor, so that older ones wait; the last one may read all that wait.
    """
    sizes = {f"x{k}": draw(st.integers(1, max_size)) for k in range(draw(st.integers(1, 2)))}
    inputs, operators = tuple(sizes), []
    count = draw(st.integers(min_operators, max_operators))
    for i in range(count):
        known = list(sizes)
        read = [draw(st.sampled_from(known[-2:]))]
        read += draw(st.lists(st.sampled_from(known), max_size=2))
        if i == count - 1 and draw(st.booleans()):
            seen = {name for op in operators for name in op.inputs}
            read += [name for name in known if name not in seen]
        written = [f"t{i}{k}" for k in range(draw(st.sampled_from((1, 1, 1, 2))))]
        sizes |= {name: draw(st.sampled_from((0, *range(1, max_size + 1), max_size))) for name in written}
        operators.append(Operator(name=f"o{i}", kind="op", inputs=tuple(read), outputs=tuple(written)))
    outputs = draw(st.sets(st.sampled_from(sorted(sizes)), max_size=2)) | {operators[-1].outputs[0]}
    return Workload(
        name="random",
        operators=tuple(operators),
        tensors={
            name: Tensor(name=name, shape=(size,), role=Role.ACTIVATION, format=INT8)
            for name, size in sizes.items()
        },
        inputs=inputs,
        outputs=tuple(sorted(outputs)),
    )


def legal_orders(graph):
    producer = {name: op.name for op in graph.operators for name in op.outputs}
    for order in permutations(graph.operators):
        at = {op.name: t for t, op in enumerate(order)}
        if all(at[producer[name]] < at[op.name] for op in order for name in op.inputs if name in producer):
            yield order


def stack(rectangles, capacity, placed=()):
    """Whether rectangles (start, end, height) fit below `capacity`; every offset is tried."""
    if not rectangles:
        return True
    (start, end, height), *rest = rectangles
    clashes = [(low, low + h) for s, e, h, low in placed if s <= end and start <= e]
    return any(
        all(at >= high or at + height <= low for low, high in clashes)
        and stack(rest, capacity, (*placed, (start, end, height, at)))
        for at in range(capacity - height + 1)
    )


def enumerated_optimum(graph, capacity, orders):
    """Least avoidable bytes over all orders, all choices of gaps to stay through, and all addresses."""
    size = {name: tensor.bytes for name, tensor in graph.tensors.items() if tensor.bytes}
    paid_copy = set(size) - set(graph.inputs) - set(graph.outputs)
    choices = []
    for order in orders:
        uses = {name: [t for t, op in enumerate(order) if name in (*op.inputs, *op.outputs)] for name in size}
        gaps = [(name, k) for name in size for k in range(len(uses[name]) - 1)]
        for kept in product((True, False), repeat=len(gaps)):
            left = [gap for gap, stays in zip(gaps, kept, strict=True) if not stays]
            cost = sum(size[name] for name, _ in left)
            cost += sum(size[name] for name in {name for name, _ in left} & paid_copy)
            choices.append((cost, len(choices), uses, set(left)))
    for cost, _, uses, left in sorted(choices):
        runs = []
        for name, steps in uses.items():
            start = 0
            for k in range(len(steps)):
                if k == len(steps) - 1 or (name, k) in left:
                    runs.append((steps[start], steps[k], size[name]))
                    start = k + 1
        steps = range(len(graph.operators))
        fits = all(sum(h for s, e, h in runs if s <= t <= e) <= capacity for t in steps)
        if fits and stack(sorted(runs, key=lambda run: -run[2]), capacity):
            return cost
    raise AssertionError("no plan, though every working set fits")


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


def gap_count(graph):
    return sum(
        sum(name in (*op.inputs, *op.outputs) for op in graph.operators) - 1
        for name in graph.tensors
        if any(name in (*op.inputs, *op.outputs) for op in graph.operators)
    )


@settings(max_examples=120)
@given(graph=graphs(4, 6), slack=st.integers(0, 2))
def test_free_order_equals_enumeration(graph, slack):
    orders = list(legal_orders(graph))
    assume(gap_count(graph) <= 10 and len(orders) << gap_count(graph) <= 20_000)
    capacity = max(working_set_minimum(graph) + slack, 1)
    plan = schedule(graph, capacity)
    target(plan.noncompulsory_bytes)
    assert plan.status == "OPTIMAL"
    assert plan.noncompulsory_bytes == enumerated_optimum(graph, capacity, orders)


@settings(max_examples=60)
@given(graph=graphs(4, 6), slack=st.integers(0, 2))
def test_given_order_equals_enumeration(graph, slack):
    assume(gap_count(graph) <= 11)
    capacity = max(working_set_minimum(graph) + slack, 1)
    plan = schedule(graph, capacity, order="given")
    target(plan.noncompulsory_bytes)
    assert plan.status == "OPTIMAL"
    assert plan.noncompulsory_bytes == enumerated_optimum(graph, capacity, [graph.operators])


@settings(max_examples=40)
@given(graph=graphs(2, 4, max_size=3), slack=st.integers(0, 2))
def test_free_order_equals_a_simulated_machine(graph, slack):
    capacity = max(working_set_minimum(graph) + slack, 1)
    assume(capacity <= 9)
    plan = schedule(graph, capacity)
    target(plan.noncompulsory_bytes)
    assert plan.noncompulsory_bytes == simulated_optimum(graph, capacity)


@settings(max_examples=25)
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


@settings(max_examples=80)
@given(graph=graphs(6, 14, max_size=9), slack=st.integers(0, 4))
def test_out_of_time_the_plan_is_legal_and_no_better_than_the_optimum(graph, slack):
    capacity = max(working_set_minimum(graph) + slack, 1)
    hasty, optimal = schedule(graph, capacity, time_limit_s=1e-9), schedule(graph, capacity)
    hasty.check()
    assert hasty.bound_bytes <= optimal.noncompulsory_bytes <= hasty.noncompulsory_bytes
    assert optimal.status == "OPTIMAL"


@pytest.mark.parametrize("name", ["T1", "T2", "T4", "T5"])
def test_the_oracles_know_the_reference_graphs(reference_graphs, name):
    graph = reference_graphs[name]
    optimum = {"T1": 4, "T2": 4, "T4": 4, "T5": 9}[name]
    capacity = working_set_minimum(graph)
    assert enumerated_optimum(graph, capacity, list(legal_orders(graph))) == optimum
