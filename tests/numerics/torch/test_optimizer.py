"""Low-precision optimizers replayed in rationals, and beside those of torch."""

import copy
import io
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from numerics import cast, parse_format
from numerics.torch import LowPrecision
from oracles.philox import cast_draws
from oracles.rational import round_rational

SGD, Adam, AdamW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW
# The roundings of a step, as the random words number them.
DECAY, SHARE, SQUARE, FIRST, SECOND, DIRECTION, WEIGHT = range(1, 8)
formats = st.sampled_from(["e6m9", "e8m7", "e7m5-flush", "e8m23", "e4m3fn"])
roundings = st.sampled_from(["nearest-even", "toward-zero", "stochastic:6"])
decays = st.sampled_from([0.0, 1e-4, 0.01])
seeds = st.integers(0, 2**32)


def parameter(values):
    return nn.Parameter(torch.tensor(np.asarray(values, np.float32)))


def single(value):
    """A scalar as the AXPYs take it, rounded to float32."""
    return Fraction(float(np.float32(value)))


class Replay:
    """One element of one parameter on its formats, every rounding once and in rationals."""

    def __init__(self, fmt, state_fmt, rounding, seed, number, element):
        self.fmt, self.state_fmt = parse_format(fmt), parse_format(state_fmt)
        self.mode, _, bits = rounding.partition(":")
        self.bits, self.seed, self.number, self.element = int(bits or 0), seed, number, element
        self.count = 0

    def round(self, kind, value):
        fmt = self.state_fmt if kind in (SHARE, SQUARE, FIRST, SECOND) else self.fmt
        draw = None
        if self.mode == "stochastic":
            stream = ((self.number << 3 | kind) << 40) + self.count
            draw = cast_draws(self.seed, stream, self.bits)(self.element)
        return Fraction(round_rational(Fraction(value), fmt, self.mode, draw=draw))

    def start(self, w):
        return Fraction(round_rational(Fraction(float(w)), self.fmt))

    def sgd(self, w, gradients, *, lr, momentum, dampening, weight_decay, nesterov, maximize):
        w, v = self.start(w), Fraction(0)
        for g in gradients:
            self.count += 1
            g = Fraction(float(-g if maximize else g))
            if weight_decay:
                g = self.round(DECAY, g + single(weight_decay) * w)
            n = g
            if momentum:
                h = g
                if dampening and self.count > 1:
                    h = self.round(SHARE, single(1 - dampening) * g)
                n = v = self.round(FIRST, single(momentum) * v + h)
                if nesterov:
                    n = self.round(DIRECTION, single(momentum) * v + g)
            w = self.round(WEIGHT, w - single(lr) * n)
            yield float(w)

    def adam(self, w, gradients, *, lr, betas, eps, weight_decay, maximize, decoupled):
        w, m, v = self.start(w), Fraction(0), Fraction(0)
        b1, b2 = betas
        for g in gradients:
            self.count += 1
            g = Fraction(float(-g if maximize else g))
            if weight_decay and decoupled:
                w = self.round(DECAY, w - single(lr * weight_decay) * w)
            elif weight_decay:
                g = self.round(DECAY, g + single(weight_decay) * w)
            m = self.round(FIRST, single(b1) * m + self.round(SHARE, single(1 - b1) * g))
            s = self.round(SQUARE, float(g * g) * (1 - b2))
            v = self.round(SECOND, single(b2) * v + s)
            root = math.sqrt(float(v) / (1 - b2**self.count)) + eps
            u = self.round(DIRECTION, float(m) / (1 - b1**self.count) / root)
            w = self.round(WEIGHT, w - single(lr) * u)
            yield float(w)


