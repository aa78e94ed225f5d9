"""Training runs: deterministic, bit-true, and paired with their full-precision twin."""

from dataclasses import replace

import pytest
import torch

from numerics import BINARY32, E6M9, Rounding
from numerics.torch import LayerPolicy
from studies.precision.optimizer import Optimizer
from studies.tasks import TASKS, table_of
from studies.training import DivergedError, Numerics, Recipe, guessing_loss, train, watched

DIGITS = table_of("digits-cnn")
RECIPE = Recipe(
    task=DIGITS, batch=64, steps=12, optimizer=Optimizer(learning_rate=0.05, momentum=0.9), loss_scale=256.0
)


def numerics(operand="e5m2", accumulator="e6m9", rounding="stochastic"):
    policy = LayerPolicy.uniform(operand, accumulator, weight_gradient=E6M9)
    return Numerics(policy=policy, update_format=E6M9, update_rounding=Rounding.parse(rounding))


def test_the_digits_are_split_once_and_for_all_without_overlap():
    first, again = TASKS["digits-cnn"].load(), TASKS["digits-cnn"].load()
    assert len(first.train_labels) == 1347
    assert len(first.test_labels) == 450
    assert torch.equal(first.train_inputs, again.train_inputs)
    assert float(first.train_inputs.min()) == 0.0
    assert float(first.train_inputs.max()) == 1.0
    # Stratified: each digit has its share of the test set.
    assert torch.bincount(first.test_labels).min() >= 40


def test_equal_seeds_train_to_equal_bits_and_other_seeds_do_not():
    first = train(RECIPE, numerics(), seed=1)
    assert train(RECIPE, numerics(), seed=1) == first
    assert train(RECIPE, numerics(), seed=2) != first


def test_training_does_not_touch_the_global_random_state():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    train(RECIPE, None, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_wide_arithmetic_follows_the_full_precision_twin_and_narrow_does_not():
    recipe = replace(RECIPE, steps=60)
    float32 = Numerics(
        policy=LayerPolicy.uniform("e8m23", "e8m23"),
        update_format=BINARY32,
        update_rounding=Rounding.NEAREST_EVEN,
    )
    twin = train(recipe, None, seed=0)
    wide = train(recipe, float32, seed=0)
    narrow = train(recipe, numerics("e5m2", "e6m2"), seed=0)
    # The order of float32 sums differs from PyTorch's, so not to the bit.
    assert wide.training_loss == pytest.approx(twin.training_loss, rel=0.02)
    assert twin.training_loss < 1.2
    assert narrow.training_loss > 2.0


def test_a_training_loss_that_is_no_number_is_an_error_that_says_when():
    # Logits beyond the largest value of the accumulator are infinite, and so is the loss.
    wild = replace(RECIPE, optimizer=Optimizer(learning_rate=1e4, momentum=0.9), loss_scale=1.0)
    with pytest.raises(DivergedError, match=r"the training loss is .* after 12 steps"):
        train(wild, numerics("e5m2", "e4m9"), seed=0)


def test_a_batch_beyond_the_training_set_is_refused():
    wide = replace(RECIPE, batch=2000)
    with pytest.raises(
        ValueError, match=r"batch must be in 1\.\.1347, the size of the training set, got 2000"
    ):
        train(wide, None, seed=0)


def test_looking_at_a_run_on_the_way_does_not_change_it():
    looks = list(watched(RECIPE, numerics(), seed=1, steps=[3, 7, 12]))
    assert looks[-1] == train(RECIPE, numerics(), seed=1)
    assert looks[0] == train(replace(RECIPE, steps=3), numerics(), seed=1)  # a constant rate has no end
    assert looks[0].seconds < looks[1].seconds < looks[2].seconds


def test_a_learning_rate_that_falls_falls_as_in_the_whole_run():
    falling = replace(RECIPE, optimizer=Optimizer(learning_rate=0.05, schedule="linear"))
    (short,) = watched(falling, numerics(), seed=1, steps=[3])
    assert short != train(replace(falling, steps=3), numerics(), seed=1)
    assert short == next(watched(falling, numerics(), seed=1, steps=[3, 12]))


@pytest.mark.parametrize("steps", [[], [3, 3], [7, 3], [0], [13]])
def test_looks_must_rise_within_the_run(steps):
    with pytest.raises(ValueError, match=r"steps must rise within 1\.\.12, got"):
        list(watched(RECIPE, None, seed=1, steps=steps))


def test_fewer_samples_may_be_evaluated_and_are_the_same_in_every_run():
    few = replace(RECIPE, evaluation_samples=100)
    assert train(few, None, seed=1) == train(few, None, seed=1)
    assert train(few, None, seed=1).training_loss != train(RECIPE, None, seed=1).training_loss
    assert train(few, None, seed=1).metric == train(RECIPE, None, seed=1).metric


def test_other_tasks_and_optimizers_train_too(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 60)
    task = table_of({"name": "text-transformer", "path": str(text), "context": 8, "width": 8, "layers": 1,
                     "heads": 2, "train": 64, "test": 16})  # fmt: skip
    recipe = replace(RECIPE, task=task, batch=16, optimizer=Optimizer(kind="adamw", learning_rate=0.01))
    before, after = watched(replace(recipe, steps=40), numerics(), seed=0, steps=[1, 40])
    assert after.training_loss < before.training_loss - 0.5
    assert after.metric < before.metric  # bits per character


def test_a_network_that_guesses_has_the_logarithm_of_the_classes_as_its_loss():
    task = TASKS["digits-cnn"]
    assert guessing_loss(task, task.load()) == pytest.approx(2.302585, abs=1e-6)
