"""What a graph means to a scheduler: views, results in place, shared weights, element widths, training steps.

All numbers are worked out by hand, in the comments where they are not sums of sizes.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from accel.importers.onnx_graph import from_onnx
from accel.schedule import schedule, working_set_minimum
from accel.workload import Operator, Role, Tensor, Workload


def with_flag(graph, *names):
    """`graph` with these operators in place."""
    operators = (replace(o, in_place=True) if o.name in names else o for o in graph.operators)
    return replace(graph, operators=tuple(operators))


def with_weights(graph, *names):
    """`graph` with these inputs as weights."""
    roles = {name: replace(graph.tensors[name], role=Role.WEIGHT) for name in names}
    return replace(graph, tensors=dict(graph.tensors) | roles)


def stays(plan, tensor):
    return [(run.start, run.end, run.address) for run in plan.residency if run.tensor == tensor]


def moves(plan, *kinds):
    return [(m.step, m.kind, m.tensor, m.bytes) for m in plan.transfers if m.kind in kinds]


# ---------------------------------------------------------------------------------- in place


CHAIN = "A: x->a; B: a->b; C: b->c", {"x": 1, "a": 4, "b": 4, "c": 1}


def test_a_result_in_place_needs_no_room_of_its_own(make_graph):
    graph = make_graph(*CHAIN)
    assert working_set_minimum(graph) == 8
    flagged = with_flag(graph, "B")
    assert working_set_minimum(flagged) == 5
    plan = schedule(flagged, 5)
    ((_, end, address),) = stays(plan, "a")
    ((start, _, taken),) = stays(plan, "b")
    assert (end, start, taken) == (1, 1, address)
    assert (plan.noncompulsory_bytes, plan.peak_bytes, plan.status) == (0, 5, "OPTIMAL")


@pytest.mark.parametrize(
    ("text", "sizes", "outputs", "minimum"),
    [
        # another reader that runs later, whatever the order
        ("A: x->a; B: a->b; C: a,b->c", {"x": 1, "a": 4, "b": 4, "c": 1}, ("c",), 9),
        # an output of the graph
        ("A: x->a; B: a->b", {"x": 1, "a": 4, "b": 4}, ("a", "b"), 8),
        # too small for the result
        ("A: x->a; B: a->b", {"x": 1, "a": 3, "b": 4}, ("b",), 7),
        # a graph input that is a graph output as well
        ("B: a->b", {"a": 4, "b": 4}, ("a", "b"), 8),
        # nothing there
        ("A: x->e; B: e->b", {"x": 1, "e": 0, "b": 4}, ("b",), 4),
    ],
)
def test_an_input_that_must_survive_or_is_too_small_is_not_overwritten(
    make_graph, text, sizes, outputs, minimum
):
    graph = make_graph(text, sizes, outputs=outputs)
    flagged = with_flag(graph, "B")
    assert working_set_minimum(flagged) == working_set_minimum(graph) == minimum
    plan = schedule(flagged, minimum)
    assert plan.noncompulsory_bytes == schedule(graph, minimum).noncompulsory_bytes


@pytest.mark.parametrize(
    ("text", "sizes", "minimum"),
    [
        ("B: a->b", {"a": 4, "b": 4}, 4),  # a graph input: its copy off chip stays
        ("B: a->b", {"a": 6, "b": 4}, 6),  # larger than the result
        ("A: x->a,d; B: a,d->b", {"x": 1, "a": 4, "d": 4, "b": 4}, 9),  # one of two; A needs 1 + 4 + 4
        ("A: x->a,d; B: a,d->b", {"x": 1, "a": 4, "d": 2, "b": 4}, 7),
        ("B: a,a->b", {"a": 4, "b": 4}, 4),
    ],
)
def test_the_largest_input_that_dies_gives_its_block(make_graph, text, sizes, minimum):
    flagged = with_flag(make_graph(text, sizes), "B")
    assert working_set_minimum(flagged) == minimum
    plan = schedule(flagged, minimum)
    assert (plan.noncompulsory_bytes, plan.peak_bytes) == (0, minimum)


def test_a_chain_in_place_stays_in_one_block(make_graph):
    graph = make_graph("A: a->b; B: b->c; C: c->d", {"a": 4, "b": 4, "c": 3, "d": 3})
    plan = schedule(with_flag(graph, "A", "B", "C"), 4)
    assert plan.noncompulsory_bytes == 0
    assert plan.peak_bytes == 4
    assert schedule(graph, 8).noncompulsory_bytes == 0


def test_room_that_is_saved_in_place_saves_a_spill(make_graph):
    # While B runs, s (3) must stay beside a and b (4 + 4), or 4 in place.
    text, sizes = "A: x->a,s; B: a->b; C: b,s->c", {"x": 1, "a": 4, "s": 3, "b": 4, "c": 1}
    graph = make_graph(text, sizes)
    assert schedule(graph, 10).noncompulsory_bytes == 2 * 3
    assert schedule(with_flag(graph, "B"), 10).noncompulsory_bytes == 0
    assert schedule(with_flag(graph, "B"), 8).noncompulsory_bytes == 0


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [((), ("y",)), (("x",), ("y", "z")), (("x",), ())],
    ids=["none", "two", "no result"],
)
def test_an_operator_in_place_has_an_input_and_one_output(inputs, outputs):
    with pytest.raises(ValueError, match=r"^operator B: in place it must have an input and one output, got"):
        Operator(name="B", kind="relu", inputs=inputs, outputs=outputs, in_place=True)


def test_the_flag_survives_other_formats_and_batches(make_graph):
    flagged = with_flag(make_graph(*CHAIN), "B")
    for copy in (flagged.with_formats("int4"), flagged.with_batch(3), flagged.fused()):
        assert [o.in_place for o in copy.operators] == [False, True, False]
    # Of 4 elements each, a takes 4 bytes, b 8, and no longer fits where a was.
    assert working_set_minimum(flagged.with_formats({"b": "fp16"})) == 12


# ---------------------------------------------------------------------------------- shared weights

# w is read first and last; while B runs there is no room for it.
SHARED = "A: x,w->a; B: a->b; C: b,w->c", {"x": 1, "w": 5, "a": 4, "b": 4, "c": 1}


@pytest.mark.parametrize(
    ("weights", "minimum", "scratchpad_bytes", "noncompulsory", "compulsory"),
    [
        ("streamed", 8, 8, 0, 1 + 5 + 1),  # one load, however many readers
        ("tracked", 10, 10, 5, 1 + 5 + 1),  # a second load, as of any graph input, and no spill
        ("tracked", 10, 12, 5, 1 + 5 + 1),
        ("tracked", 10, 13, 0, 1 + 5 + 1),  # stays beside a and b
        ("resident", 13, 13, 0, 1 + 1),  # loaded before the run
    ],
)
def test_a_weight_that_two_operators_read(
    make_graph, weights, minimum, scratchpad_bytes, noncompulsory, compulsory
):
    graph = with_weights(make_graph(*SHARED), "w")
    assert working_set_minimum(graph, weights=weights) == minimum
    plan = schedule(graph, scratchpad_bytes, weights=weights)
    assert (plan.noncompulsory_bytes, plan.compulsory_bytes) == (noncompulsory, compulsory)
    assert plan.spilled_bytes == 0
    assert plan.compulsory_weight_bytes == (0 if weights == "resident" else 5)


def test_a_weight_of_one_reader_takes_room_at_its_step_alone(make_graph):
    text, sizes = "A: x,v->a; B: a,w->b", {"x": 1, "v": 7, "w": 7, "a": 2, "b": 1}
    graph = with_weights(make_graph(text, sizes), "v", "w")
    assert working_set_minimum(graph, weights="tracked") == 10
    plan = schedule(graph, 10, weights="tracked")
    assert plan.noncompulsory_bytes == 0
    assert [stays(plan, name)[0][:2] for name in "vw"] == [(0, 0), (1, 1)]


# ---------------------------------------------------------------------------------- element widths


@pytest.fixture
def packed():
    """Five elements per tensor: 20 bytes of float32, 5 of int8, 4 of 6 bits, 3 of 4 bits."""
    formats = {"x": "fp32", "a": "e3m2fn", "b": "int4", "c": "int8"}
    return Workload(
        name="widths",
        operators=tuple(
            Operator(name=made.upper(), kind="op", inputs=(read,), outputs=(made,))
            for read, made in pairwise(formats)
        ),
        tensors={
            name: Tensor(name=name, shape=(5,), role="activation", format=fmt)
            for name, fmt in formats.items()
        },
        inputs=("x",),
        outputs=("c",),
    )


def test_every_tensor_takes_the_bytes_of_its_own_format(packed):
    assert [tensor.bytes for tensor in packed.tensors.values()] == [20, 4, 3, 5]
    assert working_set_minimum(packed) == 20 + 4
    plan = schedule(packed, 24)
    assert {run.tensor: run.bytes for run in plan.residency} == {"x": 20, "a": 4, "b": 3, "c": 5}
    assert plan.compulsory_bytes == 20 + 5


def test_packed_tensors_are_rounded_up_to_the_alignment_one_by_one(packed):
    assert working_set_minimum(packed, alignment=4) == 20 + 4
    assert working_set_minimum(packed, alignment=8) == 24 + 8
    plan = schedule(packed, 32, alignment=8)
    assert {run.tensor: run.bytes for run in plan.residency} == {"x": 24, "a": 8, "b": 8, "c": 8}


def test_a_narrower_format_for_one_tensor_changes_the_working_sets_with_it(packed):
    narrower = packed.with_formats({"x": "int4"})
    assert working_set_minimum(narrower) == 3 + 5  # of C, where b meets c
    assert working_set_minimum(packed.with_formats("int4")) == 3 + 3
    assert working_set_minimum(packed.with_formats("fp32")) == 20 + 20


# ---------------------------------------------------------------------------------- views and parts


def onnx_graph(nodes, shape, outputs, constants=()):
    """Workload of ONNX nodes over one input ``x``, one byte per element, nothing joined."""
    graph = helper.make_graph(
        [helper.make_node(op, i.split(), o.split(), **given) for op, i, o, given in nodes],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.array(values, np.int64), name) for name, values in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    return from_onnx(model, fuse="none").with_formats("int8")


def test_a_view_has_no_bytes_and_keeps_its_tensor_to_the_last_use_of_any_name():
    nodes = [
        ("Exp", "x", "h", {"name": "A"}),
        ("Reshape", "h s", "v", {}),
        ("Exp", "h", "p", {"name": "B"}),
        ("Exp", "p", "q", {"name": "C"}),
        ("Transpose", "q", "t", {"name": "D", "perm": [1, 0]}),
        ("Identity", "v", "i", {}),
        ("Add", "t i", "y", {"name": "E"}),
    ]
    graph = onnx_graph(nodes, [2, 4], ["y"], [("s", [4, 2])])
    assert [(o.name, o.inputs) for o in graph.operators] == [
        ("A", ("x",)),
        ("B", ("h",)),
        ("C", ("p",)),
        ("D", ("q",)),
        ("E", ("t", "h")),
    ]
    plan = schedule(graph, 24)
    assert plan.noncompulsory_bytes == 0
    assert [stay[:2] for stay in stays(plan, "h")] == [(0, 4)]


def test_a_slice_keeps_its_whole_parent():
    nodes = [
        ("Exp", "x", "h", {"name": "A"}),
        ("Slice", "h low high", "s", {"name": "S"}),
        ("Exp", "s", "p", {"name": "B"}),
        ("Exp", "p", "q", {"name": "C"}),
        ("Add", "q s", "y", {"name": "D"}),
    ]
    graph = onnx_graph(nodes, [8, 2], ["y"], [("low", [1]), ("high", [3])])
    # h has 16 bytes, p, q and y 4 each; B needs 16 + 4, D 16 + 4 + 4.
    assert {name: t.bytes for name, t in graph.tensors.items()} == {"x": 16, "h": 16, "p": 4, "q": 4, "y": 4}
    assert working_set_minimum(graph) == 32
    assert [stay[:2] for stay in stays(schedule(graph, 32), "h")] == [(0, 3)]


def test_a_concatenation_copies():
    nodes = [
        ("Exp", "x", "h", {"name": "A"}),
        ("Neg", "x", "p", {"name": "B"}),
        ("Concat", "h p", "y", {"name": "C", "axis": 0}),
    ]
    graph = onnx_graph(nodes, [2, 4], ["y"])
    assert working_set_minimum(graph) == 8 + 8 + 16
    assert schedule(graph, 32).noncompulsory_bytes == 0


# ---------------------------------------------------------------------------------- training steps


@pytest.fixture(scope="module")
def training_step():
    """Two layers of two neurons, 16 samples; 32 bytes per tensor of activations and of errors.

    ::

        step                           bytes of its activations and errors
        0           x -> p             64
        1           p -> a             64
        2           a -> z             64
        loss        z, labels -> loss  49
        loss back   z, labels -> ez    80
        2 back      ez -> ea           64
        2 gradient  a, ez -> g2        68
        2 update    g2 -> ...          12, weight and momentum streamed
        1 back      ea, a -> ep        96
        0 gradient  x, ep -> g0        68
        0 update    g0 -> ...          12
    """
    import torch
    from torch import nn

    layers = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Tanh(), nn.Linear(2, 2, bias=False))
    forward = Workload.from_torch(layers, torch.empty(16, 2), name="mlp")
    return forward.training().with_formats({**dict.fromkeys(Role, "int8"), "labels": "int8"})


def test_a_training_step_reads_its_saved_activations_again(training_step):
    assert working_set_minimum(training_step) == 96
    # x and a stay to the backward pass: 64 bytes beside the 80 of the loss going back.
    plan = schedule(training_step, 144)
    assert plan.noncompulsory_bytes == 0
    for saved in ("input", "1.output"):
        ((start, end, _),) = stays(plan, saved)
        assert plan.order.index("loss.backward") in range(start + 1, end)
    # Data 32, labels 16, weights and momenta 4 times 4 in; loss, new weights and momenta out.
    assert (plan.compulsory_bytes, plan.compulsory_weight_bytes) == (32 + 16 + 16 + 1 + 16, 16)


@pytest.mark.parametrize(
    ("scratchpad_bytes", "order", "expected"),
    [
        (144, "given", 0),
        (143, "given", 32),  # x is dropped, which costs one load
        (112, "given", 32),
        (111, "given", 96),  # and a, which costs a spill and a load
        (100, "given", 96),
        (99, "given", 160),  # ea (32) does not fit beside a, ez and g2 (68): a spill and a load
        (99, "free", 96),  # the gradient of layer 2 before its error: nothing waits
        (96, "free", 96),
        (143, "free", 32),
    ],
)
def test_saved_activations_leave_in_the_order_of_their_price(
    training_step, scratchpad_bytes, order, expected
):
    plan = schedule(training_step, scratchpad_bytes, order=order)
    assert (plan.noncompulsory_bytes, plan.status) == (expected, "OPTIMAL")


@pytest.mark.parametrize(
    ("scratchpad_bytes", "expected"),
    [
        (152, 0),  # x, a and both weights (4 each) beside the 80 of the loss going back
        (148, 4),
        (144, 8),  # both weights are loaded again
        (104, 96),  # x and a are dropped; 0.weight has room beside ez, ea, 2.weight and a: 4 + 100
        (100, 100),
        (96, 132),  # a is loaded a second time: ez, ea, 2.weight and a take 100
    ],
)
def test_tracked_weights_are_read_again_by_the_backward_pass_and_the_update(
    training_step, scratchpad_bytes, expected
):
    assert working_set_minimum(training_step, weights="tracked") == 96
    plan = schedule(training_step, scratchpad_bytes, weights="tracked")
    assert (plan.noncompulsory_bytes, plan.status) == (expected, "OPTIMAL")


def test_resident_weights_and_momenta_take_their_room_all_the_time(training_step):
    assert working_set_minimum(training_step, weights="resident") == 96 + 16
    plan = schedule(training_step, 112, weights="resident")
    assert (plan.noncompulsory_bytes, plan.compulsory_weight_bytes) == (96, 0)


@pytest.mark.parametrize(("function", "later"), [("Tanh", []), ("GELU", ["1.backward"])])
def test_a_saved_activation_is_not_overwritten_in_a_training_step(function, later):
    """Tanh goes back through its result, which may lie where its operand was, GELU through its operand."""
    import torch
    from torch import nn

    layers = nn.Sequential(nn.Linear(2, 2, bias=False), getattr(nn, function)())
    forward = with_flag(Workload.from_torch(layers, torch.empty(16, 2)), "1").with_formats("int8")
    step = forward.training()
    assert [o.name for o in step.operators if o.in_place] == ["1"]
    operand, result = "0.output", "1.output"
    assert [o.name for o in step.consumers[operand]] == ["1", *later]
    plan = schedule(step, working_set_minimum(step))
    at = plan.order.index("1")
    (old,) = (run for run in plan.residency if run.tensor == operand and run.start <= at <= run.end)
    (new,) = (run for run in plan.residency if run.tensor == result and run.start <= at <= run.end)
    assert later == [] or old.address + old.bytes <= new.address or new.address + new.bytes <= old.address
    assert (old.end == at) or later
