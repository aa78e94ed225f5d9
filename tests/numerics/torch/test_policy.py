"""Policies: text is parsed, rules are ordered, parts can be changed, mistakes are named."""

import copy
import pickle
import re
from fnmatch import fnmatchcase

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numerics import Accumulator, BlockFormat, Rounding, matmul, parse_accumulator, parse_format
from numerics.torch import LayerPolicy, Policy
from numerics.torch.policy import OPERANDS, PolicyError, Rule, Scaling, TensorPolicy, UpdatePolicy

TENSORS = ("weight", "activation", "error", "weight_gradient", "output")
PRODUCTS = ("forward", "backward", "gradient")
FIELDS = (*TENSORS, *PRODUCTS, "rounding", "scaling")

SCALINGS = ("none", "tensor", "channel", "tensor-pow2", "channel-pow2", "tensor:16", "tensor-pow2:3")
ROUNDINGS = ("nearest-even", "toward-zero", "stochastic", "stochastic:10")
PLAIN_FORMATS = ("e5m2", "e4m3fn", "bf16", "hfp8", "e4m3fnuz", "e6m9-flush", "s3.4", "u0.8", "int8-wrap")
BLOCK_FORMATS = ("mxfp4", "nvfp4", "mxint8", "e3m2 block=16 scale=e8m0", "e2m1 block=8 scale=e5m3")
FLOAT_ACCUMULATORS = (
    *("e6m9", "e6m9 chunk=64", "fp32", "e8m5 rounding=stochastic:10", "exact output=e6m9 rounding=up"),
    "e6m9 product=e5m7 chunk=64 outer=e8m23/toward-zero lanes=4",
    "e6m9 chunk=32 order=pairwise",
)
ACCUMULATORS = (
    *FLOAT_ACCUMULATORS,
    *(
        "int32",
        "s15.8 rounding=down",
        "int16-wrap chunk=64 outer=int32-wrap",
        "volta",
        "hopper-fp8 promote=128",
    ),
    "fused products=16 align_bits=13 output=e8m13 rounding=nearest-even",
)

tensors = st.builds(
    lambda fmt, scaling, rounding: TensorPolicy(fmt, None if fmt in BLOCK_FORMATS else scaling, rounding),
    st.sampled_from(PLAIN_FORMATS + BLOCK_FORMATS),
    st.none() | st.sampled_from(SCALINGS),
    st.none() | st.sampled_from(ROUNDINGS),
)
accumulators = st.sampled_from(ACCUMULATORS).map(parse_accumulator)
globs = st.sampled_from(["*", "conv*", "fc[12]", "block.?.fc", "@first", "@last", ""]) | st.text(
    st.characters(codec="utf-8", exclude_characters="@"), max_size=8
)


def settings_of(accumulators):
    return {
        **dict.fromkeys(TENSORS, st.none() | tensors),
        **dict.fromkeys(PRODUCTS, st.none() | accumulators),
        "rounding": st.sampled_from(ROUNDINGS),
        "scaling": st.sampled_from(SCALINGS),
    }


rules = st.builds(
    lambda modules, settings: Rule(modules, **settings),
    globs | st.lists(globs, min_size=1, max_size=3),
    st.fixed_dictionaries(
        {}, optional={**settings_of(accumulators), "unsupported": st.sampled_from(["error", "pass"])}
    ).filter(bool),
)
layers = st.builds(
    lambda settings: LayerPolicy(**settings),
    st.fixed_dictionaries({}, optional=settings_of(st.sampled_from(FLOAT_ACCUMULATORS))),
)
updates = st.builds(
    UpdatePolicy,
    st.sampled_from(["e6m9", "bf16", "e4m3fn"]),
    st.sampled_from(ROUNDINGS),
    st.none() | st.just("e8m23"),
)
policies = st.builds(
    Policy,
    st.lists(rules | st.tuples(globs, layers), min_size=1, max_size=4),
    st.none() | updates,
    st.none() | st.just("dynamic") | st.floats(1e-30, 1e30) | st.integers(1, 10**6),
    st.text(st.characters(codec="utf-8"), max_size=12),
)


# Scaling and TensorPolicy


@pytest.mark.parametrize("text", SCALINGS)
def test_a_scaling_prints_as_it_is_written(text):
    assert str(Scaling.parse(text)) == text
    assert Scaling.parse(Scaling.parse(text)) == Scaling.parse(text.upper())


def test_a_scaling_has_three_fields():
    assert Scaling.parse("tensor-pow2:16") == Scaling("tensor", 16, True)
    assert Scaling.parse("channel") == Scaling("channel")
    assert Scaling.parse("none") == Scaling.NONE == Scaling()


@pytest.mark.parametrize(
    "text", ["", "row", "none:3", "none-pow2", "channel:16", "tensor:0", "tensor:-1", "tensor:", "tensor16"]
)
def test_a_bad_scaling_is_an_error_that_tells_the_others(text):
    with pytest.raises(ValueError, match=r"scaling must be none.*channel-pow2|belongs to scaling by"):
        Scaling.parse(text)


@given(tensor=tensors)
def test_a_tensor_policy_prints_as_it_is_written(tensor):
    assert TensorPolicy.parse(str(tensor)) == tensor == TensorPolicy.parse(tensor)


