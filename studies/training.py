"""Train a task's network under a numerics policy, and measure what came out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING

from numerics import FloatFormat, Rounding
from studies.precision.optimizer import Optimizer
from studies.tasks import Data, Task, TaskTable, build_task, table_of

if TYPE_CHECKING:
    from numerics.torch import LayerPolicy


class DivergedError(Exception):
    """The training loss is not a number: the numerics broke the training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A training run with constant loss scaling.

    Attributes
    ----------
    task
        Name and options, as in a study's table ``[task]``: a value that other processes can be sent.
    batch, steps
        Samples per step, of each epoch's permutation; an incomplete last batch is left out.
    evaluation_samples
        Training samples whose loss is measured, the same in every run; all if ``None``.
    """

    task: TaskTable
    batch: int
    steps: int
    optimizer: Optimizer
    loss_scale: float
    evaluation_samples: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """Arithmetic of a run: formats and accumulators of the products, format of the weight update.

    Attributes
    ----------
    state_format
        Of momenta and of the moments of Adam, `update_format` if ``None``.
    """

    policy: LayerPolicy
    update_format: FloatFormat
    update_rounding: Rounding
    state_format: FloatFormat | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run measured.

    Attributes
    ----------
    training_loss
        Mean of the task's loss over the evaluated training samples after the last step.
    metric
        The task's, over the whole test set, in its own unit.
    skipped_steps
        Steps left out because a scaled gradient overflowed.
    seconds
        Processor time of the training up to here, without the measurements.
    """

    training_loss: float
    metric: float
    skipped_steps: int
    seconds: float = field(compare=False)


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
    return train_watched(recipe, numerics, seed=seed, steps=[recipe.steps])[0]


def train_watched(
    recipe: Recipe, numerics: Numerics | None, *, seed: int, steps: Sequence[int]
) -> list[Outcome]:
    """Train as far as the last of `steps`, and return what was measured after each: one run, several looks.

    Raises
    ------
    DivergedError
        The last training loss is not finite.
    ValueError
        As of `watched`.
    """
    outcomes = list(watched(recipe, numerics, seed=seed, steps=steps))
    if not isfinite(outcomes[-1].training_loss):
        raise DivergedError(f"the training loss is {outcomes[-1].training_loss} after {steps[-1]} steps")
    return outcomes


def watched(
    recipe: Recipe, numerics: Numerics | None, *, seed: int, steps: Sequence[int]
) -> Iterator[Outcome]:
    """What one run has measured after each of `steps`, which rise; looking does not change the run.

    The loss may be infinite or NaN. A run of fewer steps is the beginning of a longer one with the same
    recipe: the learning rate is that of the recipe's `steps`.

    Raises
    ------
    ValueError
        The batch is larger than the training set, or `steps` do not rise within the recipe's.
    """
    import torch

    from numerics.torch import LossScaler, LowPrecision, emulate
    from studies.evaluation import evaluated_samples, mean_loss, metric_of
    from studies.precision.batches import Batches

    if not steps or list(steps) != sorted(set(steps)) or steps[0] < 1 or steps[-1] > recipe.steps:
        raise ValueError(f"steps must rise within 1..{recipe.steps}, got {list(steps)}")
    task, data = _task_and_data(json.dumps(recipe.task.model_dump(mode="json")))
    count = len(data.train_inputs)
    batches = Batches(count, recipe.batch, seed)
    samples = evaluated_samples(count, recipe.evaluation_samples)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = task.network()
    plain = recipe.optimizer.build(network.parameters())
    optimizer: torch.optim.Optimizer = plain
    if numerics is not None:
        emulate(network, numerics.policy, seed=seed, inplace=True)
        optimizer = LowPrecision(
            plain,
            format=numerics.update_format,
            rounding=numerics.update_rounding,
            seed=seed,
            state_format=numerics.state_format,
        )
    scaler = LossScaler(recipe.loss_scale)
    spent, begin = 0.0, time.process_time()
    for step in range(1, steps[-1] + 1):
        for group in optimizer.param_groups:
            group["lr"] = recipe.optimizer.rate(step - 1, recipe.steps)
        chosen = batches.next()
        optimizer.zero_grad()
        scaler.backward(task.loss(network(data.train_inputs[chosen]), data.train_labels[chosen]))
        scaler.step(optimizer)
        if step in steps:
            spent += time.process_time() - begin
            yield Outcome(
                training_loss=mean_loss(network, task, data, samples, batch=recipe.batch),
                metric=metric_of(network, task, data, batch=recipe.batch),
                skipped_steps=scaler.skipped,
                seconds=spent,
            )
            begin = time.process_time()


def guessing_loss(task: Task, data: Data) -> float:
    """Loss of a network that outputs zeros: with cross entropy, that of a guess, the log of the classes."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        inputs, labels = data.train_inputs[:2], data.train_labels[:2]
        outputs = task.network().eval()(inputs)
        return float(task.loss(torch.zeros_like(outputs), labels).item())


@lru_cache(maxsize=2)
def _task_and_data(text: str) -> tuple[Task, Data]:
    """Task of a table in JSON, and its data: the same in every run of a process."""
    task = build_task(table_of(json.loads(text)))
    return task, task.load()
