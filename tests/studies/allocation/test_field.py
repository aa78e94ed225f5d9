"""The distance field and its interpolation."""

import numpy as np
import pytest

from studies.allocation.field import DistanceField

LOW, HIGH = np.array([-1.0, -0.5, 0.0]), np.array([1.0, 0.5, 1.0])


def ask(field, points):
    places, between = field.corners(points)
    return field.interpolated(field.values.reshape(-1)[places], between)


def inside(rng, n):
    return rng.uniform(LOW + 0.01, HIGH - 0.01, (n, 3))


def test_a_linear_field_is_interpolated_exactly():
    field = DistanceField.of_balls(np.zeros((1, 3)), np.zeros(1), low=LOW, high=HIGH, nodes=9)
    axes = [LOW[k] + field.step * np.arange(field.values.shape[k]) for k in range(3)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    linear = DistanceField(low=LOW, step=field.step, values=2 * x - 3 * y + 0.5 * z + 1)
    points = inside(np.random.default_rng(0), 50)
    value, gradient = ask(linear, points)
    assert value == pytest.approx(points @ [2, -3, 0.5] + 1)
    assert gradient == pytest.approx(np.tile([2, -3, 0.5], (50, 1)))


def test_nodes_hold_distances_and_gradients_are_differences_of_the_interpolation():
    centres, radii = np.array([[0.0, 0.0, 0.5], [0.6, 0.2, 0.3]]), np.array([0.2, 0.1])
    field = DistanceField.of_balls(centres, radii, low=LOW, high=HIGH, nodes=21)
    node = LOW + field.step * np.array([[3, 4, 5]])
    assert ask(field, node)[0] == pytest.approx((np.linalg.norm(node - centres, axis=1) - radii).min())
    points = inside(np.random.default_rng(1), 40)
    # Differences within a cell: the interpolation has kinks at its faces.
    points = LOW + field.step * (np.floor((points - LOW) / field.step) + 0.5) + 0.2 * field.step
    _, gradient = ask(field, points)
    for k in range(3):
        step = 1e-6 * np.eye(3)[k]
        slope = (ask(field, points + step)[0] - ask(field, points - step)[0]) / 2e-6
        assert gradient[:, k] == pytest.approx(slope, abs=1e-7)


def test_points_outside_count_as_on_the_border():
    field = DistanceField.of_balls(np.zeros((1, 3)), np.ones(1), low=LOW, high=HIGH, nodes=5)
    far, border = np.array([[9.0, 0.1, 0.2]]), np.array([[1.0, 0.1, 0.2]])
    assert ask(field, far)[0] == ask(field, border)[0]
