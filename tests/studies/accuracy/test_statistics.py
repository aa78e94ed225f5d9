from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from studies.accuracy.probe import measure_statistics
from studies.accuracy.statistics import HIGH, LOW, TaskStatistics, known, read_statistics, write_statistics
from studies.accuracy.subjects import SUBJECTS

SUBJECT = replace(SUBJECTS["digits-mlp"], steps=9)
TASK = SUBJECT.build(Path())
DATA = TASK.load()


@pytest.fixture(scope="module")
def found():
    return measure_statistics(SUBJECT, TASK, DATA)


def test_products_have_the_shapes_of_the_network(found):
    shapes = {(one.layer, one.role): (one.rows, one.length, one.columns) for one in found.products}
    batch = SUBJECT.batch
    assert shapes["fc1", "forward"] == (batch, 64, 32)
    assert shapes["fc2", "backward"] == (batch, 10, 32)
    assert shapes["fc2", "gradient"][1] == batch
    assert ("fc1", "backward") not in shapes  # nobody asks for the gradient by the images


def test_binades_are_those_of_the_tensor(found):
    pixels = DATA.train_inputs.numpy()
    images = found.tensors["fc1", "activation"]
    assert images.zeros == pytest.approx(np.mean(pixels == 0), abs=0.03)
    assert images.log2_max == 0.0  # a pixel of 1
    assert images.energy.sum() == pytest.approx(1.0)
    assert 2.0**images.log2_rms == pytest.approx(np.sqrt(np.mean(pixels**2)), rel=0.03)
    assert images.shares[-1 - LOW] == pytest.approx(np.mean((pixels >= 0.5) & (pixels < 1.0)), abs=0.02)
    assert images.squares[-1 - LOW] == pytest.approx(
        4.0 * np.mean(pixels[(pixels >= 0.5) & (pixels < 1.0)] ** 2), abs=0.1
    )


def test_changes_are_beside_what_they_change(found):
    # Weights of layers of 64 and 32 inputs begin below 1 / 8 and 0.18, and a step is a small part of them.
    numbers = found.updates.energy.sum(axis=1)
    assert numbers[-1 - LOW :].sum() < 0.01
    assert numbers[-5 - LOW : -1 - LOW].sum() > 0.7
    assert found.updates.energy.sum() == pytest.approx(1.0)
    assert found.updates.log2_rms < found.weights.log2_rms - 2.0


def test_the_twin_learns(found):
    shares, accuracies = zip(*found.twin_curve, strict=True)
    assert shares == (0.25, 0.5, 1.0)
    assert accuracies[-1] > found.guess_accuracy + 0.2


def test_statistics_read_back(found, tmp_path):
    path = tmp_path / "statistics.json"
    write_statistics({"one": found}, path)
    again = read_statistics(path)["one"]
    assert [(one.layer, one.length) for one in again.products] == [
        (one.layer, one.length) for one in found.products
    ]
    assert np.array(again.twin_curve) == pytest.approx(np.array(found.twin_curve), abs=1e-6)
    assert again.updates.energy == pytest.approx(found.updates.energy, rel=0.05, abs=2e-4)
    for key, tensor in found.tensors.items():
        assert again.tensors[key].energy == pytest.approx(tensor.energy, rel=0.01, abs=1e-12)


def test_measuring_is_deterministic_and_leaves_the_generator_alone(found):
    torch.manual_seed(5)
    again = measure_statistics(SUBJECT, TASK, DATA)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)
    assert again.to_json() == found.to_json()


def test_every_subject_has_statistics_with_the_package():
    assert set(known()) == set(SUBJECTS)
    for name, statistics in known().items():
        assert isinstance(statistics, TaskStatistics)
        assert statistics.steps == SUBJECTS[name].steps
        assert {one.role for one in statistics.products} == {"forward", "backward", "gradient"}
        for tensor in statistics.tensors.values():
            assert tensor.energy.shape == (HIGH - LOW,)
