"""What holds of all products beside their bits: shapes, wide sums, overflow, random numbers, threads."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from numerics import cast, parse_format, threads
from numerics.torch import LayerPolicy, emulate
from oracles.geometries import convolutions, layer_of

WIDE = LayerPolicy(forward="e8m23", backward="e8m23", gradient="e8m23 chunk=3")
FP8 = LayerPolicy.uniform("e5m2", "e6m9")


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-5)


def equal(one, other):
    assert torch.equal(one, other)


def compare(model, inputs, policy, check, draw):
    """Output and gradients of a model and its twin, with parameters, inputs and errors drawn anew."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(draw(parameter.shape))
    inputs = [draw(shape).requires_grad_() for shape in inputs]
    twin = emulate(model, policy, seed=0)
    y, emulated = model(*inputs), twin(*inputs)
    check(emulated, y)
    errors = draw(y.shape)
    expected = torch.autograd.grad(y, [*inputs, *model.parameters()], errors)
    found = torch.autograd.grad(emulated, [*inputs, *twin.parameters()], errors)
    for one, other in zip(found, expected, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        check(one, other)


def both_ways(model, inputs, seed=0):
    """Without formats the twin is torch; with wide sums of small integers it is exact."""
    generator = torch.Generator().manual_seed(seed)
    compare(model, inputs, LayerPolicy(), close, lambda s: torch.randn(tuple(s), generator=generator))
    integers = lambda s: torch.randint(-8, 9, tuple(s), generator=generator).float()  # noqa: E731
    compare(model, inputs, WIDE, equal, integers)


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")  # a remark of `flags`
@pytest.mark.parametrize("transposed", [False, True], ids=["convolution", "transposed"])
def test_without_formats_a_convolution_is_that_of_torch(transposed):
    @settings(max_examples=40)
    @given(case=convolutions(transposed=transposed), batch=st.integers(1, 3), seed=st.integers(0, 2**31))
    def check(case, batch, seed):
        # oneDNN crashes now and then on dilated, strided convolutions of images that are mostly padding.
        with torch.backends.mkldnn.flags(enabled=False):
            both_ways(layer_of(case), [(batch, case[1]["in_channels"], *case[2])], seed)

    check()


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 5), (0, 5), (1, 1, 1, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_agree_with_torch_on_any_leading_shape(shape, bias):
    both_ways(nn.Linear(5, 3, bias=bias), [shape])


class Product(nn.Module):
    def forward(self, a, b):
        return torch.matmul(a, b)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((5,), (5,)),
        ((5,), (5, 3)),
        ((4, 5), (5,)),
        ((2, 4, 5), (5,)),
        ((5,), (2, 5, 3)),
        ((2, 4, 5), (5, 3)),
        ((4, 5), (2, 5, 3)),
        ((2, 1, 4, 5), (3, 5, 2)),
        ((3, 1, 2), (3, 2, 1)),
        ((0, 4, 5), (5, 3)),
    ],
    ids=str,
)
def test_matrix_products_agree_with_torch_on_any_shapes(left, right):
    both_ways(Product(), [left, right])


UNBATCHED = [
    (nn.Conv1d(2, 3, 2), (2, 4)),
    (nn.Conv2d(2, 3, 2), (2, 4, 4)),
    (nn.ConvTranspose1d(2, 3, 2), (2, 4)),
    (nn.ConvTranspose2d(2, 3, 2), (2, 4, 4)),
]
PADDED = [
    (nn.Conv1d(2, 3, 4, padding="same", dilation=2), (2, 2, 9)),
    (nn.Conv2d(2, 2, (2, 3), padding="same", groups=2), (2, 2, 4, 5)),
    (nn.Conv2d(2, 3, 2, padding="valid"), (2, 2, 4, 5)),
    (nn.Conv1d(2, 3, 3, padding=2, padding_mode="circular"), (2, 2, 6)),
    (nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="reflect"), (2, 2, 5, 6)),
    (nn.Conv2d(2, 3, 3, padding="same", padding_mode="replicate"), (1, 2, 5, 6)),
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # a remark of torch
@pytest.mark.parametrize(("layer", "shape"), UNBATCHED + PADDED, ids=str)
def test_single_images_and_all_paddings_work_as_in_torch(layer, shape):
    both_ways(layer, [shape])


