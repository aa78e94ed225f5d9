"""Low-precision SGD replayed in rationals, and the loss scaler around it."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from numerics import cast, parse_format
from numerics.torch import LossScaler, LowPrecision
from oracles.rational import round_rational


def parameter(values):
    return nn.Parameter(torch.tensor(np.asarray(values, np.float32)))


def exact(value):
    return Fraction(float(np.float32(value)))


def replay(weights, gradients, fmt, lr, momentum, decay):
    """Weights after each step: three AXPYs on Fractions, each rounded once to nearest even."""

    def rounded(value):
        return Fraction(round_rational(value, fmt))

    w = [rounded(Fraction(float(v))) for v in weights]
    v = [Fraction(0)] * len(w)
    for gradient in gradients:
        for i, g in enumerate(Fraction(float(g)) for g in gradient):
            step = rounded(g + exact(decay) * w[i]) if decay else g
            if momentum:
                step = v[i] = rounded(exact(momentum) * v[i] + step)
            w[i] = rounded(w[i] - exact(lr) * step)
        yield [float(value) for value in w]


@settings(max_examples=50)
@given(
    text=st.sampled_from(["e6m9", "e8m7", "e5m10", "e5m5-flush", "e8m23"]),
    lr=st.sampled_from([0.1, 0.5, 2.0**-6, 0.003]),
    momentum=st.sampled_from([0.0, 0.9, 0.5]),
    decay=st.sampled_from([0.0, 1e-4, 0.01]),
    seed=st.integers(0, 2**32),
)
def test_every_step_is_three_rounded_axpys(text, lr, momentum, decay, seed):
    rng, fmt = np.random.default_rng(seed), parse_format(text)
    start = rng.normal(size=5).astype(np.float32)
    gradients = rng.normal(size=(4, 5)).astype(np.float32)
    weights = parameter(start)
    sgd = torch.optim.SGD([weights], lr=lr, momentum=momentum, weight_decay=decay)
    optimizer = LowPrecision(sgd, format=text)
    for gradient, expected in zip(gradients, replay(start, gradients, fmt, lr, momentum, decay), strict=True):
        weights.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        assert weights.detach().tolist() == expected
        assert weights.grad.tolist() == gradient.tolist()


@pytest.mark.parametrize("rounding", ["nearest-even", "stochastic", "toward-zero"])
def test_weights_never_leave_the_format(rounding):
    torch.manual_seed(0)
    layer = nn.Linear(20, 10)
    sgd = torch.optim.SGD(layer.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    optimizer = LowPrecision(sgd, format="e5m4", rounding=rounding, seed=1)
    for _ in range(5):
        for weights in layer.parameters():
            values = weights.detach().numpy()
            np.testing.assert_array_equal(values, cast(values, "e5m4"))
        optimizer.zero_grad()
        assert all(weights.grad is None for weights in layer.parameters())
        layer(torch.randn(8, 20)).square().sum().backward()
        before = layer.weight.detach().clone()
        optimizer.step()
        assert not torch.equal(layer.weight, before)


def test_in_float32_it_is_the_sgd_of_torch():
    torch.manual_seed(0)
    start, gradients = torch.randn(50), torch.randn(6, 50)
    ours, theirs = (nn.Parameter(start.clone()) for _ in range(2))
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    optimizer = LowPrecision(torch.optim.SGD([ours], **options), format="fp32")
    reference = torch.optim.SGD([theirs], **options)
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        reference.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_small_steps_vanish_to_nearest_and_survive_stochastically():
    # 1 - 2**-14 rounds to 1 in e6m9, in which 1 has the neighbour 1 - 2**-10.
    results = {}
    for rounding in ("nearest-even", "stochastic"):
        weights = parameter(np.ones(20_000))
        optimizer = LowPrecision(
            torch.optim.SGD([weights], lr=2.0**-14), format="e6m9", rounding=rounding, seed=3
        )
        weights.grad = torch.ones(20_000)
        optimizer.step()
        results[rounding] = weights.detach().double().mean().item()
    assert results["nearest-even"] == 1.0
    deviation = 2.0**-10 * np.sqrt(1 / 16 * 15 / 16 / 20_000)
    assert abs(results["stochastic"] - (1 - 2.0**-14)) < 5 * deviation


def test_equal_seeds_repeat_and_every_step_draws_anew():
    def run(seed):
        weights = parameter(np.ones(500))
        optimizer = LowPrecision(
            torch.optim.SGD([weights], lr=2.0**-12), format="e6m9", rounding="stochastic", seed=seed
        )
        history = []
        for _ in range(3):
            weights.grad = torch.ones(500)
            optimizer.step()
            history.append(weights.detach().clone())
        return history

    one, again, other = run(5), run(5), run(6)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(one[0] != 1, one[1] != one[0])


def test_a_schedule_changes_the_step():
    weights = parameter([1.0])
    sgd = torch.optim.SGD([weights], lr=0.5)
    optimizer = LowPrecision(sgd, format="e6m9")
    for lr, expected in ((0.5, 0.5), (0.25, 0.25)):
        sgd.param_groups[0]["lr"] = lr
        weights.grad = torch.ones(1)
        optimizer.step()
        assert weights.item() == expected


def test_a_parameter_without_gradient_stays():
    used, unused = parameter([1.0]), parameter([1.0])
    optimizer = LowPrecision(torch.optim.SGD([used, unused], lr=0.5, momentum=0.9), format="e6m9")
    used.grad = torch.ones(1)
    optimizer.step()
    assert (used.item(), unused.item()) == (0.5, 1.0)


def test_other_optimizers_and_options_are_an_error():
    weights = parameter([1.0])
    with pytest.raises(ValueError, match=r"optimizer must be torch\.optim\.SGD, got Adam"):
        LowPrecision(torch.optim.Adam([weights]), format="e6m9")
    for options in (
        {"nesterov": True, "momentum": 0.9},
        {"dampening": 0.1, "momentum": 0.9},
        {"maximize": True},
    ):
        name = next(iter(options))
        with pytest.raises(ValueError, match=f"SGD option {name} must be off, got"):
            LowPrecision(torch.optim.SGD([weights], lr=0.1, **options), format="e6m9")
    with pytest.raises(ValueError, match="format must be"):
        LowPrecision(torch.optim.SGD([weights], lr=0.1), format="e6")


def test_an_update_between_forward_and_backward_is_noticed_as_in_torch():
    weights = parameter([2.0])
    optimizer = LowPrecision(torch.optim.SGD([weights], lr=0.5), format="e6m9")
    loss = (weights * weights).sum()
    weights.grad = torch.ones(1)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("bad", [float("inf"), float("nan"), -float("inf")])
def test_a_step_with_a_non_finite_gradient_is_skipped_and_counted(bad):
    one, other = parameter([1.0]), parameter([1.0])
    sgd = torch.optim.SGD([one, other], lr=0.5, momentum=0.9)
    scaler = LossScaler(4.0)
    for optimizer in (LowPrecision(sgd, format="e6m9"), sgd):
        skipped = scaler.skipped
        one.grad, other.grad = torch.ones(1), torch.tensor([bad])
        assert not scaler.step(optimizer)
        assert scaler.skipped == skipped + 1
        assert one.item() == other.item() == 1.0
        assert one.grad.item() == 1.0


def test_scaling_by_a_power_of_two_changes_no_weight():
    results = []
    for scale in (1.0, 1024.0):
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        optimizer = LowPrecision(torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9), format="e6m9")
        scaler = LossScaler(scale)
        for _ in range(3):
            optimizer.zero_grad()
            scaler.backward(layer(torch.ones(4, 3)).square().sum())
            assert scaler.step(optimizer)
        results.append(layer.weight.detach().clone())
    assert torch.equal(*results)
    assert scaler.skipped == 0


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_a_bad_scale_is_an_error(scale):
    with pytest.raises(ValueError, match="scale must be positive and finite, got"):
        LossScaler(scale)
