"""Unusual graphs and arguments."""

from __future__ import annotations

import pytest

from accel.schedule import WorkingSetError, schedule, working_set_minimum
from accel.workload import Operator, Workload


def kinds(plan):
    return [(move.step, move.kind, move.tensor, move.bytes) for move in plan.transfers]


def test_an_empty_graph_has_an_empty_schedule(make_graph):
    plan = schedule(make_graph("", {}), 1)
    assert (plan.order, plan.residency, plan.transfers, plan.bytes_by_step) == ((), (), (), ())
    assert (plan.status, plan.offchip_bytes, plan.peak_bytes, plan.gap) == ("OPTIMAL", 0, 0, 0.0)
    assert plan.runs.empty


def test_a_single_operator_loads_and_stores_once(make_graph):
    plan = schedule(make_graph("A: x->y", {"x": 3, "y": 2}), 5)
    assert kinds(plan) == [(0, "load", "x", 3), (0, "store", "y", 2)]


def test_an_empty_tensor_takes_no_part_but_still_orders_its_operators(make_graph):
    # The empty tensor e makes B wait for A; otherwise the free order could start with B.
    graph = make_graph("A: x->a,e; B: y,e->b; C: a,b->c", {"x": 2, "y": 9, "a": 5, "b": 1, "c": 1, "e": 0})
    plan = schedule(graph, 10)
    assert plan.order == ("A", "B", "C")
    assert {run.tensor for run in plan.residency} == {"x", "y", "a", "b", "c"}
    # a (5) cannot stay while B needs 10: one spill and one refetch.
    assert plan.noncompulsory_bytes == 10


@pytest.mark.parametrize("backend", ["cp-sat", "highs"])
def test_programs_keep_the_order_of_empty_tensors(make_graph, backend):
    graph = make_graph("A: x->a,e; B: y,e->b; C: a,b->c", {"x": 2, "y": 9, "a": 5, "b": 1, "c": 1, "e": 0})
    assert schedule(graph, 10, backend=backend).noncompulsory_bytes == 10


def test_a_graph_of_empty_tensors_only_moves_nothing(make_graph):
    plan = schedule(make_graph("A: x->a; B: a->b", {"x": 0, "a": 0, "b": 0}), 4)
    assert (plan.order, plan.residency, plan.offchip_bytes) == (("A", "B"), (), 0)


def test_a_graph_input_that_is_an_output_is_off_chip_already(make_graph):
    graph = make_graph("A: x->a", {"x": 3, "a": 2}, outputs=("x", "a"))
    assert kinds(schedule(graph, 5)) == [(0, "load", "x", 3), (0, "store", "a", 2)]


def test_an_input_nobody_reads_is_not_loaded(make_graph):
    graph = make_graph("A: x->a", {"x": 3, "a": 2, "u": 100}, inputs=("x", "u"), outputs=("a",))
    assert schedule(graph, 5).offchip_bytes == 5


def test_a_graph_output_read_again_is_refetched_without_a_spill(make_graph):
    # a (3) and B's working set (4 + 4) do not fit together in 8.
    graph = make_graph(
        "A: x->a,p; B: p->q; C: a,q->c", {"x": 1, "a": 3, "p": 4, "q": 4, "c": 1}, outputs=("a", "c")
    )
    assert kinds(schedule(graph, 8)) == [
        (0, "load", "x", 1),
        (0, "store", "a", 3),
        (2, "refetch", "a", 3),
        (2, "store", "c", 1),
    ]


def test_a_dead_tensor_takes_room_at_its_own_step_only(make_graph):
    graph = make_graph("A: x->a,d; B: a->b", {"x": 1, "a": 2, "d": 4, "b": 5}, outputs=("b",))
    plan = schedule(graph, 7)
    assert [(run.start, run.end) for run in plan.residency if run.tensor == "d"] == [(0, 0)]
    assert plan.noncompulsory_bytes == 0
    assert kinds(plan) == [(0, "load", "x", 1), (1, "store", "b", 5)]


