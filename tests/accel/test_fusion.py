"""Element-wise operators joined to what makes their operand, by hand and on random graphs."""

from __future__ import annotations

from collections import Counter

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.fusion import ELEMENTWISE, fuse_elementwise
from accel.workload import Gemm, Operator, Phase, Tensor, Window, Workload

ROLES = {"w": "weight", "g": "weight", "b": "weight", "k": "constant", "i": "index"}


def graph(text, sizes, outputs, **changes):
    """Workload of ``"name kind: x,w->a"`` lines; a tensor's role follows from its first letter.

    `changes` are further fields by operator.
    """
    operators = []
    for line in filter(None, map(str.strip, text.split(";"))):
        head, arrow = line.split(":")
        name, kind = head.split()
        read, written = (tuple(filter(None, side.strip().split(","))) for side in arrow.split("->"))
        operators.append(
            Operator(name=name, kind=kind, inputs=read, outputs=written, **changes.get(name, {}))
        )
    made = {name for operator in operators for name in operator.outputs}
    return Workload(
        name="test",
        operators=tuple(operators),
        tensors={
            name: Tensor(name=name, shape=(size,), role=ROLES.get(name[0], "activation"), format="int8")
            for name, size in sizes.items()
        },
        inputs=tuple(name for name in sizes if name not in made),
        outputs=tuple(outputs.split(",")),
    )


def drawn(workload):
    return [f"{o.name} {o.kind}: {','.join(o.inputs)}->{','.join(o.outputs)}" for o in workload.operators]


CONV = "conv conv2d: x,w->a; norm batch_norm: a,g,b,k1,k2->c; act relu: c->d; pool max_pool2d: d->y"
SIZES = {"x": 6, "w": 9, "a": 8, "g": 2, "b": 2, "k1": 2, "k2": 2, "c": 8, "d": 8, "y": 2}


def test_a_normalisation_and_a_function_join_the_product_before_them():
    window = Window(
        batch=1,
        channels=1,
        input=(6,),
        output=(4,),
        kernel=(3,),
        stride=(1,),
        dilation=(1,),
        padding=(0,),
    )
    fields = {
        "conv": {"gemm": Gemm(m=4, n=2, k=3), "window": window, "vector_ops": 8},
        "norm": {"vector_ops": 16},
        "act": {"vector_ops": 8},
    }
    plain = graph(CONV, SIZES, "y", **fields)
    fused = plain.fused()
    assert drawn(fused) == [
        "conv conv2d+batch_norm+relu: x,w,g,b,k1,k2->d",
        "pool max_pool2d: d->y",
    ]
    assert (fused.operators[0].gemm, fused.operators[0].window) == (Gemm(m=4, n=2, k=3), window)
    assert fused.operators[0].vector_ops == 32
    assert fused.inputs == plain.inputs
    assert set(fused.tensors) == set(SIZES) - {"a", "c"}


def test_whatever_makes_the_operand_takes_the_function_in():
    text = "join cat: x,u->a; norm batch_norm: a,g,b->c; pool avg_pool2d: c->p; act sigmoid: p->y"
    sizes = {"x": 4, "u": 4, "a": 8, "g": 2, "b": 2, "c": 8, "p": 2, "y": 2}
    assert drawn(graph(text, sizes, "y").fused()) == [
        "join cat+batch_norm: x,u,g,b->c",
        "pool avg_pool2d+sigmoid: c->y",
    ]


