"""PyTorch modules become the graphs one would draw by hand."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name PyTorch users know
from torch import nn

from accel.workload import Gemm, Role, Workload


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
            return F.cross_entropy(self.fc(x), target)

    workload = Workload.from_torch(WithLoss(), torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))
    assert workload.operators[-1].kind == "cross_entropy"
    assert workload.tensors["target"].role is Role.LABEL
    assert workload.tensors[workload.outputs[0]].shape == ()


def test_a_module_called_twice_gives_two_operators():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(self.fc(x))

    workload = Workload.from_torch(Twice(), torch.zeros(2, 4))
    assert [op.name for op in workload.operators] == ["fc", "fc_1"]
    assert workload.operators[1].inputs == ("fc.output", "fc.weight", "fc.bias")


def test_the_module_is_left_as_it_was():
    module = Small().train()
    Workload.from_torch(module, torch.empty(2, 3, 16, 16))
    assert module.training
    assert all(parameter.device.type == "cpu" for parameter in module.parameters())


def test_a_relu_of_a_result_that_others_read_stays_an_operator():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            y = self.fc(x)
            return y + F.relu(y)

    workload = Workload.from_torch(Shared(), torch.zeros(2, 4))
    assert [op.kind for op in workload.operators] == ["linear", "relu", "add"]


class _Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


@pytest.mark.parametrize(
    ("function", "shapes", "message"),
    [
        (
            torch.sin,
            [(2, 3)],
            r"operator aten\.sin\.default \(sin\) is not supported; supported are adaptive_avg_pool2d",
        ),
        (torch.add, [(2, 3), (3,)], r"operator add must not broadcast, got \(2, 3\) and \(3,\)"),
        (lambda x: x + 1, [(2, 3)], "operator add must have two tensors and no factor"),
    ],
)
def test_what_is_not_supported_is_named(function, shapes, message):
    with pytest.raises(ValueError, match=message):
        Workload.from_torch(_Call(function), *(torch.zeros(shape) for shape in shapes))


def test_without_an_example_input_nothing_can_be_exported():
    with pytest.raises(ValueError, match="at least one example input"):
        Workload.from_torch(nn.ReLU())
