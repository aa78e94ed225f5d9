"""The order of the data depends on the seed alone."""

import pytest
import torch

from studies.precision.batches import Batches


def take(batches, steps):
    return [batches.next().tolist() for _ in range(steps)]


def test_every_epoch_sees_each_sample_at_most_once_and_leaves_out_the_rest():
    steps = take(Batches(10, 3, seed=1), 6)
    for epoch in (steps[:3], steps[3:]):
        seen = [sample for batch in epoch for sample in batch]
        assert len(set(seen)) == 9
        assert set(seen) <= set(range(10))
    assert steps[:3] != steps[3:]


def test_equal_seeds_give_equal_orders_whatever_else_draws_random_numbers():
    first = Batches(100, 10, seed=5)
    second = Batches(100, 10, seed=5)
    for _ in range(25):
        torch.rand(3)
        assert torch.equal(first.next(), second.next())
    assert take(Batches(100, 10, seed=6), 3) != take(Batches(100, 10, seed=5), 3)


@pytest.mark.parametrize("done", [0, 1, 3, 4, 8])
def test_an_order_goes_on_where_it_was_saved(done):
    whole = take(Batches(10, 3, seed=2), 12)
    first = Batches(10, 3, seed=2)
    take(first, done)
    state = first.state_dict()
    take(first, 5)  # the state is a copy
    again = Batches(10, 3, seed=2)
    again.load_state_dict(state)
    assert take(again, 12 - done) == whole[done:]


@pytest.mark.parametrize("batch", [0, 11])
def test_a_batch_beyond_the_training_set_is_refused(batch):
    with pytest.raises(ValueError, match=f"batch must be in 1..10, .*, got {batch}"):
        Batches(10, batch, seed=0)
