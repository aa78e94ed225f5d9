"""What is trained: data with a fixed split, a network, a loss and a metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


class TaskError(ValueError):
    """A task or its data cannot be used; the message has one line per error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Samples and labels, split for training and for testing.

    Attributes
    ----------
    train_inputs, test_inputs : (n, ...)
        float32, or int64 where the network takes indices.
    train_labels, test_labels : (n, ...)
        What the task's loss takes; for classes (n,) int64.

    Raises
    ------
    TaskError
        There are no samples, their number differs from that of the labels, or a value is NaN or infinite.
    """

    train_inputs: torch.Tensor
    train_labels: torch.Tensor
    test_inputs: torch.Tensor
    test_labels: torch.Tensor

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            inputs, labels = getattr(self, f"{part}_inputs"), getattr(self, f"{part}_labels")
            if not inputs.ndim or not labels.ndim or len(inputs) != len(labels) or not len(inputs):
                raise TaskError(
                    f"{part}_inputs and {part}_labels must have equal numbers of samples, at least one, "
                    f"got shapes {tuple(inputs.shape)} and {tuple(labels.shape)}"
                )
            check_finite(inputs, f"{part}_inputs")
            check_finite(labels, f"{part}_labels")


def check_finite(values: torch.Tensor, name: str) -> None:
    """Refuse NaN and infinities.

    Raises
    ------
    TaskError
        With their number, and the index of the first.
    """
    good = values.isfinite()
    if good.all():
        return
    bad = (~good).nonzero()
    first = tuple(bad[0].tolist())
    raise TaskError(
        f"{name}: values must be finite, got {len(bad)} NaN or infinite, "
        f"the first is {values[first].item()} at index {first}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a network is judged by: a mean that can be summed batch by batch.

    Attributes
    ----------
    name, unit
        For tables and axes.
    higher_is_better
        Direction of improvement.
    function
        Of outputs and labels of a batch: the total, and the number of things it counts (samples,
        characters). The metric is the sum of the totals over the sum of the numbers, which does not
        depend on how the samples are cut into batches.
    step
        Least change of a total, where that is a count: 100 for a share in percent. 0 if it may be any number.
    """

    name: str
    unit: str
    higher_is_better: bool
    function: Callable[[torch.Tensor, torch.Tensor], tuple[float, int]]
    step: float = 0.0

    def mean(self, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
        """Metric over batches of outputs and labels.

        Raises
        ------
        ValueError
            There is nothing to count.
        """
        totals, counts = [], 0
        for outputs, labels in batches:
            total, count = self.function(outputs, labels)
            totals.append(total)
            counts += count
        if not counts:
            raise ValueError(f"{self.name} needs at least one sample, got none")
        return math.fsum(totals) / counts


def cross_entropy(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy in nats of logits (n, classes) and labels (n,)."""
    from torch.nn import functional

    return functional.cross_entropy(outputs, labels)


def right_percent(outputs: torch.Tensor, labels: torch.Tensor) -> tuple[float, int]:
    """One hundred per sample whose label has the largest output, (n, classes), and the samples."""
    return 100.0 * int((outputs.argmax(1) == labels).sum()), len(labels)


#: Share of samples classified correctly, in percent.
ACCURACY = Metric(name="accuracy", unit="%", higher_is_better=True, function=right_percent, step=100.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A network and what it learns.

    Attributes
    ----------
    title
        Data and network, in a few words.
    load, network
        Functions that read the data, always the same, and build a freshly initialised network from
        torch's global generator.
    loss
        Of outputs and labels, a scalar: the mean over the batch.
    metric
        What the network is judged by.
    input_shape
        Of one sample.
    classes
        Number of classes, if there are any: with cross entropy, guessing has a loss of ``log(classes)``.

    Examples
    --------
    A task of one's own:

    >>> import torch
    >>> x = torch.linspace(-1.0, 1.0, 100)[:, None]
    >>> task = Task(
    ...     title="a parabola",
    ...     load=lambda: Data(train_inputs=x, train_labels=x**2, test_inputs=x, test_labels=x**2),
    ...     network=lambda: torch.nn.Sequential(
    ...         torch.nn.Linear(1, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)
    ...     ),
    ...     loss=torch.nn.functional.mse_loss,
    ...     metric=Metric(
    ...         name="absolute error",
    ...         unit="",
    ...         higher_is_better=False,
    ...         function=lambda y, labels: (float((y - labels).abs().sum()), len(labels)),
    ...     ),
    ...     input_shape=(1,),
    ... )
    """

    title: str
    load: Callable[[], Data]
    network: Callable[[], nn.Module]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = cross_entropy
    metric: Metric = ACCURACY
    input_shape: tuple[int, ...]
    classes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification(Task):
    """A task whose labels are classes, of which the network outputs logits."""

    classes: int