def test_a_tensor_policy_is_a_format_with_options_in_any_order():
    both = TensorPolicy("e4m3fn", "tensor", "stochastic:8")
    assert TensorPolicy.parse("e4m3fn scaling=tensor rounding=stochastic:8") == both
    assert TensorPolicy.parse("rounding=stochastic:8 e4m3fn scaling=tensor") == both
    blocks = TensorPolicy.parse("e3m2 block=16 scaling=none scale=e8m0")
    assert blocks.format == BlockFormat.parse("e3m2 block=16 scale=e8m0")
    assert blocks.scaling == Scaling.NONE
    assert TensorPolicy.parse(parse_format("e5m2")) == TensorPolicy("e5m2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got ''"),
        ("scaling=tensor", "got ''"),
        ("e4m3fn scale=tensor", "got 'e4m3fn scale=tensor'"),
        ("e4m3fn scaling=tensor scaling=none", "may be given once"),
        ("mxfp4 scaling=tensor", "scaling of mxfp4 must be none"),
        ("int32", "float32 arrays cannot hold every value of s31.0"),
        ("e4m3fn rounding=nearest", "got 'nearest'"),
    ],
)
def test_a_bad_tensor_policy_is_an_error(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TensorPolicy.parse(text)


# LayerPolicy


def test_text_is_parsed_everywhere():
    layer = LayerPolicy(
        weight="e4m3fn",
        activation="s3.4 scaling=channel",
        error="mxfp4",
        weight_gradient="bf16",
        output="native",
        forward="e6m9 chunk=64",
        backward="e6m5",
        gradient="exact output=e8m23",
        rounding="stochastic:10",
        scaling="tensor:4",
    )
    assert layer.weight == TensorPolicy(parse_format("e4m3fn"))
    assert layer.activation == TensorPolicy("s3.4", Scaling("channel"))
    assert layer.output is None
    assert layer.forward == Accumulator("e6m9", chunk=64)
    assert layer.rounding == Rounding.parse("stochastic:10")
    assert layer.scaling == Scaling("tensor", 4)
    assert str(layer) == (
        "weight=e4m3fn, activation=s3.4 scaling=channel, error=mxfp4, weight_gradient=e8m7, "
        "forward=e6m9 chunk=64, backward=e6m5, gradient=exact output=e8m23, rounding=stochastic:10, "
        "scaling=tensor:4"
    )
    assert str(LayerPolicy()) == "native"


@given(layer=layers)
def test_a_layer_policy_prints_as_it_is_written(layer):
    assert LayerPolicy.parse(str(layer)) == layer


@pytest.mark.parametrize("text", ["weigth=e5m2", "weight=e5m2, weight=e5m2", "e5m2"])
def test_the_text_of_a_layer_policy_names_each_field_once(text):
    with pytest.raises(ValueError, match=r"each of weight, activation, .*, scaling may be given once, got"):
        LayerPolicy.parse(text)


def test_a_tensor_takes_what_it_does_not_say_from_the_layer():
    layer = LayerPolicy(
        weight="e4m3fn",
        activation="e4m3fn scaling=none",
        error="e5m2 rounding=up",
        weight_gradient="nvfp4",
        scaling="tensor-pow2",
        rounding="stochastic",
    )
    assert str(layer.tensor("weight")) == "e4m3fn scaling=tensor-pow2 rounding=stochastic"
    assert str(layer.tensor("activation")) == "e4m3fn scaling=none rounding=stochastic"
    assert str(layer.tensor("error")) == "e5m2 scaling=tensor-pow2 rounding=up"
    assert str(layer.tensor("weight_gradient")) == "nvfp4 scaling=none rounding=stochastic"
    assert layer.tensor("output") is None
    with pytest.raises(ValueError, match=r"role must be one of weight, .*; got 'forward'"):
        layer.tensor("forward")


def test_a_uniform_policy_has_one_operand_and_one_accumulator():
    layer = LayerPolicy.uniform("e5m2", "e6m9", weight_gradient="e4m3fn")
    assert layer.weight == layer.activation == layer.error == TensorPolicy("e5m2")
    assert layer.forward == layer.backward == layer.gradient == Accumulator("e6m9")
    assert layer.weight_gradient == TensorPolicy("e4m3fn")
    assert LayerPolicy.uniform("e5m2", "e6m9").weight_gradient is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": "e4"}, "weight: format must be .*got 'e4'"),
        ({"forward": "e6m9 chunk=0"}, "forward: chunk must be at least 1, got 0"),
        ({"rounding": "nearest"}, "rounding: .*got 'nearest'"),
        ({"scaling": "row"}, "scaling: .*got 'row'"),
    ],
)
def test_a_bad_text_is_an_error_that_names_the_field(arguments, message):
    with pytest.raises(ValueError, match=message):
        LayerPolicy(**arguments)


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize(
    ("accumulator", "left", "right", "works"),
    [
        ("hopper-fp8", "e4m3fn", "e5m2", True),
        ("hopper-fp8", "e4m3fn", "int8", False),
        ("hopper-fp8", "mxfp8", "e5m2", False),
        ("hopper-fp8", "native", "e5m2", False),
        ("int32", "int8", "int4", True),
        ("int32", "int8", "s3.4", False),
        ("int32", "e5m2", "int8", False),
        ("int32", "native", "native", False),
        ("int32", "int8", "mxfp4", False),
        ("s15.8", "s3.4", "s3.4", True),
        ("s15.7", "s3.4", "s3.4", False),
        ("s15.2", "e2m1", "e2m1", True),
        ("int32 rounding=down", "native", "e5m2", True),
        ("e6m9", "native", "mxfp4", True),
    ],
)
def test_an_accumulator_that_can_never_take_its_operands_is_refused(product, accumulator, left, right, works):
    a, b = OPERANDS[product]
    arguments = {a: left, b: right, product: accumulator}
    operands = [smallest(text) for text in (left, right)]
    formats = (left, right) if accumulator == "hopper-fp8" else None
    if works:
        assert str(getattr(LayerPolicy(**arguments), product)) == accumulator
        matmul(operands[0], operands[1], accumulator, formats=formats, seed=0)
        return
    with pytest.raises(ValueError, match=rf"{product}={accumulator} adds .*{b if left == 'e4m3fn' else a} "):
        LayerPolicy(**arguments)
    with pytest.raises((ValueError, TypeError)):  # and no kernel could do it
        matmul(operands[0], operands[1], accumulator, formats=formats, seed=0)


