"""Outputs and gradients of all layers are, bit for bit, those of exact arithmetic: see `oracles.training`."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812

from numerics.torch import LayerPolicy, emulate
from oracles.geometries import KINDS, convolutions, layer_of
from oracles.grid import same
from oracles.layers import Geometry
from oracles.training import Reference

FP8 = {"weight": "e4m3fn", "activation": "e4m3fn", "error": "e5m2"}
REGISTERS = {"forward": "e6m9", "backward": "e6m4 chunk=3", "gradient": "e6m5"}
ZOO = {
    "one format, one register": LayerPolicy.uniform("e5m2", "e6m3", weight_gradient="e4m3fn"),
    "all different": LayerPolicy(
        weight="e4m3fn", activation="e3m2", error="e5m2", weight_gradient="e6m3",
        forward="e6m4 chunk=5", backward="e5m3 rounding=toward-zero", gradient="e8m2 chunk=3",
    ),
    "directed": LayerPolicy(
        weight="e5m2", activation="e5m2 rounding=up", error="e5m2 rounding=to-odd",
        forward="e6m2 rounding=up", backward="e6m2 rounding=down", gradient="e6m2 rounding=nearest-away",
        rounding="toward-zero",
    ),
    "registers alone": LayerPolicy(forward="e6m3", backward="e6m3", gradient="e6m3"),
    "outer registers": LayerPolicy(
        **FP8, forward="e6m3 chunk=4 outer=e8m23", backward="e6m3 chunk=3 outer=e8m5/down",
        gradient="e6m3 chunk=2 outer=e8m7",
    ),
    "lanes, trees, rounded products": LayerPolicy(
        **FP8, forward="e6m3 lanes=2 chunk=8", backward="e6m3 order=pairwise", gradient="e6m5 product=e5m2",
    ),
    "matrix units": LayerPolicy(
        **FP8, forward="hopper-fp8 promote=64",
        backward="fused products=4 align_bits=5 output=e8m4 promote=8",
        gradient="fused products=8 align_bits=9 output=e5m10 rounding=nearest-even",
    ),
    "exact sums": LayerPolicy(
        **FP8, forward="exact output=e6m4", backward="exact output=e5m2 rounding=up",
        gradient="exact output=e8m23",
    ),
    "fixed point": LayerPolicy(
        weight="s3.4", activation="s3.4", error="s2.5", weight_gradient="s3.6",
        forward="s5.8", backward="s7.9 rounding=nearest-even", gradient="s6.5-wrap rounding=down",
    ),
    "integers, scaled": LayerPolicy(
        weight="int8", activation="int8", error="int8", weight_gradient="int8",
        forward="int16-wrap", backward="int16", gradient="int16 chunk=2 outer=int20", scaling="tensor",
    ),
    "by tensor": LayerPolicy(**FP8, weight_gradient="e5m2", **REGISTERS, scaling="tensor"),
    "by tensor, powers of two": LayerPolicy(
        **FP8, weight_gradient="e5m2", **REGISTERS, scaling="tensor-pow2"
    ),
    "by channel": LayerPolicy(**FP8, weight_gradient="e5m2", **REGISTERS, scaling="channel"),
    "by channel, powers of two": LayerPolicy(**FP8, **REGISTERS, scaling="channel-pow2"),
    "mixed scales": LayerPolicy(
        weight="e4m3fn scaling=channel", activation="e4m3fn", error="e5m2 scaling=tensor",
        weight_gradient="e4m3fn scaling=tensor-pow2", **REGISTERS,
    ),
    "scaled matrix units": LayerPolicy(
        **FP8, forward="hopper-fp8", backward="hopper-fp8 promote=32", gradient="hopper-fp8",
        scaling="channel",
    ),
    "blocks": LayerPolicy.uniform(
        "e3m2 block=4 scale=e8m0", "e6m5", weight_gradient="e2m3 block=2 scale=e8m0"
    ),
    "blocks with two scales": LayerPolicy.uniform("nvfp4", "e8m12"),
    "blocks and numbers": LayerPolicy(
        weight="e3m2 block=4 scale=e8m0", activation="e4m3fn scaling=tensor",
        error="e3m2 block=3 scale=e8m0", **REGISTERS,
    ),
    "outputs": LayerPolicy(**FP8, output="e5m2", **REGISTERS),
    "scaled outputs": LayerPolicy(**FP8, output="e4m3fn scaling=channel", **REGISTERS),
    "outputs in blocks": LayerPolicy(output="e3m2 block=2 scale=e8m0", **REGISTERS),
    "one product of three": LayerPolicy(**FP8, backward="e6m4"),
    "formats alone": LayerPolicy(**FP8, weight_gradient="e5m2"),
}  # fmt: skip


def values(rng, *shape, kind="plain"):
    """Float32 numbers, plain ones so small and coarse that a product in float32 is exact."""
    x = np.round(rng.normal(size=shape) * 16) / 16
    if kind == "wide":
        x *= 2.0 ** rng.integers(-14, 9, shape)
    elif kind == "sparse":
        x = np.where(rng.random(shape) < 0.6, np.copysign(0.0, x), x)
    elif kind == "huge":
        x *= 2.0 ** rng.choice([0, 5, 12, 60], shape)
    elif kind == "tiny":
        x *= 2.0 ** rng.choice([0, -9, -17, -140], shape)
    return torch.from_numpy(x.astype(np.float32))


def strided(x, rng):
    """The same numbers with gaps between them and the axes in another order in memory."""
    order = rng.permutation(x.ndim)
    wide = torch.full([2 * size for size in np.array(x.shape)[order]], torch.nan)
    view = wide[tuple(slice(1, None, 2) for _ in order)].permute(*np.argsort(order).tolist())
    return view.copy_(x)


def used(twin, x, errors):
    """Output and gradients of x, weight and bias of one use."""
    x = x.detach().requires_grad_(x.is_floating_point())
    twin.zero_grad()
    y = twin(x)
    assert y.dtype == torch.float32
    y.backward(errors)
    bias = getattr(twin, "bias", None)
    return [
        None if v is None else v.detach().numpy()
        for v in (y, x.grad, twin.weight.grad, bias if bias is None else bias.grad)
    ]


def fill(layer, rng, kind="plain", draw=values):
    for parameter in layer.parameters():
        parameter.data = strided(draw(rng, *parameter.shape, kind=kind), rng)
    return layer


def compare(policy, found, expected, kind="plain"):
    """Equal in all bits.

    The oracle of sums has no minus zero but that of a last rounding: where such zeros are summed, their
    signs do not count.
    """
    sums = (policy.forward, policy.backward, policy.gradient)
    unsigned = kind != "plain" or any(
        acc is None or getattr(acc, "lanes", 1) > 1 or "pairwise" in str(acc) for acc in sums
    )
    for name, one, other in zip(("output", "input", "weight", "bias"), found, expected, strict=False):
        assert (one is None) == (other is None), name
        if one is not None:
            same(one + 0.0, other + 0.0, name) if unsigned else same(one, other, name)


def numbers(tensor):
    return None if tensor is None else tensor.detach().numpy().copy()


def as_image(x):
    """With a row axis where there is one spatial axis."""
    return x if x is None or x.ndim == 4 else x[:, :, None]


def check_linear(rng, policy, leading=(2, 3), i=9, o=5, *, bias=True, kind="plain", uses=1):
    layer = fill(nn.Linear(i, o, bias=bias), rng, kind)
    twin, reference = emulate(layer, policy, seed=0), Reference(policy)
    for _ in range(uses):
        x, errors = (strided(values(rng, *leading, n, kind=kind), rng) for n in (i, o))
        expected = reference.linear(*map(numbers, (x, layer.weight, layer.bias, errors)))
        compare(policy, used(twin, x, errors), expected, kind)


def check_convolution(rng, policy, layer, size, batch=3, *, kind="plain", uses=1):
    """A convolution or transposed convolution of one or two axes."""
    fill(layer, rng, kind)
    twin, reference = emulate(layer, policy, seed=0), Reference(policy)
    one = len(size) == 1
    where = Geometry(
        *(
            ((rest, v[0]) if one else v)
            for v, rest in ((layer.stride, 1), (layer.padding, 0), (layer.dilation, 1))
        ),
        layer.groups,
    )
    apply = reference.transposed if layer.transposed else reference.convolution
    for _ in range(uses):
        x = strided(values(rng, batch, layer.in_channels, *size, kind=kind), rng)
        with torch.no_grad():
            shape = emulate(layer, policy, seed=0)(x).shape
        errors = strided(values(rng, *shape, kind=kind), rng)
        arguments = [
            as_image(numbers(v)) if v is None or v.ndim > 1 else numbers(v)
            for v in (x, layer.weight, layer.bias, errors)
        ]
        expected = apply(*arguments, where)
        compare(
            policy,
            used(twin, x, errors),
            [v if v is None or not one or v.ndim < 4 else v[:, :, 0] for v in expected],
            kind,
        )


def check_embedding(rng, policy, shape=(2, 9), rows=5, features=3, padding_idx=2, *, kind="plain", uses=1):
    layer = fill(nn.Embedding(rows, features, padding_idx), rng, kind)
    twin, reference = emulate(layer, policy, seed=0), Reference(policy)
    for _ in range(uses):
        indices = torch.from_numpy(rng.integers(0, rows, shape))
        errors = strided(values(rng, *shape, features, kind=kind), rng)
        y, gradient = reference.embedding(
            indices.numpy().ravel(), numbers(layer.weight), numbers(errors).reshape(-1, features), padding_idx
        )
        compare(policy, used(twin, indices, errors), (y.reshape(*shape, -1), None, gradient), kind)


class Product(nn.Module):
    """Of its input and of a parameter, which is the right operand, or of two inputs."""

    def __init__(self, weight=None):
        super().__init__()
        self.weight = weight if weight is None else nn.Parameter(weight)

    def forward(self, a, b=None):
        return a @ (self.weight if b is None else b)


def check_product(rng, policy, batch=(2,), m=3, k=7, n=5, *, weight=False, kind="plain"):
    a, b, errors = (strided(values(rng, *batch, *size, kind=kind), rng) for size in ((m, k), (k, n), (m, n)))
    twin = emulate(Product(b if weight else None), policy, seed=0)
    left = a.detach().requires_grad_()
    right = twin.weight if weight else b.detach().requires_grad_()
    y = twin(left) if weight else twin(left, right)
    y.backward(errors)
    roles = ("activation", "weight") if weight else ("activation", "activation")
    if weight and not batch:  # a matrix of weights is that of a linear layer
        output, *gradients = Reference(policy).linear(numbers(a), numbers(b).T, None, numbers(errors))
        expected = [output, gradients[0], gradients[1].T]
    else:
        flat = [numbers(v).reshape(-1, *v.shape[-2:]) for v in (a, b, errors)]
        expected = Reference(policy).matrix(*flat, roles)
    compare(
        policy,
        [numbers(v) for v in (y, left.grad, right.grad)],
        [e.reshape(v.shape) for e, v in zip(expected, (y, a, b), strict=True)],
        kind,
    )


GEOMETRIES = {
    # in, out, kernel, stride, padding, dilation, groups; size
    "dense": ((2, 3, (2, 3), (1, 1), (0, 0), (1, 1), 1), (4, 5)),
    "strides, padding, groups": ((4, 6, (3, 2), (2, 1), (1, 2), (1, 2), 2), (5, 4)),
    "depthwise": ((3, 3, (3, 2), (1, 2), (1, 0), (1, 1), 3), (4, 4)),
    "depthwise, twice": ((2, 4, (2, 2), (3, 3), (1, 1), (2, 2), 2), (6, 5)),
    "pointwise, with gaps": ((9, 2, (1, 1), (2, 3), (1, 1), (1, 1), 1), (4, 3)),
    "one axis": ((4, 6, 3, 2, 1, 2, 2), (9,)),
}


def convolution(geometry, *, transposed=False, **options):
    inner, outer, kernel, stride, padding, dilation, groups = geometry
    return KINDS[1 if isinstance(kernel, int) else 2, transposed](
        inner, outer, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups, **options
    )


@pytest.mark.parametrize("name", ZOO)
def test_every_element_of_a_linear_layer_is_the_documented_sum(name):
    rng = np.random.default_rng(1)
    check_linear(rng, ZOO[name])
    check_linear(rng, ZOO[name], (35,), 7, 3, bias=False)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("name", ZOO)
def test_every_element_of_a_convolution_is_the_documented_sum(name, geometry):
    arguments, size = GEOMETRIES[geometry]
    rng = np.random.default_rng(2)
    check_convolution(rng, ZOO[name], convolution(arguments), size, 2)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("name", ZOO)
def test_every_element_of_a_transposed_convolution_is_the_documented_sum(name, geometry):
    (inner, outer, *rest), _ = GEOMETRIES[geometry]
    rng = np.random.default_rng(3)
    size = (3,) if isinstance(rest[0], int) else (3, 4)
    check_convolution(rng, ZOO[name], convolution((inner, outer, *rest), transposed=True), size, 2)


@pytest.mark.parametrize("name", ZOO)
def test_every_element_of_an_embedding_and_its_gradient_is_the_documented_one(name):
    rng = np.random.default_rng(4)
    check_embedding(rng, ZOO[name])
    check_embedding(rng, ZOO[name], (17,), 3, 4, None)


@pytest.mark.parametrize("weight", [False, True], ids=["activations", "weight"])
@pytest.mark.parametrize("name", ZOO)
def test_every_element_of_a_matrix_product_is_the_documented_sum(name, weight):
    rng = np.random.default_rng(5)
    check_product(rng, ZOO[name], weight=weight)
    check_product(rng, ZOO[name], (), 4, 9, 3, weight=weight)
    check_product(rng, ZOO[name], (2, 1), 2, 3, 4, weight=weight)


class Attention(nn.Module):
    """Scaled dot-product attention of three inputs."""

    def forward(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, scale=0.375)


@pytest.mark.parametrize("name", ZOO)
def test_attention_is_two_such_products_with_a_softmax_in_float32_between(name):
    rng, policy = np.random.default_rng(7), ZOO[name]
    inputs = [strided(values(rng, 2, *size), rng).requires_grad_() for size in ((3, 4), (5, 4), (5, 6))]
    errors = values(rng, 2, 3, 6)
    y = emulate(Attention(), policy, seed=0)(*inputs)
    y.backward(errors)
    q, k, v = map(numbers, inputs)
    reference = Reference(policy)
    scores = reference.matrix(q, k.swapaxes(1, 2), np.zeros((2, 3, 5), np.float32))[0]
    scores = torch.from_numpy(scores).requires_grad_()
    mixture = torch.softmax(scores * 0.375, -1)
    output, mixture_grad, v_grad = reference.matrix(numbers(mixture), v, numbers(errors))
    mixture.backward(torch.from_numpy(mixture_grad))
    _, q_grad, k_grad = reference.matrix(q, k.swapaxes(1, 2), numbers(scores.grad))
    found = [numbers(t) for t in (y, *(x.grad for x in inputs))]
    expected = [output, q_grad, k_grad.swapaxes(1, 2), v_grad]
    if policy.forward is None or policy.backward is None:  # torch's own products round as they like
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=0.3, atol=0.3)
    else:
        compare(policy, found, expected, "products")


DELAYED = {
    "all": LayerPolicy(**FP8, weight_gradient="e5m2", output="e4m3fn", **REGISTERS, scaling="tensor:2"),
    "powers of two": LayerPolicy(**FP8, **REGISTERS, scaling="tensor-pow2:3"),
    "errors": LayerPolicy(
        weight="e4m3fn", activation="e4m3fn scaling=tensor", error="e5m2 scaling=tensor:1", **REGISTERS
    ),
}


@pytest.mark.parametrize("name", DELAYED)
def test_delayed_scales_come_from_the_uses_before(name):
    rng, policy = np.random.default_rng(6), DELAYED[name]
    check_linear(rng, policy, uses=5, kind="wide")
    check_convolution(rng, policy, convolution(GEOMETRIES["dense"][0]), (4, 5), uses=5, kind="wide")
    check_convolution(
        rng, policy, convolution(GEOMETRIES["dense"][0], transposed=True), (3, 2), uses=5, kind="wide"
    )
    check_embedding(rng, policy, uses=5, kind="wide")


# Random layers, policies and data.

NARROW = ["e4m3fn", "e5m2", "e3m2", "e2m1", "hfp8", "e4m3fnuz", "binary8p3", "e4m3-flush"]
FLOATS = [*NARROW, "e6m9", "bf16", "e4m3b20"]
FIXED = ["s3.4", "int8", "u4.3", "s1.2", "s3.4-wrap"]
BLOCKS = ["mxfp4", "mxfp8", "mxint8", "e3m2 block=3 scale=e8m0"]
MODES = ["nearest-even", "nearest-away", "toward-zero", "down", "up", "to-odd"]
SCALES = ["none", "tensor", "channel", "tensor-pow2", "channel-pow2", "tensor:2"]
modes = st.sampled_from(MODES)
sizes = st.integers(1, 9)


@st.composite
def tensors(draw, formats):
    """Format and rounding of a tensor, with scaling of formats that are neither wide nor blocks."""
    fmt = draw(st.sampled_from(formats))
    scaling = f" scaling={draw(st.sampled_from(SCALES))}" if fmt in NARROW + FIXED else ""
    return f"{fmt}{scaling} rounding={draw(modes)}"


@st.composite
def registers(draw):
    fmt = draw(st.sampled_from(["e6m3", "e6m9", "e8m2", "e5m2", "e8m23", "e4m3fn", "fp16", "e6m5b20"]))
    options = [f"rounding={draw(modes)}"]
    if draw(st.booleans()):
        options.append(f"chunk={draw(sizes)}")
        if draw(st.booleans()):
            options.append(f"outer={draw(st.sampled_from(['e8m23', 'e8m5', 'e6m4/down']))}")
    if draw(st.booleans()):
        options.append(draw(st.sampled_from(["lanes=2", "lanes=3", "order=pairwise"])))
    if draw(st.integers(0, 3)) == 0:
        options.append(f"product={draw(st.sampled_from(['e5m2', 'e6m5', 'e4m3fn']))}")
    return " ".join([fmt, *options])


@st.composite
def integer_registers(draw):
    frac = draw(st.integers(0, 9))
    whole = draw(st.integers(1, 14))
    wrap = draw(st.sampled_from(["", "-wrap"]))
    chunk = f" chunk={draw(sizes)} outer=s{whole + 3}.{frac}{wrap}" if draw(st.booleans()) else ""
    return f"s{whole}.{frac}{wrap}{chunk} rounding={draw(modes)}"


@st.composite
def matrix_units(draw):
    products = draw(st.sampled_from([2, 4, 8]))
    promote = f" promote={products * draw(st.integers(1, 3))}" if draw(st.booleans()) else ""
    output = draw(st.sampled_from(["e8m13", "e8m4", "e5m10", "e8m23"]))
    bits = draw(st.integers(3, 14))
    return f"fused products={products} align_bits={bits} output={output} rounding={draw(modes)}{promote}"


exact_sums = st.builds(
    "exact output={} rounding={}".format, st.sampled_from(["e6m4", "e5m2", "e8m23"]), modes
)


@st.composite
def policies(draw):
    """Any policy; integers count products in 63 bits, and matrix units know formats of numbers only."""
    kind = draw(st.sampled_from(["numbers", "integers", "matrix units"]))
    if kind == "numbers":
        units = registers() | exact_sums
        operands = st.none() | tensors([*FLOATS, *FIXED, *BLOCKS, "nvfp4"])
    elif kind == "integers":
        units, operands = registers() | integer_registers() | exact_sums, tensors(NARROW + FIXED)
    else:
        units, operands = matrix_units(), tensors(FLOATS)
    leaving = st.none() | tensors(FLOATS + FIXED + BLOCKS)
    return LayerPolicy(
        **{role: draw(operands) for role in ("weight", "activation", "error")},
        **{role: draw(leaving) for role in ("weight_gradient", "output")},
        **{role: draw(units) for role in ("forward", "backward", "gradient")},
    )


DATA = ["plain", "wide", "sparse", "huge", "tiny"]
cases = {"policy": policies(), "kind": st.sampled_from(DATA), "seed": st.integers(0, 2**32)}


def any_linear(policy, kind, seed, leading, i, o, bias):
    check_linear(np.random.default_rng(seed), policy, leading, i, o, bias=bias, kind=kind, uses=2)


def any_convolution(policy, kind, seed, case, batch):
    check_convolution(np.random.default_rng(seed), policy, layer_of(case), case[2], batch, kind=kind, uses=2)


def any_product(policy, kind, seed, batch, m, k, n, weight):
    check_product(np.random.default_rng(seed), policy, batch, m, k, n, weight=weight, kind=kind)


def any_embedding(policy, kind, seed, shape, rows, features, padding):
    padding_idx = None if padding is None else padding % rows
    check_embedding(
        np.random.default_rng(seed), policy, shape, rows, features, padding_idx, kind=kind, uses=2
    )


ANY = {
    "linear": (any_linear, {
        "leading": st.lists(st.integers(1, 4), max_size=3).map(tuple), "i": st.integers(1, 40), "o": sizes,
        "bias": st.booleans(),
    }),
    "convolution": (any_convolution, {"case": convolutions(), "batch": st.integers(1, 3)}),
    "transposed convolution": (any_convolution, {
        "case": convolutions(transposed=True), "batch": st.integers(1, 3),
    }),
    "product": (any_product, {
        "batch": st.lists(st.integers(1, 3), max_size=2).map(tuple), "m": sizes, "k": st.integers(1, 35),
        "n": sizes, "weight": st.booleans(),
    }),
    "embedding": (any_embedding, {
        "shape": st.lists(st.integers(1, 9), min_size=1, max_size=2).map(tuple), "rows": sizes,
        "features": sizes, "padding": st.none() | st.integers(0, 8),
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", ANY)
def test_any_layer_under_any_policy_is_that_of_exact_arithmetic(name):
    check, arguments = ANY[name]
    settings(max_examples=25)(given(**cases, **arguments)(check))()


@pytest.mark.slow
@pytest.mark.parametrize("name", ANY)
def test_a_thousand_layers_under_any_policy_are_those_of_exact_arithmetic(name):
    check, arguments = ANY[name]
    settings(max_examples=1000)(given(**cases, **arguments)(check))()
