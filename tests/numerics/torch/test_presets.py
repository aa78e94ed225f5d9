"""Presets: the published values, and kernels that take them."""

import tomllib
from fractions import Fraction
from importlib.resources import files

import numpy as np
import pytest

from numerics import BlockFormat, FixedFormat, FusedAdder, IntegerAccumulator, cast, matmul
from numerics.torch.policy import OPERANDS, PRESETS, PRODUCTS, Policy, PolicyError

NAMES = [
    *("bf16", "fp32", "hfp8", "hopper", "hopper-promote", "int8", "mxfp4", "mxfp8", "nvfp4", "ofp8"),
    "wang2018",
]

# By hand from the sources that the files name: weight, activation, error, weight gradient, accumulator.
VALUES = {
    "fp32": "native, native, native, native, e8m23",
    "bf16": "e8m7, e8m7, e8m7, native, e8m23",
    "wang2018": "e5m2, e5m2, e5m2, e5m2, e6m9 chunk=64",
    "hfp8": "e4m3noneb4, e4m3noneb4, e5m2, native, e6m9 chunk=64",
    "ofp8": "e4m3fn scaling=tensor:16, e4m3fn scaling=tensor:16, e5m2 scaling=tensor:16, native, e8m23",
    "mxfp8": "mxfp8, mxfp8, mxfp8, native, e8m23",
    "mxfp4": "mxfp4, mxfp4, mxfp4, native, e8m23",
    "nvfp4": "nvfp4, nvfp4, nvfp4 rounding=stochastic, native, e8m23",
    "hopper": "e4m3fn scaling=tensor, e4m3fn scaling=tensor, e5m2 scaling=tensor, native, hopper-fp8",
    "hopper-promote": (
        "e4m3fn scaling=tensor, e4m3fn scaling=tensor, e5m2 scaling=tensor, native, hopper-fp8 promote=128"
    ),
    "int8": (
        "s7.0 scaling=channel, s7.0 scaling=tensor, s7.0 scaling=tensor rounding=stochastic, native, int32"
    ),
}


def short(policy):
    """Text of a tensor with what goes without saying left out."""
    if policy is None:
        return "native"
    return str(policy).replace(" scaling=none", "").replace(" rounding=nearest-even", "")


def test_the_presets_are_those_of_the_list():
    assert list(PRESETS) == NAMES == sorted(VALUES)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_has_the_values_of_its_source(name):
    layer = Policy.preset(name).layer("conv")
    roles = ("weight", "activation", "error", "weight_gradient")
    *tensors, accumulator = VALUES[name].split(", ")
    assert [short(layer.tensor(role)) for role in roles] == tensors
    assert {str(getattr(layer, product)) for product in PRODUCTS} == {accumulator}
    assert layer.output is None


def test_wang2018_has_16_bits_at_both_ends_a_stochastic_update_and_a_scaled_loss():
    policy = Policy.preset("wang2018")
    first, last = policy.layer("a", first=True), policy.layer("b", last=True)
    assert [short(first.tensor(r)) for r in ("weight", "activation", "error")] == ["e5m2", "e6m9", "e5m2"]
    assert {short(last.tensor(r)) for r in ("weight", "activation", "error")} == {"e6m9"}
    assert str(last.gradient) == str(first.forward) == "e6m9 chunk=64"
    assert str(policy.update) == "e6m9 rounding=stochastic"
    assert policy.loss_scale == 1000.0


def test_nvfp4_keeps_16_bits_in_the_last_layer():
    last = Policy.preset("nvfp4").layer("head", last=True)
    assert {short(last.tensor(r)) for r in ("weight", "activation", "error")} == {"e8m7"}
    assert str(last.forward) == "e8m23"


def test_only_wang2018_rounds_the_update_and_only_two_scale_the_loss():
    policies = [Policy.preset(name) for name in NAMES]
    assert [policy.name for policy in policies if policy.update is not None] == ["wang2018"]
    scales = {policy.name: policy.loss_scale for policy in policies if policy.loss_scale is not None}
    assert scales == {"hfp8": "dynamic", "wang2018": 1000.0}


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_what_its_file_says_and_goes_by_its_name(name):
    text = (files("numerics") / "torch" / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    policy = Policy.preset(name)
    assert policy.name == name
    assert policy.replace("name", "") == Policy.from_toml(text)
    assert Policy.from_toml(policy.to_toml()) == policy
    assert policy == Policy.from_toml(f'preset = "{name}"\n')


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_tells_its_source_and_what_is_our_choice(name):
    text = (files("numerics") / "torch" / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    comment = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    assert "# Source: " in comment
    assert "# Our choice: " in comment
    assert any(word in comment for word in ("arXiv", "IEEE"))
    assert "name" not in tomllib.loads(text)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("product", PRODUCTS)
def test_the_kernels_take_the_operands_and_the_accumulator_of_a_preset(name, product):
    policy = Policy.preset(name)
    for first, last in ((False, False), (True, False), (False, True)):
        layer = policy.layer("layer", first=first, last=last)
        rng = np.random.default_rng(7)
        policies = [layer.tensor(role) for role in OPERANDS[product]]
        a, b = (on_format(rng.normal(size=(3, 130)).astype(np.float32), policy) for policy in policies)
        accumulator = getattr(layer, product)
        fused = isinstance(accumulator, FusedAdder)
        formats = tuple(policy.format for policy in policies) if fused else None
        y = matmul(a, b.T, accumulator, seed=1, formats=formats)
        exact = np.array([[dot(left, right) for right in b] for left in a], np.float64)
        scale = np.abs(a).astype(np.float64) @ np.abs(b.T)
        # The coarsest register has 9 fraction bits, in chunks of 64: far below 64 + 3 roundings of 2**-10.
        assert (np.abs(y - exact) <= scale * 67 * 2.0**-10).all()
        if isinstance(accumulator, IntegerAccumulator):
            assert (y == exact).all()


def on_format(x, policy):
    if policy is None:
        return x
    if isinstance(policy.format, FixedFormat):
        x = x * np.float32(policy.format.max / np.abs(x).max())
    overflow = "format" if isinstance(policy.format, BlockFormat) else "saturate"
    return cast(x, policy.format, rounding=policy.rounding, overflow=overflow, seed=3)


def dot(a, b):
    return float(sum(Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, b, strict=True)))


def test_an_unknown_preset_is_an_error_that_lists_all():
    with pytest.raises(PolicyError, match=r"one of bf16, .*wang2018; got 'mxfp5'; did you mean 'mxfp\d'"):
        Policy.preset("mxfp5")
