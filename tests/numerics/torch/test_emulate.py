"""Twins keep everything but the arithmetic, and what cannot be emulated is named."""

import copy
import io

import pytest
import torch
from torch import nn

from numerics.torch import LayerPolicy, Policy, emulate, restore
from numerics.torch.emulate import emulation_state, load_emulation_state
from numerics.torch.policy import Rule

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


class Own(nn.Module):
    """A module with a layer, a parameter and code of its own."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.ones(2, 2))

    def forward(self, x):
        return self.inner(x) @ self.scale


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
    model = network().append(Own()).eval()
    model[0].weight.requires_grad_(False)
    twin = emulate(model, FP8, seed=0)
    assert list(twin.state_dict()) == list(model.state_dict())
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in model.state_dict().items())
    assert [name for name, _ in twin.named_modules()] == [name for name, _ in model.named_modules()]
    assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in model.parameters()]
    assert not any(module.training for module in twin.modules())
    for one, other in zip(twin.modules(), model.modules(), strict=True):
        assert isinstance(one, type(other))
    twin.load_state_dict(model.state_dict())
    model.load_state_dict(twin.state_dict())


def test_a_twin_computes_otherwise_and_restore_takes_it_back():
    model = network().eval()
    expected = model(IMAGES)
    twin = emulate(model, FP8, seed=0)
    assert not torch.equal(twin(IMAGES), expected)
    torch.testing.assert_close(twin(IMAGES), expected, rtol=0.5, atol=0.5)
    restore(twin)
    assert [type(module) for module in twin] == [type(module) for module in model]
    assert torch.equal(twin(IMAGES), expected)
    assert vars(twin[0]).keys() == vars(model[0]).keys()
    restore(twin)  # nothing to do
    assert not torch.equal(emulate(twin, FP8, seed=0)(IMAGES), expected)


@pytest.mark.parametrize(
    "module",
    [Own(), nn.MultiheadAttention(2, 1), nn.ConvTranspose1d(2, 2, 1), nn.Embedding(2, 2), nn.Conv1d(2, 2, 1)],
    ids=lambda module: type(module).__name__,
)
def test_restore_takes_every_kind_of_module_back(module):
    model = nn.Sequential(module)
    before = [(type(part), vars(part).keys()) for part in model.modules()]
    emulate(model, FP8, seed=0, inplace=True)
    assert type(model[0]) is not before[1][0]
    restore(model)
    assert [(type(part), vars(part).keys()) for part in model.modules()] == before


def test_in_place_changes_the_model_itself():
    model = network()
    parameters = list(model.parameters())
    assert emulate(model, FP8, seed=0, inplace=True) is model
    assert all(one is other for one, other in zip(parameters, model.parameters(), strict=True))
    restore(model)
    assert [type(module) for module in model] == [type(module) for module in network()]


@pytest.mark.parametrize("module", [nn.Linear(2, 2), Own()], ids=["layer", "module with code"])
def test_hooks_keep_working(module):
    model, calls = nn.Sequential(module), []
    module.register_forward_pre_hook(lambda module, inputs: calls.append("before"))
    module.register_forward_hook(lambda module, inputs, output: calls.append(("forward", output.shape)))
    module.register_full_backward_hook(lambda module, inputs, outputs: calls.append("backward"))
    emulate(model, FP8, seed=0, inplace=True)(torch.ones(3, 2, requires_grad=True)).sum().backward()
    assert calls == ["before", ("forward", (3, 2)), "backward"]


def test_a_hook_of_the_weight_sees_its_gradient():
    twin, seen = emulate(nn.Linear(2, 2), FP8, seed=0), []
    twin.weight.register_hook(lambda gradient: seen.append(gradient.clone()))
    twin(torch.ones(1, 2)).sum().backward()
    assert torch.equal(seen[0], twin.weight.grad)


def test_a_shared_layer_stays_shared():
    layer = nn.Linear(3, 3)
    twin = emulate(nn.Sequential(layer, nn.ReLU(), layer), FP8, seed=0)
    assert twin[0] is twin[2]
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    twin = emulate(tied, FP8, seed=0)
    assert twin[0].weight is twin[1].weight
    twin(torch.ones(2, 3)).sum().backward()
    # Both uses add to one gradient.
    alone = emulate(tied, FP8, seed=0)
    middle = alone[0](torch.ones(2, 3))
    cut = middle.detach().requires_grad_()
    alone[1](cut).sum().backward()
    second = alone[1].weight.grad.clone()
    alone.zero_grad()
    middle.backward(cut.grad)
    assert torch.equal(twin[0].weight.grad, alone[0].weight.grad + second)


def test_a_twin_can_be_copied_and_saved():
    twin = emulate(network().append(nn.Linear(10, 2)).append(Own()).eval(), FP8, seed=0)
    expected = twin(IMAGES)
    assert torch.equal(copy.deepcopy(twin)(IMAGES), expected)
    buffer = io.BytesIO()
    torch.save(twin, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    assert torch.equal(loaded(IMAGES), expected)
    restore(loaded)
    assert type(loaded[-1]) is Own


def test_a_single_layer_is_a_model():
    twin = emulate(nn.Linear(2, 1), FP8, seed=0)
    assert twin(torch.ones(3, 2)).shape == (3, 1)


def test_the_first_rule_that_matches_a_name_holds():
    model = network().eval()
    middle = emulate(model[:7], FP8, seed=0)(IMAGES)
    twin = emulate(model, Policy([("7", LayerPolicy()), ("*", FP8)]), seed=0)
    torch.testing.assert_close(twin(IMAGES), model[7](middle), rtol=1e-6, atol=1e-6)
    whole = emulate(model, FP8, seed=0)
    assert torch.equal(whole(IMAGES), emulate(model[7], FP8, seed=0)(middle))


@pytest.mark.parametrize("place", ["@first", "@last"])
def test_the_ends_of_a_network_have_rules_of_their_own(place):
    model = network().eval()
    rules = [
        Rule(place, **dict.fromkeys(("weight", "activation", "error", "forward", "backward", "gradient")))
    ]
    by_place = emulate(model, Policy([*rules, ("*", FP8)]), seed=0)
    by_name = emulate(
        model, Policy([({"@first": "0", "@last": "7"}[place], LayerPolicy()), ("*", FP8)]), seed=0
    )
    assert torch.equal(by_place(IMAGES), by_name(IMAGES))
    assert not torch.equal(by_place(IMAGES), emulate(model, FP8, seed=0)(IMAGES))


def test_a_layer_that_no_rule_matches_is_an_error_before_anything_changes():
    model = network()
    with pytest.raises(ValueError, match=r"no rule .*'3'"):
        emulate(model, Policy([("0", FP8), ("7", FP8)]), seed=0, inplace=True)
    assert type(model[0]) is nn.Conv2d


def test_a_rule_that_matches_no_module_is_an_error_before_anything_changes():
    model = network()
    with pytest.raises(ValueError, match=r"'head'.* matches no module"):
        emulate(model, Policy([Rule("head", weight="e5m2"), ("*", FP8)]), seed=0, inplace=True)
    assert type(model[0]) is nn.Conv2d


def test_emulating_twice_is_an_error():
    for module in (nn.Linear(2, 2), Own()):
        model = nn.Sequential(emulate(module, FP8, seed=0))
        with pytest.raises(ValueError, match="module '0' is emulated already; call restore first"):
            emulate(model, FP8, seed=0)


class SubclassedLinear(nn.Linear):
    pass


class OverwrittenLinear(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


def test_a_subclass_of_a_layer_is_emulated_with_its_own_code():
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    plain = nn.Linear(4, 4)
    expected = emulate(plain, FP8, seed=0)(x)
    for kind, factor in ((SubclassedLinear, 1), (OverwrittenLinear, 2)):
        layer = kind(4, 4)
        layer.load_state_dict(plain.state_dict())
        assert torch.equal(emulate(layer, FP8, seed=0)(x), expected * factor)


def test_a_model_that_is_not_float32_is_an_error_before_it_runs():
    for model in (nn.Sequential(nn.Linear(2, 2).double()), nn.Linear(2, 2, device="meta")):
        with pytest.raises(ValueError, match="must be float32 on the CPU, got torch"):
            emulate(model, FP8, seed=0)


@pytest.mark.parametrize(
    "options", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}, {"sparse": True}], ids=str
)
def test_options_of_an_embedding_that_change_its_sums_are_an_error(options):
    with pytest.raises(ValueError, match=f"option {next(iter(options))} of module '0' must be off, got"):
        emulate(nn.Sequential(nn.Embedding(3, 2, **options)), FP8, seed=0)


def test_an_empty_container_is_an_identity():
    # The usual shortcut of a residual block.
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential())
    assert emulate(model, FP8, seed=0)(torch.ones(1, 2)).shape == (1, 2)


FLOAT32 = [
    nn.BatchNorm2d(2), nn.GroupNorm(1, 2), nn.LayerNorm(4), nn.InstanceNorm2d(2), nn.RMSNorm(4),
    nn.Softmax(-1), nn.GELU(), nn.PReLU(), nn.SiLU(), nn.AvgPool2d(2), nn.MaxPool2d(2),
    nn.AdaptiveAvgPool2d(1), nn.Dropout(0.0), nn.Flatten(), nn.Identity(), nn.ZeroPad2d(1),
    nn.Upsample(scale_factor=2), nn.PixelUnshuffle(2),
]  # fmt: skip


@pytest.mark.parametrize("module", FLOAT32, ids=lambda module: type(module).__name__)
def test_modules_of_the_documented_list_run_in_float32_and_may_have_an_output_format(module):
    x = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(module)
    found = []
    for policy in (LayerPolicy.parse("weight=e4m3fn, forward=e6m9"), LayerPolicy.parse("output=e3m2")):
        inputs = x.clone().requires_grad_()
        twin = emulate(model, policy, seed=0)
        y = twin(inputs)
        y.sum().backward()
        found.append((y.detach(), inputs.grad))
    plain = x.clone().requires_grad_()
    expected = model(plain)
    expected.sum().backward()
    assert torch.equal(found[0][0], expected)
    assert torch.equal(found[0][1], plain.grad)
    # Rounding the output leaves the gradient as it is.
    assert torch.equal(found[1][1], plain.grad)
    assert not torch.equal(found[1][0], expected)
    significand, _ = torch.frexp(found[1][0])
    assert torch.equal(significand * 8, (significand * 8).round())
    assert list(emulate(model, policy, seed=0).state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "policy", [FP8, LayerPolicy(), LayerPolicy.parse("output=e4m3fn")], ids=["fp8", "float32", "output"]
)
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(3, 2), (3,)),
        (nn.Conv2d(2, 3, 2), (2, 4, 4)),
        (nn.Conv2d(2, 1, 2), (2, 4, 4)),
        (nn.Conv1d(2, 1, 2), (2, 4)),
        (nn.ConvTranspose2d(2, 1, 2), (2, 4, 4)),
    ],
    ids=str,
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


def test_changing_the_input_in_place_after_a_layer_is_an_error_as_in_torch():
    twin = emulate(nn.Linear(2, 2), LayerPolicy(), seed=0)
    x = torch.ones(1, 2)
    y = twin(x)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_the_state_of_a_run_is_refused_by_another_model():
    state = emulation_state(emulate(network(), FP8, seed=0))
    with pytest.raises(ValueError, match="the state has no layer '9'; it has 0, 3, 7"):
        load_emulation_state(
            emulate(nn.Sequential(*network(), nn.ReLU(), nn.Linear(10, 2)), FP8, seed=0), state
        )
    with pytest.raises(ValueError, match="the state has layers that the model has not: 7"):
        load_emulation_state(emulate(network()[:7], FP8, seed=0), state)
