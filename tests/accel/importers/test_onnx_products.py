"""ONNX graphs: products by hand, what the readers must see through, and every bad input."""

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name PyTorch users know
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from accel.accumulations import NetworkError
from accel.importers.onnx_products import read_onnx
from accel.importers.torch_products import read_torch
from accel.networks import zoo

FLOAT, INT64, UINT8, INT8, BOOL = (
    TensorProto.FLOAT,
    TensorProto.INT64,
    TensorProto.UINT8,
    TensorProto.INT8,
    TensorProto.BOOL,
)


def tensor(name, *shape, dtype=np.float32, values=None):
    array = np.zeros(shape, dtype) if values is None else np.array(values, dtype)
    return numpy_helper.from_array(array, name)


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def model(nodes, inputs, weights=(), *, opset=21, outputs=None, values=(), functions=(), domains=()):
    """Model of `nodes`; `inputs` gives shapes by name, or (type, shape)."""
    typed = {k: v if v and isinstance(v, tuple) else (FLOAT, v) for k, v in inputs.items()}
    names = outputs or list(nodes[-1].output)[:1]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in typed.items()],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in names],
        list(weights),
        value_info=list(values),
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, functions=functions)


def lengths(row):
    return row.forward, row.backward, row.gradient


def read(*args, batch=256, shapes=None, **kwargs):
    return read_onnx(model(*args, **kwargs), batch=batch, shapes=shapes or {})


def rows(*args, **kwargs):
    return {row.layer: row for row in read(*args, **kwargs).products}


# ------------------------------------------------------------------------------- operators


def test_a_convolution_by_hand():
    network = read(
        [
            node("Conv", "x w1 b1", "a", name="conv1", strides=[2, 2], pads=[3, 3, 3, 3]),
            node("Relu", "a", "r"),
            node("Conv", "r w2", "c", group=4, pads=[1, 1, 1, 1], dilations=[1, 1]),
            node("GlobalAveragePool", "c", "p"),
            node("Flatten", "p", "f"),
            node("Gemm", "f w3 b3", "y", name="fc", transB=1),
        ],
        {"x": ["N", 3, 32, 32]},
        [
            tensor("w1", 16, 3, 7, 7),
            tensor("b1", 16),
            tensor("w2", 8, 4, 3, 3),
            tensor("w3", 10, 8),
            tensor("b3", 10),
        ],
    )
    conv1, conv2, fc = network.products
    assert (conv1.layer, lengths(conv1)) == ("conv1", (147, None, 256 * 256))
    assert (conv2.layer, conv2.operator) == ("Conv c", "grouped conv")  # nameless: what it makes
    assert lengths(conv2) == (9 * 4, 9 * 2, 256 * 256)
    assert (fc.operator, lengths(fc)) == ("linear", (8, 10, 256))
    assert (conv2.m, conv2.n, conv2.k, conv2.count) == (256 * 256, 2, 36, 4)
    assert (network.name, network.batch, network.notes) == ("graph", 256, ())


def test_convolutions_over_one_and_three_axes():
    found = rows(
        [node("Conv", "x w", "a", name="a"), node("Conv", "z v", "b", name="b")],
        {"x": ["N", 4, 20], "z": ["N", 2, 6, 6, 6]},
        [tensor("w", 8, 4, 5), tensor("v", 3, 2, 2, 2, 2)],
    )
    assert lengths(found["a"]) == (20, None, 256 * 16)
    assert lengths(found["b"]) == (16, None, 256 * 125)


def test_a_transposed_convolution():
    (up,) = read(
        [node("ConvTranspose", "x w", "y", strides=[2, 2], group=2)],
        {"x": ["N", 8, 5, 7]},
        [tensor("w", 8, 3, 4, 4)],
    ).products
    assert lengths(up) == (2 * 2 * 4, None, 256 * 35)
    assert (up.m, up.n, up.k, up.count) == (256 * 35, 48, 4, 2)


@pytest.mark.parametrize(
    ("trans_a", "trans_b", "a", "b"),
    [(0, 0, (6, 4), (4, 5)), (1, 0, (4, 6), (4, 5)), (0, 1, (6, 4), (5, 4)), (1, 1, (4, 6), (5, 4))],
)
def test_a_gemm_of_each_orientation(trans_a, trans_b, a, b):
    call = node("Gemm", "x w", "y", transA=trans_a, transB=trans_b)
    (plain,) = read([call], {"x": list(a)}, [tensor("w", *b)], batch=a[0]).products
    assert (plain.k, plain.m, plain.n, plain.operator) == (4, 6, 5, "linear")
    (swapped,) = read([call], {"w": list(b)}, [tensor("x", *a)], batch=b[0]).products
    assert (swapped.k, swapped.m, swapped.n) == (4, 5, 6)  # the weight is the first operand
    (both,) = read([call], {"x": list(a), "w": list(b)}, batch=a[0]).products
    assert (both.operator, both.forward) == ("matmul", 4)


