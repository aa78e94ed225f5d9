"""Densities and operands of real layers against sums written out."""

import numpy as np
import pytest
import torch
from torch import nn

from accel.importers.torch_products import read_torch
from studies.predict.measure import in_batches, measured_densities, observe, read_batches, real_operands


def sparse(generator, *shape):
    return torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < 0.5)


def tap(position, offset, size, stride, padding, dilation):
    at = position * stride + offset * dilation - padding
    return at if 0 <= at < size else None


def conv_products(layer, x, g):
    """(present, whole) of the three products of a convolution, one multiplication after the other."""
    w = layer.weight.detach()
    (s1, s2), (p1, p2), (d1, d2) = layer.stride, layer.padding, layer.dilation
    per_in, per_out = w.shape[1], w.shape[0] // layer.groups
    present = np.zeros(3)
    for n in range(x.shape[0]):
        for o in range(w.shape[0]):
            for i in range(per_in):
                c = o // per_out * per_in + i
                for r in range(g.shape[2]):
                    for q in range(g.shape[3]):
                        for a in range(w.shape[2]):
                            for b in range(w.shape[3]):
                                row = tap(r, a, x.shape[2], s1, p1, d1)
                                column = tap(q, b, x.shape[3], s2, p2, d2)
                                if row is None or column is None:
                                    continue
                                factors = bool(x[n, c, row, column]), bool(w[o, i, a, b]), bool(g[n, o, r, q])
                                present += [
                                    factors[0] and factors[1],
                                    factors[1] and factors[2],
                                    factors[0] and factors[2],
                                ]
    window = w.shape[2] * w.shape[3]
    whole = np.array([g.numel() * per_in * window, x.numel() * per_out * window, g.numel() * per_in * window])
    return present, whole


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 1},
        {"stride": 2, "padding": 1},
        {"dilation": 2, "padding": 2, "groups": 2},
        {"stride": (2, 1), "groups": 4},
    ],
)
def test_densities_and_operands_of_a_convolution_are_those_written_out(options):
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(4, 8, 3, bias=False, **options)
    with torch.no_grad():
        layer.weight.mul_(torch.rand(layer.weight.shape, generator=generator) < 0.7)
    # The input needs an error as well, so an identity of 1 x 1 comes first.
    net = nn.Sequential(nn.Conv2d(4, 4, 1, groups=4, bias=False), layer)
    nn.init.ones_(net[0].weight)
    x = sparse(generator, 2, 4, 6, 5)
    target = net(x).detach() * 0.0
    network = read_torch(net, x, batch=2)
    densities, notes = measured_densities(net, network, [(x, target)])
    assert not notes
    seen = dict(observe(net, [(x, target)]))["1"]
    present, whole = conv_products(layer, x, seen.errors)
    found = [densities["1", product] for product in ("forward", "backward", "gradient")]
    np.testing.assert_allclose(found, present / whole, rtol=1e-9)

    rng = np.random.default_rng(0)
    y = layer(x)
    leaf = x.clone().requires_grad_()
    input_error, weight_error = torch.autograd.grad(layer(leaf), (leaf, layer.weight), seen.errors)
    outputs, inputs = 8 // layer.groups, 4 // layer.groups
    expected = {
        "forward": y[:, :outputs].detach().permute(0, 2, 3, 1).reshape(-1, outputs),
        "backward": input_error[:, :inputs].permute(0, 2, 3, 1).reshape(-1, inputs),
        "gradient": weight_error[:outputs].reshape(outputs, -1),
    }
    lengths = {"forward": 9 * inputs, "backward": 9 * outputs, "gradient": y[:, 0].numel()}
    for product, values in expected.items():
        a, b = real_operands(seen, product, 10**6, 10**6, rng)
        assert a.shape[1] == b.shape[0] == lengths[product]
        # All rows and columns, in some order: the same numbers.
        np.testing.assert_allclose(np.sort((a @ b).ravel()), np.sort(values.numpy().ravel()), atol=1e-5)