def smallest(text):
    """The smallest positive value of a format, as a matrix; an odd third where it is any float32."""
    if text == "native" or text in (*BLOCK_FORMATS, "mxfp8"):
        return np.full((1, 1), 1 / 3, np.float32)
    info = parse_format(text).info()
    return np.full((1, 1), info.smallest_subnormal, np.float32)


# Rule


def test_a_rule_holds_its_settings_in_the_order_of_the_fields():
    rule = Rule("conv*", forward="e6m9 chunk=64", weight="e4m3fn", unsupported="pass")
    assert rule == Rule(["conv*"], unsupported="pass", weight="e4m3fn", forward="e6m9 chunk=64")
    assert list(rule.settings) == ["weight", "forward", "unsupported"]
    assert str(rule) == "conv*: weight=e4m3fn, forward=e6m9 chunk=64, unsupported=pass"
    assert Rule("a", error="native").settings == {"error": None}


@pytest.mark.parametrize(
    ("modules", "settings", "message"),
    [
        ("fc", {"forwrd": "e6m9"}, "rule 'fc': forwrd: unknown key; .*did you mean 'forward'"),
        (["a", "b"], {"weight": "e4"}, "rule 'a, b': weight: .*got 'e4'"),
        ("fc", {"forward": 5}, "rule 'fc': forward: .*got 5"),
        ("fc", {"unsupported": "ignore"}, "unsupported: .*'error' or 'pass', got 'ignore'"),
        ("fc", {}, "rule 'fc' sets nothing; it must set at least one of weight, "),
        ("@middle", {"weight": "e5m2"}, "globs, or @first or @last; got '@middle'"),
        ([], {"weight": "e5m2"}, r"a glob or a list of them, got \[\]"),
        (5, {"weight": "e5m2"}, "a glob or a list of them, got 5"),
    ],
)
def test_a_bad_rule_is_an_error_with_its_name_and_key(modules, settings, message):
    with pytest.raises(PolicyError, match=message):
        Rule(modules, **settings)


# Policy


def test_rules_are_globs_in_order():
    one, two, rest = (LayerPolicy(weight=text) for text in ("e4m3fn", "e5m2", "e3m2"))
    policy = Policy([("block1.*", one), ("*.conv[12]", two), ("*", rest)])
    assert policy.layer("block1.conv1") == one
    assert policy.layer("block2.conv1") == two
    assert policy.layer("Block1.conv3") == policy.layer("") == rest
    assert Policy(one).layer("anything") == one


def test_each_field_comes_from_the_first_rule_that_sets_it():
    policy = Policy(
        [
            Rule("@last", weight="e6m9", scaling="none"),
            Rule(["head", "@first"], activation="native", weight="bf16"),
            Rule("*", weight="e5m2", activation="e5m2", scaling="tensor"),
        ]
    )
    assert str(policy.layer("fc")) == "weight=e5m2, activation=e5m2, scaling=tensor"
    assert str(policy.layer("fc", last=True)) == "weight=e6m9, activation=e5m2"
    assert str(policy.layer("fc", first=True)) == "weight=e8m7, scaling=tensor"
    assert str(policy.layer("head")) == "weight=e8m7, scaling=tensor"
    assert str(policy.layer("fc", first=True, last=True)) == "weight=e6m9"


@given(
    listed=st.lists(
        st.tuples(
            st.sampled_from(["*", "a*", "?b", "@first", "@last"]),
            st.dictionaries(
                st.sampled_from(TENSORS), st.sampled_from(["native", "e5m2", "bf16"]), min_size=1
            ),
        ),
        min_size=1,
        max_size=5,
    ),
    name=st.sampled_from(["ab", "aa", "bb"]),
    first=st.booleans(),
    last=st.booleans(),
)
def test_a_layer_is_what_a_search_field_by_field_finds(listed, name, first, last):
    policy = Policy([Rule(glob, **settings) for glob, settings in listed])
    places = {"@first": first, "@last": last}
    found = [s for glob, s in listed if places.get(glob, fnmatchcase(name, glob))]
    if not found:
        with pytest.raises(
            PolicyError, match=f"no rule of the policy matches layer '{name}'; the rules are for"
        ):
            policy.layer(name, first=first, last=last)
        return
    expected = {
        field: next((s[field] for s in found if field in s), "native").replace("bf16", "e8m7")
        for field in TENSORS
    }
    layer = policy.layer(name, first=first, last=last)
    assert {f: str(getattr(layer, f) or "native") for f in TENSORS} == expected


