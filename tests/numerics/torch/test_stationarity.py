"""The callback: the verdicts of the test itself on the same gradients, the momentum caveat, the probe."""

import io
import math

import numpy as np
import pytest
import torch
from torch import nn

from numerics.theory.stationarity import PflugTest
from numerics.torch import LowPrecision
from numerics.torch.stationarity import StationarityTest


def parameter(values, dtype=torch.float32):
    return nn.Parameter(torch.tensor(values, dtype=dtype))


def feed(test, weights, gradients):
    """Verdicts on gradients that are set by hand."""
    found = []
    for gradient in gradients:
        weights.grad = torch.as_tensor(gradient, dtype=weights.dtype).reshape(weights.shape)
        found.append(test.step())
    return found


def test_verdicts_are_those_of_the_test_on_the_same_gradients():
    rng = np.random.default_rng(0)
    first, second, third = parameter(np.zeros((2, 3))), parameter(0.0), parameter(np.zeros(4))
    sgd = torch.optim.SGD([{"params": [first, second]}, {"params": [third], "lr": 0.3}], lr=0.1)
    called = []
    options = {"burn_in": 2, "min_count": 3, "band": 0.2}
    test = StationarityTest(sgd, on_stationary=lambda: called.append(1), **options)
    core = PflugTest(2, min_count=3, band=0.2)
    for index in range(80):
        parts = [rng.normal(size=(2, 3)), rng.normal(), rng.normal(size=4)]
        parts = [np.float32(part) for part in parts]
        if index % 7 == 3:
            parts[1] = None
        for weights, part in zip((first, second, third), parts, strict=True):
            weights.grad = None if part is None else torch.as_tensor(part)
        assert test.step() == core.update([None if part is None else np.asarray(part) for part in parts])
        assert test.statistic == core.statistic
    assert test.alarms == core.alarms == len(called) > 0
    assert [group["lr"] for group in sgd.param_groups] == [0.1, 0.3]


def test_an_alarm_halves_every_rate_and_begins_anew():
    first, second = parameter([0.0]), parameter([0.0])
    sgd = torch.optim.SGD([{"params": [first]}, {"params": [second], "lr": 0.4}], lr=0.1)
    test = StationarityTest(sgd)
    assert feed(test, first, [1.0, -1.0]) == [False, True]
    assert [group["lr"] for group in sgd.param_groups] == [0.05, 0.2]
    assert feed(test, first, [1.0, 1.0, -3.0]) == [False, False, True]
    assert [group["lr"] for group in sgd.param_groups] == [0.025, 0.1]
    assert test.alarms == 2


def test_another_factor_and_a_rate_that_is_a_tensor():
    weights = parameter([0.0])
    rate = torch.tensor(0.5)
    test = StationarityTest(torch.optim.SGD([weights], lr=rate), factor=0.25)
    feed(test, weights, [1.0, -1.0])
    assert rate.item() == 0.125


def test_a_changed_rate_starts_anew():
    weights = parameter([0.0])
    sgd = torch.optim.SGD([weights], lr=0.1)
    test = StationarityTest(sgd)
    feed(test, weights, [1.0, 1.0])
    assert test.statistic == 1.0
    sgd.param_groups[0]["lr"] = 0.2
    assert feed(test, weights, [-5.0]) == [False]
    assert test.statistic == 0.0


def test_a_new_parameter_starts_anew():
    weights = parameter([0.0])
    sgd = torch.optim.SGD([weights], lr=0.1)
    test = StationarityTest(sgd)
    feed(test, weights, [1.0, 1.0])
    sgd.add_param_group({"params": [parameter([0.0, 0.0])]})
    assert feed(test, weights, [-5.0, 5.0]) == [False, True]
    feed(test, weights, [1.0, 1.0])
    sgd.param_groups[0]["params"].append(parameter([0.0]))
    assert feed(test, weights, [-5.0]) == [False]
    assert test.statistic == 0.0


