"""Gauss-Newton optimisation of an arm's trajectory, with its tensors held in few bits between their uses.

The cost is one half of a sum of squares: accelerations of the joints, velocities at both ends, balls on the
links that come closer to an obstacle than a margin [CHOMP]_, and the pose of the tool at the end. Each
iteration linearises the residuals, solves the damped normal equations, whose matrix is banded in time, and
keeps the step if the cost falls [LM]_. Arithmetic is float64; what is stored between two steps of the
computation goes through a `Held`.

References
----------
.. [CHOMP] M. Zucker et al., "CHOMP: Covariant Hamiltonian Optimization for Motion Planning", IJRR 32, 2013.
.. [LM] D. Marquardt, "An Algorithm for Least-Squares Estimation of Nonlinear Parameters", SIAM J. Appl. Math.
   11(2), 1963.
.. [VaPr] "VaPr: Variable-Precision Tensors to Accelerate Robot Motion Planning", arXiv 2310.07854.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.linalg import LinAlgError, solveh_banded

from studies.allocation.arm import Arm
from studies.allocation.field import DistanceField
from studies.allocation.groups import Assignment
from studies.allocation.held import Held

#: Groups of tensors that are held, in the order of their first use.
GROUPS = (
    "field",
    "trajectory",
    "trigonometry",
    "frames",
    "points",
    "distances",
    "normals",
    "point_jacobian",
    "obstacle_jacobian",
    "tool_jacobian",
    "gradient",
    "matrix",
    "step",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A motion that is wanted.

    Attributes
    ----------
    start : (j,)
        Joints at the beginning, which are fixed.
    tool : (6,)
        Position and direction of the tool at the end.
    guess : (j,)
        Joints at the end of the straight line in joint space that is the first trajectory.
    waypoints
        Configurations of a trajectory, T, the first one included.
    smooth, clear, reach
        Weights of accelerations (per rad), of what is missing to `margin` metres (per m), and of the tool
        (per m, and per unit of its direction).
    """

    arm: Arm
    field: DistanceField
    start: Float[np.ndarray, " j"]
    tool: Float[np.ndarray, "6"]
    guess: Float[np.ndarray, " j"]
    waypoints: int = 24
    smooth: float = 100.0
    clear: float = 100.0
    reach: float = 300.0
    margin: float = 0.05

    @property
    def line(self) -> Float[np.ndarray, "t j"]:
        """The straight line from start to guess, (t, j)."""
        return np.linspace(self.start, self.guess, self.waypoints)

    @cached_property
    def roughness(self) -> Float[np.ndarray, "t t"]:
        """Square of the smoothness operator in time, (t, t): second differences, and both end velocities."""
        count = self.waypoints
        rows = np.zeros((count, count))
        for k in range(1, count - 1):
            rows[k, k - 1 : k + 2] = 1.0, -2.0, 1.0
        rows[0, :2] = -1.0, 1.0
        rows[-1, -2:] = -1.0, 1.0
        return np.asarray(self.smooth**2 * rows.T @ rows)

    def cost(self, trajectory: Float[np.ndarray, "t j"]) -> float:
        """Cost in float64."""
        held = Held()
        held.put("field", self.field.values)
        held.put("trajectory", trajectory)
        return _cost(self, held)


class Motion(NamedTuple):
    """What an optimisation found.

    Attributes
    ----------
    trajectory : (t, j)
        Joints in radians.
    tool_error_m
        Distance of the tool from where it should be at the end, computed in float64.
    clearance_m
        Least distance of a ball from an obstacle, negative in a collision, computed in float64.
    cost
        Computed in float64.
    """

    trajectory: Float[np.ndarray, "t j"]
    tool_error_m: float
    clearance_m: float
    cost: float


def optimise(scene: Scene, held: Held | Assignment | None = None, *, iterations: int = 12) -> Motion:
    """Trajectory after some iterations from the straight line.

    Parameters
    ----------
    held
        Where tensors are held, or the format of each of `GROUPS`; by default in float64.

    Raises
    ------
    FloatingPointError
        A tensor became NaN.
    """
    store = held if isinstance(held, Held) else Held(held)
    store.put("field", scene.field.values)
    store.put("trajectory", scene.line)
    damping, cost = 1.0, _cost(scene, store)
    for _ in range(iterations):
        before = store.get("trajectory")
        _linearise(scene, store)
        while True:
            _solve(scene, store, damping)
            store.put("trajectory", before + store.get("step"))
            changed = _cost(scene, store)
            if changed < cost:
                damping, cost = max(damping / 10, 1e-8), changed
                break
            damping *= 10
            if damping > 1e5:
                return _judged(scene, before)
    return _judged(scene, store.get("trajectory"))


