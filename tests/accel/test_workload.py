"""Tensors in their formats, and policies of formats for whole workloads."""

from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.workload import Gemm, Operator, Phase, Role, Tensor, Window, Workload
from numerics.block import BlockFormat
from numerics.formats import BINARY32, E4M3, E5M2, FixedFormat, FloatFormat

MXFP4 = BlockFormat.parse("mxfp4")
NVFP4 = BlockFormat.parse("nvfp4")
INT8 = FixedFormat.parse("int8")


def tensor(*shape, fmt=BINARY32, role=Role.ACTIVATION, name="t"):
    return Tensor(name=name, shape=shape, role=role, format=fmt)


@pytest.mark.parametrize(
    ("shape", "fmt", "bits"),
    [
        ((3, 5), E4M3, 120),
        ((3, 5), FixedFormat.parse("int4"), 60),
        ((), BINARY32, 32),
        ((0, 7), E4M3, 0),
        ((2, 64), MXFP4, 2 * (64 * 4 + 2 * 8)),  # two scales of 8 bits per row
        ((2, 33), MXFP4, 2 * (33 * 4 + 2 * 8)),  # a last block of one element has a scale as well
        ((64, 2), MXFP4, 64 * (2 * 4 + 8)),  # blocks run along the last axis alone
        ((48,), NVFP4, 48 * 4 + 3 * 8),
        ((), MXFP4, 12),
        ((4, 0), MXFP4, 0),
    ],
)
def test_bits_by_hand(shape, fmt, bits):
    assert tensor(*shape, fmt=fmt).bits == bits
    assert tensor(*shape, fmt=fmt).bytes == ceil(bits / 8)


@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    element=st.sampled_from(["e2m1", "e4m3fn", "int5"]),
    block=st.integers(1, 12),
)
def test_a_block_format_stores_each_row_block_by_block(shape, element, block):
    fmt = BlockFormat.parse(f"{element} block={block} scale=e8m0")
    rows, columns = 1, shape[-1]
    for size in shape[:-1]:
        rows *= size
    per_row = sum(
        fmt.element.bits * len(range(start, min(start + block, columns))) + 8
        for start in range(0, columns, block)
    )
    assert tensor(*shape, fmt=fmt).bits == rows * per_row


def graph():
    """Tokens through an embedding and a layer, with labels."""
    shapes = {
        "tokens": ((2, 4), Role.INDEX),
        "labels": ((2, 4), Role.LABEL),
        "table": ((10, 8), Role.WEIGHT),
        "layer1.weight": ((6, 8), Role.WEIGHT),
        "layer1.mask": ((6,), Role.CONSTANT),
        "rows": ((2, 4, 8), Role.ACTIVATION),
        "result": ((2, 4, 6), Role.ACTIVATION),
        "input": ((), Role.ACTIVATION),  # a name that is a role as well
    }
    return Workload(
        name="tokens",
        operators=(
            Operator(name="embedding", kind="embedding", inputs=("table", "tokens"), outputs=("rows",)),
            Operator(
                name="layer1",
                kind="linear",
                inputs=("rows", "layer1.weight", "layer1.mask"),
                outputs=("result",),
                gemm=Gemm(m=8, n=6, k=8),
            ),
            Operator(name="loss", kind="cross_entropy", inputs=("result", "labels"), outputs=("input",)),
        ),
        tensors={n: tensor(*shape, name=n, role=role) for n, (shape, role) in shapes.items()},
        inputs=("tokens", "labels", "table", "layer1.weight", "layer1.mask"),
        outputs=("input",),
        batch=2,
    )


def formats(workload):
    return {name: str(found.format) for name, found in workload.tensors.items()}


def test_one_format_is_for_all_but_labels_and_indices():
    narrow = graph().with_formats("mxfp4")
    assert {n for n, fmt in formats(narrow).items() if fmt != "mxfp4"} == {"tokens", "labels"}
    assert narrow.tensors["rows"].bytes == 8 * (8 * 4 + 8) // 8
    assert narrow.weight_bytes == (10 + 6) * (8 * 4 + 8) // 8
    assert narrow == graph().with_formats(MXFP4)
    assert graph().tensors["rows"].format == BINARY32  # a copy


def test_a_name_counts_before_a_pattern_and_a_pattern_before_a_role():
    narrow = graph().with_formats(
        {
            Role.WEIGHT: E4M3,
            "activation": "e5m2",
            "layer1.*": "int8",
            "*.weight": "int4",
            "layer1.weight": "bf16",
        }
    )
    assert formats(narrow) == {
        "tokens": str(BINARY32),
        "labels": str(BINARY32),
        "table": "e4m3fn",
        "layer1.weight": "e8m7",
        "layer1.mask": str(INT8),  # the first pattern that matches
        "rows": "e5m2",
        "result": "e5m2",
        "input": "e5m2",
    }


def test_a_text_that_is_a_role_and_a_name_is_the_role():
    assert graph().with_formats({"input": E4M3}) == graph()  # no tensor has that role


