"""What the functions of the package make of their options: plain values, or a line that names a bad one."""

from __future__ import annotations

import numpy as np
import pytest

from accel.schedule import (
    baseline,
    baselines,
    peak_minimum,
    replacement_minimum,
    schedule,
    sweep,
    working_set_minimum,
)
from accel.schedule._options import MAX_SEED, random_seed, seconds, tensor_names
from accel.schedule.baselines import layer_by_layer
from accel.workload import Operator, Role, Tensor, Workload
from numerics.formats import parse_format

# On T1 of the reference graphs: M_R 7, M_P 8, and at 7 bytes a (2) is spilled and fetched again.
SIZE = 7

SIZED = [schedule, baseline, baselines, replacement_minimum]
UNSIZED = [working_set_minimum, peak_minimum, layer_by_layer]
TIMED = [schedule, replacement_minimum, peak_minimum]


def call(function, graph, **options):
    """Result of `function` on a scratchpad that is large enough, where it takes one."""
    if function in SIZED:
        options = {"scratchpad_bytes": SIZE} | options
    return function(graph, **options)


@pytest.fixture
def graph(reference_graphs):
    return reference_graphs["T1"]


@pytest.fixture
def weighted():
    """Two layers whose weights are graph inputs with a parameter's role."""
    roles = {"w": Role.WEIGHT, "v": Role.WEIGHT}
    sizes = {"x": 2, "w": 5, "a": 3, "v": 4, "b": 3, "c": 2}
    tensors = {
        name: Tensor(
            name=name, shape=(size,), role=roles.get(name, Role.ACTIVATION), format=parse_format("int8")
        )
        for name, size in sizes.items()
    }
    steps = (("f", ("x", "w"), "a"), ("g", ("a", "v"), "b"), ("h", ("a", "b"), "c"))
    return Workload(
        name="layers",
        operators=tuple(
            Operator(name=name, kind="op", inputs=read, outputs=(written,)) for name, read, written in steps
        ),
        tensors=tensors,
        inputs=("x", "w", "v"),
        outputs=("c",),
    )


def error(function, *arguments, **options):
    with pytest.raises((TypeError, ValueError)) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return f"{type(caught.value).__name__}: {caught.value}"


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int32, np.int64, np.array])
def test_integers_of_numpy_become_plain_ones(graph, kind):
    plan = schedule(graph, kind(SIZE), alignment=kind(1), seed=kind(3))
    assert plan == schedule(graph, SIZE, seed=3)
    assert {type(plan.scratchpad_bytes), type(plan.alignment), type(plan.noncompulsory_bytes)} == {int}
    assert plan.noncompulsory_bytes == replacement_minimum(graph, kind(SIZE), alignment=kind(1)) == 4
    streamed = schedule(graph, kind(SIZE), mode="streamed", tile_reserve_bytes=kind(2))
    assert type(streamed.tile_reserve_bytes) is int
    assert [type(plan.scratchpad_bytes) for plan in sweep(graph, [kind(8), kind(SIZE)])] == [int, int]


@pytest.mark.parametrize("function", [*SIZED, *UNSIZED])
@pytest.mark.parametrize("alignment", [2.0, True, None, "2"])
def test_an_alignment_is_a_whole_number_everywhere(graph, function, alignment):
    expected = f"TypeError: alignment must be a whole number, got {alignment!r}"
    assert error(call, function, graph, alignment=alignment) == expected


@pytest.mark.parametrize("function", SIZED)
@pytest.mark.parametrize("size", [7.0, True, None, "7"])
def test_a_size_is_a_whole_number_everywhere(graph, function, size):
    expected = f"TypeError: scratchpad_bytes must be a whole number, got {size!r}"
    assert error(function, graph, size) == expected


@pytest.mark.parametrize("function", [*SIZED, *UNSIZED])
def test_a_graph_is_a_workload_whose_operators_have_names_of_their_own(make_graph, function):
    assert error(call, function, None) == "TypeError: graph must be a Workload, got None"
    graph = make_graph("A: x->a; A: a->b", {"x": 1, "a": 1, "b": 1})
    assert error(call, function, graph) == "ValueError: operator names must differ, got A 2 times"


