"""Hessian traces against exact Hessians, and losses of rounding."""

import numpy as np
import pytest
import torch
from torch import nn

from studies.allocation.sensitivity import (
    Trace,
    curvature_losses,
    hessian_traces,
    measured_losses,
    rounded_weights,
    with_bits,
    zero_bit_losses,
)


@pytest.fixture
def problem():
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    inputs, labels = torch.randn(40, 5), torch.randint(0, 3, (40,))
    return network, inputs, lambda outputs: nn.functional.cross_entropy(outputs, labels)


def exact_trace(network, inputs, loss, name):
    values = {key: p.detach() for key, p in network.named_parameters()}

    def of(weight):
        return loss(torch.func.functional_call(network, {**values, name: weight}, (inputs,)))

    hessian = torch.autograd.functional.hessian(of, values[name])
    size = values[name].numel()
    return float(hessian.reshape(size, size).trace())


def test_traces_agree_with_the_exact_hessian_within_their_errors(problem):
    network, inputs, loss = problem
    names = ["0.weight", "2.weight", "2.bias"]
    found = hessian_traces(network, inputs, loss, names, probes=600, seed=1)
    for name in names:
        exact = exact_trace(network, inputs, loss, name)
        assert abs(found[name].mean - exact) < 4 * found[name].error
        assert found[name].error < 0.1 * abs(exact) + 0.02


def test_of_a_diagonal_hessian_one_probe_is_exact():
    network = nn.Linear(3, 1, bias=False)
    inputs = torch.eye(3)
    found = hessian_traces(network, inputs, lambda y: (y**2).sum(), ["weight"], probes=2)
    assert found["weight"].mean == pytest.approx(6.0)
    assert found["weight"].error == pytest.approx(0.0, abs=1e-6)


def test_equal_seeds_give_equal_traces(problem):
    network, inputs, loss = problem
    first, second = (hessian_traces(network, inputs, loss, ["0.weight"], probes=5, seed=4) for _ in range(2))
    assert first == second


def test_weights_are_whole_steps_of_a_scale_with_the_largest_on_the_grid():
    weights = torch.tensor([0.9, -0.31, 0.0, 0.14])
    assert rounded_weights(weights, 3) == pytest.approx(torch.tensor([0.9, -0.3, 0.0, 0.0]), abs=1e-6)
    assert rounded_weights(torch.zeros(3), 4).tolist() == [0, 0, 0]


def test_curvature_is_exact_where_the_hessian_is_the_same_everywhere():
    # A quadratic loss with curvature 2 for each weight at its minimum: the growth is the squared error.
    torch.manual_seed(0)
    network = nn.Linear(8, 1, bias=False)
    wanted = network.weight.detach().clone()[0]
    inputs = torch.eye(8)

    def loss(outputs):
        return ((outputs[:, 0] - wanted) ** 2).sum()

    traces = hessian_traces(network, inputs, loss, ["weight"], probes=4)
    by_curvature = curvature_losses(network, traces, [2, 4, 6])
    measured = measured_losses(network, inputs, loss, ["weight"], [2, 4, 6])
    assert by_curvature == pytest.approx(measured, rel=1e-4)
    assert (np.diff(measured[0]) < 0).all()


def test_at_many_bits_water_fillings_loss_is_that_of_rounding():
    torch.manual_seed(1)
    network = nn.Linear(4000, 1, bias=False)
    traces = {"weight": Trace(4000.0, 0.0)}
    predicted = zero_bit_losses(network, traces)[0] * 4.0**-8
    assert predicted == pytest.approx(curvature_losses(network, traces, [8])[0, 0], rel=0.1)


def test_biases_and_other_layers_stay_as_they_are(problem):
    network, inputs, _ = problem
    assert torch.equal(with_bits(network, {}, inputs), network(inputs).detach())
    assert not torch.equal(with_bits(network, {"2.weight": 2}, inputs), network(inputs).detach())


def test_bad_arguments_are_refused_in_one_line(problem):
    network, inputs, loss = problem
    with pytest.raises(ValueError, match="probes must be at least 2, got 1"):
        hessian_traces(network, inputs, loss, ["0.weight"], probes=1)
    with pytest.raises(ValueError, match=r"names must be of parameters: 0.weight, .*; got 'x'"):
        hessian_traces(network, inputs, loss, ["x"])
    with pytest.raises(ValueError, match=r"bits must be in 2\.\.16, got 1"):
        rounded_weights(torch.ones(2), 1)
