"""Rounding modes as values: ``nearest-even``, ``toward-zero``, ``stochastic:10``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

MAX_RANDOM_BITS = 32


class Mode(StrEnum):
    """What happens to a value between two neighbours of the format."""

    NEAREST_EVEN = "nearest-even"
    NEAREST_AWAY = "nearest-away"
    TOWARD_ZERO = "toward-zero"
    DOWN = "down"
    UP = "up"
    TO_ODD = "to-odd"
    STOCHASTIC = "stochastic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """A rounding mode, with its number of random bits where it is stochastic.

    Attributes
    ----------
    mode
        Nearest (ties to even or away), directed, to odd, or stochastic.
    random_bits
        ``r`` of stochastic rounding (1..32): the discarded part is cut to r bits and compared with
        r random ones, as hardware does; the bias is below ``2**-r`` of a unit in the last place. 0 is
        the exact one: up with the discarded part as its probability, by as many bits as decide.

    Examples
    --------
    >>> str(Rounding.parse("stochastic:10")), Rounding.parse("nearest-even") == Rounding.NEAREST_EVEN
    ('stochastic:10', True)
    """

    mode: Mode
    random_bits: int = 0

    NEAREST_EVEN: ClassVar[Rounding]
    NEAREST_AWAY: ClassVar[Rounding]
    TOWARD_ZERO: ClassVar[Rounding]
    DOWN: ClassVar[Rounding]
    UP: ClassVar[Rounding]
    TO_ODD: ClassVar[Rounding]
    STOCHASTIC: ClassVar[Rounding]

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "mode", Mode(self.mode))
        except ValueError:
            raise ValueError(f"mode must be one of {', '.join(Mode)}; got {self.mode!r}") from None
        if self.mode is Mode.STOCHASTIC:
            if not 0 <= self.random_bits <= MAX_RANDOM_BITS:
                raise ValueError(
                    f"random_bits must be in 1..{MAX_RANDOM_BITS}, or 0 for exact, got {self.random_bits}"
                )
        elif self.random_bits:
            raise ValueError(f"random_bits belongs to stochastic rounding, got {self.random_bits}")

    @classmethod
    def parse(cls, text: str | Rounding) -> Rounding:
        """Read ``nearest-even``, ..., ``stochastic`` (exact) or ``stochastic:<bits>`` (1..32)."""
        if isinstance(text, Rounding):
            return text
        if isinstance(text, str) and (match := re.fullmatch(r"stochastic(?::(\d+))?", text.strip().lower())):
            if match[1] is not None and not 1 <= int(match[1]) <= MAX_RANDOM_BITS:
                raise ValueError(f"random bits must be in 1..{MAX_RANDOM_BITS}, got {text!r}")
            return cls(mode=Mode.STOCHASTIC, random_bits=int(match[1] or 0))
        try:
            mode = Mode(text.strip().lower())
        except (ValueError, AttributeError):
            modes = ", ".join(mode for mode in Mode if mode is not Mode.STOCHASTIC)
            raise ValueError(f"rounding must be one of {modes}, stochastic[:<bits>]; got {text!r}") from None
        return cls(mode=mode)

    def __str__(self) -> str:
        if self.mode is Mode.STOCHASTIC and self.random_bits:
            return f"stochastic:{self.random_bits}"
        return str(self.mode)

    @property
    def is_stochastic(self) -> bool:
        """Whether it needs random bits."""
        return self.mode is Mode.STOCHASTIC


Rounding.NEAREST_EVEN = Rounding(mode=Mode.NEAREST_EVEN)
Rounding.NEAREST_AWAY = Rounding(mode=Mode.NEAREST_AWAY)
Rounding.TOWARD_ZERO = Rounding(mode=Mode.TOWARD_ZERO)
Rounding.DOWN = Rounding(mode=Mode.DOWN)
Rounding.UP = Rounding(mode=Mode.UP)
Rounding.TO_ODD = Rounding(mode=Mode.TO_ODD)
Rounding.STOCHASTIC = Rounding(mode=Mode.STOCHASTIC, random_bits=0)
