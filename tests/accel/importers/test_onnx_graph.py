"""ONNX graphs become the workloads one would draw by hand; networks have the sizes that are known of them."""

import warnings
from collections import Counter
from functools import cache
from math import prod

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from accel.accumulations import NetworkError
from accel.importers._onnx_rebatch import rebatched
from accel.importers.onnx_graph import from_onnx
from accel.importers.onnx_products import read_onnx
from accel.importers.torch_products import read_torch
from accel.networks import zoo
from accel.schedule import schedule
from accel.workload import Gemm, Role, Window, Workload
from numerics.formats import BFLOAT16, BINARY16, BINARY32, E4M3, parse_format

FLOAT, INT64, INT8, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT8, TensorProto.BOOL


def tensor(name, *shape, dtype=np.float32, values=None):
    array = np.zeros(shape, dtype) if values is None else np.array(values, dtype)
    return numpy_helper.from_array(array, name)


def ints(name, *values):
    return tensor(name, dtype=np.int64, values=list(values))


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, [i.strip("_") for i in inputs.split()], outputs.split(), **attributes)


def model(nodes, inputs, weights=(), *, opset=21, outputs=None, values=(), domains=()):
    """Model of `nodes`; `inputs` gives shapes by name, or (type, shape)."""
    typed = {k: v if v and isinstance(v, tuple) else (FLOAT, v) for k, v in inputs.items()}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in typed.items()],
        [helper.make_tensor_value_info(n, FLOAT, None) for n in outputs or list(nodes[-1].output)[:1]],
        list(weights),
        value_info=list(values),
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports)


def read(
    nodes, inputs, weights=(), *, batch=None, shapes=None, fold_batch_norm=True, fuse="compiler", **kwargs
):
    graph = model(nodes, inputs, weights, **kwargs)
    return from_onnx(graph, batch=batch, shapes=shapes or {}, fold_batch_norm=fold_batch_norm, fuse=fuse)


def kinds(workload):
    return [operator.kind for operator in workload.operators]


def drawn(workload):
    return [(o.name, o.kind, o.inputs, o.outputs) for o in workload.operators]


def one(*args, **kwargs):
    (operator,) = read(*args, **kwargs).operators
    return operator


def assert_alive(workload):
    """Every tensor is read or is an output, every result is wanted, and every name is used."""
    read_names = {name for o in workload.operators for name in o.inputs}
    made = {name for o in workload.operators for name in o.outputs}
    assert set(workload.tensors) == read_names | made
    assert set(workload.inputs) == read_names - made
    assert made <= read_names | set(workload.outputs)
    assert len({o.name for o in workload.operators}) == len(workload.operators)


# ------------------------------------------------------------------------------- a whole graph


def small(batch="N"):
    return model(
        [
            node("Conv", "x w1 b1", "c1", name="conv1", pads=[1] * 4),
            node("Relu", "c1", "r1"),
            node("MaxPool", "r1", "p", name="pool", kernel_shape=[2, 2], strides=[2, 2]),
            node("Conv", "p w2", "c2", name="conv2", pads=[1] * 4, group=2),
            node("Add", "p c2", "s", name="add"),
            node("Relu", "s", "r2", name="relu"),
            node("GlobalAveragePool", "r2", "g", name="mean"),
            node("Flatten", "g", "f"),
            node("Dropout", "f", "d"),
            node("Gemm", "d w3 b3", "y", name="fc", transB=1),
        ],
        {"x": [batch, 3, 16, 16]},
        [
            tensor("w1", 8, 3, 3, 3),
            tensor("b1", 8),
            tensor("w2", 8, 4, 3, 3),
            tensor("w3", 5, 8),
            tensor("b3", 5),
            tensor("unused", 7),
        ],
    )


def test_operators_are_those_drawn_by_hand():
    workload = from_onnx(small(), batch=2)
    assert drawn(workload) == [
        ("conv1", "conv2d+relu", ("x", "w1", "b1"), ("r1",)),  # a tensor is called after what it holds
        ("pool", "max_pool2d", ("r1",), ("p",)),
        ("conv2", "conv2d", ("p", "w2"), ("c2",)),
        ("add", "add", ("p", "c2"), ("s",)),
        ("relu", "relu", ("s",), ("r2",)),
        ("mean", "avg_pool2d", ("r2",), ("g",)),
        ("fc", "linear", ("g", "w3", "b3"), ("y",)),
    ]
    assert (workload.name, workload.batch, workload.outputs) == ("graph", 2, ("y",))
    assert workload.inputs == ("x", "w1", "b1", "w2", "w3", "b3")
    assert_alive(workload)


def test_products_are_lowered_and_convolutions_keep_their_window():
    workload = from_onnx(small(), batch=2)
    assert {o.name: o.gemm for o in workload.gemms()} == {
        "conv1": Gemm(m=2 * 256, n=8, k=27),
        "conv2": Gemm(m=2 * 64, n=4, k=36, count=2),
        "fc": Gemm(m=2, n=5, k=8),
    }
    assert workload.operators[2].window == Window(
        batch=2,
        channels=4,
        input=(8, 8),
        output=(8, 8),
        kernel=(3, 3),
        stride=(1, 1),
        dilation=(1, 1),
        padding=(1, 1),
    )
    assert workload.operators[-1].window is None


def test_vector_operations_are_counted():
    assert {o.name: o.vector_ops for o in from_onnx(small(), batch=2).operators} == {
        "conv1": 2 * 4096,  # bias and ReLU of 2 x 8 x 16 x 16
        "pool": 3 * 1024,  # three comparisons for each maximum of four
        "conv2": 0,
        "add": 1024,
        "relu": 1024,
        "mean": 1024,  # one addition for each of 2 x 8 x 8 x 8
        "fc": 10,  # bias
    }


def test_tensors_have_shapes_roles_and_bytes():
    workload = from_onnx(small(), batch=2)
    found = {t.name: (t.shape, t.role, t.bytes) for t in workload.tensors.values()}
    assert found["x"] == ((2, 3, 16, 16), Role.INPUT, 6144)
    assert found["w2"] == ((8, 4, 3, 3), Role.WEIGHT, 1152)
    assert found["r1"] == ((2, 8, 16, 16), Role.ACTIVATION, 16384)
    assert found["g"] == ((2, 8, 1, 1), Role.ACTIVATION, 64)  # its flattening is another name
    assert {t.format for t in workload.tensors.values()} == {BINARY32}


def test_the_graph_can_be_scheduled_and_trained():
    workload = from_onnx(small(), batch=2)
    plan = schedule(workload, 64 * 1024, time_limit_s=5)
    assert sorted(plan.order) == sorted(o.name for o in workload.operators)
    once = sum(workload.tensors[name].bytes for name in (*workload.inputs, *workload.outputs))
    assert plan.offchip_bytes == once
    # Three products for each layer but the first, which sends no error to the data.
    assert workload.training().macs == 3 * workload.macs - 2 * 256 * 8 * 27


@pytest.mark.parametrize(("batch", "samples"), [("N", 1), (None, 1), (4, 4)])
def test_without_a_batch_the_file_decides(batch, samples):
    workload = from_onnx(small(batch))
    assert (workload.batch, workload.tensors["x"].shape[0]) == (samples, samples)
    assert from_onnx(small(batch), batch=6) == from_onnx(small(6))


# ------------------------------------------------------------------------------- networks


# Parameters and multiply-accumulates for one image, and channels of normalisations after a convolution.
# The numbers are those of torchvision's own table of weights for resnet50, vgg19, densenet121 and
# squeezenet1_1 (``num_params``, and ``_ops`` to the second decimal). A folded normalisation leaves one of
# its two parameters for each channel.
PUBLIC = {
    "resnet50": (25_557_032, 4.09e9, 26_560),
    "vgg19": (143_667_240, 19.63e9, 0),
    "densenet121": (7_978_856, 2.83e9, 7_488),
    "squeezenet": (1_235_496, 0.35e9, 0),
}


@cache
def graph(name, fold=True):
    return from_onnx(zoo()[f"zoo:{name}"], fold_batch_norm=fold)


@pytest.mark.parametrize("name", PUBLIC)
def test_networks_have_their_public_sizes(name):
    parameters, macs, channels = PUBLIC[name]
    assert graph(name, False).parameters == parameters
    assert graph(name).parameters == parameters - channels
    assert round(graph(name).macs / 1e7) == macs / 1e7


def conv(pixels, out, channels, window, groups=1):
    """Multiply-accumulates and parameters of a convolution."""
    weights = out * channels // groups * window * window
    return pixels * pixels * weights, weights + out


