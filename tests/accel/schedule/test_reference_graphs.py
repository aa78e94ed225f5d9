"""Known optima of six small graphs, found by search with placement and confirmed by CP and MILP."""

from __future__ import annotations

import pytest

from accel.schedule import schedule, working_set_minimum

FREE = [
    ("T1", 7, 4),
    ("T1", 8, 0),
    ("T2", 7, 4),
    ("T2", 8, 0),
    ("T3", 13, 14),  # 12 without addresses: no plan of that value can be placed
    ("T3", 14, 8),
    ("T3", 15, 2),
    ("T3", 16, 0),
    ("T4", 9, 4),
    ("T4", 10, 4),
    ("T4", 11, 0),
    ("T5", 10, 9),
    ("T5", 11, 0),
    ("T6", 16, 27),  # 22 without addresses
    ("T6", 17, 22),
    ("T6", 18, 12),
    ("T6", 20, 12),
    ("T6", 22, 0),
]
# T3 and T6 in file order are known without addresses only; these plans place, which makes them exact.
GIVEN = [
    ("T2", 7, 26),
    *(("T2", scratchpad, 24) for scratchpad in range(8, 13)),
    ("T2", 13, 0),
    ("T3", 13, 59),
    ("T3", 14, 41),
    ("T3", 15, 41),
    ("T3", 16, 20),
    ("T3", 21, 0),
    ("T6", 16, 52),
    ("T6", 17, 30),
    ("T6", 18, 30),
    ("T6", 20, 20),
]


@pytest.mark.parametrize("backend", ["search", "cp-sat", "highs"])
@pytest.mark.parametrize(("name", "scratchpad_bytes", "expected"), FREE)
def test_free_order_attains_the_known_optimum(reference_graphs, name, scratchpad_bytes, expected, backend):
    plan = schedule(reference_graphs[name], scratchpad_bytes, backend=backend)
    assert (plan.noncompulsory_bytes, plan.bound_bytes, plan.status) == (expected, expected, "OPTIMAL")


@pytest.mark.parametrize("backend", ["search", "cp-sat", "highs"])
@pytest.mark.parametrize(("name", "scratchpad_bytes", "expected"), GIVEN)
def test_given_order_attains_the_known_optimum(reference_graphs, name, scratchpad_bytes, expected, backend):
    graph = reference_graphs[name]
    plan = schedule(graph, scratchpad_bytes, order="given", backend=backend)
    assert plan.order == tuple(operator.name for operator in graph.operators)
    assert (plan.noncompulsory_bytes, plan.status) == (expected, "OPTIMAL")


@pytest.mark.parametrize(
    ("name", "minimum"), [("T1", 7), ("T2", 7), ("T3", 13), ("T4", 9), ("T5", 10), ("T6", 16)]
)
def test_working_set_minimum(reference_graphs, name, minimum):
    assert working_set_minimum(reference_graphs[name]) == minimum


def test_one_spill_serves_two_refetches(reference_graphs):
    plan = schedule(reference_graphs["T5"], 10)
    assert [(move.step, move.kind, move.tensor, move.bytes) for move in plan.transfers] == [
        (0, "load", "x", 1),
        (0, "spill", "a", 3),
        (3, "refetch", "a", 3),
        (5, "refetch", "a", 3),
        (5, "store", "f", 1),
    ]
    assert plan.order == ("A", "B", "C", "D", "E", "F")
    assert plan.bytes_by_step == (4, 0, 0, 3, 0, 4)
    assert (plan.compulsory_bytes, plan.noncompulsory_bytes, plan.offchip_bytes) == (2, 9, 11)
    assert plan.peak_bytes == 10
    assert plan.gap == 0.0


def test_a_graph_input_is_dropped_without_a_spill(reference_graphs):
    plan = schedule(reference_graphs["T4"], 9)
    assert [(move.step, move.kind, move.tensor) for move in plan.transfers] == [
        (0, "load", "x"),
        (2, "refetch", "x"),
        (2, "store", "c"),
    ]


def test_runs_are_a_table_of_stays(reference_graphs):
    runs = schedule(reference_graphs["T5"], 10).runs
    assert list(runs.columns) == ["tensor", "start", "end", "address", "bytes"]
    stays = runs[runs.tensor == "a"].sort_values("start")[["start", "end", "bytes"]]
    assert stays.to_numpy().tolist() == [[0, 1, 3], [3, 3, 3], [5, 5, 3]]


@pytest.mark.parametrize(("name", "scratchpad_bytes"), [("T3", 13), ("T3", 14), ("T6", 16)])
def test_the_same_call_gives_the_same_plan(reference_graphs, name, scratchpad_bytes):
    first, second = (schedule(reference_graphs[name], scratchpad_bytes, seed=3) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(("name", "scratchpad_bytes", "optimum"), [("T3", 13, 14), ("T6", 16, 27)])
def test_a_time_limit_still_yields_a_plan_and_a_bound(reference_graphs, name, scratchpad_bytes, optimum):
    plan = schedule(reference_graphs[name], scratchpad_bytes, time_limit_s=1e-9)
    plan.check()
    assert plan.status == "FEASIBLE"
    assert plan.bound_bytes <= optimum <= plan.noncompulsory_bytes
    assert plan.gap == (plan.noncompulsory_bytes - plan.bound_bytes) / plan.noncompulsory_bytes
