"""Covariance kernels for prediction: families over ordered and categorical columns, and their priors.

Written on plain matrices rather than on GPyTorch modules: a campaign for prediction fits thousands of
small models, several families each time, and one fit here takes a fifth of the time.

References
----------
.. [Hvarfner24] C. Hvarfner, E. O. Hellsten, L. Nardi, "Vanilla Bayesian Optimization Performs Great
   in High Dimensions", arXiv 2402.02229: lengthscale priors that grow with the root of the dimension.
.. [Duvenaud11] D. Duvenaud, H. Nickisch, C. E. Rasmussen, "Additive Gaussian Processes", arXiv
   1112.4394: sums over all products of a given order, by Newton's identities.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from dse._bayes.columns import Rows

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=r".*torch\.jit.*", category=DeprecationWarning)
    import torch

Family: TypeAlias = Literal["rbf", "matern32", "matern52", "product32", "additive"]

_PART = 1 << 20  # numbers per array while a covariance matrix is computed
_MEAN_VARIANCE = 1.0  # prior variance of the mean of a standardised target


@dataclass(frozen=True, slots=True)
class Block:
    """One group of log hyper-parameters: where it starts, and its independent Gaussian prior."""

    name: str
    size: int
    mean: float
    deviation: float
    start: float
    signed: bool = False  # the parameter itself rather than its logarithm


def _blocks(family: Family, ordered: int, categorical: int) -> list[Block]:
    dimension = max(ordered + categorical, 1)
    growth = 0.5 * math.log(dimension)
    centre = math.sqrt(2.0) + growth  # [Hvarfner24]_
    blocks = [Block("noise", 1, -4.0, 1.0, -3.0), Block("scale", 1, 0.0, 1.0, 0.0)]
    if family == "additive":
        blocks.append(Block("orders", 3, 0.0, 1.5, 0.0))
        centre -= 1.0
    if ordered:
        blocks.append(Block("lengths", ordered, centre, math.sqrt(3.0), centre - 1.0))
    if categorical:
        blocks.append(Block("changes", categorical, 0.5 + growth, 1.7, 0.5))
    return blocks


class Kernel:
    """A kernel over pairs of rows, given as distances column by column.

    Parameters
    ----------
    family
        Shape of the kernel.
    ordered, categorical
        Columns, all of them varied.
    """

    def __init__(self, family: Family, ordered: tuple[int, ...], categorical: tuple[int, ...]) -> None:
        self.family = family
        self.ordered, self.categorical = list(ordered), list(categorical)
        self.blocks = _blocks(family, len(ordered), len(categorical))

    def distances(self, a: Rows, b: Rows) -> tuple[torch.Tensor, ...]:
        """Distance per ordered column and inequality per categorical one; a and b broadcast."""
        ordered = np.abs(a[..., self.ordered] - b[..., self.ordered])
        changed = a[..., self.categorical] != b[..., self.categorical]
        return torch.from_numpy(ordered), torch.from_numpy(changed.astype(np.float64))

    def split(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        """Hyper-parameters by name, out of their logarithms."""
        parts = torch.split(theta, [block.size for block in self.blocks])
        return {
            block.name: part if block.signed else torch.exp(part)
            for block, part in zip(self.blocks, parts, strict=True)
        }

    def constant(self, a: Rows, b: Rows) -> Float[np.ndarray, "n m"]:
        """Covariance that the unknown mean adds between rows, (n, m)."""
        return np.full((len(a), len(b)), _MEAN_VARIANCE)

    def matrix(self, parameters: dict[str, torch.Tensor], a: Rows, b: Rows) -> Float[np.ndarray, "n m"]:
        """Covariance of rows with rows, (n, m), computed in parts to bound the memory."""
        part = max(1, _PART // max(1, b.size))
        with torch.no_grad():
            parts = [
                self(parameters, self.distances(a[i : i + part, None], b[None])).numpy()
                for i in range(0, len(a), part)
            ]
        return np.concatenate(parts) if parts else np.zeros((0, len(b)))

    def __call__(
        self, parameters: dict[str, torch.Tensor], distances: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """Covariance of each pair, whatever shape the pairs are arranged in."""
        ordered, changed = distances[:2]
        scaled = ordered / parameters["lengths"] if self.ordered else ordered
        penalty = changed / parameters["changes"] if self.categorical else changed
        if self.family == "additive":
            factors = torch.cat([torch.exp(-0.5 * scaled * scaled), torch.exp(-penalty)], dim=-1)
            return parameters["scale"] * _orders(factors, parameters["orders"])
        return parameters["scale"] * _shape(self.family, scaled) * torch.exp(-penalty.sum(dim=-1))


def _shape(family: Family, scaled: torch.Tensor) -> torch.Tensor:
    if family == "product32":
        steps = math.sqrt(3.0) * scaled
        return torch.prod(1.0 + steps, dim=-1) * torch.exp(-steps.sum(dim=-1))
    square = (scaled * scaled).sum(dim=-1)
    if family == "rbf":
        return torch.exp(-0.5 * square)
    # A tiny offset, for the root has no derivative at zero.
    if family == "matern32":
        root = torch.sqrt(3.0 * square + 1e-12)
        return (1.0 + root) * torch.exp(-root)
    root = torch.sqrt(5.0 * square + 1e-12)
    return (1.0 + root + root * root / 3.0) * torch.exp(-root)


def _orders(factors: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted means over all single factors, products of two, and of three [Duvenaud11]_."""
    count = factors.shape[-1]
    first, second, third = (torch.sum(factors**power, dim=-1) for power in (1, 2, 3))
    result = weights[0] * first / count
    if count > 1:
        result = result + weights[1] * (first**2 - second) / (count * (count - 1))
    if count > 2:
        triples = first**3 - 3.0 * first * second + 2.0 * third
        result = result + weights[2] * triples / (count * (count - 1) * (count - 2))
    return result