@pytest.mark.parametrize(
    ("kind", "shape"), [(nn.ConvTranspose1d, (2, 4)), (nn.ConvTranspose2d, (1, 2, 4, 3))]
)
def test_the_size_of_a_transposed_convolution_may_be_asked_for(kind, shape):
    layer = kind(2, 3, 3, stride=2, padding=1)
    axes = len(layer.kernel_size)
    x, size = torch.randn(shape), [2 * n for n in shape[-axes:]]
    close(emulate(layer, LayerPolicy(), seed=0)(x, output_size=size), layer(x, output_size=size))


@pytest.mark.parametrize(
    ("layer", "shape", "output"),
    [
        (nn.Conv2d(2, 3, 2), (0, 2, 4, 4), (0, 3, 3, 3)),
        (nn.ConvTranspose1d(2, 3, 2), (0, 2, 4), (0, 3, 5)),
        (nn.Linear(2, 3), (0, 2), (0, 3)),
    ],
)
@pytest.mark.parametrize("policy", [FP8, LayerPolicy.uniform("mxfp4", "e6m9"), LayerPolicy()], ids=str)
def test_an_empty_batch_has_an_empty_result_and_zero_gradients(layer, shape, output, policy):
    twin = emulate(layer, policy, seed=0)
    y = twin(torch.empty(shape))
    assert y.shape == output
    y.sum().backward()
    assert not twin.weight.grad.any()
    assert twin.weight.grad.shape == twin.weight.shape


LAYERS = [
    (nn.Linear(4, 3), (2, 4)),
    (nn.Conv2d(2, 3, 2), (1, 2, 4, 4)),
    (nn.Conv1d(2, 3, 2), (1, 2, 4)),
    (nn.ConvTranspose2d(2, 3, 2), (1, 2, 4, 4)),
]


@pytest.mark.parametrize("frozen", ["weight", "bias", "x"])
@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=str)
def test_gradients_that_nobody_wants_are_left_out(layer, shape, frozen):
    twin = emulate(layer, FP8, seed=0)
    x = torch.ones(shape, requires_grad=frozen != "x")
    if frozen != "x":
        getattr(twin, frozen).requires_grad_(False)
    twin(x).sum().backward()
    for name, tensor in (("weight", twin.weight), ("bias", twin.bias), ("x", x)):
        assert (tensor.grad is None) == (name == frozen)


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=str)
def test_gradients_of_two_backward_passes_add_up(layer, shape):
    twin = emulate(layer, FP8, seed=0)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    twin(x).sum().backward()
    once = twin.weight.grad.clone()
    twin(x).sum().backward()
    assert torch.equal(twin.weight.grad, once + once)


def test_operands_saturate_and_accumulators_overflow():
    layer = nn.Linear(2, 1, bias=False)
    nn.init.constant_(layer.weight, 1e9)
    top = parse_format("e5m2").max
    assert (
        emulate(layer, LayerPolicy.uniform("e5m2", "e8m9"), seed=0)(torch.tensor([[1.0, 0.0]])).item() == top
    )
    narrow = emulate(layer, LayerPolicy.uniform("e5m2", "e5m9"), seed=0)
    assert narrow(torch.tensor([[1.0, 1.0]])).item() == math.inf