def check_replay(optimizer_type, fmt, state_fmt, rounding, seed, options, replay):
    """Four steps of two parameters, the second of which has no gradient in the second step."""
    rng = np.random.default_rng(seed)
    shapes = [(2,), (1, 3)]
    starts = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    gradients = [rng.normal(size=(4, *shape)).astype(np.float32) for shape in shapes]
    weights = [parameter(start) for start in starts]
    optimizer = LowPrecision(
        optimizer_type(weights, **options), format=fmt, rounding=rounding, seed=seed, state_format=state_fmt
    )
    expected = [
        [
            list(replay(Replay(fmt, state_fmt or fmt, rounding, seed, number, i), w, g))
            for i, (w, g) in enumerate(zip(start.ravel(), kept.reshape(len(kept), -1).T, strict=True))
        ]
        for number, (start, kept) in enumerate(
            zip(starts, (gradients[0], np.delete(gradients[1], 1, axis=0)), strict=True)
        )
    ]
    for step in range(4):
        for w, g in zip(weights, gradients, strict=True):
            w.grad = torch.from_numpy(g[step].copy())
        if step == 1:
            weights[1].grad = None
        optimizer.step()
        done = (step, step if step == 0 else step - 1)
        for w, trajectories, at in zip(weights, expected, done, strict=True):
            assert w.detach().flatten().tolist() == [trajectory[at] for trajectory in trajectories]
        np.testing.assert_array_equal(weights[0].grad, gradients[0][step])


@settings(max_examples=80)
@given(
    fmt=formats,
    state_fmt=st.none() | formats,
    rounding=roundings,
    seed=seeds,
    lr=st.sampled_from([0.1, 0.5, 2.0**-6, 0.003]),
    momentum=st.sampled_from([0.0, 0.9, 0.5]),
    dampening=st.sampled_from([0.0, 0.3]),
    decay=decays,
    nesterov=st.booleans(),
    maximize=st.booleans(),
)
def test_every_step_of_sgd_is_its_rounded_axpys(
    fmt, state_fmt, rounding, seed, lr, momentum, dampening, decay, nesterov, maximize
):
    options = {
        "lr": lr,
        "momentum": momentum,
        "weight_decay": decay,
        "dampening": dampening,
        "nesterov": nesterov and momentum > 0 and not dampening,  # what torch takes
        "maximize": maximize,
    }
    check_replay(
        SGD, fmt, state_fmt, rounding, seed, options, lambda replay, w, g: replay.sgd(w, g, **options)
    )


@settings(max_examples=80)
@given(
    kind=st.sampled_from([Adam, AdamW]),
    fmt=formats,
    state_fmt=st.none() | formats,
    rounding=roundings,
    seed=seeds,
    lr=st.sampled_from([0.01, 2.0**-6]),
    betas=st.sampled_from([(0.9, 0.999), (0.5, 0.9), (0.0, 0.99)]),
    eps=st.sampled_from([1e-8, 1e-3]),
    decay=decays,
    maximize=st.booleans(),
)
def test_every_step_of_adam_and_adamw_is_its_declared_roundings(
    kind, fmt, state_fmt, rounding, seed, lr, betas, eps, decay, maximize
):
    options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": decay, "maximize": maximize}
    decoupled = kind is AdamW
    check_replay(
        kind,
        fmt,
        state_fmt,
        rounding,
        seed,
        options,
        lambda replay, w, g: replay.adam(w, g, **options, decoupled=decoupled),
    )


def test_the_steps_of_wang_et_al_by_hand():
    # e5m2 has steps of 1/4 from 1 on and of 1/8 below.
    w = parameter([1.0])
    optimizer = LowPrecision(SGD([w], lr=0.125, momentum=0.5, weight_decay=0.0625), format="e5m2")
    w.grad = torch.tensor([1.25])
    optimizer.step()  # g = round(1.25 + 1 / 16) = 1.25 = v, w = round(1 - 1.25 / 8) = round(0.84375)
    assert w.item() == 0.875
    w.grad = torch.tensor([1.0])
    optimizer.step()  # g = round(1 + 0.875 / 16) = 1, v = round(0.5 * 1.25 + 1) = round(1.625), a tie
    assert optimizer.state_dict()["state"][0]["momentum_buffer"].item() == 1.5
    assert w.item() == 0.75  # round(0.875 - 1.5 / 8) = round(0.6875), a tie


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (SGD, {"lr": 0.1}),
        (SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
        (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.4, "maximize": True}),
        (SGD, {"lr": torch.tensor(0.1), "dampening": 0.4}),
        (Adam, {"lr": 0.01}),
        (Adam, {"lr": 0.01, "weight_decay": 0.1, "maximize": True, "betas": (0.8, 0.95)}),
        (AdamW, {"lr": 0.01, "weight_decay": 0.1}),
        (AdamW, {"lr": 0.01, "eps": 0.1, "foreach": True, "maximize": True}),
    ],
)
def test_in_float32_it_is_the_optimizer_of_torch(kind, options):
    torch.manual_seed(0)
    start, gradients = torch.randn(50), torch.randn(20, 50)
    ours, theirs = (nn.Parameter(start.clone()) for _ in range(2))
    optimizer, reference = LowPrecision(kind([ours], **options), format="e8m23"), kind([theirs], **options)
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        reference.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(ours, start, atol=1e-2)


