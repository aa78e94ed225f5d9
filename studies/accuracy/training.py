"""One run of the table: a subject under a choice of numerics, measured at several fidelities."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from numerics.torch import LossScaler
from studies.alone import alone
from studies.precision.batches import Batches
from studies.precision.trainer import prepare

if TYPE_CHECKING:
    from studies.accuracy.policies import NumericsChoice
    from studies.accuracy.subjects import Subject
    from studies.tasks import Data, Task

FIDELITIES = (0.25, 0.5, 1.0)  #: shares of the steps after which a run is measured
_RECENT = 0.05  # share of the steps whose batch losses are averaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a run measured after a share of its steps.

    Attributes
    ----------
    fidelity, steps
        Share of the steps of a whole run, and the steps done by then.
    test_accuracy
        Share of the test set (of its characters, for text) whose class has the largest output, by the run's
        own arithmetic; NaN if the run has diverged.
    test_loss, training_loss
        Mean cross entropy in nats of the test set, and of the last batches; NaN if the run has diverged.
    skipped_steps
        Steps left out because a scaled gradient overflowed.
    seconds
        Processor time so far.
    diverged
        Whether the loss of a batch, or of the test set, was no longer finite; such a run ends there.
    """

    fidelity: float
    steps: int
    test_accuracy: float
    test_loss: float
    training_loss: float
    skipped_steps: int
    seconds: float
    diverged: bool


def measure_run(
    subject: Subject, task: Task, data: Data, choice: NumericsChoice | None, *, seed: int
) -> list[Measured]:
    """Train from scratch, deterministically, and measure at every fidelity.

    Initial weights and the order of the data depend on `seed` alone.

    Parameters
    ----------
    choice
        ``None`` trains the twin in float32.
    """
    settings = subject.settings()
    with alone(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = task.network()
        policy = None if choice is None else choice.policy()
        optimizer, _ = prepare(network, policy, settings, seed=seed)
        scaler = None if choice is None else LossScaler(choice.loss_scale)
        batches = Batches(len(data.train_inputs), settings.batch, seed)
        begin, losses, diverged = time.process_time(), [], False
        results: list[Measured] = []
        for step in range(1, settings.steps + 1):
            if not diverged:
                chosen = batches.next()
                optimizer.zero_grad()
                loss = task.loss(network(data.train_inputs[chosen]), data.train_labels[chosen])
                losses.append(float(loss.item()))
                diverged = not math.isfinite(losses[-1])
            if not diverged:
                if scaler is None:
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                else:
                    scaler.backward(loss)
                    scaler.step(optimizer)
            if step not in (due := {round(share * settings.steps): share for share in FIDELITIES}):
                continue
            accuracy = test_loss = recent = math.nan
            if not diverged:
                accuracy, test_loss = _test(network, task, data)
                recent = float(np.mean(losses[-max(1, round(_RECENT * settings.steps)) :]))
                diverged = not math.isfinite(test_loss)
            results.append(
                Measured(
                    fidelity=due[step],
                    steps=step,
                    test_accuracy=math.nan if diverged else accuracy,
                    test_loss=math.nan if diverged else test_loss,
                    training_loss=math.nan if diverged else recent,
                    skipped_steps=0 if scaler is None else scaler.skipped,
                    seconds=time.process_time() - begin,
                    diverged=diverged,
                )
            )
    return results


def guess_accuracy(data: Data) -> float:
    """Share of the test set that is of its most frequent class: what knowing nothing gives."""
    return float(torch.bincount(data.test_labels.flatten()).max()) / data.test_labels.numel()


def _test(network: torch.nn.Module, task: Task, data: Data) -> tuple[float, float]:
    """Accuracy and loss on the test set; draws no random numbers of the training."""
    # Emulated layers take a pass for inference, with random numbers of its own, if no gradient is wanted.
    network.requires_grad_(False)
    network.eval()
    with torch.no_grad():
        outputs = network(data.test_inputs)
        loss = float(task.loss(outputs, data.test_labels).item())
        right = (outputs.argmax(-1) == data.test_labels).double().mean().item()
    network.train()
    network.requires_grad_(True)
    return right, loss