def test_weight_decay_is_part_of_the_gradient():
    weights = parameter([2.0])
    for options in ({}, {"maximize": True}):
        test = StationarityTest(torch.optim.SGD([weights], lr=0.1, weight_decay=0.5, **options))
        feed(test, weights, [1.0, 3.0])
        # 1 + 0.5 * 2 = 2, and 4; to ascend, the gradient has the other sign and the decay has not.
        assert test.statistic == (2.0 * 4.0 if not options else 0.0 * -2.0)


@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.NAdam])
def test_weight_decay_apart_from_the_gradient_is_refused(make):
    options = {} if make is torch.optim.AdamW else {"decoupled_weight_decay": True}
    optimizer = make([parameter([0.0])], betas=(0.3, 0.9), weight_decay=0.1, **options)
    with pytest.raises(
        ValueError, match=rf"weight_decay must be 0 or part of the gradient, got 0\.1 .*{make.__name__}"
    ):
        StationarityTest(optimizer)
    optimizer.param_groups[0]["weight_decay"] = 0.0
    StationarityTest(optimizer)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_gradients_of_other_dtypes(dtype):
    weights = parameter([0.0, 0.0], dtype)
    test = StationarityTest(torch.optim.SGD([weights], lr=0.1))
    feed(test, weights, [[1.5, 0.25], [0.5, -2.0]])
    assert test.statistic == 0.25


def test_sparse_gradients():
    table = nn.Embedding(5, 2, sparse=True)
    test = StationarityTest(torch.optim.SGD(table.parameters(), lr=0.1))
    for rows in ([0, 1], [1, 2]):
        table.zero_grad()
        table(torch.tensor(rows)).sum().backward()
        test.step()
    assert test.statistic == 2.0


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_gradient_that_is_not_finite_is_passed_over_with_its_pair(bad):
    weights = parameter([0.0])
    test = StationarityTest(torch.optim.SGD([weights], lr=0.1))
    assert feed(test, weights, [1.0, 1.0, bad, -9.0]) == [False] * 4
    assert (test.statistic, test.skipped) == (1.0, 1)
    assert feed(test, weights, [1.0]) == [True]


def test_no_gradient_at_all_is_an_error():
    test = StationarityTest(torch.optim.SGD([parameter([0.0])], lr=0.1))
    with pytest.raises(ValueError, match="no parameter has a gradient"):
        test.step()


# Momentum


def optimizers(weights):
    return {
        "sgd": torch.optim.SGD([weights], lr=0.1, momentum=0.9),
        "nesterov": torch.optim.SGD([weights], lr=0.1, momentum=0.5, nesterov=True),
        "adam": torch.optim.Adam([weights], lr=0.1),
        "rmsprop": torch.optim.RMSprop([weights], lr=0.1, momentum=0.6),
    }


@pytest.mark.parametrize(
    ("name", "momentum"), [("sgd", 0.9), ("nesterov", 0.5), ("adam", 0.9), ("rmsprop", 0.6)]
)
def test_momentum_from_one_half_on_is_refused_with_the_reason(name, momentum):
    optimizer = optimizers(parameter([0.0]))[name]
    with pytest.raises(ValueError, match=rf"momentum must be in \[0, 1/2\), got {momentum}: .* probe=True"):
        StationarityTest(optimizer)


def test_momentum_is_looked_at_every_step_and_in_every_group():
    first, second = parameter([0.0]), parameter([0.0])
    sgd = torch.optim.SGD([{"params": [first]}, {"params": [second]}], lr=0.1, momentum=0.4)
    test = StationarityTest(sgd)
    assert feed(test, first, [1.0]) == [False]
    sgd.param_groups[1]["momentum"] = 0.95  # as a one-cycle schedule does
    with pytest.raises(ValueError, match=r"got 0\.95"):
        feed(test, first, [1.0])
    adam = torch.optim.Adam([first], betas=(0.2, 0.999))
    test = StationarityTest(adam)
    adam.param_groups[0]["betas"] = (0.9, 0.999)
    with pytest.raises(ValueError, match=r"got 0\.9:"):
        feed(test, first, [1.0])


