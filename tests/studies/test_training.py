"""Training runs: deterministic, bit-true, and paired with their full-precision twin."""

from dataclasses import replace

import pytest
import torch

from numerics import BINARY32, E6M9, Rounding
from numerics.torch import LayerPolicy
from studies.tasks import TASKS
from studies.training import DivergedError, Numerics, Recipe, train

RECIPE = Recipe(task="digits-cnn", batch=64, steps=12, learning_rate=0.05, momentum=0.9, loss_scale=256.0)


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
    wild = Recipe(task="digits-cnn", batch=64, steps=12, learning_rate=1e4, momentum=0.9, loss_scale=1.0)
    with pytest.raises(DivergedError, match=r"the training loss is .* after 12 steps"):
        train(wild, numerics("e5m2", "e4m9"), seed=0)


def test_a_batch_beyond_the_training_set_is_refused():
    wide = Recipe(task="digits-cnn", batch=2000, steps=1, learning_rate=0.1, momentum=0.0, loss_scale=1.0)
    with pytest.raises(
        ValueError, match="batch must be at most 1347, the size of the training set, got 2000"
    ):
        train(wide, None, seed=0)