def linear(out, features):
    return out * features, (features + 1) * out


def total(layers):
    return tuple(map(sum, zip(*layers, strict=True)))


def googlenet():
    """Table 1 of "Going deeper with convolutions", arXiv 1409.4842: 1x1; 3x3 and 5x5, each after 1x1; pool.

    Caffe rounds the size after a pool up and has 56, 28, 14 and 7 pixels; the pools of the file round down.
    """
    yield from (conv(112, 64, 3, 7), conv(55, 64, 64, 1), conv(55, 192, 64, 3))
    modules = [
        (27, 192, 64, 96, 128, 16, 32, 32),
        (27, 256, 128, 128, 192, 32, 96, 64),
        (13, 480, 192, 96, 208, 16, 48, 64),
        (13, 512, 160, 112, 224, 24, 64, 64),
        (13, 512, 128, 128, 256, 24, 64, 64),
        (13, 512, 112, 144, 288, 32, 64, 64),
        (13, 528, 256, 160, 320, 32, 128, 128),
        (6, 832, 256, 160, 320, 32, 128, 128),
        (6, 832, 384, 192, 384, 48, 128, 128),
    ]
    for pixels, channels, a, b, c, d, e, f in modules:
        yield from (conv(pixels, a, channels, 1), conv(pixels, b, channels, 1), conv(pixels, c, b, 3))
        yield from (conv(pixels, d, channels, 1), conv(pixels, e, d, 5), conv(pixels, f, channels, 1))
    yield linear(1000, 1024)


def shufflenet(groups=4, width=136):
    """Figure 2 of "ShuffleNet", arXiv 1707.01083; all convolutions of a unit are as wide as what it adds."""
    yield conv(112, 24, 3, 3)
    channels = 24
    for pixels, units, out in ((28, 4, width), (14, 8, 2 * width), (7, 4, 4 * width)):
        for unit in range(units):
            # The first unit halves the image in its 3x3 convolution, and its shortcut is concatenated.
            made, before = (out - channels, 2 * pixels) if unit == 0 else (out, pixels)
            yield conv(before, made, channels, 1, groups)
            yield conv(pixels, made, made, 3, made)
            yield conv(pixels, made, made, 1, groups)
            channels = out
    yield linear(1000, channels)


BY_HAND = {
    # Caffe's AlexNet with two groups; 224 pixels without padding make 54.
    "bvlc_alexnet": [
        conv(54, 96, 3, 11),
        conv(26, 256, 96, 5, 2),
        conv(12, 384, 256, 3),
        conv(12, 384, 384, 3, 2),
        conv(12, 256, 384, 3, 2),
        linear(4096, 9216),
        linear(4096, 4096),
        linear(1000, 4096),
    ],
    # Layers 3 to 5 of 512 channels each, arXiv 1311.2901 section 5.1.
    "zfnet512": [
        conv(109, 96, 3, 7),
        conv(25, 256, 96, 5),
        *(conv(12, 512, channels, 3) for channels in (256, 512, 512)),
        linear(4096, 512 * 36),
        linear(1024, 4096),
        linear(1000, 1024),
    ],
    "inception_v1": list(googlenet()),
    "shufflenet": list(shufflenet()),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_networks_have_the_sizes_of_their_layer_tables(name):
    assert (graph(name).macs, graph(name).parameters) == total(BY_HAND[name])


def test_batch_normalised_inception_has_its_published_size():
    """11.2 million parameters and 2 billion multiply-accumulates; its 69 normalisations are folded."""
    assert round(graph("inception_v2", False).parameters / 1e5) == 112
    assert round(graph("inception_v2").macs / 1e7) == 202
    assert Counter(kinds(graph("inception_v2")))["conv2d+relu"] == 69


def products_by_onnx(path):
    """Multiply-accumulates by node, from the shapes that the onnx package itself infers for the file."""
    loaded = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*loaded.input, *loaded.value_info, *loaded.output)
    }
    found = []
    for step in loaded.node:
        if step.op_type == "Conv":
            found.append(prod(shapes[step.output[0]]) * prod(shapes[step.input[1]][1:]))
        elif step.op_type == "Gemm":  # of weights (out, in)
            found.append(shapes[step.output[0]][0] * prod(shapes[step.input[1]]))
    return found


@pytest.mark.parametrize("name", [name.removeprefix("zoo:") for name in zoo()])
def test_every_light_graph_loads_and_agrees_with_three_other_readings(name):
    workload, path = graph(name), zoo()[f"zoo:{name}"]
    assert [o.macs for o in workload.gemms()] == products_by_onnx(path)
    by_products = read_onnx(path, batch=1)
    assert workload.macs == by_products.macs
    assert [o.gemm for o in workload.gemms()] == [
        Gemm(m=row.m, n=row.n, k=row.k, count=row.count) for row in by_products.products
    ]
    for o in workload.gemms():
        operands = [workload.tensors[operand] for operand in o.inputs[:2]]
        assert operands[1].role is Role.WEIGHT
        assert operands[1].elements == o.gemm.n * o.gemm.k * o.gemm.count
    assert workload.tensors[workload.outputs[0]].elements == 1000
    assert_alive(workload)


@pytest.mark.parametrize("name", [name.removeprefix("zoo:") for name in zoo()])
def test_every_light_graph_is_read_for_any_batch(name):
    """The files fix a batch of 1 in their inputs and in the targets of their reshapes."""
    one_image, three = graph(name), from_onnx(zoo()[f"zoo:{name}"], batch=3)
    assert three.batch == 3
    assert len(three.operators) == len(one_image.operators)
    for a, b in zip(one_image.operators, three.operators, strict=True):
        assert (a.name, a.kind, a.inputs, a.outputs) == (b.name, b.kind, b.inputs, b.outputs)
        assert (3 * a.macs, 3 * a.vector_ops) == (b.macs, b.vector_ops)
    for a in one_image.tensors.values():
        b = three.tensors[a.name]
        grown = a.role in (Role.INPUT, Role.ACTIVATION)
        assert b.shape == ((3, *a.shape[1:]) if grown else a.shape)


def test_the_kinds_of_resnet50():
    assert Counter(kinds(graph("resnet50"))) == {
        "conv2d+relu": 33,
        "conv2d": 20,
        "max_pool2d": 1,
        "add": 16,
        "relu": 16,
        "avg_pool2d": 1,
        "linear": 1,
        "softmax": 1,
    }
    first = graph("resnet50").operators[0]
    assert (first.window.input, first.window.output) == ((224, 224), (112, 112))
    assert (first.window.kernel, first.window.stride, first.window.padding) == ((7, 7), (2, 2), (3, 3))


def test_densenet_keeps_the_normalisations_that_follow_no_convolution():
    """Each reads a concatenation (or the first pool); the scale and shift of Caffe disappear into all."""
    assert Counter(kinds(graph("densenet121"))) == {
        "conv2d+relu": 59,
        "conv2d": 62,
        "batch_norm": 62,
        "relu": 62,
        "cat": 58,
        "max_pool2d": 1,
        "avg_pool2d": 4,
    }


# ------------------------------------------------------------------------------- constants and views


def test_what_is_computed_from_constants_is_no_operator():
    workload = read(
        [
            node("Transpose", "w", "wt"),
            node("Shape", "x", "s"),
            node("Gather", "s zero", "rows"),
            node("Range", "zero rows one", "r"),
            node("Gather", "table r", "p"),
            node("MatMul", "x wt", "h", name="fc"),
            node("Mul", "h half", "z", name="half"),
            node("Add", "z p", "y", name="add"),
        ],
        {"x": [6, 8]},
        [
            tensor("w", 5, 8),
            tensor("table", 10, 5),
            tensor("half", values=0.5),
            tensor("zero", dtype=np.int64, values=0),
            tensor("one", dtype=np.int64, values=1),
        ],
    )
    assert drawn(workload) == [
        ("fc", "linear", ("x", "w"), ("h",)),  # another layout of the same constant
        ("half", "mul", ("h",), ("z",)),  # a scalar is part of the instruction
        ("add", "add", ("z", "p"), ("y",)),
    ]
    assert workload.tensors["w"].shape == (5, 8)
    assert (workload.tensors["p"].shape, workload.tensors["p"].role) == ((6, 5), Role.WEIGHT)