def test_matrix_products_of_any_rank():
    found = rows(
        [
            node("MatMul", "x w", "q", name="q"),
            node("MatMul", "x v", "k", name="k"),
            node("Transpose", "k", "kt", perm=[0, 2, 1]),
            node("MatMul", "q kt", "s", name="scores"),
            node("MatMul", "s experts", "e", name="experts"),
            node("MatMul", "e last", "z", name="last"),
            node("MatMul", "left e", "l", name="left"),
        ],
        {"x": ["N", 10, 8]},
        [
            tensor("w", 8, 6),
            tensor("v", 8, 6),
            tensor("experts", 1, 10, 12),
            tensor("last", 12),
            tensor("left", 5, 10),
        ],
    )
    assert lengths(found["q"]) == (8, None, 2560)
    assert (lengths(found["scores"]), found["scores"].count) == ((6, 10, 10), 256)
    assert lengths(found["experts"]) == (10, 12, 2560)
    assert lengths(found["last"]) == (12, 1, 2560)
    assert lengths(found["left"]) == (10, 5, 256 * 12)  # the weight stands first
    assert [row.operator for row in found.values()] == ["linear"] * 2 + ["matmul"] + ["linear"] * 3


def test_einsums_and_what_they_leave_out():
    network = read(
        [
            node("Einsum", "x w", "a", name="a", equation="bsd,dhe->bshe"),
            node("Einsum", "a a", "s", name="s", equation="bqhe,bkhe->bhqk"),
            node("Einsum", "s", "t", name="t", equation="bhqk->bhkq"),
            node("Einsum", "x x x", "u", name="u", equation="bsd,bsd,bsd->b"),
        ],
        {"x": ["N", 7, 8]},
        [tensor("w", 8, 2, 3)],
    )
    a, s = network.products
    assert (a.operator, lengths(a)) == ("einsum", (8, None, 7 * 256))
    assert (lengths(s), s.count) == ((3, 7, 7), 512)
    assert network.notes == ("Einsum u with equation bsd,bsd,bsd->b is not covered: it has 3 operands",)


@pytest.mark.parametrize("rank", [3, 4])
def test_the_attention_operator_is_two_products(rank):
    q, kv = (["N", 6, 5, 4], ["N", 2, 7, 4]) if rank == 4 else (["N", 5, 24], ["N", 7, 8])
    heads = {} if rank == 4 else {"q_num_heads": 6, "kv_num_heads": 2}
    found = rows(
        [
            node("Mul", "q0 c", "q"),
            node("Attention", "q k v", "y", name="attn", is_causal=1, **heads),
        ],
        {"q0": q, "k": kv, "v": kv},
        [tensor("c", q[-1])],
        opset=23,
    )
    scores, context = found["attn QK^T"], found["attn PV"]
    assert (lengths(scores), scores.count) == ((4, 7, None), 512)  # only the query is trained
    assert (lengths(context), context.count) == ((7, 4, None), 512)
    assert "1 to 7 terms" in scores.notes[0]


def test_attention_reads_what_was_kept_of_earlier_tokens():
    found = rows(
        [node("Attention", "q k v  pk pv".replace("  ", " _ "), "y pk2 pv2", name="a")],
        {
            "q": ["N", 2, 1, 4],
            "k": ["N", 2, 1, 4],
            "v": ["N", 2, 1, 4],
            "_": (BOOL, [1, 9]),
            "pk": ["N", 2, 8, 4],
            "pv": ["N", 2, 8, 4],
        },
        opset=23,
    )
    assert (found["a QK^T"].n, found["a PV"].forward) == (9, 9)


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_operators_are_two_products(op, gates):
    found = rows(
        [
            node("Mul", "x c", "t"),
            node(op, "t w r", "y", name="rnn", hidden_size=6, direction="bidirectional"),
        ],
        {"x": [20, 1, 5]},
        [tensor("c", 5), tensor("w", 2, gates * 6, 5), tensor("r", 2, gates * 6, 6)],
        batch=20,
    )
    assert lengths(found["rnn input"]) == (5, gates * 6, 20)
    assert lengths(found["rnn recurrent"]) == (6, gates * 6, 20)
    assert [row.count for row in found.values()] == [2, 2]
    assert {row.operator for row in found.values()} == {op.lower()}


@pytest.mark.parametrize(("layout", "shape"), [(0, [9, "N", 5]), (1, ["N", 9, 5]), (0, [9, 2, 5])])
def test_the_batch_of_a_sequence_may_be_its_second_axis(layout, shape):
    network = read(
        [node("LSTM", "x w r", "y", name="rnn", hidden_size=6, layout=layout)],
        {"x": shape},
        [tensor("w", 1, 24, 5), tensor("r", 1, 24, 6)],
    )
    assert [lengths(row) for row in network.products] == [(5, None, 9 * 256), (6, 24, 9 * 256)]
    assert len(network.notes) == ("N" not in shape)


def quantised(op, inputs, **attributes):
    domain = "" if op in ("QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger") else "com.microsoft"
    return node(op, inputs, "y", name="q", domain=domain, **attributes)