def test_labels_and_indices_change_by_role_or_name_alone():
    assert formats(graph().with_formats({"*": E4M3}))["tokens"] == str(BINARY32)
    assert formats(graph().with_formats({Role.INDEX: "int16"}))["tokens"] == "s15.0"
    assert formats(graph().with_formats({"labels": "int8"}))["labels"] == str(INT8)


def test_a_function_may_keep_a_format():
    found = graph().with_formats(lambda tensor: "e4m3fn" if tensor.name == "rows" else None)
    assert {name for name, fmt in formats(found).items() if fmt == "e4m3fn"} == {"rows"}


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"layer2.*": E4M3}, r"a format is given by role \(input, .*\), by the name of a tensor .* 'layer2"),
        ({"weights": E4M3}, "got 'weights'"),
        ({3: E4M3}, "got 3"),
        ({"table": "e4q3"}, "format of 'table': format must be .* got 'e4q3'"),
        ({"table": "e9m9"}, "format of 'table': exp_bits must be in 1..8, got 9"),
        ({Role.WEIGHT: 8}, "format of 'weight': format must be text, .* got 8"),
        ("e4", "format must be"),
    ],
)
def test_a_wrong_policy_names_its_key(policy, message):
    with pytest.raises(ValueError, match=message):
        graph().with_formats(policy)


def test_what_architects_expect_to_read_off():
    workload = graph()
    assert workload.parameters == 80 + 48
    assert workload.weight_bytes == 4 * 128
    assert workload.activation_bytes == 4 * (64 + 48 + 1)
    assert workload.macs == 8 * 6 * 8
    assert [operator.name for operator in workload.gemms()] == ["layer1"]


def test_new_values_of_parameters_do_not_count_as_parameters():
    step = graph().training()
    assert step.tensors["table.new"].role is Role.WEIGHT
    assert (step.parameters, step.weight_bytes) == (128, 512)
    assert {operator.phase for operator in step.operators} == set(Phase)


@pytest.mark.parametrize(
    ("batch", "kind", "message"),
    [
        (0, ValueError, "batch must be at least 1, got 0"),
        (2**62, ValueError, r"batch must be below 2\*\*62, got 4611686018427387904"),
        (1.5, TypeError, "batch must be a whole number, got 1.5"),
        ("3", TypeError, "batch must be a whole number, got '3'"),
        (True, TypeError, "batch must be a whole number, got True"),
    ],
)
def test_a_batch_is_a_whole_number_of_at_least_one(batch, kind, message):
    with pytest.raises(kind, match=message):
        Workload(name="none", operators=(), tensors={}, inputs=(), outputs=(), batch=batch)
    for change in (graph().with_batch, graph().training):
        with pytest.raises(kind, match=message):
            change(batch)


def test_texts_of_a_tensor_are_parsed_and_its_sizes_are_integers():
    given = Tensor(name="x", shape=[np.int64(2), 33], role="input", format="mxfp4")
    assert given == Tensor(name="x", shape=(2, 33), role=Role.INPUT, format=MXFP4)
    assert [type(size) for size in given.shape] == [int, int]
    assert given.role is Role.INPUT
    assert hash(given) == hash(replace(given))


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ({"format": "int99x"}, ValueError, "tensor x: .*int99x"),
        ({"format": 8}, TypeError, "tensor x: format must be text, .*, got 8"),
        ({"role": "inpt"}, ValueError, "role of tensor x must be one of input, index, .*, got 'inpt'"),
        ({"role": None}, ValueError, "role of tensor x must be one of input, index, .*, got None"),
        ({"shape": 3}, TypeError, "the shape of tensor x must be a tuple of whole numbers, got 3"),
        ({"shape": (1.5,)}, TypeError, "a size of the shape of tensor x must be a whole number, got 1.5"),
        ({"shape": (True,)}, TypeError, "a size of the shape of tensor x must be a whole number, got True"),
        ({"shape": "23"}, TypeError, "a size of the shape of tensor x must be a whole number, got '2'"),
        ({"shape": (2, -1)}, ValueError, "a size of the shape of tensor x must be at least 0, got -1"),
        (
            {"shape": (10**30,)},
            ValueError,
            r"a size of the shape of tensor x must be below 2\*\*62, got 10+$",
        ),
    ],
)
def test_a_wrong_tensor_is_refused_in_one_line(wrong, kind, message):
    with pytest.raises(kind, match=message) as error:
        Tensor(**{"name": "x", "shape": (2,), "role": Role.INPUT} | wrong)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", ["m", "n", "k", "count"])
def test_sizes_of_a_product_are_whole_numbers_in_range(size):
    sizes = {"m": 2, "n": 3, "k": 5, "count": 7}
    assert Gemm(**sizes | {size: np.int32(9)}) == Gemm(**sizes | {size: 9})
    assert Gemm(**sizes | {size: 2**62 - 1}).macs == 210 // sizes[size] * (2**62 - 1)
    for value in (1.5, "3", True, None):
        with pytest.raises(TypeError, match=f"{size} must be a whole number, got {value!r}"):
            Gemm(**sizes | {size: value})
    with pytest.raises(ValueError, match=f"{size} must be at least 1, got 0"):
        Gemm(**sizes | {size: 0})
    with pytest.raises(ValueError, match=rf"{size} must be below 2\*\*62, got 1000"):
        Gemm(**sizes | {size: 10**30})