def test_rules_that_together_can_never_work_are_an_error_with_the_name_of_the_layer():
    policy = Policy(
        [Rule("fc", weight="int8"), Rule("*", activation="e4m3fn", weight="e4m3fn", forward="volta")]
    )
    assert str(policy.layer("conv").forward) == "volta"
    with pytest.raises(PolicyError, match=r"layer 'fc': forward=volta .*weight must have one, got s7.0"):
        policy.layer("fc")


def test_what_is_unsupported_is_an_error_unless_a_rule_passes_it():
    policy = Policy(
        [Rule("a.norm", unsupported="error"), Rule("a.*", unsupported="pass"), Rule("*", weight="e5m2")]
    )
    assert [policy.unsupported(name) for name in ("a.norm", "a.other", "b")] == ["error", "pass", "error"]
    assert str(policy.layer("a.other")) == "weight=e5m2"


def test_a_policy_knows_the_modules_that_its_rules_name():
    policy = Policy([Rule("@first", weight="e5m2"), Rule("conv*", weight="e5m2")])
    assert [policy.matches(name) for name in ("conv1", "fc")] == [True, False]


def test_a_policy_without_rules_and_a_layer_without_a_rule_are_errors():
    with pytest.raises(ValueError, match="at least one rule"):
        Policy([])
    with pytest.raises(ValueError, match="matches layer 'fc'; the rules are for conv"):
        Policy([("conv*", LayerPolicy())]).layer("fc")


@given(policy=policies)
def test_policies_are_values(policy):
    same = Policy(iter(policy.rules), policy.update, policy.loss_scale, policy.name)
    assert same == policy
    assert hash(same) == hash(policy)
    assert copy.deepcopy(policy) == policy == pickle.loads(pickle.dumps(policy))


def test_a_layer_policy_as_a_rule_sets_every_field():
    (rule,) = Policy(LayerPolicy(weight="e5m2")).rules
    assert tuple(rule.settings) == FIELDS
    policy = Policy([("*", LayerPolicy(weight="e5m2")), Rule("*", error="e5m2", rounding="up")])
    assert policy.layer("x") == LayerPolicy(weight="e5m2")


def test_a_pair_takes_the_text_of_a_layer():
    assert Policy([("*", "weight=e5m2, forward=e6m9")]).layer("x") == LayerPolicy(
        weight="e5m2", forward="e6m9"
    )


@pytest.mark.parametrize("rule", ["*", ("*",), ("*", 5)])
def test_a_rule_of_another_kind_is_an_error(rule):
    with pytest.raises(TypeError, match=r"must be .*LayerPolicy.*, got"):
        Policy([rule])


@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), True, "big", [1.0]])
def test_a_loss_scale_is_positive_dynamic_or_none(value):
    with pytest.raises(ValueError, match="loss_scale must be a positive number, 'dynamic' or 'none', got"):
        Policy(LayerPolicy(), loss_scale=value)


@pytest.mark.parametrize(
    ("settings", "loss_scale", "message"),
    [
        ({"error": "e4m3fn"}, 449, "error=e4m3fn cannot hold the loss scale 449: its largest value is 448"),
        ({"error": "e4m3fn"}, 448, None),
        ({"error": "e4m3fn"}, "dynamic", None),
        ({"error": "e4m3fn scaling=tensor"}, 449, None),
        ({"error": "mxfp4"}, 449, None),
        ({"weight": "e4m3fn", "activation": "e4m3fn"}, 449, None),
        ({"weight_gradient": "s3.4"}, 1000, "weight_gradient=s3.4 cannot hold"),
        ({"backward": "e4m9"}, 1000, "backward=e4m9 cannot hold the loss scale 1000"),
        ({"gradient": "exact output=e4m3fn"}, 1000, "gradient=exact output=e4m3fn cannot hold"),
        ({"forward": "e4m9"}, 1000, None),
    ],
)
def test_a_format_of_the_backward_pass_must_hold_the_loss_scale(settings, loss_scale, message):
    policy = Policy([Rule("*", **settings)], loss_scale=loss_scale)
    if message is None:
        assert str(policy.layer("fc")) != "native"
        return
    with pytest.raises(PolicyError, match=f"layer 'fc': {message}"):
        policy.layer("fc")


# check

NAMES = ["", "conv1", "norm", "block", "block.fc"]


def test_a_rule_that_matches_no_module_is_an_error_with_its_number():
    policy = Policy(
        [Rule("conv*", weight="e5m2"), Rule("*", weight="e5m2"), Rule(["con1", "fc9"], weight="e5m2")]
    )
    message = (
        "rule 3 ('con1', 'fc9') matches no module; modules are '', 'conv1', 'norm', 'block', 'block.fc'; "
        "did you mean 'conv1'?"
    )
    with pytest.raises(PolicyError, match=f"^{re.escape(message)}$"):
        policy.check(NAMES, product_names=["conv1", "block.fc"])


