"""Graphs of the networks known by name, against published figures and formulas one can redo."""

import subprocess
import sys
from functools import cache

import pytest
import torch

from accel.accumulations import NetworkError
from accel.importers.torch_networks import GPT2, LlamaBlock, digits_cnn
from accel.networks import NETWORKS, named_workload, zoo
from accel.workload import Gemm, Role, Workload

# Parameters and millions of multiply-accumulates per sample, by those who publish or count them.
PUBLISHED = {
    "resnet18": (11_689_512, 1814.1),  # torchvision
    "resnet20": (269_722, 40.55),  # He et al., table 6: 0.27 M
    "resnet50": (25_557_032, 4089.2),  # torchvision
    "resnet8": (78_186, 12.50),  # MLPerf Tiny: 12.5 M
    "mobilenetv2": (3_504_872, 300.8),  # torchvision
    "vit-tiny": (5_717_416, 1253.7),  # timm: 5.72 M, 1.26 G with the products of attention
    "gpt2-small": (124_439_808, 12 * (12 * 768**2 + 2 * 1024 * 768) * 1024e-6 + 1024e-6 * 768 * 50257),
    "llama-block": (218_112_000, (218_103_808 + 2 * 8192 * 4096) * 8192e-6),
    "vit-block": (12 * 768**2 + 13 * 768, 197e-6 * (12 * 768**2 + 2 * 197 * 768)),
    "gpt2-block": (12 * 768**2 + 13 * 768, 1024e-6 * (12 * 768**2 + 2 * 1024 * 768)),
    "digits-cnn": (1898, (64 * 9 * 8 + 16 * 72 * 16 + 64 * 10) * 1e-6),
}


@cache
def workload(name, **options):
    """Graph of a network; exporting one takes a second."""
    return named_workload(name, **options)


def operators(found):
    return {operator.name: operator for operator in found.operators}


LARGE = ("resnet18", "resnet50", "mobilenetv2")


def test_every_network_has_published_figures():
    assert set(PUBLISHED) == set(NETWORKS)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in NETWORKS]
)
def test_parameters_and_multiply_accumulates_are_those_published(name):
    found = workload(name, fold_batch_norm=False)
    parameters, macs = PUBLISHED[name]
    assert found.name == name
    assert found.parameters == parameters
    assert found.macs / 1e6 == pytest.approx(macs, abs=0.051 if macs > 40 else 0.005)


def test_a_batch_scales_what_holds_it():
    one, four = workload("resnet8"), workload("resnet8", batch=4)
    assert (four.batch, four.macs, four.parameters) == (4, 4 * one.macs, one.parameters)
    assert four.tensors["input"].shape == (4, 3, 32, 32)
    assert four == one.with_batch(4)


def test_folded_normalisations_leave_weights_and_one_bias_per_channel():
    """78,186 without the 240 scales and 240 shifts: the convolutions have biases already."""
    folded, whole = workload("resnet8"), workload("resnet8", fold_batch_norm=False)
    assert folded.parameters == 78_186 - 2 * 240
    assert folded.macs == whole.macs
    kinds = [operator.kind for operator in whole.operators]
    assert kinds.count("batch_norm") == 7
    assert not any(operator.kind == "batch_norm" for operator in folded.operators)


@pytest.mark.slow
def test_resnet50_is_the_graph_of_the_onnx_zoo():
    ours, zoos = workload("resnet50", fold_batch_norm=True), workload("zoo:resnet50")
    gemms = [sorted((op.gemm.m, op.gemm.n, op.gemm.k) for op in found.gemms()) for found in (ours, zoos)]
    assert gemms[0] == gemms[1]
    # Both have one bias per channel for the 53 normalisations.
    assert ours.parameters == zoos.parameters == 25_557_032 - 26_560


