"""Train a task's network under a numerics policy, and measure what came out."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from numerics import FloatFormat, Rounding
from studies.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from numerics.torch import LayerPolicy


class DivergedError(Exception):
    """The training loss is not a number: the numerics broke the training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A training run: stochastic gradient descent with momentum and constant loss scaling.

    Attributes
    ----------
    task
        Key of `studies.tasks.TASKS`.
    batch, steps
        Samples per step, of each epoch's permutation; an incomplete last batch is left out.
    """

    task: str
    batch: int
    steps: int
    learning_rate: float
    momentum: float
    loss_scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """Arithmetic of a run: formats and accumulators of the products, format of the weight update."""

    policy: LayerPolicy
    update_format: FloatFormat
    update_rounding: Rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run measured.

    Attributes
    ----------
    training_loss
        Mean cross-entropy over the whole training set after the last step.
    test_accuracy
        Share of the test set classified correctly.
    skipped_steps
        Steps left out because a scaled gradient overflowed.
    """

    training_loss: float
    test_accuracy: float
    skipped_steps: int


def train(recipe: Recipe, numerics: Numerics | None, *, seed: int) -> Outcome:
    """Train from scratch, deterministically.

    Initial weights and the order of the data depend on `seed` alone, so that runs under different
    numerics differ by their arithmetic only. The final measurements use the same arithmetic.

    Parameters
    ----------
    numerics
        ``None`` trains the full-precision twin in float32.

    Raises
    ------
    DivergedError
        The final training loss is not finite.
    ValueError
        The batch is larger than the training set.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from numerics.torch import LossScaler, LowPrecision, emulate

    task = TASKS[recipe.task]
    data = task.load()
    count = len(data.train_labels)
    if recipe.batch > count:
        raise ValueError(f"batch must be at most {count}, the size of the training set, got {recipe.batch}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = task.network()
    sgd = torch.optim.SGD(network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum)
    optimizer: LowPrecision | torch.optim.SGD = sgd
    if numerics is not None:
        emulate(network, numerics.policy, seed=seed, inplace=True)
        optimizer = LowPrecision(
            sgd, format=numerics.update_format, rounding=numerics.update_rounding, seed=seed
        )
    scaler = LossScaler(recipe.loss_scale)
    for chosen in _batches(count, recipe, seed):
        optimizer.zero_grad()
        scaler.backward(cross_entropy(network(data.train_inputs[chosen]), data.train_labels[chosen]))
        scaler.step(optimizer)
    with torch.no_grad():
        loss = cross_entropy(network(data.train_inputs), data.train_labels).item()
        right = network(data.test_inputs).argmax(1) == data.test_labels
    if not isfinite(loss):
        raise DivergedError(f"the training loss is {loss} after {recipe.steps} steps")
    return Outcome(
        training_loss=loss, test_accuracy=right.double().mean().item(), skipped_steps=scaler.skipped
    )


def _batches(count: int, recipe: Recipe, seed: int) -> Iterator[torch.Tensor]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(recipe.steps):
        if len(order) < recipe.batch:
            order = torch.randperm(count, generator=generator)
        yield order[: recipe.batch]
        order = order[recipe.batch :]
