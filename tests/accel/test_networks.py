"""Networks known by name, against the figures that are published of them."""

import subprocess
import sys
from functools import cache

import pytest

from accel.accumulations import NetworkError
from accel.networks import NETWORKS, named_products, zoo

PARAMETERS = {
    "resnet18": 11_689_512,  # torchvision
    "resnet20": 269_722,  # 0.27 M in He et al., table 6
    "resnet50": 25_557_032,  # torchvision
    "resnet8": 78_186,  # 78,666 of MLPerf Tiny with the means and variances of 240 channels
    "digits-cnn": 8 * 9 + 8 + 16 * 72 + 16 + 64 * 10 + 10,
    "mobilenetv2": 3_504_872,  # torchvision
    "vit-tiny": 5_717_416,  # timm, vit_tiny_patch16_224
    "vit-block": 12 * 768**2 + 13 * 768,  # 85,054,464 of the 86 M of ViT-B are twelve of them
    "gpt2-small": 124_439_808,  # Hugging Face
    "gpt2-block": 12 * 768**2 + 13 * 768,
    "llama-block": 218_112_000,  # (8030261248 - 2 x 128256 x 4096 - 4096) / 32, Meta's Llama 3 8B
}

# Millions of multiply-accumulates per sample, by those who publish the networks or count them.
MACS = {
    "resnet18": 1814.1,
    "resnet20": 40.55,
    "resnet50": 4089.2,
    "resnet8": 12.5,
    "mobilenetv2": 300.8,
    "zoo:resnet50": 4089.2,
    "zoo:vgg19": 19632.1,
    "zoo:densenet121": 2834.2,
    "zoo:squeezenet": 349.2,
}


@cache
def network(name):
    """Network for the batch of the paper; exporting one takes a second."""
    return named_products(name, 256)


def lengths(row):
    return row.forward, row.backward, row.gradient


def named(found):
    return {row.layer: lengths(row) for row in found.products}


def test_every_network_has_a_published_count():
    assert set(PARAMETERS) == set(NETWORKS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_published(name):
    module = NETWORKS[name].build()
    assert sum(parameter.numel() for parameter in module.parameters()) == PARAMETERS[name]
    assert {parameter.device.type for parameter in module.parameters()} == {"meta"}
    assert NETWORKS[name].title


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "resnet50" else ()) for name in MACS]
)
def test_multiply_accumulates_are_those_published(name):
    assert network(name).name == name
    assert network(name).macs / 256e6 == pytest.approx(MACS[name], abs=0.051)


def test_resnet18_has_the_lengths_of_the_paper():
    """Sakr et al., table 1: 576 and 4608 forward, 3211264 for the gradient of the first layer."""
    resnet18 = {row.layer: row for row in network("resnet18").products}
    assert lengths(resnet18["conv1"]) == (147, None, 256 * 112 * 112)
    assert 256 * 112 * 112 == 3211264
    for block in ("layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer1.1.conv2"):
        assert lengths(resnet18[block]) == (576, 576, 256 * 56 * 56)
    assert lengths(resnet18["layer4.1.conv2"]) == (4608, 4608, 256 * 7 * 7)
    assert lengths(resnet18["layer2.0.conv1"]) == (576, 1152, 256 * 28 * 28)
    assert lengths(resnet18["layer2.0.downsample.0"]) == (64, 128, 256 * 28 * 28)
    assert lengths(resnet18["fc"]) == (512, 1000, 256)
    assert len(resnet18) == 21
    assert resnet18["layer2.0.conv1"].notes == (
        "its stride leaves at most 512 products of a backward sum that are not 0",
    )


def test_a_depthwise_convolution_sums_over_its_window_only():
    rows = {row.layer: row for row in network("mobilenetv2").products}
    depthwise = rows["features.2.conv.1.0"]
    assert (depthwise.operator, depthwise.count) == ("depthwise conv", 96)
    assert lengths(depthwise) == (9, 9, 256 * 56 * 56)
    assert lengths(rows["classifier.1"]) == (1280, 1000, 256)


def test_a_vision_transformer_has_197_tokens():
    rows = named(named_products("vit-tiny", 32))
    assert rows["patch_embed.proj"] == (768, None, 32 * 196)
    assert rows["blocks.0.attn.qkv"] == (192, 576, 32 * 197)
    assert rows["blocks.11.attn QK^T"] == (64, 197, 197)
    assert rows["blocks.11.attn PV"] == (197, 64, 197)
    assert rows["blocks.5.mlp.fc2"] == (768, 192, 32 * 197)
    assert rows["head"] == (192, 1000, 32)
    assert len(rows) == 1 + 12 * 6 + 1