def test_a_tied_embedding_is_one_parameter():
    workload = read(
        [
            node("Gather", "table ids", "e", name="wte"),
            node("Transpose", "table", "t"),
            node("MatMul", "e t", "y", name="head"),
        ],
        {"ids": (INT64, [2, 10])},
        [tensor("table", 50, 8)],
    )
    assert drawn(workload) == [
        ("wte", "embedding", ("table", "ids"), ("e",)),
        ("head", "linear", ("e", "table"), ("y",)),
    ]
    assert workload.parameters == 400
    assert workload.tensors["ids"].role is Role.INDEX
    assert workload.tensors["ids"].bytes == 80  # an index of 64 bits is kept in 32


def test_a_constant_of_another_type_is_another_tensor():
    workload = read(
        [
            node("Cast", "w", "narrow", to=TensorProto.FLOAT16),
            node("Transpose", "narrow", "t"),
            node("MatMul", "x t", "y", name="fc"),
        ],
        {"x": (TensorProto.FLOAT16, [2, 8])},
        [tensor("w", 4, 8)],
    )
    assert workload.operators[0].inputs == ("x", "t")
    assert workload.tensors["t"].bytes == 64


def test_masks_and_indices_are_no_parameters():
    workload = read(
        [
            node("Where", "mask x low", "m", name="where"),
            node("Gather", "m picks", "y", name="pick", axis=1),
        ],
        {"x": [2, 6]},
        [tensor("mask", 6, dtype=bool), tensor("low", values=-1e9), ints("picks", 3, 1)],
    )
    assert [(t.role, str(t.format)) for t in map(workload.tensors.get, ("mask", "picks"))] == [
        (Role.INDEX, "u1.0"),
        (Role.INDEX, "s31.0"),
    ]
    assert drawn(workload)[0] == ("where", "where", ("mask", "x"), ("m",))
    assert workload.parameters == 0


def test_a_constant_filled_with_one_number_is_part_of_the_instruction():
    workload = read(
        [
            node("Shape", "x", "s"),
            node("ConstantOfShape", "s", "ones", value=tensor("", values=[1.0])),
            node("Expand", "half s", "halves"),
            node("Add", "x ones", "a", name="a"),
            node("Mul", "a halves", "y", name="b"),
        ],
        {"x": [4, 8]},
        [tensor("half", values=0.5)],
    )
    assert [(o.name, o.inputs) for o in workload.operators] == [("a", ("x",)), ("b", ("a",))]


@pytest.mark.parametrize(
    ("view", "constants"),
    [
        (node("Reshape", "h s", "v"), [ints("s", 2, 48)]),
        (node("Flatten", "h", "v"), []),
        (node("Unsqueeze", "h s", "v"), [ints("s", 0)]),
        (node("Squeeze", "h s", "v"), [ints("s", 1)]),
        (node("Identity", "h", "v"), []),
        (node("Dropout", "h", "v"), []),
        (node("Cast", "h", "v", to=FLOAT), []),
        (node("Transpose", "h", "v", perm=[1, 0, 2, 3]), []),  # an axis of size 1
        (node("Expand", "h s", "v"), [ints("s", 1, 1, 1, 1)]),
        (node("Slice", "h s e", "v"), [ints("s", 0), ints("e", 2**62)]),
        (node("Concat", "h", "v", axis=0), []),
        (node("Pad", "h s", "v"), [ints("s", *[0] * 8)]),
        (node("Sum", "h", "v"), []),
    ],
    ids=lambda found: found.op_type if hasattr(found, "op_type") else "",
)
def test_views_are_other_names_of_the_same_tensor(view, constants):
    workload = read(
        [node("Exp", "x", "h", name="exp"), view, node("Exp", "v", "y", name="last")],
        {"x": [2, 1, 6, 8]},
        constants,
    )
    assert drawn(workload) == [("exp", "exp", ("x",), ("h",)), ("last", "exp", ("h",), ("y",))]


def test_a_slice_that_turns_the_order_round_moves_data():
    bounds = [ints("a", -1), ints("b", -(2**62)), ints("c", 0), ints("d", -1)]
    assert one([node("Slice", "x a b c d", "y")], {"x": [4, 6]}, bounds).kind == "slice"


def test_a_mask_of_a_dropout_that_something_reads_is_made():
    nodes = [node("Dropout", "x", "d m", name="drop"), node("Where", "m d x", "y", name="where")]
    workload = read(nodes, {"x": [4, 6]})
    assert [(o.kind, o.outputs) for o in workload.operators] == [("dropout", ("d", "m")), ("where", ("y",))]


def test_a_view_that_is_an_output_gives_the_tensor_its_name():
    workload = read([node("Exp", "x", "h", name="exp"), node("Flatten", "h", "y")], {"x": [2, 3, 4]})
    assert (workload.outputs, workload.tensors["y"].shape) == (("y",), (2, 3, 4))


def test_what_no_output_needs_is_left_out():
    workload = read(
        [
            node("Split", "x", "a b", axis=1, num_outputs=2, name="split"),
            node("MatMul", "b w", "lost", name="lost"),
            node("Relu", "a", "y"),
        ],
        {"x": [2, 8], "unread": [2, 3]},
        [tensor("w", 4, 4)],
    )
    assert drawn(workload) == [("split", "split", ("x",), ("a",)), ("Relu y", "relu", ("a",), ("y",))]
    assert set(workload.tensors) == {"x", "a", "y"}


def test_a_repeated_name_gets_a_number():
    workload = read([node("Exp", "x", "a", name="e"), node("Exp", "a", "y", name="e")], {"x": [2]})
    assert [o.name for o in workload.operators] == ["e", "e_1"]


# ------------------------------------------------------------------------------- fusion

FUSIBLE = [
    node("Conv", "x w", "c", name="conv"),
    node("BatchNormalization", "c scale shift mean var", "n", name="norm"),
    node("Relu", "n", "r", name="act"),
    node("Mul", "r half", "h", name="halve"),
    node("Concat", "h h", "k", name="join", axis=1),
    node("Sigmoid", "k", "y", name="last"),
]


def fusible(fuse):
    weights = [*CONV, *NORM, tensor("half", values=0.5)]
    return read(FUSIBLE, {"x": [2, 3, 6, 6]}, weights, fuse=fuse)


def test_without_fusion_every_node_is_an_operator_with_all_its_parameters():
    workload = fusible("none")
    assert drawn(workload) == [
        ("conv", "conv2d", ("x", "w"), ("c",)),
        ("norm", "batch_norm", ("c", "scale", "shift", "mean", "var"), ("n",)),
        ("act", "relu", ("n",), ("r",)),
        ("halve", "mul", ("r", "half"), ("h",)),
        ("join", "cat", ("h", "h"), ("k",)),
        ("last", "sigmoid", ("k",), ("y",)),
    ]
    roles = {name: workload.tensors[name].role for name in ("w", "scale", "shift", "mean", "var", "half")}
    assert roles == {
        **dict.fromkeys(("w", "scale", "shift"), Role.WEIGHT),
        **dict.fromkeys(("mean", "var", "half"), Role.CONSTANT),
    }
    assert_alive(workload)
    assert_alive(workload.training())


def test_element_wise_fusion_joins_to_any_producer_and_keeps_parameters():
    workload = fusible("elementwise")
    assert drawn(workload) == [
        ("conv", "conv2d+batch_norm+relu+mul", ("x", "w", "scale", "shift", "mean", "var", "half"), ("h",)),
        ("join", "cat+sigmoid", ("h", "h"), ("y",)),
    ]
    assert workload == fusible("none").fused()
    assert drawn(fusible("compiler")) == [
        ("conv", "conv2d+relu", ("x", "w", "shift"), ("r",)),
        ("halve", "mul", ("r",), ("h",)),
        ("join", "cat", ("h", "h"), ("k",)),
        ("last", "sigmoid", ("k",), ("y",)),
    ]


def test_without_a_compiler_parts_are_names_of_the_whole_and_a_concatenation_copies():
    nodes = [
        node("Exp", "x", "h", name="exp"),
        node("Split", "h", "a b", axis=1, num_outputs=2, name="split"),
        node("Slice", "h low high", "c", name="slice"),
        node("Neg", "a", "d", name="neg"),
        node("Concat", "d b", "e", name="join", axis=1),
        node("Concat", "e c", "y", name="last", axis=0),
    ]
    given = {"x": [4, 8]}, [ints("low", 1), ints("high", 3)]
    assert kinds(read(nodes, *given)) == ["exp", "split", "slice", "neg", "cat", "cat"]
    workload = read(nodes, *given, fuse="elementwise")
    # The whole of h is read to the end, and the function of its half is no function of h.
    assert drawn(workload) == [
        ("exp", "exp", ("x",), ("h",)),
        ("neg", "neg", ("h",), ("d",)),
        ("join", "cat", ("d", "h"), ("e",)),
        ("last", "cat", ("e", "h"), ("y",)),
    ]
    assert workload.tensors["d"].elements == 16
    assert kinds(read(nodes[:2], {"x": [4, 8]}, outputs=["a", "b"], fuse="none")) == ["exp", "split"]