def test_adam_with_decoupled_decay_is_adamw():
    if "decoupled_weight_decay" not in Adam([parameter([1.0])]).defaults:
        pytest.skip("this torch has no such option")
    results = []
    for inner in (
        lambda w: Adam([w], lr=0.01, weight_decay=0.1, decoupled_weight_decay=True),
        lambda w: AdamW([w], lr=0.01, weight_decay=0.1),
        lambda w: Adam([w], lr=0.01, weight_decay=0.1),
    ):
        w = parameter([1.0, -2.0])
        optimizer = LowPrecision(inner(w), format="e8m10")
        for _ in range(3):
            w.grad = torch.tensor([1.0, 0.1])
            optimizer.step()
        results.append(w.tolist())
    assert results[0] == results[1] != results[2]


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
@pytest.mark.parametrize("rounding", ["nearest-even", "stochastic", "toward-zero"])
def test_weights_and_state_never_leave_their_formats(kind, rounding):
    torch.manual_seed(0)
    layer = nn.Linear(20, 10)
    options = {"momentum": 0.9} if kind is SGD else {}
    inner = kind(layer.parameters(), lr=0.05, weight_decay=1e-3, **options)
    optimizer = LowPrecision(inner, format="e5m4", rounding=rounding, seed=1, state_format="e6m6")
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
    entries = [value for state in optimizer.state_dict()["state"].values() for value in state.values()]
    moments = [value.numpy() for value in entries if isinstance(value, torch.Tensor)]
    assert len(moments) == (2 if kind is SGD else 4)
    for values in moments:
        np.testing.assert_array_equal(values, cast(values, "e6m6"))
        assert not np.array_equal(values, cast(values, "e5m4"))


def test_gradients_may_be_zeroed_in_place():
    w = parameter([1.0])
    optimizer = LowPrecision(SGD([w], lr=0.5), format="e6m9")
    w.grad = torch.ones(1)
    optimizer.zero_grad(set_to_none=False)
    assert w.grad.item() == 0.0


def mean_after_one_step(kind, rounding, **options):
    weights = parameter(np.ones(20_000))
    inner = kind([weights], lr=2.0**-14, **options)
    optimizer = LowPrecision(inner, format="e6m9", rounding=rounding, seed=3, state_format="fp32")
    weights.grad = torch.ones(20_000)
    optimizer.step()
    return weights.detach().double().mean().item()


@pytest.mark.parametrize(
    ("kind", "options", "step"),
    [(SGD, {}, 1.0), (SGD, {"momentum": 0.5, "nesterov": True}, 1.5), (Adam, {"eps": 1.0}, 0.5)],
)
def test_small_steps_vanish_to_nearest_and_survive_stochastically(kind, options, step):
    # 1 - step * 2**-14 rounds to 1 in e6m9, in which 1 has the neighbour 1 - 2**-10.
    assert mean_after_one_step(kind, "nearest-even", **options) == 1.0
    up = step / 16
    deviation = 2.0**-10 * np.sqrt(up * (1 - up) / 20_000)
    for rounding in ("stochastic", "stochastic:10"):
        mean = mean_after_one_step(kind, rounding, **options)
        assert abs(mean - (1 - step * 2.0**-14)) < 5 * deviation


