"""Products that modules compute themselves are found, named and emulated; nothing else is touched."""

import copy
import io
import math
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from numerics import threads
from numerics.torch import LayerPolicy, Policy, emulate, restore
from numerics.torch.emulate import emulation_state, load_emulation_state
from numerics.torch.policy import Rule

NATIVE = LayerPolicy()
WIDE = LayerPolicy(forward="e8m23", backward="e8m23", gradient="e8m23 chunk=3")
NARROW = LayerPolicy.uniform("e4m3fn", "e6m3")
STOCHASTIC = LayerPolicy.uniform("e4m3fn rounding=stochastic:8 scaling=tensor:3", "e6m5 rounding=stochastic")


def own(function, **parameters):
    """A module that computes ``function(self, *inputs)`` with parameters of these shapes."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            for name, shape in parameters.items():
                setattr(
                    self, name, nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(1)))
                )

        def forward(self, *inputs):
            return function(self, *inputs)

    return Own()


def inputs_of(*shapes, integers=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if integers:
        return [torch.randint(-4, 5, s, generator=generator).float().requires_grad_() for s in shapes]
    return [torch.randn(s, generator=generator).requires_grad_() for s in shapes]


def first(y):
    return y[0] if isinstance(y, tuple) else y


def results(model, inputs, **options):
    """Output, input gradients and parameter gradients, those of unused ones as zeros."""
    y = first(model(*inputs, **options))
    errors = torch.randint(-3, 4, y.shape, generator=torch.Generator().manual_seed(5)).float()
    leaves = [x for x in inputs if x.requires_grad] + list(model.parameters())
    gradients = torch.autograd.grad(y, leaves, errors, allow_unused=True)
    return [y, *(torch.zeros_like(x) if g is None else g for g, x in zip(gradients, leaves, strict=True))]


def names(twin):
    """Names of what a twin has emulated so far."""
    return sorted(emulation_state(twin))


PRODUCTS = {
    "@": (own(lambda self, a, b: a @ b), [(3, 4), (4, 5)]),
    "matmul": (own(lambda self, a, b: torch.matmul(a, b)), [(2, 3, 4), (4, 5)]),
    "Tensor.matmul": (own(lambda self, a, b: a.matmul(b)), [(2, 3, 4), (2, 4, 5)]),
    "mm": (own(lambda self, a, b: torch.mm(a, b)), [(3, 4), (4, 5)]),
    "bmm": (own(lambda self, a, b: torch.bmm(a, b)), [(2, 3, 4), (2, 4, 5)]),
    "mv": (own(lambda self, a, b: torch.mv(a, b)), [(3, 4), (4,)]),
    "dot": (own(lambda self, a, b: torch.dot(a, b)), [(4,), (4,)]),
    "addmm": (own(lambda self, c, a, b: torch.addmm(c, a, b)), [(5,), (3, 4), (4, 5)]),
    "addmm with factors": (
        own(lambda self, c, a, b: torch.addmm(c, a, b, beta=2.0, alpha=0.5)), [(3, 5), (3, 4), (4, 5)],
    ),
    "baddbmm": (own(lambda self, c, a, b: torch.baddbmm(c, a, b)), [(2, 3, 5), (2, 3, 4), (2, 4, 5)]),
    "einsum of matrices": (own(lambda self, a, b: torch.einsum("ik,kj->ij", a, b)), [(3, 4), (4, 5)]),
    "einsum of batches": (
        own(lambda self, a, b: torch.einsum("bik,bjk->bij", a, b)), [(2, 3, 4), (2, 5, 4)],
    ),
    "einsum over two axes": (
        own(lambda self, a, b: torch.einsum("abc,dbc->ad", a, b)), [(2, 3, 4), (5, 3, 4)],
    ),
    "einsum with dots": (
        own(lambda self, a, b: torch.einsum("...ik,...kj->...ij", a, b)), [(2, 3, 4), (2, 4, 5)],
    ),
    "outer by einsum": (own(lambda self, a, b: torch.einsum("i,j->ij", a, b)), [(3,), (4,)]),
    "vector weight": (own(lambda self, x: x @ self.w, w=(4,)), [(3, 4)]),
    "matrix weight": (own(lambda self, x: x @ self.w, w=(4, 5)), [(2, 3, 4)]),
    "matrix weight on the left": (own(lambda self, x: self.w @ x, w=(5, 3)), [(2, 3, 4)]),
    "weight from the left by rmatmul": (
        own(lambda self, x: torch.Tensor.__rmatmul__(x, self.w), w=(5, 3)), [(3, 4)],
    ),
    "transposed weight": (own(lambda self, x: x @ self.w.T, w=(5, 4)), [(3, 4)]),
    "batch of weights": (own(lambda self, x: torch.bmm(x, self.w), w=(2, 4, 5)), [(2, 3, 4)]),
    "experts by einsum": (own(lambda self, x: torch.einsum("nd,edh->neh", x, self.w), w=(2, 4, 5)), [(3, 4)]),
    "F.linear": (own(lambda self, x: F.linear(x, self.w, self.b), w=(5, 4), b=(5,)), [(2, 3, 4)]),
    "F.linear of activations": (own(lambda self, x, w: F.linear(x, w)), [(3, 4), (5, 4)]),
    "F.conv1d": (
        own(lambda self, x: F.conv1d(x, self.w, self.b, padding=1), w=(4, 2, 3), b=(4,)), [(2, 2, 6)],
    ),
    "F.conv2d": (
        own(lambda self, x: F.conv2d(x, self.w, self.b, stride=2, groups=2), w=(4, 1, 2, 3), b=(4,)),
        [(2, 2, 5, 6)],
    ),
    "F.conv2d, padded by name": (
        own(lambda self, x: F.conv2d(x, self.w, padding="same"), w=(4, 2, 3, 3)), [(2, 2, 5, 6)],
    ),
    "F.conv_transpose2d": (
        own(lambda self, x: F.conv_transpose2d(x, self.w, stride=2), w=(2, 3, 2, 2)), [(1, 2, 3, 3)],
    ),
    "F.conv_transpose1d": (own(lambda self, x: F.conv_transpose1d(x, self.w), w=(2, 3, 2)), [(1, 2, 3)]),
}  # fmt: skip


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_of_a_users_module_is_that_of_torch_and_is_emulated(name):
    model, shapes = PRODUCTS[name]
    inputs = inputs_of(*shapes)
    for one, other in zip(
        results(emulate(model, NATIVE, seed=0), inputs), results(model, inputs), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-5)
    whole = copy.deepcopy(model)
    for parameter in whole.parameters():
        parameter.data = parameter.data.round()
    inputs = inputs_of(*shapes, integers=True)
    for one, other in zip(results(emulate(whole, WIDE, seed=0), inputs), results(whole, inputs), strict=True):
        assert torch.equal(one, other)
    inputs = inputs_of(*shapes)
    narrow = results(emulate(model, NARROW, seed=0), inputs)
    same = [torch.equal(*pair) for pair in zip(narrow, results(model, inputs), strict=True)]
    # What is added, and a sum of so few errors, may be exact.
    assert sum(same) <= name.startswith(("addmm", "baddbmm", "F."))
    assert not same[0]


ATTENTION = {
    "plain": {},
    "causal": {"is_causal": True},
    "scaled": {"scale": 0.3},
    "mask of booleans": {
        "attn_mask": torch.tensor([[True] * 5, [True] * 4 + [False], [False, True] * 2 + [False]])
    },
    "mask of numbers": {"attn_mask": torch.linspace(-2, 2, 15).reshape(3, 5)},
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_is_two_products(name):
    model = own(lambda self, q, k, v: F.scaled_dot_product_attention(q, k, v, **ATTENTION[name]))
    inputs = inputs_of((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 6))
    twin = emulate(model, NATIVE, seed=0)
    for one, other in zip(results(twin, inputs), results(model, inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert names(twin) == ["av", "qk"]
    assert not torch.equal(emulate(model, NARROW, seed=0)(*inputs), model(*inputs))


def test_attention_with_fewer_keys_than_queries_repeats_the_keys():
    model = own(lambda self, q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True))
    inputs = inputs_of((2, 6, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4))
    for one, other in zip(
        results(emulate(model, NATIVE, seed=0), inputs), results(model, inputs), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_dropout_in_attention_drops_and_keeps_the_mean():
    model = own(lambda self, q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.5))
    q, k, v = torch.zeros(1, 1, 400, 4), torch.zeros(1, 1, 100, 4), torch.ones(1, 1, 100, 1)
    torch.manual_seed(0)
    y = emulate(model, NATIVE, seed=0)(q, k, v)
    assert y.std() > 0.05
    assert abs(y.mean().item() - 1.0) < 0.02


CAUSAL = torch.triu(torch.full((3, 3), -math.inf), 1)
MULTIHEAD = {
    "plain": ({}, {}, [(2, 3, 8)] * 3),
    "batch first": ({"batch_first": True}, {}, [(2, 3, 8)] * 3),
    "no weights wanted": ({"batch_first": True}, {"need_weights": False}, [(2, 3, 8)] * 3),
    "no bias": ({"bias": False}, {}, [(2, 3, 8)] * 3),
    "biases of keys and values": ({"add_bias_kv": True}, {}, [(2, 3, 8)] * 3),
    "zeros attended": ({"add_zero_attn": True}, {}, [(2, 3, 8)] * 3),
    "other widths": ({"kdim": 6, "vdim": 5, "batch_first": True}, {}, [(2, 3, 8), (2, 4, 6), (2, 4, 5)]),
    "unbatched": ({}, {}, [(3, 8)] * 3),
    "masked": ({"batch_first": True}, {"attn_mask": CAUSAL}, [(2, 3, 8)] * 3),
    "causal": (
        {"batch_first": True},
        {"attn_mask": CAUSAL, "is_causal": True, "need_weights": False},
        [(2, 3, 8)] * 3,
    ),
    "keys padded": (
        {"batch_first": True},
        {"key_padding_mask": torch.tensor([[False, False, True]] * 2)},
        [(2, 3, 8)] * 3,
    ),
    "weights of each head": ({}, {"average_attn_weights": False}, [(2, 3, 8)] * 3),
}  # fmt: skip


@pytest.mark.parametrize("name", MULTIHEAD)
def test_multihead_attention_is_that_of_torch_and_is_emulated(name):
    options, call, shapes = MULTIHEAD[name]
    torch.manual_seed(0)
    model = nn.MultiheadAttention(8, 2, **options)
    inputs = inputs_of(*shapes)
    twin = emulate(model, NATIVE, seed=0)
    for one, other in zip(results(twin, inputs, **call), results(model, inputs, **call), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    expected, found = model(*inputs, **call)[1], twin(*inputs, **call)[1]
    assert (expected is None) == (found is None)
    if expected is not None:
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    one = results(emulate(model, NARROW, seed=0), inputs, **call)
    other = results(model, inputs, **call)
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[1])


def test_no_product_of_multihead_attention_is_left_out():
    nothing = LayerPolicy.uniform("e2m1 scaling=none", "exact output=e2m1b3")
    for need_weights in (True, False):
        for role in ("in_proj", "out_proj", "qk", "av"):
            model = nn.MultiheadAttention(8, 2, batch_first=True)
            policy = Policy([(f"*{role}*", nothing), ("*", NATIVE)])
            inputs = inputs_of((2, 3, 8), (2, 3, 8), (2, 3, 8))
            twin = emulate(model, policy, seed=0)
            found = twin(*inputs, need_weights=need_weights)[0]
            assert not torch.equal(found, model(*inputs, need_weights=need_weights)[0]), (role, names(twin))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_transformers_are_those_of_torch_and_are_emulated(training, activation):
    torch.manual_seed(0)
    options = {"dropout": 0.0, "batch_first": True, "activation": activation}
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, **options), 2, enable_nested_tensor=False
    ).train(training)
    inputs = inputs_of((2, 4, 8))
    twin = emulate(encoder, NATIVE, seed=0)
    for one, other in zip(results(twin, inputs), results(encoder, inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # torch has another path without gradients
        torch.testing.assert_close(twin(*inputs), encoder(*inputs), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(
            emulate(encoder, NARROW, seed=0)(*inputs), encoder(*inputs), rtol=1e-3, atol=1e-4
        )
    layers = {name.rsplit(".", 1)[0] for name in names(twin)}
    assert layers == {f"layers.{i}{part}" for i in (0, 1) for part in ("", ".self_attn")}
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, **options), 2).train(training)
    inputs = inputs_of((2, 4, 8), (2, 5, 8))
    for one, other in zip(
        results(emulate(decoder, NATIVE, seed=0), inputs), results(decoder, inputs), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


# Names, and what cannot be emulated.


class Mixed(nn.Module):
    """Products of all kinds around layers."""

    def __init__(self, n=4):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(n, n), nn.ReLU())
        self.w = nn.Parameter(torch.full((n, n), 0.3))
        self.table = nn.ParameterList([nn.Parameter(torch.full((n, n), 0.7))])

    def forward(self, x):
        y = self.inner(x) @ self.w
        z = y @ y.mT
        return (z @ y) @ self.table[0]


def test_products_are_named_by_their_parameters_or_in_the_order_of_the_pass():
    model = nn.Sequential(Mixed(), nn.Sequential(Mixed()))
    twin = emulate(model, NARROW, seed=0)
    twin(torch.ones(2, 3, 4))
    expected = ["inner.0", "matmul", "matmul_1", "table.0", "w"]
    assert names(twin) == sorted(f"{place}.{name}" for place in ("0", "1.0") for name in expected)
    twin(torch.ones(2, 3, 4))
    assert len(names(twin)) == 10


def test_rules_find_products_by_their_names():
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    outputs = []
    for place in ("inner.0", "w", "matmul", "matmul_1", "table.0", "nothing"):
        rules = [Rule("inner*" if place == "nothing" else place, forward="e6m2"), ("*", NATIVE)]
        if place == "nothing":
            rules = rules[1:]
        torch.manual_seed(0)
        outputs.append(emulate(Mixed(), Policy(rules), seed=0)(x))
    for i, one in enumerate(outputs):
        assert not any(torch.equal(one, other) for other in outputs[i + 1 :])


UNSUPPORTED = {
    "bilinear": own(lambda self, x: F.bilinear(x, x, self.w), w=(3, 4, 4)),
    "einsum": own(lambda self, x: torch.einsum("ij,jk,kl->il", x, self.w, self.w), w=(4, 4)),
    "conv3d": own(lambda self, x: F.conv3d(x.reshape(1, 1, 2, 2, 2), self.w), w=(1, 1, 1, 1, 1)),
    "tensordot": own(lambda self, x: torch.tensordot(x, self.w, dims=1), w=(4, 4)),
    "chain_matmul": own(lambda self, x: torch.linalg.multi_dot([x, self.w, self.w]), w=(4, 4)),
    "inner": own(lambda self, x: torch.inner(x, self.w), w=(4, 4)),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_function_that_cannot_be_emulated_is_named_with_its_module_or_passed(name):
    model = nn.ModuleDict({"part": UNSUPPORTED[name]})
    x = torch.ones(2, 4)
    twin = emulate(model, NARROW, seed=0)
    with pytest.raises(ValueError, match=re.escape("'part' (Own) computes ") + ".*which cannot be emulated"):
        twin["part"](x)
    passing = Policy([Rule("part", unsupported="pass"), ("*", NARROW)])
    assert torch.equal(emulate(model, passing, seed=0)["part"](x), model["part"](x))


@pytest.mark.parametrize(
    "module", [nn.LSTM(2, 2), nn.Bilinear(2, 2, 2), nn.Conv3d(1, 1, 1), nn.EmbeddingBag(3, 2)]
)
def test_a_module_that_cannot_be_emulated_is_named_before_it_runs_or_passed(module):
    kind = type(module).__name__
    model = nn.Sequential(nn.Linear(2, 2), module)
    with pytest.raises(
        ValueError, match=rf"module '1' \({kind}\) cannot be emulated; supported are Linear, Conv1d"
    ):
        emulate(model, NARROW, seed=0)
    twin = emulate(model, Policy([Rule("1", unsupported="pass"), ("*", NARROW)]), seed=0)
    assert isinstance(twin[1], type(module))
    assert not hasattr(twin[1], "emulation")
    assert type(twin[0]) is not nn.Linear


def test_an_error_inside_leaves_nothing_behind():
    def fail(self, x):
        y = x @ self.w
        if x.sum() > 0:
            raise RuntimeError("no")
        return y

    twin = emulate(own(fail, w=(4, 4)), NARROW, seed=0)
    x = torch.randn(3, 4)
    expected = x @ x.T
    with pytest.raises(RuntimeError, match="no"):
        twin(torch.ones(3, 4))
    assert torch.equal(x @ x.T, expected)
    y = twin(-torch.ones(3, 4))
    assert names(twin) == ["w"]
    assert torch.equal(y, emulate(own(fail, w=(4, 4)), NARROW, seed=0)(-torch.ones(3, 4)))


def test_code_outside_the_model_is_left_alone():
    twin = emulate(own(lambda self, a, b: a @ b), NARROW, seed=0)
    a, b = inputs_of((3, 4), (4, 5))
    expected = a @ b
    y = twin(a, b)
    assert torch.equal(a @ b, expected)
    assert not torch.equal(y, expected)


def test_a_method_that_is_not_forward_may_be_called_by_it():
    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.full((4, 4), 0.3))

        def project(self, x):
            return x @ self.w

        def forward(self, x):
            return self.project(x)

    twin = emulate(Split(), NARROW, seed=0)
    twin(torch.ones(2, 4))
    assert names(twin) == ["w"]


# Random numbers of products that are found as they run.


def transformer():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    return nn.Sequential(
        nn.Embedding(7, 8), nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), Head()
    )


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(8, 7, generator=torch.Generator().manual_seed(3)))

    def forward(self, x):
        return (x @ x.mT / 8 @ x) @ self.w


TOKENS = torch.randint(0, 7, (6, 2, 5), generator=torch.Generator().manual_seed(2))


def train(twin, optimizer, tokens, between=None):
    """Losses of some steps."""
    losses = []
    for batch in tokens:
        optimizer.zero_grad()
        loss = F.cross_entropy(twin(batch).flatten(0, 1), batch.roll(1).flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if between is not None:
            between()
    return losses


def adam(twin):
    return torch.optim.AdamW(twin.parameters(), lr=0.01)


def bits(twin):
    return [parameter.detach().clone() for parameter in twin.parameters()]


def same_bits(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def whole_run(seed=0):
    twin = emulate(transformer(), STOCHASTIC, seed=seed)
    return train(twin, adam(twin), TOKENS), bits(twin)


def test_a_run_repeats_and_another_seed_differs():
    losses, expected = whole_run()
    again, found = whole_run()
    assert losses == again
    assert same_bits(found, expected)
    assert whole_run(seed=1)[0] != losses


def test_a_run_goes_on_with_the_same_bits_after_save_and_load():
    losses, expected = whole_run()
    twin = emulate(transformer(), STOCHASTIC, seed=0)
    optimizer = adam(twin)
    early = train(twin, optimizer, TOKENS[:3])
    file = io.BytesIO()
    torch.save(
        {"model": twin.state_dict(), "optimizer": optimizer.state_dict(), "emulation": emulation_state(twin)},
        file,
    )
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = emulate(transformer(), STOCHASTIC, seed=0)
    resumed.load_state_dict(saved["model"])
    load_emulation_state(resumed, saved["emulation"])
    optimizer = adam(resumed)
    optimizer.load_state_dict(saved["optimizer"])
    # Before a step is taken, the state is what was loaded: also of products that were not found yet.
    assert emulation_state(resumed) == saved["emulation"]
    assert early + train(resumed, optimizer, TOKENS[3:]) == losses
    assert same_bits(bits(resumed), expected)


@pytest.mark.parametrize("way", ["deepcopy", "torch.save"])
def test_a_twin_that_is_copied_or_saved_whole_goes_on_with_the_same_bits(way):
    losses, expected = whole_run()
    twin = emulate(transformer(), STOCHASTIC, seed=0)
    optimizer = adam(twin)
    early = train(twin, optimizer, TOKENS[:3])
    if way == "deepcopy":
        other = copy.deepcopy(twin)
    else:
        file = io.BytesIO()
        torch.save(twin, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    moved = adam(other)
    moved.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert early + train(other, moved, TOKENS[3:]) == losses
    assert same_bits(bits(other), expected)
    # The original has not moved.
    assert early + train(twin, optimizer, TOKENS[3:]) == losses


def test_passes_without_gradients_between_the_steps_change_no_bit_of_training():
    losses, expected = whole_run()
    twin = emulate(transformer(), STOCHASTIC, seed=0)

    def evaluate():
        twin.eval()
        with torch.no_grad():
            twin(TOKENS[0])
            twin(TOKENS[1][:1])
        with torch.inference_mode():
            twin(TOKENS[2])
        twin.train()

    evaluate()
    assert train(twin, adam(twin), TOKENS, evaluate) == losses
    assert same_bits(bits(twin), expected)


def test_two_models_in_turn_train_as_each_alone():
    losses, expected = whole_run()
    twin, other = emulate(transformer(), STOCHASTIC, seed=0), emulate(transformer(), STOCHASTIC, seed=5)
    ours, theirs = adam(twin), adam(other)
    found, others = [], []
    for batch in TOKENS:
        found += train(twin, ours, batch[None])
        others += train(other, theirs, batch[None])
    assert found == losses
    assert same_bits(bits(twin), expected)
    assert others == whole_run(seed=5)[0]


def test_a_layers_numbers_do_not_depend_on_others():
    # The same names, one layer more that is used before, after or not at all.
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    outputs = []
    for order in ((), ("extra",), ("extra", "extra")):
        torch.manual_seed(0)
        model = nn.ModuleDict({"layer": nn.Linear(8, 8), "extra": nn.Linear(8, 8)})
        twin = emulate(model, STOCHASTIC, seed=0)
        for name in order:
            twin[name](x).sum().backward()
        y = twin["layer"](x)
        y.sum().backward()
        outputs.append([y, twin["layer"].weight.grad])
    assert same_bits(outputs[0], outputs[1])
    assert same_bits(outputs[0], outputs[2])


def test_a_run_has_the_same_bits_with_one_and_two_threads():
    # Without normalisation, the gradients of which torch sums in float32 by threads.
    before = torch.get_num_threads()
    runs = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            threads.limit(count)
            torch.manual_seed(0)
            model = nn.Sequential(nn.Embedding(7, 8), Mixed(8), nn.Linear(8, 8), nn.ReLU(), Head())
            twin = emulate(model, STOCHASTIC, seed=0)
            runs.append((train(twin, adam(twin), TOKENS), bits(twin)))
    finally:
        torch.set_num_threads(before)
        threads.limit(None)
    assert runs[0][0] == runs[1][0]
    assert same_bits(runs[0][1], runs[1][1])


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_changes_no_bit(reentrant):
    def block(self, x):
        return torch.relu(x @ self.w) @ x.mT @ x

    class Checkpointed(nn.Module):
        def __init__(self, inner, on):
            super().__init__()
            self.inner, self.on, self.last = inner, on, nn.Linear(4, 4)

        def forward(self, x):
            y = checkpoint(self.inner, x, use_reentrant=reentrant) if self.on else self.inner(x)
            return self.last(y)

    policy = LayerPolicy.uniform("e4m3fn scaling=tensor", "e6m5")
    outcomes = []
    for on in (False, True):
        torch.manual_seed(0)
        twin = emulate(Checkpointed(own(block, w=(4, 4)), on), policy, seed=0)
        x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = twin(x)
        y.sum().backward()
        outcomes.append([y, x.grad, *(p.grad for p in twin.parameters())])
    assert same_bits(*outcomes)


# Float32.


def digits_cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 7),
    )  # fmt: skip


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 7)), (8, 10)),
    "cnn": (digits_cnn, (8, 1, 8, 8)),
    "transformer": (transformer, None),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_the_fp32_policy_trains_as_plain_torch(name, optimizer):
    make, shape = MODELS[name]
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    plain = make()
    twin = emulate(plain, Policy.preset("fp32"), seed=0)
    # Adam divides by the size of a gradient: one that is a rounding error would be blown up.
    options = {"lr": 0.05, "momentum": 0.9} if optimizer is torch.optim.SGD else {"lr": 0.01, "eps": 1e-3}
    steps = [optimizer(model.parameters(), **options) for model in (plain, twin)]
    for _ in range(5):
        if shape is None:
            x = torch.from_numpy(rng.integers(0, 7, (2, 5)))
            target = x.roll(1).flatten()
        else:
            x = torch.from_numpy(rng.normal(size=shape).astype(np.float32))
            target = torch.from_numpy(rng.integers(0, 7, 8))
        losses = []
        for model, step in zip((plain, twin), steps, strict=True):
            step.zero_grad()
            y = model(x)
            loss = F.cross_entropy(y.flatten(0, 1) if shape is None else y, target)
            loss.backward()
            losses.append(loss.item())
            step.step()
        assert losses[1] == pytest.approx(losses[0], rel=2e-6)
    for one, other in zip(twin.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-6)
    restore(twin)
    assert type(twin) is type(plain)


def test_a_module_that_is_passed_may_be_part_of_one_with_code_of_its_own():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.out, self.pair = nn.LSTM(3, 4), nn.Linear(4, 2), nn.Bilinear(2, 2, 1)

        def forward(self, x):
            y = self.out(self.words(x)[0])
            return self.pair(y, y)

    torch.manual_seed(0)
    model, x = Tagger(), torch.randn(5, 2, 3)
    with pytest.raises(ValueError, match=r"module 'words' \(LSTM\) cannot be emulated"):
        emulate(model, NARROW, seed=0)
    passing = Policy([Rule("words", unsupported="pass"), Rule("pair", unsupported="pass"), ("*", NARROW)])
    twin = emulate(model, passing, seed=0)
    hidden = model.words(x)[0]
    assert torch.equal(twin.words(x)[0], hidden)
    expected = model.pair(*[emulate(model.out, NARROW, seed=0)(hidden)] * 2)
    assert torch.equal(twin(x), expected)  # the linear layer between them is emulated
    twin(x).sum().backward()
    assert sorted(emulation_state(twin)) == ["out"]
    restore(twin)
    assert type(twin.words) is nn.LSTM
