"""The three products of linear layers and convolutions: the documented sums, element by element."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from numerics import cast, parse_format
from numerics.torch import LayerPolicy, emulate
from oracles import layers
from oracles.rational import dot_rational, exact_sum, round_rational

POLICIES = {
    "one format, one accumulator": LayerPolicy.uniform("e5m2", "e6m3", weight_gradient="e4m3fn"),
    "chunks": LayerPolicy.uniform("e4m3fn", "e6m3 chunk=4", weight_gradient="e5m2"),
    "all different": LayerPolicy(
        weight="e4m3fn",
        activation="e3m2",
        error="e5m2",
        weight_gradient="e6m3",
        forward="e6m4 chunk=5",
        backward="e5m3 rounding=toward-zero",
        gradient="e8m2 chunk=3",
    ),
    "rounded up": LayerPolicy(
        weight="e5m2",
        activation="e5m2",
        error="e5m2",
        forward="e6m2 rounding=up",
        backward="e6m2 rounding=down",
        gradient="e6m2 rounding=nearest-away",
        rounding="toward-zero",
    ),
    "only accumulators": LayerPolicy(forward="e6m3", backward="e6m3", gradient="e6m3"),
}
GEOMETRIES = [
    # in, out, kernel, stride, padding, dilation, groups, size, batch
    (2, 3, (2, 3), (1, 1), (0, 0), (1, 1), 1, (4, 5), 2),
    (2, 2, (3, 3), (2, 1), (1, 2), (1, 1), 1, (5, 4), 1),
    (4, 4, (2, 2), (2, 2), (0, 1), (1, 2), 2, (5, 4), 2),
    (3, 3, (3, 2), (1, 2), (1, 0), (1, 1), 3, (4, 4), 1),
    (1, 2, (1, 1), (2, 3), (1, 1), (1, 1), 1, (4, 3), 2),
    (2, 4, (2, 2), (3, 3), (1, 1), (2, 2), 2, (6, 5), 1),
]


def values(rng, *shape):
    """Float32 numbers with few bits, of which products and sums need rounding."""
    return torch.from_numpy(cast(rng.normal(size=shape).astype(np.float32), "e6m6"))


def on_format(x, fmt, rounding):
    """What enters a product: `cast` has its own tests."""
    x = x.detach().numpy()
    return x if fmt is None else cast(np.ascontiguousarray(x), fmt, rounding=rounding, overflow="saturate")


def summed(lists, shape, accumulator):
    out = np.full(shape, np.nan)
    mode = accumulator.rounding.mode.value
    for index, a, b in lists:
        out[index] = dot_rational(a, b, accumulator.format, mode, chunk=accumulator.chunk)
    return out


def plus_bias(y, bias, accumulator):
    rounded = [
        round_rational(exact_sum(float(v), float(c)), accumulator.format, accumulator.rounding.mode.value)
        for v, c in zip(y.ravel(), np.broadcast_to(bias, y.shape).ravel(), strict=True)
    ]
    return np.array(rounded).reshape(y.shape)


def run(layer, policy, x, errors):
    """Output, and gradients of x, weight and bias for the output gradient `errors`."""
    twin = emulate(layer, policy, seed=0)
    x = x.clone().requires_grad_()
    y = twin(x)
    y.backward(errors)
    bias_grad = None if twin.bias is None else twin.bias.grad.numpy()
    return y.detach().numpy(), x.grad.numpy(), twin.weight.grad.numpy(), bias_grad


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("bias", [True, False])
def test_every_element_of_a_linear_layer_is_the_documented_sum(name, bias):
    policy, rng = POLICIES[name], np.random.default_rng(1)
    layer = nn.Linear(7, 5, bias=bias)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(values(rng, *parameter.shape))
    x, errors = values(rng, 6, 7), values(rng, 6, 5)
    y, x_grad, weight_grad, bias_grad = run(layer, policy, x, errors)
    rows, kernel = (
        on_format(v, fmt, policy.rounding)
        for v, fmt in ((x, policy.activation), (layer.weight, policy.weight))
    )
    deltas = on_format(errors, policy.error, policy.rounding)

    expected = summed(layers.linear_forward(rows, kernel), (6, 5), policy.forward)
    if bias:
        constant = on_format(layer.bias, policy.weight, policy.rounding)
        expected = plus_bias(expected, constant, policy.forward)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(
        x_grad, summed(layers.linear_backward(deltas, kernel), (6, 7), policy.backward)
    )
    gradient = summed(layers.linear_gradient(deltas, rows), (5, 7), policy.gradient).astype(np.float32)
    np.testing.assert_array_equal(
        weight_grad, on_format(torch.from_numpy(gradient), policy.weight_gradient, policy.rounding)
    )
    if bias:
        ones = np.ones((6, 1))
        gradient = summed(layers.linear_gradient(deltas, ones), (5, 1), policy.gradient).astype(np.float32)
        gradient = on_format(torch.from_numpy(gradient[:, 0]), policy.weight_gradient, policy.rounding)
        np.testing.assert_array_equal(bias_grad, gradient)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("name", POLICIES)
def test_every_element_of_a_convolution_is_the_documented_sum(name, geometry):
    inner, outer, kernel_size, stride, padding, dilation, groups, size, batch = geometry
    policy, rng = POLICIES[name], np.random.default_rng(2)
    layer = nn.Conv2d(inner, outer, kernel_size, stride, padding, dilation, groups)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(values(rng, *parameter.shape))
    x = values(rng, batch, inner, *size)
    errors = values(rng, *layer(x).shape)
    y, x_grad, weight_grad, bias_grad = run(layer, policy, x, errors)
    images, kernel, constant = (
        on_format(v, fmt, policy.rounding)
        for v, fmt in ((x, policy.activation), (layer.weight, policy.weight), (layer.bias, policy.weight))
    )
    deltas = on_format(errors, policy.error, policy.rounding)
    where = (stride, padding, dilation, groups)

    expected = summed(layers.conv_forward(images, kernel, y.shape, *where), y.shape, policy.forward)
    np.testing.assert_array_equal(y, plus_bias(expected, constant[:, None, None], policy.forward))
    np.testing.assert_array_equal(
        x_grad, summed(layers.conv_backward(deltas, kernel, x.shape, *where), x.shape, policy.backward)
    )
    lists = layers.conv_gradient(deltas, images, kernel.shape, *where)
    gradient = summed(lists, kernel.shape, policy.gradient).astype(np.float32)
    np.testing.assert_array_equal(
        weight_grad, on_format(torch.from_numpy(gradient), policy.weight_gradient, policy.rounding)
    )
    gradient = summed(layers.conv_bias_gradient(deltas), (outer,), policy.gradient).astype(np.float32)
    np.testing.assert_array_equal(
        bias_grad, on_format(torch.from_numpy(gradient), policy.weight_gradient, policy.rounding)
    )


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def convolutions(draw):
    """A convolution and a fitting input size, padding often beyond the kernel's reach."""
    groups = draw(st.integers(1, 3))
    kernel, stride, dilation = draw(pairs), draw(pairs), draw(pairs)
    padding = draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    for d in (0, 1):
        assume(size[d] + 2 * padding[d] >= dilation[d] * (kernel[d] - 1) + 1)
    inner, outer = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    layer = nn.Conv2d(inner, outer, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()))
    return layer, (draw(st.integers(1, 3)), inner, *size)


