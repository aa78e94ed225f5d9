"""Lists of matrix products and convolutions in TOML."""

import pytest
import torch
from torch import nn

from accel.importers.gemm_list import from_toml
from accel.workload import Gemm, Phase, Role, Workload
from numerics.formats import BINARY32, FixedFormat

LIST = """
name = "my layers"
batch = 8
format = "int8"

[[conv]]
name = "stem"
channels = 3
height = 32
width = 24
filters = 64
kernel = [7, 5]
stride = 2
padding = [3, 2]

[[gemm]]
name = "qkv"
m = 1576
n = 1152
k = 384
repeat = 3

[[gemm]]
name = "scores"
m = 197
n = 197
k = 64
count = 48
weight = false
format = "mxfp4"

[[conv]]
name = "depthwise"
channels = 16
height = 9
width = 9
filters = 32
kernel = 3
groups = 16
dilation = 2
"""


def read(tmp_path, text):
    path = tmp_path / "layers.toml"
    path.write_text(text)
    return Workload.from_toml(path)


def test_every_layer_is_an_operator_with_tensors_of_its_own(tmp_path):
    workload = read(tmp_path, LIST)
    assert (workload.name, workload.batch) == ("my layers", 8)
    # Convolutions come first, for the file begins with one.
    assert [(op.name, op.kind, op.inputs) for op in workload.operators] == [
        ("stem", "conv2d", ("stem.input", "stem.weight")),
        ("depthwise", "conv2d", ("depthwise.input", "depthwise.weight")),
        ("qkv.1", "linear", ("qkv.1.input", "qkv.1.weight")),
        ("qkv.2", "linear", ("qkv.2.input", "qkv.2.weight")),
        ("qkv.3", "linear", ("qkv.3.input", "qkv.3.weight")),
        ("scores", "matmul", ("scores.input", "scores.other")),
    ]
    assert workload.outputs == tuple(f"{op.name}.output" for op in workload.operators)
    assert workload.operators[2].gemm == Gemm(m=1576, n=1152, k=384)
    assert workload.operators[5].gemm == Gemm(m=197, n=197, k=64, count=48)
    tensors = workload.tensors
    assert tensors["qkv.2.input"].shape == (1576, 384)
    assert tensors["qkv.2.weight"].shape == (384, 1152)
    assert tensors["qkv.2.output"].bytes == 1576 * 1152
    assert tensors["scores.other"].shape == (48, 64, 197)
    assert tensors["scores.other"].role is Role.ACTIVATION
    assert tensors["scores.input"].bits == 48 * 197 * (64 * 4 + 2 * 8)
    assert tensors["stem.input"].format == FixedFormat.parse("int8")
    assert [tensors[op.inputs[0]].role for op in workload.operators[:2]] == [Role.INPUT, Role.ACTIVATION]


@pytest.mark.parametrize(
    ("name", "module", "example"),
    [
        ("stem", nn.Conv2d(3, 64, (7, 5), 2, (3, 2), bias=False), (8, 3, 32, 24)),
        ("depthwise", nn.Conv2d(16, 32, 3, groups=16, dilation=2, bias=False), (8, 16, 9, 9)),
    ],
)
def test_a_convolution_is_the_one_that_pytorch_makes(name, module, example, tmp_path):
    found = next(op for op in read(tmp_path, LIST).operators if op.name == name)
    (expected,) = Workload.from_torch(module, torch.empty(example)).operators
    assert (found.gemm, found.window, found.kind) == (expected.gemm, expected.window, expected.kind)
    output = read(tmp_path, LIST).tensors[f"{name}.output"]
    assert output.shape == tuple(module(torch.empty(example)).shape)


def test_what_is_left_out_has_a_default(tmp_path):
    workload = read(tmp_path, '[[gemm]]\nname = "a"\nm = 2\nn = 3\nk = 4\n')
    assert (workload.name, workload.batch) == ("layers", 1)
    assert workload.tensors["a.input"].format == BINARY32
    assert workload.operators[0].gemm == Gemm(m=2, n=3, k=4)


