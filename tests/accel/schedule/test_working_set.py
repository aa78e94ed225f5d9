"""The least scratchpad on which all operators can run, also where that depends on their order."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.schedule import (
    WorkingSetError,
    baseline,
    baselines,
    peak_minimum,
    replacement_minimum,
    schedule,
    working_set_minimum,
)
from accel.workload import Operator, Role, Tensor, Workload
from numerics.formats import parse_format
from oracles.scratchpads import graphs, joint_optimum

INT8 = parse_format("int8")


@st.composite
def shared_inputs(draw):
    """Graphs of few inputs that many operators read and overwrite, so that the order decides on the room."""
    sizes = {f"x{k}": draw(st.integers(3, 6)) for k in range(draw(st.integers(1, 2)))}
    inputs, operators = tuple(sizes), []
    for i in range(draw(st.integers(2, 5))):
        read = draw(st.lists(st.sampled_from(list(sizes)), min_size=1, max_size=2, unique=True))
        sizes[f"t{i}"] = draw(st.integers(1, 6))
        operators.append(
            Operator(
                name=f"o{i}", kind="op", inputs=tuple(read), outputs=(f"t{i}",), in_place=draw(st.booleans())
            )
        )
    tensors = {
        name: Tensor(name=name, shape=(size,), role=Role.ACTIVATION, format=INT8)
        for name, size in sizes.items()
    }
    outputs = tuple(name for name in sizes if not any(name in op.inputs for op in operators))
    return Workload(
        name="shared", operators=tuple(operators), tensors=tensors, inputs=inputs, outputs=outputs
    )


def needed_bytes(graph, order):
    """Largest working set in `order`, by the definition: an input is dead that no later operator reads."""
    size = {name: tensor.bytes for name, tensor in graph.tensors.items()}
    most = 0
    for step, op in enumerate(order):
        later = {name for other in order[step + 1 :] for name in other.inputs}
        used = sum(size[name] for name in {*op.inputs, *op.outputs})
        is_over = op.in_place and any(
            size[name] >= size[op.outputs[0]] and name not in later and name not in graph.outputs
            for name in op.inputs
        )
        most = max(most, used - (size[op.outputs[0]] if is_over else 0))
    return most


def orders(graph):
    made = {name: op.name for op in graph.operators for name in op.outputs}
    for order in permutations(graph.operators):
        done = set()
        for op in order:
            if any(made.get(name, op.name) not in {op.name, *done} for name in op.inputs):
                break
            done.add(op.name)
        else:
            yield order


def overwriting(make_graph, text, sizes, *names):
    graph = make_graph(text, sizes)
    return replace(graph, operators=tuple(replace(op, in_place=op.name in names) for op in graph.operators))


@settings(max_examples=80)
@given(graph=st.one_of(shared_inputs(), graphs(2, 5, in_place=True)))
def test_the_minimum_is_that_of_the_best_order(graph):
    assert working_set_minimum(graph) == min(needed_bytes(graph, order) for order in orders(graph))
    assert working_set_minimum(graph, order="given") == needed_bytes(graph, graph.operators)


@settings(max_examples=60)
@given(graph=shared_inputs(), order=st.sampled_from(["free", "given"]), slack=st.integers(0, 2))
def test_from_the_minimum_on_there_is_a_plan(graph, order, slack):
    least = working_set_minimum(graph, order=order)
    plan = schedule(graph, least + slack, order=order)
    assert plan.status == "OPTIMAL"
    assert plan.noncompulsory_bytes == joint_optimum(graph, least + slack, order=order)
    hasty = schedule(graph, least + slack, order=order, time_limit_s=1e-9)
    assert hasty.bound_bytes <= plan.noncompulsory_bytes <= hasty.noncompulsory_bytes
    with pytest.raises(WorkingSetError, match=f"must be at least {least}, the working-set minimum"):
        schedule(graph, least - 1, order=order)


@settings(max_examples=15)
@given(graph=shared_inputs())
def test_solvers_start_from_the_minimum_too(graph):
    least = working_set_minimum(graph)
    plans = [schedule(graph, least, backend=backend) for backend in ("search", "cp-sat", "highs")]
    assert {(plan.status, plan.noncompulsory_bytes) for plan in plans} == {
        ("OPTIMAL", joint_optimum(graph, least))
    }


def test_an_input_may_die_by_the_order_alone(make_graph):
    """q writes u over x, which p reads too: 4 bytes and t if p runs first, as in the file."""
    graph = overwriting(make_graph, "p: x->t; q: x->u", {"x": 4, "t": 1, "u": 4}, "q")
    assert working_set_minimum(graph) == working_set_minimum(graph, order="given") == 5
    assert peak_minimum(graph) == 5
    for order in ("free", "given"):
        assert schedule(graph, 5, order=order).noncompulsory_bytes == 0


def test_a_file_order_without_room_is_left(make_graph):
    graph = overwriting(make_graph, "q: x->u; p: x->t", {"x": 4, "t": 1, "u": 4}, "q")
    assert (working_set_minimum(graph), working_set_minimum(graph, order="given")) == (5, 8)
    assert schedule(graph, 5).order == ("p", "q")
    assert schedule(graph, 5, time_limit_s=1e-9).order == ("p", "q")
    match = "must be at least 8, the working-set minimum in file order: operator q needs 8 bytes at once"
    for refuse in (lambda: schedule(graph, 5, order="given"), lambda: replacement_minimum(graph, 5)):
        with pytest.raises(WorkingSetError, match=match):
            refuse()
    with pytest.raises(WorkingSetError, match="must be at least 8 with order 'default', got 5"):
        baseline(graph, 5)
    assert baseline(graph, 5, order="mpmf").noncompulsory_bytes == 0
    assert set(baselines(graph, 5)["order"][:-1]) == {"mpmf"}
    assert set(baselines(graph, 8)["order"]) == {"default", "mpmf"}


def test_two_operators_cannot_both_overwrite(make_graph):
    graph = overwriting(make_graph, "p: x->t; q: x->u", {"x": 4, "t": 3, "u": 4}, "p", "q")
    assert working_set_minimum(graph) == 7  # p writes beside x, q over it
    assert schedule(graph, 7).noncompulsory_bytes == 0


def test_a_resident_weight_alone_can_be_the_minimum(make_graph):
    graph = make_graph("A: x,w->a", {"x": 1, "w": 9, "a": 2})
    graph = replace(graph, tensors=dict(graph.tensors) | {"w": replace(graph.tensors["w"], role=Role.WEIGHT)})
    assert working_set_minimum(graph, weights="resident") == 12
    assert working_set_minimum(graph, weights="streamed") == 3
    assert working_set_minimum(make_graph("", {"x": 1})) == 0
