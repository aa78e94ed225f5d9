"""PyTorch modules become the graphs one would draw by hand."""

import logging
from math import prod

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name PyTorch users know
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from accel.accumulations import NetworkError
from accel.importers.torch_export import from_torch
from accel.workload import Gemm, Role, Window, Workload


class Small(nn.Module):
    """Convolutions with groups and stride, a residual, a pool and a classifier."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False)
        self.head = nn.Sequential(nn.Dropout(), nn.Linear(8 * 4 * 4, 10), nn.ReLU(), nn.Linear(10, 5))
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = F.relu(x + self.conv2(x))
        return self.head(torch.flatten(F.avg_pool2d(x, 2), 1))


@pytest.fixture(scope="module")
def small():
    return Workload.from_torch(Small(), torch.empty(2, 3, 16, 16, device="meta"))


class Call(nn.Module):
    """A function of tensors, and perhaps layers that it uses."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            if isinstance(layer, nn.Module):
                self.add_module(name, layer)
            elif isinstance(layer, nn.Parameter):
                self.register_parameter(name, layer)
            else:
                self.register_buffer(name, layer)
        self.given = tuple(layers)

    def forward(self, *inputs):
        return self.function(*(getattr(self, name) for name in self.given), *inputs)


def graph(function, *inputs, **layers):
    """Graph of a function; a tuple stands for a tensor of that shape."""
    tensors = (torch.empty(found) if isinstance(found, tuple) else found for found in inputs)
    return from_torch(Call(function, **layers), *tensors)


def kinds(workload):
    return [operator.kind for operator in workload.operators]


def only(workload):
    (operator,) = workload.operators
    return operator


# ---------------------------------------------------------------------------------- a network


def test_operators_are_those_drawn_by_hand(small):
    assert [(op.name, op.kind, op.inputs, op.outputs) for op in small.operators] == [
        ("conv1", "conv2d+relu", ("x", "conv1.weight", "conv1.bias"), ("conv1.output",)),
        ("pool", "max_pool2d", ("conv1.output",), ("pool.output",)),
        ("conv2", "conv2d", ("pool.output", "conv2.weight"), ("conv2.output",)),
        ("add", "add", ("pool.output", "conv2.output"), ("add.output",)),
        ("relu", "relu", ("add.output",), ("relu.output",)),
        ("avg_pool2d", "avg_pool2d", ("relu.output",), ("avg_pool2d.output",)),
        ("head.1", "linear+relu", ("avg_pool2d.output", "head.1.weight", "head.1.bias"), ("head.1.output",)),
        ("head.3", "linear", ("head.1.output", "head.3.weight", "head.3.bias"), ("head.3.output",)),
    ]


def test_matrix_products_are_lowered(small):
    assert {op.name: op.gemm for op in small.gemms()} == {
        "conv1": Gemm(m=2 * 16 * 16, n=8, k=27),
        "conv2": Gemm(m=2 * 8 * 8, n=4, k=36, count=2),
        "head.1": Gemm(m=2, n=10, k=128),
        "head.3": Gemm(m=2, n=5, k=10),
    }


def test_vector_operations_are_counted(small):
    assert {op.name: op.vector_ops for op in small.operators} == {
        "conv1": 2 * 4096,  # bias and ReLU of 2 x 8 x 16 x 16
        "pool": 3 * 1024,  # three comparisons for each maximum of four
        "conv2": 0,
        "add": 1024,
        "relu": 1024,
        "avg_pool2d": 4 * 256,
        "head.1": 2 * 20,
        "head.3": 10,
    }


def test_tensors_have_shapes_roles_and_no_unused_parameter(small):
    assert small.batch == 2
    assert small.outputs == ("head.3.output",)
    assert small.tensors["conv2.weight"].shape == (8, 4, 3, 3)
    assert small.tensors["conv2.weight"].role is Role.WEIGHT
    assert small.tensors["x"].role is Role.INPUT
    assert small.tensors["conv1.output"].bytes == 2 * 8 * 16 * 16 * 4
    assert not any(name.startswith("unused") for name in small.tensors)


def test_a_loss_makes_its_second_argument_a_label():
    class WithLoss(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x, target):
            return F.cross_entropy(self.fc(x).view(-1, 3), target.view(-1))

    workload = Workload.from_torch(WithLoss(), torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))
    assert workload.operators[-1].kind == "cross_entropy"
    assert workload.operators[-1].vector_ops == 4 * 6
    assert workload.tensors["target"].role is Role.LABEL
    assert workload.tensors[workload.outputs[0]].shape == ()


def test_a_module_called_twice_gives_two_operators():
    workload = graph(lambda fc, x: fc(fc(x)), (2, 4), fc=nn.Linear(4, 4))
    assert [op.name for op in workload.operators] == ["fc", "fc_1"]
    assert workload.operators[1].inputs == ("fc.output", "fc.weight", "fc.bias")


def test_the_module_is_left_as_it_was():
    module = Small().train()
    Workload.from_torch(module, torch.empty(2, 3, 16, 16))
    assert module.training
    assert all(parameter.device.type == "cpu" for parameter in module.parameters())


def test_a_relu_of_a_result_that_others_read_stays_an_operator():
    workload = graph(lambda fc, x: (y := fc(x)) + F.relu(y), (2, 4), fc=nn.Linear(4, 4))
    assert kinds(workload) == ["linear", "relu", "add"]