def test_a_constant_of_integers_is_a_parameter_without_a_compiler():
    nodes = [node("Exp", "x", "h", name="exp"), node("Where", "mask h h", "y", name="pick")]
    given = {"x": [2, 6]}, [tensor("mask", 6, dtype=bool)]
    plain = read(nodes, *given, fuse="none")
    assert plain.tensors["mask"].role is Role.CONSTANT
    assert kinds(read(nodes, *given, fuse="elementwise")) == ["exp+where"]
    assert read(nodes, *given).tensors["mask"].role is Role.INDEX


def test_fusion_is_one_of_three():
    with pytest.raises(ValueError, match=r"^fuse must be one of compiler, elementwise, none, got 'all'$"):
        from_onnx(small(), fuse="all")


NORM = [tensor(name, 8) for name in ("scale", "shift", "mean", "var")]
CONV = [tensor("w", 8, 3, 3, 3)]


def convolution(*after, extra=(), outputs=None, first="Conv", **kwargs):
    return read(
        [node(first, "x w", "c", name="conv"), *after],
        {"x": [2, 3, 6, 6]},
        [*CONV, *NORM, *extra],
        outputs=outputs,
        **kwargs,
    )


def test_a_normalisation_and_a_relu_become_part_of_the_convolution():
    norm = node("BatchNormalization", "c scale shift mean var", "n", name="norm")
    workload = convolution(norm, node("Relu", "n", "y"))
    assert drawn(workload) == [("conv", "conv2d+relu", ("x", "w", "shift"), ("y",))]
    assert workload.operators[0].vector_ops == 2 * 2 * 8 * 16  # bias and ReLU
    trained = convolution(norm, node("Relu", "n", "y"), fold_batch_norm=False)
    assert drawn(trained) == [
        ("conv", "conv2d", ("x", "w"), ("c",)),
        ("norm", "batch_norm", ("c", "scale", "shift"), ("n",)),
        ("Relu y", "relu", ("n",), ("y",)),
    ]
    assert trained.operators[1].vector_ops == 2 * 2 * 8 * 16  # scale and shift


@pytest.mark.parametrize("first", ["BatchNormalization", "Mul"])
def test_a_scale_does_not_reach_into_what_something_else_reads(first):
    scale = node(first, "c scale shift mean var" if first != "Mul" else "c k", "n", name="scale")
    extra = [tensor("k", 8, 1, 1), tensor("w2", 8, 8, 1, 1)]
    reader = node("Add", "n c", "y", name="add")
    assert len(convolution(scale, reader, extra=extra).operators) == 3
    assert len(convolution(scale, outputs=["n", "c"], extra=extra).operators) == 2
    twice = [scale, node("Conv", "x w", "other"), node("Add", "n other", "y")]
    assert len(convolution(*twice, extra=extra).operators) == 4  # the weight has two readers
    relu = [node("Relu", "c", "r"), node(first, "r k" if first == "Mul" else "r scale shift mean var", "y")]
    assert kinds(convolution(*relu, extra=extra))[0] == "conv2d+relu"
    assert len(convolution(*relu, extra=extra).operators) == 2


def test_a_normalisation_of_another_axis_or_of_the_batch_stays():
    norm = "BatchNormalization", "a scale shift mean var", "y"
    rows = read([node("MatMul", "x w", "a"), node(*norm)], {"x": [2, 8, 6]}, [tensor("w", 6, 8), *NORM])
    assert kinds(rows) == ["linear", "batch_norm"]  # of the eight rows, not of the eight features
    columns = read([node("MatMul", "x w", "a"), node(*norm)], {"x": [2, 6]}, [tensor("w", 6, 8), *NORM])
    assert [(o.kind, o.inputs) for o in columns.operators] == [("linear", ("x", "w", "shift"))]
    outputs = "y m v"
    training = node("BatchNormalization", "c scale shift mean var", outputs, training_mode=1)
    kept = convolution(training, outputs=["y"])
    assert kinds(kept) == ["conv2d", "batch_norm"]
    assert kept.operators[1].vector_ops == 7 * 2 * 8 * 16  # with the statistics of the batch


def test_a_product_with_a_vector_has_no_channels():
    workload = read(
        [node("MatMul", "x w", "a", name="dot"), node("Mul", "a k", "y", name="rows")],
        {"x": [2, 8]},
        [tensor("w", 8), tensor("k", 2)],
    )
    assert [(o.kind, o.gemm) for o in workload.operators] == [
        ("linear", Gemm(m=2, n=1, k=8)),
        ("mul", None),
    ]


@pytest.mark.parametrize(
    ("constant", "folded"),
    [((8, 1, 1), True), ((1, 8, 1, 1), True), ((4, 4), False), ((2, 8, 1, 1), False), ((1, 1, 1), False)],
)
def test_only_constants_of_the_channels_are_folded(constant, folded):
    extra = [tensor("k", *constant)]
    for op in ("Mul", "Add"):
        workload = convolution(node(op, "k c", "y", name="k"), extra=extra)
        assert len(workload.operators) == 2 - folded
        assert workload.parameters == 216 + prod(constant) * (
            constant != (1, 1, 1) if op == "Add" or not folded else 0
        )


def test_integer_weights_take_no_scale():
    workload = read(
        [
            node("ConvInteger", "x w", "c", name="conv"),
            node("Cast", "c", "f", to=FLOAT),
            node("QLinearMatMul", "a s z v s z s z", "q", name="mm"),
            node("Mul", "q k", "m", name="scale"),
        ],
        {"x": (INT8, [1, 3, 6, 6]), "a": (INT8, [2, 8])},
        [
            tensor("w", 8, 3, 3, 3, dtype=np.int8),
            tensor("v", 8, 4, dtype=np.int8),
            tensor("s", values=0.1),
            tensor("z", values=0, dtype=np.int8),
            tensor("k", 4),
        ],
        outputs=["f", "m"],
    )
    assert kinds(workload) == ["conv2d", "cast", "linear", "mul"]


def test_further_shifts_disappear_into_the_first():
    workload = convolution(
        node("BatchNormalization", "c scale shift mean var", "n"),
        node("Mul", "n k", "m"),
        node("Sub", "m k", "s"),
        node("Relu", "s", "y"),
        extra=[tensor("k", 8, 1, 1)],
    )
    assert drawn(workload) == [("conv", "conv2d+relu", ("x", "w", "shift"), ("y",))]
    turned = convolution(node("Sub", "k c", "y"), extra=[tensor("k", 8, 1, 1)])
    assert kinds(turned) == ["conv2d", "sub"]  # the other way round it is no shift


def test_a_bias_that_stands_apart_is_that_of_the_linear_layer():
    workload = read(
        [
            node("MatMul", "x w", "a", name="fc"),
            node("Add", "b a", "h"),
            node("Relu", "h", "r"),
            node("MatMul", "left r", "l", name="left"),
            node("Add", "l column", "y"),
        ],
        {"x": [2, 7, 8]},
        [tensor("w", 8, 4), tensor("b", 4), tensor("left", 5, 7), tensor("column", 5, 1)],
    )
    assert drawn(workload) == [
        ("fc", "linear+relu", ("x", "w", "b"), ("r",)),
        ("left", "linear", ("r", "left", "column"), ("y",)),  # the weight is W wherever it stands
    ]
    assert [o.gemm for o in workload.operators] == [Gemm(m=14, n=4, k=8), Gemm(m=8, n=5, k=7)]
    assert [o.vector_ops for o in workload.operators] == [2 * 56, 40]


def test_a_product_of_activations_takes_a_relu_but_no_bias():
    workload = read(
        [
            node("MatMul", "x z", "a", name="mm"),
            node("Relu", "a", "r"),
            node("MatMul", "r z", "b", name="mm2"),
            node("Add", "b k", "y"),
        ],
        {"x": [2, 4, 4], "z": [2, 4, 4]},
        [tensor("k", 4)],
    )
    assert kinds(workload) == ["matmul+relu", "matmul", "add"]