def test_a_second_moment_that_underflows_is_saved_by_a_wider_state():
    # 0.001 * 0.01**2 is far below half of 2**-9, the least positive number of e4m3fn.
    def change(state_format):
        w = parameter([1.0])
        inner = Adam([w], lr=2.0**-10)
        optimizer = LowPrecision(inner, format="e4m3fn", state_format=state_format, rounding="toward-zero")
        w.grad = torch.tensor([-0.1])
        optimizer.step()
        return w.item() - 1.0, optimizer.state_dict()["state"][0]["exp_avg_sq"].item()

    narrow, wide = change(None), change("fp32")
    assert narrow == (0.375, 0.0)  # u is 448, the largest: 448 / 1024 = 0.4375 on top of 1
    assert wide[0] == 0.0
    assert wide[1] == pytest.approx(1e-5, rel=1e-6)


def stochastic_run(kind, seed, *, present=(True, True), groups=False, steps=3):
    """Two equal parameters, of which some have gradients."""
    pair = [parameter(np.ones(300)) for _ in range(2)]
    inner = kind([{"params": [w]} for w in pair] if groups else pair, lr=2.0**-12)
    optimizer = LowPrecision(inner, format="e6m9", rounding="stochastic", seed=seed)
    history = []
    for _ in range(steps):
        for w, has in zip(pair, present, strict=True):
            w.grad = torch.ones(300) if has else None
        optimizer.step()
        history.append([w.detach().clone() for w in pair])
    return history


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_equal_seeds_repeat_and_every_step_and_parameter_draws_anew(kind):
    one, again, other = (stochastic_run(kind, seed) for seed in (5, 5, 6))
    for a, b in zip(one, again, strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])
    assert not torch.equal(one[0][0], other[0][0])
    assert not torch.equal(one[0][0], one[0][1])
    assert not torch.equal(one[0][0] != 1, one[1][0] != one[0][0])


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_random_words_depend_on_no_other_parameter(kind):
    together = stochastic_run(kind, 5)
    alone = stochastic_run(kind, 5, present=(False, True))
    grouped = stochastic_run(kind, 5, groups=True)
    for both, second, apart in zip(together, alone, grouped, strict=True):
        assert torch.equal(both[1], second[1])
        assert torch.equal(second[0], torch.ones(300))
        assert torch.equal(both[0], apart[0])
        assert torch.equal(both[1], apart[1])


@pytest.mark.parametrize("built_on", ["inner before", "inner after", "wrapper"])
def test_a_scheduler_of_either_optimizer_changes_the_step(built_on):
    weights = parameter([8.0])
    sgd = SGD([weights], lr=1.0)
    if built_on == "inner before":
        scheduler = torch.optim.lr_scheduler.StepLR(sgd, 1, gamma=0.5)
    optimizer = LowPrecision(sgd, format="e6m9")
    if built_on != "inner before":
        chosen = optimizer if built_on == "wrapper" else sgd
        scheduler = torch.optim.lr_scheduler.StepLR(chosen, 1, gamma=0.5)
    for expected in (7.0, 6.5, 6.25):
        weights.grad = torch.ones(1)
        optimizer.step()
        scheduler.step()  # would warn of a step that was not seen
        assert weights.item() == expected
    assert optimizer.param_groups is sgd.param_groups
    assert optimizer.param_groups[0]["lr"] == 0.125


def test_a_cycle_of_rate_and_momentum_follows_torch():
    torch.manual_seed(0)
    start, gradients = torch.randn(20), torch.randn(10, 20)
    results = []
    for wrap in (lambda inner: inner, lambda inner: LowPrecision(inner, format="fp32")):
        w = nn.Parameter(start.clone())
        optimizer = wrap(Adam([w], lr=0.1))
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=11)
        for gradient in gradients:
            w.grad = gradient.clone()
            optimizer.step()
            scheduler.step()
        results.append(w.detach())
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_a_parameter_without_gradient_stays():
    used, unused = parameter([1.0]), parameter([1.0])
    optimizer = LowPrecision(SGD([used, unused], lr=0.5, momentum=0.9), format="e6m9")
    used.grad = torch.ones(1)
    optimizer.step()
    assert (used.item(), unused.item()) == (0.5, 1.0)
    assert list(optimizer.state_dict()["state"]) == [0]


def test_a_closure_computes_loss_and_gradients():
    w = parameter([3.0])
    optimizer = LowPrecision(SGD([w], lr=0.25), format="e6m9")

    def closure():
        optimizer.zero_grad()
        loss = w.square().sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert optimizer.step(closure).item() == 9.0
    assert w.item() == 1.5