# ---------------------------------------------------------------------------------- products


@pytest.mark.parametrize(
    ("layer", "shape", "gemm", "window"),
    [
        (
            nn.Conv1d(4, 6, 5, stride=2, padding=2),
            (3, 4, 16),
            Gemm(m=3 * 8, n=6, k=20),
            {"batch": 3, "channels": 4, "input": (16,), "output": (8,), "kernel": (5,), "padding": (2,)},
        ),
        (
            nn.Conv2d(4, 6, (3, 1), stride=(2, 1), dilation=(2, 1), groups=2),
            (2, 4, 13, 5),
            Gemm(m=2 * 5 * 5, n=3, k=6, count=2),
            {"channels": 2, "kernel": (3, 1), "stride": (2, 1), "dilation": (2, 1), "output": (5, 5)},
        ),
        (
            nn.Conv3d(2, 3, 2),
            (1, 2, 4, 5, 6),
            Gemm(m=3 * 4 * 5, n=3, k=16),
            {"input": (4, 5, 6), "output": (3, 4, 5), "kernel": (2, 2, 2), "padding": (0, 0, 0)},
        ),
        (
            nn.Conv2d(3, 4, 4, padding="same"),  # three rows of padding: one before, two after
            (1, 3, 8, 8),
            Gemm(m=64, n=4, k=48),
            {"padding": (1, 1), "output": (8, 8)},
        ),
        (
            nn.Conv2d(3, 4, 3, padding="valid"),
            (1, 3, 8, 8),
            Gemm(m=36, n=4, k=27),
            {"padding": (0, 0)},
        ),
        (nn.Conv1d(2, 3, 3), (2, 9), Gemm(m=7, n=3, k=6), {"batch": 1}),  # one sample without a batch
        (nn.Conv2d(8, 8, 3, groups=8), (2, 8, 6, 6), Gemm(m=32, n=1, k=9, count=8), {"channels": 1}),
    ],
)
def test_convolutions_have_their_window(layer, shape, gemm, window):
    operator = only(from_torch(layer, torch.empty(shape)))
    assert operator.kind == type(layer).__name__.lower()
    assert operator.gemm == gemm
    assert isinstance(operator.window, Window)
    assert {name: getattr(operator.window, name) for name in window} == window
    assert operator.vector_ops == gemm.m * gemm.n * gemm.count


@pytest.mark.parametrize(
    ("layer", "shape", "gemm"),
    [
        (nn.ConvTranspose1d(4, 6, 4, stride=2), (2, 4, 5), Gemm(m=10, n=24, k=4)),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), (2, 4, 5, 5), Gemm(m=50, n=27, k=2, count=2)),
        (nn.ConvTranspose3d(1, 2, 2), (1, 1, 3, 3, 3), Gemm(m=27, n=16, k=1)),
    ],
)
def test_transposed_convolutions_add_windows_that_overlap(layer, shape, gemm):
    workload = from_torch(layer, torch.empty(shape))
    operator = only(workload)
    outputs = workload.tensors[workload.outputs[0]].elements
    assert operator.kind == f"conv_transpose{len(shape) - 2}d"
    assert (operator.gemm, operator.window) == (gemm, None)
    assert operator.vector_ops == gemm.m * gemm.n * gemm.count - outputs + outputs  # overlaps, bias


PRODUCTS = [
    (lambda w, x: x @ w, [(2, 5, 4)], "linear", Gemm(m=10, n=6, k=4)),
    (lambda w, x: w.t() @ x, [(4, 7)], "linear", Gemm(m=7, n=6, k=4)),  # W is the parameter
    (lambda w, x: torch.einsum("bsk,kn->bsn", x, w), [(2, 5, 4)], "linear", Gemm(m=10, n=6, k=4)),
    (lambda w, x: torch.tensordot(x, w, dims=1), [(2, 5, 4)], "linear", Gemm(m=10, n=6, k=4)),
    (lambda w, x: (2 * w).t() @ x, [(4, 7)], "linear", Gemm(m=7, n=6, k=4)),
    (lambda w, x: torch.addmm(x[0, :1], x, w), [(5, 4)], "linear", Gemm(m=5, n=6, k=4)),
    (lambda w, x, y: x @ y, [(3, 2, 5, 4), (3, 2, 4, 6)], "matmul", Gemm(m=5, n=6, k=4, count=6)),
    (lambda w, x, y: x @ y, [(3, 5, 4), (1, 4, 6)], "matmul", Gemm(m=15, n=6, k=4)),
    (lambda w, x, y: torch.bmm(x, y), [(3, 5, 4), (3, 4, 6)], "matmul", Gemm(m=5, n=6, k=4, count=3)),
    (lambda w, x, y: torch.mv(x, y), [(5, 4), (4,)], "matmul", Gemm(m=5, n=1, k=4)),
    (lambda w, x, y: torch.dot(x, y), [(4,), (4,)], "matmul", Gemm(m=1, n=1, k=4)),
    (
        lambda w, x, y: torch.einsum("bhqd,bhkd->bhqk", x, y),
        [(2, 3, 5, 4), (2, 3, 7, 4)],
        "matmul",
        Gemm(m=5, n=7, k=4, count=6),
    ),
    (lambda w, x: x @ torch.ones(4, 4), [(5, 4)], "matmul", Gemm(m=5, n=4, k=4)),  # a constant
]