@pytest.mark.parametrize(
    ("text", "outputs", "fused"),
    [
        ("p conv2d: x,w->a; q mul: a,w->c", "c", ["p conv2d+mul: x,w->c"]),  # one weight, read once
        ("p conv2d: x,w->a; q div: w,a->c", "c", ["p conv2d+div: x,w->c"]),
        ("p conv2d: x,w->a; q mul: a,a->c", "c", ["p conv2d+mul: x,w->c"]),  # the square
        ("p conv2d: x,w->a; q add_: a,k->c", "c", ["p conv2d+add_: x,w,k->c"]),
        ("p split: x->a,e; q relu: e->c; r add: a,c->y", "y", ["p split+relu: x->a,c", "r add: a,c->y"]),
        ("p relu: x->a; q relu: a->c", "c", ["p relu+relu: x->c"]),
        ("p batch_norm+relu: x,g->a; q relu_: a->c", "c", ["p batch_norm+relu+relu_: x,g->c"]),
        ("p conv2d: x,w->a; q batch_norm+relu: a,g->c", "c", ["p conv2d+batch_norm+relu: x,w,g->c"]),
    ],
)
def test_what_joins(text, outputs, fused):
    sizes = dict.fromkeys("xwagkecy", 8)
    read = {name for line in fused for name in line.replace("->", ",").replace(": ", ",").split(",")}
    used = {name: size for name, size in sizes.items() if name in read or f"{name}->" in text or name == "a"}
    assert drawn(graph(text, used, outputs).fused()) == fused


@pytest.mark.parametrize(
    ("text", "outputs"),
    [
        ("p conv2d: x,w->a; q relu: a->c; r add: a,c->y", "y"),  # two readers
        ("p conv2d: x,w->a; q relu: a->c", "a,c"),  # an output of the graph
        ("p conv2d: x,w->a; r add: a,e->c", "c"),  # two activations
        ("p conv2d: x,w->a; r mul: a,i->c", "c"),  # indices are data
        ("p conv2d: x,w->a; q relu: a->h", "h"),  # another number of elements
        ("p conv2d: x,w->a; q relu: a->c,e", "c,e"),  # two results
        ("q relu: x->c", "c"),  # no producer
        ("q neg: w->c", "c"),  # no activation
        *(
            (f"p conv2d: x,w->a; q {kind}: a->c", "c")
            for kind in (
                "softmax",
                "log_softmax",
                "layer_norm",
                "rms_norm",
                "max_pool2d",
                "local_response_norm",
                "cumsum",
                "mean",
                "transpose",
                "copy",
                "glu",
                "conv2d+relu",
                "unknown",
            )
        ),
    ],
)
def test_what_stays(text, outputs):
    sizes = dict.fromkeys("xwaeicy", 8) | {"h": 4}
    used = {name: size for name, size in sizes.items() if name in text.replace("conv2d", "")}
    plain = graph(text, used, outputs)
    assert fuse_elementwise(plain) == plain


def test_a_normalisation_with_the_statistics_of_the_batch_stays():
    text = "p conv2d: x,w->a; q batch_norm: a,g,b->c; r relu: c->y"
    sizes = {"x": 8, "w": 8, "a": 8, "g": 2, "b": 2, "c": 8, "y": 8}
    evaluated, trained = (graph(text, sizes, "y", q={"vector_ops": ops}) for ops in (16, 7 * 8))
    assert [o.kind for o in evaluated.fused().operators] == ["conv2d+batch_norm+relu"]
    assert [o.kind for o in trained.fused().operators] == ["conv2d", "batch_norm+relu"]
    assert trained.fused().fused() == trained.fused()


def test_operators_join_within_one_phase():
    text = "p linear: x,w->a; q relu: a->c; r mul: c,k->y"
    sizes = dict.fromkeys("xwacky", 8)
    phases = {"q": {"phase": Phase.BACKWARD}, "r": {"phase": Phase.BACKWARD}}
    assert drawn(graph(text, sizes, "y", **phases).fused()) == ["p linear: x,w->a", "q relu+mul: a,k->y"]


def test_a_joined_operator_writes_the_last_result_in_its_format():
    plain = graph(CONV, SIZES, "y").with_formats({"a": "fp32", "c": "bf16", "d": "int4"})
    assert plain.fused().tensors["d"].bytes == 4
    assert "a" not in plain.fused().tensors


@pytest.mark.parametrize(("producer", "function"), [(True, False), (False, True), (True, True)])
def test_a_joined_operator_is_in_place_if_its_producer_is(producer, function):
    text, sizes = "p add: x,e->a; q relu: a->c", dict.fromkeys("xeac", 8)
    plain = graph(text, sizes, "c", p={"in_place": producer}, q={"in_place": function})
    assert [o.in_place for o in plain.fused().operators] == [producer]