@pytest.mark.parametrize(
    ("call", "shape", "weight", "expected"),
    [
        (quantised("QLinearConv", "x s z w s z s z"), ["N", 3, 8, 8], (4, 3, 3, 3), (27, None, 36 * 256)),
        (quantised("ConvInteger", "x w"), ["N", 3, 8, 8], (4, 3, 3, 3), (27, None, 36 * 256)),
        (
            quantised("FusedConv", "x w", activation="Relu"),
            ["N", 3, 8, 8],
            (4, 3, 3, 3),
            (27, None, 36 * 256),
        ),
        (quantised("QLinearMatMul", "x s z w s z s z"), ["N", 7, 8], (8, 5), (8, None, 7 * 256)),
        (quantised("MatMulInteger", "x w"), ["N", 8], (8, 5), (8, None, 256)),
        (quantised("QGemm", "x s z w s z", transB=1), ["N", 8], (5, 8), (8, None, 256)),
        (quantised("DynamicQuantizeMatMul", "x w s"), ["N", 8], (8, 5), (8, None, 256)),
        (quantised("MatMulIntegerToFloat", "x w s s"), ["N", 8], (8, 5), (8, None, 256)),
        (quantised("FusedGemm", "x w", activation="Relu"), ["N", 8], (8, 5), (8, None, 256)),
        (quantised("FusedMatMul", "x w", transB=1), ["N", 7, 8], (5, 8), (8, None, 7 * 256)),
        (quantised("MatMulNBits", "x w s", K=8, N=5, bits=4), ["N", 7, 8], (5, 1, 4), (8, None, 7 * 256)),
    ],
)
def test_quantised_and_fused_operators_count_as_what_they_stand_for(call, shape, weight, expected):
    integers = not call.op_type.startswith(("Fused", "MatMulNBits"))
    network = read(
        [call, node("Relu", "y", "out")],
        {"x": (UINT8 if integers else FLOAT, shape)},
        [tensor("w", *weight, dtype=np.int8 if integers else np.float32), tensor("s", 1), tensor("z", 1)],
        domains=["com.microsoft"],
    )
    (found,) = network.products
    assert (found.layer, lengths(found), network.notes) == ("q", expected, ())


def test_a_quantised_network_is_followed_through_its_other_operators():
    found = rows(
        [
            node("QuantizeLinear", "x s z", "a"),
            node("QLinearConv", "a s z w s z s z", "b", name="conv"),
            node("QLinearAdd", "b s z b s z s z", "c", domain="com.microsoft"),
            node("QLinearConcat", "s z c s z b s z", "d", domain="com.microsoft", axis=1),
            node("QLinearGlobalAveragePool", "d s z s z", "e", domain="com.microsoft"),
            node("DequantizeLinear", "e s z", "f"),
            node("Flatten", "f", "g"),
            node("DequantizeLinear", "wi s z", "wf"),
            node("Transpose", "wf", "wt"),
            node("MatMul", "g wt", "y", name="fc"),
        ],
        {"x": ["N", 3, 8, 8]},
        [
            tensor("s", values=0.1),
            tensor("z", values=0, dtype=np.int8),
            tensor("w", 4, 3, 3, 3, dtype=np.int8),
            tensor("wi", 10, 8, dtype=np.int8),
        ],
        domains=["com.microsoft"],
    )
    assert {name: lengths(row) for name, row in found.items()} == {
        "conv": (27, None, 36 * 256),
        "fc": (8, 10, 256),
    }


# ------------------------------------------------------------------------------- weights


def linear_twice(second, *extra):
    return [
        node("MatMul", "x w", "a", name="one"),
        node("Relu", "a", "r"),
        *extra,
        node("MatMul", f"r {second}", "y", name="two"),
    ]


@pytest.mark.parametrize(
    "way",
    [
        [],
        [node("Identity", "w", "v")],
        [node("Transpose", "w", "t"), node("Transpose", "t", "v")],
        [node("Reshape", "w s", "t"), node("Reshape", "t s2", "v")],
        [node("Cast", "w", "t", to=TensorProto.FLOAT16), node("Cast", "t", "v", to=FLOAT)],
    ],
)
def test_a_weight_used_twice_is_seen_through_other_names_of_it(way):
    found = rows(
        linear_twice("v" if way else "w", *way),
        {"x": ["N", 8]},
        [
            tensor("w", 8, 8),
            tensor("s", dtype=np.int64, values=[64]),
            tensor("s2", dtype=np.int64, values=[8, 8]),
        ],
    )
    assert [row.gradient for row in found.values()] == [512, 512]
    assert found["two"].notes == ("weight shared with one: its gradient sums over all 2 uses",)


def test_slices_of_a_weight_are_weights_of_their_own():
    found = rows(
        [
            node("Split", "w", "w1 w2", axis=1, num_outputs=2),
            node("MatMul", "x w1", "a", name="one"),
            node("MatMul", "a w2", "y", name="two"),
        ],
        {"x": ["N", 4]},
        [tensor("w", 4, 8)],
    )
    assert [(row.gradient, row.notes) for row in found.values()] == [(256, ()), (256, ())]