class All(nn.Module):
    """Functions side by side, each of inputs of its own, in one graph: an export each would take long."""

    def __init__(self, functions, counts, **parameters):
        super().__init__()
        self.functions, self.counts = functions, counts
        for name, parameter in parameters.items():
            self.register_parameter(name, parameter)
        self.given = tuple(parameters)

    def forward(self, *inputs):
        left = iter(inputs)
        return [
            function(*(getattr(self, name) for name in self.given), *(next(left) for _ in range(count)))
            for function, count in zip(self.functions, self.counts, strict=True)
        ]


def side_by_side(cases, *, fold=True, **parameters):
    """Graph of functions of inputs of the shapes that come with each, and the operators of their results."""
    module = All([function for function, _ in cases], [len(shapes) for _, shapes in cases], **parameters)
    inputs = (torch.empty(shape) for _, shapes in cases for shape in shapes)
    found = from_torch(module, *inputs, fold_parameters=fold)
    assert len(found.outputs) == len(cases)
    return found, [found.producer.get(name) for name in found.outputs]


def test_products_of_all_kinds():
    found, made = side_by_side([row[:2] for row in PRODUCTS], w=nn.Parameter(torch.empty(4, 6)), fold=False)
    made = [op if op.gemm else found.producer[op.inputs[0]] for op in made]
    assert [(op.kind, op.gemm) for op in made] == [row[2:] for row in PRODUCTS]
    weights = [op.inputs[1] for op in made if op.kind == "linear"]
    assert weights.count("w") == 5
    assert [found.producer[name].kind for name in weights if name != "w"] == ["mul"]


def test_what_is_added_to_a_product_is_one_operation_per_element():
    found = graph(
        lambda w, c, x: torch.baddbmm(c, x, w), (3, 5, 4), w=torch.ones(3, 4, 6), c=torch.ones(5, 6)
    )
    assert (only(found).inputs, only(found).vector_ops) == (("inputs_0", "w", "c"), 3 * 5 * 6)


def test_an_einsum_of_three_operands_is_written_in_steps():
    found = graph(lambda x, y, z: torch.einsum("ij,jk,kl->il", x, y, z), (2, 3), (3, 4), (4, 5))
    assert found.macs == 2 * 3 * 4 + 2 * 4 * 5
    assert kinds(found) == ["matmul", "matmul"]


def test_an_einsum_that_sums_nothing_is_no_product():
    found = graph(lambda x, y: torch.einsum("i,i->i", x, y), (6,), (6,))
    assert (only(found).kind, only(found).vector_ops, found.macs) == ("mul", 6, 0)


def test_a_second_relu_is_an_operator():
    assert kinds(graph(lambda fc, x: fc(x).relu().relu(), (2, 4), fc=nn.Linear(4, 4))) == [
        "linear+relu",
        "relu",
    ]


def test_a_bilinear_layer_weighs_the_rows_of_a_product():
    operator = only(graph(lambda b, x, y: b(x, y), (3, 4), (3, 5), b=nn.Bilinear(4, 5, 6)))
    assert operator.gemm == Gemm(m=3, n=30, k=4)
    assert operator.vector_ops == 2 * 3 * 30 + 3 * 6


def test_a_product_of_an_empty_tensor_names_the_operator():
    with pytest.raises(NetworkError, match=r"operator matmul has an empty operand, of shape \(0, 3\)"):
        graph(lambda x: x[:0] @ x.t(), (2, 3))


# ---------------------------------------------------------------------------------- attention


def test_attention_is_two_products_and_a_softmax():
    found = graph(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v), (2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 6)
    )
    assert [(op.kind, op.gemm) for op in found.operators] == [
        ("matmul", Gemm(m=5, n=7, k=8, count=6)),
        ("softmax", None),
        ("matmul", Gemm(m=5, n=6, k=7, count=6)),
    ]
    scores = 2 * 3 * 5 * 7
    assert found.operators[1].vector_ops == (5 + 1) * scores  # and their scale
    assert found.tensors[found.operators[0].outputs[0]].shape == (2, 3, 5, 7)


def test_a_causal_mask_changes_the_softmax_alone():
    plain, causal = (
        graph(
            lambda q, causal=causal: F.scaled_dot_product_attention(q, q, q, is_causal=causal), (2, 3, 5, 8)
        )
        for causal in (False, True)
    )
    assert plain.macs == causal.macs == 2 * 2 * 3 * 5 * 5 * 8
    assert causal.operators[1].vector_ops == 7 * 2 * 3 * 5 * 5


def test_a_mask_is_read_by_the_softmax():
    found = graph(
        lambda m, q: F.scaled_dot_product_attention(q, q, q, attn_mask=m), (2, 3, 5, 8), m=torch.ones(5, 5)
    )
    assert found.operators[1].inputs == ("matmul.output", "m")
    assert found.tensors["m"].role is Role.CONSTANT


def test_heads_that_share_a_key_are_rows_of_one_product():
    def grouped(q, k):
        return F.scaled_dot_product_attention(q, k, k, enable_gqa=True)

    found = graph(grouped, (2, 8, 5, 16), (2, 2, 5, 16))
    assert found.operators[0].gemm == Gemm(m=4 * 5, n=5, k=16, count=2 * 2)
    assert found.macs == 2 * (2 * 8 * 5 * 5 * 16)


