"""How one tensor enters a product: its format, its scale and its rounding, as values.

References
----------
.. [FP8] P. Micikevicius et al., "FP8 Formats for Deep Learning", arXiv 2209.05433, sections 2 and 3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, cast, get_args

import numpy as np

from numerics.accumulator import read_options
from numerics.block import BlockFormat, parse_any_format
from numerics.elementwise import check_holds
from numerics.formats import Format
from numerics.rounding import Rounding

Granularity: TypeAlias = Literal["none", "tensor", "channel"]

_GRAINS: tuple[Granularity, ...] = get_args(Granularity)
_TEXT = re.compile(r"([a-z]+)(-pow2)?(?::(\d+))?")
_OPTIONS = ("scaling", "rounding")


@dataclass(frozen=True, slots=True)
class Scaling:
    """By what a tensor is multiplied before it is rounded, so that it fills its format [FP8]_.

    The scale is ``max(format) / amax``, in float32, and 1 where ``amax`` is 0.

    Attributes
    ----------
    granularity
        ``"none"``: no scale. ``"tensor"``: one. ``"channel"``: one for each index of the axis that is not
        summed, so that the tensor is rounded anew for each product that sums another axis.
    history
        0: ``amax`` is that of the tensor itself. n (only for ``"tensor"``): it is the largest one of the n
        uses before this one, which needs no second pass over the tensor (delayed scaling).
    power_of_two
        Cut the scale to a power of two, so that it rounds nothing.

    Examples
    --------
    >>> str(Scaling.parse("tensor-pow2:16")), Scaling.parse("tensor:16").history
    ('tensor-pow2:16', 16)
    """

    granularity: Granularity = "none"
    history: int = 0
    power_of_two: bool = False

    NONE: ClassVar[Scaling]

    def __post_init__(self) -> None:
        if self.granularity not in _GRAINS:
            raise ValueError(f"granularity must be one of {', '.join(_GRAINS)}; got {self.granularity!r}")
        if isinstance(self.history, bool) or not isinstance(self.history, int):
            raise TypeError(f"history must be an integer, got {self.history!r}")
        if self.history < 0:
            raise ValueError(f"history must be at least 0, got {self.history}")
        if not isinstance(self.power_of_two, bool):
            raise TypeError(f"power_of_two must be True or False, got {self.power_of_two!r}")
        if self.history and self.granularity != "tensor":
            raise ValueError(
                f"history belongs to scaling by tensor, got history {self.history} with {self.granularity!r}"
            )
        if self.power_of_two and self.granularity == "none":
            raise ValueError("power_of_two belongs to scaling by tensor or channel, got it with 'none'")

    @classmethod
    def parse(cls, text: str | Scaling) -> Scaling:
        """Read ``none``, ``tensor``, ``tensor:16``, ``channel``, and ``-pow2`` after the first word.

        Raises
        ------
        ValueError, TypeError
            Anything else, by name.
        """
        if isinstance(text, Scaling):
            return text
        if not isinstance(text, str):
            raise TypeError(f"scaling must be text or Scaling, got {text!r}")
        match = _TEXT.fullmatch(text.strip().lower())
        if match is None or match[1] not in _GRAINS or (match[3] is not None and int(match[3]) < 1):
            raise ValueError(
                f"scaling must be none, tensor, tensor:<uses>, channel, or tensor-pow2, tensor-pow2:<uses>, "
                f"channel-pow2; got {text!r}"
            )
        return cls(cast("Granularity", match[1]), int(match[3] or 0), match[2] is not None)

    def __str__(self) -> str:
        history = f":{self.history}" if self.history else ""
        return f"{self.granularity}{'-pow2' if self.power_of_two else ''}{history}"


Scaling.NONE = Scaling()


@dataclass(frozen=True, slots=True)
class TensorPolicy:
    """Format, scaling and rounding of a tensor.

    Attributes
    ----------
    format
        Of the elements, or of blocks along the axis that is summed; text is parsed.
    scaling, rounding
        ``None`` takes the default of the layer; text is parsed. A block format has its scales inside: its
        scaling is ``none``, whatever the default.

    Examples
    --------
    >>> print(TensorPolicy.parse("e4m3fn scaling=tensor:16 rounding=stochastic:8"))
    e4m3fn scaling=tensor:16 rounding=stochastic:8
    >>> TensorPolicy("mxfp4").scaling is None
    True
    """

    format: Format | BlockFormat
    scaling: Scaling | None = None
    rounding: Rounding | None = None

    def __init__(
        self,
        format: Format | BlockFormat | str,  # noqa: A002  the noun of the field
        scaling: Scaling | str | None = None,
        rounding: Rounding | str | None = None,
    ) -> None:
        fmt = parse_any_format(format)
        if isinstance(fmt, BlockFormat):
            fmt.check_holds(np.dtype(np.float32))
        else:
            check_holds(np.dtype(np.float32), fmt)
        scale = None if scaling is None else Scaling.parse(scaling)
        if isinstance(fmt, BlockFormat) and scale not in (None, Scaling.NONE):
            raise ValueError(f"scaling of {fmt} must be none, for its blocks have scales, got {scale}")
        object.__setattr__(self, "format", fmt)
        object.__setattr__(self, "scaling", scale)
        object.__setattr__(self, "rounding", None if rounding is None else Rounding.parse(rounding))

    @classmethod
    def parse(cls, text: str | Format | BlockFormat | TensorPolicy) -> TensorPolicy:
        """Read ``<format> scaling=<scaling> rounding=<mode>``, with none, one or both options.

        A format stands for itself with the layer's scaling and rounding.

        Raises
        ------
        ValueError, TypeError
            No format, an unknown option, a bad value.
        """
        if isinstance(text, TensorPolicy):
            return text
        if not isinstance(text, str):
            return cls(text)
        words = text.split()
        options = [word for word in words if word.partition("=")[0] in _OPTIONS]
        read = read_options(options, _OPTIONS, "tensor")
        return cls(" ".join(word for word in words if word not in options), **read)

    def __str__(self) -> str:
        scaling = "" if self.scaling is None else f" scaling={self.scaling}"
        rounding = "" if self.rounding is None else f" rounding={self.rounding}"
        return f"{self.format}{scaling}{rounding}"
