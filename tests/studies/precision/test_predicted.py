"""Policies with predicted accumulators: which sums there are, how long they are, and what is made of them."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional

from numerics import Accumulator
from numerics.theory import required_bits
from numerics.torch import LayerPolicy, Policy, Rule, emulate
from studies.config import ConfigError
from studies.precision.predicted import BITS, Predictor, bits_table, predicted_policy
from studies.precision.run import run
from studies.precision.study import Study
from studies.precision.sums import training_sums
from studies.tasks import Data, Task, named_task

FP8 = Policy(LayerPolicy.uniform("e5m2", "e6m9 chunk=64"))


def lengths(table):
    return {(row.layer, row.product): row.length for row in table.itertuples()}


class Lengths:
    """An observer of the emulation that keeps the longest sum of each product."""

    def __init__(self):
        self.found = {}

    def tensor(self, *_):
        pass

    def product(self, layer, role, _, sample):
        key = layer, role
        self.found[key] = max(self.found.get(key, 0), sample.shape[1])


class Mixed(nn.Module):
    """Products of every kind, in a module of one's own and in those of torch."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2)
        self.mix_1 = nn.MultiheadAttention(6, 3, batch_first=True)
        self.twice = nn.Linear(6, 6)
        self.scale = nn.Parameter(torch.ones(6, 5))
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        x = self.conv(x).transpose(1, 2)
        x = self.mix_1(x, x, x)[0]
        x = self.twice(self.twice(x))
        x = torch.bmm(x @ self.scale, (x @ self.scale).transpose(1, 2))
        x = torch.einsum("bij,bkj->bik", x, x)
        return functional.scaled_dot_product_attention(x, x, x).sum(-1)


# ------------------------------------------------------------------------------------- lengths


def test_the_perceptron_of_the_digits_by_hand():
    task = named_task("digits-mlp")
    policy, table = predicted_policy(FP8, task.network(), task.input_shape, 4096)
    assert lengths(table) == {
        ("fc1", "forward"): 64,
        ("fc1", "gradient"): 4096,
        ("fc2", "forward"): 32,
        ("fc2", "backward"): 10,
        ("fc2", "gradient"): 4096,
    }
    assert set(table["product_bits"]) == {2 + 2 + 1}
    for row in table.itertuples():
        assert row.predicted_bits == row.used_bits == required_bits(row.length, 5)
        assert str(getattr(policy.layer(row.layer), row.product)) == f"e6m{row.used_bits}"
    # No error of the data is computed: that accumulator stays the base's.
    assert str(policy.layer("fc1").backward) == "e6m9 chunk=64"


def test_the_convolutions_of_the_digits_by_hand():
    task = named_task("digits-cnn")
    policy, table = predicted_policy(
        FP8,
        task.network(),
        task.input_shape,
        256,
        rule="emulated",
        chunk=64,
        rounding="toward-zero",
        exp_bits=5,
    )
    assert lengths(table) == {
        ("conv1", "forward"): 9,
        ("conv1", "gradient"): 256 * 64,
        ("conv2", "forward"): 9 * 8,
        ("conv2", "backward"): 9 * 16,
        ("conv2", "gradient"): 256 * 16,
        ("fc", "forward"): 16 * 2 * 2,
        ("fc", "backward"): 10,
        ("fc", "gradient"): 256,
    }
    bits = required_bits(256 * 64, 5, chunk=64, rule="emulated", rounding="toward-zero")
    made = policy.layer("conv1").gradient
    assert made == Accumulator(f"e5m{bits}", rounding="toward-zero", chunk=64)


def text_task(tmp_path, attention):
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog and runs away. " * 20)
    return named_task(
        "text-transformer", path=path, context=8, width=12, heads=3, layers=1, attention=attention
    )


