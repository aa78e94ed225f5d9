"""How much a loss grows when the weights of one layer are rounded: by curvature, and measured.

References
----------
.. [HAWQ2] Z. Dong et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks", NeurIPS
   2020, arXiv 1911.03852: the mean eigenvalue of a layer's Hessian times the squared rounding error.
.. [Hutchinson90] M. Hutchinson, "A Stochastic Estimator of the Trace of the Influence Matrix for Laplacian
   Smoothing Splines", Communications in Statistics 19(2), 1990.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from numerics import FixedFormat, cast

Loss = Callable[[torch.Tensor], torch.Tensor]  #: scalar of the network's outputs


class Trace(NamedTuple):
    """Estimate of the trace of a Hessian block, and its standard error."""

    mean: float
    error: float


def hessian_traces(
    network: nn.Module,
    inputs: torch.Tensor,
    loss: Loss,
    names: Sequence[str],
    *,
    probes: int = 64,
    seed: int = 0,
) -> dict[str, Trace]:
    """Traces of the diagonal blocks of the loss's Hessian that belong to some parameters [Hutchinson90]_.

    The mean over random sign vectors v of ``v' H v``, by double backward passes: one pair for each probe, in
    which the signs of all parameters are drawn together; what they share has mean zero.

    Parameters
    ----------
    names
        Of parameters of the network.
    probes
        At least 2.

    Raises
    ------
    ValueError
        Fewer probes, or an unknown name.
    """
    if probes < 2:
        raise ValueError(f"probes must be at least 2, got {probes}")
    parameters = dict(network.named_parameters())
    for name in names:
        if name not in parameters:
            raise ValueError(f"names must be of parameters: {', '.join(parameters)}; got {name!r}")
    values = {name: p.detach().clone().requires_grad_(name in names) for name, p in parameters.items()}
    wanted = [values[name] for name in names]
    result = loss(torch.func.functional_call(network, values, (inputs,)))
    gradients = torch.autograd.grad(result, wanted, create_graph=True)
    generator = torch.Generator().manual_seed(seed)
    samples = np.empty((probes, len(names)))
    for k in range(probes):
        signs = [2.0 * torch.randint(0, 2, w.shape, generator=generator).to(w.dtype) - 1.0 for w in wanted]
        products = torch.autograd.grad(gradients, wanted, signs, retain_graph=True, materialize_grads=True)
        samples[k] = [float((v * h).sum()) for v, h in zip(signs, products, strict=True)]
    errors = samples.std(axis=0, ddof=1) / np.sqrt(probes)
    return {
        name: Trace(float(mean), float(error))
        for name, mean, error in zip(names, samples.mean(axis=0), errors, strict=True)
    }


def rounded_weights(weights: torch.Tensor, bits: int) -> torch.Tensor:
    """Weights in signed integers of some bits times one scale, with which the largest magnitude fits.

    Raises
    ------
    ValueError
        Fewer than 2 bits or more than 16.
    """
    if not 2 <= bits <= 16:
        raise ValueError(f"bits must be in 2..16, got {bits}")
    fmt = FixedFormat(int_bits=0, frac_bits=bits - 1)
    values = weights.detach().numpy().astype(np.float64)
    scale = float(np.abs(values).max()) / fmt.max or 1.0
    return torch.from_numpy(scale * cast(values / scale, fmt, overflow="saturate")).to(weights.dtype)


def curvature_losses(
    network: nn.Module, traces: dict[str, Trace], bits: Sequence[int]
) -> Float[np.ndarray, "g o"]:
    """Growth of the loss to second order, (g, o): half the mean curvature times the squared error [HAWQ2]_.

    Gradients are left out, for the network is trained, and curvatures below zero count as none.
    """
    rows = []
    for name, trace in traces.items():
        weights = network.get_parameter(name).detach()
        mean = max(trace.mean, 0.0) / weights.numel()
        rows.append(
            [0.5 * mean * float((rounded_weights(weights, b) - weights).square().sum()) for b in bits]
        )
    return np.array(rows)


def zero_bit_losses(network: nn.Module, traces: dict[str, Trace]) -> Float[np.ndarray, " g"]:
    """What water-filling calls sensitivity, (g,): the loss at 0 bits of uniform rounding errors.

    A step of ``2 s / 2**b``, s the largest magnitude, has an error of mean square ``(s**2 / 3) 4**-b``.
    """
    largest = [float(network.get_parameter(name).detach().abs().max()) for name in traces]
    means = [max(trace.mean, 0.0) for trace in traces.values()]
    return np.array([0.5 * mean * s**2 / 3 for mean, s in zip(means, largest, strict=True)])


def with_bits(network: nn.Module, bits: dict[str, int], inputs: torch.Tensor) -> torch.Tensor:
    """Outputs of the network with some parameters rounded, the others as they are."""
    values = {name: parameter.detach() for name, parameter in network.named_parameters()}
    values.update({name: rounded_weights(values[name], b) for name, b in bits.items()})
    with torch.no_grad():
        return torch.as_tensor(torch.func.functional_call(network, values, (inputs,)))


def measured_losses(
    network: nn.Module, inputs: torch.Tensor, loss: Loss, names: Sequence[str], bits: Sequence[int]
) -> Float[np.ndarray, "g o"]:
    """Growth of the loss where the weights of one layer are rounded, (g, o); at least 0."""
    exact = float(loss(with_bits(network, {}, inputs)))
    return np.array(
        [
            [max(float(loss(with_bits(network, {name: b}, inputs))) - exact, 0.0) for b in bits]
            for name in names
        ]
    )