def test_a_group_added_later_is_rounded_and_updated():
    first, second = parameter([1.0]), parameter([1 + 2.0**-12])
    optimizer = LowPrecision(SGD([first], lr=0.5), format="e6m9")
    optimizer.add_param_group({"params": [second], "lr": 0.25})
    assert second.item() == 1.0
    second.grad = torch.ones(1)
    optimizer.step()
    assert (first.item(), second.item()) == (1.0, 0.75)
    with pytest.raises(TypeError, match="parameter 2 must be dense float32"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1, dtype=torch.float64))]})
    assert len(optimizer.param_groups) == 2


def train(model, optimizer, gradients):
    for gradient in gradients:
        for w, part in zip(model.parameters(), gradient, strict=True):
            w.grad = part.clone()
        optimizer.step()


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3))


def wrapped(kind, model, **changes):
    options = {"momentum": 0.9, "dampening": 0.1} if kind is SGD else {}
    settings = {"format": "e6m9", "rounding": "stochastic", "seed": 11, "state_format": "e8m7", **changes}
    return LowPrecision(kind(model.parameters(), lr=0.05, weight_decay=0.01, **options), **settings)


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_a_run_resumed_from_a_file_goes_on_bit_for_bit(kind):
    model = network()
    gradients = [[torch.randn(w.shape) for w in model.parameters()] for _ in range(6)]
    optimizer = wrapped(kind, model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    train(model, optimizer, gradients[:3])
    scheduler.step()
    file, kept = io.BytesIO(), optimizer.state_dict()
    torch.save([model.state_dict(), kept, scheduler.state_dict()], file)
    train(model, optimizer, gradients[3:])

    torch.manual_seed(2)
    other = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3))
    file.seek(0)
    weights, state, schedule = torch.load(file, weights_only=True)
    # Later steps changed nothing of what was returned before.
    torch.testing.assert_close(kept["state"], state["state"], rtol=0, atol=0)
    assert kept["param_groups"] == state["param_groups"]
    other.load_state_dict(weights)
    resumed = wrapped(kind, other)
    again = torch.optim.lr_scheduler.StepLR(resumed, 1, gamma=0.5)
    resumed.load_state_dict(state)
    again.load_state_dict(schedule)
    assert resumed.param_groups[0]["lr"] == resumed.optimizer.param_groups[0]["lr"] == 0.025
    train(other, resumed, gradients[3:])
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(*(o.state_dict()["state"].values() for o in (optimizer, resumed)), strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(torch.as_tensor(a[name]), torch.as_tensor(b[name])) for name in a)


def test_a_copy_goes_on_like_the_original():
    model = network()
    optimizer = wrapped(Adam, model)
    gradients = [[torch.randn(w.shape) for w in model.parameters()] for _ in range(4)]
    train(model, optimizer, gradients[:2])
    twin, its = copy.deepcopy((model, optimizer))
    train(model, optimizer, gradients[2:])
    train(twin, its, gradients[2:])
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert a is not b
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "e8m7"}, "saved with format e6m9, this optimizer has format e8m7"),
        ({"state_format": "e6m9"}, "saved with state_format e8m7, this optimizer has state_format e6m9"),
        ({"rounding": "down"}, "saved with rounding stochastic, this optimizer has rounding down"),
        ({"seed": 12}, "saved with seed 11, this optimizer has seed 12"),
    ],
)
def test_the_state_of_other_settings_is_an_error(changes, message):
    state = wrapped(SGD, network()).state_dict()
    with pytest.raises(ValueError, match=message):
        wrapped(SGD, network(), **changes).load_state_dict(state)


def test_the_state_of_another_optimizer_or_network_is_an_error():
    model = network()
    optimizer = wrapped(SGD, model)
    train(model, optimizer, [[torch.randn(w.shape) for w in model.parameters()]])
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match="saved with optimizer SGD, this optimizer has optimizer Adam"):
        wrapped(Adam, network()).load_state_dict(state)
    with pytest.raises(ValueError, match=r"groups of \[4\] parameters, this optimizer has \[2\]"):
        wrapped(SGD, nn.Linear(7, 5)).load_state_dict(state)
    wider = nn.Sequential(nn.Linear(8, 5), nn.Linear(5, 3))
    message = r"momentum_buffer of parameter 0 must have shape \(5, 8\), got \(5, 7\)"
    target = wrapped(SGD, wider)
    with pytest.raises(ValueError, match=message):
        target.load_state_dict(state)
    assert not target.state_dict()["state"]
    with pytest.raises(
        ValueError, match=r"must come from LowPrecision\.state_dict, got one with state, param"
    ):
        optimizer.load_state_dict(SGD(model.parameters(), lr=0.1).state_dict())