KINDS = ["relu", "batch_norm", "add", "mul", "softmax", "cat", "conv2d"]


@st.composite
def graphs(draw):
    """Any operators of up to three operands, weights among them, over tensors of two sizes."""
    sizes = {"x0": 4, "x1": 8, "w0": 4, "w1": 8}
    lines = []
    for place in range(draw(st.integers(1, 8))):
        read = draw(st.lists(st.sampled_from(sorted(sizes)), min_size=1, max_size=3))
        lines.append(f"o{place} {draw(st.sampled_from(KINDS))}: {','.join(read)}->t{place}")
        sizes[f"t{place}"] = draw(st.sampled_from([4, 8]))
    outputs = draw(st.lists(st.integers(0, len(lines) - 1), max_size=2, unique=True))
    fields = {f"o{place}": {"vector_ops": draw(st.integers(0, 3))} for place in range(len(lines))}
    named = ",".join(f"t{place}" for place in {*outputs, len(lines) - 1})
    return graph("; ".join(lines), sizes, named, **fields)


@given(plain=graphs())
def test_nothing_is_lost_and_nothing_is_left_to_join(plain):
    fused = plain.fused()
    assert sum(o.vector_ops for o in fused.operators) == sum(o.vector_ops for o in plain.operators)
    kinds = [kind for o in fused.operators for kind in o.kind.split("+")]
    assert sorted(kinds) == sorted(o.kind for o in plain.operators)
    assert (fused.inputs, fused.outputs) == (plain.inputs, plain.outputs)
    gone = plain.tensors.keys() - fused.tensors.keys()
    for name in gone:  # each was between an element-wise operator and what made its one activation
        (reader,) = plain.consumers[name]
        assert reader.kind in ("relu", "batch_norm", "add", "mul")
        assert {read for read in reader.inputs if not read.startswith("w")} == {name}
    read_before = {name for o in plain.operators for name in o.inputs}
    read_after = {name for o in fused.operators for name in o.inputs}
    assert read_before - read_after == gone
    assert len(plain.operators) - len(fused.operators) == len(gone)
    assert fused.fused() == fused


def test_kinds_are_those_that_pytorch_calls_pointwise_and_those_of_onnx():
    import torch

    from accel.importers._onnx_operators import KINDS as ONNX_KINDS
    from accel.importers._torch_operators import _KINDS as TORCH_KINDS

    pointwise, known = set(), set()
    for full in torch._C._dispatch_get_all_op_names():
        space, _, name = full.partition("::")
        if space == "aten":
            name, _, overload = name.partition(".")
            kind = TORCH_KINDS.get(name.rstrip("_"), name.strip("_"))
            known.add(kind)
            if torch.Tag.pointwise in getattr(getattr(torch.ops.aten, name), overload or "default").tags:
                pointwise.add(kind)
    # A copy moves data, frexp has two results, and the importer has its own words for the extrema of two
    # tensors; rrelu is random. Backward functions have two operands, and special functions are left alone.
    left = {kind for kind in pointwise - ELEMENTWISE if not kind.startswith("special_")}
    left -= {kind for kind in left if kind.endswith("_backward")}
    assert left == {"copy", "frexp", "ilshift", "ixor", "lshift", "max", "min", "rrelu", "rshift"}
    known |= {schema.name.lower() for schema in onnx.defs.get_all_schemas()} | set(ONNX_KINDS.values())
    assert known >= ELEMENTWISE - {"relu6", "thresholded_relu"}


def test_a_named_network_is_joined_as_one_asks():
    kinds = Counter(operator.kind for operator in Workload.named("resnet8", fuse="elementwise").operators)
    # Seven normalised convolutions, of which three go into a sum and four into a ReLU, and two on short cuts.
    assert kinds == {
        "conv2d+batch_norm+relu": 4,
        "conv2d+batch_norm": 3,
        "conv2d": 2,
        "add+relu": 3,
        "avg_pool2d": 1,
        "linear": 1,
    }