def test_a_tied_embedding_is_noted_on_the_product():
    network = read(
        [
            node("Gather", "table ids", "e", name="wte"),
            node("Gather", "rest ids", "p", name="wpe"),
            node("Add", "e p", "h"),
            node("Transpose", "table", "t"),
            node("MatMul", "h t", "y", name="head"),
        ],
        {"ids": (INT64, ["N", 10])},
        [tensor("table", 50, 8), tensor("rest", 50, 8)],
    )
    (head,) = network.products
    assert lengths(head) == (8, 50, 2560)
    assert head.notes == (
        "embedding wte reads the same table: 2560 lookups add to its gradient by scatter-add",
    )
    assert network.notes == (
        "embedding wpe is no product: a gradient sums over the lookups of its row, of 2560",
    )


def test_a_constant_node_holds_a_weight_and_a_scalar_is_none():
    found = rows(
        [
            node("Constant", "", "w", value=tensor("", 8, 4)),
            node("Constant", "", "half", value_float=0.5),
            node("Mul", "x half", "h"),
            node("MatMul", "h w", "a", name="one"),
            node("Constant", "", "v", value_floats=[1.0, 2.0, 3.0, 4.0]),
            node("MatMul", "a v", "y", name="two"),
        ],
        {"x": ["N", 8]},
    )
    # Scaling by a constant trains nothing, so that no error flows back to the data.
    assert lengths(found["one"]) == (8, None, 256)
    assert lengths(found["two"]) == (4, 1, 256)


def test_initializers_listed_as_inputs_are_weights_still():
    graph = model(linear_twice("v"), {"x": ["N", 8], "w": [8, 8]}, [tensor("w", 8, 8), tensor("v", 8, 3)])
    assert [lengths(row) for row in read_onnx(graph).products] == [(8, None, 256), (8, 3, 256)]


def test_a_sparse_weight_has_the_shape_it_stands_for():
    graph = model([node("MatMul", "x w", "y", name="fc")], {"x": ["N", 8]})
    values, indices = tensor("w", values=[1.0, 2.0]), tensor("i", values=[3, 9], dtype=np.int64)
    graph.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [8, 4]))
    assert lengths(read_onnx(graph).products[0]) == (8, None, 256)


def test_a_convolution_reads_its_weight_wherever_it_comes_from():
    found = rows([node("Conv", "x w", "y", name="conv")], {"x": ["N", 3, 8, 8], "w": [4, 3, 3, 3]}, batch=16)
    assert lengths(found["conv"]) == (27, None, 36 * 16)


# ------------------------------------------------------------------------------- shapes


def test_a_fixed_batch_is_rescaled():
    graph = [
        node("MatMul", "x w", "q", name="q"),
        node("Transpose", "q", "t", perm=[0, 2, 1]),
        node("MatMul", "q t", "s", name="s"),
    ]
    fixed = read(graph, {"x": [2, 10, 8]}, [tensor("w", 8, 6)], batch=64)
    assert fixed.notes == ("the batch is 2 in the file: lengths are rescaled to 64",)
    assert fixed.products == read(graph, {"x": ["N", 10, 8]}, [tensor("w", 8, 6)], batch=64).products
    assert read(graph, {"x": [64, 10, 8]}, [tensor("w", 8, 6)], batch=64).notes == ()


def test_a_batch_that_an_exporter_wrote_into_a_reshape():
    shape = tensor("shape", dtype=np.int64, values=[1, 32])
    graph = [node("Reshape", "x shape", "f"), node("Gemm", "f w", "y", name="fc")]
    network = read(graph, {"x": ["N", 8, 2, 2]}, [shape, tensor("w", 32, 5)])
    assert lengths(network.products[0]) == (32, None, 256)
    assert network.notes == ("the batch is 1 in its reshapes: lengths are rescaled to 256",)


def test_shapes_are_computed_as_exporters_write_them():
    """Rows, heads and an upsampled size out of Shape, Gather, Div, Range and their like."""
    integers = {"i0": 0, "i1": 1, "heads": 4}
    network = read(
        [
            node("Shape", "x", "sx"),
            node("Gather", "sx i0", "b", axis=0),
            node("Gather", "sx i1", "s", axis=0),
            node("Shape", "x", "width", start=2),
            node("Div", "width heads", "size"),
            node("Unsqueeze", "b zero", "b1"),
            node("Unsqueeze", "s zero", "s1"),
            node("Unsqueeze", "heads zero", "h1"),
            node("Concat", "b1 s1 h1 size", "shape", axis=0),
            node("Reshape", "x shape", "split"),
            node("Transpose", "split", "q", perm=[0, 2, 1, 3]),
            node("Transpose", "split", "k", perm=[0, 2, 3, 1]),
            node("MatMul", "q k", "scores", name="scores"),
            node("Range", "i0 s i1", "positions"),
            node("Gather", "table positions", "p", name="wpe"),
            node("Add", "x p", "h"),
            node("MatMul", "h w", "y", name="fc"),
        ],
        {"x": ["batch", "sequence", 8]},
        [
            *(tensor(name, dtype=np.int64, values=value) for name, value in integers.items()),
            tensor("zero", dtype=np.int64, values=[0]),
            tensor("table", 100, 8),
            tensor("w", 8, 3),
        ],
        shapes={"sequence": 30},
    )
    scores, fc = network.products
    assert (lengths(scores), scores.count) == ((2, None, None), 1024)
    assert lengths(fc) == (8, 3, 30 * 256)
    assert network.notes == ()  # positions do not depend on the data


