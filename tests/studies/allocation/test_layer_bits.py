"""Bits of layers: methods against all combinations."""

from itertools import product

import pytest

from dse.allocate import AllocationError, exact, exhaustive
from studies.allocation.layer_bits import LayerBits
from studies.allocation.network import trained
from studies.tasks import digits, digits_cnn


@pytest.fixture(scope="module")
def layers():
    data = digits()
    return LayerBits(
        network=trained(digits_cnn, data, seed=0, epochs=3), data=data, bits=(2, 3, 4, 6), probes=8
    )


def test_integer_programming_is_the_best_of_all_combinations(layers):
    for sensitivity in ("curvature", "measured"):
        problem = layers.problem(sensitivity)
        for mean in (2.3, 3.5, 4.7):
            total = mean * layers.sizes.sum()
            losses = [
                sum(problem.loss[g, o] for g, o in enumerate(choice))
                for choice in product(range(4), repeat=3)
                if sum(layers.sizes[g] * layers.bits[o] for g, o in enumerate(choice)) <= total
            ]
            assert problem.loss_of(exact(problem, max_cost=total)) == pytest.approx(min(losses))
            assert problem.loss_of(exhaustive(problem, max_cost=total)) == pytest.approx(min(losses))


def test_every_method_keeps_the_mean_and_none_has_less_true_loss_than_the_best(layers):
    frame = layers.under(3.5)
    assert set(frame["method"]) == {"uniform", "water-filling", "greedy", "ILP", "exhaustive"}
    assert (frame["bits_per_weight"] <= 3.5 + 1e-9).all()
    best = frame.loc[frame["sensitivity"] == "true loss", "training_loss"].item()
    chosen = frame[~frame["method"].isin(["water-filling"])]  # which may take bits between the choices
    assert (chosen["training_loss"] >= best - 1e-9).all()


def test_bisection_reaches_the_accuracy_with_few_questions_and_not_below_the_best(layers):
    wanted = layers.accuracy((6, 6, 6)) - 3
    frame = layers.reaching(wanted).set_index(["method", "sensitivity"])
    assert (frame["accuracy_percent"] >= wanted).all()
    best = frame.loc[("exhaustive", "true accuracy"), "bits_per_weight"]
    assert (frame["bits_per_weight"] >= best - 1e-9).all()
    assert (frame.loc["bisection", "asked"] <= 6).all()
    with pytest.raises(AllocationError, match="the target must be one"):
        layers.reaching(101.0)


def test_the_layers_are_those_with_matrices(layers):
    assert layers.names == ("conv1.weight", "conv2.weight", "fc.weight")
    assert layers.sizes.tolist() == [72, 1152, 640]
    assert layers.mean_bits((8, 2, 2)) == pytest.approx(2 + 6 * 72 / 1864)
