"""Operators that read parameters alone, folded: by hand, and in graphs read from PyTorch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name PyTorch users know
from torch import nn

from accel.workload import Operator, Phase, Role, Tensor, Workload

ROLES = {"w": "weight", "k": "constant", "i": "index", "x": "input"}


def graph(text, outputs, **formats):
    """Workload of ``"name kind: x,w->a"`` lines; the role of an input follows from its first letter."""
    operators = []
    for line in map(str.strip, text.split(";")):
        head, arrow = line.split(":")
        name, kind = head.split()
        read, written = (tuple(filter(None, side.strip().split(","))) for side in arrow.split("->"))
        operators.append(Operator(name=name, kind=kind, inputs=read, outputs=written))
    made = {name for operator in operators for name in operator.outputs}
    names = dict.fromkeys(name for found in operators for name in (*found.inputs, *found.outputs))
    return Workload(
        name="test",
        operators=tuple(operators),
        tensors={
            name: Tensor(
                name=name,
                shape=(size,),
                role="activation" if name in made else ROLES[name[0]],
                format=formats.get(name, "int8"),
            )
            for size, name in enumerate(names, start=1)
        },
        inputs=tuple(name for name in names if name not in made),
        outputs=tuple(outputs.split(",")),
    )


def names(workload):
    return [operator.name for operator in workload.operators]


def test_a_chain_of_parameters_becomes_one_parameter():
    plain = graph("A mul: w1,k1->a; B index: a,k1->b; C add: x,b->c; D mul: c,w1->d", "d", b="bf16")
    found = plain.folded()
    assert names(found) == ["C", "D"]
    assert found.inputs == ("w1", "x", "b")
    assert set(found.tensors) == {"w1", "x", "b", "c", "d"}
    assert found.tensors["b"] == Tensor(name="b", shape=(4,), role="weight", format="bf16")
    assert (found.outputs, found.batch, found.name) == (plain.outputs, plain.batch, plain.name)
    assert found.operators == plain.operators[2:]
    assert found.folded() == found


def test_what_is_made_of_constants_alone_is_a_constant():
    found = graph("A mul: k1,k2->a; B mul: a,w->b; C add: x,a,b->c", "c").folded()
    assert {name: found.tensors[name].role for name in found.inputs} == {
        "x": Role.INPUT,
        "a": Role.CONSTANT,
        "b": Role.WEIGHT,
    }


@pytest.mark.parametrize(
    "text",
    [
        "A mul: x,w->a; B relu: a->b",  # reads data
        "A embedding: i,w->a; B relu: a->b",  # reads tokens
        "A arange: ->a; B add: a,x->b",  # reads nothing
        "A bernoulli: w->a; B mul: a,x->b",  # another result at every run
        "A dropout_: w->a; B mul: a,x->b",
        "A mul+bernoulli: w->a; B mul: a,x->b",
    ],
)
def test_an_operator_stays_that_is_no_constant(text):
    plain = graph(text, "b")
    assert plain.folded() == plain


def test_of_several_results_only_those_that_are_needed_stay():
    found = graph("A split: w->a,b,c; B add: x,b->y; C neg: w1->d", "y,c").folded()
    assert names(found) == ["B"]
    assert found.inputs == ("x", "b", "c")
    assert set(found.tensors) == {"x", "b", "c", "y"}
    assert found.outputs == ("y", "c")


def test_a_parameter_that_nothing_reads_stays():
    plain = graph("A neg: w->a; B add: x,a->b", "b")
    unread = Tensor(name="w9", shape=(3,), role="weight")
    plain = Workload(
        name="test",
        operators=plain.operators,
        tensors={**plain.tensors, "w9": unread},
        inputs=(*plain.inputs, "w9"),
        outputs=plain.outputs,
    )
    assert plain.folded().inputs == ("x", "w9", "a")


def test_a_training_step_is_refused():
    plain = graph("A neg: w->a; B add: x,a->b", "b")
    step = plain.training()
    name = next(operator.name for operator in step.operators if operator.phase is not Phase.FORWARD)
    with pytest.raises(ValueError, match=f"test training must be a forward graph .*, got operator {name} of"):
        step.folded()


class Biased(nn.Module):
    """A product of standardised weights, and a bias picked from a table."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(5, 4))
        self.table = nn.Parameter(torch.zeros(7))
        self.register_buffer("places", torch.zeros(2, 5, dtype=torch.int64))

    def forward(self, x):
        return F.linear(x, F.layer_norm(self.weight, (4,))) + self.table[self.places]


def imported(**options):
    return Workload.from_torch(Biased(), torch.zeros(2, 4, device="meta"), **options)


@pytest.mark.parametrize(
    ("fuse", "folded", "expected"),
    [
        ("compiler", True, ["linear", "add"]),
        ("elementwise", True, ["linear+add"]),
        ("none", True, ["layer_norm", "linear", "index", "add"]),
        ("compiler", False, ["layer_norm", "linear", "index", "add"]),
        ("elementwise", False, ["layer_norm", "linear", "index", "add"]),
    ],
)
def test_graphs_for_inference_are_folded(fuse, folded, expected):
    found = imported(fuse=fuse, fold_parameters=folded)
    assert [operator.kind for operator in found.operators] == expected
    assert found.parameters == (5 * 4 + 2 * 5 if len(expected) < 4 else 5 * 4 + 7)


def test_in_training_the_parameters_themselves_are_updated():
    step = imported(fold_parameters=False).training()
    assert {"weight.new", "table.new"} <= set(step.outputs)
    assert step.tensors["table.gradient"].shape == (7,)