@pytest.mark.parametrize("opset", [9, 11, 21])
def test_a_resized_image_has_its_new_size(opset):
    scales = tensor("scales", values=[1, 1, 2, 2])
    resize = (
        node("Upsample", "x scales", "u", mode="nearest")
        if opset == 9
        else node("Resize", "x none scales", "u", mode="nearest")
    )
    found = rows(
        [resize, node("Conv", "u w", "y", name="conv")],
        {"x": ["N", 3, 5, 5]},
        [scales, tensor("none", 0), tensor("w", 4, 3, 1, 1)],
        opset=opset,
    )
    assert lengths(found["conv"]) == (3, None, 100 * 256)


def branch(name, *nodes):
    return helper.make_graph(
        list(nodes), name, [], [helper.make_tensor_value_info(nodes[-1].output[0], FLOAT, None)]
    )


def conditional(condition):
    return node(
        "If",
        condition,
        "y",
        name="choice",
        then_branch=branch("then", node("MatMul", "x w", "t", name="then")),
        else_branch=branch("else", node("MatMul", "x v", "e", name="else")),
    )


def test_a_condition_that_is_known_takes_its_branch():
    weights = [tensor("w", 8, 4), tensor("v", 8, 4), tensor("two", dtype=np.int64, values=2)]
    graph = [
        node("Shape", "x", "s"),
        node("Size", "s", "rank"),
        node("Equal", "rank two", "c"),
        conditional("c"),
        node("Relu", "y", "out"),
    ]
    assert list(rows(graph, {"x": ["N", 8]}, weights)) == ["then"]
    weights[-1] = tensor("two", dtype=np.int64, values=3)
    assert list(rows(graph, {"x": ["N", 8]}, weights)) == ["else"]


def test_other_subgraphs_are_named():
    network = read(
        [conditional("c"), node("MatMul", "x w", "z", name="fc")],
        {"x": ["N", 8], "c": (BOOL, [])},
        [tensor("w", 8, 4), tensor("v", 8, 4)],
    )
    assert [row.layer for row in network.products] == ["fc"]
    assert network.notes == ("If around 2 MatMul is not covered: choice",)


def test_what_a_subgraph_makes_is_no_weight():
    """Its condition is a constant, though too large a one to be evaluated; its body reads the data."""
    found = rows(
        [
            node("ReduceMax", "w", "max", keepdims=0),
            node("Greater", "max zero", "c"),
            conditional("c"),
            node("MatMul", "y u", "z", name="fc"),
        ],
        {"x": ["N", 8]},
        [tensor("w", 8, 4), tensor("v", 8, 4), tensor("u", 4, 3), tensor("zero", values=0)],
        shapes={"y[0]": 256, "y[1]": 4},
    )
    assert (found["fc"].operator, lengths(found["fc"])) == ("linear", (4, 3, 256))


def test_a_model_may_ask_for_no_standard_operators_at_all():
    graph = model(
        [node("FusedMatMul", "x w", "y", name="fc", domain="com.microsoft")],
        {"x": ["N", 8]},
        [tensor("w", 8, 4)],
    )
    del graph.opset_import[:]
    graph.opset_import.extend([helper.make_opsetid("com.microsoft", 1)])
    assert lengths(read_onnx(graph).products[0]) == (8, None, 256)


def test_functions_are_inlined():
    body = [helper.make_node("MatMul", ["a", "b"], ["c"], name="inner")]
    function = helper.make_function("own", "Layer", ["a", "b"], ["c"], body, [helper.make_opsetid("", 21)])
    network = read(
        [node("Layer", "x w", "y", name="layer", domain="own")],
        {"x": ["N", 8]},
        [tensor("w", 8, 4)],
        functions=[function],
        domains=["own"],
    )
    assert [lengths(row) for row in network.products] == [(8, None, 256)]


def test_operators_that_are_not_covered_are_named_once_a_kind():
    network = read(
        [
            *(node("Magic", "x", f"m{i}", name=f"magic{i}", domain="own") for i in range(5)),
            node("DFT", "x", "d", name="dft"),
            node("Relu", "x", "y"),
        ],
        {"x": ["N", 8, 1]},
        domains=["own"],
    )
    assert network.notes == (
        "unknown operator own.Magic is not covered: magic0, magic1, magic2 and 2 more",
        "DFT is not covered: dft",
        "no matrix product was found",
    )


def unknown_then_linear(**kwargs):
    return read(
        [
            node("Magic", "x", "h", name="magic", domain="own"),
            node("Relu", "h", "r"),
            node("MatMul", "r w", "y", name="fc"),
        ],
        {"x": ["N", 8]},
        [tensor("w", 8, 4)],
        domains=["own"],
        **kwargs,
    )


def test_what_an_unknown_operator_makes_can_be_given():
    with pytest.raises(NetworkError) as error:
        unknown_then_linear()
    assert str(error.value) == (
        "fc (MatMul) needs the shape of r, but magic gives h an unknown shape; "
        "give h[0]=NUMBER, h[1]=NUMBER (shapes, or --dim) and so on for all axes"
    )
    network = unknown_then_linear(shapes={"h[0]": 256, "h[1]": 5, "h[2]": 8})
    assert lengths(network.products[0]) == (8, None, 1280)
    values = [helper.make_tensor_value_info("h", FLOAT, ["N", 5, 8])]
    assert unknown_then_linear(values=values).products == network.products  # or the file says it


