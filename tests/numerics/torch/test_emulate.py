"""Twins keep everything but the arithmetic, and what cannot be emulated is named."""

import copy
import io

import pytest
import torch
from torch import nn

from numerics.torch import LayerPolicy, Policy, emulate, restore

FP8 = LayerPolicy.uniform("e5m2", "e6m9 chunk=64")


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 4, 3),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(16, 10),
    )


IMAGES = torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def test_the_model_itself_is_left_alone():
    model = network()
    state = copy.deepcopy(model.state_dict())
    twin = emulate(model, FP8, seed=0)
    twin(IMAGES).sum().backward()
    assert [type(module) for module in model] == [type(module) for module in network()]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_names_values_and_modes_are_those_of_the_model():
    model = network().eval()
    model[0].weight.requires_grad_(False)
    twin = emulate(model, FP8, seed=0)
    assert list(twin.state_dict()) == list(model.state_dict())
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in model.state_dict().items())
    assert [name for name, _ in twin.named_modules()] == [name for name, _ in model.named_modules()]
    assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in model.parameters()]
    assert not any(module.training for module in twin.modules())
    assert isinstance(twin[0], nn.Conv2d)
    assert isinstance(twin[-1], nn.Linear)


def test_a_twin_computes_otherwise_and_restore_takes_it_back():
    model = network().eval()
    expected = model(IMAGES)
    twin = emulate(model, FP8, seed=0)
    assert not torch.equal(twin(IMAGES), expected)
    torch.testing.assert_close(twin(IMAGES), expected, rtol=0.5, atol=0.5)
    restore(twin)
    assert [type(module) for module in twin] == [type(module) for module in model]
    assert torch.equal(twin(IMAGES), expected)
    assert not any(hasattr(module, "emulation") for module in twin.modules())
    restore(twin)  # nothing to do
    assert not torch.equal(emulate(twin, FP8, seed=0)(IMAGES), expected)


def test_in_place_changes_the_model_itself():
    model = network()
    parameters = list(model.parameters())
    assert emulate(model, FP8, seed=0, inplace=True) is model
    assert all(one is other for one, other in zip(parameters, model.parameters(), strict=True))
    restore(model)
    assert [type(module) for module in model] == [type(module) for module in network()]


def test_hooks_keep_working():
    model, calls = network(), []
    model[0].register_forward_hook(lambda module, inputs, output: calls.append(("forward", output.shape)))
    model[0].register_full_backward_hook(lambda module, inputs, outputs: calls.append(("backward", None)))
    emulate(model, FP8, seed=0, inplace=True)(IMAGES.clone().requires_grad_()).sum().backward()
    assert [name for name, _ in calls] == ["forward", "backward"]
    assert calls[0][1] == (2, 4, 12, 12)


def test_a_shared_layer_stays_shared():
    layer = nn.Linear(3, 3)
    twin = emulate(nn.Sequential(layer, nn.ReLU(), layer), FP8, seed=0)
    assert twin[0] is twin[2]
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    twin = emulate(tied, FP8, seed=0)
    assert twin[0].weight is twin[1].weight


def test_a_twin_can_be_copied_and_saved():
    twin = emulate(network().eval(), FP8, seed=0)
    expected = twin(IMAGES)
    assert torch.equal(copy.deepcopy(twin)(IMAGES), expected)
    buffer = io.BytesIO()
    torch.save(twin, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(IMAGES), expected)


def test_a_single_layer_is_a_model():
    twin = emulate(nn.Linear(2, 1), FP8, seed=0)
    assert twin(torch.ones(3, 2)).shape == (3, 1)


def test_the_first_rule_that_matches_a_name_holds():
    wide = LayerPolicy()
    model = network().eval()
    twin = emulate(model, Policy([("7", wide), ("*", FP8)]), seed=0)
    assert twin[7].emulation.policy == wide
    assert twin[0].emulation.policy == twin[3].emulation.policy == FP8


def test_a_layer_that_no_rule_matches_is_an_error_before_anything_changes():
    model = network()
    with pytest.raises(ValueError, match="no rule of the policy matches layer '3'; the rules are for 0, 7"):
        emulate(model, Policy([("0", FP8), ("7", FP8)]), seed=0, inplace=True)
    assert type(model[0]) is nn.Conv2d


def test_emulating_twice_is_an_error():
    model = nn.Sequential(emulate(nn.Linear(2, 2), FP8, seed=0))
    with pytest.raises(ValueError, match="module '0' is emulated already; call restore first"):
        emulate(model, FP8, seed=0)


class OwnParameter(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.inner(x) * self.scale


class SubclassedLinear(nn.Linear):
    pass


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (nn.Conv1d(1, 1, 1), "Conv1d"),
        (nn.BatchNorm2d(2), "BatchNorm2d"),
        (nn.Softmax(-1), "Softmax"),
        (nn.LSTM(2, 2), "LSTM"),
        (SubclassedLinear(2, 2), "SubclassedLinear"),
        (OwnParameter(), "OwnParameter"),
    ],
)
def test_an_unsupported_module_is_named(module, kind):
    model = nn.Sequential(nn.Linear(2, 2), module)
    with pytest.raises(
        ValueError, match=rf"module '1' \({kind}\) cannot be emulated; supported are Linear, Conv2d"
    ):
        emulate(model, FP8, seed=0)


@pytest.mark.parametrize("arguments", [{"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}])
def test_padding_other_than_zeros_is_an_error(arguments):
    model = nn.Sequential(nn.Conv2d(1, 1, 3, **arguments))
    with pytest.raises(ValueError, match="padding of module '0' must be numbers of zeros, got padding="):
        emulate(model, FP8, seed=0)


def test_a_model_that_is_not_float32_is_an_error_before_it_runs():
    with pytest.raises((TypeError, ValueError), match="float64"):
        emulate(nn.Sequential(nn.Linear(2, 2).double()), FP8, seed=0)


def test_an_empty_container_is_an_identity():
    # The usual shortcut of a residual block.
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential())
    assert emulate(model, FP8, seed=0)(torch.ones(1, 2)).shape == (1, 2)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("policy", [FP8, LayerPolicy()], ids=["fp8", "float32"])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.Linear(3, 2), (3,)), (nn.Conv2d(2, 3, 2), (2, 4, 4)), (nn.Conv2d(2, 1, 2), (2, 4, 4))],
)
def test_an_activation_in_place_may_follow(layer, shape, policy, batch):
    torch.manual_seed(0)
    x = torch.randn(batch, *shape)
    gradients = []
    for inplace in (False, True):
        twin = emulate(nn.Sequential(layer, nn.ReLU(inplace=inplace)), policy, seed=0)
        twin(x).sum().backward()
        gradients.append(twin[0].weight.grad)
    assert torch.equal(*gradients)
