"""Loss scaling: a table of events, torch's own scaler, and unscaling in rationals."""

import io
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from numerics import parse_format
from numerics.torch import LossScaler, LowPrecision
from oracles.rational import round_rational

BAD = [float("inf"), float("nan"), -float("inf")]


def parameter(values):
    return nn.Parameter(torch.tensor(np.asarray(values, np.float32)))


def single(value):
    """A rational, or float, rounded once to float32."""
    return round_rational(Fraction(value), parse_format("fp32"))


def events(scaler, outcomes):
    """(scale, skipped) after each step; a gradient is 1 for an outcome of True, else infinite."""
    w = parameter([0.0])
    sgd = torch.optim.SGD([w], lr=1.0)
    for finite in outcomes:
        w.grad = torch.tensor([1.0 if finite else float("inf")])
        assert scaler.step(sgd) is finite
        yield scaler.scale, scaler.skipped


@pytest.mark.parametrize("bad", BAD)
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
    assert scaler.scale == 4.0


@given(
    shape=st.sampled_from([(1,), (33,), (7, 40), (1, 3, 5)]),
    bad=st.sampled_from([[], BAD[:1], BAD[1:2], [BAD[0], BAD[2]]]),
    transposed=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.float64]),
    seed=st.integers(0, 2**32),
)
def test_any_infinity_or_nan_is_found_and_a_large_sum_is_none(shape, bad, transposed, dtype, seed):
    values = torch.full(shape, torch.finfo(dtype).max, dtype=dtype)  # two of these overflow
    places = np.random.default_rng(seed).permutation(values.numel())
    for place, value in zip(places, bad, strict=False):
        values.view(-1)[place] = value
    has_bad = not np.isfinite(values.numpy()).all()
    if transposed:
        values = values.transpose(0, -1)
    w = nn.Parameter(torch.zeros_like(values))
    w.grad = values
    assert LossScaler(1.0).step(torch.optim.SGD([w], lr=0.0)) is not has_bad


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


@given(
    scale=st.floats(2.0**-20, 2.0**40) | st.sampled_from([3.0, 1000.1, 1024.0]),
    seed=st.integers(0, 2**32),
)
def test_scaling_and_unscaling_round_once_to_float32(scale, seed):
    gradients = np.random.default_rng(seed).normal(size=20).astype(np.float32)
    w = parameter(np.zeros(20))
    scaler = LossScaler(scale)
    scaler.backward((w * torch.from_numpy(gradients)).sum())
    scaled = [single(Fraction(float(g)) * Fraction(single(scale))) for g in gradients]
    assert w.grad.tolist() == scaled
    scaler.unscale(torch.optim.SGD([w], lr=1.0))
    assert w.grad.tolist() == [single(Fraction(g) / Fraction(single(scale))) for g in scaled]


def test_dynamic_scaling_by_hand():
    scaler = LossScaler.dynamic(initial=16.0, interval=2, maximum=64.0, minimum=4.0)
    table = [
        # finite, scale after it, skipped
        (True, 16.0, 0),
        (True, 32.0, 0),  # two in a row
        (True, 32.0, 0),
        (False, 16.0, 1),  # and the count starts anew
        (True, 16.0, 1),
        (True, 32.0, 1),
        (True, 32.0, 1),
        (True, 64.0, 1),
        (True, 64.0, 1),
        (True, 64.0, 1),  # 128 is beyond the maximum
        (False, 32.0, 2),
        (False, 16.0, 3),
        (False, 8.0, 4),
        (False, 4.0, 5),
        (False, 4.0, 6),  # 2 is below the minimum
        (True, 4.0, 6),
        (True, 8.0, 6),
    ]
    assert scaler.is_dynamic
    assert not LossScaler().is_dynamic
    assert list(events(scaler, [row[0] for row in table])) == [row[1:] for row in table]


