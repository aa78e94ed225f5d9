"""The trajectory optimiser: it solves its problem, its gradient is right, and its formats matter."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from studies.allocation.arm import PANDA
from studies.allocation.held import Held
from studies.allocation.robot import FORMATS, draw_scene, robot_arm
from studies.allocation.trajectory import GROUPS, _cost, _linearise, optimise


@pytest.fixture(scope="module")
def scene():
    return draw_scene(PANDA, np.random.default_rng([1, 0]))


def test_the_gradient_is_that_of_the_cost(scene):
    trajectory = scene.line + 0.01 * np.random.default_rng(2).normal(size=scene.line.shape)
    held = Held()
    held.put("field", scene.field.values)
    held.put("trajectory", trajectory)
    _cost(scene, held)
    _linearise(scene, held)
    gradient = held.get("gradient")
    for t, j in ((1, 0), (5, 3), (12, 1), (scene.waypoints - 1, 5)):
        step = np.zeros_like(trajectory)
        step[t, j] = 1e-6
        slope = (scene.cost(trajectory + step) - scene.cost(trajectory - step)) / 2e-6
        assert gradient[t - 1, j] == pytest.approx(slope, rel=1e-4, abs=1e-3)


def test_it_ends_in_a_minimum_that_another_optimiser_does_not_leave(scene):
    short = replace(scene, waypoints=8)
    motion = optimise(short, iterations=60)
    start = motion.trajectory[0]

    def cost(rest):
        return short.cost(np.vstack([start, rest.reshape(-1, PANDA.joints)]))

    again = minimize(cost, motion.trajectory[1:].reshape(-1), method="L-BFGS-B", options={"maxiter": 15})
    assert motion.cost <= again.fun * 1.02
    assert motion.cost < 0.5 * short.cost(short.line)


def test_the_motion_begins_where_it_should_reaches_the_tool_and_clears_the_obstacles(scene):
    motion = optimise(scene)
    line = scene.cost(scene.line)
    assert motion.trajectory[0] == pytest.approx(scene.start)
    assert motion.tool_error_m < 0.01
    assert motion.clearance_m > 0.02
    assert motion.cost == pytest.approx(scene.cost(motion.trajectory))
    assert motion.cost < 0.1 * line


def test_sixteen_bits_are_nearly_float64_and_four_are_not(scene):
    exact = optimise(scene).cost
    assert optimise(scene, dict.fromkeys(GROUPS, "binary16")).cost == pytest.approx(exact, rel=0.1)
    assert optimise(scene, dict.fromkeys(GROUPS, "e3m2")).cost > 2 * exact


@pytest.mark.parametrize("name", GROUPS)
def test_each_tensor_is_really_held_in_its_format(scene, name):
    formats = dict.fromkeys(GROUPS, "binary16")
    base, other = Held(formats), Held({**formats, name: "e2m1"})
    first, second = optimise(scene, base, iterations=2), optimise(scene, other, iterations=2)
    assert not np.array_equal(first.trajectory, second.trajectory)
    assert other.packed_bytes()[name] == -(-base.packed_bytes()[name] // 4)


def test_the_subject_counts_its_tensors_and_its_space_has_millions():
    subject = robot_arm(0, scenes=1)
    assert [group.name for group in subject.groups] == list(GROUPS)
    assert len(GROUPS) >= 11
    assert subject.size == len(FORMATS) ** len(GROUPS) >= 4_000_000
    sizes = {group.name: group.elements for group in subject.groups}
    assert sizes["trajectory"] == 24 * 7
    assert sizes["point_jacobian"] == 24 * 8 * 3 * 7
    assert subject.oracle(dict.fromkeys(GROUPS, "binary16")) <= subject.threshold