def test_multi_head_attention_names_its_weights():
    attention = nn.MultiheadAttention(16, 4, batch_first=True)
    found = graph(lambda attn, x: attn(x, x, x, need_weights=False)[0], (2, 5, 16), attn=attention)
    assert [(op.name, op.kind) for op in found.gemms()] == [
        ("attn.in_proj_weight", "linear"),
        ("attn.matmul", "matmul"),
        ("attn.matmul_1", "matmul"),
        ("attn.out_proj", "linear"),
    ]
    assert found.macs == 2 * 5 * 16 * 48 + 2 * (2 * 4 * 5 * 5 * 4) + 2 * 5 * 16 * 16


# ---------------------------------------------------------------------------------- recurrent layers


def test_an_lstm_is_an_input_and_a_recurrent_product_per_layer_and_direction():
    layer = nn.LSTM(6, 8, num_layers=2, bidirectional=True, batch_first=True)
    found = graph(lambda lstm, x: lstm(x), (3, 7, 6), lstm=layer)
    assert [(op.name, op.kind) for op in found.operators][:5] == [
        ("lstm.weight_ih_l0", "lstm_input"),
        ("lstm.weight_hh_l0", "lstm_recurrent"),
        ("lstm.weight_ih_l0_reverse", "lstm_input"),
        ("lstm.weight_hh_l0_reverse", "lstm_recurrent"),
        ("lstm.cat", "cat"),
    ]
    assert [op.gemm for op in found.gemms()][::2] == [
        *[Gemm(m=21, n=32, k=6)] * 2,
        *[Gemm(m=21, n=32, k=16)] * 2,
    ]
    assert {op.gemm for op in found.gemms()[1::2]} == {Gemm(m=3, n=32, k=8, count=7)}
    assert [found.tensors[name].shape for name in found.outputs] == [(3, 7, 16), (4, 3, 8), (4, 3, 8)]
    recurrent = found.operators[1]
    assert recurrent.inputs == ("lstm.weight_ih_l0.output", "lstm.weight_hh_l0", "lstm.bias_hh_l0")
    assert recurrent.vector_ops == 7 * 3 * (4 * 8 + 22 * 8)


def test_a_state_that_is_given_is_read_and_one_of_zeros_is_not():
    gru = nn.GRU(4, 5, bias=False)
    given = graph(lambda gru, x, h: gru(x, h)[0], (7, 2, 4), (1, 2, 5), gru=gru)
    assert given.operators[1].inputs[2] == given.inputs[-1]
    assert given.operators[1].kind == "gru_recurrent"
    without = graph(lambda gru, x: gru(x)[0], (7, 2, 4), gru=gru)
    assert without.operators[1].inputs == ("gru.weight_ih_l0.output", "gru.weight_hh_l0")
    assert without.operators[1].outputs == ("gru.weight_hh_l0.output",)
    assert without.macs == 7 * 2 * (15 * 4 + 15 * 5)


def test_a_projected_lstm_has_a_third_product():
    found = graph(lambda lstm, x: lstm(x), (7, 2, 4), lstm=nn.LSTM(4, 8, proj_size=3))
    assert [(op.kind, op.gemm) for op in found.gemms()][1:] == [
        ("lstm_recurrent", Gemm(m=2, n=32, k=3, count=7)),
        ("linear", Gemm(m=2, n=3, k=8, count=7)),
    ]
    shapes = [found.tensors[name].shape for name in found.outputs]
    assert [prod(shape) for shape in shapes] == [7 * 2 * 3, 2 * 3, 2 * 8]


@pytest.mark.parametrize(
    ("cell", "family", "gates"), [(nn.LSTMCell, "lstm", 4), (nn.GRUCell, "gru", 3), (nn.RNNCell, "rnn", 1)]
)
def test_a_cell_takes_one_step(cell, family, gates):
    found = graph(lambda cell, x: cell(x), (3, 6), cell=cell(6, 8))
    assert [(op.name, op.kind, op.gemm) for op in found.operators] == [
        ("cell.weight_ih", f"{family}_input", Gemm(m=3, n=8 * gates, k=6)),
        ("cell.weight_hh", f"{family}_recurrent", Gemm(m=3, n=8 * gates, k=8)),
    ]
    assert {found.tensors[name].shape for name in found.outputs} == {(3, 8)}


# ---------------------------------------------------------------------------------- batch normalisation


def test_a_batch_norm_becomes_part_of_the_convolution_before_it():
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    operator = only(from_torch(layers, torch.empty(2, 3, 6, 6)))
    assert (operator.kind, operator.inputs) == ("conv2d+relu", ("input", "0.weight", "1.bias"))
    assert operator.vector_ops == 2 * (2 * 4 * 16)


def test_the_bias_of_a_convolution_takes_the_shift():
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    operator = only(from_torch(layers, torch.empty(2, 3, 6, 6)))
    assert (operator.inputs[2:], operator.vector_ops) == (("0.bias",), 2 * 4 * 16)


