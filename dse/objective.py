"""What a campaign wants: named numbers to minimise or maximise, and limits on others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float

from dse.space import Value

Transform: TypeAlias = Literal["auto", "log", "logit", "none"]


@dataclass(frozen=True, slots=True)
class Objective:
    """One quantity that a campaign minimises or maximises.

    Attributes
    ----------
    name, unit
        As in tables and plots, for example ``energy_pj`` and ``pJ``.
    minimize
        Direction.
    threshold
        Nothing worse than this is of interest; it becomes the reference point of the search.
    known
        A deterministic function of the parameters that gives the exact value. It is called for
        candidates, never learnt and never told.
    transform
        Scale on which it is modelled and compared: ``"log"`` (log10, of positive values), ``"logit"``
        (of values between 0 and 1), ``"none"``; ``"auto"`` compares it as it is, and models its
        logarithm where all values so far are positive and that predicts them better.
    inputs
        Names of the parameters a learnt objective depends on; ``None`` is all of them.
    features
        A cheap, deterministic function of the parameters that says what is known of a learnt objective
        before any evaluation: numbers by name, always the same names. Its model reads them beside the
        parameters, so what theory predicts need not be learnt again. Of quantities that span orders of
        magnitude, give logarithms.

    Raises
    ------
    ValueError
        An empty name, an unknown transform, `inputs` or `features` of a known objective, empty `inputs`,
        `features` that cannot be called, or a threshold that is not finite or not in the domain of the
        transform.

    Examples
    --------
    >>> def theory(p):
    ...     return {"rounding": 2.0 ** -p["bits"]}
    >>> Objective("loss", features=theory).features({"bits": 2})
    {'rounding': 0.25}
    """

    name: str
    minimize: bool = True
    unit: str = field(default="", kw_only=True)
    threshold: float | None = field(default=None, kw_only=True)
    known: Callable[[dict[str, Value]], float] | None = field(default=None, kw_only=True)
    transform: Transform = field(default="auto", kw_only=True)
    inputs: Sequence[str] | None = field(default=None, kw_only=True)
    features: Callable[[dict[str, Value]], Mapping[str, float]] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_name("an objective", self.name)
        if not isinstance(self.minimize, bool):
            raise ValueError(f"minimize of {self.name} must be True or False, got {self.minimize!r}")
        if self.transform not in get_args(Transform):
            raise ValueError(
                f"transform of {self.name} must be one of {', '.join(get_args(Transform))}, "
                f"got {self.transform!r}"
            )
        if self.inputs is not None:
            if self.known is not None:
                raise ValueError(f"inputs belongs to a learnt objective, but {self.name} is known")
            if isinstance(self.inputs, str) or not self.inputs:
                raise ValueError(
                    f"inputs of {self.name} must be a list of parameter names, got {self.inputs!r}"
                )
            object.__setattr__(self, "inputs", tuple(self.inputs))
        if self.features is not None:
            if self.known is not None:
                raise ValueError(f"features belong to a learnt objective, but {self.name} is known")
            if not callable(self.features):
                raise ValueError(f"features of {self.name} must be a function, got {self.features!r}")
        if self.threshold is not None:
            object.__setattr__(self, "threshold", self.check(self.threshold, what="threshold of "))

    def check(self, value: Any, *, what: str = "") -> float:
        """Return the value as a float, or raise ``ValueError`` that names objective and value."""
        number = finite(f"{what}{self.name}", value)
        if self.transform == "log" and number <= 0:
            raise ValueError(
                f"{what}{self.name} must be positive, since it is searched in log10, got {number}"
            )
        if self.transform == "logit" and not 0 < number < 1:
            raise ValueError(f"{what}{self.name} must lie between 0 and 1 for logit, got {number}")
        return number

    def cost(self, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Values as the search compares them, (n,): transformed, and always minimised."""
        values = np.asarray(values, dtype=np.float64)
        if self.transform == "log":
            values = np.log10(values)
        elif self.transform == "logit":
            values = np.log(values / (1 - values))
        return values if self.minimize else -values

    def value(self, costs: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Values of costs, (n,): the inverse of `cost`."""
        values = costs if self.minimize else -costs
        if self.transform == "log":
            return np.asarray(10.0**values)
        if self.transform == "logit":
            return np.asarray(1 / (1 + np.exp(-values)))
        return np.asarray(values)

    def deviation(
        self, costs: Float[np.ndarray, " n"], deviations: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """Standard deviations of values whose costs have these, (n,), to first order."""
        values = self.value(costs)
        if self.transform == "log":
            return np.asarray(np.log(10.0) * values * deviations)
        if self.transform == "logit":
            return np.asarray(values * (1 - values) * deviations)
        return np.asarray(deviations)

    def describe(self) -> dict[str, object]:
        """As plain JSON data; of functions only that there are any."""
        return {
            "name": self.name,
            "minimize": self.minimize,
            "unit": self.unit,
            "threshold": self.threshold,
            "known": self.known is not None,
            "transform": self.transform,
            "inputs": None if self.inputs is None else list(self.inputs),
            "features": self.features is not None,
        }


@dataclass(frozen=True, slots=True)
class OutcomeConstraint:
    """A limit on a measured quantity, which is told with the objectives and learnt as they are.

    Attributes
    ----------
    name
        Of an objective or of a quantity of its own.
    at_most, at_least
        Exactly one of the two.

    Examples
    --------
    >>> limit = OutcomeConstraint("accuracy", at_least=0.9)
    >>> limit.excess(np.array([0.85, 0.95])).round(2)
    array([ 0.05, -0.05])
    """

    name: str
    at_most: float | None = field(default=None, kw_only=True)
    at_least: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_name("a constraint", self.name)
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError(
                f"constraint {self.name} must have at_most or at_least, "
                f"got {'neither' if self.at_most is None else 'both'}"
            )
        for which in ("at_most", "at_least"):
            if (limit := getattr(self, which)) is not None:
                object.__setattr__(self, which, finite(f"{which} of {self.name}", limit))

    def check(self, value: Any) -> float:
        """Return the value as a float, or raise ``ValueError`` that names constraint and value."""
        return finite(self.name, value)

    def excess(self, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Amount by which values break the limit, (n,); not positive where they keep it."""
        values = np.asarray(values, dtype=np.float64)
        if self.at_most is not None:
            return values - self.at_most
        assert self.at_least is not None
        return self.at_least - values

    def describe(self) -> dict[str, object]:
        """As plain JSON data."""
        return {"name": self.name, "at_most": self.at_most, "at_least": self.at_least}


def finite(what: str, value: Any) -> float:
    """Return `value` as a float, or raise ``ValueError`` that names `what` and value."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be a number, got {value!r}") from None
    if not isfinite(number):
        raise ValueError(f"{what} must be finite, got {number}")
    return number


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str) or not name:
        raise ValueError(f"the name of {what} must be a non-empty text, got {name!r}")
