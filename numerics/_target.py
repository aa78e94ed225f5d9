"""Formats and roundings as the scalars that the kernels take."""

from __future__ import annotations

from functools import lru_cache
from operator import index
from typing import Literal, NamedTuple, TypeAlias

from numerics._kernels import rounding as modes
from numerics.formats import FixedFormat, FloatFormat, Format
from numerics.rounding import Mode, Rounding

Overflow: TypeAlias = Literal["format", "saturate", "infinity", "nan"]

_MODES = {
    Mode.NEAREST_EVEN: modes.NEAREST_EVEN,
    Mode.NEAREST_AWAY: modes.NEAREST_AWAY,
    Mode.TOWARD_ZERO: modes.TOWARD_ZERO,
    Mode.DOWN: modes.DOWN,
    Mode.UP: modes.UP,
    Mode.TO_ODD: modes.TO_ODD,
    Mode.STOCHASTIC: modes.STOCHASTIC,
}
_OVERFLOWS = {"saturate": modes.SATURATE, "infinity": modes.INFINITY, "nan": modes.NAN}


class Target(NamedTuple):
    """What `numerics._kernels.rounding` needs to know of a format and a rounding, in its order."""

    mode: int
    frac_bits: int
    emin: int
    min_value: float
    max_value: float
    overflow: int
    flush: bool
    random_bits: int

    @classmethod
    @lru_cache(maxsize=1024)  # a cast of a cached array takes less time than this
    def of(cls, fmt: Format, rounding: Rounding, overflow: Overflow = "format") -> Target:
        """Scalars of `fmt` under `rounding`.

        Raises
        ------
        ValueError
            An overflow that the format has no code for.
        """
        if overflow not in ("format", *_OVERFLOWS):
            raise ValueError(f"overflow must be one of format, {', '.join(_OVERFLOWS)}; got {overflow!r}")
        if isinstance(fmt, FloatFormat):
            has = {"infinity": fmt.has_infinity, "nan": fmt.has_nan}
            if not has.get(overflow, True):
                raise ValueError(f"overflow {overflow!r} needs a code that {fmt} does not have")
            if overflow == "format":
                overflow = "infinity" if fmt.has_infinity else "saturate"
                if fmt.specials == "fused-top":
                    overflow = "nan"
            shape = (fmt.frac_bits, fmt.emin, -fmt.max if fmt.signed else 0.0, fmt.max)
            flush = not fmt.subnormals
        else:
            if overflow not in ("format", "saturate"):
                raise ValueError(f"overflow {overflow!r} needs a code that {fmt} does not have")
            if overflow == "format" and fmt.overflow == "wrap":
                raise ValueError(f"{fmt} wraps around, but a Target has ends; see Target.endless")
            overflow = "saturate"
            shape = (fmt.int_bits + fmt.frac_bits, fmt.int_bits, fmt.min, fmt.max)
            flush = False
        return cls(_MODES[rounding.mode], *shape, _OVERFLOWS[overflow], flush, rounding.random_bits)

    @classmethod
    def endless(cls, fmt: FixedFormat, rounding: Rounding) -> Target:
        """Scalars that round values below twice the range of `fmt` to its grid, without its ends."""
        shape = (fmt.int_bits + fmt.frac_bits + 3, fmt.int_bits + 3, -float("inf"), float("inf"))
        return cls(_MODES[rounding.mode], *shape, modes.SATURATE, False, rounding.random_bits)

    def scalars(self) -> tuple[float, ...]:
        """What the kernels take as a target: without random bits where the mode needs none."""
        return tuple(self) if self.mode == modes.STOCHASTIC else tuple(self)[:-1]

    def overflowed(self) -> tuple[float, float]:
        """Results of a finite overflow below and above in the mode itself; directed ones may stay finite."""
        below, above = self.limits()
        if self.mode in (modes.TOWARD_ZERO, modes.TO_ODD, modes.UP):
            below = self.min_value
        if self.mode in (modes.TOWARD_ZERO, modes.TO_ODD, modes.DOWN):
            above = self.max_value
        return below, above

    def limits(self) -> tuple[float, float]:
        """Results of an overflow below and above, rounding to nearest."""
        if self.overflow == modes.SATURATE:
            return self.min_value, self.max_value
        above = float("inf" if self.overflow == modes.INFINITY else "nan")
        return (-above if self.min_value < 0.0 else self.min_value), above


def full_setting(target: Target) -> tuple[int, int, int, float, float]:
    """Numbers of a `numerics._kernels.roundings.Full32`, in its order."""
    frac_bits = target.frac_bits
    fields = (target.emin + 127) << 23, (231 + frac_bits) << 23, (23 - frac_bits) << 23 | 0x400000
    return *fields, target.max_value, target.limits()[1]


def check_seed(rounding: Rounding, seed: int | None, stream: int) -> tuple[int, int]:
    """Seed and stream as the kernels take them.

    Raises
    ------
    TypeError, ValueError
        Stochastic rounding without a seed, or a number outside 0..2**63 - 1.
    """
    if rounding.is_stochastic and seed is None:
        raise ValueError(f"rounding {rounding} needs a seed (an integer in 0..2**63 - 1), got None")
    return _key("seed", 0 if seed is None else seed), _key("stream", stream)


def _key(name: str, value: int) -> int:
    try:
        number = index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer in 0..2**63 - 1, got {value!r}") from None
    if not 0 <= number < 1 << 63:
        raise ValueError(f"{name} must be in 0..2**63 - 1, got {number}")
    return number
