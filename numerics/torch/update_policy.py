"""Numerics of the weight update, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numerics.accumulator import read_options
from numerics.formats import FloatFormat
from numerics.rounding import Rounding


@dataclass(frozen=True, slots=True)
class UpdatePolicy:
    """Numerics of the weight update.

    Attributes
    ----------
    format, rounding
        Of master weights and of every operation of the update; text is parsed.
    state_format
        Of momenta, ``None`` for `format`; text is parsed.

    Examples
    --------
    >>> print(UpdatePolicy.parse("e6m9 rounding=stochastic state_format=fp32"))
    e6m9 rounding=stochastic state_format=e8m23
    """

    format: FloatFormat
    rounding: Rounding = Rounding.NEAREST_EVEN
    state_format: FloatFormat | None = None

    def __init__(
        self,
        format: FloatFormat | str,  # noqa: A002  the noun of the field
        rounding: Rounding | str = Rounding.NEAREST_EVEN,
        state_format: FloatFormat | str | None = None,
    ) -> None:
        object.__setattr__(self, "format", _float_format("format", format))
        object.__setattr__(self, "rounding", Rounding.parse(rounding))
        state = None if state_format is None else _float_format("state_format", state_format)
        object.__setattr__(self, "state_format", state)

    @classmethod
    def parse(cls, text: str | UpdatePolicy) -> UpdatePolicy:
        """Read ``<format> rounding=<mode> state_format=<format>``, the options in any order.

        Raises
        ------
        ValueError
            An unknown option or a bad value.
        """
        if isinstance(text, UpdatePolicy):
            return text
        if not isinstance(text, str):
            raise TypeError(f"update must be text or UpdatePolicy, got {text!r}")
        head, *words = text.split() or [""]
        return cls(head, **read_options(words, ("rounding", "state_format"), "update"))

    def __str__(self) -> str:
        rounding = "" if self.rounding == Rounding.NEAREST_EVEN else f" rounding={self.rounding}"
        state = "" if self.state_format is None else f" state_format={self.state_format}"
        return f"{self.format}{rounding}{state}"


def _float_format(name: str, value: Any) -> FloatFormat:
    if isinstance(value, str):
        return FloatFormat.parse(value)
    if not isinstance(value, FloatFormat):
        raise TypeError(f"{name} must be a FloatFormat or its text, got {value!r}")
    return value