def test_training_has_all_three_products_of_each_layer_but_the_first(tmp_path):
    step = read(tmp_path, LIST).training()
    names = {op.name for op in step.operators if op.gemm}
    assert "stem.backward" not in names
    assert {"stem.gradient", "depthwise.backward", "qkv.1.backward", "qkv.3.gradient"} <= names
    assert {"scores.backward", "scores.backward_1"} <= names
    products = {op.name: op.gemm.macs for op in step.operators if op.gemm}
    for name in ("qkv.1", "qkv.2", "qkv.3"):
        assert products[f"{name}.backward"] == products[f"{name}.gradient"] == products[name]
    assert {"qkv.1.output.error", "scores.output.error"} <= set(step.inputs)
    assert "scores.input.error" in step.outputs
    assert {op.phase for op in step.operators} == set(Phase)


def test_another_batch_grows_rows_and_independent_products(tmp_path):
    grown = read(tmp_path, LIST).with_batch(16)
    by_name = {op.name: op for op in grown.operators}
    assert by_name["qkv.1"].gemm == Gemm(m=3152, n=1152, k=384)
    assert by_name["scores"].gemm == Gemm(m=197, n=197, k=64, count=96)
    assert by_name["stem"].window.batch == 16
    assert grown.parameters == read(tmp_path, LIST).parameters


GEMM = '[[gemm]]\nname = "a"\nm = 2\nn = 3\nk = 4\n'
CONV = '[[conv]]\nname = "c"\nchannels = 4\nheight = 5\nwidth = 5\nfilters = 6\nkernel = 3\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x =", "is not TOML: Invalid value (at end of document)"),
        ("", "must list at least one [[gemm]] or [[conv]], got none"),
        (GEMM + GEMM.replace("m = 2", "m = 0"), "gemm[1].m must be at least 1, got 0"),
        (GEMM.replace("k = 4", "k = -4"), "gemm[0].k must be at least 1, got -4"),
        (GEMM.replace("k = 4", "k = 4.0"), "gemm[0].k must be a whole number, got 4.0"),
        (GEMM.replace("k = 4", "k = true"), "gemm[0].k must be a whole number, got True"),
        (GEMM.replace("k = 4", 'k = "4"'), "gemm[0].k must be a whole number, got '4'"),
        (GEMM.replace("k = 4\n", ""), "gemm[0].k is missing"),
        (GEMM.replace('name = "a"\n', ""), "gemm[0].name is missing"),
        (GEMM + 'weight = "yes"', "gemm[0].weight must be true or false, got 'yes'"),
        (
            GEMM + "counts = 2",
            (
                "gemm[0].counts is not a key; did you mean count? "
                "(allowed: name, repeat, format, m, n, k, count, weight)"
            ),
        ),
        (
            "gem = 1\n" + GEMM,
            "gem is not a key; did you mean gemm? (allowed: name, batch, format, gemm, conv)",
        ),
        (GEMM + 'format = "e9m1"', "gemm[0].format: exp_bits must be in 1..8, got 9"),
        ("batch = 0\n" + GEMM, "batch must be at least 1, got 0"),
        ("gemm = 3", "gemm must be a list, got 3"),
        (GEMM + GEMM, "gemm[1].name 'a' makes an operator a a second time"),
        (
            GEMM + "repeat = 2\n" + GEMM.replace('"a"', '"a.2"'),
            "gemm[1].name 'a.2' makes an operator a.2 a second time",
        ),
        (CONV + "groups = 3", "conv[0].channels must be a multiple of groups 3, got 4"),
        (CONV + "groups = 4", "conv[0].filters must be a multiple of groups 4, got 6"),
        (
            CONV + "dilation = 3",
            "conv[0].kernel must fit into the padded input [5, 5], got [7, 7] with its dilation",
        ),
        (GEMM.replace('"a"', '""'), "gemm[0].name must not be empty, got ''"),
        (CONV + "stride = [1, 0]", "conv[0].stride[1] must be at least 1, got 0"),
        (CONV + "stride = 0", "conv[0].stride must be at least 1, got 0"),
        (CONV + "padding = [1, 1, 1]", "conv[0].padding must have 2 entries, got [1, 1, 1]"),
        (CONV + "padding = -1", "conv[0].padding must be at least 0, got -1"),
        (
            GEMM.replace("m = 2", "m = 4611686018427387904"),
            "gemm[0].m must be below 2**62, got 4611686018427387904",
        ),
        (
            f"batch = {2**61}\n" + CONV,
            f"conv[0]: m must be below 2**62, got {9 * 2**61}",
        ),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(text, message, tmp_path):
    path = tmp_path / "layers.toml"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        from_toml(path)
    assert str(error.value) == f"{path}: {message}"
