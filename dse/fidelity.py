"""How exactly a design is evaluated: the levels of one knob of the evaluation, and what each costs.

Epochs of training, simulated cycles, the effort of a synthesis: cheap evaluations tell about exact ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

Level: TypeAlias = int | float

_TOLERANCE = 1e-9  # of sums of prices, which are decimal fractions

#: Durations of exact evaluations below which times say more of the machine's mood than of the level.
LEAST_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Fidelity:
    """A knob of the evaluation, not of the design: the higher, the more exact and the dearer.

    Attributes
    ----------
    name
        Under which the evaluator receives the level, beside the parameters.
    levels
        Increasing; the last one is the full fidelity, whose results are what the campaign wants.
    prices
        What an evaluation at each level costs, in any unit: only ratios count. Without them a level costs
        in proportion to itself; the search then trusts the measured seconds instead, once each level has
        some and the full one takes a tenth of a second. A budget is always counted in these prices.
    unit
        Of the levels, for tables and plots.

    Raises
    ------
    ValueError
        Levels that do not increase or are no numbers, prices that are not positive or not one per level,
        or no prices where a level is not positive.

    Examples
    --------
    >>> from dse import Campaign, Objective, Ordinal, Space
    >>> epochs = Fidelity("epochs", (1, 4, 16))
    >>> epochs.full, epochs.price(4)
    (16, 0.25)
    >>> space = Space([Ordinal("width", range(1, 41))])
    >>> campaign = Campaign(space, [Objective("loss")], seed=0, fidelity=epochs)
    >>> campaign.run(lambda p: {"loss": (p["width"] - 23) ** 2 + 9 / p["epochs"]}, budget=6)
    >>> best = campaign.pareto()
    >>> best["epochs"].tolist(), campaign.spent <= 6 < campaign.finished
    ([16], True)
    """

    name: str
    levels: Sequence[Level]
    prices: Sequence[float] | None = field(default=None, kw_only=True)
    unit: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"the name of a fidelity must be a non-empty text, got {self.name!r}")
        levels = tuple(_number(f"a level of {self.name}", level) for level in _listed(self.levels))
        if len(levels) < 2:
            raise ValueError(f"levels of {self.name} must be at least 2, got {levels}")
        if any(low >= high for low, high in pairwise(levels)):
            raise ValueError(f"levels of {self.name} must increase, got {levels}")
        object.__setattr__(self, "levels", levels)
        if self.prices is None:
            if levels[0] <= 0:
                raise ValueError(f"levels of {self.name} without prices must be positive, got {levels[0]}")
            return
        prices = tuple(float(_number(f"a price of {self.name}", price)) for price in _listed(self.prices))
        if len(prices) != len(levels):
            raise ValueError(
                f"prices of {self.name} must be one per level, got {len(prices)} for {len(levels)} levels"
            )
        if min(prices) <= 0:
            raise ValueError(f"prices of {self.name} must be positive, got {min(prices)}")
        object.__setattr__(self, "prices", prices)

    @property
    def full(self) -> Level:
        """The most exact level."""
        return self.levels[-1]

    def check(self, level: Any) -> Level:
        """Return the level as this fidelity has it, or ``ValueError`` that lists the levels."""
        for known in self.levels:
            if level == known and not isinstance(level, bool):
                return known
        raise ValueError(f"{self.name} must be one of {', '.join(map(str, self.levels))}, got {level!r}")

    def price(self, level: Level) -> float:
        """Cost of an evaluation at a level, in units of one at full fidelity."""
        prices = self.levels if self.prices is None else self.prices
        return float(prices[self.levels.index(level)] / prices[-1])

    def position(self, level: Level) -> float:
        """Place of a level between the lowest, 0, and the full one, 1: logarithmic for positive levels."""
        low, full, here = self.levels[0], self.full, level
        if low > 0:
            low, full, here = (float(np.log(each)) for each in (low, full, here))
        return 1.0 if level == self.full else float((here - low) / (full - low))

    def measured_prices(
        self, levels: Sequence[Level], seconds: Float[np.ndarray, " n"]
    ) -> dict[Level, float]:
        """Prices in units of a full evaluation, by level, from the times of evaluations where they count.

        Parameters
        ----------
        levels, seconds : (n,)
            Of finished evaluations; NaN where the time is unknown.
        """
        stated = {level: self.price(level) for level in self.levels}
        if self.prices is not None:
            return stated
        taken = np.array([self.levels.index(level) for level in levels], dtype=int)
        known = np.isfinite(seconds) & (seconds > 0)
        median = {
            level: float(np.median(seconds[known & (taken == place)]))
            for place, level in enumerate(self.levels)
            if (known & (taken == place)).any()
        }
        if self.full not in median or median[self.full] < LEAST_SECONDS:
            return stated
        prices: dict[Level, float] = {}
        for level in self.levels:
            # Without a time of its own a level costs no less than the ones below it.
            guess = max(stated[level], *prices.values(), 0.0)
            prices[level] = median[level] / median[self.full] if level in median else guess
        return prices

    def describe(self) -> dict[str, object]:
        """As plain JSON data."""
        return {
            "name": self.name,
            "levels": list(self.levels),
            "prices": None if self.prices is None else list(self.prices),
            "unit": self.unit,
        }

    @staticmethod
    def of(described: Mapping[str, Any]) -> Fidelity:
        """Fidelity from what `describe` says of it."""
        return Fidelity(
            described["name"], described["levels"], prices=described["prices"], unit=described["unit"]
        )


def affordable(left: float) -> int:
    """Full evaluations that what is left of a budget pays for."""
    return max(int(np.floor(left + _TOLERANCE)), 0)


def _listed(given: Any) -> Sequence[Any]:
    if isinstance(given, str | Mapping):
        raise ValueError(f"levels and prices must be lists of numbers, got {given!r}")
    return tuple(given)


def _number(what: str, value: Any) -> Level:
    """`value` as an integer or a finite float, as it was given."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError(f"{what} must be a finite number, got {value!r}")
    return value