def test_after_an_unknown_operator_only_what_a_product_needs_is_asked_for():
    """The first unknown tensor is named, through operators that cannot do without its shape."""
    graph = [
        node("Magic", "x", "h", name="magic", domain="own"),
        node("Shape", "h", "s"),
        node("Reshape", "x s", "r"),
        node("Split", "r", "a b", axis=-1, num_outputs=2),
        node("Concat", "a b", "c", axis=1),
    ]
    assert read(graph, {"x": ["N", 8]}, domains=["own"]).products == ()
    graph.append(node("MatMul", "c w", "y", name="fc"))
    with pytest.raises(NetworkError, match="but magic gives h an unknown shape"):
        read(graph, {"x": ["N", 8]}, [tensor("w", 8, 4)], domains=["own"])


def test_a_size_that_depends_on_the_data_can_be_given():
    graph = [
        node("NonZero", "x", "nz", name="where"),
        node("Cast", "nz", "f", to=FLOAT),
        node("MatMul", "w f", "y", name="fc"),
    ]
    with pytest.raises(NetworkError, match=r"where gives nz the shape \(2, \?\); give nz\[1\]=NUMBER"):
        read(graph, {"x": ["N", 8]}, [tensor("w", 4, 2)])
    network = read(graph, {"x": ["N", 8]}, [tensor("w", 4, 2)], shapes={"nz[1]": 100})
    assert lengths(network.products[0]) == (2, None, 100)


def test_sizes_are_given_by_symbol_or_by_axis():
    graph = [node("MatMul", "x w", "y", name="fc")]
    inputs, weights = {"x": ["N", "sequence", None, 8]}, [tensor("w", 8, 4)]
    with pytest.raises(NetworkError) as error:
        read(graph, inputs, weights)
    assert str(error.value) == (
        "the size is unknown of axis 1 of x (sequence), axis 2 of x; "
        "give sequence=NUMBER, x[2]=NUMBER (shapes, or --dim)"
    )
    (found,) = read(graph, inputs, weights, shapes={"sequence": 3, "x[2]": 5}).products
    assert found.gradient == 15 * 256


def test_a_batch_axis_needs_no_name():
    (found,) = read([node("MatMul", "x w", "y")], {"x": [None, 8]}, [tensor("w", 8, 4)]).products
    assert found.gradient == 256


def test_an_input_without_a_shape_is_named():
    with pytest.raises(NetworkError, match=r"the size is unknown of all axes of x; give x\[0\]=NUMBER"):
        read([node("MatMul", "x w", "y")], {"x": (FLOAT, None)}, [tensor("w", 8, 4)])
    (found,) = read(
        [node("MatMul", "x w", "y")],
        {"x": (FLOAT, None)},
        [tensor("w", 8, 4)],
        shapes={"x[0]": 256, "x[1]": 8},
    ).products
    assert found.gradient == 256


def test_a_batch_axis_that_is_given_is_not_rescaled():
    network = read(
        [node("MatMul", "x w", "y", name="fc")], {"x": ["rows", 8]}, [tensor("w", 8, 4)], shapes={"rows": 9}
    )
    assert network.products[0].gradient == 9
    assert network.notes == ("rows was given as 9 and is not rescaled to 256",)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"lenght": 3}, "the graph has no dimension 'lenght'; symbolic ones are N, length, and an axis"),
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"length": 3, "x[7]": 3}, r"x\[7\] was given, but x has 3 axes"),
        ({"length": 3, "y[2]": 3}, r"y\[2\] was given as 3, but the shape is \(256, 3, 4\)"),
        ({"length": 3, "y[3]": 3}, r"y\[3\] was given, but y has|y\[3\] was given, but not all axes"),
    ],
)
def test_sizes_that_cannot_be_are_refused(shapes, message):
    with pytest.raises(NetworkError, match=message):
        read([node("MatMul", "x w", "y")], {"x": ["N", "length", 8]}, [tensor("w", 8, 4)], shapes=shapes)


def test_shapes_that_contradict_each_other_are_named_with_their_node():
    with pytest.raises(NetworkError, match=r"fc \(MatMul\): Incompatible dimensions"):
        read([node("MatMul", "x w", "y", name="fc")], {"x": ["N", 8]}, [tensor("w", 7, 4)])
    with pytest.raises(NetworkError, match=r"fold \(Reshape\): \(256, 8\) does not fit \(3, 5\)"):
        read(
            [node("Reshape", "x s", "y", name="fold")],
            {"x": ["N", 8]},
            [tensor("s", dtype=np.int64, values=[3, 5])],
        )
    with pytest.raises(NetworkError, match=r"fc \(Gemm\): Dimension mismatch"):
        read([node("Gemm", "x w", "y", name="fc")], {"x": ["N", 8]}, [tensor("w", 7, 4)])
    with pytest.raises(NetworkError, match=r"rnn \(LSTM\): not enough values"):
        read(
            [node("LSTM", "x w r", "y", name="rnn", hidden_size=6)],
            {"x": [9, "N", 5]},
            [tensor("w", 24, 5), tensor("r", 1, 24, 6)],
        )
    with pytest.raises(NetworkError, match="operator fc reads v, which nothing makes"):
        read([node("MatMul", "x v", "y", name="fc")], {"x": ["N", 8]})


