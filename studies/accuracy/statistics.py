"""What the tensors of a task look like in float32: measured once, so that features need no data.

Exponents tell nearly all that a format does to a tensor, so of every tensor there is a histogram over
binades, of its elements and of its energy; of every product its shape and the size of its terms and sums; of
the weight update, how large the change of a number is beside the number.

References
----------
.. [FP8] P. Micikevicius et al., "FP8 Formats for Deep Learning", arXiv 2209.05433, section 4: what matters
   of a tensor is where its exponents are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float

from studies.accuracy.runs import DATA

LOW, HIGH = -48, 32  #: binades of the histograms: the exponents LOW..HIGH - 1
UNIFORM = 7.0 / 3.0  #: mean square of numbers uniform in [1, 2)
STATISTICS = DATA / "statistics.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Binades:
    """Elements of a tensor by their exponents.

    Every looked-at step counts the same, whatever the size of its elements.

    Attributes
    ----------
    shares, energy : (HIGH - LOW,)
        Share of all elements, and of the sum of their squares, in each binade; the latter sums to 1, or to 0
        if all elements are zero.
    squares : (HIGH - LOW,)
        Mean square of the elements in each binade, over that of its lower end: 1..4.
    log2_rms, log2_max
        Binary logarithms of the root mean square of the elements and of the largest magnitude.
    """

    shares: Float[np.ndarray, " binades"]
    energy: Float[np.ndarray, " binades"]
    squares: Float[np.ndarray, " binades"]
    log2_rms: float
    log2_max: float

    @property
    def zeros(self) -> float:
        """Share of elements that are zero."""
        return float(1.0 - self.shares.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One of the three products of a layer.

    Attributes
    ----------
    layer, role
        Name of the layer, and ``forward``, ``backward`` or ``gradient``.
    rows, length, columns
        M, K and N: K products in each sum.
    density
        Share of products that are not zero.
    log2_term, log2_sum, log2_max
        Binary logarithms of the root mean square of the products that are not zero, of that of the sums, and
        of the largest sum.
    """

    layer: str
    role: str
    rows: int
    length: int
    columns: int
    density: float
    log2_term: float
    log2_sum: float
    log2_max: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Changes:
    """How large the changes of numbers are beside the numbers.

    Attributes
    ----------
    energy : (HIGH - LOW, HIGH - LOW)
        Share of the sum of the squares of the changes, by the exponent of the number (row; the first one also
        for zeros) and of its change (column). Sums to 1.
    log2_rms
        Binary logarithm of the root mean square of the changes.
    """

    energy: Float[np.ndarray, "binades binades"]
    log2_rms: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskStatistics:
    """Everything the features of a task are made of.

    Attributes
    ----------
    task
        Its name.
    twin_curve
        Shares of the steps of a whole run, rising to 1, and the share of the test set that the float32 twin
        has right after each, the mean of several seeds.
    guess_accuracy
        Share of the test set that the most frequent class is.
    steps
        Of a whole run.
    tensors
        By layer and role (``weight``, ``activation``, ``error``).
    products
        In the order of the network.
    weights
        All parameters.
    updates, momenta
        Changes of the parameters, and of the momenta, in a step.
    """

    task: str
    twin_curve: tuple[tuple[float, float], ...]
    guess_accuracy: float
    steps: int
    tensors: Mapping[tuple[str, str], Binades]
    products: tuple[Product, ...]
    weights: Binades
    updates: Changes
    momenta: Changes

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data, rounded to what matters."""
        return {
            "task": self.task,
            "twin_curve": [[share, round(accuracy, 6)] for share, accuracy in self.twin_curve],
            "guess_accuracy": round(self.guess_accuracy, 6),
            "steps": self.steps,
            "tensors": {" ".join(key): _stored(value) for key, value in self.tensors.items()},
            "products": [
                {
                    key: round(value, 4) if isinstance(value, float) else value
                    for key, value in asdict(one).items()
                }
                for one in self.products
            ],
            "weights": _stored(self.weights),
            "updates": _stored_changes(self.updates),
            "momenta": _stored_changes(self.momenta),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Statistics of stored ones."""
        tensors = {}
        for key, value in stored["tensors"].items():
            layer, _, role = key.rpartition(" ")
            tensors[layer, role] = _binades(value)
        return cls(
            task=stored["task"],
            twin_curve=tuple((share, accuracy) for share, accuracy in stored["twin_curve"]),
            guess_accuracy=stored["guess_accuracy"],
            steps=stored["steps"],
            tensors=tensors,
            products=tuple(Product(**one) for one in stored["products"]),
            weights=_binades(stored["weights"]),
            updates=_changes(stored["updates"]),
            momenta=_changes(stored["momenta"]),
        )


def write_statistics(found: Mapping[str, TaskStatistics], path: Path) -> None:
    """Write the statistics of tasks by name; equal ones give equal files."""
    stored = {name: statistics.to_json() for name, statistics in found.items()}
    path.write_text(json.dumps(stored, separators=(",", ":")) + "\n", encoding="utf-8")


def read_statistics(path: Path = STATISTICS) -> dict[str, TaskStatistics]:
    """Statistics of tasks by name, by default those that come with the package."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    return {name: TaskStatistics.from_json(one) for name, one in stored.items()}


@cache
def known() -> Mapping[str, TaskStatistics]:
    """The statistics that come with the package."""
    return read_statistics()


def _stored(found: Binades) -> dict[str, Any]:
    """Histograms without the empty ends."""
    filled = np.flatnonzero(found.shares > 0.0)
    first, last = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)
    return {
        "first": first + LOW,
        "shares": [float(f"{x:.3g}") for x in found.shares[first:last]],
        "energy": [float(f"{x:.3g}") for x in found.energy[first:last]],
        "squares": [round(float(x), 2) for x in found.squares[first:last]],
        "log2_rms": round(found.log2_rms, 3),
        "log2_max": round(found.log2_max, 3),
    }


def _binades(stored: Mapping[str, Any]) -> Binades:
    arrays = {}
    for name in ("shares", "energy", "squares"):
        arrays[name] = np.full(HIGH - LOW, UNIFORM if name == "squares" else 0.0)
        first = stored["first"] - LOW
        arrays[name][first : first + len(stored[name])] = stored[name]
    return Binades(log2_rms=stored["log2_rms"], log2_max=stored["log2_max"], **arrays)


def _stored_changes(found: Changes) -> dict[str, Any]:
    """The largest shares, as (exponent of the number, exponent of the change, share)."""
    rows, columns = np.nonzero(found.energy > 1e-4)
    shares = found.energy[rows, columns]
    listed = [
        [int(row) + LOW, int(column) + LOW, float(f"{share:.3g}")]
        for row, column, share in zip(rows, columns, shares, strict=True)
    ]
    return {"log2_rms": round(found.log2_rms, 3), "energy": listed}


def _changes(stored: Mapping[str, Any]) -> Changes:
    energy = np.zeros((HIGH - LOW, HIGH - LOW))
    for row, column, share in stored["energy"]:
        energy[int(row) - LOW, int(column) - LOW] = share
    return Changes(energy=energy / energy.sum(), log2_rms=stored["log2_rms"])