@pytest.mark.parametrize("case", ["asked for", "read twice", "after a relu", "of the batch"])
def test_a_batch_norm_that_cannot_be_folded_is_an_operator(case):
    norm = nn.BatchNorm2d(3, track_running_stats=case != "of the batch")

    def run(conv, norm, x):
        y = conv(x)
        if case == "after a relu":
            y = F.relu(y)
        return (norm(y), y) if case == "read twice" else norm(y)

    layers = Call(run, conv=nn.Conv2d(3, 3, 1, bias=False), norm=norm)
    found = from_torch(layers, torch.empty(2, 3, 4, 4), fold_batch_norm=case != "asked for")
    operator = found.operators[-1]
    assert (operator.name, operator.kind) == ("norm", "batch_norm")
    of_batch = case == "of the batch"
    assert operator.vector_ops == (7 if of_batch else 2) * 2 * 3 * 16
    assert operator.inputs[1:3] == ("norm.weight", "norm.bias")
    assert (
        [found.tensors[name].role for name in operator.inputs[3:]] == [] if of_batch else [Role.CONSTANT] * 2
    )


# ---------------------------------------------------------------------------------- what is joined


def test_without_fusion_every_function_is_an_operator_with_all_its_parameters():
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    norm = tuple(f"1.{name}" for name in ("weight", "bias", "running_mean", "running_var"))
    x = torch.empty(2, 3, 6, 6)
    plain, joined = (from_torch(layers, x, fuse=fuse) for fuse in ("none", "elementwise"))
    assert [(op.kind, op.inputs) for op in plain.operators] == [
        ("conv2d", ("input", "0.weight")),
        ("batch_norm", ("0.output", *norm)),
        ("relu", ("1.output",)),
        ("max_pool2d", ("2.output",)),
    ]
    assert [(op.name, op.kind, op.inputs) for op in joined.operators] == [
        ("0", "conv2d+batch_norm+relu", ("input", "0.weight", *norm)),
        ("3", "max_pool2d", ("2.output",)),
    ]
    assert joined == plain.fused() == Workload.from_torch(layers, x, fuse="elementwise")


def test_the_whole_of_a_tensor_is_read_where_a_slice_is():
    layers = Call(lambda x: torch.cat([part.exp() for part in (2 * x).split([1, 3], 1)], 1))
    found = from_torch(layers, torch.empty(2, 4), fuse="elementwise")
    assert [(op.kind, op.inputs) for op in found.operators] == [
        ("mul", ("inputs_0",)),
        ("exp", ("mul.output",)),
        ("exp", ("mul.output",)),
        ("cat", ("exp.output", "exp_1.output")),
    ]


def test_fusion_is_one_of_three():
    with pytest.raises(ValueError, match=r"^fuse must be one of compiler, elementwise, none, got 'all'$"):
        from_torch(nn.ReLU(), torch.empty(2), fuse="all")


# ---------------------------------------------------------------------------------- the other kinds


KINDS = [
    (lambda x: x + 1, (2, 3), "add", 6),
    (lambda x: x + x[:, :1], (2, 3), "add", 6),  # broadcast
    (lambda x: torch.add(x, x, alpha=2), (2, 3), "add", 12),
    (lambda x: 1 - x, (2, 3), "sub", 6),
    (lambda x: x / 2, (2, 3), "div", 6),
    (lambda x: torch.maximum(x, x), (2, 3), "maximum", 6),
    (lambda x: torch.max(x, x), (2, 3), "maximum", 6),
    (lambda x: torch.where(x > 0, x, 0.0), (2, 3), "where", 6),
    (lambda x: x.masked_fill(x > 0, 0.0), (2, 3), "where", 6),
    (torch.sin, (2, 3), "sin", 6),
    (torch.erf, (2, 3), "erf", 6),
    (torch.rsqrt, (2, 3), "rsqrt", 6),
    (lambda x: x**2, (2, 3), "pow", 6),
    (F.relu6, (2, 3), "relu6", 12),
    (lambda x: F.hardtanh(x, 0.0, 6.0), (2, 3), "relu6", 12),
    (F.hardtanh, (2, 3), "hardtanh", 12),
    (lambda x: x.clamp(min=0), (2, 3), "clamp", 12),
    (F.gelu, (2, 3), "gelu", 30),
    (lambda x: F.gelu(x, approximate="tanh"), (2, 3), "gelu", 54),
    (F.silu, (2, 3), "silu", 30),
    (F.hardswish, (2, 3), "hardswish", 30),
    (torch.sigmoid, (2, 3), "sigmoid", 24),
    (lambda x: x.softmax(-1), (2, 3), "softmax", 30),
    (lambda x: x.log_softmax(-1), (2, 3), "log_softmax", 30),
    (lambda x: F.layer_norm(x, (3,)), (2, 3), "layer_norm", 30),
    (lambda x: F.rms_norm(x, (3,)), (2, 3), "rms_norm", 18),
    (lambda x: F.group_norm(x, 2), (1, 4, 3), "group_norm", 60),
    (lambda x: F.instance_norm(x), (1, 4, 3), "instance_norm", 60),
    (lambda x: F.max_pool1d(x, 2), (1, 2, 6), "max_pool1d", 6),
    (lambda x: F.avg_pool3d(x, 2), (1, 1, 4, 4, 4), "avg_pool3d", 64),
    (lambda x: F.max_pool2d(x, 3, stride=1, padding=1), (1, 1, 4, 4), "max_pool2d", 8 * 16),
    (lambda x: F.adaptive_avg_pool2d(x, 1), (1, 2, 4, 4), "avg_pool2d", 32),
    (lambda x: F.adaptive_max_pool2d(x, 2), (1, 2, 4, 4), "max_pool2d", 32),
    (lambda x: x.mean((1, 2)), (2, 3, 4), "mean", 24),
    (lambda x: x.sum(), (2, 3), "sum", 6),
    (lambda x: x.amax(1), (2, 3), "amax", 6),
    (lambda x: x.max(1)[0], (2, 3), "amax", 6),
    (lambda x: x.var(1), (2, 3), "var", 24),
    (lambda x: torch.cat((x, x)), (2, 3), "cat", 0),
    (lambda x: torch.stack((x, x)), (2, 3), "cat", 0),
    (lambda x: F.pad(x, (1, 1)), (2, 3), "pad", 0),
    (lambda x: F.pad(x, (1, 1), mode="reflect"), (1, 2, 3), "pad", 0),
    (lambda x: F.interpolate(x, scale_factor=2), (1, 1, 3, 3), "upsample", 0),
    (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), (1, 1, 3, 3), "upsample", 7 * 36),
    (lambda x: x.t().contiguous(), (2, 3), "copy", 0),
    (lambda x: x.t().reshape(6), (2, 3), "copy", 0),
    (lambda x: x.half(), (2, 3), "cast", 6),
    (lambda x: F.pixel_shuffle(x, 2), (1, 4, 2, 2), "pixel_shuffle", 0),
    (lambda x: torch.fft.fft(x), (3, 8), "fft_fft", 5 * 24 * 3),
    (lambda x: torch.cdist(x, x), (3, 4), "cdist", 3 * 9 * 4),
    (torch.atan, (2, 3), "atan", 6),  # any other: one per element of the result
]