def test_a_batch_must_be_positive():
    with pytest.raises(NetworkError, match="batch must be at least 1, got 0"):
        read([node("Relu", "x", "y")], {"x": ["N", 8]}, batch=0)


# ------------------------------------------------------------------------------- files


def saved(path, **kwargs):
    weights = [tensor("w", values=np.ones((64, 32)))]
    graph = model([node("MatMul", "x w", "y", name="fc")], {"x": ["N", 64]}, weights)
    onnx.save_model(graph, path, **kwargs)
    return path


def test_a_file_is_read_under_its_name(tmp_path):
    network = read_onnx(saved(tmp_path / "net.onnx"), batch=4)
    assert (network.name, lengths(network.products[0])) == ("net", (64, None, 4))
    assert read_onnx(str(tmp_path / "net.onnx"), batch=4, name="mine").name == "mine"


def test_external_data_need_not_be_read_but_must_exist(tmp_path):
    path = saved(tmp_path / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    (tmp_path / "net.bin").write_bytes(b"")  # the data themselves are not needed
    assert read_onnx(path).products[0].forward == 64
    (tmp_path / "net.bin").unlink()
    with pytest.raises(FileNotFoundError) as error:
        read_onnx(path)
    assert str(error.value) == f"{path} keeps weights in {tmp_path / 'net.bin'}, which is missing (w)"


def test_a_shape_kept_in_another_file_is_read(tmp_path):
    graph = model(
        [node("Reshape", "x s", "f"), node("MatMul", "f w", "y", name="fc")],
        {"x": ["N", 4, 16]},
        [tensor("s", dtype=np.int64, values=[-1, 64]), tensor("w", values=np.ones((64, 32)))],
    )
    path = tmp_path / "net.onnx"
    onnx.save_model(graph, path, save_as_external_data=True, location="net.bin", size_threshold=0)
    assert lengths(read_onnx(path).products[0]) == (64, None, 256)


def test_external_data_of_a_model_in_memory_are_not_looked_for(tmp_path):
    path = saved(tmp_path / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    (tmp_path / "net.bin").unlink()
    graph = onnx.load_model(path, load_external_data=False)
    assert lengths(read_onnx(graph).products[0]) == (64, None, 256)


def test_a_weight_inside_a_branch_must_exist_too(tmp_path):
    path = tmp_path / "net.onnx"
    inner = branch("then", node("Constant", "", "w", value=tensor("w", 64, 32)), node("MatMul", "x w", "t"))
    other = branch("else", node("MatMul", "x v", "e"))
    choice = node("If", "c", "y", name="choice", then_branch=inner, else_branch=other)
    graph = model([choice], {"x": ["N", 64], "c": (BOOL, [])}, [tensor("v", 64, 32)])
    onnx.save_model(
        graph,
        path,
        save_as_external_data=True,
        location="net.bin",
        size_threshold=0,
        convert_attribute=True,
    )
    assert read_onnx(path).notes[0] == "If around 2 MatMul is not covered: choice"
    (tmp_path / "net.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"net\.bin, which is missing"):
        read_onnx(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, not an ONNX file"),
        (b"PK\x03\x04rest", "is not an ONNX file: it looks like a zip archive, as PyTorch"),
        (b"\x80\x02}q\x00.", "it looks like a Python pickle"),
        (b"\x89HDF\r\n\x1a\n", "it looks like HDF5"),
        (b"GGUF\x03\x00\x00\x00", "it looks like GGUF"),
        (b"\x1f\x8b\x08\x00", "it looks like gzip"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer; fetch the file"),
        (b"<!DOCTYPE html>", "it looks like HTML or XML"),
        (b"\x1c\x00\x00\x00TFL3", "it looks like TensorFlow Lite"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{}", "it looks like safetensors"),
        (b"import torch\n", "it is text that starts with 'import torch"),
        (b"\xff\xff\xff\xff", "is not an ONNX file: "),
        (b"\x12\x02ab", "is not an ONNX file: it holds no model"),  # decodes as a producer's name
    ],
)
def test_what_is_no_onnx_file_is_told_in_one_line(tmp_path, content, message):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(NetworkError) as error:
        read_onnx(path)
    assert message in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_directory_and_a_missing_file(tmp_path):
    with pytest.raises(NetworkError, match="is a directory, not an ONNX file"):
        read_onnx(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.onnx"):
        read_onnx(tmp_path / "none.onnx")


# ------------------------------------------------------------------------------- whole networks


def converted_graphs():
    """Graphs that an early PyTorch exported, which the onnx package carries for its tests."""
    data = next(iter(zoo().values())).parents[1]
    return sorted(data.glob("pytorch-*/*/model.onnx"))


def test_every_converted_graph_goes_through():
    graphs = converted_graphs()
    assert len(graphs) > 100
    found = {path.parent.name: read_onnx(path, batch=2).products for path in graphs}
    assert lengths(found["test_Conv3d_groups"][0]) == (54, None, 2 * 12)
    assert sum(map(bool, found.values())) > 30


class Net(nn.Module):
    """Convolutions with groups and stride, a shared layer, attention by hand and a classifier."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, stride=2, groups=4, padding=1, bias=False)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.mix = nn.Linear(4, 4)
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        x = self.up(F.relu(self.conv2(F.relu(self.conv1(x)))))
        x = x.flatten(2).transpose(1, 2)
        x = self.mix(F.relu(self.mix(x)))
        x = (x @ x.transpose(1, 2)).softmax(-1) @ x
        return self.head(x.mean(1))


def net_by_hand(batch):
    """The same network, written node by node."""
    shapes = {name: tuple(p.shape) for name, p in Net().named_parameters()}
    linear = [
        node("Transpose", "mix.weight", "mt"),
        node("MatMul", "xt mt", "m1", name="mix"),
        node("Add", "m1 mix.bias", "m2"),
        node("Relu", "m2", "m3"),
        node("MatMul", "m3 mt", "m4", name="mix_1"),
        node("Add", "m4 mix.bias", "m5"),
    ]
    return model(
        [
            node("Conv", "x conv1.weight conv1.bias", "c1", name="conv1", pads=[1] * 4),
            node("Relu", "c1", "r1"),
            node("Conv", "r1 conv2.weight", "c2", name="conv2", pads=[1] * 4, strides=[2, 2], group=4),
            node("Relu", "c2", "r2"),
            node("ConvTranspose", "r2 up.weight up.bias", "u", name="up", strides=[2, 2]),
            node("Reshape", "u tokens", "xf"),
            node("Transpose", "xf", "xt", perm=[0, 2, 1]),
            *linear,
            node("Transpose", "m5", "m6", perm=[0, 2, 1]),
            node("MatMul", "m5 m6", "s", name="matmul"),
            node("Softmax", "s", "p", axis=-1),
            node("MatMul", "p m5", "v", name="matmul_1"),
            node("ReduceMean", "v one", "mean", keepdims=0),
            node("Gemm", "mean head.weight head.bias", "y", name="head", transB=1),
        ],
        {"x": [batch, 3, 8, 8]},
        [
            *(tensor(name, *shape) for name, shape in shapes.items()),
            tensor("tokens", dtype=np.int64, values=[0, 4, 64]),
            tensor("one", dtype=np.int64, values=[1]),
        ],
    )


@pytest.mark.parametrize("batch", ["N", 3])
def test_both_readers_see_the_same_network(batch):
    by_torch = read_torch(Net(), torch.empty(2, 3, 8, 8), batch=32)
    by_onnx = read_onnx(net_by_hand(batch), batch=32)
    assert by_onnx.products == by_torch.products
    assert by_onnx.macs == by_torch.macs
    assert lengths(by_onnx.products[3]) == (4, 4, 2 * 64 * 32)  # the shared layer


def exported(module, path, *inputs, axes):
    """File that PyTorch's own exporter writes, with random weights since it joins equal ones."""
    import warnings

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


@pytest.mark.parametrize("axes", [{}, {0: "batch", 1: "sequence"}])
def test_a_transformer_that_pytorch_exported(tmp_path, axes):
    one = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    layer = nn.TransformerEncoder(one, 1, enable_nested_tensor=False)
    x = torch.zeros(2, 5, 16)
    path = exported(layer, tmp_path / "layer.onnx", x, axes=axes)
    by_onnx = read_onnx(path, batch=8, shapes={"sequence": 5} if axes else {})
    by_torch = read_torch(layer, x, batch=8)
    assert [lengths(row) for row in by_onnx.products] == [lengths(row) for row in by_torch.products]
    assert by_onnx.macs == by_torch.macs
    assert lengths(by_onnx.products[1]) == (4, 5, 5)


def test_a_recurrent_network_that_pytorch_exported(tmp_path):
    x = torch.zeros(2, 5, 8)
    lstm = nn.LSTM(8, 6, batch_first=True)
    path = exported(lstm, tmp_path / "lstm.onnx", x, axes={0: "batch"})
    by_onnx, by_torch = read_onnx(path, batch=8), read_torch(lstm, x, batch=8)
    assert [lengths(row) for row in by_onnx.products] == [lengths(row) for row in by_torch.products]
    assert [lengths(row) for row in by_onnx.products] == [(8, None, 40), (6, 24, 40)]


@pytest.mark.slow
def test_every_example_of_an_operator_is_read_or_refused_in_one_line():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the examples, about overflow that they provoke
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    assert len(cases) > 1500
    refused = {name: text for case in cases if (text := refusal(case.model)) for name in (case.name,)}
    assert not any("\n" in text for text in refused.values())
    # Those with an axis of size 0, which cannot be told from an unknown one, and a size that is data.
    assert all("empty" in name or "zero" in name or name.startswith("test_affine_grid") for name in refused)


def refusal(graph):
    """Why a graph is not read; nothing if it is."""
    try:
        read_onnx(graph)
    except NetworkError as error:
        return str(error)
    return ""
