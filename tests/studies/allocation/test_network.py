"""Networks whose tensors are held in formats, and the proven optimum."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from numerics import cast, parse_format
from studies.allocation.groups import traffic_bytes
from studies.allocation.network import HeldNetwork, trained
from studies.tasks import Data


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(300, 1, 4, 4)).astype(np.float32)
    labels = (inputs[:, 0, :2].sum(axis=(1, 2)) > inputs[:, 0, 2:].sum(axis=(1, 2))).astype(np.int64)
    labels += 2 * (inputs[:, 0, :, 0].sum(axis=1) > 0)
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels)
    return Data(train_inputs=x[:200], train_labels=y[:200], test_inputs=x[200:], test_labels=y[200:])


def small():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 4, bias=False))


@pytest.fixture(scope="module")
def network(data):
    return trained(small, data, seed=1, epochs=60)


def test_groups_are_input_parameters_and_what_is_stored(network, data):
    groups = {group.name: (group.elements, group.accesses) for group in HeldNetwork(network, data).groups}
    assert groups == {
        "input": (16, 1),
        "1.weight": (96, 1),
        "1.bias": (6, 1),
        "2": (6, 2),
        "3.weight": (24, 1),
        "3": (4, 1),
    }


def to_format(x, fmt, largest):
    """Rounded in the largest power of two with which `largest` fits; by a search, not by exponents."""
    power = max(n for n in range(-60, 61) if largest * 2.0**n <= parse_format(fmt).max)
    return cast(x.astype(np.float64) * 2.0**power, fmt, overflow="saturate") / 2.0**power


def test_accuracy_is_that_of_rounding_each_tensor_where_it_is_stored(network, data):
    formats = {
        "input": "e3m2",
        "1.weight": "e2m1",
        "1.bias": "e4m3fn",
        "2": "e2m1",
        "3.weight": "e3m2",
        "3": "e2m1",
    }
    p = {name: value.numpy() for name, value in network.named_parameters()}
    train = data.train_inputs.numpy().reshape(200, 16)
    hidden = np.maximum(train @ p["1.weight"].T + p["1.bias"], 0)
    largest = {"input": np.abs(train).max(), "2": hidden.max(), "3": np.abs(hidden @ p["3.weight"].T).max()}
    w = {name: to_format(value, formats[name], np.abs(value).max()) for name, value in p.items()}
    x = to_format(data.test_inputs.numpy().reshape(100, 16), "e3m2", largest["input"])
    h = to_format(np.maximum(x @ w["1.weight"].T + w["1.bias"], 0), "e2m1", largest["2"])
    logits = to_format(h @ w["3.weight"].T, "e2m1", largest["3"])
    wanted = 100 * (logits.argmax(1) == data.test_labels.numpy()).mean()
    assert HeldNetwork(network, data).accuracy(formats) == pytest.approx(wanted, abs=1.01)  # ties of float32


@pytest.mark.parametrize("lost", [0.0, 3.0, 10.0])
def test_the_proven_optimum_is_that_of_all_assignments(network, data, lost):
    held = HeldNetwork(network, data)
    formats = ("bfloat16", "e3m2", "e2m1")
    names = [group.name for group in held.groups]
    wanted = held.accuracy(dict.fromkeys(names, "bfloat16")) - lost
    every = (dict(zip(names, chosen, strict=True)) for chosen in product(formats, repeat=len(names)))
    best = min(traffic_bytes(held.groups, a) for a in every if held.accuracy(a) >= wanted)
    assignment, moved = held.cheapest(formats, at_least=wanted)
    assert moved == best == traffic_bytes(held.groups, assignment)
    assert held.accuracy(assignment) >= wanted
    assert held.cheapest(formats, at_least=wanted, below=best) is None
    assert held.cheapest(formats, at_least=100.1) is None


def test_training_is_deterministic_and_learns(network, data):
    again = trained(small, data, seed=1, epochs=60)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    assert HeldNetwork(network, data).accuracy(None) > 60


def test_other_modules_and_formats_are_refused(data, network):
    with pytest.raises(TypeError, match=r"network must be an nn.Sequential, got Linear"):
        HeldNetwork(nn.Linear(1, 1), data)
    with pytest.raises(ValueError, match="format of input must be a float format, got mxfp4"):
        HeldNetwork(network, data).accuracy(dict.fromkeys(["input"], "mxfp4"))