def _cost(scene: Scene, held: Held) -> float:
    """Cost of the held trajectory; frames, points, distances and normals are held afterwards."""
    arm, joints = scene.arm, held.get("trajectory")
    held.put("trigonometry", np.stack([np.cos(joints), np.sin(joints)]))
    cosines, sines = held.get("trigonometry")
    held.put("frames", arm.frames(cosines, sines))
    frames = held.get("frames")
    held.put("points", arm.points_of(frames))
    points = held.get("points")
    places, between = scene.field.corners(points.reshape(-1, 3))
    distances, normals = scene.field.interpolated(held.gather("field", places), between)
    held.put("distances", distances.reshape(points.shape[:2]) - arm.radii)
    held.put("normals", normals.reshape(points.shape))
    missing = scene.clear * np.maximum(scene.margin - held.get("distances"), 0.0)
    away = scene.reach * (arm.tool_of(frames[-1:], points[-1:])[0] - scene.tool)
    rough = float(np.sum(joints * (scene.roughness @ joints)))
    return 0.5 * (rough + float(np.sum(missing**2)) + float(away @ away))


def _linearise(scene: Scene, held: Held) -> None:
    """Hold the Jacobians of the residuals at the held trajectory, and the gradient of the cost."""
    arm, joints, frames, points = scene.arm, held.get("trajectory"), held.get("frames"), held.get("points")
    held.put("point_jacobian", arm.jacobian(frames, points))
    short = scene.margin - held.get("distances")
    active = scene.clear * (short > 0)
    towards = np.einsum("tci,tcij->tcj", held.get("normals"), held.get("point_jacobian"))
    held.put("obstacle_jacobian", -active[..., None] * towards)
    held.put("tool_jacobian", scene.reach * arm.tool_jacobian(frames[-1:], points[-1:])[0])
    away = scene.reach * (arm.tool_of(frames[-1:], points[-1:])[0] - scene.tool)
    gradient = scene.roughness @ joints
    gradient += np.einsum("tc,tcj->tj", active * short, held.get("obstacle_jacobian"))
    gradient[-1] += away @ held.get("tool_jacobian")
    held.put("gradient", gradient[1:])  # the start is fixed


def _solve(scene: Scene, held: Held, damping: float) -> None:
    """Hold the damped Gauss-Newton step; its matrix is held as the upper band that the solver takes."""
    count, size = scene.waypoints - 1, scene.arm.joints
    obstacle, tool = held.get("obstacle_jacobian")[1:], held.get("tool_jacobian")
    blocks = np.einsum("tci,tcj->tij", obstacle, obstacle)
    blocks[-1] += tool.T @ tool
    full = np.zeros((count, size, count, size))
    steps = np.arange(count)
    full[steps, :, steps, :] = blocks
    for j in range(size):
        full[:, j, :, j] += scene.roughness[1:, 1:]
    square = full.reshape(count * size, count * size)
    square[np.diag_indices_from(square)] += damping
    width = 2 * size  # accelerations couple a waypoint with the two before it
    band = np.zeros((width + 1, count * size))
    for k in range(width + 1):
        band[width - k, k:] = np.diagonal(square, k)
    held.put("matrix", band)
    gradient = held.get("gradient").reshape(-1)
    try:
        step = solveh_banded(held.get("matrix"), -gradient)
    except LinAlgError:
        # Rounding made the matrix indefinite: the gradient over its diagonal is a step that descends.
        step = -gradient / np.maximum(held.get("matrix")[-1], damping)
    moved = np.zeros((scene.waypoints, size))
    moved[1:] = step.reshape(count, size)
    held.put("step", moved)


def _judged(scene: Scene, trajectory: Float[np.ndarray, "t j"]) -> Motion:
    """Measures of a trajectory in float64."""
    arm, joints = scene.arm, trajectory
    frames = arm.frames(np.cos(joints), np.sin(joints))
    points = arm.points_of(frames)
    places, between = scene.field.corners(points.reshape(-1, 3))
    distances, _ = scene.field.interpolated(scene.field.values.reshape(-1)[places], between)
    return Motion(
        trajectory=joints,
        tool_error_m=float(np.linalg.norm(points[-1, -1] - scene.tool[:3])),
        clearance_m=float((distances.reshape(points.shape[:2]) - arm.radii).min()),
        cost=scene.cost(joints),
    )