def test_gpt2_names_its_tied_embedding():
    found = named_products("gpt2-small", 8)
    head = found.products[-1]
    assert (head.layer, lengths(head)) == ("lm_head", (768, 50257, 8 * 1024))
    assert head.notes == (
        "embedding wte reads the same table: 8192 lookups add to its gradient by scatter-add",
    )
    rows = named(found)
    assert rows["h.0.attn.c_attn"] == (768, 2304, 8192)
    assert rows["h.0.attn PV"] == (1024, 64, 1024)
    assert found.notes == ()


def test_the_heads_of_a_llama_share_the_gradient_of_a_key():
    rows = named(named_products("llama-block", 1))
    assert rows["self_attn QK^T"] == (128, 8192, 4 * 8192)
    assert rows["self_attn.k_proj"] == (4096, 1024, 8192)
    assert rows["mlp.down_proj"] == (14336, 4096, 8192)


@pytest.mark.parametrize(
    ("name", "place", "operator", "expected"),
    [
        # AlexNet 224 x 224: 11 x 11 stride 4 (54 pixels), then 5 x 5 in two groups of 48 (26 pixels).
        ("bvlc_alexnet", 0, "conv", (363, None, 54 * 54)),
        ("bvlc_alexnet", 1, "grouped conv", (25 * 48, 25 * 128, 26 * 26)),
        ("bvlc_alexnet", 3, "grouped conv", (9 * 192, 9 * 192, 12 * 12)),
        ("bvlc_alexnet", 5, "linear", (9216, 4096, 1)),
        ("resnet50", 0, "conv", (147, None, 112 * 112)),
        ("resnet50", 2, "conv", (576, 576, 56 * 56)),
        ("resnet50", -1, "linear", (2048, 1000, 1)),
        ("vgg19", 1, "conv", (576, 576, 224 * 224)),
        ("vgg19", 15, "conv", (4608, 4608, 14 * 14)),
        ("vgg19", 16, "linear", (25088, 4096, 1)),
        ("shufflenet", 1, "grouped conv", (24 // 4, 112 // 4, 56 * 56)),
        ("shufflenet", 2, "depthwise conv", (9, 9, 28 * 28)),
        ("densenet121", 2, "conv", (9 * 128, 9 * 32, 56 * 56)),
        ("inception_v1", 2, "conv", (576, 9 * 192, 55 * 55)),
        ("zfnet512", 1, "conv", (25 * 96, 25 * 256, 25 * 25)),
    ],
)
def test_light_graphs_by_hand(name, place, operator, expected):
    found = network(f"zoo:{name}").products[place]
    *sums, pixels = expected
    assert (found.operator, *lengths(found)) == (operator, *sums, 256 * pixels)


def test_every_light_graph_goes_through():
    graphs = zoo()
    assert len(graphs) == 9
    for name in graphs:
        found = named_products(name, 16)
        assert found.products
        assert found.notes == ("the batch is 1 in the file: lengths are rescaled to 16",)
        assert not any(row.gradient % 16 for row in found.products)
        assert [row.backward is None for row in found.products].index(False) == 1


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("vgg19", "zoo:vgg19"),
        ("gpt2", "gpt2-small"),
        ("zoo:alexnet", "zoo:bvlc_alexnet"),
        ("restnet18", "resnet18"),
    ],
)
def test_an_unknown_name_lists_those_there_are(name, meant):
    with pytest.raises(NetworkError) as error:
        named_products(name)
    text = str(error.value)
    assert text.startswith(f"there is no network {name!r}, known are resnet18, resnet20, ")
    assert text.endswith(f"zoo:zfnet512; did you mean {meant}?")
    assert "\n" not in text


def test_a_name_like_no_other_suggests_none():
    with pytest.raises(NetworkError, match=r"zoo:zfnet512$"):
        named_products("x/y")


def test_a_batch_must_be_positive():
    for name in ("resnet20", "zoo:vgg19"):
        with pytest.raises(NetworkError, match="batch must be at least 1, got 0"):
            named_products(name, 0)
        with pytest.raises(TypeError, match=r"batch must be a whole number, got 1\.5"):
            named_products(name, 1.5)


def test_the_list_of_names_loads_neither_pytorch_nor_onnx():
    code = "import sys, accel.networks; print(sorted({'torch', 'onnx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