# ------------------------------------------------------------------------------- products


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize(("size", "taps", "stride", "dilation"), [(8, 3, 2, 1), (9, 4, 1, 2), (7, 2, 3, 1)])
def test_automatic_padding_is_resolved(auto_pad, size, taps, stride, dilation):
    found = one(
        [node("Conv", "x w", "y", auto_pad=auto_pad, strides=[stride], dilations=[dilation])],
        {"x": [1, 1, size]},
        [tensor("w", 1, 1, taps)],
    ).window
    reach = (taps - 1) * dilation + 1
    if auto_pad == "VALID":
        assert (found.output, found.padding) == (((size - reach) // stride + 1,), (0,))
        return
    assert found.output == (-(-size // stride),)
    # The least padding with which the last window fits, the odd one after or before.
    least = next(p for p in range(99) if (size + p - reach) // stride + 1 == found.output[0])
    assert found.padding == (least // 2 if auto_pad == "SAME_UPPER" else least - least // 2,)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_convolutions_over_one_to_three_axes(axes):
    inputs = {"x": [2, 4, *[6] * axes]}
    plain = one([node("Conv", "x w", "y")], inputs, [tensor("w", 8, 4, *[3] * axes)])
    assert (plain.kind, plain.gemm) == (f"conv{axes}d", Gemm(m=2 * 4**axes, n=8, k=4 * 3**axes))
    up = one(
        [node("ConvTranspose", "x w b", "y", strides=[2] * axes, group=2)],
        inputs,
        [tensor("w", 4, 3, *[2] * axes), tensor("b", 6)],
    )
    assert (up.kind, up.window) == (f"conv_transpose{axes}d", None)
    assert up.gemm == Gemm(m=2 * 6**axes, n=3 * 2**axes, k=2, count=2)
    assert up.vector_ops == 2 * 6 * 12**axes  # a bias; its windows do not overlap


def test_overlapping_windows_of_a_transposed_convolution_are_added():
    up = one([node("ConvTranspose", "x w", "y")], {"x": [1, 1, 5]}, [tensor("w", 1, 1, 3)])
    assert up.vector_ops == 5 * 3 - 7  # fifteen products make seven outputs


@pytest.mark.parametrize(
    ("equation", "shapes", "kind", "gemm", "ops"),
    [
        ("bhqe,bhke->bhqk", [(2, 3, 5, 4), (2, 3, 7, 4)], "matmul", Gemm(m=5, n=7, k=4, count=6), 0),
        ("bsd,dhe->bshe", [(2, 5, 8), None], "linear", Gemm(m=10, n=6, k=8), 0),
        ("bi,bi->bi", [(2, 5), (2, 5)], "mul", None, 10),
        ("bij->bji", [(2, 5, 4)], "transpose", None, 0),
        ("bij->b", [(2, 5, 4)], "einsum", None, 40),
        ("bi,bj,bk->ijk", [(2, 3), (2, 4), (2, 5)], "einsum", None, 2 * 60 * 3),
    ],
)
def test_einsums(equation, shapes, kind, gemm, ops):
    names = ["x", "z", "u"][: len(shapes)]
    if shapes[-1] is None:
        names[-1] = "w"
    found = one(
        [node("Einsum", " ".join(names), "y", equation=equation)],
        {name: list(shape) for name, shape in zip(names, shapes, strict=True) if shape},
        [tensor("w", 8, 2, 3)],
    )
    assert (found.kind, found.gemm, found.vector_ops) == (kind, gemm, ops)


@pytest.mark.parametrize(("op", "gates", "ops"), [("LSTM", 4, 22), ("GRU", 3, 17), ("RNN", 1, 2)])
@pytest.mark.parametrize("layout", [0, 1])
def test_a_recurrent_layer_is_two_products(op, gates, ops, layout):
    workload = read(
        [node(op, "x w r b", "y", name="rnn", hidden_size=6, direction="bidirectional", layout=layout)],
        {"x": [3, 9, 5] if layout else [9, 3, 5]},
        [tensor("w", 2, gates * 6, 5), tensor("r", 2, gates * 6, 6), tensor("b", 2, 2 * gates * 6)],
    )
    family = op.lower()
    assert drawn(workload) == [
        ("rnn input", f"{family}_input", ("x", "w", "b"), ("rnn gates",)),
        ("rnn recurrent", f"{family}_recurrent", ("rnn gates", "r"), ("y",)),
    ]
    before, after = workload.operators
    assert before.gemm == Gemm(m=27, n=gates * 6, k=5, count=2)
    assert after.gemm == Gemm(m=3, n=gates * 6, k=6, count=18)  # a step after the other
    assert before.vector_ops == 2 * 2 * 27 * gates * 6  # two biases
    assert after.vector_ops == ops * 2 * 27 * 6
    assert workload.batch == 3


# ------------------------------------------------------------------------------- attention


@pytest.mark.parametrize("rank", [3, 4])
def test_attention_is_two_products_and_a_softmax(rank):
    q, kv = ([2, 6, 5, 4], [2, 2, 7, 4]) if rank == 4 else ([2, 5, 24], [2, 7, 8])
    heads = {} if rank == 4 else {"q_num_heads": 6, "kv_num_heads": 2}
    workload = read(
        [node("Attention", "q k v mask", "y", name="a", **heads)],
        {"q": q, "k": kv, "v": kv, "mask": [5, 7]},
        opset=23,
    )
    assert drawn(workload) == [
        ("a QK^T", "matmul", ("q", "k"), ("a scores",)),
        ("a softmax", "softmax", ("a scores", "mask"), ("a weights",)),
        ("a PV", "matmul", ("a weights", "v"), ("y",)),
    ]
    scores, softmax, context = workload.operators
    assert scores.gemm == Gemm(m=15, n=7, k=4, count=4)  # three heads share one of key and value
    assert context.gemm == Gemm(m=15, n=4, k=7, count=4)
    assert softmax.vector_ops == 2 * 6 * 5 * 7 * (5 + 1 + 1)  # softmax, scale, mask
    assert workload.tensors["y"].shape == tuple(q)


def test_a_step_of_decoding_joins_the_earlier_keys_and_values():
    new, old = [2, 2, 1, 4], [2, 2, 8, 4]
    workload = read(
        [node("Attention", "q k v _ pk pv", "y keys values", name="a")],
        {"q": new, "k": new, "v": new, "pk": old, "pv": old},
        opset=23,
        outputs=["y", "keys"],
    )
    assert [(o.name, o.kind, o.inputs, o.outputs) for o in workload.operators[:2]] == [
        ("a keys", "cat", ("pk", "k"), ("keys",)),
        ("a values", "cat", ("pv", "v"), ("a values",)),
    ]
    assert workload.tensors["keys"].shape == (2, 2, 9, 4)
    assert workload.operators[2].gemm == Gemm(m=1, n=9, k=4, count=4)


def contrib(op, inputs, outputs="y", **attributes):
    return node(op, inputs, outputs, name="a", domain="com.microsoft", **attributes)


def test_attention_of_onnx_runtime_projects_first():
    workload = read(
        [contrib("Attention", "x w b", num_heads=4), node("Relu", "y", "z")],
        {"x": [2, 5, 16]},
        [tensor("w", 16, 48), tensor("b", 48)],
        domains=["com.microsoft"],
    )
    assert kinds(workload) == ["linear", "split", "matmul", "softmax", "matmul+relu"]
    assert [o.gemm for o in workload.gemms()] == [
        Gemm(m=10, n=48, k=16),
        Gemm(m=5, n=5, k=4, count=8),
        Gemm(m=5, n=4, k=5, count=8),
    ]
    assert workload.tensors["z"].shape == (2, 5, 16)


def test_multi_head_and_grouped_query_attention_of_onnx_runtime():
    inputs = {"q": [2, 5, 24], "k": [2, 7, 24], "v": [2, 7, 24]}
    many = read(
        [contrib("MultiHeadAttention", "q k v b", num_heads=6)],
        inputs,
        [tensor("b", 72)],
        domains=["com.microsoft"],
    )
    assert kinds(many) == ["add", "matmul", "softmax", "matmul"]
    assert many.operators[1].gemm == Gemm(m=5, n=7, k=4, count=12)
    assert many.operators[0].vector_ops == 2 * (5 + 7 + 7) * 24
    few = read(
        [
            contrib(
                "GroupQueryAttention",
                "q k v pk pv",
                "y keys values",
                num_heads=6,
                kv_num_heads=2,
                do_rotary=1,
            ),
            node("Relu", "keys", "z"),
        ],
        {"q": [2, 1, 24], "k": [2, 1, 8], "v": [2, 1, 8], "pk": [2, 2, 8, 4], "pv": [2, 2, 8, 4]},
        domains=["com.microsoft"],
        outputs=["y", "z"],
    )
    assert kinds(few) == [
        "rotaryembedding",
        "rotaryembedding",
        "cat",
        "cat",
        "matmul",
        "softmax",
        "matmul",
        "relu",
    ]
    assert few.operators[4].gemm == Gemm(m=3, n=9, k=4, count=4)
    assert few.tensors["z"].shape == (2, 2, 9, 4)


# ------------------------------------------------------------------------------- formats


def quantised(op, inputs, **attributes):
    domain = "" if op in ("QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger") else "com.microsoft"
    return node(op, inputs, "y", name="q", domain=domain, **attributes)


@pytest.mark.parametrize(
    ("call", "shape", "weight", "kind", "read_names", "output", "ops"),
    [
        ("QLinearConv x s z w ss zz s z b", [1, 3, 8, 8], (4, 3, 3, 3), "conv2d", "x w ss zz b", "int8", 4),
        ("ConvInteger x w z zz", [1, 3, 8, 8], (4, 3, 3, 3), "conv2d", "x w zz", "int32", 0),
        ("QLinearMatMul x s z w s z s z", [7, 8], (8, 4), "linear", "x w", "int8", 3),
        ("MatMulInteger x w", [7, 8], (8, 4), "linear", "x w", "int32", 0),
        ("QGemm x s z w s z b s z", [7, 8], (8, 4), "linear", "x w b", "int8", 4),
        ("QGemm x s z w s z b", [7, 8], (8, 4), "linear", "x w b", "fp32", 4),
        ("MatMulIntegerToFloat x w s ss z z", [7, 8], (8, 4), "linear", "x w ss", "fp32", 2),
    ],
)
def test_quantised_products_are_the_real_ones_between_integers(
    call, shape, weight, kind, read_names, output, ops
):
    op, _, inputs = call.partition(" ")
    workload = read(
        [quantised(op, inputs)],
        {"x": (INT8, shape)},
        [
            tensor("w", *weight, dtype=np.int8),
            tensor("s", values=0.1),
            tensor("z", values=0, dtype=np.int8),
            tensor("ss", 4),
            tensor("zz", 4, dtype=np.int8),
            tensor("b", 4, dtype=np.int32),
        ],
        domains=["com.microsoft"],
    )
    (found,) = workload.operators
    assert (found.kind, found.inputs) == (kind, tuple(read_names.split()))
    assert found.macs == prod(weight) * (36 if kind == "conv2d" else 7)
    assert found.vector_ops == ops * workload.tensors["y"].elements
    assert workload.tensors["w"].role is Role.WEIGHT
    assert workload.tensors["w"].bytes == prod(weight)
    assert workload.tensors["x"].role is Role.INPUT
    assert workload.tensors["y"].format == parse_format(output)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("Relu", ["conv2d+relu"]), ("LeakyRelu", ["conv2d", "leaky_relu"]), ("", ["conv2d"])],
)
def test_a_convolution_that_onnx_runtime_has_fused(activation, expected):
    attributes = {"activation": activation} if activation else {}
    workload = read(
        [contrib("FusedConv", "x w b z", **attributes)],
        {"x": [1, 3, 8, 8], "z": [1, 4, 6, 6]},
        [tensor("w", 4, 3, 3, 3), tensor("b", 4)],
        domains=["com.microsoft"],
    )
    assert kinds(workload) == expected
    assert workload.operators[0].inputs == ("x", "w", "b", "z")
    relu = activation == "Relu"
    assert workload.operators[0].vector_ops == (2 + relu) * 144  # bias, z, and ReLU
    assert workload.outputs == ("y",)
    assert_alive(workload)


def test_packed_weights_have_their_own_bits():
    workload = read(
        [contrib("MatMulNBits", "x w s", K=64, N=5, bits=4, block_size=32)],
        {"x": [7, 64]},
        [tensor("w", 5, 2, 16, dtype=np.uint8), tensor("s", 10)],
        domains=["com.microsoft"],
    )
    (found,) = workload.operators
    assert (found.kind, found.gemm) == ("linear", Gemm(m=7, n=5, k=64))
    assert workload.tensors[found.inputs[1]].bytes == 64 * 5 // 2
    assert found.vector_ops == 2 * 64 * 5  # each weight is shifted and scaled


def test_a_weight_that_is_stored_in_integers_is_read_as_such():
    workload = read(
        [
            node("QuantizeLinear", "x s z", "q", name="quantize"),
            node("DequantizeLinear", "q s z", "d", name="dequantize"),
            node("DequantizeLinear", "w s z", "wf"),
            node("MatMul", "d wf", "y", name="fc"),
        ],
        {"x": [7, 8]},
        [
            tensor("w", 8, 4, dtype=np.int8),
            tensor("s", values=0.1),
            tensor("z", values=0, dtype=np.int8),
        ],
    )
    assert drawn(workload) == [
        ("quantize", "quantizelinear", ("x",), ("q",)),
        ("dequantize", "dequantizelinear", ("q",), ("d",)),
        ("fc", "linear", ("d", "w"), ("y",)),
    ]
    assert [str(workload.tensors[name].format) for name in "qdwy"] == ["s7.0", "e8m23", "s7.0", "e8m23"]
    assert [o.vector_ops for o in workload.operators] == [3 * 56, 2 * 56, 0]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (TensorProto.FLOAT16, BINARY16),
        (TensorProto.BFLOAT16, BFLOAT16),
        (TensorProto.FLOAT8E4M3FN, E4M3),
    ],
)
def test_elements_have_the_format_of_the_file(kind, expected):
    workload = read([node("Cast", "x", "y", to=kind)], {"x": [2, 6]})
    assert kinds(workload) == ["cast"]
    assert workload.tensors["y"].format == expected


# ------------------------------------------------------------------------------- other kinds

X = [2, 4, 6, 6]
ELEMENTS = prod(X)


@pytest.mark.parametrize(
    ("call", "constants", "kind", "ops"),
    [
        (
            node("Clip", "x lo hi", "y"),
            [tensor("lo", values=0), tensor("hi", values=6)],
            "relu6",
            2 * ELEMENTS,
        ),
        (node("Clip", "x lo", "y"), [tensor("lo", values=0)], "clamp", 2 * ELEMENTS),
        (node("LeakyRelu", "x", "y"), [], "leaky_relu", 2 * ELEMENTS),
        (node("PRelu", "x k", "y"), [tensor("k", 4, 1, 1)], "prelu", 2 * ELEMENTS),
        (node("Gelu", "x", "y"), [], "gelu", 5 * ELEMENTS),
        (node("Gelu", "x", "y", approximate="tanh"), [], "gelu", 9 * ELEMENTS),
        (node("HardSwish", "x", "y"), [], "hardswish", 5 * ELEMENTS),
        (node("Softmax", "x", "y"), [], "softmax", 5 * ELEMENTS),
        (node("LogSoftmax", "x", "y"), [], "log_softmax", 5 * ELEMENTS),
        (node("Pow", "x k", "y"), [tensor("k", values=2)], "pow", ELEMENTS),
        (node("Max", "x k", "y"), [tensor("k", values=0)], "maximum", ELEMENTS),
        (node("Sum", "x x x", "y"), [], "add", 2 * ELEMENTS),
        (node("Mean", "x x", "y"), [], "mean", 2 * ELEMENTS),
        (
            node("LayerNormalization", "x k b", "y"),
            [tensor("k", 6), tensor("b", 6)],
            "layer_norm",
            7 * ELEMENTS,
        ),
        (node("LayerNormalization", "x k", "y"), [tensor("k", 6)], "layer_norm", 6 * ELEMENTS),
        (
            node("GroupNormalization", "x k b", "y", num_groups=2),
            [tensor("k", 4), tensor("b", 4)],
            "group_norm",
            7 * ELEMENTS,
        ),
        (
            node("InstanceNormalization", "x k b", "y"),
            [tensor("k", 4), tensor("b", 4)],
            "instance_norm",
            7 * ELEMENTS,
        ),
        (
            node("BatchNormalization", "x k b k b", "y"),
            [tensor("k", 4), tensor("b", 4)],
            "batch_norm",
            2 * ELEMENTS,
        ),
        (node("LRN", "x", "y", size=3), [], "local_response_norm", 7 * ELEMENTS),
        (node("MaxPool", "x", "y", kernel_shape=[3, 2]), [], "max_pool2d", 5 * 2 * 4 * 4 * 5),
        (node("AveragePool", "x", "y", kernel_shape=[3, 2]), [], "avg_pool2d", 6 * 2 * 4 * 4 * 5),
        (node("GlobalMaxPool", "x", "y"), [], "max_pool2d", ELEMENTS),
        (node("ReduceMean", "x a", "y"), [ints("a", 1)], "mean", ELEMENTS),
        (node("ReduceMax", "x a", "y"), [ints("a", 1)], "amax", ELEMENTS),
        (node("ReduceSumSquare", "x a", "y"), [ints("a", 1)], "reducesumsquare", 2 * ELEMENTS),
        (node("Transpose", "x", "y", perm=[0, 2, 3, 1]), [], "transpose", 0),
        (node("Slice", "x a b c", "y"), [ints("a", 0), ints("b", 2), ints("c", 1)], "slice", 0),
        (node("Pad", "x a", "y"), [ints("a", *[1] * 8)], "pad", 0),
        (node("Expand", "x a", "y"), [ints("a", 3, 2, 4, 6, 6)], "expand", 0),
        (node("Gather", "x a", "y", axis=1), [ints("a", 2, 0)], "gather", 0),
        (node("DepthToSpace", "x", "y", blocksize=2), [], "depth_to_space", 0),
        (node("Concat", "x x", "y", axis=1), [], "cat", 0),
        (node("Resize", "x _ k", "y"), [tensor("k", values=[1, 1, 2, 2])], "upsample", 0),
        (
            node("Resize", "x _ k", "y", mode="linear"),
            [tensor("k", values=[1, 1, 2, 2])],
            "upsample",
            7 * 4 * ELEMENTS,  # four products, three sums
        ),
        (node("Asin", "x", "y"), [], "asin", ELEMENTS),  # the rule for all others
        (node("Mish", "x", "y"), [], "mish", 5 * ELEMENTS),
    ],
    ids=lambda found: found.op_type if hasattr(found, "op_type") else "",
)
def test_kinds_and_operations_of_what_is_no_product(call, constants, kind, ops):
    found = one([call], {"x": X}, constants)
    assert (found.kind, found.vector_ops, found.gemm) == (kind, ops, None)
    data = {"x", *(c.name for c in constants if c.data_type == FLOAT and prod(c.dims) > 1)} - {"k"} | (
        {"k"} & set(found.inputs)
    )
    assert set(found.inputs) - {"a"} == data


def test_a_loss_reads_labels():
    workload = read(
        [node("SoftmaxCrossEntropyLoss", "x t", "y", name="loss")],
        {"x": [8, 10], "t": (INT64, [8])},
    )
    assert drawn(workload) == [("loss", "cross_entropy", ("x", "t"), ("y",))]
    assert (workload.tensors["t"].role, workload.operators[0].vector_ops) == (Role.LABEL, 320)


def test_a_skip_norm_of_onnx_runtime_adds_first():
    workload = read(
        [contrib("SkipLayerNormalization", "x z k b", "y mean deviation s"), node("Add", "y s", "o")],
        {"x": [2, 5, 8], "z": [2, 5, 8]},
        [tensor("k", 8), tensor("b", 8)],
        domains=["com.microsoft"],
    )
    assert drawn(workload)[0] == ("a", "layer_norm", ("x", "z", "k", "b"), ("y", "s"))
    assert workload.operators[0].vector_ops == (1 + 7) * 80


# ------------------------------------------------------------------------------- control flow


def branch(name, *nodes):
    out = helper.make_tensor_value_info(nodes[-1].output[0], FLOAT, None)
    return helper.make_graph(list(nodes), name, [], [out])


def conditional(condition):
    return [
        node("Exp", "x", "h", name="first"),
        node(
            "If",
            condition,
            "y",
            name="choice",
            then_branch=branch("then", node("MatMul", "h w", "t", name="wide")),
            else_branch=branch("else", node("Identity", "h", "e")),
        ),
        node("Exp", "y", "z", name="last"),
    ]


@pytest.mark.parametrize(("value", "expected"), [(True, ["exp", "linear", "exp"]), (False, ["exp", "exp"])])
def test_the_branch_that_runs_is_read(value, expected):
    workload = read(
        conditional("c"), {"x": [2, 8]}, [tensor("w", 8, 8), tensor("c", values=value, dtype=bool)]
    )
    assert kinds(workload) == expected
    assert workload.operators[-1].inputs == (("t",) if value else ("h",))


def test_control_flow_that_the_data_decide_is_refused():
    with pytest.raises(
        NetworkError, match=r"choice \(If\) runs what the data decide; only an If with a const"
    ):
        read(conditional("c"), {"x": [2, 8], "c": (BOOL, [])}, [tensor("w", 8, 8)])


# ------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("inputs", "shapes", "message"),
    [
        ({"x": ["N", "length", 8]}, {}, r"the size is unknown of axis 1 of x \(length\); give length=NUMBER"),
        ({"x": ["N", None, 8]}, {}, r"the size is unknown of axis 1 of x; give x\[1\]=NUMBER"),
        ({"x": [2, 0, 8]}, {}, "the size is unknown of axis 1 of x"),
        ({"x": [2, -1, 8]}, {}, "the size is unknown of axis 1 of x"),
        ({"x": [2, "length", 8]}, {"length": 0}, "length must be at least 1, got 0"),
        ({"x": [2, "length", 8]}, {"x[1]": -3}, r"x\[1\] must be at least 1, got -3"),
        (
            {"x": [2, "length", 8]},
            {"width": 3},
            "the graph has no dimension 'width'; symbolic ones are length",
        ),
        (
            {"x": (TensorProto.DOUBLE, [2, 8])},
            {},
            "tensor x holds elements of type DOUBLE, known are BFLOAT16",
        ),
    ],
)
def test_sizes_and_types_that_cannot_be_are_refused(inputs, shapes, message):
    with pytest.raises(NetworkError, match=message) as error:
        read([node("Exp", "x", "y")], inputs, shapes=shapes)
    assert "\n" not in str(error.value)
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Magic", "x", "y", name="m", domain="own")], r"m \(Magic\) needs the shape of y, but m gives"),
        ([node("NonZero", "x", "y", name="nz")], r"nz gives y the shape \(2, \?\); give y\[1\]=NUMBER"),
        ([node("DFT", "x", "y", name="dft")], r"dft \(DFT\) has no model of its arithmetic"),
        ([node("MatMul", "x w", "y", name="fc")], r"fc \(MatMul\): Incompatible dimensions"),
        ([node("MatMul", "x v", "y", name="fc")], "operator fc reads v, which nothing makes"),
        ([node("Slice", "x a b", "y", name="cut")], r"cut|tensor y has the shape \(0, 8\), every size"),
        ([node("Identity", "x", "y")], "graph computes nothing: no output depends on its inputs"),
        ([node("Transpose", "w", "y")], "graph computes nothing"),
    ],
)
def test_operators_that_cannot_be_read_are_named(nodes, message):
    weights = [tensor("w", 7, 4), ints("a", 0), ints("b", 0)]
    with pytest.raises(NetworkError, match=message) as error:
        read(nodes, {"x": [2, 8]}, weights, domains=["own"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("reader", [from_onnx, read_onnx])
@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            [
                node("Add", "x b", "a", name="A"),
                node("MatMul", "a w", "b", name="B"),
                node("Exp", "b", "y", name="C"),
            ],
            "operator A reads b, but the operators form a cycle: A -> B -> A",
        ),
        (
            [node("Exp", "b", "y", name="C"), node("MatMul", "x w", "b", name="B")],
            "operator C reads b, which is made only later, by B",
        ),
        (
            [
                node("MatMul", "x w", "a", name="A"),
                node("Exp", "x", "a", name="B"),
                node("Exp", "a", "y", name="C"),
            ],
            "tensor a has two producers, A and B",
        ),
        (
            [node("Split", "x", "a a", axis=1, num_outputs=2, name="A"), node("Exp", "a", "y", name="C")],
            "tensor a has two producers, A and A",
        ),
        (
            [node("Exp", "x", "x", name="A"), node("Exp", "x", "y", name="C")],
            "tensor x has two producers, the graph's inputs and A",
        ),
        (
            [node("Exp", "x", "w", name="A"), node("MatMul", "x w", "y", name="C")],
            "tensor w has two producers, the graph's constants and A",
        ),
    ],
)
def test_nodes_that_cannot_run_in_their_order_are_named(nodes, message, reader):
    with pytest.raises(NetworkError) as error:
        reader(model(nodes, {"x": [2, 4]}, [tensor("w", 4, 4)], outputs=["y"]))
    assert str(error.value) == message