def test_every_rule_that_matches_nothing_has_its_line():
    policy = Policy([Rule("Conv1", weight="e5m2"), Rule("block.*", weight="e5m2"), Rule("x", weight="e5m2")])
    with pytest.raises(PolicyError) as caught:
        policy.check(NAMES, product_names=["conv1"])
    assert [line[:6] for line in str(caught.value).splitlines()] == ["rule 1", "rule 3"]


def test_first_and_last_match_where_there_is_a_layer_and_the_star_always():
    policy = Policy(
        [Rule("@first", weight="e5m2"), Rule(["@last", "zzz"], weight="e5m2"), Rule("*", weight="e5m2")]
    )
    policy.check(NAMES, product_names=["conv1"])
    Policy(LayerPolicy()).check([], product_names=[])
    Policy([Rule("attn.scores", forward="e6m9")]).check(["attn"], product_names=["attn.scores"])
    with pytest.raises(PolicyError, match="matches no module") as caught:
        policy.check(NAMES, product_names=[])
    assert [line[:6] for line in str(caught.value).splitlines()] == ["rule 1", "rule 2"]


def test_a_long_list_of_modules_is_cut_short():
    names = [f"layer{i}" for i in range(100)]
    with pytest.raises(PolicyError, match=r"'layer0', .*'layer11', \.\.\. \(100 in all\)$"):
        Policy([Rule("q", weight="e5m2")]).check(names, product_names=[])


# TOML

DOCUMENT = """
name = "mine"
preset = "wang2018"
loss_scale = "dynamic"
operands.rounding = "toward-zero"

[update]
rounding = "nearest-even"
state_format = "fp32"

[[rules]]
modules = ["head", "@first"]
weight = "native"
error.format = "e4m3fn"
error.scaling = "tensor:16"
forward.accumulator = "e6m9 chunk=64"
"forward.accumulator.frac_bits" = 7
backward = { accumulator = { format = "e6m5", chunk = 32 } }
unsupported = "pass"
"""


def test_toml_has_a_preset_after_its_rules_values_in_parts_and_changes():
    policy = Policy.from_toml(DOCUMENT)
    assert policy.name == "mine"
    assert policy.loss_scale == "dynamic"
    assert str(policy.update) == "e6m9 state_format=e8m23"
    head = policy.layer("head")
    assert str(head) == (
        "activation=e5m2 rounding=toward-zero, error=e4m3fn scaling=tensor:16 rounding=toward-zero, "
        "weight_gradient=e5m2, forward=e6m7 chunk=64, backward=e6m5 chunk=32, gradient=e6m9 chunk=64"
    )
    assert str(policy.layer("fc", last=True).weight) == "e6m9 rounding=toward-zero"
    assert policy.unsupported("head") == "pass"
    assert len(policy.rules) == 1 + len(Policy.preset("wang2018").rules)


@given(policy=policies)
def test_toml_prints_what_it_reads(policy):
    assert Policy.from_toml(policy.to_toml()) == policy
    assert str(policy) == policy.to_toml()


