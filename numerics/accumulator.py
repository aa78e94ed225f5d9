"""How a dot product is summed: register format, rounding and chunk, as a value.

References
----------
.. [Wang18] N. Wang et al., "Training Deep Neural Networks with 8-bit Floating Point Numbers",
   NeurIPS 2018, arXiv 1812.08011.
"""

from __future__ import annotations

from dataclasses import dataclass

from numerics.formats import FloatFormat
from numerics.rounding import Rounding


@dataclass(frozen=True, slots=True)
class Accumulator:
    """Sequential or chunked accumulation in a floating-point register [Wang18]_.

    Without a chunk, ``acc = round(acc + a[i] * b[i])`` for ascending i, from +0; the product is
    exact and each step rounds once. With a chunk, every run of `chunk` products is summed so from
    +0, and the partial sums are added, in order and with the same rounding, into an outer register
    of the same format.

    Attributes
    ----------
    format
        Register format; text is parsed.
    rounding
        Of every addition; text is parsed.
    chunk
        Products per inner sum, or ``None`` for one sequential sum.

    Examples
    --------
    >>> acc = Accumulator.parse("e6m9 chunk=64")
    >>> acc.format.frac_bits, acc.chunk, str(acc)
    (9, 64, 'e6m9 chunk=64')
    >>> str(Accumulator("e8m5", rounding="stochastic:10"))
    'e8m5 rounding=stochastic:10'
    """

    format: FloatFormat
    rounding: Rounding = Rounding.NEAREST_EVEN
    chunk: int | None = None

    def __init__(
        self,
        format: FloatFormat | str,  # noqa: A002  the noun of the field
        *,
        rounding: Rounding | str = Rounding.NEAREST_EVEN,
        chunk: int | None = None,
    ) -> None:
        fmt = FloatFormat.parse(format) if isinstance(format, str) else format
        if not isinstance(fmt, FloatFormat):
            raise TypeError(f"accumulator format must be a FloatFormat or its text, got {format!r}")
        if not fmt.signed:
            raise ValueError(f"accumulator format must be signed, got {fmt}")
        if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int)):
            raise TypeError(f"chunk must be an integer or None, got {chunk!r}")
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}")
        object.__setattr__(self, "format", fmt)
        object.__setattr__(self, "rounding", Rounding.parse(rounding))
        object.__setattr__(self, "chunk", chunk)

    @classmethod
    def parse(cls, text: str | Accumulator) -> Accumulator:
        """Read ``e6m9 chunk=64 rounding=stochastic:10``; an accumulator passes through.

        Raises
        ------
        ValueError
            An unknown word, or a bad format, chunk or rounding.
        """
        if isinstance(text, Accumulator):
            return text
        head, *words = text.split() or [""]
        options = dict(word.partition("=")[::2] for word in words)
        if len(options) < len(words):
            raise ValueError(f"each of chunk and rounding may be given once, got {text!r}")
        if unknown := [word for word in options if word not in ("chunk", "rounding")]:
            raise ValueError(f"accumulator options are chunk=<n> and rounding=<mode>, got {unknown[0]!r}")
        chunk = options.get("chunk")
        if chunk is not None and not chunk.isdecimal():
            raise ValueError(f"chunk must be a whole number, got {chunk!r}")
        return cls(
            head,
            rounding=options.get("rounding", Rounding.NEAREST_EVEN),
            chunk=None if chunk is None else int(chunk),
        )

    def __str__(self) -> str:
        chunk = "" if self.chunk is None else f" chunk={self.chunk}"
        rounding = "" if self.rounding == Rounding.NEAREST_EVEN else f" rounding={self.rounding}"
        return f"{self.format}{chunk}{rounding}"
