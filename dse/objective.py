"""What a campaign wants: named numbers to minimise or maximise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
from jaxtyping import Float

from dse.space import Value


@dataclass(frozen=True, slots=True)
class Objective:
    """One quantity that a campaign minimises or maximises.

    Attributes
    ----------
    name, unit
        As in tables and plots, for example ``energy_pj`` and ``pJ``.
    minimize
        Direction.
    log
        Modelled and compared as ``log10``; every value must then be positive.
    known
        A deterministic function of the parameters that gives the exact value. It is called for
        candidates, never learnt and never told.
    inputs
        Names of the parameters a learnt objective depends on; ``None`` is all of them.
    threshold
        Nothing worse than this is of interest; it becomes the reference point of the search.

    Raises
    ------
    ValueError
        An empty name, `inputs` of a known objective, empty `inputs`, or a threshold that is not
        finite, or not positive with log.
    """

    name: str
    minimize: bool = True
    unit: str = field(default="", kw_only=True)
    log: bool = field(default=False, kw_only=True)
    known: Callable[[dict[str, Value]], float] | None = field(default=None, kw_only=True)
    inputs: Sequence[str] | None = field(default=None, kw_only=True)
    threshold: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"the name of an objective must be a non-empty text, got {self.name!r}")
        if self.inputs is not None:
            if self.known is not None:
                raise ValueError(f"inputs belongs to a learnt objective, but {self.name} is known")
            if isinstance(self.inputs, str) or not self.inputs:
                raise ValueError(
                    f"inputs of {self.name} must be a list of parameter names, got {self.inputs!r}"
                )
            object.__setattr__(self, "inputs", tuple(self.inputs))
        if self.threshold is not None:
            object.__setattr__(self, "threshold", self.check(self.threshold, what="threshold of "))

    def check(self, value: Any, *, what: str = "") -> float:
        """Return the value as a float, or raise ``ValueError`` that names objective and value."""
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ValueError(f"{what}{self.name} must be a number, got {value!r}") from None
        if not isfinite(number):
            raise ValueError(f"{what}{self.name} must be finite, got {number}")
        if self.log and number <= 0:
            raise ValueError(
                f"{what}{self.name} must be positive, since it is searched in log10, got {number}"
            )
        return number

    def cost(self, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Values as the search sees them, (n,): always minimised, in log10 where asked."""
        values = np.log10(values) if self.log else np.asarray(values, dtype=np.float64)
        return values if self.minimize else -values

    def describe(self) -> dict[str, object]:
        """As plain JSON data; of a known function only that there is one."""
        return {
            "name": self.name,
            "minimize": self.minimize,
            "unit": self.unit,
            "log": self.log,
            "known": self.known is not None,
            "inputs": None if self.inputs is None else list(self.inputs),
            "threshold": self.threshold,
        }