def test_toml_is_text_or_a_file(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text(DOCUMENT, encoding="utf-8")
    assert Policy.from_toml(path) == Policy.from_toml(str(path)) == Policy.from_toml(DOCUMENT)
    with pytest.raises(PolicyError, match=r"nowhere\.toml: no such file"):
        Policy.from_toml("nowhere.toml")
    with pytest.raises(PolicyError, match="cannot be read"):
        Policy.from_toml(tmp_path)
    path.write_bytes(b"name = \xff")
    with pytest.raises(PolicyError, match="cannot be read"):
        Policy.from_toml(path)
    with pytest.raises(PolicyError, match=r"the policy is not TOML: .*line 2"):
        Policy.from_toml("rules = [\n1 = 2")


def test_a_preset_that_is_changed_loses_its_name():
    assert Policy.from_toml('preset = "bf16"\n').name == "bf16"
    assert Policy.from_toml('preset = "bf16"\nloss_scale = 8\n').name == ""
    assert Policy.from_toml('preset = "wang2018"\nupdate = "none"\nloss_scale = "none"\n').update is None


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            'rules = [{modules = "*", weight = "e5m2"}, {modules = "a", forward = "e6m9 chunk=0"}]',
            [r"rules\[1\].forward: chunk must be at least 1, got 0"],
        ),
        (
            """x = 1
            [[rules]]
            weight = "e4"
            forwrd = "e6m9"
            [[rules]]
            modules = 3
            error = "mxfp4 scaling=tensor"
            """,
            [
                r"rules\[0\].forwrd: unknown key; keys are weight, .*did you mean 'forward'\?",
                r"rules\[0\].weight: format must be .*got 'e4'",
                r"rules\[0\].modules: missing, and it is required",
                r"rules\[1\].error: scaling of mxfp4 must be none, .*got tensor",
                r"rules\[1\].modules: modules must be a glob or a list of them, got 3",
                r"x: unknown key; keys are preset, rules, name, .*",
            ],
        ),
        (
            '[[rules]]\nmodules = "*"\nforward = "e6m9"\n"forward.accumulator.fracbits" = 7',
            [r"rules\[0\].forward.fracbits: e6m9 has no part 'fracbits'; it has format, .*"],
        ),
        (
            '[[rules]]\nmodules = "*"\nforward.accumulator.frac_bits = 7',
            [r"rules\[0\].forward.frac_bits: is part of a value that is not set; set forward itself, too"],
        ),
        (
            '[[rules]]\nmodules = "*"\nweight = "native"\n"weight.scaling" = "tensor"',
            [r"rules\[0\].weight.scaling: native has no parts"],
        ),
        (
            '[[rules]]\nmodules = "*"\nforward = "e6m9"\n"forward.accumulator" = "e6m5"',
            [r"rules\[0\].forward.accumulator: forward is set twice, also as forward"],
        ),
        ('[[rules]]\nmodules = "*"', [r"rules\[0\]: sets nothing; keys are weight, .*"]),
        (
            'preset = ["fp32", "bf16"]',
            [r"preset: one preset is allowed, by its name, got \['fp32', 'bf16'\]"],
        ),
        ('preset = "fp33"', [r"preset: preset must be one of .*; got 'fp33'; did you mean 'fp32'\?"]),
        ('name = "x"', ["rules: a policy must have at least one rule or a preset, got neither"]),
        ('rules = "x"', [r"rules: must be tables \(\[\[rules\]\]\), got 'x'"]),
        ('preset = "fp32"\nloss_scale = -1', ["loss_scale: loss_scale must be a positive number, .*got -1"]),
        ('preset = "fp32"\nname = 1', ["name: name must be text, got 1"]),
        ('preset = "fp32"\n[update]\nrounding = "up"', ["update.rounding: .*give update.format, too"]),
        ('preset = "fp32"\n[update]\nformat = "e6"', ["update.format: format must be .*got 'e6'"]),
        (
            'preset = "wang2018"\n[update]\nrouding = "up"',
            ["update.rouding: .* has no part 'rouding'; it has .*did you mean 'rounding'?"],
        ),
        ('preset = "fp32"\nforward = []', [r"forward: accumulator must be text or an accumulator, got \[\]"]),
    ],
)
def test_each_mistake_in_toml_has_one_line_with_its_path(text, lines):
    with pytest.raises(PolicyError) as caught:
        Policy.from_toml(f"{text}\n")
    found = str(caught.value).splitlines()
    assert len(found) == len(lines)
    for line, pattern in zip(found, lines, strict=True):
        assert re.match(pattern, line), line


# replace


def fused(**settings):
    return Policy([Rule("*", weight="e4m3fn", activation="e4m3fn", error="e5m2", **settings)])


BASE = Policy(
    [
        Rule("head", weight="native", forward="e8m23"),
        Rule("*", weight="e4m3fn scaling=tensor", activation="e5m2", forward="e6m9 chunk=64 outer=e8m13"),
    ],
    update="e6m9 rounding=stochastic",
)


@pytest.mark.parametrize(
    ("path", "value", "head", "rest"),
    [
        ("weight", "bf16", "weight=e8m7", "weight=e8m7"),
        ("weight", "native", "weight=native", "weight=native"),
        ("weight.format", "bf16", "weight=native", "weight=e8m7 scaling=tensor"),
        ("weight.format.frac_bits", 2, "weight=native", "weight=e4m2fn scaling=tensor"),
        ("weight.format.exp_bits", 5, "weight=native", "weight=e5m3fn scaling=tensor"),
        ("weight.format.bias", 9, "weight=native", "weight=e4m3fnb9 scaling=tensor"),
        ("weight.scaling", "channel", "weight=native", "weight=e4m3fn scaling=channel"),
        ("weight.scaling.history", 4, "weight=native", "weight=e4m3fn scaling=tensor:4"),
        ("weight.scaling.power_of_two", True, "weight=native", "weight=e4m3fn scaling=tensor-pow2"),
        ("weight.rounding", "up", "weight=native", "weight=e4m3fn scaling=tensor rounding=up"),
        ("forward", "int32", "forward=int32", "forward=int32"),
        ("forward.accumulator", "native", "forward=native", "forward=native"),
        ("forward.accumulator.frac_bits", 7, "forward=e8m7", "forward=e6m7 chunk=64 outer=e8m13"),
        ("forward.exp_bits", 5, "forward=e5m23", "forward=e5m9 chunk=64 outer=e8m13"),
        ("accumulator.chunk", 32, "forward=e8m23 chunk=32", "forward=e6m9 chunk=32 outer=e8m13"),
        (
            "forward.accumulator.rounding",
            "up",
            "forward=e8m23 rounding=up",
            "forward=e6m9 chunk=64 outer=e8m13 rounding=up",
        ),
        (
            "forward.accumulator.lanes",
            "4",
            "forward=e8m23 lanes=4",
            "forward=e6m9 chunk=64 outer=e8m13 lanes=4",
        ),
        (
            "accumulator.product",
            "e5m7",
            "forward=e8m23 product=e5m7",
            "forward=e6m9 product=e5m7 chunk=64 outer=e8m13",
        ),
        ("rounding", "up", None, "rounding=up"),
        ("scaling", "tensor-pow2", None, "scaling=tensor-pow2"),
        ("error", "e5m2", None, "error=e5m2"),
        ("gradient", "e6m9", None, "gradient=e6m9"),
        ("unsupported", "pass", None, "unsupported=pass"),
    ],
)
def test_a_value_is_changed_in_every_rule_that_sets_it(path, value, head, rest):
    changed = BASE.replace(path, value)
    for rule, before, wanted in zip(changed.rules, BASE.rules, (head, rest), strict=True):
        field = path.partition(".")[0].replace("accumulator", "forward")
        kept = {k: v for k, v in rule.settings.items() if k != field}
        assert kept == {k: v for k, v in before.settings.items() if k != field}
        if wanted is None:
            assert field not in rule.settings
        else:
            assert f"{field}={'native' if rule.settings[field] is None else rule.settings[field]}" == wanted
    assert (changed.update, changed.name) == (BASE.update, BASE.name)