WINDOW = {
    "batch": 1,
    "channels": 3,
    "input": (8, 8),
    "output": (8, 8),
    "kernel": (3, 3),
    "stride": (1, 1),
    "dilation": (1, 1),
    "padding": (1, 1),
}


def test_sizes_of_a_window_become_tuples_of_integers():
    assert Window(**WINDOW | {"kernel": [np.int64(3), 3]}) == Window(**WINDOW)


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ({"batch": 1.5}, TypeError, "batch of a window must be a whole number, got 1.5"),
        ({"channels": True}, TypeError, "channels of a window must be a whole number, got True"),
        ({"channels": 0}, ValueError, "channels of a window must be at least 1, got 0"),
        ({"batch": 2**62}, ValueError, r"batch of a window must be below 2\*\*62"),
        ({"kernel": 3}, TypeError, "kernel of a window must be a tuple of whole numbers, got 3"),
        ({"kernel": (3, "3")}, TypeError, "a size of kernel of a window must be a whole number, got '3'"),
        ({"stride": (0, 1)}, ValueError, "a size of stride of a window must be at least 1, got 0"),
        ({"padding": (0, -1)}, ValueError, "a size of padding of a window must be at least 0, got -1"),
        ({"input": (10**30, 1)}, ValueError, r"a size of input of a window must be below 2\*\*62"),
        ({"dilation": (1,)}, ValueError, r"dilation of a window must have 2 entries, got \(1,\)"),
        ({"output": ()}, ValueError, r"output of a window must have at least 1 entries, got \(\)"),
    ],
)
def test_a_wrong_window_is_refused_with_its_key(wrong, kind, message):
    with pytest.raises(kind, match=message):
        Window(**WINDOW | wrong)


def test_the_phase_of_an_operator_may_be_text():
    operator = Operator(name="a", kind="add", inputs=("x",), outputs=("y",), phase="backward")
    assert operator.phase is Phase.BACKWARD


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ({"inputs": ("x",)}, ValueError, r"operator fc: a matrix product needs .*, got inputs \('x',\) and"),
        ({"outputs": ()}, ValueError, r"operator fc: a matrix product needs .* and outputs \(\)"),
        ({"phase": "back"}, ValueError, "phase of operator fc must be one of forward, .*, got 'back'"),
        ({"vector_ops": 0.5}, TypeError, "vector_ops of operator fc must be a whole number, got 0.5"),
        ({"vector_ops": -1}, ValueError, "vector_ops of operator fc must be at least 0, got -1"),
        ({"vector_ops": 2**62}, ValueError, r"vector_ops of operator fc must be below 2\*\*62"),
    ],
)
def test_a_wrong_operator_is_refused_with_its_name(wrong, kind, message):
    right = {
        "name": "fc",
        "kind": "linear",
        "inputs": ("x", "w"),
        "outputs": ("y",),
        "gemm": Gemm(m=1, n=2, k=3),
    }
    assert Operator(**right).macs == 6
    with pytest.raises(kind, match=message) as error:
        Operator(**right | wrong)
    assert "\n" not in str(error.value)


def test_a_workload_shows_as_one_line():
    text = "Workload(tokens: 3 operators, 1 product, 128 parameters, 384 MACs, batch 2)"
    assert repr(graph()) == str(graph()) == text


@pytest.mark.parametrize(
    ("m", "shown"),
    [(999, "999"), (1000, "1 k"), (12_500_000, "12.5 M"), (999_600, "1 M"), (7 * 10**19, "70 E")],
)
def test_multiply_accumulates_show_three_digits(m, shown):
    count = 100 if m > 2**62 else 1
    tensors = {n: Tensor(name=n, shape=(1,), role="activation") for n in "xwy"}
    gemm = Gemm(m=m // count, n=1, k=1, count=count)
    product = Operator(name="fc", kind="matmul", inputs=("x", "w"), outputs=("y",), gemm=gemm)
    workload = Workload(name="one", operators=(product,), tensors=tensors, inputs=("x", "w"), outputs=("y",))
    assert repr(workload) == f"Workload(one: 1 operator, 1 product, 0 parameters, {shown} MACs, batch 1)"


@given(exp_bits=st.integers(2, 8), frac_bits=st.integers(1, 15))
def test_a_narrower_format_never_takes_more_bytes(exp_bits, frac_bits):
    wide = graph().with_formats(FloatFormat(exp_bits=exp_bits, frac_bits=frac_bits))
    wider = graph().with_formats(FloatFormat(exp_bits=exp_bits, frac_bits=frac_bits + 1))
    assert all(wide.tensors[n].bytes <= wider.tensors[n].bytes for n in wide.tensors)
    assert E5M2.bits == E4M3.bits  # and equal widths take equal bytes
    assert graph().with_formats(E5M2).weight_bytes == graph().with_formats(E4M3).weight_bytes