def test_an_operand_read_twice_counts_once(make_graph):
    graph = make_graph("A: x,x->a", {"x": 3, "a": 2})
    assert working_set_minimum(graph) == 5
    assert kinds(schedule(graph, 5)) == [(0, "load", "x", 3), (0, "store", "a", 2)]


def test_one_fetch_serves_every_reader_until_the_tensor_leaves(make_graph):
    graph = make_graph("A: x->a; B: x->b; C: x,a,b->c", {"x": 4, "a": 1, "b": 1, "c": 1})
    assert kinds(schedule(graph, 7)) == [(0, "load", "x", 4), (2, "store", "c", 1)]


def test_sizes_and_addresses_are_multiples_of_the_alignment(make_graph):
    graph = make_graph("A: x->a; B: a->b; C: b->c; D: a,c->d", {"x": 1, "a": 5, "b": 9, "c": 9, "d": 5})
    assert working_set_minimum(graph, alignment=4) == 8 + 12 + 8
    plan = schedule(graph, 31, alignment=4)  # rounds down to 28, which T1 calls 7
    assert plan.noncompulsory_bytes == 2 * 8
    assert all(run.address % 4 == 0 and run.bytes % 4 == 0 for run in plan.residency)
    assert plan.peak_bytes <= 28
    assert schedule(graph, 32, alignment=4).noncompulsory_bytes == 0


def test_a_weight_is_a_graph_input_and_takes_part(make_graph):
    # Forward f1, f2 and backward b2, b1 of two layers: w1 is read first and last.
    graph = make_graph(
        "f1: x,w1->a; f2: a,w2->z; b2: z,w2->e; g1: e,w1->d",
        {"x": 1, "w1": 6, "w2": 6, "a": 1, "z": 1, "e": 1, "d": 1},
    )
    assert schedule(graph, 8).noncompulsory_bytes == 6
    assert schedule(graph, 14).noncompulsory_bytes == 0


def test_a_scratchpad_below_a_working_set_is_an_error_that_says_what_is_needed(reference_graphs):
    message = (
        "^scratchpad_bytes must be at least 13, the working-set minimum: operator Z needs 13 bytes at once; "
        "got 12; mode='streamed' has no such limit$"
    )
    graph = reference_graphs["T3"]
    with pytest.raises(WorkingSetError, match=message):
        schedule(graph, 12)
    assert issubclass(WorkingSetError, ValueError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scratchpad_bytes": 0}, "scratchpad_bytes must be at least 1, got 0"),
        ({"scratchpad_bytes": -5}, "scratchpad_bytes must be at least 1, got -5"),
        (
            {"scratchpad_bytes": 15, "alignment": 16},
            "scratchpad_bytes must be at least 16, the alignment, .*",
        ),
        ({"alignment": 0}, "alignment must be at least 1, got 0"),
        ({"time_limit_s": 0}, "time_limit_s must be positive, got 0"),
        ({"time_limit_s": float("nan")}, "time_limit_s must be positive, got nan"),
        ({"seed": -1}, r"seed must be a whole number in 0\.\.2147483647, got -1"),
        ({"order": "file"}, "order must be one of free, given; got 'file'"),
        ({"backend": "scip"}, "backend .scip. is not one of search, cp-sat, highs .*"),
    ],
)
def test_bad_arguments_are_named(reference_graphs, options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        schedule(reference_graphs["T1"], **({"scratchpad_bytes": 8} | options))


def test_operators_must_have_different_names(make_graph):
    graph = make_graph("A: x->a; A: a->b", {"x": 1, "a": 1, "b": 1})
    with pytest.raises(ValueError, match=r"^operator names must differ, got A 2 times$"):
        schedule(graph, 8)


def test_an_operator_without_tensors_is_scheduled(make_graph):
    graph = make_graph("A: x->a; B: a->b", {"x": 1, "a": 2, "b": 1})
    barrier = Operator(name="barrier", kind="barrier", inputs=(), outputs=())
    graph = Workload(
        name="barrier",
        operators=(*graph.operators, barrier),
        tensors=graph.tensors,
        inputs=graph.inputs,
        outputs=graph.outputs,
    )
    assert sorted(schedule(graph, 3).order) == ["A", "B", "barrier"]