@pytest.mark.parametrize(
    ("attention", "scores", "mixture"), [("sdpa", "qk", "av"), ("matmul", "matmul", "matmul_1")]
)
def test_attention_and_embeddings_of_a_transformer_by_hand(tmp_path, attention, scores, mixture):
    task = text_task(tmp_path, attention)
    inputs = task.load().train_inputs[:20]
    policy, table = predicted_policy(
        FP8, task.network(), task.input_shape, 20, inputs=inputs, minimum=4, products=["forward", "backward"]
    )
    found = lengths(table)
    block = "blocks.0.attention"
    assert found[f"{block}.{scores}", "forward"] == 12 // 3
    assert found[f"{block}.{scores}", "backward"] == 8
    assert found[f"{block}.{mixture}", "forward"] == 8
    assert found[f"{block}.{mixture}", "backward"] == 8
    assert found["head", "backward"] == task.classes
    sums = training_sums(task.network(), inputs, FP8).sums
    by_hand = {(each.layer, each.product): each.length for each in sums}
    assert by_hand["symbol", "gradient"] == np.bincount(inputs.numpy().ravel()).max()
    assert by_hand["position", "gradient"] == 1
    assert by_hand["blocks.0.up", "gradient"] == 20 * 8
    assert Policy.from_toml(policy.to_toml()) == policy


@pytest.mark.parametrize("name", ["mixed", "sdpa", "matmul", "cnn"])
def test_lengths_are_those_that_the_emulation_sums(tmp_path, name):
    if name in ("sdpa", "matmul"):
        task = text_task(tmp_path, name)
        network, inputs = task.network(), task.load().train_inputs[:5]
    else:
        network = Mixed() if name == "mixed" else named_task("digits-cnn").network()
        inputs = torch.randn(5, *((4, 9) if name == "mixed" else (1, 8, 8)))
    seen = Lengths()
    emulate(network, FP8, seed=0, statistics=seen)(inputs).sum().backward()
    found = training_sums(network, inputs, FP8)
    assert found.unknown == ()
    read = {(each.layer, each.product): each.length for each in found.sums}
    assert read == seen.found


def test_a_layer_without_known_lengths_is_refused_by_name():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows = nn.Parameter(torch.ones(4, 3))
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            return self.fc(functional.embedding(x, self.rows))

    network = nn.Sequential(Table())
    inputs = torch.zeros(6, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"no accumulation lengths are known of '0.rows'; known are '0.fc'"):
        predicted_policy(FP8, network, (2,), 6, inputs=inputs)
    table = bits_table(FP8, network, (2,), 6, inputs=inputs)
    unknown = table[table["layer"] == "0.rows"]
    assert unknown["used_bits"].tolist() == [9, 9, 9]
    assert unknown[["length", "theory_bits", "emulated_bits", "slack"]].isna().all(axis=None)


def test_inputs_of_another_kind_or_size_are_refused():
    network = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"inputs must be of shape \(6, 2\), got \(5, 2\)"):
        predicted_policy(FP8, network, (2,), 6, inputs=torch.zeros(5, 2))
    with pytest.raises(ValueError, match="batch must be a whole number of at least 1, got 0"):
        predicted_policy(FP8, network, (2,), 0)
    with pytest.raises(ValueError, match="cannot be exported"):
        predicted_policy(FP8, network, (2,), 6)


# ------------------------------------------------------------------------------------- policies


def test_formats_update_and_loss_scale_are_the_bases_and_its_exceptions_hold():
    task = named_task("digits-cnn")
    base = Policy.preset("wang2018")
    policy, table = predicted_policy(base, task.network(), task.input_shape, 256)
    assert (policy.update, policy.loss_scale) == (base.update, base.loss_scale)
    assert policy.rules[-len(base.rules) :] == base.rules
    for name, first, last in (("conv1", True, False), ("conv2", False, False), ("fc", False, True)):
        made, before = (each.layer(name, first=first, last=last) for each in (policy, base))
        assert (made.weight, made.activation, made.error) == (before.weight, before.activation, before.error)
    bits = table.set_index(["layer", "product"])["product_bits"]
    assert bits["conv1", "forward"] == 9 + 2 + 1  # images in (1,6,9), weights in (1,5,2)
    assert bits["conv2", "forward"] == 2 + 2 + 1
    assert bits["fc", "gradient"] == 9 + 9 + 1