def layouts(values):
    """A 4-d array as parameters of several memory layouts."""
    x = torch.tensor(values)
    buffer = torch.zeros(x.numel() + 3)
    buffer[3:] = x.flatten()
    return {
        "transposed": x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        "channels last": x.contiguous(memory_format=torch.channels_last),
        "every second": torch.stack([x, x], -1)[..., 0],
        "a view of a buffer": buffer[3:].view(x.shape),
    }


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_views_and_any_strides_give_the_result_of_contiguous_parameters(kind):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    gradients = rng.normal(size=(3, 2, 3, 4, 5)).astype(np.float32)

    def run(x, layout_of_gradient):
        w = nn.Parameter(x)
        strides, address = w.stride(), w.data_ptr()
        inner = kind(
            [w], lr=0.1, weight_decay=0.1, maximize=True, **({"momentum": 0.9} if kind is SGD else {})
        )
        optimizer = LowPrecision(inner, format="e6m9", rounding="stochastic", seed=1)
        for gradient in gradients:
            w.grad = layouts(gradient)[layout_of_gradient]
            optimizer.step()
        assert (w.stride(), w.data_ptr()) == (strides, address)
        return w.detach().contiguous()

    expected = run(torch.tensor(start), "a view of a buffer")
    for name, x in layouts(start).items():
        assert torch.equal(run(x, name), expected), name


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_scalars_and_empty_parameters_are_parameters(kind):
    scalar, vector, empty = parameter(2.0), parameter([2.0]), parameter(np.zeros((0, 3)))
    inner = kind([scalar, vector, empty], lr=0.25, weight_decay=0.125, maximize=True)
    optimizer = LowPrecision(inner, format="e6m9")
    for _ in range(2):
        scalar.grad, vector.grad, empty.grad = torch.tensor(1.0), torch.ones(1), torch.zeros(0, 3)
        optimizer.step()
    assert scalar.shape == ()
    assert scalar.item() == vector.item() != 2.0


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_without_a_scaler_nan_passes_through(kind):
    w = parameter([1.0, 1.0])
    optimizer = LowPrecision(kind([w], lr=0.5), format="e6m9")
    w.grad = torch.tensor([float("nan"), 1.0])
    optimizer.step()
    assert w.isnan().tolist() == [True, False]


def test_without_a_scaler_infinity_passes_through():
    w = parameter([1.0, 1.0])
    optimizer = LowPrecision(SGD([w], lr=0.5), format="e6m9")
    w.grad = torch.tensor([float("inf"), 1.0])
    optimizer.step()
    assert w.tolist() == [-float("inf"), 0.5]


def test_adam_without_eps_divides_zero_by_zero_as_torch_does():
    ours, theirs = parameter([1.0, 1.0]), parameter([1.0, 1.0])
    inner = Adam([ours], lr=0.5, eps=0.0)
    for w, optimizer in (
        (ours, LowPrecision(inner, format="e6m9")),
        (theirs, Adam([theirs], lr=0.5, eps=0.0)),
    ):
        w.grad = torch.tensor([0.0, 1.0])
        optimizer.step()
        assert w.isnan().tolist() == [True, False]


def test_weights_beyond_the_format_start_at_its_largest_value():
    w = parameter([1e9, -1e9, 1.0])
    LowPrecision(SGD([w], lr=0.5), format="e5m2")
    assert w.tolist() == [57344.0, -57344.0, 1.0]