# The probe


class Quadratic:
    """``|w|**2 / 2`` with noise of variance 1 in the gradients, and the points where it was evaluated."""

    def __init__(self, weights, seed=0):
        self.weights, self.points = weights, []
        self.random = torch.Generator().manual_seed(seed)
        self.noises = []

    def __call__(self):
        self.points.append(self.weights.detach().clone())
        noise = torch.randn(self.weights.shape, generator=self.random, dtype=self.weights.dtype)
        self.noises.append(noise)
        return (self.weights.square().sum() / 2) + (noise * self.weights).sum()


@pytest.mark.parametrize(
    ("options", "scale"),
    [
        ({"momentum": 0.75}, 4.0),
        ({"momentum": 0.75, "dampening": 0.5}, 2.0),
        ({"momentum": 0.75, "nesterov": True}, 4.0),
        ({"momentum": 0.75, "weight_decay": 0.25}, 4.0),
        ({"momentum": 0.75, "maximize": True}, 4.0),
    ],
)
def test_a_probe_is_plain_descent_at_the_rate_of_the_momentum_and_leaves_no_trace(options, scale):
    weights = parameter([1.0, -2.0, 0.5], torch.float64)
    sgd = torch.optim.SGD([weights], lr=0.01, **options)
    task = Quadratic(weights)
    # Momentum to be kept, and a gradient.
    task().backward()
    sgd.step()
    before, buffer = weights.detach().clone(), sgd.state[weights]["momentum_buffer"].clone()
    gradient = weights.grad.clone()
    task.points.clear()
    task.noises.clear()
    test = StationarityTest(sgd, probe=True, closure=task, probe_every=3, probe_steps=6)
    assert [test.step() for _ in range(2)] == [False, False]
    assert not task.points
    verdict = test.step()
    assert torch.equal(weights, before)
    assert torch.equal(weights.grad, gradient)
    assert torch.equal(sgd.state[weights]["momentum_buffer"], buffer)
    assert len(task.points) == 6
    # Plain descent in numpy.
    sign, decay = (-1 if options.get("maximize") else 1), options.get("weight_decay", 0.0)
    w, last, total = before.numpy(), None, 0.0
    for point, noise in zip(task.points, task.noises, strict=True):
        np.testing.assert_allclose(point.numpy(), w, rtol=1e-12)
        g = sign * (w + noise.numpy()) + decay * w
        total += 0.0 if last is None else float(g @ last)
        last, w = g, w - scale * 0.01 * g
    assert verdict == (total < 0)
    # The next one is as many calls away.
    test.step()
    assert len(task.points) == 6


def test_several_groups_and_parameters_without_gradient_in_a_probe():
    first, second, frozen = parameter([1.0, 1.0]), parameter([2.0]), parameter([3.0])
    unused = parameter([4.0])
    frozen.requires_grad_(False)
    sgd = torch.optim.SGD(
        [{"params": [first, frozen], "momentum": 0.5}, {"params": [unused, second], "lr": 0.2}],
        lr=0.1,
        momentum=0.0,
    )
    seen = []

    def closure():
        seen.append((first.tolist(), second.tolist(), frozen.tolist(), unused.tolist()))
        return first.sum() + 2 * second.sum() + frozen.sum()

    test = StationarityTest(sgd, probe=True, closure=closure, probe_every=1, probe_steps=2)
    assert not test.step()  # equal gradients
    assert seen[0] == ([1.0, 1.0], [2.0], [3.0], [4.0])
    assert seen[1] == (pytest.approx([0.8, 0.8]), pytest.approx([1.6]), [3.0], [4.0])
    assert (first.tolist(), second.tolist()) == ([1.0, 1.0], [2.0])