def test_an_output_that_no_node_makes_is_named():
    with pytest.raises(NetworkError, match=r"^output q of the graph is made by no node$"):
        read([node("Exp", "x", "y")], {"x": [2, 4]}, outputs=["y", "q"])


def test_loops_are_refused():
    step = helper.make_graph(
        [node("Exp", "before", "after")],
        "step",
        [helper.make_tensor_value_info("before", FLOAT, [8])],
        [helper.make_tensor_value_info("after", FLOAT, [8])],
    )
    scan = node("Scan", "x", "y", name="rows", num_scan_inputs=1, body=step)
    with pytest.raises(NetworkError, match=r"^rows \(Scan\) runs what the data decide; only an If with a"):
        read([scan], {"x": [2, 8]}, outputs=["y"])


def test_an_unknown_operator_of_known_shape_counts_its_elements():
    nodes = [node("Magic", "x", "h", name="magic", domain="own"), node("Relu", "h", "y")]
    workload = read(nodes, {"x": [2, 8]}, domains=["own"], shapes={"h[0]": 2, "h[1]": 5})
    assert [(o.kind, o.vector_ops) for o in workload.operators] == [("magic", 10), ("relu", 10)]


def test_a_batch_must_be_positive():
    with pytest.raises(NetworkError, match="batch must be at least 1, got 0"):
        from_onnx(small(), batch=0)


