"""Scanned digits of scikit-learn: no file is needed.

References
----------
.. [digits] E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
   Repository, 1998, DOI 10.24432/C50P49; the 1797 images that scikit-learn ships.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from studies.tasks.tables import Sizes, TaskTable
from studies.tasks.task import Classification, Data

if TYPE_CHECKING:
    from torch import nn

SPLIT_SEED = 0  # the split is part of the task: the same for every run


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


def digits_mlp(hidden: Sequence[int] = (32,)) -> nn.Module:
    """Perceptron with ReLU; 2410 parameters with one hidden layer of 32."""
    from studies.tasks.networks import mlp

    return mlp(64, hidden, 10)


def digits_cnn() -> nn.Module:
    """Two 3 x 3 convolutions with ReLU and pooling, and a linear layer; 1890 parameters."""
    from studies.tasks.networks import cnn

    return cnn((1, 8, 8), (8, 16), 10, pool="max")


class DigitsMlp(TaskTable):
    """Digits [digits]_ and a perceptron; `hidden` are the sizes of its hidden layers."""

    name: Literal["digits-mlp"]
    hidden: Sizes = Field(default=[32])

    def build(self) -> Classification:
        """Task of these options."""
        sizes = "-".join(map(str, (64, *self.hidden, 10)))
        return Classification(
            title=f"handwritten digits (8 x 8 scans), perceptron {sizes}",
            load=digits,
            network=partial(digits_mlp, tuple(self.hidden)),
            input_shape=(1, 8, 8),
            classes=10,
        )


class DigitsCnn(TaskTable):
    """Digits [digits]_ and a small convolutional network."""

    name: Literal["digits-cnn"]

    def build(self) -> Classification:
        """Task of these options."""
        return Classification(
            title="handwritten digits (8 x 8 scans), CNN with two convolutions and a linear layer",
            load=digits,
            network=digits_cnn,
            input_shape=(1, 8, 8),
            classes=10,
        )