def test_parameters_are_put_back_after_an_error():
    weights = parameter([1.0])
    calls = []

    def closure():
        calls.append(weights.item())
        if len(calls) == 3:
            raise RuntimeError("no more data")
        return weights.sum()

    sgd = torch.optim.SGD([weights], lr=0.1, momentum=0.9)
    test = StationarityTest(sgd, probe=True, closure=closure, probe_every=1, probe_steps=5)
    with pytest.raises(RuntimeError, match="no more data"):
        test.step()
    assert weights.item() == 1.0
    assert calls[2] != 1.0


def test_a_probe_that_diverges_has_no_verdict():
    weights = parameter([1.0])
    sgd = torch.optim.SGD([weights], lr=1e3, momentum=0.9)
    test = StationarityTest(
        sgd, probe=True, closure=lambda: weights.square().sum(), probe_every=1, probe_steps=50
    )
    assert not test.step()
    assert test.skipped == 1
    assert weights.item() == 1.0


def test_a_loss_without_the_parameters_is_an_error():
    other, weights = parameter([1.0]), parameter([1.0])
    sgd = torch.optim.SGD([weights], lr=0.1, momentum=0.9)
    test = StationarityTest(sgd, probe=True, closure=lambda: other.sum(), probe_every=1)
    with pytest.raises(ValueError, match="closure must return a loss of the parameters"):
        test.step()


def run(start, *, momentum=0.9, lr=0.02, steps=150, seed=0, p=50, **options):
    """Heavy ball on the noisy quadratic; verdicts, and the sum that the run's own gradients would give."""
    weights = parameter(np.full(p, start / math.sqrt(p)))
    sgd = torch.optim.SGD([weights], lr=lr, momentum=momentum)
    task = Quadratic(weights, seed)
    probing = Quadratic(weights, seed + 1000)
    test = StationarityTest(sgd, probe=True, closure=probing, on_stationary=lambda: None, **options)
    verdicts, products, last = [], [], None
    for _ in range(steps):
        sgd.zero_grad()
        task().backward()
        verdicts.append(test.step())
        products.append(0.0 if last is None else float((weights.grad * last).sum()))
        last = weights.grad.clone()
        sgd.step()
    return verdicts, products


def test_a_probe_sees_the_rest_that_the_gradients_of_the_run_hide():
    for seed in range(3):
        verdicts, products = run(60.0, steps=400, seed=seed, probe_every=10, probe_steps=40)
        probes = verdicts[9::10]
        assert not any(probes[:2])  # descending: 0.9 of the way takes about 50 steps
        assert np.mean(probes[20:]) > 0.8
        assert sum(products[200:]) > 0  # at rest, and yet


def test_with_little_momentum_the_run_itself_is_tested():
    weights = parameter([0.0])
    sgd = torch.optim.SGD([weights], lr=0.1, momentum=0.3)
    calls = []
    test = StationarityTest(sgd, probe=True, closure=lambda: calls.append(1), probe_every=1)
    assert feed(test, weights, [1.0, -1.0]) == [False, True]
    assert not calls


def test_gradients_before_and_after_much_momentum_are_no_pair():
    weights = parameter([0.0])
    sgd = torch.optim.SGD([weights], lr=0.1, momentum=0.3)
    test = StationarityTest(sgd, probe=True, closure=lambda: weights.sum(), probe_every=100)
    feed(test, weights, [1.0])
    sgd.param_groups[0]["momentum"] = 0.9
    feed(test, weights, [1.0])
    sgd.param_groups[0]["momentum"] = 0.3
    assert feed(test, weights, [-1.0]) == [False]
    assert test.statistic == 0.0


# Use


def test_it_goes_on_from_its_state_after_saving():
    rng = np.random.default_rng(3)
    gradients = rng.normal(size=(60, 2))

    def build():
        weights = parameter([0.0, 0.0])
        sgd = torch.optim.SGD([weights, parameter([1.0])], lr=0.1)
        return weights, StationarityTest(sgd, burn_in=3, on_stationary=lambda: None)

    weights, whole = build()
    expected = feed(whole, weights, gradients)
    weights, first = build()
    found = feed(first, weights, gradients[:33])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    weights, second = build()
    second.load_state_dict(torch.load(file, weights_only=True))
    found += feed(second, weights, gradients[33:])
    assert found == expected
    assert second.alarms == whole.alarms > 0
    with pytest.raises(ValueError, match=r"state must have the keys test, .*, got alarms"):
        second.load_state_dict({"alarms": 1})


