import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from studies.accuracy.policies import NumericsChoice
from studies.accuracy.subjects import SUBJECTS
from studies.accuracy.training import guess_accuracy, measure_run
from studies.precision.batches import Batches

SUBJECT = replace(SUBJECTS["digits-mlp"], steps=20)
TASK = SUBJECT.build(Path())
DATA = TASK.load()
NARROW = NumericsChoice(
    forward_frac_bits=3,
    backward_frac_bits=2,
    accumulator_frac_bits=7,
    accumulator_exp_bits=6,
    chunk=16,
    update_frac_bits=9,
    update_rounding="stochastic",
    loss_scale=256.0,
)


def untimed(measured):
    return [replace(one, seconds=0.0) for one in measured]


def test_the_twin_is_plain_pytorch():
    torch.manual_seed(3)
    network = TASK.network()
    sgd = torch.optim.SGD(network.parameters(), lr=SUBJECT.learning_rate, momentum=SUBJECT.momentum)
    batches = Batches(len(DATA.train_inputs), SUBJECT.batch, 3)
    for _ in range(20):
        chosen = batches.next()
        sgd.zero_grad()
        cross_entropy(network(DATA.train_inputs[chosen]), DATA.train_labels[chosen]).backward()
        sgd.step()
    right = (network(DATA.test_inputs).argmax(1) == DATA.test_labels).double().mean().item()
    found = measure_run(SUBJECT, TASK, DATA, None, seed=3)
    assert [one.steps for one in found] == [5, 10, 20]
    assert found[-1].test_accuracy == pytest.approx(right, abs=0.005)


def test_a_run_is_a_function_of_its_choice_and_seed():
    first, again, other = (measure_run(SUBJECT, TASK, DATA, NARROW, seed=seed) for seed in (0, 0, 1))
    assert untimed(first) == untimed(again)
    assert untimed(first) != untimed(other)


def test_wide_numerics_train_as_the_twin_does():
    wide = NumericsChoice(
        forward_exp_bits=8, forward_frac_bits=23, backward_exp_bits=8, backward_frac_bits=23
    )
    twin, found = (measure_run(SUBJECT, TASK, DATA, choice, seed=0)[-1] for choice in (None, wide))
    assert found.test_accuracy == pytest.approx(twin.test_accuracy, abs=0.01)
    assert found.test_loss == pytest.approx(twin.test_loss, rel=1e-3)


def test_a_loss_that_is_not_finite_is_a_divergence():
    wild = replace(SUBJECT, learning_rate=1e30)
    found = measure_run(wild, TASK, DATA, None, seed=0)
    assert [one.diverged for one in found] == [True] * 3
    assert all(math.isnan(one.test_accuracy) and math.isnan(one.training_loss) for one in found)


def test_a_gradient_beyond_the_register_skips_its_step():
    scaled = NumericsChoice(accumulator_exp_bits=4, accumulator_frac_bits=9, loss_scale=2.0**20)
    found = measure_run(SUBJECT, TASK, DATA, scaled, seed=0)[-1]
    assert found.skipped_steps == 20
    assert not found.diverged


def test_guessing_is_the_share_of_the_most_frequent_class():
    counts = np.bincount(DATA.test_labels.numpy())
    assert guess_accuracy(DATA) == counts.max() / counts.sum()