def test_a_second_derivative_is_refused_rather_than_wrong():
    x = torch.ones(1, 2, requires_grad=True)
    for layer in (nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU())):
        twin = emulate(layer, LayerPolicy(), seed=0)
        (gradient,) = torch.autograd.grad((twin(x) ** 2).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            (gradient.sum() + (x**2).sum()).backward()


# What is not finite.

UNITS = ["e6m9", "e6m9 chunk=2 outer=e8m23", "hopper-fp8", "exact output=e6m9", "s9.8 rounding=nearest-even"]
OPERANDS = ["e4m3fn", "e4m3fn scaling=tensor", "e4m3fn scaling=channel", "e4m3fn scaling=tensor-pow2:2"]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("operand", OPERANDS)
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=str)
def test_no_layer_hides_what_is_not_finite(layer, shape, unit, operand, bad):
    twin = emulate(layer, LayerPolicy.uniform(operand, unit, weight_gradient=operand), seed=0)
    clean = torch.ones(shape, requires_grad=True)
    x = clean.detach().clone()
    x.view(-1)[1] = bad
    x.requires_grad_()
    assert not twin(x).isfinite().all()
    y = twin(clean)
    errors = torch.ones_like(y)
    errors.view(-1)[0] = bad
    y.backward(errors)
    for gradient in (clean.grad, twin.weight.grad, twin.bias.grad):
        assert not gradient.isfinite().all()
    # An infinite input meets the errors in the weight gradient alone.
    twin.zero_grad()
    y = twin(x)
    y.backward(torch.ones_like(y))
    assert not twin.weight.grad.isfinite().all()
    assert x.grad.isfinite().all()
    assert twin.bias.grad.isfinite().all()


def test_an_overflow_does_not_enter_delayed_scales():
    twin = emulate(nn.Linear(1, 1, bias=False), LayerPolicy.parse("error=e4m3fn scaling=tensor:3"), seed=0)
    nn.init.ones_(twin.weight)
    gradients = []
    for error in (1.0, math.inf, 1.0):
        x = torch.ones(1, 1, requires_grad=True)
        twin(x).backward(torch.tensor([[error]]))
        gradients.append(x.grad.item())
    assert gradients == [1.0, math.inf, 1.0]


# Random numbers.

STOCHASTIC = LayerPolicy(
    weight="e4m3fn", activation="e4m3fn", error="e5m2", weight_gradient="e5m2",
    forward="e6m4 rounding=stochastic", backward="e6m4 rounding=stochastic",
    gradient="e6m4 rounding=stochastic", rounding="stochastic:8",
)  # fmt: skip
ROUNDED_BY = {
    "operand": LayerPolicy.parse("activation=e4m3fn rounding=stochastic"),
    "weight": LayerPolicy.parse("weight=e4m3fn rounding=stochastic"),
    "register": LayerPolicy.parse("forward=e4m3fn rounding=stochastic"),
    "exact sum": LayerPolicy.parse("forward=exact output=e4m3fn rounding=stochastic"),
    "output": LayerPolicy.parse("output=e4m3fn rounding=stochastic"),
}


@pytest.mark.parametrize("name", ROUNDED_BY)
def test_a_stochastic_rounding_takes_one_of_two_neighbours_and_is_right_on_average(name):
    count, x = 4000, 0.8125 + 0.25 / 16  # a quarter of the way from 13/16 to 14/16
    if name == "weight":
        layer, inputs = nn.Linear(1, count, bias=False), torch.ones(1, 1)
        nn.init.constant_(layer.weight, x)
    else:
        layer, inputs = nn.Linear(1, 1, bias=False), torch.full((count, 1), x)
        nn.init.ones_(layer.weight)
    y = emulate(layer, ROUNDED_BY[name], seed=7)(inputs).detach().numpy().ravel()
    assert set(y) == {0.8125, 0.875}
    # The share that goes up has a standard deviation of 0.007.
    assert abs((y == 0.875).mean() - 0.25) < 0.03