def test_a_batch_axis_may_be_given_as_a_size():
    workload = read([node("Exp", "x", "y")], {"x": ["rows", 8]}, shapes={"rows": 9})
    assert (workload.batch, workload.tensors["x"].shape) == (9, (9, 8))


def test_files_are_named_in_errors(tmp_path):
    with pytest.raises(NetworkError, match=r"there is no file .*none\.onnx"):
        from_onnx(tmp_path / "none.onnx")
    path = tmp_path / "net.onnx"
    path.write_text("import torch\n")
    with pytest.raises(NetworkError, match=r"net\.onnx is not an ONNX file: it is text that starts with"):
        from_onnx(path)
    onnx.save_model(small(), path)
    assert from_onnx(str(path)).name == "net"
    assert from_onnx(path, name="mine").name == "mine"
    assert Workload.from_onnx(path, batch=2) == from_onnx(path, batch=2)


# ------------------------------------------------------------------------------- other batches


def test_a_reshape_keeps_what_stands_outside_of_the_samples():
    assert rebatched((12, 7, 64), 1, (1, 8)) == (96, 7, 64)  # samples and heads in one axis
    assert rebatched((7, 1, 64), 7, (1, 8)) == (7, 8, 64)  # positions first
    assert rebatched((7, 64), 7, (1, 8)) == (56, 64)  # positions and samples in one axis
    assert rebatched((14, 64), 7, (2, 8)) == (56, 64)
    assert rebatched((7, 1), 7, (1, 8)) == (7, 8)  # one value for each position and sample
    assert rebatched((5, 3), 1, (2, 3)) is None