@pytest.mark.parametrize("function", TIMED)
@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (None, "TypeError: time_limit_s must be a number of seconds, got None"),
        ("3", "TypeError: time_limit_s must be a number of seconds, got '3'"),
        (True, "TypeError: time_limit_s must be a number of seconds, got True"),
        (0, "ValueError: time_limit_s must be positive, got 0"),
        (float("nan"), "ValueError: time_limit_s must be positive, got nan"),
    ],
)
def test_a_time_limit_is_a_positive_number(graph, function, limit, expected):
    assert error(call, function, graph, time_limit_s=limit) == expected


@pytest.mark.parametrize("limit", [float("inf"), np.float32(1e30), 10**400])
def test_no_limit_is_one_that_solvers_take(limit):
    assert seconds(limit) == 1e6
    assert type(seconds(limit)) is float


def test_zero_seconds_are_a_limit_where_a_rule_needs_none():
    assert seconds(0, may_be_zero=True) == 0.0


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, 1.0, True, None, "1"])
def test_a_seed_is_a_whole_number_that_every_solver_takes(seed):
    expected = f"ValueError: seed must be a whole number in 0..{MAX_SEED}, got {seed!r}"
    assert error(random_seed, seed) == expected


@pytest.mark.parametrize("function", [*SIZED, *UNSIZED])
@pytest.mark.parametrize(
    ("resident", "expected"),
    [
        (5, "TypeError: resident must be a collection of tensor names, got 5"),
        ("w", "TypeError: resident must be a collection of tensor names, got 'w'"),
        (["w", 5], "TypeError: a name in resident must be a text, got 5"),
        ([[]], "TypeError: a name in resident must be a text, got []"),
        (["a"], "ValueError: resident tensor 'a' is no parameter that layers reads"),
    ],
)
def test_resident_is_a_collection_of_names(weighted, function, resident, expected):
    assert error(call, function, weighted, weights="resident", resident=resident) == expected


def test_names_may_come_one_by_one(weighted):
    assert tensor_names("resident", iter(["w", "v", "w"])) == {"w", "v"}
    plan = schedule(weighted, 20, weights="resident", resident=(name for name in ["w"]))
    assert plan.resident == ("w",)


@pytest.mark.parametrize(
    ("sizes", "options", "expected"),
    [
        ([7, None], {}, "TypeError: a size of scratchpad_sizes must be a whole number, got None"),
        ([8, -1], {}, "ValueError: a size of scratchpad_sizes must be at least 1, got -1"),
        ("78", {}, "TypeError: a size of scratchpad_sizes must be a whole number, got '7'"),
        (7, {}, "TypeError: scratchpad_sizes must be a tuple of whole numbers, got 7"),
        (
            [7, 8],
            {"known": None},
            "TypeError: known is no option of a sweep, which hands each plan to the next size",
        ),
        ([7, 8], {"on_plan": 3}, "TypeError: on_plan must be a function of a schedule, got 3"),
    ],
)
def test_a_sweep_is_checked_before_it_begins(graph, sizes, options, expected):
    plans = []
    assert error(sweep, graph, sizes, **({"on_plan": plans.append} | options)) == expected
    assert plans == []


def test_a_known_plan_is_a_schedule_with_these_options(graph, weighted):
    plan = schedule(graph, 8, mode="streamed")
    assert (
        error(schedule, graph, 8, mode="streamed", known="x")
        == "TypeError: known must be a Schedule, got 'x'"
    )
    assert error(schedule, graph, 8, known=plan) == (
        "ValueError: known is for mode 'streamed', got a schedule in 'atomic'"
    )
    assert error(schedule, graph, 7, mode="streamed", known=plan) == (
        "ValueError: known must be a schedule on at most 7 bytes, got one on 8"
    )
    resident = schedule(weighted, 12, mode="streamed", weights="resident")
    assert error(schedule, weighted, 12, mode="streamed", known=resident) == (
        "ValueError: known must have weights='streamed', got a schedule with 'resident'"
    )


@pytest.mark.parametrize("order", ["", 0, False])
def test_an_order_is_not_left_out_by_an_empty_one(graph, order):
    expected = f"ValueError: order must be one of free, given; got {order!r}"
    assert error(schedule, graph, SIZE, order=order) == expected
