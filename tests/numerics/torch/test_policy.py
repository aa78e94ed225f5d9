"""Policies: text is parsed, rules are ordered, mistakes are named."""

import pytest

from numerics import Accumulator, Rounding, parse_format
from numerics.torch import LayerPolicy, Policy


def test_text_is_parsed_everywhere():
    policy = LayerPolicy(
        weight="e4m3fn",
        activation="s3.4",
        error="e5m2",
        weight_gradient="bf16",
        forward="e6m9 chunk=64",
        backward="e6m5",
        gradient="e8m23",
        rounding="stochastic:10",
    )
    assert policy.weight == parse_format("e4m3fn")
    assert policy.activation == parse_format("s3.4")
    assert policy.forward == Accumulator("e6m9", chunk=64)
    assert policy.rounding == Rounding.parse("stochastic:10")
    assert str(policy) == (
        "weight=e4m3fn, activation=s3.4, error=e5m2, weight_gradient=e8m7, "
        "forward=e6m9 chunk=64, backward=e6m5, gradient=e8m23, rounding=stochastic:10"
    )


def test_a_uniform_policy_has_one_operand_and_one_accumulator():
    policy = LayerPolicy.uniform("e5m2", "e6m9", weight_gradient="e4m3fn")
    assert policy.weight == policy.activation == policy.error == parse_format("e5m2")
    assert policy.forward == policy.backward == policy.gradient == Accumulator("e6m9")
    assert policy.weight_gradient == parse_format("e4m3fn")
    assert LayerPolicy.uniform("e5m2", "e6m9").weight_gradient is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": "e4"}, "got 'e4'"),
        ({"forward": "e6m9 chunk=0"}, "chunk must be at least 1, got 0"),
        ({"rounding": "nearest"}, "got 'nearest'"),
    ],
)
def test_a_bad_text_is_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        LayerPolicy(**arguments)


def test_rules_are_globs_in_order():
    one, two, rest = (LayerPolicy(weight=text) for text in ("e4m3fn", "e5m2", "e3m2"))
    policy = Policy([("block1.*", one), ("*.conv[12]", two), ("*", rest)])
    assert policy.layer("block1.conv1") == one
    assert policy.layer("block2.conv1") == two
    assert policy.layer("Block1.conv3") == policy.layer("") == rest
    assert Policy(one).layer("anything") == one


def test_a_policy_without_rules_and_a_layer_without_a_rule_are_errors():
    with pytest.raises(ValueError, match="at least one rule"):
        Policy([])
    with pytest.raises(ValueError, match="matches layer 'fc'; the rules are for conv"):
        Policy([("conv*", LayerPolicy())]).layer("fc")


def test_policies_are_values():
    rules = [("*", LayerPolicy.uniform("e5m2", "e6m9"))]
    assert Policy(rules) == Policy(iter(rules))
    assert len({LayerPolicy(weight="fp16"), LayerPolicy(weight="e5m10")}) == 1