def test_stochastic_gradients_take_one_of_two_neighbours():
    policy = LayerPolicy.parse(
        "error=e3m2 rounding=stochastic, weight_gradient=e2m1 rounding=stochastic, "
        "backward=e6m2 rounding=stochastic, gradient=e6m2 rounding=stochastic:12"
    )
    rng = np.random.default_rng(0)
    weight, x, errors = (
        torch.from_numpy(rng.normal(size=s).astype(np.float32)) for s in ((1, 60), (1, 60), (1, 1))
    )
    layer = nn.Linear(60, 1, bias=False)
    layer.weight.data = weight
    twin = emulate(layer, policy, seed=0)
    inputs = x.clone().requires_grad_()
    twin(inputs).backward(errors)

    def reachable(values, fmt):
        return {
            v for mode in ("down", "up") for v in cast(np.array(list(values)), fmt, rounding=mode).tolist()
        }

    deltas = reachable([errors.item()], "e3m2")
    for place in range(60):
        back = reachable([d * weight[0, place].item() for d in deltas], "e6m2")
        assert inputs.grad[0, place].item() in back
        sums = reachable([d * x[0, place].item() for d in deltas], "e6m2")
        assert twin.weight.grad[0, place].item() in reachable(sums, "e2m1")


def step(model, seed, x):
    twin = emulate(model, STOCHASTIC, seed=seed)
    outputs = []
    for _ in range(2):
        y = twin(x)
        y.square().sum().backward()
        outputs += [y.detach(), *(p.grad.clone() for p in twin.parameters())]
        twin.zero_grad()
    return outputs


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(4, 4, 1), nn.Flatten(), nn.Linear(64, 8)
    )


def test_equal_seeds_repeat_a_stochastic_run_and_others_differ():
    model = network()
    x = torch.randn(4, 2, 4, 4)
    first, again, other = step(model, 1, x), step(model, 1, x), step(model, 2, x)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(first, other, strict=True))
    # The second pass over the same data draws fresh words.
    half = len(first) // 2
    assert not any(torch.equal(one, two) for one, two in zip(first[:half], first[half:], strict=True))


def test_equal_layers_draw_different_words():
    torch.manual_seed(0)
    layer = nn.Linear(64, 64)
    both = nn.Sequential(layer, nn.Linear(64, 64))
    both[1].load_state_dict(layer.state_dict())
    twin = emulate(both, STOCHASTIC, seed=0)
    x = torch.randn(8, 64)
    assert (twin[0](x) != twin[1](x)).float().mean() > 0.5


@pytest.mark.parametrize(
    "text",
    [
        "e6m4 rounding=stochastic",
        "e6m4",
        "hopper-fp8",
        "exact output=e6m4",
        "e8m23 lanes=4",
        "int24 rounding=nearest-even",
    ],
)
def test_the_thread_count_changes_nothing(text, monkeypatch):
    for place in ("_packing", "integer"):  # so that small products are split too
        monkeypatch.setattr(f"numerics.{place}._LEAST_WORK", 1000)
    policy = LayerPolicy.uniform("e4m3fn scaling=channel rounding=stochastic:8", text)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(4, 48, 3, padding=1), nn.ConvTranspose2d(48, 8, 2), nn.Flatten(), nn.Linear(8 * 81, 64)
    )
    x = torch.randn(16, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            threads.limit(count)
            twin = emulate(model, policy, seed=3)
            y = twin(x)
            y.square().sum().backward()
            results.append([y, *(p.grad for p in twin.parameters())])
    finally:
        torch.set_num_threads(before)
        threads.limit(None)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_the_memory_layout_of_operands_changes_nothing():
    layer = nn.Conv2d(4, 4, 3, padding=1)
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    results = []
    layouts = (torch.contiguous_format, torch.channels_last)
    for inputs, weights in itertools.product(layouts, layouts):
        twin = emulate(layer, STOCHASTIC, seed=0).to(memory_format=weights)
        y = twin(x.contiguous(memory_format=inputs))
        y.sum().backward()  # the errors are one number with strides of zero
        results.append((y, twin.weight.grad))
    for result in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(result, results[0], strict=True))
