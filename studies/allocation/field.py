"""Obstacles as a grid of signed distances, and its trilinear interpolation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DistanceField:
    """Signed distances to obstacles in metres on a regular grid, negative inside.

    Attributes
    ----------
    low
        Corner of the grid, (3,), metres.
    step
        Distance of neighbouring nodes, metres.
    values : (x, y, z)
        At the nodes.
    """

    low: Float[np.ndarray, "3"]
    step: float
    values: Float[np.ndarray, "x y z"]

    @classmethod
    def of_balls(
        cls,
        centres: Float[np.ndarray, "k 3"],
        radii: Float[np.ndarray, " k"],
        *,
        low: Float[np.ndarray, "3"],
        high: Float[np.ndarray, "3"],
        nodes: int,
    ) -> DistanceField:
        """Field of balls, with `nodes` nodes along the longest edge of the box."""
        step = float((high - low).max()) / (nodes - 1)
        axes = [
            low[k] + step * np.arange(int(np.ceil((high[k] - low[k]) / step - 1e-9)) + 1) for k in range(3)
        ]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        distances = np.linalg.norm(grid[..., None, :] - centres, axis=-1) - radii
        return cls(low=np.array(low), step=step, values=distances.min(axis=-1))

    def corners(
        self, points: Float[np.ndarray, "n 3"]
    ) -> tuple[Int[np.ndarray, "n 8"], Float[np.ndarray, "n 3"]]:
        """Flat places of the eight nodes around each point, and where it lies between them, (n, 3) in [0, 1].

        Points outside count as on the border.
        """
        shape = np.array(self.values.shape)
        scaled = np.clip((points - self.low) / self.step, 0.0, shape - 1.0)
        cell = np.minimum(scaled.astype(np.int64), shape - 2)
        bits = np.array([[(k >> 2) & 1, (k >> 1) & 1, k & 1] for k in range(8)])
        nodes = cell[:, None] + bits
        flat = (nodes[..., 0] * shape[1] + nodes[..., 1]) * shape[2] + nodes[..., 2]
        return flat, scaled - cell

    def interpolated(
        self, nodes: Float[np.ndarray, "n 8"], place: Float[np.ndarray, "n 3"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n 3"]]:
        """Distance, (n,), and its gradient, (n, 3), from the values at the `corners`."""
        cube = nodes.reshape(-1, 2, 2, 2)
        x, y, z = (np.stack([1 - place[:, k], place[:, k]], axis=1) for k in range(3))
        along_z = np.einsum("nijk,nk->nij", cube, z)
        along_yz = np.einsum("nij,nj->ni", along_z, y)
        value = np.einsum("ni,ni->n", along_yz, x)
        gradient = np.stack(
            [
                along_yz[:, 1] - along_yz[:, 0],
                np.einsum("ni,ni->n", along_z[:, :, 1] - along_z[:, :, 0], x),
                np.einsum("nij,ni,nj->n", cube[..., 1] - cube[..., 0], x, y),
            ],
            axis=1,
        )
        return value, gradient / self.step
