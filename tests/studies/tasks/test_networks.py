"""The networks: as many parameters as counted by hand, causal, and able to learn."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from studies.tasks.networks import Transformer, cnn, mlp, resnet8


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def transformer(attention="sdpa", **options):
    sizes = {"context": 12, "width": 16, "layers": 2, "heads": 4} | options
    return Transformer(7, attention=attention, **sizes)


def test_a_perceptron_has_the_layers_that_its_sizes_say():
    network = mlp(784, [128], 10)
    assert parameters(network) == 784 * 128 + 128 + 128 * 10 + 10
    assert [name for name, _ in network.named_children()] == ["flatten", "fc1", "relu1", "fc2"]
    deep = mlp(6, [5, 4], 3)
    assert [tuple(p.shape) for p in deep.parameters()] == [(5, 6), (5,), (4, 5), (4,), (3, 4), (3,)]


def test_the_image_cnns_have_the_parameters_of_their_stages():
    small = cnn((1, 28, 28), [8, 16], 10, pool="mean")
    # 3 x 3 x 1 x 8 + 8, 3 x 3 x 8 x 16 + 16, and 16 x 7 x 7 to 10.
    assert parameters(small) == 80 + 1168 + 7850
    assert sum(isinstance(module, torch.nn.AvgPool2d) for module in small) == 2
    large = cnn((3, 32, 32), [16, 32, 64], 10, pool="mean")
    assert parameters(large) == 448 + 4640 + 18496 + 64 * 16 * 10 + 10
    assert large(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_mean_pooling_takes_the_mean_of_four_pixels():
    network = cnn((1, 2, 2), [1], 1, pool="mean")
    with torch.no_grad():
        network.conv1.weight.zero_()
        network.conv1.weight[0, 0, 1, 1] = 1.0
        network.conv1.bias.zero_()
        network.fc.weight.fill_(1.0)
        network.fc.bias.zero_()
        assert network(torch.tensor([[[[1.0, 2.0], [3.0, 8.0]]]])).item() == 3.5


def test_too_many_stages_for_an_image_are_refused():
    with pytest.raises(ValueError, match="at least 8 pixels high and wide for 3 stages, got 12 x 7"):
        cnn((1, 12, 7), [2, 2, 2], 10, pool="max")


def test_resnet8_has_the_parameters_of_the_published_network():
    # MLPerf Tiny's file holds 78,666 numbers, of which 2 x 240 are running means and variances.
    network = resnet8(3, 10, batch_norm=True, widths=(16, 32, 64))
    assert parameters(network) == 78_186
    running = sum(b.numel() for name, b in network.named_buffers() if "running" in name)
    assert parameters(network) + running == 78_666
    plain = resnet8(3, 10, batch_norm=False, widths=(16, 32, 64))
    assert parameters(plain) == 78_186 - 2 * 240
    assert not list(plain.buffers())


def test_resnet8_halves_the_image_where_the_width_changes():
    network = resnet8(3, 10, batch_norm=True, widths=(16, 32, 64))
    seen = {}
    for name, module in network.named_children():
        module.register_forward_hook(lambda _, __, y, name=name: seen.update({name: tuple(y.shape)}))
    network(torch.zeros(2, 3, 32, 32))
    assert seen["block1"] == (2, 16, 32, 32)
    assert seen["block2"] == (2, 32, 16, 16)
    assert seen["block3"] == (2, 64, 8, 8)
    assert seen["pool"] == (2, 64, 1, 1)


def test_resnet8_without_batch_norm_neither_explodes_nor_vanishes_at_the_start():
    network = resnet8(3, 10, batch_norm=False, widths=(16, 32, 64))
    seen = {}
    network.relu1.register_forward_hook(lambda _, __, y: seen.update(first=y.pow(2).mean()))
    network.block3.register_forward_hook(lambda _, __, y: seen.update(last=y.pow(2).mean()))
    with torch.no_grad():
        network(torch.randn(8, 3, 32, 32))
    assert 0.5 < float(seen["last"] / seen["first"]) < 8.0


def test_a_residual_block_adds_its_input():
    block = resnet8(3, 10, batch_norm=False, widths=(16, 32, 64)).block1
    with torch.no_grad():
        block.conv2.weight.zero_()
        block.conv2.bias.zero_()
        x = torch.randn(2, 16, 8, 8)
        assert torch.equal(block(x), x.clamp(min=0.0))


def test_a_transformer_has_the_parameters_of_its_blocks():
    width, layers, vocabulary, context = 16, 2, 7, 12
    block = 4 * (width**2 + width) + 2 * (4 * width**2) + 4 * width + width + 2 * 2 * width
    whole = layers * block + (vocabulary + context) * width + 2 * width + width * vocabulary + vocabulary
    assert parameters(transformer()) == whole


@pytest.mark.parametrize("attention", ["sdpa", "matmul"])
def test_a_later_character_does_not_change_earlier_outputs(attention):
    network = transformer(attention)
    before = torch.arange(12)[None] % 7
    for place in (0, 5, 11):
        after = before.clone()
        after[0, place] = (after[0, place] + 1) % 7
        with torch.no_grad():
            change = (network(after) - network(before)).abs().amax(2)[0]
        assert float(change[:place].max() if place else 0.0) == 0.0
        assert (change[place:] > 0.0).all()


def test_the_two_ways_to_write_attention_are_the_same_function():
    first, second = transformer("sdpa"), transformer("matmul")
    second.load_state_dict(first.state_dict())
    symbols = torch.randint(7, (3, 12))
    with torch.no_grad():
        torch.testing.assert_close(first(symbols), second(symbols), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(first(symbols[:, :5]), second(symbols[:, :5]), rtol=1e-5, atol=1e-6)


def test_attention_is_the_softmax_of_scaled_scores_over_the_past():
    network = transformer("matmul", heads=2).blocks[0].attention
    x = torch.randn(1, 4, 16)
    with torch.no_grad():
        found = network(x)[0].double().numpy()
    linear = {
        name: (getattr(network, name).weight.detach().double().numpy(), getattr(network, name).bias)
        for name in ("query", "key", "value", "output")
    }
    inputs = x[0].double().numpy()
    q, k, v = (
        inputs @ linear[name][0].T + linear[name][1].detach().double().numpy()
        for name in ("query", "key", "value")
    )
    mixed = np.zeros((4, 16))
    for head in (slice(0, 8), slice(8, 16)):
        for t in range(4):
            weights = np.exp([q[t, head] @ k[s, head] / math.sqrt(8) for s in range(t + 1)])
            mixed[t, head] = weights / weights.sum() @ v[: t + 1, head]
    wanted = mixed @ linear["output"][0].T + linear["output"][1].detach().double().numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-7)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="heads must divide the width 16, got 3"):
        transformer(heads=3)


def test_initial_weights_depend_on_the_global_generator_alone():
    for build in (transformer, lambda: resnet8(1, 4, batch_norm=False, widths=(4, 8))):
        drawn = []
        for seed in (3, 3, 4):
            torch.manual_seed(seed)
            drawn.append(torch.cat([p.detach().flatten() for p in build().parameters()]))
        assert torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: mlp(144, [32], 4), (1, 12, 12)),
        (lambda: cnn((3, 12, 12), [8, 16], 4, pool="mean"), (3, 12, 12)),
        (lambda: resnet8(3, 4, batch_norm=True, widths=(4, 8, 16)), (3, 12, 12)),
        (lambda: resnet8(3, 4, batch_norm=False, widths=(4, 8, 16)), (3, 12, 12)),
    ],
)
def test_every_image_network_learns_a_batch_by_heart(build, shape):
    rows, columns = torch.arange(12)[:, None] % 4 < 2, torch.arange(12)[None, :] % 4 < 2
    textures = torch.stack([rows | columns, rows & columns, rows.expand(12, 12), columns.expand(12, 12)])
    labels = torch.arange(16) % 4
    inputs = textures[labels, None].float() + 0.1 * torch.rand(16, *shape)
    network = build()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        outputs = network(inputs)
        assert outputs.dtype == torch.float32
        loss = functional.cross_entropy(outputs, labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1.0
    assert losses[-1] < 0.5 * losses[0]