def test_a_vision_transformer_attends_with_197_tokens():
    found = operators(workload("vit-tiny", fold_batch_norm=False))
    assert found["patch_embed.proj"].gemm == Gemm(m=196, n=192, k=768)
    assert found["blocks.3.attn.qkv"].gemm == Gemm(m=197, n=576, k=192)
    assert found["blocks.3.attn.matmul"].gemm == Gemm(m=197, n=197, k=64, count=3)
    assert found["blocks.3.attn.matmul_1"].gemm == Gemm(m=197, n=64, k=197, count=3)
    assert found["head"].gemm == Gemm(m=1, n=1000, k=192)


def test_tokens_are_indices_and_the_embedding_is_the_last_layer():
    found = workload("gpt2-small", fold_batch_norm=False)
    assert found.tensors["tokens"].role is Role.INDEX
    assert found.tensors["tokens"].bytes == 4 * 1024
    named = operators(found)
    table = named["wte"].inputs[0]
    assert named["lm_head"].inputs[1] == table
    assert found.tensors[table].shape == (50257, 768)


def test_a_prefill_is_as_long_as_one_asks():
    found = workload("llama-block", tokens=512, batch=2)
    assert found.macs == 2 * 512 * (218_103_808 + 2 * 512 * 4096)
    named = operators(found)
    assert named["mlp.gate_proj"].gemm == Gemm(m=1024, n=14336, k=4096)
    # Four heads share a key: their queries are rows of one product.
    assert named["self_attn.matmul"].gemm == Gemm(m=4 * 512, n=512, k=128, count=2 * 8)
    assert named["self_attn.matmul"].macs == 2 * 32 * 512 * 512 * 128


def test_a_decode_reads_the_weights_and_its_cache_once():
    found = workload("llama-block", context=4096)
    assert found.macs == 218_103_808 + 2 * 4096 * (4096 + 1)
    assert all(op.gemm.m == 1 for op in found.gemms() if op.kind == "linear")
    cache = [found.tensors[name] for name in found.inputs if name.startswith("past")]
    assert [(tensor.shape, tensor.role) for tensor in cache] == [((1, 8, 4096, 128), Role.INPUT)] * 2
    for tensor in cache:
        (reader,) = found.consumers[tensor.name]
        assert reader.inputs[1] == tensor.name
        assert reader.gemm.n * reader.gemm.k * reader.gemm.count == tensor.elements
    # The new key and value go out beside the result.
    assert [found.tensors[name].elements for name in found.outputs] == [4096, 1024, 1024]


def test_several_tokens_after_a_cache_are_causal_among_themselves():
    found = workload("gpt2-block", tokens=3, context=100)
    assert found.macs == 3 * (12 * 768**2 + 2 * 768 * 103)
    assert "where" in {operator.kind for operator in found.operators}


@pytest.mark.slow
def test_every_block_of_a_decoding_network_has_its_cache():
    found = workload("gpt2-small", context=1023)
    assert sum(name.startswith("past") for name in found.inputs) == 24
    # The one new value that a head weighs with one number is no matrix product.
    assert found.macs == 12 * (12 * 768**2 + 768 * (1024 + 1023)) + 768 * 50257


@pytest.mark.parametrize(
    ("make", "sizes"),
    [
        (lambda: GPT2(32, 4, 2, 50), (2, 4, 8)),
        (lambda: LlamaBlock(32, 4, 2, 48), (1, 2, 8)),
    ],
)
@pytest.mark.parametrize("tokens", [1, 3])
def test_decoding_computes_what_one_pass_over_all_positions_does(make, sizes, tokens):
    """The definitions themselves, on numbers: their cache must be what earlier positions left."""
    blocks, heads, size = sizes
    torch.manual_seed(0)
    network = make().double().eval()
    words = torch.randint(0, 50, (2, 9)) if blocks > 1 else torch.randn(2, 9, 32, dtype=torch.float64)
    empty = torch.zeros(2, heads, 0, size, dtype=torch.float64)
    whole = network(words)
    first, *past = network(words[:, : 9 - tokens], *[empty] * (2 * blocks))
    last, *_ = network(words[:, 9 - tokens :], *past)
    torch.testing.assert_close(torch.cat((first, last), 1), whole)