def test_other_optimizers_and_options_are_an_error():
    weights = parameter([1.0])
    names = r"must be one of torch\.optim\.SGD, torch\.optim\.Adam, torch\.optim\.AdamW; got RMSprop"
    with pytest.raises(ValueError, match=names):
        LowPrecision(torch.optim.RMSprop([weights]), format="e6m9")
    for kind, option in ((Adam, "amsgrad"), (AdamW, "capturable"), (SGD, "differentiable")):
        message = f"{kind.__name__} option {option} must be off, got True; supported are lr, "
        inner = kind([weights], lr=0.1, **{option: True})
        with pytest.raises(ValueError, match=message):
            LowPrecision(inner, format="e6m9")
        assert len(inner.param_groups) == 1
    optimizer = LowPrecision(Adam([weights]), format="e6m9")
    optimizer.param_groups[0]["amsgrad"] = True
    with pytest.raises(ValueError, match="Adam option amsgrad must be off, got True"):
        optimizer.step()


def test_other_formats_and_seeds_are_an_error():
    sgd = SGD([parameter([1.0])], lr=0.1)
    with pytest.raises(ValueError, match="format must be"):
        LowPrecision(sgd, format="e6")
    with pytest.raises(ValueError, match=r"format must be a signed floating-point format, got s3\.4"):
        LowPrecision(sgd, format="s3.4")
    with pytest.raises(ValueError, match="state_format must be a signed floating-point format, got ue5m2"):
        LowPrecision(sgd, format="e5m2", state_format="ue5m2")
    with pytest.raises(ValueError, match="seed must be in"):
        LowPrecision(sgd, format="e5m2", seed=-1)
    with pytest.raises(ValueError, match="rounding must be one of"):
        LowPrecision(sgd, format="e5m2", rounding="nearest")


def test_an_optimizer_with_a_past_is_an_error():
    w = parameter([1.0])
    sgd = SGD([w], lr=0.1, momentum=0.9)
    w.grad = torch.ones(1)
    sgd.step()
    with pytest.raises(ValueError, match="must not have stepped yet, got SGD with the state of 1 parameters"):
        LowPrecision(sgd, format="e6m9")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_parameters_of_other_dtypes_are_an_error_that_changes_nothing(dtype):
    fine, other = parameter([1 + 2.0**-12]), nn.Parameter(torch.ones(2, dtype=dtype))
    sgd = SGD([fine, other], lr=0.1)
    with pytest.raises(TypeError, match=rf"parameter 1 must be dense float32 on the CPU, got {dtype}"):
        LowPrecision(sgd, format="e6m9")
    assert fine.item() == 1 + 2.0**-12
    assert sgd.param_groups[0]["params"][1] is other


def test_parameters_elsewhere_are_an_error_that_names_them():
    layer = nn.Linear(2, 2, device="meta")
    with pytest.raises(
        TypeError, match=r"parameter 0.* on the CPU, got torch\.float32, torch\.strided on meta"
    ):
        LowPrecision(SGD(layer.parameters(), lr=0.1), format="e6m9")
    named = SGD(nn.ModuleDict({"fc": nn.Linear(2, 2).double()}).named_parameters(), lr=0.1)
    if "param_names" in named.param_groups[0]:
        with pytest.raises(TypeError, match=r"parameter 0 \(fc\.weight\) must be dense float32"):
            LowPrecision(named, format="e6m9")


def test_a_sparse_gradient_is_an_error_before_any_update():
    layer = nn.Embedding(4, 2, sparse=True)
    other = parameter([1.0])
    optimizer = LowPrecision(SGD([other, layer.weight], lr=0.5), format="e6m9")
    (layer(torch.tensor([1])).sum() + other.sum()).backward()
    with pytest.raises(TypeError, match=r"gradient of parameter 1 must be dense .*, got .*torch\.sparse_coo"):
        optimizer.step()
    assert other.item() == 1.0


def test_an_update_between_forward_and_backward_is_noticed_as_in_torch():
    weights = parameter([2.0])
    optimizer = LowPrecision(SGD([weights], lr=0.5), format="e6m9")
    loss = (weights * weights).sum()
    weights.grad = torch.ones(1)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_it_prints_its_settings():
    optimizer = LowPrecision(Adam([parameter([1.0])]), format="e6m9", rounding="stochastic:8", seed=3)
    assert repr(optimizer) == (
        "LowPrecision(optimizer=Adam, format=e6m9, rounding=stochastic:8, seed=3, state_format=e6m9)"
    )