def test_kinds_and_their_arithmetic():
    _, made = side_by_side([(function, [shape]) for function, shape, *_ in KINDS])
    assert [(op.kind, op.vector_ops) for op in made] == [(kind, ops) for *_, kind, ops in KINDS]
    assert not any(op.gemm for op in made)


def test_norms_count_their_scale_and_shift():
    found = graph(lambda norm, x: norm(x), (2, 5, 8), norm=nn.LayerNorm(8))
    assert (only(found).inputs, only(found).vector_ops) == (("inputs_0", "norm.weight", "norm.bias"), 7 * 80)
    assert only(graph(lambda norm, x: norm(x), (2, 8), norm=nn.RMSNorm(8))).vector_ops == 4 * 16


VIEWS = [
    lambda x: x.transpose(0, 1),
    lambda x: x.permute(1, 0, 2),
    lambda x: x.reshape(3, 8)[None],
    lambda x: x.flatten().unflatten(0, (4, 6)),
    lambda x: x[:, 1:],
    lambda x: x.select(0, 1),
    lambda x: x.chunk(2, 2)[1],
    lambda x: x.unbind(1)[2],
    lambda x: x.unsqueeze(0).expand(5, -1, -1, -1),
    lambda x: F.dropout(x, training=False),
    lambda x: x.float().clone().contiguous().detach(),
]


def test_views_are_other_names_of_a_tensor():
    shape = (2, 3, 4)
    found, made = side_by_side([(lambda x, view=view: view(x).exp(), [shape]) for view in VIEWS])
    assert [op.inputs for op in made] == [(f"inputs_{place}",) for place in range(len(VIEWS))]
    assert len(found.operators) == len(VIEWS)
    expected = [tuple(view(torch.empty(shape)).shape) for view in VIEWS]
    assert [found.tensors[name].shape for name in found.outputs] == expected
    assert [op.vector_ops for op in made] == [prod(shape) for shape in expected]


def test_a_dropout_that_always_drops_is_an_operator():
    assert kinds(graph(lambda x: F.dropout(x, training=True), (2, 3))) == ["native_dropout"]


def test_writing_in_place_makes_a_result_that_later_readers_read():
    def written(x):
        y = x.exp()
        y.mul_(2)
        y[:, 0] = 0
        return y.sin()

    found = graph(written, (2, 3))
    assert kinds(found) == ["exp", "mul", "select_scatter", "sin"]
    assert all(
        after.inputs == before.outputs
        for before, after in zip(found.operators, found.operators[1:], strict=False)
    )


def test_constants_are_computed_beforehand():
    def masked(x):
        mask = torch.ones(5, 5, dtype=torch.bool).tril()
        return x.masked_fill(~mask, -1.0) + torch.zeros(5)

    found = graph(masked, (2, 5, 5))
    assert kinds(found) == ["where", "add"]
    (mask,) = (tensor for tensor in found.tensors.values() if tensor.role is Role.CONSTANT)
    assert (mask.shape, mask.format.bits, mask.bytes) == ((5, 5), 1, 4)
    assert found.operators[1].inputs == ("where.output",)  # zeros are one number


