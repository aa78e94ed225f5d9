"""Loss and metric of a network, measured without a trace in its training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from studies.tasks import Data, Task

_SMALLEST_PART = 256  # samples that go through the network at once, at least
_SAMPLES_SEED = 0  # of the training samples that are evaluated, the same for every run


def evaluated_samples(count: int, wanted: int | None) -> torch.Tensor:
    """Places of `wanted` of `count` training samples, all if ``None``: the same ones in every run."""
    if wanted is None:
        return torch.arange(count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(_SAMPLES_SEED))
    return order[:wanted]


@contextlib.contextmanager
def undisturbed(network: torch.nn.Module) -> Iterator[None]:
    """Evaluate without a trace: training draws the same random numbers afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    # Emulated layers take a pass for inference, with random numbers of its own, if no gradient is wanted.
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode


def _parts(samples: torch.Tensor, batch: int) -> tuple[torch.Tensor, ...]:
    return torch.split(samples, max(batch, _SMALLEST_PART))


def mean_loss(
    network: torch.nn.Module, task: Task, data: Data, samples: torch.Tensor, *, batch: int
) -> float:
    """Mean loss over training samples, by the network's own arithmetic."""
    total = 0.0
    with undisturbed(network):
        for part in _parts(samples, batch):
            loss = task.loss(network(data.train_inputs[part]), data.train_labels[part])
            total += float(loss.item()) * len(part)
    return total / len(samples)


def metric_of(network: torch.nn.Module, task: Task, data: Data, *, batch: int) -> float:
    """The task's metric over the whole test set, by the network's own arithmetic."""
    parts = _parts(torch.arange(len(data.test_inputs)), batch)
    with undisturbed(network):
        return task.metric.mean((network(data.test_inputs[part]), data.test_labels[part]) for part in parts)
