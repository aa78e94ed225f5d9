"""Training graphs against what PyTorch's autograd really computes."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name PyTorch users know
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from accel.training import training_step
from accel.workload import Gemm, Operator, Phase, Role, Tensor, Window, Workload
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
    assert operator(step, "conv2.gradient").window is None
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
        # One tap: it reaches a quarter of the pixels, and the error of the others is zero.
        (nn.Conv2d(4, 8, 1, stride=2), 8, Gemm(m=16, n=4, k=8)),
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


def by_name(workload, *names):
    return [operator(workload, name) for name in names]


def test_two_layers_with_one_weight_sum_its_gradients():
    step = training_step(
        linear_graph(linear("one", "x", "a"), linear("two", "a", "b"), outputs=("b",)),
    )
    first, second, total, update = by_name(
        step, "one.gradient", "two.gradient", "w.gradient.sum", "one.update"
    )
    assert (first.outputs, second.outputs) == (("w.gradient.2",), ("w.gradient.1",))
    assert total.inputs == ("w.gradient.1", "w.gradient.2")
    assert (total.outputs, total.phase, total.vector_ops) == (("w.gradient",), Phase.GRADIENT, 4)
    assert update.inputs == ("w", "w.momentum", "w.gradient")
    assert sum(op.kind == "sgd_momentum" for op in step.operators) == 1


def test_adam_keeps_the_mean_and_the_square_of_every_gradient():
    step = training_step(linear_graph(linear("one", "x", "a"), outputs=("a",)), optimizer="adam")
    (update,) = by_name(step, "one.update")
    assert update.kind == "adam"
    assert update.inputs == ("w", "w.mean", "w.square", "w.gradient")
    assert update.outputs == ("w.new", "w.mean.new", "w.square.new")
    assert {"w.mean", "w.square"} <= set(step.inputs)
    # Mean 3, square 4, root, sum with eps, quotient, product with the rate, difference: 12 for each weight.
    assert update.vector_ops == 12 * step.tensors["w"].elements


def test_several_outputs_receive_their_errors_from_outside():
    step = training_step(
        linear_graph(linear("one", "x", "a"), linear("two", "a", "b"), outputs=("a", "b")),
    )
    assert {"a.error", "b.error"} <= set(step.inputs)
    assert step.tensors["a.error"].role is Role.ERROR
    # One part of a's error arrives from outside, one comes back from b.
    assert operator(step, "a.error.total.sum").inputs == ("a.error", "a.error.1")
    assert operator(step, "one.gradient").inputs == ("x", "a.error.total")
    assert "labels" not in step.tensors


def test_a_result_that_is_used_and_fused_with_a_relu_masks_the_error_from_outside():
    one = Operator(name="one", kind="linear+relu", inputs=("x", "w"), outputs=("a",), vector_ops=4)
    step = training_step(linear_graph(one, linear("two", "a", "b"), outputs=("a", "b")))
    total = operator(step, "a.error.total.sum")
    assert total.inputs == ("a.error", "a.error.1", "a")
    assert total.vector_ops == 4 + 4  # one addition and one mask per element
    lone = training_step(linear_graph(one, outputs=("a", "x")))
    assert operator(lone, "a.error.total.mask").inputs == ("a.error", "a")


def test_what_comes_from_layers_outside_gets_its_error_back():
    roles = {"a": Role.ACTIVATION, "w": Role.WEIGHT, "b": Role.ACTIVATION}
    graph = Workload(
        name="part",
        operators=(linear("one", "a", "b"),),
        tensors={name: Tensor(name=name, shape=(2, 2, 2), role=role) for name, role in roles.items()},
        inputs=("a", "w"),
        outputs=("b",),
    )
    step = training_step(graph)
    assert "a.error" in step.outputs
    assert operator(step, "one.backward").inputs == ("b.error", "w")


def test_an_unknown_kind_reads_all_it_may_need():
    odd = Operator(name="odd", kind="wavelet", inputs=("a", "b"), outputs=("c",), vector_ops=20)
    step = training_step(
        linear_graph(linear("one", "x", "a"), linear("two", "a", "b"), odd, outputs=("c", "a")),
    )
    for name, arrived in (("odd.backward", "a"), ("odd.backward_1", "b")):
        found = operator(step, name)
        assert set(found.inputs) == {"c.error", "a", "b", "c"}
        assert found.vector_ops == 20
        assert found.outputs[0].startswith(f"{arrived}.error")


def test_comparisons_let_no_error_through():
    rank = Operator(name="rank", kind="argmax", inputs=("a",), outputs=("b",))
    step = training_step(linear_graph(linear("one", "x", "a"), rank, outputs=("b",)))
    assert [op.name for op in step.operators] == ["one", "rank", "loss"]


def test_the_gradient_of_a_product_that_is_the_loss_multiplies_nothing():
    roles = {"x": Role.ACTIVATION, "w": Role.WEIGHT, "y": Role.ACTIVATION}
    dot = Operator(name="dot", kind="linear", inputs=("x", "w"), outputs=("y",), gemm=Gemm(m=1, n=1, k=4))
    step = training_step(
        Workload(
            name="graph",
            operators=(dot,),
            tensors={n: Tensor(name=n, shape=() if n == "y" else (4,), role=r) for n, r in roles.items()},
            inputs=("x", "w"),
            outputs=("y",),
        )
    )
    # The error of each operand is the other operand.
    back, gradient = by_name(step, "dot.backward", "dot.gradient")
    assert (back.inputs, back.outputs, back.gemm) == (("w",), ("x.error",), None)
    assert (gradient.inputs, gradient.outputs, gradient.gemm) == (("x",), ("w.gradient",), None)


def test_a_weight_that_is_read_to_no_end_is_not_updated():
    probe = Operator(name="probe", kind="probe", inputs=("w",), outputs=())
    step = training_step(linear_graph(probe, linear("one", "x", "a"), outputs=("a", "x")))
    assert [op.name for op in step.operators if op.kind == "sgd_momentum"] == ["one.update"]
    # It is an output itself, so that its gradient comes from outside.
    step = training_step(linear_graph(probe, linear("one", "x", "a"), outputs=("w", "x")))
    assert [op.name for op in step.operators] == ["probe", "one"]


def test_what_cannot_be_trained_is_refused_with_its_name():
    fused = Operator(name="one", kind="linear+hardswish", inputs=("x", "w"), outputs=("a",))
    with pytest.raises(
        ValueError, match=r"operator one of kind linear\+hardswish: a fused 'hardswish' has no"
    ):
        training_step(linear_graph(fused, outputs=("a",)))
    step = training_step(linear_graph(linear("one", "x", "a"), outputs=("a",)))
    with pytest.raises(ValueError, match="needs a forward graph, graph training is more than that"):
        training_step(step)
    with pytest.raises(ValueError, match="needs operators and an output, graph has none"):
        training_step(linear_graph(outputs=("x",), extra=("x", "w")))
    taken = linear_graph(linear("one", "x", "a"), outputs=("a",), extra=("labels",))
    with pytest.raises(ValueError, match="a tensor is already called labels"):
        training_step(taken)


class Block(nn.Module):
    """A pre-normalised attention block between an embedding and a head that share their weight."""

    def __init__(self, width=16, heads=4, words=30):
        super().__init__()
        self.heads = heads
        self.words = nn.Embedding(words, width)
        self.position = nn.Parameter(torch.zeros(1, 6, width))
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens):
        x = self.words(tokens) + self.position
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        scores = F.softmax(q @ k.transpose(-2, -1), -1)
        x = x + self.proj((scores @ v).transpose(1, 2).flatten(2))
        return self.head(x + self.down(F.gelu(self.up(x))))


@pytest.fixture(scope="module")
def block_step():
    return Workload.from_torch(Block(), torch.zeros(2, 6, dtype=torch.int64)).training()


def test_an_attention_block_has_the_products_that_pytorch_counts(block_step):
    block, tokens = Block(), torch.zeros(2, 6, dtype=torch.int64)
    with FlopCounterMode(display=False) as forward:
        out = block(tokens)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    macs = {phase: sum(op.macs for op in block_step.operators if op.phase is phase) for phase in Phase}
    assert 2 * macs[Phase.FORWARD] == forward.get_total_flops()
    assert 2 * (macs[Phase.BACKWARD] + macs[Phase.GRADIENT]) == backward.get_total_flops()


def test_every_parameter_of_an_attention_block_is_trained(block_step):
    block = Block()
    block(torch.zeros(2, 6, dtype=torch.int64)).sum().backward()
    tied = operator(block_step, "words").inputs[0]  # one of its two names
    for name, parameter in block.named_parameters():
        if parameter is block.words.weight:
            name = tied
        assert block_step.tensors[f"{name}.gradient"].shape == tuple(parameter.grad.shape)
        assert f"{name}.new" in block_step.outputs
    total = operator(block_step, f"{tied}.gradient.sum")
    assert set(total.inputs) == {f"{tied}.gradient.1", f"{tied}.gradient.2"}


def test_both_operands_of_an_attention_product_get_an_error(block_step):
    forward = operator(block_step, "matmul").gemm
    assert forward == Gemm(m=6, n=6, k=4, count=8)
    first, second = by_name(block_step, "matmul.backward", "matmul.backward_1")
    assert first.gemm == Gemm(m=6, n=4, k=6, count=8)
    assert second.gemm == Gemm(m=4, n=6, k=6, count=8)
    assert first.gemm.macs == second.gemm.macs == forward.macs


def test_what_was_broadcast_sums_its_errors(block_step):
    position = operator(block_step, "add.gradient")
    assert position.outputs == ("position.gradient",)
    assert position.inputs == ("add.output.error",)
    assert position.vector_ops == 2 * 6 * 16
    norm = operator(block_step, "norm.gradient")
    assert norm.inputs == ("add.output", "norm.output.error")
    assert norm.outputs == ("norm.weight.gradient", "norm.bias.gradient")
    # Scale: statistics and normalised value anew (5), product (1) and sum (1); shift: a sum.
    assert norm.vector_ops == (7 + 1) * 2 * 6 * 16
    rows = operator(block_step, "words.gradient")
    assert rows.inputs == ("tokens", "add.output.error")  # the table itself is not read
    assert rows.vector_ops == 2 * 6 * 16


def products(step):
    """Forward product, those that give errors of its operands, and that of its weight."""
    for forward in step.operators:
        if forward.gemm and forward.phase is Phase.FORWARD:
            yield (
                forward,
                [op for op in step.operators if op.name.startswith(f"{forward.name}.backward") and op.gemm],
                [op for op in step.operators if op.name == f"{forward.name}.gradient" and op.gemm],
            )


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.lstm = nn.LSTM(8, 6, batch_first=True)
        self.gru = nn.GRU(6, 4, batch_first=True)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.gru(self.lstm(self.first(x))[0])[0][:, -1])


class Shapes(nn.Module):
    """Convolutions over one, two and three axes, plain and transposed, whose windows are never cut."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(2, 4, 1)
        self.line = nn.Conv1d(4, 8, 1)
        self.plane = nn.Conv2d(8, 4, 1, groups=2)
        self.up = nn.ConvTranspose2d(4, 6, 2, 2)
        self.space = nn.Conv3d(6, 4, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = torch.tanh(self.line(F.leaky_relu(self.first(x))))
        x = self.up(self.plane(x.unflatten(-1, (4, 4))))
        return self.fc(self.space(x.unsqueeze(2)).mean((2, 3, 4)))


@pytest.mark.parametrize(
    ("module", "example"),
    [
        (Shapes, torch.empty(2, 2, 16)),
        (Recurrent, torch.empty(2, 5, 5)),
        (Block, torch.zeros(2, 6, dtype=torch.int64)),
    ],
)
def test_every_product_comes_back_as_often_as_it_went_forth(module, example):
    step = Workload.from_torch(module(), example).training()
    found = list(products(step))
    first = 1 if example.is_floating_point() else 0
    assert len(found) == {Shapes: 6, Recurrent: 6, Block: 7}[module]
    for place, (forward, errors, gradients) in enumerate(found):
        if forward.kind == "matmul":
            assert [op.macs for op in errors] == [forward.macs] * 2
            assert not gradients
        else:
            assert [op.macs for op in errors] == [forward.macs] * (place >= first)
            assert [op.macs for op in gradients] == [forward.macs]
    by_phase = {phase: sum(op.macs for op in step.operators if op.phase is phase) for phase in Phase}
    data = found[0][0].macs if first else 0
    assert by_phase[Phase.BACKWARD] + by_phase[Phase.GRADIENT] == 2 * by_phase[Phase.FORWARD] - data


def test_the_recurrent_weight_sums_over_all_steps():
    step = Workload.from_torch(Recurrent(), torch.empty(2, 5, 5)).training()
    (forward,) = (op for op in step.operators if op.kind == "lstm_recurrent")
    assert forward.gemm == Gemm(m=2, n=24, k=6, count=5)
    assert operator(step, f"{forward.name}.gradient").gemm == Gemm(m=6, n=24, k=2 * 5)
    backward = operator(step, f"{forward.name}.backward")
    assert backward.gemm == Gemm(m=2, n=6, k=24, count=5)
    assert {forward.inputs[0], forward.outputs[0]} <= set(backward.inputs)  # the states it went through


def test_a_convolution_of_stride_one_is_a_convolution_backwards():
    class Dilated(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(2, 4, 1)
            self.conv = nn.Conv2d(4, 6, (3, 5), padding=(1, 3), dilation=(1, 2), groups=2)
            self.strided = nn.Conv2d(6, 4, 3, stride=2)

        def forward(self, x):
            return self.strided(self.conv(self.first(x)))

    step = Workload.from_torch(Dilated(), torch.empty(2, 2, 12, 12)).training()
    assert operator(step, "conv.backward").window == Window(
        batch=2,
        channels=3,
        input=(12, 10),
        output=(12, 12),
        kernel=(3, 5),
        stride=(1, 1),
        dilation=(1, 2),
        padding=(1, 5),  # dilation (kernel - 1) - padding
    )
    assert operator(step, "conv.backward").gemm == Gemm(m=2 * 144, n=2, k=15 * 3, count=2)
    assert operator(step, "strided.backward").window is None


@pytest.mark.parametrize(
    ("kernel", "padding", "dilation"), [(3, 1, 1), (3, 0, 1), (4, 2, 1), (3, 2, 2), (1, 0, 1)]
)
def test_the_window_backwards_visits_each_pair_of_pixel_and_tap_that_the_one_forwards_does(
    kernel, padding, dilation
):
    size = 9
    after = size + 2 * padding - dilation * (kernel - 1)
    forward = Window(
        batch=1, channels=1, input=(size,), output=(after,), kernel=(kernel,), stride=(1,),
        dilation=(dilation,), padding=(padding,),
    )  # fmt: skip
    conv = Operator(
        name="conv", kind="conv1d", inputs=("a", "w"), outputs=("b",), gemm=Gemm(m=after, n=1, k=kernel),
        window=forward,
    )  # fmt: skip
    roles = {"a": Role.ACTIVATION, "w": Role.WEIGHT, "b": Role.ACTIVATION}
    shapes = {"a": (1, 1, size), "w": (1, 1, kernel), "b": (1, 1, after)}
    graph = Workload(
        name="line",
        operators=(conv,),
        tensors={n: Tensor(name=n, shape=shapes[n], role=role) for n, role in roles.items()},
        inputs=("a", "w"),
        outputs=("b",),
    )
    backward = operator(training_step(graph), "conv.backward").window

    def pairs(window):
        (sizes, places, taps) = window.input[0], window.output[0], window.kernel[0]
        for place in range(places):
            for tap in range(taps):
                read = place - window.padding[0] + tap * window.dilation[0]
                if 0 <= read < sizes:
                    yield place, read, tap

    turned = {(read, place, kernel - 1 - tap) for place, read, tap in pairs(backward)}
    assert turned == set(pairs(forward))


def test_a_step_for_another_batch_is_that_of_the_rescaled_graph():
    graph = Workload.from_torch(Net(), torch.empty(4, 3, 8, 8))
    step = graph.training(batch=32)
    assert step.batch == 32
    assert step == Workload.from_torch(Net(), torch.empty(32, 3, 8, 8)).training()
    assert step.macs == 8 * graph.training().macs


def test_a_scalar_output_is_a_loss():
    class Penalty(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            return (self.fc(x) ** 2).mean()

    step = Workload.from_torch(Penalty(), torch.zeros(2, 4)).training()
    assert not [name for name in step.inputs if step.tensors[name].role is Role.ERROR]
    assert step.tensors["fc.weight.gradient"].shape == (3, 4)
    assert operator(step, "mean.backward").inputs == ()  # the gradient of a mean is a constant


@pytest.mark.parametrize(
    ("module", "read", "ops"),
    [
        (nn.LeakyReLU(), ("output",), 2),
        (nn.Sigmoid(), ("output",), 3),
        (nn.Tanh(), ("output",), 3),
        (nn.GELU(), ("input",), 11),
        (nn.SiLU(), ("input",), 9),
        (nn.Hardswish(), ("input",), 5),
        (nn.Softmax(-1), ("output",), 4),
        (nn.MaxPool1d(2), ("input", "output"), 0.5),  # one comparison per pair
        (nn.AvgPool1d(2), (), 1),
        (nn.Flatten(0), None, 0),  # a view
    ],
)
def test_the_backward_pass_reads_what_the_derivative_needs(module, read, ops):
    class Between(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 8)
            self.middle = module

        def forward(self, x):
            return self.middle(self.fc(x)) * 2

    step = Workload.from_torch(Between(), torch.zeros(2, 3, 4)).training()
    if read is None:
        assert "middle.backward" not in [op.name for op in step.operators]
        return
    found = operator(step, "middle.backward")
    names = {"input": "fc.output", "output": "middle.output"}
    assert found.inputs == ("middle.output.error", *(names[word] for word in read))
    assert found.vector_ops == ops * 2 * 3 * 8


def test_a_recurrent_layer_goes_back_through_its_weight_at_every_step():
    step = Workload.from_torch(nn.LSTM(6, 5, batch_first=True), torch.empty(2, 7, 6)).training()
    backward, gradient = (operator(step, f"lstm_recurrent.{part}") for part in ("backward", "gradient"))
    assert backward.gemm == Gemm(m=2, n=5, k=20, count=7)
    assert step.tensors[backward.inputs[1]].shape == (20, 5)  # gates x state
    assert gradient.gemm == Gemm(m=5, n=20, k=14)
    assert [step.tensors[name].shape for name in gradient.inputs[:2]] == [(2, 7, 5), (2, 7, 20)]