@pytest.mark.parametrize(
    ("accumulator", "path", "value", "wanted"),
    [
        ("e6m9 chunk=64", "chunk", 0, "e6m9"),
        ("e6m9 chunk=64", "chunk", "none", "e6m9"),
        ("e6m9 chunk=64", "outer", "e8m23/toward-zero", "e6m9 chunk=64 outer=e8m23/toward-zero"),
        ("e6m9 chunk=64 outer=e8m23", "outer", "none", "e6m9 chunk=64"),
        ("e6m9 chunk=64 outer=e8m23", "outer.format.frac_bits", 13, "e6m9 chunk=64 outer=e8m13"),
        ("e6m9 chunk=64 outer=e8m23/up", "rounding", "down", "e6m9 chunk=64 outer=e8m23/up rounding=down"),
        ("e6m9", "order", "pairwise", "e6m9 order=pairwise"),
        ("e6m9", "format", "bf16", "e8m7"),
        ("e6m9-flush", "subnormals", True, "e6m9"),
        ("e4m3noneb4", "frac_bits", 5, "e4m5noneb4"),
        ("hopper-fp8", "promote", 64, "hopper-fp8 promote=64"),
        ("hopper-fp8 promote=64", "promote", 0, "hopper-fp8"),
        ("hopper-fp8", "align_bits", 25, "fused products=32 align_bits=25 output=e8m13"),
        ("hopper-fp8", "frac_bits", 10, "fused products=32 align_bits=13 output=e8m10"),
        ("hopper-fp8", "products", 16, "fused products=16 align_bits=13 output=e8m13"),
        ("hopper-fp8", "halves", True, "ada-fp8"),
        ("int32", "bits", 16, "int16"),
        ("int32", "chunk", 64, "int32 chunk=64"),
        ("int16 chunk=64 outer=int32", "outer", "int24", "int16 chunk=64 outer=int24"),
        ("int16 chunk=64 outer=int32", "outer", 20, "int16 chunk=64 outer=int20"),
        ("int32", "overflow", "wrap", "int32-wrap"),
        ("int32 rounding=down", "rounding", "none", "int32"),
        ("exact output=e6m9", "frac_bits", 5, "exact output=e6m5"),
    ],
)
def test_every_part_of_every_kind_of_accumulator_can_be_changed(accumulator, path, value, wanted):
    policy = Policy([Rule("*", gradient=accumulator)])
    for prefix in ("gradient.accumulator", "gradient", "accumulator"):
        (rule,) = policy.replace(f"{prefix}.{path}", value).rules
        assert rule == Rule("*", gradient=wanted)


def test_operands_and_accumulator_are_three_at_once():
    policy = fused(forward="hopper-fp8", backward="hopper-fp8", gradient="hopper-fp8")
    (rule,) = policy.replace("operands.format.frac_bits", 4).rules
    assert str(rule) == (
        "*: weight=e4m4fn, activation=e4m4fn, error=e5m4, forward=hopper-fp8, backward=hopper-fp8, "
        "gradient=hopper-fp8"
    )
    (rule,) = policy.replace("accumulator", "e6m9").replace("operands", "native").rules
    assert str(rule) == (
        "*: weight=native, activation=native, error=native, forward=e6m9, backward=e6m9, gradient=e6m9"
    )


