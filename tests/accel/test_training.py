"""Training graphs against what PyTorch's autograd really computes."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name PyTorch users know
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from accel.training import training_step
from accel.workload import Gemm, Operator, Phase, Role, Tensor, Workload
from numerics.formats import E4M3, E5M2


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 5, padding=2)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(16, 12, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(12 * 2 * 2, 20)
        self.fc2 = nn.Linear(20, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = self.pool(F.relu(self.conv3(x)))
        return self.fc2(F.relu(self.fc1(torch.flatten(x, 1))))


@pytest.fixture(scope="module")
def step():
    return Workload.from_torch(Net(), torch.empty(4, 3, 8, 8)).training()


def operator(workload, name):
    return next(op for op in workload.operators if op.name == name)


def test_gradients_have_the_shapes_autograd_makes(step):
    net = Net()
    kept = {}

    def keep(name):
        def hook(_module, _inputs, out):
            out.retain_grad()
            kept[name] = out

        return hook

    for name, module in net.named_children():
        module.register_forward_hook(keep(name))
    F.cross_entropy(net(torch.randn(4, 3, 8, 8)), torch.zeros(4, dtype=torch.long)).backward()
    for name, out in kept.items():
        assert step.tensors[f"{name}.output.error"].shape == tuple(out.grad.shape)
    for name, parameter in net.named_parameters():
        assert step.tensors[f"{name}.gradient"].shape == tuple(parameter.grad.shape)
    errors = {name for name, tensor in step.tensors.items() if tensor.role is Role.ERROR}
    assert errors == {f"{name}.output.error" for name in kept}


def test_multiply_accumulates_are_those_pytorch_counts(step):
    with FlopCounterMode(display=False) as forward:
        loss = F.cross_entropy(Net()(torch.randn(4, 3, 8, 8)), torch.zeros(4, dtype=torch.long))
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    by_phase = {phase: sum(op.gemm.macs for op in step.gemms() if op.phase is phase) for phase in Phase}
    assert 2 * by_phase[Phase.FORWARD] == forward.get_total_flops()
    assert 2 * (by_phase[Phase.BACKWARD] + by_phase[Phase.GRADIENT]) == backward.get_total_flops()
    assert by_phase[Phase.GRADIENT] == by_phase[Phase.FORWARD]
    first = operator(step, "conv1").gemm.macs
    assert by_phase[Phase.BACKWARD] == by_phase[Phase.FORWARD] - first


def test_matrix_products_by_hand(step):
    assert operator(step, "conv2").gemm == Gemm(m=4 * 64, n=16, k=9 * 8)
    assert operator(step, "conv2.backward").gemm == Gemm(m=4 * 64, n=8, k=9 * 16)
    assert operator(step, "conv2.gradient").gemm == Gemm(m=9 * 8, n=16, k=4 * 64)
    # Stride 2: four input pixels per output pixel, a quarter of 9 x 12 products in each sum.
    assert operator(step, "conv3.backward").gemm == Gemm(m=4 * 16, n=4 * 16, k=9 * 12 // 4)
    assert operator(step, "fc1.backward").gemm == Gemm(m=4, n=48, k=20)
    assert operator(step, "fc1.gradient").gemm == Gemm(m=48, n=20, k=4)


def test_the_backward_operators_read_what_they_must(step):
    assert "conv1.backward" not in [op.name for op in step.operators]  # the data need no gradient
    assert operator(step, "loss.backward").inputs == ("fc2.output", "labels")
    # The ReLU's mask is applied by whoever makes the error of its output.
    assert operator(step, "fc2.backward").inputs == ("fc2.output.error", "fc2.weight", "fc1.output")
    assert operator(step, "fc2.backward").vector_ops == 80
    assert operator(step, "conv3.backward").inputs == ("conv3.output.error", "conv3.weight", "conv2.output")
    assert operator(step, "pool.backward").inputs == ("pool.output.error", "conv3.output", "pool.output")
    assert operator(step, "conv3.gradient").inputs == ("conv2.output", "conv3.output.error")
    assert operator(step, "conv3.gradient").outputs == ("conv3.weight.gradient", "conv3.bias.gradient")
    assert operator(step, "conv2.gradient").outputs == ("conv2.weight.gradient",)


def test_the_update_turns_state_into_new_state(step):
    update = operator(step, "conv3.update")
    assert update.phase is Phase.UPDATE
    assert update.inputs[:3] == ("conv3.weight", "conv3.weight.momentum", "conv3.weight.gradient")
    assert update.inputs[3:] == ("conv3.bias", "conv3.bias.momentum", "conv3.bias.gradient")
    assert update.vector_ops == 4 * (12 * 16 * 9 + 12)
    for name in update.outputs:
        assert name in step.outputs
    assert "conv3.weight.momentum" in step.inputs
    assert step.tensors["conv3.weight.momentum.new"].role is Role.OPTIMIZER_STATE
    assert len(step.outputs) == 1 + 2 * 9  # the loss, nine parameters and their momentum


def test_formats_by_role_set_the_bytes(step):
    narrow = step.with_formats({Role.ACTIVATION: E4M3, Role.ERROR: E5M2})
    assert narrow.tensors["conv1.output"].bytes == 4 * 8 * 64
    assert narrow.tensors["conv1.output.error"].bytes == 4 * 8 * 64
    assert narrow.tensors["conv1.weight"].bytes == 4 * 600
    assert narrow.tensors["labels"].bytes == 16


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.conv = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = x + F.relu(self.conv(x))
        x = x * x
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def test_errors_of_a_tensor_used_twice_are_added():
    step = Workload.from_torch(Residual(), torch.empty(2, 3, 6, 6)).training()
    total = operator(step, "add.output.error.sum")
    assert set(total.inputs) == {"add.output.error.1", "add.output.error.2"}  # both factors of x * x
    # An addition hands its error on unchanged, so the ReLU beside it needs a mask of its own.
    assert operator(step, "conv.output.error.mask").inputs == ("add.output.error", "conv.output")
    stem = operator(step, "stem.output.error.sum")
    assert set(stem.inputs[:-1]) == {"add.output.error", "stem.output.error.1"}
    assert stem.inputs[-1] == "stem.output"  # the stem's own mask
    assert stem.vector_ops == 2 * 2 * 4 * 36
    assert operator(step, "conv.backward").gemm == Gemm(m=2 * 36, n=2, k=9 * 2, count=2)


@pytest.mark.parametrize(
    ("module", "size", "expected"),
    [
        # 28 -> 24: most windows are whole, borders multiply the zeros of padding.
        (nn.Conv2d(4, 6, 5), 28, Gemm(m=28 * 28, n=4, k=25 * 6)),
        # One output pixel: every input pixel meets one tap only.
        (nn.Conv2d(4, 6, 5), 5, Gemm(m=1, n=25 * 4, k=6)),
        # 9 x 3 products are no multiple of 4, so the sums keep their length.
        (nn.Conv2d(4, 3, 3, stride=2, padding=1), 8, Gemm(m=16, n=4, k=27)),
        (nn.Conv2d(4, 8, 1, stride=2), 8, Gemm(m=16, n=16, k=2)),
    ],
)
def test_the_error_of_an_odd_convolution_counts_true_products(module, size, expected):
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(2, 4, 1)
            self.conv = module

        def forward(self, x):
            return torch.flatten(F.adaptive_avg_pool2d(self.conv(self.first(x)), 1), 1)

    step = Workload.from_torch(Head(), torch.empty(1, 2, size, size)).training()
    backward, forward = operator(step, "conv.backward").gemm, operator(step, "conv").gemm
    assert backward == expected
    if module.stride[0] > 1:
        assert backward.macs == forward.macs


def test_a_loss_in_the_module_is_used():
    class WithLoss(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x, target):
            return F.cross_entropy(self.fc(x), target)

    workload = Workload.from_torch(WithLoss(), torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))
    step = training_step(workload)
    assert [op.name for op in step.operators] == [
        "fc",
        "cross_entropy",
        "cross_entropy.backward",
        "fc.gradient",
        "fc.update",
    ]
    assert step.outputs[0] == "cross_entropy.output"


def linear_graph(*operators, outputs, extra=()):
    """Graph of 2 x 2 activations `x`, `a`, `b`, ... and one weight."""
    names = {name for op in operators for name in (*op.inputs, *op.outputs)} | set(extra)
    roles = {"w": Role.WEIGHT, "x": Role.INPUT}
    return Workload(
        name="graph",
        operators=operators,
        tensors={n: Tensor(name=n, shape=(2, 2), role=roles.get(n, Role.ACTIVATION)) for n in names},
        inputs=("x", "w"),
        outputs=outputs,
    )


def linear(name, source, result):
    return Operator(
        name=name, kind="linear", inputs=(source, "w"), outputs=(result,), gemm=Gemm(m=2, n=2, k=2)
    )


def test_what_cannot_be_trained_is_refused_with_its_name():
    shared = linear_graph(linear("one", "x", "a"), linear("two", "a", "b"), outputs=("b",))
    with pytest.raises(ValueError, match="weight w is shared by one, two"):
        training_step(shared)
    odd = Operator(name="odd", kind="sort", inputs=("a",), outputs=("b",))
    with pytest.raises(ValueError, match="operator odd of kind sort has no known derivative"):
        training_step(linear_graph(linear("one", "x", "a"), odd, outputs=("b",)))
    with pytest.raises(ValueError, match="needs one output, got a, b"):
        training_step(linear_graph(linear("one", "x", "a"), linear("two", "x", "b"), outputs=("a", "b")))
