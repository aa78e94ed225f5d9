"""Configurations of training numerics, the memory that each takes, and the error after one emulated run.

References
----------
.. [Yang21] C. Yang et al., "How Low Can We Go: Trading Memory for Error in Low-Precision Training",
   arXiv 2106.09686.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from numerics import FloatFormat
from studies.accuracy.peppp.tasks import Split, Task

if TYPE_CHECKING:
    from torch import nn

BATCH = 32
MOMENTUM = 0.9
LOSS_SCALE = 1000.0
LEARNING_RATE = 0.1
STEPS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Training numerics: a column of the run table.

    Attributes
    ----------
    operand
        Format, and scaling, of weights, activations and errors where they enter products.
    accumulator
        Of all three products.
    update
        Format and rounding of master weights, momenta and of every operation of the update; weight
        gradients are handed over in this format.
    """

    operand: str
    accumulator: str
    update: str

    @property
    def operand_bits(self) -> int:
        """Bits of a weight, an activation or an error in a product."""
        return FloatFormat.parse(self.operand.split()[0]).bits

    @property
    def update_bits(self) -> int:
        """Bits of a master weight, a momentum or a weight gradient."""
        return FloatFormat.parse(self.update.split()[0]).bits


OPERANDS = ("e2m1", "e2m1 scaling=tensor", "e3m1", "e3m2", "e4m1", "e4m3fn", "e5m2", "e6m9")
ACCUMULATORS = ("e6m9 chunk=16", "e6m3 chunk=16", "e6m2")
UPDATES = ("e6m9 rounding=stochastic", "e6m4 rounding=stochastic", "e6m3")

#: Columns of the run table.
CONFIGURATIONS: tuple[Configuration, ...] = tuple(
    Configuration(operand=operand, accumulator=accumulator, update=update)
    for operand, accumulator, update in product(OPERANDS, ACCUMULATORS, UPDATES)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What a network holds while it is trained.

    Attributes
    ----------
    parameters
        Weights and biases.
    activations
        Numbers that the inputs of all layers with weights have together, for one sample: what is kept for
        the gradients.
    errors
        Numbers of the largest output of a layer, for one sample: the error that is under way.
    """

    parameters: int
    activations: int
    errors: int


def sizes(task: Task, split: Split) -> Sizes:
    """Count what the network of a task holds, by one pass of one sample."""
    import torch
    from torch import nn

    network = _network(task, split, seed=0)
    inputs: list[int] = []
    outputs: list[int] = []

    def count(_: nn.Module, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
        inputs.append(given[0].numel())
        outputs.append(result.numel())

    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.from_numpy(split.train_inputs[:1]))
    return Sizes(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        activations=sum(inputs),
        errors=max(outputs),
    )


def memory_bytes(configuration: Configuration, held: Sizes, *, batch: int = BATCH) -> float:
    """Memory of training: weights, activations, errors and optimizer, as [Yang21]_ adds them up.

    With P parameters, A kept activations and E live errors per sample, operands of a bits and updates of u
    bits: ``(P (a + 3 u) + batch (A + E) a) / 8``, namely P operands, P master weights, P momenta, P weight
    gradients, and the operands that each sample needs. Registers of accumulators are no memory.
    """
    a, u = configuration.operand_bits, configuration.update_bits
    return (held.parameters * (a + 3 * u) + batch * (held.activations + held.errors) * a) / 8


def full_precision_error(task: Task, split: Split, *, seed: int) -> float:
    """Test error of the twin that is trained in float32."""
    return _test_error(task, split, None, seed)


def emulated_error(task: Task, split: Split, configuration: Configuration, *, seed: int) -> float:
    """Test error after one training run with bit-true emulated numerics.

    Stochastic gradient descent with momentum and a constant loss scale; a step whose gradients are not
    finite is left out. Initial weights and the order of the data depend on `seed` alone. The test uses the
    same arithmetic. A sample whose outputs are not all finite counts as wrong.
    """
    return _test_error(task, split, configuration, seed)


def _network(task: Task, split: Split, seed: int) -> nn.Module:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return task.network(split.classes, int(np.prod(split.train_inputs.shape[1:])))


def _test_error(task: Task, split: Split, configuration: Configuration | None, seed: int) -> float:
    import torch
    from torch.nn.functional import cross_entropy

    from numerics.torch import LayerPolicy, LossScaler, LowPrecision, UpdatePolicy, emulate

    network = _network(task, split, seed)
    sgd = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    optimizer: torch.optim.Optimizer = sgd
    if configuration is not None:
        update = UpdatePolicy.parse(configuration.update)
        layers = LayerPolicy.uniform(
            configuration.operand, configuration.accumulator, weight_gradient=update.format
        )
        emulate(network, layers, seed=seed, inplace=True)
        optimizer = LowPrecision(sgd, format=update.format, rounding=update.rounding, seed=seed)
    scaler = LossScaler(LOSS_SCALE)
    inputs, labels = torch.from_numpy(split.train_inputs), torch.from_numpy(split.train_labels)
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(STEPS):
        if len(order) < BATCH:
            order = torch.randperm(len(labels), generator=generator)
        chosen, order = order[:BATCH], order[BATCH:]
        optimizer.zero_grad()
        scaler.backward(cross_entropy(network(inputs[chosen]), labels[chosen]))
        scaler.step(optimizer)
    with torch.no_grad():
        outputs = network(torch.from_numpy(split.test_inputs)).numpy()
    right = np.isfinite(outputs).all(axis=1) & (outputs.argmax(axis=1) == split.test_labels)
    return 1.0 - float(right.mean())
