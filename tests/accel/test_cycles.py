"""Operators that cannot run in their order, and what a workload says of them."""

from __future__ import annotations

import pytest

from accel._cycles import find_cycle
from accel.workload import Operator, Tensor, Workload


def workload(text, inputs="x", outputs=""):
    """Graph of ``"A: x->a; B: a->b"``, of one byte per tensor."""
    operators = []
    for part in text.split("; "):
        name, arrow = part.split(": ")
        read, written = (tuple(filter(None, side.split(","))) for side in arrow.split("->"))
        operators.append(Operator(name=name, kind="op", inputs=read, outputs=written))
    return Workload(
        name="test",
        operators=tuple(operators),
        tensors={name: Tensor(name=name, shape=(1,), role="activation", format="int8") for name in "xabc"},
        inputs=tuple(inputs),
        outputs=tuple(outputs),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A: x,b->a; B: a->b", "operator A reads b, but the operators form a cycle: A -> B -> A"),
        ("A: a->a", "operator A reads a, but the operators form a cycle: A -> A"),
        ("A: c->a; B: a->b; C: b->c", "operator A reads c, but the operators form a cycle: A -> B -> C -> A"),
        ("A: b->a; B: x->b", "operator A reads b, which is made only later, by B"),
        ("A: x,c->a", "operator A reads c, which nothing makes"),
        ("A: x->a; B: x->a", "tensor a has two producers, A and B"),
        ("A: x->a,a", "tensor a has two producers, A and A"),
        ("A: x->x", "tensor x has two producers, the graph's inputs and A"),
        ("A: x->q", "A uses tensor 'q', which is not declared"),
        ("A: q->a", "A uses tensor 'q', which is not declared"),
    ],
)
def test_what_cannot_run_is_told_in_one_line(text, message):
    with pytest.raises(ValueError) as error:
        workload(text)
    assert str(error.value) == message


def test_an_output_needs_a_producer():
    assert workload("A: x->a", outputs="xa").outputs == ("x", "a")
    with pytest.raises(ValueError, match=r"^graph output c has no producer$"):
        workload("A: x->a", outputs="ac")


def test_a_cycle_is_found_among_other_ways():
    reads = [["x"], ["a", "d"], ["b"], ["c", "b"], ["a"]]
    producer = {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}
    assert find_cycle(reads, producer, 1) == [1, 3, 1]
    assert find_cycle(reads, producer, 2) == [2, 3, 1, 2]
    assert find_cycle(reads, producer, 0) == find_cycle(reads, producer, 4) == []