@given(
    finite=st.lists(st.sampled_from([True, True, True, False]), min_size=1, max_size=40),
    growth=st.sampled_from([2.0, 1.5, 4.0]),
    backoff=st.sampled_from([0.5, 0.25, 0.75]),
    interval=st.integers(1, 5),
)
def test_within_its_range_it_is_the_scaler_of_torch(finite, growth, backoff, interval):
    ours, theirs = (parameter([1.0, 2.0]) for _ in range(2))
    our_sgd, their_sgd = (torch.optim.SGD([w], lr=2.0**-5, momentum=0.5) for w in (ours, theirs))
    scaler = LossScaler.dynamic(
        initial=2.0**16,
        growth=growth,
        backoff=backoff,
        interval=interval,
        maximum=2.0**127,
        minimum=2.0**-100,
    )
    reference = torch.amp.GradScaler(
        "cpu", init_scale=2.0**16, growth_factor=growth, backoff_factor=backoff, growth_interval=interval
    )
    for good in finite:
        factor = torch.tensor([1.0, 1.0 if good else float("inf")])
        for w in (ours, theirs):
            w.grad = None
        scaler.backward((ours * factor).sum())
        reference.scale((theirs * factor).sum()).backward()
        before = theirs.detach().clone()
        assert scaler.step(our_sgd) is good
        reference.step(their_sgd)
        reference.update()
        assert torch.equal(before, theirs) is not good
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
        assert scaler.scale == pytest.approx(reference.get_scale(), rel=1e-5)  # theirs is a float32
    assert scaler.skipped == finite.count(False)


def test_the_defaults_are_those_of_torch():
    settings, theirs = LossScaler.dynamic().state_dict(), torch.amp.GradScaler("cpu")
    assert settings["scale"] == theirs.get_scale() == 65536.0
    assert settings["settings"] == {
        "growth": theirs.get_growth_factor(),
        "backoff": theirs.get_backoff_factor(),
        "interval": theirs.get_growth_interval(),
        "maximum": 2.0**24,
        "minimum": 1.0,
    }


@pytest.mark.parametrize("low_precision", [False, True])
def test_gradients_unscaled_first_can_be_clipped_and_are_not_unscaled_again(low_precision):
    w = parameter([0.0, 0.0])
    optimizer = torch.optim.SGD([w], lr=1.0)
    if low_precision:
        optimizer = LowPrecision(optimizer, format="e6m9")
    scaler = LossScaler(1024.0)
    for round_ in (1.0, 2.0):  # the second step unscales anew
        w.grad = torch.tensor([3.0, 4.0]) * 1024
        scaler.unscale(optimizer)
        assert w.grad.tolist() == [3.0, 4.0]
        with pytest.raises(RuntimeError, match="unscaled already; unscale once between two steps"):
            scaler.unscale(optimizer)
        nn.utils.clip_grad_value_([w], 0.5)
        assert scaler.step(optimizer)
        assert w.tolist() == [-0.5 * round_, -0.5 * round_]
    w.grad = torch.tensor([1024.0, 0.0])
    scaler.step(optimizer)
    assert w.tolist() == [-2.0, -1.0]


def test_unscaling_by_the_inner_optimizer_counts_for_the_outer():
    w = parameter([0.0])
    sgd = torch.optim.SGD([w], lr=1.0)
    optimizer, scaler = LowPrecision(sgd, format="e6m9"), LossScaler(4.0)
    w.grad = torch.tensor([4.0])
    scaler.unscale(sgd)
    assert scaler.step(optimizer)
    assert w.item() == -1.0


def test_an_overflow_that_clipping_hides_still_skips_the_step():
    w = parameter([0.0])
    sgd = torch.optim.SGD([w], lr=1.0)
    scaler = LossScaler.dynamic(initial=8.0)
    w.grad = torch.tensor([float("inf")])
    scaler.unscale(sgd)
    nn.utils.clip_grad_value_([w], 0.5)
    assert w.grad.item() == 0.5
    assert not scaler.step(sgd)
    assert (w.item(), scaler.scale, scaler.skipped) == (0.0, 4.0, 1)
    w.grad = torch.tensor([4.0])
    assert scaler.step(sgd)
    assert w.item() == -1.0


