"""What is trained: a data set with a fixed split, and a network for it.

References
----------
.. [digits] E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
   Repository, 1998, DOI 10.24432/C50P49; the 1797 images that scikit-learn ships.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

SPLIT_SEED = 0  # the split is part of the task: the same for every run


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Inputs (n, ...) float32 and labels (n,) int64, split for training and for testing."""

    train_inputs: torch.Tensor
    train_labels: torch.Tensor
    test_inputs: torch.Tensor
    test_labels: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A classification task.

    Attributes
    ----------
    title
        Data and network, in a few words.
    load, network
        Functions that read the data and build a freshly initialised network.
    input_shape
        Of one sample.
    classes
        Number of classes: guessing has a loss of ``log(classes)``.
    """

    title: str
    load: Callable[[], Data]
    network: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    classes: int


def digits() -> Data:
    """Scanned digits [digits]_, 8 x 8 pixels in [0, 1]: 1347 to train on, 450 to test."""
    import numpy as np
    import torch
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    inputs = (images / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    parts = train_test_split(
        inputs, labels.astype(np.int64), test_size=450, random_state=SPLIT_SEED, stratify=labels
    )
    train_inputs, test_inputs, train_labels, test_labels = map(torch.from_numpy, parts)
    return Data(
        train_inputs=train_inputs,
        train_labels=train_labels,
        test_inputs=test_inputs,
        test_labels=test_labels,
    )


def digits_cnn() -> nn.Module:
    """Two 3 x 3 convolutions with ReLU and pooling, and a linear layer; 1890 parameters."""
    from torch import nn

    network = nn.Sequential()
    for name, module in (
        ("conv1", nn.Conv2d(1, 8, 3, padding=1)),
        ("relu1", nn.ReLU()),
        ("pool1", nn.MaxPool2d(2)),
        ("conv2", nn.Conv2d(8, 16, 3, padding=1)),
        ("relu2", nn.ReLU()),
        ("pool2", nn.MaxPool2d(2)),
        ("flatten", nn.Flatten()),
        ("fc", nn.Linear(64, 10)),
    ):
        network.add_module(name, module)
    return network


TASKS: Mapping[str, Task] = {
    "digits-cnn": Task(
        title="handwritten digits (8 x 8 scans), CNN with two convolutions and a linear layer",
        load=digits,
        network=digits_cnn,
        input_shape=(1, 8, 8),
        classes=10,
    ),
}
