"""A rescaled workload is the one that is read at the other batch."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name PyTorch users know
from torch import nn

from accel.rescaling import holders_of_the_batch
from accel.workload import Gemm, Operator, Role, Tensor, Workload


class Convolutions(nn.Module):
    """Strides, groups, a residual, a transposed convolution, norms and pools."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = F.silu(self.norm(self.stem(x)))
        x = torch.cat([x, self.up(F.relu(self.down(x)))], 1)
        return self.fc(F.max_pool2d(x[:, 4:12], 2).mean((2, 3)))


class Attention(nn.Module):
    """A block with a learned position and a class token, whose expansion depends on no input."""

    def __init__(self, width=16, heads=4):
        super().__init__()
        self.heads = heads
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 6, width))
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        scores = F.softmax(q @ k.transpose(-2, -1) * 0.5, -1)
        return x + self.proj((scores @ v).transpose(1, 2).flatten(2))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.lstm = nn.LSTM(8, 6, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(12, 3)

    def forward(self, tokens):
        return self.fc(self.lstm(self.words(tokens))[0][:, -1])


CASES = {
    "convolutions": (Convolutions, lambda batch: torch.empty(batch, 3, 8, 8)),
    "attention": (Attention, lambda batch: torch.empty(batch, 5, 16)),
    "recurrent": (Recurrent, lambda batch: torch.zeros(batch, 7, dtype=torch.int64)),
}


@pytest.fixture(scope="module", params=list(CASES))
def read(request):
    module, example = CASES[request.param]
    return {batch: Workload.from_torch(module(), example(batch)) for batch in (1, 2, 6)}


@pytest.mark.parametrize(("old", "new"), [(1, 2), (1, 6), (2, 6), (6, 2), (2, 1)])
def test_it_agrees_tensor_by_tensor_and_operator_by_operator(read, old, new):
    rescaled = read[old].with_batch(new)
    assert rescaled.tensors == read[new].tensors
    assert rescaled.operators == read[new].operators
    assert rescaled == read[new]


@pytest.mark.parametrize(("old", "new"), [(1, 2), (2, 6), (6, 2)])
def test_a_training_step_rescales_like_its_forward_graph(read, old, new):
    assert read[old].training(new) == read[new].training()
    assert read[old].training().with_batch(new) == read[new].training()


def test_parameters_and_what_is_made_of_them_alone_do_not_grow():
    workload = Workload.from_torch(Attention(), torch.empty(2, 5, 16))
    held = holders_of_the_batch(workload)
    assert not {name for name in held if workload.tensors[name].role is Role.WEIGHT}
    grown = workload.with_batch(4)
    assert grown.parameters == workload.parameters
    assert grown.macs == 2 * workload.macs
    assert grown.activation_bytes == 2 * workload.activation_bytes


def flat(*operators, batch=1, **shapes):
    roles = {"w": Role.WEIGHT, "x": Role.INPUT, "mask": Role.INPUT}
    return Workload(
        name="flat",
        operators=operators,
        tensors={n: Tensor(name=n, shape=s, role=roles.get(n, Role.ACTIVATION)) for n, s in shapes.items()},
        inputs=tuple(name for name in shapes if name in roles),
        outputs=("y",),
        batch=batch,
    )


def test_flat_tensors_grow_as_a_whole():
    fc = Operator(name="fc", kind="linear", inputs=("x", "w"), outputs=("y",), vector_ops=7)
    grown = flat(fc, x=(12,), w=(84,), y=(7,)).with_batch(3)
    assert {name: found.shape for name, found in grown.tensors.items()} == {
        "x": (36,),
        "w": (84,),
        "y": (21,),
    }
    assert grown.operators[0].vector_ops == 21


def test_an_input_without_the_batch_stays():
    add = Operator(name="add", kind="add", inputs=("x", "mask"), outputs=("y",))
    grown = flat(add, batch=2, x=(2, 5, 5), mask=(5, 5), y=(2, 5, 5)).with_batch(4)
    assert [grown.tensors[name].shape for name in ("x", "mask", "y")] == [(4, 5, 5), (5, 5), (4, 5, 5)]


def test_samples_that_share_an_axis_with_heads_grow_with_it():
    product = Operator(
        name="scores", kind="matmul", inputs=("a", "a"), outputs=("y",), gemm=Gemm(m=5, n=5, k=4, count=6)
    )
    move = Operator(name="move", kind="copy", inputs=("x",), outputs=("a",))
    grown = flat(move, product, batch=2, x=(2, 5, 12), a=(6, 5, 4), y=(6, 5, 5)).with_batch(6)
    assert grown.tensors["a"].shape == (18, 5, 4)
    assert grown.operators[1].gemm == Gemm(m=5, n=5, k=4, count=18)


def test_what_is_no_whole_number_is_refused_with_its_name():
    fc = Operator(
        name="fc", kind="linear", inputs=("x", "w"), outputs=("y",), gemm=Gemm(m=2, n=3, k=5), vector_ops=1
    )
    shapes = {"x": (2, 5), "w": (3, 5), "y": (2, 3)}
    with pytest.raises(ValueError, match="vector_ops 1 of operator fc times 3/2 is no whole number"):
        flat(fc, batch=2, **shapes).with_batch(3)
    with pytest.raises(ValueError, match=r"tensor y of shape \(3, 3\) cannot be rescaled to 3/2 of"):
        flat(fc, batch=2, **{**shapes, "y": (3, 3)}).with_batch(3)
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        flat(fc, batch=2, **shapes).with_batch(0)
    for batch in ("3", 1.5):
        with pytest.raises(TypeError, match=f"batch must be a whole number, got {batch!r}"):
            flat(fc, batch=2, **shapes).with_batch(batch)
    with pytest.raises(ValueError, match=r"a size of the shape of tensor x must be below 2\*\*62"):
        flat(fc, batch=1, x=(2**40, 5), w=(3, 5), y=(2, 3)).with_batch(2**30)