def test_buffers_are_constants_and_token_ids_indices():
    layers = {"table": nn.Embedding(100, 8), "scale": torch.ones(8)}
    found = graph(lambda table, scale, ids: table(ids) * scale, torch.zeros(2, 5, dtype=torch.long), **layers)
    assert {name: tensor.role for name, tensor in found.tensors.items()} == {
        "table.weight": Role.WEIGHT,
        "scale": Role.CONSTANT,
        "inputs_0": Role.INDEX,
        "table.output": Role.ACTIVATION,
        "mul.output": Role.ACTIVATION,
    }
    assert found.tensors["inputs_0"].bytes == 4 * 10
    assert [(op.kind, op.vector_ops) for op in found.operators] == [("embedding", 0), ("mul", 80)]


def test_elements_have_the_format_of_their_type():
    layer = nn.Linear(4, 6, dtype=torch.bfloat16)
    found = from_torch(layer, torch.empty(2, 4, dtype=torch.bfloat16))
    assert {str(tensor.format) for tensor in found.tensors.values()} == {"e8m7"}
    assert found.weight_bytes == 2 * (24 + 6)


def test_complex_elements_are_pairs():
    def turned(x, y):
        return torch.view_as_real(torch.view_as_complex(x) * torch.view_as_complex(y))

    found = graph(turned, (5, 2), (5, 2))
    assert (only(found).kind, only(found).vector_ops) == ("mul", 6 * 5)
    assert found.tensors[found.outputs[0]].shape == (5, 2)


def test_several_results_are_several_outputs():
    found = graph(lambda x: {"a": x.topk(2), "b": (x.exp(), None), "c": x}, (3, 4))
    assert [found.tensors[name].shape for name in found.outputs] == [(3, 2), (3, 2), (3, 4), (3, 4)]
    assert found.outputs[-1] == "inputs_0"


def test_a_tied_parameter_is_one_tensor():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(10, 4)
            self.head = nn.Linear(4, 10, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids):
            return self.head(self.table(ids))

    found = from_torch(Tied(), torch.zeros(2, 3, dtype=torch.long))
    assert found.parameters == 40
    assert found.operators[0].inputs[0] == found.operators[1].inputs[1]


def test_regions_without_gradients_and_checkpoints_are_read_through():
    def run(fc, x):
        with torch.no_grad():
            y = fc(x)
        return checkpoint(lambda z: fc(z), y, use_reentrant=False)

    assert kinds(graph(run, (2, 4), fc=nn.Linear(4, 4))) == ["linear", "linear"]


# ---------------------------------------------------------------------------------- any module


def _encoder():
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


@pytest.mark.parametrize(
    ("module", "shapes"),
    [
        (Small(), [(2, 3, 16, 16)]),
        (_encoder(), [(2, 5, 16)]),
        (nn.TransformerDecoderLayer(16, 4, 32, batch_first=True), [(2, 5, 16), (2, 6, 16)]),
        (nn.Sequential(nn.Conv3d(2, 4, 3), nn.ConvTranspose3d(4, 2, 3)), [(1, 2, 5, 5, 5)]),
        (Call(lambda *three: torch.einsum("abc,acd,de->be", *three)), [(2, 3, 4), (2, 4, 5), (5, 6)]),
        (Call(lambda x: torch.linalg.multi_dot([x, x.t(), x])), [(3, 4)]),
        (Call(lambda b, x: torch.inner(b(x), x), b=nn.Linear(4, 4)), [(3, 4)]),
    ],
)
def test_multiply_accumulates_are_those_that_pytorch_counts(module, shapes):
    """PyTorch's own counter, on a run with numbers: two operations for each multiply-accumulate."""
    inputs = [torch.randn(shape) for shape in shapes]
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):  # the counter does not know the fused one of the CPU
        module.eval()(*inputs)
    assert 2 * from_torch(module, *inputs).macs == counter.get_total_flops()


def _modules():
    return [
        (nn.Softplus(), (2, 3)),
        (nn.PReLU(), (2, 3)),
        (nn.Mish(), (2, 3)),
        (nn.ELU(), (2, 3)),
        (nn.LeakyReLU(), (2, 3)),
        (nn.Hardsigmoid(), (2, 3)),
        (nn.GLU(), (2, 4)),
        (nn.Threshold(0, 1), (2, 3)),
        (nn.Softshrink(), (2, 3)),
        (nn.LogSigmoid(), (2, 3)),
        (nn.Softmin(1), (2, 3)),
        (nn.LocalResponseNorm(3), (1, 4, 3, 3)),
        (nn.BatchNorm1d(4), (2, 4, 3)),
        (nn.InstanceNorm2d(4, affine=True), (1, 4, 3, 3)),
        (nn.FractionalMaxPool2d(2, output_size=2), (1, 2, 6, 6)),
        (nn.LPPool2d(2, 2), (1, 2, 6, 6)),
        (nn.AdaptiveAvgPool1d(3), (1, 2, 6)),
        (nn.AdaptiveMaxPool3d(2), (1, 2, 4, 4, 4)),
        (nn.Upsample(scale_factor=2, mode="bicubic"), (1, 2, 4, 4)),
        (nn.PixelUnshuffle(2), (1, 1, 4, 4)),
        (nn.ChannelShuffle(2), (1, 4, 3, 3)),
        (nn.Unfold(2), (1, 2, 4, 4)),
        (nn.Fold((4, 4), 2), (1, 8, 9)),
        (nn.ReplicationPad2d(1), (1, 2, 4, 4)),
        (nn.CircularPad2d(1), (1, 2, 4, 4)),
        (nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), (1, 2, 4, 4)),
        (Call(lambda x: F.cosine_similarity(x, x + 1)), (2, 3)),
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), (2, 3)),
        (nn.utils.parametrizations.orthogonal(nn.Linear(3, 3)), (2, 3)),
        (nn.RNN(3, 4, nonlinearity="relu"), (5, 2, 3)),
        (Call(lambda x: torch.sort(x)), (2, 3)),
        (Call(lambda x: torch.cumsum(x, 1)), (2, 3)),
        (Call(lambda x: x[:, torch.tensor([0, 2])]), (2, 3)),
        (Call(lambda x: x.gather(1, torch.zeros(2, 2, dtype=torch.long))), (2, 3)),
        (Call(lambda x: torch.rand_like(x) * x), (2, 3)),
        (Call(lambda x: F.one_hot(x.long(), 5).float()), (2, 3)),
        (Call(lambda x: torch.roll(x, 1, 0).flip(1).tril()), (3, 3)),
        (Call(lambda x: x.std() + x.norm() + x.logsumexp(0).prod()), (3, 3)),
        (Call(lambda x: torch.linalg.inv(x) @ x), (3, 3)),
        (Call(lambda x: x.repeat_interleave(2, 0)), (3, 3)),
        (Call(lambda x: torch.fft.irfft(torch.fft.rfft(x) * 2)), (3, 8)),
        (Call(lambda x: x.bool() & (x > 1)), (3, 3)),
    ]


