"""Formats of the tensors of a trajectory optimiser: the bits that a robot arm's motion needs."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from studies.allocation.arm import PANDA, Arm
from studies.allocation.field import DistanceField
from studies.allocation.held import Held
from studies.allocation.subject import Subject
from studies.allocation.trajectory import GROUPS, Scene, optimise

FORMATS = ("binary16", "e5m6", "e4m3fn", "e3m2", "e2m1")
SCENES = 2  # of a subject; the worst one counts
THRESHOLD = 0.2  # cost above that of float64, as a share of it

# Where the arm moves, in metres, and nodes of the field along the longest edge.
_LOW, _HIGH, _NODES = np.array([-0.1, -0.8, 0.0]), np.array([0.9, 0.8, 1.0]), 33
_HOME = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])
_SPREAD = np.array([0.3, 0.5, 0.4, 0.5, 0.6, 0.5, 0.8])
_TRIES = 1000


def robot_arm(seed: int = 0, *, scenes: int = SCENES) -> Subject:
    """Trajectories of a seven-joint arm around obstacles, from one side to the other.

    The quality is the largest excess over the scenes of the trajectory's cost over that of the same optimiser
    with float64 tensors, both computed in float64, as a share of the latter. Sizes and accesses are those of
    the optimisations in float64.
    """
    wanted = [draw_scene(PANDA, np.random.default_rng([seed, index])) for index in range(scenes)]
    held = Held()
    exact = [optimise(scene, held).cost for scene in wanted]

    def excess(formats: dict[str, str]) -> float:
        shares = []
        for scene, cost in zip(wanted, exact, strict=True):
            try:
                shares.append(optimise(scene, formats).cost / cost - 1.0)
            except FloatingPointError:
                return float("nan")
        return float(max(shares))

    return Subject(
        title=f"trajectory optimisation, 7-joint arm, {scenes} scenes",
        identity=f"robot-arm scenes={scenes} seed={seed}",
        groups=held.groups(GROUPS),
        formats=FORMATS,
        oracle=excess,
        quality="excess cost over float64",
        threshold=THRESHOLD,
        higher_is_better=False,
    )


def draw_scene(arm: Arm, rng: np.random.Generator) -> Scene:
    """Motion between two poses that are clear, with three balls on the straight line between them.

    Raises
    ------
    ValueError
        None was found.
    """
    for _ in range(_TRIES):
        start = _HOME + _SPREAD * rng.uniform(-1, 1, arm.joints)
        end = _HOME + _SPREAD * rng.uniform(-1, 1, arm.joints)
        start[0], end[0] = -rng.uniform(0.5, 1.1), rng.uniform(0.5, 1.1)
        tool = arm.tool(end[None])[0]
        guess, left = arm.inverse(tool, start)
        middle = _points(arm, (start + guess)[None] / 2)[0, -1]
        centres, radii = middle + rng.normal(0.0, 0.08, (3, 3)), rng.uniform(0.06, 0.1, 3)
        field = DistanceField.of_balls(centres, radii, low=_LOW, high=_HIGH, nodes=_NODES)
        scene = Scene(arm=arm, field=field, start=start, tool=tool, guess=guess)
        gaps = np.linalg.norm(_points(arm, scene.line)[:, :, None] - centres, axis=-1) - radii
        clear = gaps.min(axis=2) - arm.radii
        if left < 1e-6 and clear[[0, -1]].min() > scene.margin and clear.min() < -0.02:
            return scene
    raise ValueError(f"no scene was found in {_TRIES} tries")


def _points(arm: Arm, joints: Float[np.ndarray, "t j"]) -> Float[np.ndarray, "t c 3"]:
    return arm.points_of(arm.frames(np.cos(joints), np.sin(joints)))