def compare(layer, shape, policy, check, draw):
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(draw(parameter.shape))
    x = draw(shape).requires_grad_()
    y = layer(x)
    errors = draw(y.shape)
    gradients = torch.autograd.grad(y, [x, *layer.parameters()], errors)
    twin = emulate(layer, policy, seed=0)
    emulated = twin(x)
    check(emulated, y)
    found = torch.autograd.grad(emulated, [x, *twin.parameters()], errors)
    for one, other in zip(found, gradients, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        check(one, other)


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-5)


def equal(one, other):
    assert torch.equal(one, other)


WIDE = LayerPolicy(forward="e8m23", backward="e8m23", gradient="e8m23 chunk=3")


@settings(max_examples=60)
@given(case=convolutions(), seed=st.integers(0, 2**31))
def test_without_formats_a_convolution_is_that_of_torch(case, seed):
    generator = torch.Generator().manual_seed(seed)
    compare(*case, LayerPolicy(), close, lambda shape: torch.randn(tuple(shape), generator=generator))


@settings(max_examples=60)
@given(case=convolutions(), seed=st.integers(0, 2**31))
def test_with_wide_accumulators_a_convolution_of_integers_is_exact(case, seed):
    generator = torch.Generator().manual_seed(seed)
    integers = lambda shape: torch.randint(-8, 9, tuple(shape), generator=generator).float()  # noqa: E731
    compare(*case, WIDE, equal, integers)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 5), (0, 5), (1, 1, 1, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_agree_with_torch_on_any_leading_shape(shape, bias):
    generator = torch.Generator().manual_seed(0)
    compare(
        nn.Linear(5, 3, bias=bias),
        shape,
        LayerPolicy(),
        close,
        lambda size: torch.randn(tuple(size), generator=generator),
    )
    compare(
        nn.Linear(5, 3, bias=bias),
        shape,
        WIDE,
        equal,
        lambda size: torch.randint(-8, 9, tuple(size), generator=generator).float(),
    )


def test_an_empty_batch_has_an_empty_result_and_zero_gradients():
    twin = emulate(nn.Conv2d(2, 3, 2), LayerPolicy.uniform("e5m2", "e6m9"), seed=0)
    y = twin(torch.empty(0, 2, 4, 4))
    assert y.shape == (0, 3, 3, 3)
    y.sum().backward()
    assert torch.equal(twin.weight.grad, torch.zeros(3, 2, 2, 2))


@pytest.mark.parametrize("frozen", ["weight", "bias", "x"])
def test_gradients_that_nobody_wants_are_left_out(frozen):
    for layer, shape in ((nn.Linear(4, 3), (2, 4)), (nn.Conv2d(2, 3, 2), (1, 2, 4, 4))):
        twin = emulate(layer, LayerPolicy.uniform("e5m2", "e6m9"), seed=0)
        x = torch.ones(shape, requires_grad=frozen != "x")
        if frozen != "x":
            getattr(twin, frozen).requires_grad_(False)
        twin(x).sum().backward()
        for name, tensor in (("weight", twin.weight), ("bias", twin.bias), ("x", x)):
            assert (tensor.grad is None) == (name == frozen)


def test_an_unbatched_image_works_as_in_torch():
    layer = nn.Conv2d(2, 3, 2)
    image = torch.randn(2, 4, 4)
    close(emulate(layer, LayerPolicy(), seed=0)(image), layer(image))


def test_operands_saturate_and_accumulators_overflow():
    layer = nn.Linear(2, 1, bias=False)
    nn.init.constant_(layer.weight, 1e9)
    twin = emulate(layer, LayerPolicy.uniform("e5m2", "e8m9"), seed=0)
    top = parse_format("e5m2").max
    assert twin(torch.tensor([[1.0, 0.0]])).item() == top
    narrow = emulate(layer, LayerPolicy.uniform("e5m2", "e5m9"), seed=0)
    assert narrow(torch.tensor([[1.0, 1.0]])).item() == float("inf")


def test_a_second_derivative_is_refused_rather_than_wrong():
    x = torch.ones(1, 2, requires_grad=True)
    for layer in (nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU())):
        twin = emulate(layer, LayerPolicy(), seed=0)
        (gradient,) = torch.autograd.grad((twin(x) ** 2).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            (gradient.sum() + (x**2).sum()).backward()


STOCHASTIC = LayerPolicy(
    weight="e4m3fn", activation="e4m3fn", error="e5m2", weight_gradient="e5m2",
    forward="e6m4 rounding=stochastic", backward="e6m4 rounding=stochastic",
    gradient="e6m4 rounding=stochastic", rounding="stochastic:8",
)  # fmt: skip


def step(model, seed, x):
    twin = emulate(model, STOCHASTIC, seed=seed)
    outputs = []
    for _ in range(2):
        y = twin(x)
        y.square().sum().backward()
        outputs += [y.detach(), *(p.grad.clone() for p in twin.parameters())]
        twin.zero_grad()
    return outputs


def test_equal_seeds_repeat_a_stochastic_run_and_others_differ():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8))
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


def test_the_thread_count_changes_nothing():
    torch.manual_seed(0)
    layer, x = nn.Conv2d(3, 8, 3), torch.randn(4, 3, 8, 8)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(step(layer, 3, x))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))