def test_a_target_that_was_computed_from_shapes_holds_the_batch_already():
    workload = read(
        [
            node("Shape", "x", "rows", end=1),
            node("Concat", "three rows two", "s", axis=0),
            node("Reshape", "x s", "r"),
            node("Exp", "r", "y"),
        ],
        {"x": [1, 6]},
        [ints("three", 3), ints("two", 2)],
        batch=4,
    )
    assert workload.tensors["y"].shape == (3, 4, 2)


def test_what_the_file_declares_is_for_its_own_batch():
    nodes = [node("Magic", "x", "h", name="magic", domain="own"), node("Exp", "h", "y")]
    told = {"domains": ["own"], "values": [helper.make_tensor_value_info("h", FLOAT, [1, 5])]}
    assert read(nodes, {"x": [1, 8]}, **told).tensors["y"].shape == (1, 5)
    with pytest.raises(NetworkError, match="magic gives h an unknown shape"):
        read(nodes, {"x": [1, 8]}, batch=3, **told)


def test_normalisations_are_kept_for_any_batch():
    norm = node("BatchNormalization", "c scale shift mean var", "y", name="norm")
    assert kinds(convolution(norm, fold_batch_norm=False, batch=3)) == ["conv2d", "batch_norm"]


def test_a_constant_that_is_joined_to_each_sample_is_repeated():
    workload = read(
        [node("Concat", "token x", "h", axis=1, name="cat"), node("Exp", "h", "y")],
        {"x": [1, 6, 8]},
        [tensor("token", 1, 1, 8)],
        batch=5,
    )
    assert workload.operators[0].inputs == ("token", "x")
    assert workload.tensors["token"].shape == (1, 1, 8)
    assert workload.tensors["y"].shape == (5, 7, 8)


def test_a_file_that_cannot_be_for_another_batch_is_refused():
    nodes = [node("Add", "x k", "h", name="add"), node("Exp", "h", "y")]
    with pytest.raises(NetworkError, match=r"add \(Add\): .*; the file is for a batch of 2, got 3"):
        read(nodes, {"x": [2, 8]}, [tensor("k", 2, 8)], batch=3)


# ------------------------------------------------------------------------------- graphs of others


def converted_graphs():
    """Graphs that an early PyTorch exported, which the onnx package carries for its tests."""
    data = next(iter(zoo().values())).parents[1]
    return sorted(path for path in data.glob("pytorch-*/*/model.onnx"))


def test_every_converted_graph_is_read_or_refused_with_a_reason():
    graphs, refused = converted_graphs(), {}
    assert len(graphs) > 100
    for path in graphs:
        try:
            workload = from_onnx(path)
        except NetworkError as error:
            refused[path.parent.name] = str(error)
            continue
        assert workload.macs == read_onnx(path, batch=workload.batch).macs
        assert_alive(workload)
    # Five add numbers of 64 bits, four compute nothing.
    assert all("type DOUBLE" in text or "computes nothing" in text for text in refused.values())
    assert len(refused) == 9


def exported(module, *inputs, path, axes):
    """Graph that PyTorch's own exporter writes, with random weights since it joins equal ones."""
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its age
        torch.onnx.export(
            module.eval(),
            inputs,
            path,
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            dynamic_axes={"x": axes},
        )
    return path


@pytest.mark.parametrize("axes", [{}, {0: "batch"}])
@pytest.mark.parametrize("samples", [1, 2])
def test_a_transformer_that_pytorch_exported(tmp_path, axes, samples):
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    module = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    path = exported(module, torch.zeros(samples, 5, 16), path=tmp_path / "layer.onnx", axes=axes)
    workload = from_onnx(path, batch=6)
    rows = read_torch(module, torch.zeros(6, 5, 16), batch=6).products
    assert [(o.macs, o.gemm.k) for o in workload.gemms()] == [(row.macs, row.k) for row in rows]
    assert workload.parameters == sum(p.numel() for p in layer.parameters())
    assert Counter(kinds(workload))["layer_norm"] == 2
    assert workload.tensors[workload.outputs[0]].shape == (6, 5, 16)


@pytest.mark.parametrize("family", [nn.LSTM, nn.GRU])
def test_a_recurrent_network_that_pytorch_exported(tmp_path, family):
    module = family(8, 6, batch_first=True)
    path = exported(module, torch.zeros(2, 5, 8), path=tmp_path / "net.onnx", axes={})
    workload = from_onnx(path, batch=3)
    assert workload.macs == read_torch(module, torch.zeros(3, 5, 8), batch=3).macs
    assert workload.parameters == sum(p.numel() for p in module.parameters())


@pytest.mark.slow
def test_every_example_of_an_operator_is_read_or_refused_in_one_line():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the examples, about overflow that they provoke
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    assert len(cases) > 1500
    refused = []
    for case in cases:
        try:
            workload = from_onnx(case.model)
        except NetworkError as error:
            refused.append(str(error))
            continue
        assert workload.macs == read_onnx(case.model, batch=workload.batch).macs, case.name
        assert_alive(workload)
    assert not any("\n" in text for text in refused)
    assert len(refused) < 350


def test_a_batch_is_a_whole_number_of_at_least_one():
    add = node("Add", "x x", "y")
    for batch in (1.5, "2", True):
        with pytest.raises(TypeError, match=f"batch must be a whole number, got {batch!r}"):
            read([add], {"x": [2, 3]}, batch=batch)
    with pytest.raises(NetworkError, match="batch must be at least 1, got 0"):
        read([add], {"x": [2, 3]}, batch=0)


def test_sizes_that_64_bits_cannot_count_are_refused_with_their_name():
    with pytest.raises(
        NetworkError, match=r"a size of the shape of tensor x must be below 2\*\*62, got 46116"
    ):
        read([node("Neg", "x", "y")], {"x": [2, 2**62]})