def test_any_module_goes_through_with_the_shapes_that_it_makes():
    modules, shapes = zip(*_modules(), strict=True)

    class Each(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(modules)

        def forward(self, *inputs):
            made = [part(x) for part, x in zip(self.parts, inputs, strict=True)]
            return [
                found for several in made for found in ([several] if torch.is_tensor(several) else several)
            ]

    each, inputs = Each().eval(), [torch.rand(shape) for shape in shapes]
    found = from_torch(each, *inputs)
    assert [found.tensors[name].elements for name in found.outputs] == [
        made.numel() for made in each(*inputs)
    ]
    assert all(name in found.producer for name in found.outputs)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (torch.nonzero, r"the shape \(u\d+, 2\) of nonzero depends on the data"),
        (lambda x: x[x > 0], r"the shape \(u\d+\) of index depends on the data"),
        (lambda x: x.double() @ x.double().t(), "must have elements of type bfloat16, .*, got float64"),
        (
            lambda x: torch.view_as_complex(x) @ torch.ones(2, dtype=torch.cfloat),
            "product of complex numbers",
        ),
        (
            lambda x: torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,)),
            r"operator cond \(\w+\) has a part of the graph of its own",
        ),
        (lambda x: x if x.sum() > 0 else -x, "cannot be exported for inputs"),
        (
            lambda x: torch.addbmm(x, x[None], x[None]),
            r"operator aten.addbmm.default \(addbmm\) hides products",
        ),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(function, message):
    with pytest.raises(NetworkError, match=message) as error:
        graph(function, (2, 2))
    assert "\n" not in str(error.value)


def test_without_an_example_input_nothing_can_be_exported():
    with pytest.raises(ValueError, match="at least one example input"):
        Workload.from_torch(nn.ReLU())


def test_an_empty_example_input_is_refused():
    with pytest.raises(NetworkError, match=r"input 0 of ReLU must not be empty, got shape \(0, 3\)"):
        from_torch(nn.ReLU(), torch.empty(0, 3))


@pytest.mark.parametrize(
    ("module", "given", "message"),
    [
        (nn.Linear(3, 4), (2, 3), r"input 0 of Linear must be a tensor such as .*, got \(2, 3\)"),
        ("resnet8", torch.empty(2, 3), r"module must be a torch.nn.Module, got 'resnet8'"),
    ],
)
def test_what_is_no_module_or_no_tensor_is_refused(module, given, message):
    with pytest.raises(TypeError, match=message):
        from_torch(module, given)


def test_a_wrong_shape_is_one_line_without_the_log_of_pytorch(caplog):
    logs = [logging.getLogger(name) for name in ("torch", "torch._subclasses.fake_tensor")]
    level = logs[0].level
    for log in logs:
        log.addHandler(caplog.handler)
    try:
        with pytest.raises(NetworkError, match=r"Linear cannot be exported for inputs \(2, 5\)") as error:
            from_torch(nn.Linear(3, 4), torch.empty(2, 5))
    finally:
        for log in logs:
            log.removeHandler(caplog.handler)
    assert "\n" not in str(error.value)
    assert [found for found in caplog.records if found.levelno > logging.DEBUG] == []
    assert logs[0].level == level


@pytest.mark.parametrize(
    ("function", "size", "message"),
    [
        (
            torch.neg,
            2**62,
            r"a size of the shape of tensor inputs_0 must be below 2\*\*62, got 46116860184273",
        ),
        (
            lambda x: torch.softmax(x, 0),
            2**60,
            r"vector_ops of operator softmax must be below 2\*\*62, got 5",
        ),
    ],
)
def test_what_64_bits_cannot_count_is_refused_with_its_name(function, size, message):
    with pytest.raises(NetworkError, match=message) as error:
        graph(function, torch.empty(size, dtype=torch.int8, device="meta"))
    assert "\n" not in str(error.value)
