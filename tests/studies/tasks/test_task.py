"""The values of a task: data are refused where they cannot be trained on, metrics add up exactly."""

import math
from dataclasses import replace

import pytest
import torch

from studies.tasks import ACCURACY, Data, Task, TaskError, cross_entropy


def data(**changes):
    parts = {
        "train_inputs": torch.zeros(4, 2, 3),
        "train_labels": torch.tensor([0, 1, 0, 1]),
        "test_inputs": torch.zeros(2, 2, 3),
        "test_labels": torch.tensor([1, 0]),
    }
    return Data(**parts | changes)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused_with_their_number_and_the_first_index(value):
    inputs = torch.zeros(4, 2, 3)
    inputs[1, 1, 2] = inputs[3, 0, 0] = value
    with pytest.raises(TaskError) as caught:
        data(train_inputs=inputs)
    assert str(caught.value) == (
        f"train_inputs: values must be finite, got 2 NaN or infinite, the first is {value} at index (1, 1, 2)"
    )


def test_labels_that_are_not_finite_are_refused():
    with pytest.raises(TaskError, match=r"test_labels: .* got 1 NaN or infinite.* index \(1,\)"):
        data(test_labels=torch.tensor([0.0, math.nan]))


@pytest.mark.parametrize(
    ("change", "shapes"),
    [
        ({"test_labels": torch.tensor([1])}, r"\(2, 2, 3\) and \(1,\)"),
        ({"train_inputs": torch.zeros(0, 2), "train_labels": torch.zeros(0)}, r"\(0, 2\) and \(0,\)"),
        ({"train_labels": torch.tensor(1)}, r"\(4, 2, 3\) and \(\)"),
    ],
)
def test_samples_and_labels_must_be_equal_in_number_and_at_least_one(change, shapes):
    with pytest.raises(TaskError, match=f"at least one, got shapes {shapes}"):
        data(**change)


def test_accuracy_counts_the_largest_outputs_and_does_not_depend_on_the_batches():
    outputs = torch.tensor([[0.1, 0.9, 0.0], [3.0, 2.0, 1.0], [0.0, 0.0, 1.0]])
    labels = torch.tensor([1, 2, 2])
    assert ACCURACY.mean([(outputs, labels)]) == pytest.approx(200.0 / 3.0, rel=1e-15)
    assert ACCURACY.mean([(outputs[:2], labels[:2]), (outputs[2:], labels[2:])]) == ACCURACY.mean(
        [(outputs, labels)]
    )


def test_a_metric_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="accuracy needs at least one sample, got none"):
        ACCURACY.mean([])


def test_cross_entropy_of_equal_logits_is_the_logarithm_of_the_number_of_classes():
    loss = cross_entropy(torch.zeros(6, 4), torch.arange(6) % 4)
    assert float(loss) == pytest.approx(math.log(4), rel=1e-6)


def test_a_task_of_ones_own_needs_data_a_network_and_a_shape():
    own = data()
    task = Task(
        title="mine",
        load=lambda: own,
        network=lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 2)),
        input_shape=(2, 3),
    )
    outputs = task.network()(task.load().test_inputs)
    assert torch.isfinite(task.loss(outputs, own.test_labels))
    assert task.metric is ACCURACY
    assert task.classes is None
    assert replace(task, classes=2).classes == 2