def test_offsets_minimum_tolerance_and_density_enter_the_bits():
    task = named_task("digits-mlp")

    def bits(**options):
        _, table = predicted_policy(FP8, task.network(), task.input_shape, 4096, **options)
        return table.set_index(["layer", "product"])["used_bits"]["fc1", "gradient"]

    assert bits(offset=-3) == required_bits(4096, 5) - 3
    assert bits(minimum=12, offset=-1) == 11
    assert bits(rule="emulated", tolerance=1e-4) == required_bits(4096, 5, rule="emulated", tolerance=1e-4)
    assert bits(density=0.1) == required_bits(4096, 5, density=0.1)
    sparse = bits(density={("fc1", "gradient"): 0.01})
    assert sparse == required_bits(4096, 5, density=0.01) < bits()


def test_the_emulation_sums_with_the_predicted_accumulators(tmp_path):
    task = text_task(tmp_path, "matmul")
    inputs = task.load().train_inputs[:4]
    network = task.network()
    policy, table = predicted_policy(FP8, network, task.input_shape, 4, inputs=inputs, minimum=5)
    widths = table.set_index(["layer", "product"])["used_bits"]
    seen = {}

    class Accumulators(Lengths):
        def product(self, layer, role, accumulator, _):
            seen[layer, role] = str(accumulator)

    emulate(network, policy, seed=0, statistics=Accumulators())(inputs).sum().backward()
    assert seen == {key: f"e6m{bits}" for key, bits in widths.items()}


def test_a_product_that_the_base_leaves_in_float32_stays_there():
    network = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2))
    base = Policy([Rule("1", backward="native"), *FP8.rules])
    policy, table = predicted_policy(base, network, (8,), 16)
    assert ("1", "backward") not in lengths(table)
    assert policy.layer("1").backward is None
    assert str(policy.layer("1").forward) == "e6m5"


def test_some_products_of_some_layers_alone():
    network = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2), nn.Linear(2, 2))
    policy, table = predicted_policy(FP8, network, (8,), 16, products=["gradient"], layers=["0", "[2-9]"])
    assert lengths(table) == {("0", "gradient"): 16, ("2", "gradient"): 16}
    assert policy.rules[2:] == FP8.rules
    assert str(policy.layer("2").gradient) == "e6m5"
    assert policy.layer("1") == FP8.layer("1")


def test_an_operand_in_float32_has_no_prediction():
    network = nn.Sequential(nn.Linear(8, 4))
    base = Policy([Rule("*", weight="e5m2", forward="e6m9", gradient="e6m9")])
    with pytest.raises(ValueError, match=r"layer '0': the forward product needs .* activation = native"):
        predicted_policy(base, network, (8,), 16)


