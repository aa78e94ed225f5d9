"""Rows and columns of the run table: data, memory, and runs that can be done again."""

import numpy as np
import pytest

from studies.accuracy.peppp.runs import (
    CONFIGURATIONS,
    Configuration,
    Sizes,
    emulated_error,
    full_precision_error,
    memory_bytes,
    sizes,
)
from studies.accuracy.peppp.table import run_table
from studies.accuracy.peppp.tasks import TASKS, Task


def task(name):
    return next(each for each in TASKS if each.name == name)


def test_memory_by_hand():
    configuration = Configuration(operand="e4m3fn", accumulator="e6m9", update="e6m9 rounding=stochastic")
    held = Sizes(parameters=100, activations=10, errors=6)
    # 100 operands of 8 bits, 300 numbers of the optimizer of 16 bits, 2 samples of 16 operands of 8 bits.
    assert memory_bytes(configuration, held, batch=2) == 100 + 600 + 32
    scaled = Configuration(operand="e2m1 scaling=tensor", accumulator="e6m9", update="e6m3")
    assert (scaled.operand_bits, scaled.update_bits) == (4, 10)


def test_sizes_of_a_perceptron_and_a_cnn_by_hand():
    iris, cnn = task("iris"), task("digits-low-cnn")
    # 4-8-3: weights 32 + 24, biases 8 + 3; inputs of the layers 4 + 8; the larger output 8.
    assert sizes(iris, iris.load()) == Sizes(parameters=67, activations=12, errors=8)
    # 4 and 8 channels of 3 x 3, 8 x 2 x 2 numbers to 5 classes; inputs 64 + 4 x 16 + 32; output 4 x 64.
    assert sizes(cnn, cnn.load()) == Sizes(
        parameters=(9 + 1) * 4 + (36 + 1) * 8 + 33 * 5, activations=64 + 64 + 32, errors=256
    )


def test_names_are_unique():
    assert len({each.name for each in TASKS}) == len(TASKS)
    assert len(set(CONFIGURATIONS)) == len(CONFIGURATIONS) == 72


@pytest.mark.parametrize("name", [each.name for each in TASKS])
def test_data_are_the_same_every_time_and_every_class_is_there(name):
    first, again = task(name).load(), task(name).load()
    np.testing.assert_array_equal(first.train_inputs, again.train_inputs)
    np.testing.assert_array_equal(first.train_labels, again.train_labels)
    assert first.train_inputs.dtype == np.float32
    assert np.isfinite(first.train_inputs).all()
    assert set(first.train_labels) == set(first.test_labels) == set(range(first.classes))
    assert len(first.test_labels) > 30


def test_variants_change_what_they_say():
    plain = task("digits").load()
    assert np.abs(task("digits-faint").load().train_inputs * 4 - plain.train_inputs).max() < 1e-6
    noise = task("digits-noise").load().train_inputs - plain.train_inputs
    assert noise.std() == pytest.approx(0.3, rel=0.02)
    few = task("digits-few").load()
    assert len(few.train_labels) == 150
    wrong = task("digits-mislabelled").load()
    assert (wrong.train_labels != plain.train_labels).mean() == pytest.approx(0.3 * 0.9, abs=0.04)
    np.testing.assert_array_equal(wrong.test_labels, plain.test_labels)
    label = {x.tobytes(): y for x, y in zip(plain.train_inputs, plain.train_labels, strict=True)}
    parity = task("digits-parity").load()
    pairs = [(x.tobytes(), y) for x, y in zip(parity.test_inputs, parity.test_labels, strict=True)]
    known = [(label[x] % 2, y) for x, y in pairs if x in label]
    assert len(known) > 300
    assert all(before == after for before, after in known)


def test_shifted_images_are_moved_by_at_most_one_pixel():
    plain, moved = task("digits").load().test_inputs, task("digits-shift").load().test_inputs

    def shifted(image, down, right):
        out = np.zeros_like(image)
        height, width = image.shape[-2:]
        for i in range(height):
            for j in range(width):
                if 0 <= i - down < height and 0 <= j - right < width:
                    out[:, i, j] = image[:, i - down, j - right]
        return out

    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    for before, after in zip(plain[:20], moved[:20], strict=True):
        assert any(np.array_equal(shifted(before, *step), after) for step in steps)


def test_the_shipped_table_is_whole_and_wide():
    table = run_table()
    assert table.errors.shape[0] >= 20
    assert table.errors.shape[1] >= 60
    assert np.isfinite(table.errors).all()
    assert ((table.errors >= 0) & (table.errors <= 1)).all()
    assert [each.name for each in TASKS] == list(table.data_sets)
    assert [(c.operand, c.accumulator, c.update) for c in CONFIGURATIONS] == list(table.configurations)
    # From about full precision to guessing, on most data sets.
    best, worst = table.errors.min(axis=1), table.errors.max(axis=1)
    assert np.median(best - table.float32) < 0.01
    assert np.median(worst) > 0.5


def test_the_shipped_memory_follows_from_the_formula():
    table = run_table()
    for name in (table.data_sets[0], table.data_sets[5]):
        row = table.data_sets.index(name)
        held = sizes(task(name), task(name).load())
        for column in (0, 17, 71):
            operand, accumulator, update = table.configurations[column]
            configuration = Configuration(operand=operand, accumulator=accumulator, update=update)
            assert table.memory_bytes[row, column] == pytest.approx(memory_bytes(configuration, held))


def test_a_small_task_is_learnt_in_full_precision():
    wine = Task(name="wine", source="wine", hidden=(8,))
    split = wine.load()
    assert full_precision_error(wine, split, seed=0) < 0.1


@pytest.mark.slow
def test_runs_of_the_shipped_table_can_be_done_again():
    table = run_table()
    for name, column in (("iris", 40), ("digits", 9), ("digits-low-cnn", 55)):
        row = table.data_sets.index(name)
        operand, accumulator, update = table.configurations[column]
        configuration = Configuration(operand=operand, accumulator=accumulator, update=update)
        error = emulated_error(task(name), task(name).load(), configuration, seed=0)
        assert error == pytest.approx(table.errors[row, column], abs=5e-6)


@pytest.mark.slow
def test_coarse_numerics_are_worse_than_fine_ones():
    digits = task("digits")
    split = digits.load()
    coarse = Configuration(operand="e2m1", accumulator="e6m2", update="e6m3")
    fine = Configuration(operand="e6m9", accumulator="e6m9 chunk=16", update="e6m9 rounding=stochastic")
    guessing, good = (emulated_error(digits, split, each, seed=0) for each in (coarse, fine))
    assert guessing > 0.8
    assert good < full_precision_error(digits, split, seed=0) + 0.03