def test_optimizers_of_one_backward_pass_step_together_or_not_at_all():
    one, other = parameter([0.0]), parameter([0.0])
    optimizers = [torch.optim.SGD([w], lr=1.0) for w in (one, other)]
    scaler = LossScaler.dynamic(initial=8.0, interval=1)
    one.grad, other.grad = torch.tensor([8.0]), torch.tensor([float("nan")])
    assert not scaler.step(*optimizers)
    assert (one.item(), scaler.scale, scaler.skipped) == (0.0, 4.0, 1)
    one.grad, other.grad = torch.tensor([8.0]), torch.tensor([4.0])
    assert scaler.step(*optimizers)
    assert (one.item(), other.item(), scaler.scale) == (-2.0, -1.0, 8.0)
    with pytest.raises(TypeError, match="step needs an optimizer, got none"):
        scaler.step()


def test_a_saved_scaler_goes_on_where_it_was():
    outcomes = [True, False, True, True, True, False, True, True]

    def scaler():
        return LossScaler.dynamic(initial=16.0, interval=3)

    whole = scaler()
    expected = list(events(whole, outcomes))
    for stop in range(len(outcomes)):
        first, second = scaler(), scaler()
        done = list(events(first, outcomes[:stop]))
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        file.seek(0)
        second.load_state_dict(torch.load(file, weights_only=True))
        assert done + list(events(second, outcomes[stop:])) == expected
    assert len(set(expected)) > 3


def test_the_state_of_another_scaler_is_an_error():
    constant, dynamic = LossScaler(1024.0), LossScaler.dynamic(interval=100)
    message = "state is of a constant scaler with scale 1024, this is a dynamic scaler with growth 2, "
    with pytest.raises(ValueError, match=message):
        dynamic.load_state_dict(constant.state_dict())
    with pytest.raises(ValueError, match="with scale 1024, this is a constant scaler with scale 512"):
        LossScaler(512.0).load_state_dict(constant.state_dict())
    with pytest.raises(ValueError, match=r"interval 100, .* interval 2000"):
        LossScaler.dynamic().load_state_dict(dynamic.state_dict())
    with pytest.raises(
        ValueError, match=r"must come from LossScaler\.state_dict, got one with scale, growth_f"
    ):
        dynamic.load_state_dict(torch.amp.GradScaler("cpu").state_dict())


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan"), 1e39, 1e-46])
def test_a_bad_scale_is_an_error(scale):
    with pytest.raises(ValueError, match="scale must be positive and finite in float32, got"):
        LossScaler(scale)


def test_a_scale_that_the_format_of_errors_cannot_hold_is_an_error():
    assert LossScaler(57344.0, format="e5m2").scale == 57344.0
    with pytest.raises(ValueError, match=r"at most 57344, the largest value of e5m2, got 1e\+09"):
        LossScaler(1e9, format="e5m2")
    with pytest.raises(ValueError, match="at most 448, the largest value of e4m3fn, got 65536"):
        LossScaler.dynamic(format=parse_format("e4m3fn"))


def test_a_dynamic_scale_does_not_grow_beyond_the_format_of_errors():
    scaler = LossScaler.dynamic(initial=128.0, interval=1, format="e4m3fn")
    assert [scale for scale, _ in events(scaler, [True] * 3)] == [256.0, 256.0, 256.0]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"growth": 1.0}, ValueError, r"growth must be finite and above 1, got 1\.0"),
        ({"backoff": 1.0}, ValueError, r"backoff must be between 0 and 1, got 1\.0"),
        ({"interval": 0}, ValueError, "interval must be at least 1, got 0"),
        ({"interval": 2.5}, TypeError, r"interval must be an integer, got 2\.5"),
        ({"initial": 0.5}, ValueError, "got minimum 1, initial 0.5, maximum 1.67772e"),
        ({"maximum": 1e39}, ValueError, "must hold in float32, got"),
        ({"minimum": 0.0}, ValueError, "got minimum 0, initial"),
        ({"initial": float("nan")}, ValueError, "initial nan"),
    ],
)
def test_bad_dynamic_settings_are_an_error(settings, error, message):
    with pytest.raises(error, match=message):
        LossScaler.dynamic(**settings)


def test_sparse_gradients_are_an_error():
    layer = nn.Embedding(4, 2, sparse=True)
    scaler = LossScaler(4.0)
    scaler.backward(layer(torch.tensor([1])).sum())
    with pytest.raises(TypeError, match=r"gradients must be dense, got torch\.sparse_coo"):
        scaler.step(torch.optim.SGD(layer.parameters(), lr=0.1))