def test_what_may_run_in_float32_needs_no_prediction():
    class Cube(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv3d(1, 2, 2)

        def forward(self, x):
            return self.conv(x.reshape(-1, 1, 2, 2, 2)).flatten(1)

    network = nn.Sequential(nn.Linear(3, 8), Cube())
    with pytest.raises(ValueError, match=r"module '1.conv' \(Conv3d\) cannot be emulated"):
        predicted_policy(FP8, network, (3,), 16)
    passed = Policy([Rule("1*", unsupported="pass"), *FP8.rules])
    _, table = predicted_policy(passed, network, (3,), 16)
    assert set(table["layer"]) == {"0"}


# ------------------------------------------------------------------------------------- tables


def test_bits_of_a_policy_beside_the_predicted_ones():
    task = named_task("digits-cnn")
    table = bits_table(FP8, task.network(), task.input_shape, 256)
    assert list(table.columns) == list(BITS)
    assert set(table["used_bits"]) == {9}
    assert set(table["chunk"]) == {64}
    for row in table.itertuples():
        assert row.theory_bits == required_bits(row.length, 5, chunk=64)
        assert row.emulated_bits == required_bits(row.length, 5, chunk=64, rule="emulated")
        assert row.slack == 9 - row.emulated_bits


def test_emulated_bits_are_those_of_the_accumulators_rounding():
    network = nn.Sequential(nn.Linear(4096, 2))
    rounded = {
        rounding: bits_table(
            Policy(LayerPolicy.uniform("e5m2", f"e6m9 rounding={rounding}")), network, (4096,), 4
        )
        for rounding in ("nearest-even", "toward-zero", "stochastic:4")
    }
    forward = {name: table.set_index("product").loc["forward"] for name, table in rounded.items()}
    assert [forward[name]["theory_bits"] for name in rounded] == [required_bits(4096)] * 3
    assert forward["nearest-even"]["emulated_bits"] == required_bits(4096, rule="emulated")
    assert forward["toward-zero"]["emulated_bits"] == required_bits(
        4096, rule="emulated", rounding="toward-zero"
    )
    assert pd.isna(forward["stochastic:4"]["emulated_bits"])  # no calibrated rounding


@pytest.mark.parametrize(
    ("accumulator", "used", "theory"),
    [
        ("native", None, 9),
        ("exact output=e6m9", None, 9),
        ("hopper-fp8 promote=128", None, 9),
        ("e6m9 lanes=4", 9, None),
        ("e6m9 chunk=64 outer=e8m23", 9, None),
        ("e6m9 product=e5m1", 9, required_bits(4096, 1)),
    ],
)
def test_units_that_are_no_plain_register_have_no_used_bits_or_no_prediction(accumulator, used, theory):
    network = nn.Sequential(nn.Linear(4096, 2))
    policy = Policy([Rule("*", weight="e5m2", activation="e5m2", error="e5m2", forward=accumulator)])
    row = bits_table(policy, network, (4096,), 4).set_index("product").loc["forward"]
    assert (None if pd.isna(row["used_bits"]) else row["used_bits"]) == used
    assert (None if pd.isna(row["theory_bits"]) else row["theory_bits"]) == theory


# ------------------------------------------------------------------------------------- studies

STUDY = """\
seeds = [0]
steps = 3
batch = 64
evaluate_every = 3
[task]
name = "digits-mlp"
[optimizer]
learning_rate = 0.05
[[policies]]
preset = "wang2018"
[[policies]]
name = "made"
preset = "wang2018"
operands = "e5m2"
"""


def study(tmp_path, predict):
    path = tmp_path / "study.toml"
    path.write_text(f"{STUDY}[policies.predict]\n{predict}\n")
    return path


def test_a_study_trains_a_sweep_of_predictions_and_tells_the_bits(tmp_path):
    path = study(tmp_path, 'chunk = [0, 16]\noffset = [-1, -2]\nrule = "emulated"')
    result = run(Study.from_toml(path), tmp_path / "run")
    names = [f"made chunk={chunk} offset={offset}" for chunk in (0, 16) for offset in (-1, -2)]
    assert result.table["policy"].tolist() == ["float32", "wang2018", *names]
    assert result.table["predict.offset"].tolist()[2:] == [-1, -2, -1, -2]
    assert result.table["training_loss"].notna().all()
    bits = pd.read_parquet(tmp_path / "run" / "bits.parquet")
    assert bits.columns.tolist() == ["policy", *BITS]
    assert bits["policy"].unique().tolist() == ["wang2018", *names]
    made = bits[bits["policy"] == names[3]].set_index(["layer", "product"])
    assert made["length"]["fc2", "gradient"] == 64
    assert made["used_bits"]["fc2", "gradient"] == required_bits(64, 5, chunk=16, rule="emulated") - 2
    assert made["chunk"].tolist() == [16] * 5
    assert set(made["slack"]) == {-2}
    stored = json.loads(
        (
            tmp_path / "run" / "runs" / f"02-{names[0].replace(' ', '-')}" / "seed-0" / "outcome.json"
        ).read_text()
    )
    policy = Policy.from_toml(stored["identity"]["policy"])
    assert str(policy.layer("fc1").forward) == "e6m4"
    again = Study.from_toml(tmp_path / "run" / "config.toml")
    assert again.policies == Study.from_toml(path).policies


def test_a_measured_density_counts_the_products_that_are_not_zero(points):
    wide = torch.zeros(32, 4096)
    wide[:, ::8] = 1.0
    labels = torch.arange(32) % 2

    def load():
        return Data(train_inputs=wide, train_labels=labels, test_inputs=wide, test_labels=labels)

    task = replace(points, load=load, network=lambda: nn.Sequential(nn.Linear(4096, 2)), input_shape=(4096,))
    predictor = Predictor(task, 32)
    ((_, policy),) = predictor.expand({"density": "measured"}, FP8)
    ((_, dense),) = predictor.expand({}, FP8)
    assert policy.layer("0").forward.format.frac_bits == required_bits(4096, density=1 / 8)
    assert (
        dense.layer("0").forward.format.frac_bits == required_bits(4096) > required_bits(4096, density=1 / 8)
    )


BAD = [
    ("ofset = -1", "ofset: unknown key; keys are rule, chunk,"),
    ("offset = []", "offset: a sweep must have at least one value"),
    ("offset = [0, -1.5]", "offset: must be a whole number, got -1.5"),
    ("offset = [0, -5]", "offset: must leave 1 to 23 fraction bits, got -5 where 5 are predicted"),
    ("chunk = -64", "chunk: must be at least 0, which is none, got -64"),
    ('rule = "guess"', "rule: must be one of theory, emulated, got 'guess'"),
    ("exp_bits = 9", "exp_bits: must be in 2..8, got 9"),
    ('rounding = "stochastic:4"\nrule = "emulated"', "rounding: rounding must be one of the calibrated"),
    ('rounding = "up-and-down"', "rounding: "),
    ("tolerance = 0.1", "tolerance: belongs to rule 'emulated', got 0.1 with 'theory'"),
    ('tolerance = 1.0\nrule = "emulated"', "tolerance: must be between 0 and 1, got 1.0"),
    ("minimum = 0", "minimum: must be in 1..23, got 0"),
    ("density = 0.0", "density: must be in (0, 1] or 'measured', got 0.0"),
    ('density = "dense"', "density: must be in (0, 1] or 'measured', got 'dense'"),
    ('products = ["forwards"]', "products: must be some of forward, backward, gradient, got 'forwards'"),
    ('layers = ["fc1", "conv*"]', "layers: 'conv*' is no layer; layers are 'fc1', 'fc2'"),
    ("layers = [1]", "layers: must be globs of layers, got [1]"),
    ('layers = "fc1"\nproducts = "backward"', "products: none of backward is emulated in these layers"),
    ("products = []", "products: must be some of forward, backward, gradient, got none"),
]


@pytest.mark.parametrize(("predict", "expected"), BAD, ids=[each for each, _ in BAD])
def test_a_bad_prediction_is_an_error_with_the_path_of_its_key(tmp_path, predict, expected):
    path = study(tmp_path, predict)
    with pytest.raises(ConfigError) as caught:
        Study.from_toml(path)
    assert str(caught.value).startswith(f"{path}: policies[1].predict.{expected}")
    assert len(str(caught.value).splitlines()) == 1


def test_a_batch_larger_than_the_data_and_no_table_are_refused(tmp_path):
    path = study(tmp_path, "")
    path.write_text(path.read_text().replace("batch = 64", "batch = 2000"))
    with pytest.raises(ConfigError, match=r"toml: batch: must be at most 1347, .* got 2000$"):
        Study.from_toml(path)
    path.write_text(f"{STUDY}predict = 3\n")
    with pytest.raises(
        ConfigError, match=r"policies\[1\].predict: must be a table with some of rule, .* got 3$"
    ):
        Study.from_toml(path)


class Unreadable(nn.Module):
    """What it computes depends on its input, so it cannot be exported."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        return self.fc(x) if float(x.sum()) > 0 else -self.fc(x)


def test_a_network_that_cannot_be_read_is_trained_without_a_table_of_bits(points, tmp_path):
    task: Task = replace(points, network=Unreadable)
    own = Study(
        task=task, policies={"fp8": FP8}, optimizer={"learning_rate": 0.1}, steps=2, batch=8, seeds=[0]
    )
    assert run(own, tmp_path / "run").table["policy"].tolist() == ["float32", "fp8"]
    bits = pd.read_parquet(tmp_path / "run" / "bits.parquet")
    assert bits.empty
    assert bits.columns.tolist() == ["policy", *BITS]
    assert "cannot be exported" in bits.attrs["note"]
