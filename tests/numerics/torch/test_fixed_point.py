"""Fixed-point training: what is measured against plain finite differences and dense Jacobians, what is
rounded against the documented places, and a real training against its full-precision twin."""

import copy
from fractions import Fraction
from functools import lru_cache
from math import floor

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, cross_entropy, linear

from numerics.theory.assignment import FixedPointAssignment, LayerFixedPoint, slack
from numerics.theory.fixed_point import FixedPoint
from numerics.torch.fixed_point import assign_fixed_point
from numerics.torch.fixed_point_training import FixedPointSGD, fixed_point_twin

# ---- What is measured ----


class Residual(nn.Module):
    """Two layers take the same tensor, and a layer is linear over positions."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(3, 3)
        self.one = nn.Linear(6, 5)
        self.two = nn.Linear(6, 5, bias=False)
        self.head = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 3))

    def forward(self, x):
        x = self.mix(x).tanh().flatten(1)
        return self.head(self.one(x).sigmoid() + self.two(x))


def convolutions():
    return nn.Sequential(
        nn.Conv2d(2, 4, (2, 3), stride=(1, 2), padding=(1, 2)),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, 2, padding=1, dilation=2, groups=2, bias=False),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(24, 4),
    )


def perceptron():
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))


MODELS = {
    "perceptron": (perceptron, (5,), 3),
    "convolutions": (convolutions, (2, 4, 5), 4),
    "residual": (Residual, (2, 3), 3),
}


def case(name, batches=2, samples=4):
    build, shape, classes = MODELS[name]
    generator = torch.Generator().manual_seed(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = build()
    data = [
        (
            torch.randn(samples, *shape, generator=generator),
            torch.randint(0, classes, (samples,), generator=generator),
        )
        for _ in range(batches)
    ]
    return model, data


def at_rest(model, data, **arguments):
    """Assignment from a run that hardly moves the weights."""
    options = {"learning_rate": 1e-9, "steps": len(data), **arguments}
    return assign_fixed_point(model, cross_entropy, data, **options)


def layers_of(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}


def central_difference(function, tensor, h=1e-5):
    """Derivatives (outputs, elements) of a function that reads `tensor`, which is float64."""
    flat, columns = tensor.view(-1), []
    for j in range(flat.numel()):
        kept = flat[j].item()
        ends = []
        for shift in (h, -h):
            flat[j] = kept + shift
            ends.append(function().clone())
        flat[j] = kept
        columns.append((ends[0] - ends[1]) / (2.0 * h))
    return torch.stack(columns, -1)


def gain_by_differences(logits, derivatives):
    """The documented sum for one sample; logits (c,), derivatives (c, elements)."""
    y, total = int(logits.argmax()), 0.0
    for i in range(len(logits)):
        if i != y:
            squares = ((derivatives[i] - derivatives[y]) ** 2).sum()
            total += (squares / (24.0 * (logits[i] - logits[y]) ** 2)).item()
    return total


@pytest.mark.parametrize("name", MODELS)
def test_gains_are_those_of_finite_differences(name):
    model, data = case(name, batches=2, samples=2)
    found = at_rest(model, data).statistics
    exact = copy.deepcopy(model).double().eval()
    layers = layers_of(exact)
    samples = torch.cat([x for x, _ in data]).double()
    expected = {layer: [[], []] for layer in layers}
    with torch.no_grad():
        for x in samples.split(1):
            for layer, module in layers.items():
                derivatives = central_difference(lambda x=x: exact(x)[0], module.weight)
                expected[layer][0].append(gain_by_differences(exact(x)[0], derivatives))
                # The input of this layer alone, added to in a hook.
                shifts = []

                def shift(_, args, shifts=shifts):
                    shifts[:] = shifts or [torch.zeros_like(args[0])]
                    return (args[0] + shifts[0],)

                hook = module.register_forward_pre_hook(shift)
                logits = exact(x)[0]
                derivatives = central_difference(lambda x=x: exact(x)[0], shifts[0])
                hook.remove()
                expected[layer][1].append(gain_by_differences(logits, derivatives))
    assert set(found) == set(layers)
    for layer, (weight, activation) in expected.items():
        assert found[layer].weight_gain == pytest.approx(np.mean(weight), rel=1e-3)
        assert found[layer].activation_gain == pytest.approx(np.mean(activation), rel=1e-3)


def test_gains_are_of_the_last_batches():
    model, data = case("perceptron", batches=3)
    both = at_rest(model, data, gain_batches=2).statistics["0"].weight_gain
    each = [at_rest(model, [batch]).statistics["0"].weight_gain for batch in data]
    assert both == pytest.approx((each[1] + each[2]) / 2.0, rel=1e-6)


LAYERS = [
    (nn.Linear(3, 4), (5, 3)),
    (nn.Linear(3, 2), (4, 6, 3)),
    (nn.Conv2d(2, 3, (2, 3)), (2, 2, 4, 5)),
    (nn.Conv2d(2, 2, 3, stride=(2, 1), padding=(1, 2)), (2, 2, 4, 4)),
    (nn.Conv2d(4, 6, 2, groups=2, dilation=2, padding=1), (3, 4, 4, 3)),
    (nn.Conv2d(3, 3, (1, 2), groups=3, stride=2), (2, 3, 3, 5)),
]


class Classifier(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        y = self.layer(x).flatten(1)
        return torch.stack([y.sum(1), (y**2).sum(1) + 1.0], 1)


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda v: str(v)[:60])
def test_lambda_is_the_largest_singular_value_of_the_dense_squared_jacobian(layer, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    model = Classifier(copy.deepcopy(layer))
    found = at_rest(model, [(x, torch.zeros(len(x), dtype=torch.long))]).statistics["layer"]
    exact = copy.deepcopy(layer).double()
    y = exact(x.double())
    columns = []
    for i in range(y.numel()):
        unit = torch.zeros(y.numel(), dtype=torch.float64)
        unit[i] = 1.0  # GW is linear in GA: its column i is the weight gradient of this unit vector
        (gradient,) = torch.autograd.grad(y, exact.weight, unit.view_as(y), retain_graph=True)
        columns.append(gradient.flatten())
    jacobian = torch.stack(columns, 1).numpy()
    assert found.lambda_max == pytest.approx(np.linalg.norm(jacobian**2, 2), rel=1e-4)


def test_deviations_and_ranges_are_those_of_a_plain_run():
    model, data = case("convolutions", batches=5)
    model[6] = nn.Identity()  # no dropout
    steps, rate = 12, 0.05
    found = assign_fixed_point(model, cross_entropy, data, learning_rate=rate, steps=steps)
    seen = {layer: {"gw": [], "ga": [], "w": [], "a": []} for layer in layers_of(model)}
    # The same run by hand: an unrolled network, in float32.
    w0, b0 = model[0].weight.detach().clone(), model[0].bias.detach().clone()
    w2 = model[2].weight.detach().clone()
    w7, b7 = model[7].weight.detach().clone(), model[7].bias.detach().clone()
    parameters = [w0, b0, w2, w7, b7]
    for step in range(steps):
        x, labels = data[step % len(data)]
        for p in parameters:
            p.requires_grad_()
        y0 = conv2d(x, w0, b0, (1, 2), (1, 2))
        a2 = y0.relu()
        y2 = conv2d(a2, w2, None, 1, 1, 2, 2)
        a7 = nn.functional.avg_pool2d(y2.tanh(), 2).flatten(1)
        y7 = linear(a7, w7, b7)
        grads = torch.autograd.grad(cross_entropy(y7, labels), [*parameters, y0, y2, y7])
        for layer, a, w, gw, ga in (
            ("0", x, w0, grads[0], grads[5]),
            ("2", a2, w2, grads[2], grads[6]),
            ("7", a7, w7, grads[3], grads[7]),
        ):
            seen[layer]["gw"].append(np.std(gw.numpy().astype(np.float64), ddof=1))
            seen[layer]["ga"].append(np.std(ga.numpy().astype(np.float64), ddof=1))
            seen[layer]["w"].append(w.abs().max().item())
            seen[layer]["a"].append(a.abs().max().item())
        parameters = [p.detach() - rate * g for p, g in zip(parameters, grads[:5], strict=True)]
        w0, b0, w2, w7, b7 = parameters
    for layer, values in seen.items():
        measured = found.statistics[layer]
        assert measured.weight_gradient_sigma == pytest.approx(
            (min(values["gw"]), max(values["gw"])), rel=1e-4
        )
        assert measured.activation_gradient_sigma == pytest.approx(
            (min(values["ga"]), max(values["ga"])), rel=1e-4
        )
        assert measured.weight_max == pytest.approx(max(values["w"]), rel=1e-5)
        assert measured.activation_max == pytest.approx(max(values["a"]), rel=1e-5)
    assert [found.statistics[n].activation_signed for n in ("0", "2", "7")] == [True, False, True]
    # And by the rules, with a pencil.
    gw_min, gw_max = min(seen["2"]["gw"]), max(seen["2"]["gw"])
    fmt = found.layers["2"].weight_gradient
    assert fmt.range / 2.0 < 2.0 * gw_max <= fmt.range
    assert fmt.step <= gw_min / 4.0 < 2.0 * fmt.step
    ga = found.layers["2"].activation_gradient
    assert ga.range / 2.0 < 4.0 * max(seen["2"]["ga"]) <= ga.range
    assert ga.step <= fmt.step / found.statistics["2"].lambda_max ** 0.5 < 2.0 * ga.step
    accumulator = found.layers["2"].accumulator
    assert accumulator.range == found.layers["2"].weight.step / 2.0
    assert accumulator.step <= rate * fmt.step < 2.0 * accumulator.step


def test_products_are_counted_for_a_batch():
    model, data = case("convolutions", batches=1, samples=4)
    found = at_rest(model, data).statistics
    # 4 images; the first layer gives 5 x 4 positions, the second 5 x 4, of which the pool makes 2 x 2.
    assert found["0"].products == {
        "forward": (4 * 4 * 20, 2 * 6),
        "gradient": (4 * 2 * 6, 4 * 20),
    }
    rows, columns = conv2d(torch.zeros(1, 4, 5, 4), model[2].weight, None, 1, 1, 2, 2).shape[2:]
    assert found["2"].products == {
        "forward": (4 * 6 * rows * columns, 2 * 4),
        "backward": (4 * 4 * 20, 3 * 4),
        "gradient": (6 * 2 * 4, 4 * rows * columns),
    }
    assert found["7"].products == {"forward": (16, 24), "backward": (96, 4), "gradient": (96, 4)}


def test_the_model_its_data_and_the_random_state_are_left_alone():
    model, data = case("convolutions")
    model.eval()
    state, inputs = copy.deepcopy(model.state_dict()), [x.clone() for x, _ in data]
    random = torch.random.get_rng_state()
    assign_fixed_point(model, cross_entropy, data, learning_rate=0.1, steps=5)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(module.training for module in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(x, kept) for (x, _), kept in zip(data, inputs, strict=True))
    assert not any(x.requires_grad for x, _ in data)
    assert torch.equal(torch.random.get_rng_state(), random)


def test_equal_seeds_give_equal_statistics():
    model, data = case("convolutions")  # with dropout
    one, again, other = (
        assign_fixed_point(model, cross_entropy, data, learning_rate=0.1, steps=5, seed=seed).statistics
        for seed in (1, 1, 2)
    )
    assert one == again != other
    # The run is in training mode, whatever the mode of the model.
    model.eval()
    assert (
        assign_fixed_point(model, cross_entropy, data, learning_rate=0.1, steps=5, seed=1).statistics == one
    )


def test_few_batches_are_gone_through_again_and_an_iterator_that_ends_is_an_error():
    model, data = case("perceptron", batches=2)
    twice = assign_fixed_point(model, cross_entropy, data, learning_rate=0.1, steps=4)
    long = assign_fixed_point(model, cross_entropy, iter(data + data), learning_rate=0.1, steps=4)
    assert twice.statistics == long.statistics
    with pytest.raises(ValueError, match=r"data must hold 5 batches or be iterable again, .*; got 4 batches"):
        assign_fixed_point(model, cross_entropy, iter(data + data), learning_rate=0.1, steps=5)
    with pytest.raises(ValueError, match="got 0 batches"):
        assign_fixed_point(model, cross_entropy, [], learning_rate=0.1)


def test_a_sample_without_a_predicted_class_does_not_count():
    model = nn.Sequential(nn.Linear(3, 2, bias=False))
    nn.init.ones_(model[0].weight[0])
    x = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 0.0]])  # the second one has logits (0, 0)
    labels = torch.tensor([0, 1])
    found = at_rest(model, [(x, labels)]).statistics["0"]
    alone = at_rest(model, [(x[:1], labels[:1])]).statistics["0"]
    assert found.weight_gain == pytest.approx(alone.weight_gain)
    assert found.activation_gain == pytest.approx(alone.activation_gain)
    with pytest.raises(ValueError, match="got ties in all samples"):
        at_rest(model, [(x[1:], labels[1:])])


def test_a_tie_below_the_largest_logit_does_no_harm():
    model = nn.Sequential(nn.Linear(2, 3, bias=False))
    model[0].weight.data[:] = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    # Margins 3 - 1, twice; |dZ_i - dZ_y|**2 is 2 * |x|**2 = 4 for weights, 1 + 9 for the input.
    found = at_rest(model, [(torch.ones(1, 2), torch.tensor([0]))]).statistics["0"]
    assert found.weight_gain == pytest.approx(2 * 4 / (24 * 4))
    assert found.activation_gain == pytest.approx(2 * 10 / (24 * 4))


def test_dead_tensors_are_excluded_and_named():
    model, data = case("perceptron")
    model[0].bias.data[:] = -1e3  # no ReLU opens
    found = at_rest(model, data)
    dead = ("weight", "activation", "weight_gradient", "activation_gradient", "accumulator")
    # The last layer has inputs of zero, which its weights never meet; zero is all its input can be.
    assert found.excluded == (
        *(f"0.{tensor}" for tensor in dead),
        *(f"2.{tensor}" for tensor in dead),
    )
    assert found.table().empty
    twin = fixed_point_twin(model, found)
    x = data[0][0]
    assert torch.equal(twin(x), model(x))


def test_frozen_weights_have_no_gradient_formats():
    model, data = case("perceptron")
    model[0].requires_grad_(False)
    found = at_rest(model, data)
    assert found.excluded == ("0.weight_gradient", "0.activation_gradient", "0.accumulator")
    assert found.layers["0"].weight is not None


def test_a_step_without_a_gradient_sets_no_step():
    model, data = case("perceptron", batches=2)
    calls = []

    def loss(logits, labels):
        calls.append(len(calls))
        return cross_entropy(logits, labels) * (0.0 if calls[-1] == 1 else 1.0)

    found = assign_fixed_point(model, loss, data, learning_rate=1e-9, steps=2)
    alone = at_rest(model, data[:1])
    for layer in ("0", "2"):
        sigma = found.statistics[layer].weight_gradient_sigma
        assert sigma == pytest.approx(alone.statistics[layer].weight_gradient_sigma)
        assert sigma[0] == sigma[1] > 0.0


class Twice(nn.Module):
    def __init__(self, times):
        super().__init__()
        self.times = times
        self.shared = nn.Linear(3, 3)

    def forward(self, x):
        for _ in range(self.times):
            x = self.shared(x)
        return x


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.ones(3))


def tied():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), r"module '1' \(BatchNorm1d\) has parameters"),
        (nn.Sequential(nn.Linear(3, 3), nn.PReLU()), r"module '1' \(PReLU\) has parameters"),
        (Own(), r"module '' \(Own\) has parameters and must be Linear or Conv2d"),
        (nn.ReLU(), "must have a Linear or Conv2d layer, got none"),
        (Twice(2), "layer 'shared' must be called once for a batch, got 2 calls"),
        (Twice(0), "layer 'shared' must be called once for a batch, got 0 calls"),
        (tied(), "modules must have their own weights, '0' and '1' share them"),
        (nn.Sequential(nn.Linear(3, 3).double()), "module '0' must be float32 on the CPU, got torch.float64"),
        (nn.Sequential(nn.Conv2d(1, 1, 3, padding="same")), "padding of module '0' must be .*'same'"),
        (nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")), "'circular'"),
        (nn.Sequential(nn.Flatten(0), nn.Linear(12, 3)), r"'1' must have the batch of 4 .* shape \(12,\)"),
        (nn.Sequential(nn.Linear(3, 1)), r"logits must be of shape \(4, classes\) .*, got \(4, 1\)"),
        (nn.Sequential(nn.Linear(3, 2), nn.Flatten(0)), r"logits must be of shape .*, got \(8,\)"),
    ],
)  # fmt: skip
def test_a_model_that_is_not_supported_is_named(model, message):
    data = [(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(4, dtype=torch.long))]
    with pytest.raises(ValueError, match=message):
        at_rest(model, data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": 0.0}, r"learning_rate must be positive and finite, got 0\.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive and finite, got nan"),
        ({"smallest_learning_rate": -1.0}, r"smallest_learning_rate must be positive and finite, got -1\.0"),
        ({"smallest_learning_rate": 0.2}, r"smallest_learning_rate must be at most learning_rate 0\.1, got"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"gain_batches": 0}, "gain_batches must be at least 1, got 0"),
        ({"mismatch": 1.5}, r"mismatch must be in \(0, 1\), got 1\.5"),
        ({"min_bits": 1}, r"min_bits must be in 2\.\.52, got 1"),
    ],
)
def test_a_bad_argument_is_named_before_anything_runs(arguments, message):
    def loss(*_):
        pytest.fail("the model ran")

    model, data = case("perceptron")
    with pytest.raises(ValueError, match=message):
        assign_fixed_point(model, loss, data, **{"learning_rate": 0.1, **arguments})


def test_a_run_that_diverges_is_an_error():
    model, data = case("perceptron")
    with pytest.raises(ValueError, match=r"loss of the baseline run must be finite, got inf at step 1 with"):
        assign_fixed_point(model, lambda z, y: (z**2).sum(), data, learning_rate=1e30, steps=20)
    with pytest.raises(ValueError, match="logits after the baseline run must be finite"):
        assign_fixed_point(model, lambda z, y: (z**2).sum(), data, learning_rate=1e30, steps=1)


def test_a_smaller_learning_rate_widens_the_accumulators_only():
    model, data = case("perceptron")
    one, other = (
        at_rest(model, data, learning_rate=1e-3, smallest_learning_rate=rate) for rate in (1e-3, 1e-3 / 8)
    )
    for layer in ("0", "2"):
        a, b = (dict(found.layers[layer].formats()) for found in (one, other))
        assert b.pop("accumulator").bits == a.pop("accumulator").bits + 3
        assert a == b


# ---- What is rounded ----


def rounded(x, fmt):
    """Half away from zero and saturating, by a formula of its own; exact for these few bits."""
    if fmt is None:
        return x
    codes = torch.sign(x) * torch.floor(x.abs().double() / fmt.step + 0.5)
    low = -(2 ** (fmt.bits - 1)) if fmt.signed else 0
    return (codes.clamp(low, low + 2**fmt.bits - 1) * fmt.step).to(x.dtype)


FORMATS = LayerFixedPoint(
    weight=FixedPoint.parse("s-1.4"),
    activation=FixedPoint.parse("s1.2"),
    weight_gradient=FixedPoint.parse("s2.2"),
    activation_gradient=FixedPoint.parse("s-1.3"),
    accumulator=FixedPoint.parse("s-5.9"),
)
SOME = LayerFixedPoint(activation=FixedPoint.parse("u1.2"), weight_gradient=FixedPoint.parse("s2.2"))


@pytest.mark.parametrize("formats", [FORMATS, SOME, LayerFixedPoint()], ids=["all", "some", "none"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_a_layer_rounds_at_the_documented_places(kind, bias, formats):
    torch.manual_seed(1)
    if kind == "linear":
        layer, x = nn.Linear(4, 3, bias=bias), torch.randn(5, 4)
        product = linear
    else:
        layer, x = nn.Conv2d(2, 4, 3, 2, 1, groups=2, bias=bias), torch.randn(3, 2, 5, 4)
        product = lambda a, w, b: conv2d(a, w, b, 2, 1, 1, 2)  # noqa: E731
    twin = fixed_point_twin(layer, FixedPointAssignment(layers={"": formats}, statistics={}))
    input_ = x.clone().requires_grad_()
    y = twin(input_)
    errors = 0.4 * torch.randn(y.shape)
    y.backward(errors)

    a, w = rounded(x, formats.activation).requires_grad_(), rounded(layer.weight.detach(), formats.weight)
    expected = product(a, w.requires_grad_(), layer.bias)
    assert torch.equal(y, expected)
    deltas = rounded(errors, formats.activation_gradient)
    x_grad, w_grad = torch.autograd.grad(expected, [a, w], deltas)
    assert torch.equal(twin.weight.grad, rounded(w_grad, formats.weight_gradient))
    if formats.activation is not None:
        low, high = formats.activation.min, formats.activation.max
        half = formats.activation.step / 2
        x_grad = x_grad * ((x > low - half) & (x < high + half))
    torch.testing.assert_close(input_.grad, x_grad, rtol=0, atol=0)
    if bias:
        torch.testing.assert_close(
            twin.bias.grad, deltas.sum(0) if kind == "linear" else deltas.sum((0, 2, 3))
        )


def test_an_activation_passes_a_gradient_unless_it_saturates():
    formats = LayerFixedPoint(activation=FixedPoint.parse("u1.1"))  # 0, 0.5, 1, 1.5
    layer = nn.Linear(1, 1, bias=False)
    nn.init.ones_(layer.weight)
    twin = fixed_point_twin(layer, FixedPointAssignment(layers={"": formats}, statistics={}))
    x = torch.tensor([[-0.25], [-0.2], [0.0], [1.3], [1.74], [1.75], [9.0]], requires_grad=True)
    y = twin(x)
    y.sum().backward()
    assert y.flatten().tolist() == [0.0, 0.0, 0.0, 1.5, 1.5, 1.5, 1.5]
    assert x.grad.flatten().tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]


def test_a_twin_keeps_names_values_modes_and_the_model():
    model, data = case("convolutions")
    model.eval()
    expected = model(data[0][0])
    twin = fixed_point_twin(model, at_rest(model, data))
    assert [n for n, _ in twin.named_modules()] == [n for n, _ in model.named_modules()]
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in twin.state_dict().items())
    assert isinstance(twin[0], nn.Conv2d)
    assert isinstance(twin[7], nn.Linear)
    assert not any(module.training for module in twin.modules())
    assert type(model[0]) is nn.Conv2d
    assert torch.equal(model(data[0][0]), expected)
    assert not torch.equal(twin(data[0][0]), expected)
    copied = copy.deepcopy(twin)
    assert torch.equal(copied(data[0][0]), twin(data[0][0]))


def test_layers_and_widths_must_fit():
    model, _ = case("perceptron")
    for layers in ({}, {"0": FORMATS}, {"0": FORMATS, "2": FORMATS, "4": FORMATS}):
        with pytest.raises(
            ValueError, match=r"layers of the model must be those of the assignment, .*'0', '2'"
        ):
            fixed_point_twin(model, FixedPointAssignment(layers=layers, statistics={}))
    wide = LayerFixedPoint(weight=FixedPoint.of_bits(1.0, 26))
    with pytest.raises(ValueError, match="weights of layer '2' must have at most 25 bits, got 26"):
        fixed_point_twin(model, FixedPointAssignment(layers={"0": FORMATS, "2": wide}, statistics={}))
    twin = fixed_point_twin(model, FixedPointAssignment(layers={"0": FORMATS, "2": FORMATS}, statistics={}))
    with pytest.raises(ValueError, match="_FixedPointLinear"):
        fixed_point_twin(twin, FixedPointAssignment(layers={"0": FORMATS, "2": FORMATS}, statistics={}))


# ---- The weight update ----


def exact_rounding(value, fmt):
    step = Fraction(fmt.step)
    size = floor(abs(value) / step + Fraction(1, 2)) * step
    return min(max(-size if value < 0 else size, -Fraction(fmt.range)), Fraction(fmt.range) - step)


def one_layer(formats, weights, rate):
    layer = nn.Linear(len(weights), 1)
    layer.weight.data[:] = torch.tensor([weights])
    twin = fixed_point_twin(layer, FixedPointAssignment(layers={"": formats}, statistics={}))
    return twin, FixedPointSGD(torch.optim.SGD(twin.parameters(), lr=rate), twin)


def test_every_step_is_the_documented_one_in_rationals():
    rng = np.random.default_rng(0)
    start = rng.normal(scale=0.3, size=40).astype(np.float32)
    rate = 2.0**-6
    twin, optimizer = one_layer(FORMATS, start.tolist(), rate)
    total = [Fraction(float(w)) for w in start]
    for step in range(20):
        w = [exact_rounding(t, FORMATS.weight) for t in total]
        acc = [exact_rounding(t - v, FORMATS.accumulator) for t, v in zip(total, w, strict=True)]
        assert twin.weight.detach()[0].tolist() == [float(v) for v in w]
        assert optimizer.accumulators[twin.weight][0].tolist() == [float(v) for v in acc]
        gradient = rng.normal(scale=1.0 if step % 5 else 30.0, size=40).astype(np.float32)
        twin.weight.grad = torch.from_numpy(gradient[None])
        optimizer.step()
        total = [
            v + a - Fraction(rate) * Fraction(float(g)) for v, a, g in zip(w, acc, gradient, strict=True)
        ]


def test_small_steps_add_up_in_the_accumulator_and_vanish_without_one():
    fine = LayerFixedPoint(
        weight=FixedPoint.parse("s0.3"),
        weight_gradient=FixedPoint.parse("s0.7"),
        accumulator=FixedPoint.parse("s-4.10"),
    )
    without = LayerFixedPoint(weight=fine.weight, weight_gradient=fine.weight_gradient)
    for formats, expected in ((fine, 0.5 - 100 * 2.0**-9), (without, 0.5)):
        twin, optimizer = one_layer(formats, [0.5], 2.0**-9)
        for _ in range(100):
            twin.weight.grad = torch.ones(1, 1)
            optimizer.step()
        assert twin.weight.item() + optimizer.accumulators[twin.weight].item() == expected
        assert twin.weight.item() % 0.125 == 0.0


def test_weights_without_gradient_formats_lose_nothing():
    for formats in (LayerFixedPoint(weight=FixedPoint.parse("s0.3")), LayerFixedPoint()):
        twin, optimizer = one_layer(formats, [0.3, -0.6], 0.1)
        for _ in range(5):
            twin.weight.grad = torch.tensor([[0.01, 0.02]])
            optimizer.step()
        found = twin.weight.detach().double().numpy() + optimizer.accumulators[twin.weight]
        np.testing.assert_allclose(found, [[0.295, -0.61]], rtol=1e-6)


def test_biases_make_plain_steps_and_the_rate_may_change():
    twin, optimizer = one_layer(FORMATS, [0.25], 0.5)
    start = twin.bias.item()
    twin.bias.grad = torch.tensor([0.125])
    optimizer.step()
    optimizer.optimizer.param_groups[0]["lr"] = 0.25
    optimizer.step()
    assert twin.bias.item() == pytest.approx(start - 0.75 * 0.125, rel=1e-6)
    assert twin.weight.item() == 0.25
    optimizer.zero_grad()
    assert twin.bias.grad is None


def test_an_optimizer_that_does_not_fit_is_an_error():
    model, _ = case("perceptron")
    twin = fixed_point_twin(model, FixedPointAssignment(layers={"0": FORMATS, "2": FORMATS}, statistics={}))
    with pytest.raises(ValueError, match=r"optimizer must be torch\.optim\.SGD, got Adam"):
        FixedPointSGD(torch.optim.Adam(twin.parameters()), twin)
    for options in ({"momentum": 0.9}, {"weight_decay": 0.1}, {"maximize": True}):
        name = next(iter(options))
        with pytest.raises(ValueError, match=f"SGD option {name} must be off, got"):
            FixedPointSGD(torch.optim.SGD(twin.parameters(), lr=0.1, **options), twin)
    with pytest.raises(ValueError, match=r"optimizer must have all weights of the twin, .* layer '0'"):
        FixedPointSGD(torch.optim.SGD(model.parameters(), lr=0.1), twin)
    with pytest.raises(ValueError, match="must come from fixed_point_twin, got a Sequential without formats"):
        FixedPointSGD(torch.optim.SGD(model.parameters(), lr=0.1), model)


# ---- A real training: digits, and its full-precision twin ----

RATE, STEPS, BATCH = 0.1, 300, 32
SEEDS = (0, 1, 2)


@lru_cache
def digits():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    inputs = (images / 16.0).astype(np.float32)
    parts = train_test_split(inputs, labels.astype(np.int64), test_size=450, random_state=0)
    return [torch.from_numpy(part) for part in parts]  # inputs to train on and to test, then labels


def network(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def batches(seed):
    inputs, _, labels, _ = digits()
    generator = torch.Generator().manual_seed(seed)
    found = []
    while len(found) < STEPS:
        order = torch.randperm(len(labels), generator=generator)
        found += [(inputs[c], labels[c]) for c in order.split(BATCH) if len(c) == BATCH]
    return found[:STEPS]


def train(model, optimizer, seed):
    for x, y in batches(seed):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()


def accuracy(assignment=None):
    """Mean over the seeds; in float32 without an assignment."""
    _, inputs, _, labels = digits()
    found = []
    for seed in SEEDS:
        model = network(seed)
        if assignment is None:
            optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        else:
            model = fixed_point_twin(model, assignment)
            optimizer = FixedPointSGD(torch.optim.SGD(model.parameters(), lr=RATE), model)
        train(model, optimizer, seed)
        with torch.no_grad():
            found.append((model(inputs).argmax(1) == labels).double().mean().item())
    return float(np.mean(found))


@pytest.fixture(scope="module")
def assignment():
    return assign_fixed_point(network(0), cross_entropy, batches(0), learning_rate=RATE, steps=STEPS)


@pytest.fixture(scope="module")
def full_precision():
    return accuracy()


def test_training_under_the_assignment_is_within_a_point_of_full_precision(assignment, full_precision):
    assert full_precision > 0.92
    assert assignment.excluded == ()
    assert assignment.table()["bits"].between(4, 16).all()
    assert accuracy(assignment) >= full_precision - 0.01


@pytest.mark.slow
def test_the_slack_on_digits_is_a_few_bits(assignment, full_precision):
    found = slack(assignment, accuracy, full_precision - 0.01)
    assert 0 <= found.spare_bits <= 3, found
    assert found.accuracies[-1] < full_precision - 0.01


def test_rounding_a_trained_network_changes_fewer_predictions_than_the_bound(assignment):
    model = network(0)
    train(model, torch.optim.SGD(model.parameters(), lr=RATE), 0)
    x = torch.cat([x for x, _ in batches(0)[-8:]])  # those of the gains
    with torch.no_grad():
        expected = model(x).argmax(1)
        for bits in range(4):
            narrowed = assignment.narrower(bits, tensors=["weight", "activation"])
            changed = (fixed_point_twin(model, narrowed)(x).argmax(1) != expected).double().mean().item()
            assert changed <= narrowed.mismatch()
