"""A task small enough to train in a blink: points in a square, told apart by a perceptron with dropout."""

import pytest
import torch
from torch import nn

from studies.tasks import Data, Task


def load():
    points = torch.rand(96, 2, generator=torch.Generator().manual_seed(7))
    labels = (points.sum(1) > 1.0).long()
    return Data(
        train_inputs=points[:64],
        train_labels=labels[:64],
        test_inputs=points[64:],
        test_labels=labels[64:],
    )


def network():
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(0.25), nn.Linear(8, 2))


@pytest.fixture(scope="session")
def points():
    return Task(title="points in a square", load=load, network=network, input_shape=(2,), classes=2)
