"""Marks of spills and refetches on the memory map, in both modes."""

from __future__ import annotations

import pytest

from accel.schedule import schedule
from accel.workload import Operator, Role, Tensor, Workload
from numerics.formats import parse_format
from studies.memory_map import memory_map

# a is read by B and, after c has needed the room, by D.
EDGES = (("A", "x", "a"), ("B", "a", "b"), ("C", "b", "c"), ("D", "ac", "d"))
SIZES = {"x": 1, "a": 2, "b": 3, "c": 3, "d": 2}


@pytest.fixture
def graph():
    return Workload(
        name="skip",
        operators=tuple(
            Operator(name=name, kind="op", inputs=tuple(read), outputs=(written,))
            for name, read, written in EDGES
        ),
        tensors={
            t: Tensor(name=t, shape=(n,), role=Role.ACTIVATION, format=parse_format("int8"))
            for t, n in SIZES.items()
        },
        inputs=("x",),
        outputs=("d",),
    )


def marks(plan):
    """Of each kind of mark: step, KiB, text."""
    return {
        trace.name: [(round(x), y, text) for x, y, text in zip(trace.x, trace.y, trace.text, strict=True)]
        for trace in memory_map(plan).data
        if trace.type == "scatter"
    }


def test_in_atomic_mode_moves_are_marked_on_their_blocks(graph):
    plan = schedule(graph, 7)
    found = marks(plan)
    assert {name: [(step, text) for step, _, text in rows] for name, rows in found.items()} == {
        "spill": [(0, "spill of a<br>2 bytes")],
        "refetch": [(3, "refetch of a<br>2 bytes")],
    }
    for [(step, height, _)] in found.values():
        assert any(
            run.tensor == "a" and run.start <= step <= run.end and height == (run.address + 1) / 1024
            for run in plan.residency
        )


def test_in_streamed_mode_moves_of_what_does_not_stay_are_marked_above_the_scratchpad(graph):
    # Two bytes hold a from A to D, and b and c pass by; or nothing, of one byte.
    assert marks(schedule(graph, 2, mode="streamed"))
    found = marks(schedule(graph, 1, mode="streamed"))
    assert {name: [(step, text) for step, _, text in rows] for name, rows in found.items()} == {
        "spill, streamed": [
            (0, "spill of a<br>2 bytes"),
            (1, "spill of b<br>3 bytes"),
            (2, "spill of c<br>3 bytes"),
        ],
        "refetch, streamed": [
            (1, "refetch of a<br>2 bytes"),
            (2, "refetch of b<br>3 bytes"),
            (3, "refetch of a<br>2 bytes<br>refetch of c<br>3 bytes"),
        ],
    }
    assert all(height > 1 / 1024 for rows in found.values() for _, height, _ in rows)


@pytest.mark.parametrize("size", range(1, 9))
def test_every_move_is_marked_once(graph, size):
    plan = schedule(graph, size, mode="streamed")
    texts = " ".join(text for rows in marks(plan).values() for _, _, text in rows)
    for kind, moves in (("spill", plan.spills), ("refetch", plan.refetches)):
        assert texts.count(f"{kind} of ") == len(moves)