def test_the_wait_for_a_probe_is_part_of_the_state():
    def build():
        weights = parameter([1.0])
        sgd = torch.optim.SGD([weights], lr=0.1, momentum=0.9)
        calls = []

        def closure():
            calls.append(1)
            return weights.square().sum()

        return StationarityTest(sgd, probe=True, closure=closure, probe_every=4, probe_steps=2), calls

    first, _ = build()
    for _ in range(3):
        first.step()
    second, calls = build()
    second.load_state_dict(first.state_dict())
    second.step()
    assert len(calls) == 2


def regression(seed, *, tested, steps, rate=0.05):
    """Squared distance from the true weights, of a linear layer trained on four noisy samples at a time."""
    random = torch.Generator().manual_seed(seed)
    truth = torch.arange(1.0, 6.0)
    layer = nn.Linear(5, 1, bias=False)
    nn.init.zeros_(layer.weight)
    sgd = torch.optim.SGD(layer.parameters(), lr=rate)
    test = StationarityTest(sgd, burn_in=100, min_count=20)
    for _ in range(steps):
        x = torch.randn(4, 5, generator=random)
        y = x @ truth + torch.randn(4, generator=random)
        sgd.zero_grad()
        ((layer(x)[:, 0] - y).square().mean() / 2).backward()
        if tested:
            test.step()
        sgd.step()
    return float((layer.weight.detach()[0] - truth).square().sum()), test.alarms


def test_halving_at_rest_brings_a_run_closer_than_a_constant_rate():
    halved, constant = (
        [regression(seed, tested=tested, steps=1200) for seed in range(2)] for tested in (True, False)
    )
    assert all(alarms >= 2 for _, alarms in halved)
    assert np.mean([square for square, _ in halved]) < 0.4 * np.mean([square for square, _ in constant])


def test_low_precision_training_is_tested_as_its_own_gradients_are():
    weights = parameter([0.0])
    sgd = torch.optim.SGD([weights], lr=0.1)
    narrow = LowPrecision(sgd, format="e6m9")
    test = StationarityTest(narrow)
    assert feed(test, weights, [1.0, -1.0]) == [False, True]
    assert sgd.param_groups[0]["lr"] == 0.05


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"factor": 1.0}, ValueError, r"factor must be in \(0, 1\), got 1\.0"),
        ({"burn_in": -1}, ValueError, "burn_in must be at least 0, got -1"),
        ({"probe": True}, ValueError, "closure must be given with probe=True, got None"),
        ({"probe_every": 0}, ValueError, "probe_every must be at least 1, got 0"),
        ({"probe_steps": 1}, ValueError, "probe_steps must be at least 2, got 1"),
        ({"probe_steps": 2.5}, TypeError, r"probe_steps must be an integer, got 2\.5"),
        ({"probe_scale": 0.0}, ValueError, r"probe_scale must be positive and finite, got 0\.0"),
    ],
)
def test_bad_settings_are_an_error(options, error, message):
    with pytest.raises(error, match=message):
        StationarityTest(torch.optim.SGD([parameter([0.0])], lr=0.1), **options)


def test_the_scale_of_a_probe_is_known_for_sgd_alone():
    adam = torch.optim.Adam([parameter([1.0])], lr=0.1)
    with pytest.raises(ValueError, match=r"probe_scale must be given .*, got None with Adam"):
        StationarityTest(adam, probe=True, closure=lambda: None)
    points = []
    weights = adam.param_groups[0]["params"][0]

    def closure():
        points.append(weights.item())
        return weights.sum()

    StationarityTest(adam, probe=True, closure=closure, probe_every=1, probe_steps=2, probe_scale=0.5).step()
    assert points == [1.0, pytest.approx(0.95)]