def test_the_digits_network_is_that_of_the_study():
    from studies.tasks.digits import digits_cnn as trained

    shapes = [
        {name: tuple(value.shape) for name, value in network.state_dict().items()}
        for network in (digits_cnn(), trained())
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", ["zoo:squeezenet", "zoo:shufflenet"])
def test_graphs_of_the_zoo_have_names_too(name):
    found = workload(name, batch=2)
    macs = {"zoo:squeezenet": 349.15, "zoo:shufflenet": 124.66}[name]
    assert (found.name, found.batch) == (name, 2)
    assert found.macs / 2e6 == pytest.approx(macs, abs=0.01)
    assert name in zoo()


@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet8", {}), ("resnet20", {"fold_batch_norm": False}), ("gpt2-block", {}), ("vit-block", {})],
)
def test_a_training_step_costs_about_three_passes(name, options):
    """Backward and weight gradient each repeat the products, but for the error of the data."""
    found = workload(name, **options)
    step = found.training()
    first = found.gemms()[0]
    spared = first.macs if found.inputs and first.inputs[0] in found.inputs else 0
    assert step.macs == pytest.approx(3 * found.macs - spared, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "restnet18",
            {},
            r"there is no network 'restnet18', known are resnet18, .*; did you mean resnet18\?",
        ),
        ("llama", {}, r"did you mean llama-block\?"),
        (
            "resnet18",
            {"tokens": 5},
            "tokens can be chosen of gpt2-small, gpt2-block, llama-block only, not of Res",
        ),
        ("vit-tiny", {"context": 5}, "context can be chosen of gpt2-small"),
        ("zoo:vgg19", {"context": 5}, "can be chosen of gpt2-small, .* only, not of zoo:vgg19"),
        ("gpt2-small", {"tokens": 1025}, "at most 1024 together for GPT-2 small, 1024 tokens, got 1025"),
        ("gpt2-small", {"tokens": 24, "context": 1001}, "at most 1024 together .* got 1025"),
        ("llama-block", {"tokens": 0}, "tokens must be at least 1, got 0"),
        ("llama-block", {"context": -1}, "context must be at least 1, got -1"),
        ("resnet20", {"batch": 0}, "batch must be at least 1, got 0"),
        ("zoo:vgg19", {"batch": 0}, "batch must be at least 1, got 0"),
    ],
)
def test_what_there_is_not_is_refused_in_one_line(name, options, message):
    with pytest.raises(NetworkError, match=message) as error:
        named_workload(name, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet8", {"batch": 1.5}, "batch must be a whole number, got 1.5"),
        ("resnet8", {"batch": True}, "batch must be a whole number, got True"),
        ("zoo:vgg19", {"batch": "2"}, "batch must be a whole number, got '2'"),
        ("gpt2-block", {"tokens": "x"}, "tokens must be a whole number, got 'x'"),
        ("gpt2-block", {"context": 8.0}, "context must be a whole number, got 8.0"),
    ],
)
def test_what_is_no_whole_number_is_refused_with_its_name(name, options, message):
    with pytest.raises(TypeError) as error:
        named_workload(name, **options)
    assert str(error.value) == message


@pytest.mark.parametrize("name", [None, 8, ["resnet8"]])
def test_a_network_is_named_by_text(name):
    with pytest.raises(NetworkError) as error:
        named_workload(name)
    assert str(error.value).startswith(f"there is no network {name!r}, known are resnet18, ")
    assert "\n" not in str(error.value)


def test_a_workload_is_found_by_name():
    assert Workload.named("digits-cnn", batch=3) == workload("digits-cnn", batch=3)


def test_the_package_loads_neither_pytorch_nor_onnx():
    code = "import sys, accel; print(sorted({'torch', 'onnx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