def test_densities_and_operands_of_a_linear_layer():
    generator = torch.Generator().manual_seed(1)
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    x, labels = sparse(generator, 7, 6), torch.arange(7) % 3
    densities, _ = measured_densities(net, read_torch(net, x, batch=7), [(x, labels)])
    hidden = torch.relu(net[0](x)).detach()
    assert densities["2", "forward"] == pytest.approx(float((hidden != 0).double().mean()))
    assert densities["2", "backward"] == 1.0
    assert densities["0", "forward"] == pytest.approx(float((x != 0).double().mean()))
    seen = dict(observe(net, [(x, labels)]))
    errors = seen["0"].errors
    pairs = (errors != 0).double().T @ (x != 0).double()
    assert densities["0", "gradient"] == pytest.approx(float(pairs.sum()) / (7 * 6 * 5))
    a, b = real_operands(seen["2"], "gradient", 2, 4, np.random.default_rng(0))
    assert a.shape == (2, 7)
    assert b.shape == (7, 4)
    a, b = real_operands(seen["2"], "backward", 100, 100, np.random.default_rng(0))
    np.testing.assert_allclose(
        np.sort((a @ b).ravel()), np.sort((seen["2"].errors @ net[2].weight.detach()).ravel()), atol=1e-6
    )


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.fc(torch.relu(self.fc(x))))


def test_a_module_is_left_as_it_was_and_a_second_use_is_another_layer():
    net = Twice().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    network = read_torch(net, x, batch=5)
    densities, notes = measured_densities(net, network, [(x, None), (x + 1, None)])
    assert {layer for layer, _ in densities} == {row.layer for row in network.products}
    assert not notes
    assert not net.training
    assert all(parameter.grad is None for parameter in net.parameters())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    with pytest.raises(ValueError, match=r"the module does not run on data of shape \(2, 9\)"):
        measured_densities(net, network, [(torch.ones(2, 9), None)])
    assert torch.equal(net.norm.running_mean, before["norm.running_mean"])


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.q = nn.Linear(4, 4)

    def forward(self, x):
        return self.q(x) @ x.transpose(1, 2)


def test_products_that_are_no_modules_are_named():
    net, x = Attends(), torch.ones(2, 3, 4)
    densities, notes = measured_densities(net, read_torch(net, x, batch=2), [(x, None)])
    assert ("q", "forward") in densities
    assert len(notes) == 1
    assert "no modules of their own" in notes[0]
    assert real_operands(dict(observe(net, [(x, None)]))["q"], "forward", 2, 2, np.random.default_rng(0))


def test_all_zero_products_are_named():
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 2))
    nn.init.constant_(net[0].weight, -1.0)
    densities, notes = measured_densities(
        net, read_torch(net, torch.ones(4, 3), batch=4), [(torch.ones(4, 3), None)]
    )
    assert ("2", "forward") not in densities
    assert "2: all forward products were zero; the density is taken as 1" in notes


def test_batches_from_files(tmp_path):
    inputs, labels = np.arange(20.0).reshape(10, 2), np.arange(10)
    np.save(tmp_path / "x.npy", inputs)
    np.savez(tmp_path / "x.npz", inputs=inputs, labels=labels)
    batches = read_batches(tmp_path / "x.npz", 4, 2)
    assert [len(x) for x, _ in batches] == [4, 4]
    assert batches[1][0].dtype == torch.float32
    assert batches[1][1].tolist() == [4, 5, 6, 7]
    (only,) = read_batches(tmp_path / "x.npy", 100, 3)
    assert only[1] is None
    assert len(only[0]) == 10
    assert [len(x) for x, _ in in_batches(torch.ones(5, 1), None, 2, 9)] == [2, 2, 1]
    np.savez(tmp_path / "y.npz", data=inputs)
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "few.npz", inputs=inputs, labels=labels[:3])
    np.save(tmp_path / "none.npy", np.empty((0, 3)))
    for name, message in (
        ("y.npz", "data must hold an array called inputs, got data"),
        ("text.npz", "data must be a .npy or .npz file of numbers"),
        ("few.npz", "10 inputs have 3 labels"),
        ("none.npy", "inputs must be numbers with samples along the first axis"),
    ):
        with pytest.raises(ValueError, match=message):
            read_batches(tmp_path / name, 4, 2)
