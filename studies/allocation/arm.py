"""A serial robot arm: frames, points on its links and their Jacobians, and inverse kinematics.

References
----------
.. [Craig] J. Craig, "Introduction to Robotics", 3rd ed., 3.4: modified Denavit-Hartenberg parameters.
.. [Franka] Franka Emika, "Robot and interface specifications": the seven-joint Panda and its limits.
.. [Buss] S. Buss, "Introduction to Inverse Kinematics with Jacobian Transpose, Pseudoinverse and Damped Least
   Squares methods", 2009.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkPoint:
    """A ball fixed to a link: its frame (0 is the first joint's), centre there, and radius in metres."""

    frame: int
    offset: tuple[float, float, float]
    radius: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arm:
    """Revolute joints by modified Denavit-Hartenberg parameters [Craig]_.

    Attributes
    ----------
    a, alpha, d : (j,)
        Link lengths in metres, twists in radians, offsets in metres.
    low, high : (j,)
        Limits of the joints in radians.
    points
        Balls that cover the links; the last one is the tool.
    """

    a: Float[np.ndarray, " j"]
    alpha: Float[np.ndarray, " j"]
    d: Float[np.ndarray, " j"]
    low: Float[np.ndarray, " j"]
    high: Float[np.ndarray, " j"]
    points: tuple[LinkPoint, ...]

    @property
    def joints(self) -> int:
        """Number of joints."""
        return len(self.a)

    @property
    def radii(self) -> Float[np.ndarray, " c"]:
        """Radii of the balls, (c,)."""
        return np.array([point.radius for point in self.points])

    def frames(
        self, cosines: Float[np.ndarray, "t j"], sines: Float[np.ndarray, "t j"]
    ) -> Float[np.ndarray, "t j 3 4"]:
        """Rotation and origin of each joint's frame in the base, (t, j, 3, 4), for t configurations."""
        count = len(cosines)
        rotation, origin = np.broadcast_to(np.eye(3), (count, 3, 3)), np.zeros((count, 3))
        found = np.empty((count, self.joints, 3, 4))
        for j in range(self.joints):
            ca, sa = np.cos(self.alpha[j]), np.sin(self.alpha[j])
            c, s, zero = cosines[:, j], sines[:, j], np.zeros(count)
            local = np.stack(
                [
                    np.stack([c, -s, zero], axis=-1),
                    np.stack([s * ca, c * ca, zero - sa], axis=-1),
                    np.stack([s * sa, c * sa, zero + ca], axis=-1),
                ],
                axis=1,
            )
            offset = np.array([self.a[j], -sa * self.d[j], ca * self.d[j]])
            origin = origin + rotation @ offset
            rotation = rotation @ local
            found[:, j, :, :3], found[:, j, :, 3] = rotation, origin
        return found

    def points_of(self, frames: Float[np.ndarray, "t j 3 4"]) -> Float[np.ndarray, "t c 3"]:
        """Centres of the balls, (t, c, 3)."""
        at = [point.frame for point in self.points]
        offsets = np.array([point.offset for point in self.points])
        here = frames[:, at]
        return np.asarray(np.einsum("tcij,cj->tci", here[..., :3], offsets) + here[..., 3])

    def jacobian(
        self, frames: Float[np.ndarray, "t j 3 4"], points: Float[np.ndarray, "t c 3"]
    ) -> Float[np.ndarray, "t c 3 j"]:
        """Derivative of the centres by the joints, (t, c, 3, j): axis times lever, of the joints before."""
        axes, origins = frames[..., 2], frames[..., 3]
        lever = points[:, :, None] - origins[:, None]
        moved = np.cross(axes[:, None], lever)
        before = np.array([[j <= point.frame for j in range(self.joints)] for point in self.points])
        return np.moveaxis(moved * before[None, :, :, None], 2, 3)

    def tool(self, joints: Float[np.ndarray, "t j"]) -> Float[np.ndarray, "t 6"]:
        """Position of the tool in metres and its direction, (t, 6)."""
        frames = self.frames(np.cos(joints), np.sin(joints))
        return self.tool_of(frames, self.points_of(frames))

    def tool_of(
        self, frames: Float[np.ndarray, "t j 3 4"], points: Float[np.ndarray, "t c 3"]
    ) -> Float[np.ndarray, "t 6"]:
        """Position and direction of the tool from frames and points, (t, 6)."""
        return np.concatenate([points[:, -1], frames[:, self.points[-1].frame, :, 2]], axis=1)

    def tool_jacobian(
        self, frames: Float[np.ndarray, "t j 3 4"], points: Float[np.ndarray, "t c 3"]
    ) -> Float[np.ndarray, "t 6 j"]:
        """Derivative of `tool` by the joints, (t, 6, j)."""
        position = self.jacobian(frames, points)[:, -1]
        direction = frames[:, self.points[-1].frame, :, 2]
        turned = np.cross(frames[..., 2], direction[:, None])
        return np.concatenate([position, np.moveaxis(turned, 1, 2)], axis=1)

    def inverse(
        self,
        tool: Float[np.ndarray, "6"],
        start: Float[np.ndarray, " j"],
        *,
        iterations: int = 200,
        damping: float = 0.05,
    ) -> tuple[Float[np.ndarray, " j"], float]:
        """Joints within their limits that bring the tool to a position and direction [Buss]_.

        Returns
        -------
        Joints, and the norm of what is left of the residual: metres, and sines of the angle.
        """
        joints = np.array(start, dtype=np.float64)
        for _ in range(iterations):
            frames = self.frames(np.cos(joints)[None], np.sin(joints)[None])
            points = self.points_of(frames)
            residual = tool - self.tool_of(frames, points)[0]
            size = float(np.linalg.norm(residual))
            if size < 1e-10:
                break
            jacobian = self.tool_jacobian(frames, points)[0]
            # Damping that shrinks with the residual: safe at singularities, quadratic at the end.
            square = jacobian @ jacobian.T + max(damping * min(size, 1.0), 1e-6) ** 2 * np.eye(6)
            joints = np.clip(joints + jacobian.T @ np.linalg.solve(square, residual), self.low, self.high)
        return joints, float(np.linalg.norm(tool - self.tool(joints[None])[0]))


def _balls(table: Sequence[tuple[int, tuple[float, float, float], float]]) -> tuple[LinkPoint, ...]:
    return tuple(LinkPoint(frame=frame, offset=offset, radius=radius) for frame, offset, radius in table)


#: The seven-joint arm of [Franka]_, covered by eight balls.
PANDA = Arm(
    a=np.array([0.0, 0.0, 0.0, 0.0825, -0.0825, 0.0, 0.088]),
    alpha=np.pi / 2 * np.array([0.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0]),
    d=np.array([0.333, 0.0, 0.316, 0.0, 0.384, 0.0, 0.0]),
    low=np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973]),
    high=np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973]),
    points=_balls(
        [
            (1, (0.0, -0.16, 0.0), 0.09),
            (2, (0.0, 0.0, 0.0), 0.09),
            (3, (0.0, 0.0, 0.0), 0.09),
            (4, (0.0, 0.0, -0.25), 0.08),
            (4, (0.0, 0.05, -0.12), 0.07),
            (5, (0.0, 0.0, 0.0), 0.08),
            (6, (0.0, 0.0, 0.05), 0.07),
            (6, (0.0, 0.0, 0.2), 0.05),
        ]
    ),
)