def test_the_update_the_loss_scale_and_the_name_are_paths_too():
    assert str(BASE.replace("update.format.frac_bits", 7).update) == "e6m7 rounding=stochastic"
    assert str(BASE.replace("update.rounding", "up").update) == "e6m9 rounding=up"
    assert str(BASE.replace("update.state_format", "fp32").update) == (
        "e6m9 rounding=stochastic state_format=e8m23"
    )
    assert str(BASE.replace("update", "bf16").update) == "e8m7"
    assert BASE.replace("update", "none").update is None
    assert str(fused().replace("update.format", "e6m9").update) == "e6m9"
    assert BASE.replace("loss_scale", 8).loss_scale == 8.0
    assert BASE.replace("name", "new").name == "new"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("forwad.chunk", 3, "forwad.chunk: no such path; paths begin with .*did you mean 'forward'"),
        ("rounding.mode", "up", "rounding.mode: no such path"),
        ("name.x", "up", "name.x: no such path"),
        (
            "forward.accumulator.align_bits",
            3,
            "forward.accumulator.align_bits: e8m23 has no part 'align_bits'",
        ),
        ("forward.accumulator.chunk", -1, "forward.accumulator.chunk: chunk must be at least 1, got -1"),
        ("forward.accumulator.chunk", 1.5, "chunk must be a whole number or none, got 1.5"),
        ("forward.accumulator.chunk", "many", "chunk must be a whole number or none, got 'many'"),
        ("forward.accumulator.frac_bits", True, "frac_bits must be a whole number, got True"),
        ("weight.format.subnormals", 1, "subnormals must be true or false, got 1"),
        ("weight.format.int_bits", 3, "e4m3fn has no part 'int_bits'; it has exp_bits, "),
        ("weight.format", "mxfp4", "weight.format: scaling of mxfp4 must be none"),
        ("weight.rounding.mode", "up", "weight.rounding.mode: rounding of .* is not set and has no parts"),
        (
            "error.format",
            "e5m2",
            "error.format: no rule has a value with such a part; set the value itself first",
        ),
        ("error.scaling", "tensor", "error.scaling: no rule has a value with such a part"),
        ("backward.accumulator.chunk", 3, "backward.accumulator.chunk: no rule has a value with such a part"),
        ("scaling.history", 3, "scaling.history: no rule has a value"),
        ("update.foo", 3, "update.foo: .* has no part 'foo'; it has format, rounding, state_format"),
        ("loss_scale", "big", "loss_scale: .*got 'big'"),
        ("weight", 5, "weight: .*got 5"),
        ("rules", [], "rules: no such path"),
    ],
)
def test_a_bad_change_is_an_error_with_its_path(path, value, message):
    with pytest.raises(PolicyError, match=message):
        BASE.replace(path, value)


def test_a_part_of_a_native_value_is_no_value_to_change():
    policy = Policy([Rule("*", weight=None, forward="e6m9")])
    with pytest.raises(PolicyError, match=r"weight\.scaling: no rule has a value with such a part"):
        policy.replace("weight.scaling", "tensor")


@pytest.mark.parametrize(
    ("fmt", "path", "value", "wanted"),
    [
        ("e3m2 block=16 scale=e8m0", "format.block", 32, "mxfp6e3m2"),
        ("mxfp8", "format.scale", "e4m3fn", "e4m3fn block=32 scale=e4m3fn"),
        ("nvfp4", "format.scale", "e8m0", "e2m1 block=16 scale=e8m0"),
        ("mxfp4", "format.element", "e2m3", "mxfp6"),
        ("mxfp8", "format.element.frac_bits", 2, "e4m2fn block=32 scale=e8m0"),
        ("s3.4", "format.frac_bits", 6, "s3.6"),
        ("s3.4", "format.overflow", "wrap", "s3.4-wrap"),
        ("s3.4", "format.signed", False, "u3.4"),
    ],
)
def test_every_part_of_every_kind_of_format_can_be_changed(fmt, path, value, wanted):
    policy = Policy([Rule("*", weight=fmt)])
    assert policy.replace(f"weight.{path}", value).rules == (Rule("*", weight=wanted),)


# expand


def test_lists_are_swept_in_the_order_of_the_keys_and_the_rest_holds_for_all():
    points = BASE.expand(
        {
            "forward": {"accumulator": {"frac_bits": [9, 7], "outer": "none"}},
            "accumulator.chunk": ["none", 16],
            "loss_scale": 8,
        }
    )
    assert [point for point, _ in points] == [
        {"forward.accumulator.frac_bits": bits, "accumulator.chunk": chunk}
        for bits in (9, 7)
        for chunk in ("none", 16)
    ]
    found = [str(policy.layer("x").forward) for _, policy in points]
    assert found == ["e6m9", "e6m9 chunk=16", "e6m7", "e6m7 chunk=16"]
    assert {policy.loss_scale for _, policy in points} == {8.0}


def test_changes_that_depend_on_each_other_are_made_at_once():
    policy = Policy([Rule("*", forward="e6m9")])
    changes = {
        "forward.outer": "e8m23",
        "forward.chunk": 64,
        "forward.format": "bf16",
        "forward.frac_bits": 5,
    }
    ((point, changed),) = policy.expand(changes)
    assert point == {}
    assert changed.rules == (Rule("*", forward="e8m5 chunk=64 outer=e8m23"),)


def test_an_update_is_swept_from_nothing():
    points = fused().expand(
        {"update": {"rounding": ["nearest-even", "stochastic"], "format": ["e6m9", "e6m5"]}}
    )
    assert [str(policy.update) for _, policy in points] == [
        *("e6m9", "e6m5", "e6m9 rounding=stochastic", "e6m5 rounding=stochastic")
    ]


def test_a_later_path_holds_against_an_earlier_one():
    policy = Policy([Rule("*", forward="e6m9", backward="e6m9")])
    ((_, changed),) = policy.expand({"accumulator.frac_bits": 7, "backward.frac_bits": 5})
    assert changed.rules == (Rule("*", forward="e6m7", backward="e6m5"),)


def test_a_bad_sweep_is_an_error():
    with pytest.raises(PolicyError, match=r"forward\.chunk: a sweep must have at least one value"):
        BASE.expand({"forward": {"chunk": []}})
    with pytest.raises(PolicyError, match=r"forward\.chunk: chunk must be at least 1, got -3"):
        BASE.expand({"forward": {"chunk": [4, -3]}})
