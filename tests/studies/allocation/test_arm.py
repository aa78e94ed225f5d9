"""Kinematics of the arm against products of matrices and differences."""

import numpy as np
import pytest

from studies.allocation.arm import PANDA

RNG = np.random.default_rng(5)
JOINTS = PANDA.low + (PANDA.high - PANDA.low) * RNG.random((6, PANDA.joints))


def rotation(axis, angle):
    found = np.eye(4)
    a, b = {"x": (1, 2), "z": (0, 1)}[axis]
    found[a, a] = found[b, b] = np.cos(angle)
    found[a, b], found[b, a] = -np.sin(angle), np.sin(angle)
    return found


def translation(x, z):
    found = np.eye(4)
    found[0, 3], found[2, 3] = x, z
    return found


def test_frames_are_products_of_the_four_elementary_motions():
    frames = PANDA.frames(np.cos(JOINTS), np.sin(JOINTS))
    for t, joints in enumerate(JOINTS):
        whole = np.eye(4)
        for j in range(PANDA.joints):
            whole = whole @ rotation("x", PANDA.alpha[j]) @ translation(PANDA.a[j], 0)
            whole = whole @ rotation("z", joints[j]) @ translation(0, PANDA.d[j])
            assert frames[t, j] == pytest.approx(whole[:3], abs=1e-12)


def test_stretched_upwards_the_wrist_is_at_the_sum_of_the_offsets():
    zero = np.zeros((1, 7))
    origin = PANDA.frames(np.cos(zero), np.sin(zero))[0, 6, :, 3]
    assert origin == pytest.approx([0.088, 0, 0.333 + 0.316 + 0.384])


def differences(function, joints, h=1e-6):
    columns = []
    for j in range(joints.shape[1]):
        step = np.zeros_like(joints)
        step[:, j] = h
        columns.append((function(joints + step) - function(joints - step)) / (2 * h))
    return np.stack(columns, axis=-1)


def test_jacobians_are_differences():
    frames = PANDA.frames(np.cos(JOINTS), np.sin(JOINTS))
    points = PANDA.points_of(frames)

    def positions(joints):
        return PANDA.points_of(PANDA.frames(np.cos(joints), np.sin(joints)))

    assert PANDA.jacobian(frames, points) == pytest.approx(differences(positions, JOINTS), abs=1e-8)
    assert PANDA.tool_jacobian(frames, points) == pytest.approx(differences(PANDA.tool, JOINTS), abs=1e-8)


def test_inverse_kinematics_reach_a_pose_within_limits():
    start = np.array([0, -0.785, 0, -2.356, 0, 1.571, 0.785])
    for _ in range(5):
        tool = PANDA.tool((start + RNG.uniform(-0.4, 0.4, 7))[None])[0]
        joints, left = PANDA.inverse(tool, start)
        assert left < 1e-8
        assert PANDA.tool(joints[None])[0] == pytest.approx(tool, abs=1e-7)
        assert (joints >= PANDA.low).all()
        assert (joints <= PANDA.high).all()


def test_what_is_out_of_reach_is_told_by_what_is_left():
    _, left = PANDA.inverse(np.array([3.0, 0, 0, 0, 0, 1]), np.full(7, 0.3))
    assert left > 1.5
