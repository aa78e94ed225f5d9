"""How a dot product is summed: registers, roundings, order of the additions, as a value.

References
----------
.. [Wang18] N. Wang et al., "Training Deep Neural Networks with 8-bit Floating Point Numbers",
   NeurIPS 2018, arXiv 1812.08011.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from numerics.formats import FloatFormat
from numerics.rounding import Rounding

Order: TypeAlias = Literal["sequential", "pairwise"]

_ORDERS = ("sequential", "pairwise")
_OPTIONS = ("product", "chunk", "outer", "lanes", "order", "rounding")
MAX_LANES = 1024


@dataclass(frozen=True, slots=True)
class Register:
    """A register of its own for the sums of the chunks.

    Attributes
    ----------
    format, rounding
        Of the register and of every addition into it; text is parsed.

    Examples
    --------
    >>> str(Register.parse("e8m13/toward-zero"))
    'e8m13/toward-zero'
    """

    format: FloatFormat
    rounding: Rounding = Rounding.NEAREST_EVEN

    def __init__(
        self,
        format: FloatFormat | str,  # noqa: A002  the noun of the field
        rounding: Rounding | str = Rounding.NEAREST_EVEN,
    ) -> None:
        object.__setattr__(self, "format", _signed_format("outer", format))
        object.__setattr__(self, "rounding", Rounding.parse(rounding))

    @classmethod
    def parse(cls, text: str, default: Rounding = Rounding.NEAREST_EVEN) -> Register:
        """Read ``e8m13`` (rounding as `default`) or ``e8m13/toward-zero``."""
        fmt, slash, rounding = text.partition("/")
        return cls(fmt, rounding if slash else default)

    def __str__(self) -> str:
        return f"{self.format}/{self.rounding}"


@dataclass(frozen=True, slots=True)
class Accumulator:
    """Accumulation in floating-point registers, every addition rounded once [Wang18]_.

    Without options, ``acc = round(acc + a[i] * b[i])`` for ascending i, from +0; the product is exact
    (a fused multiply-add). The options compose in this order:

    * `product`: each product is first rounded to that format, by `rounding`.
    * `chunk`: every run of `chunk` products is summed alone, from +0, and the partial sums are added,
      in order and from +0, into the `outer` register (of the same format and rounding if not given).
    * `lanes` = p: inside a chunk, the product at position i of the chunk is added to lane i mod p;
      in the end lanes 1, 2, ..., p - 1 are added to lane 0, in that order.
    * `order` = ``"pairwise"``: inside a chunk, an adder tree. The sum of n >= 2 products is the
      rounded sum of the first s and of the other n - s, with s the largest power of two below n; that
      is, neighbours are added level by level, and an odd last one passes on. Products enter the tree
      unrounded (unless `product` is given); a tree of one product rounds it.

    Stochastic roundings take the random word that belongs to the output element (row by row) and to a
    number, with n products in c chunks:

    * ``i`` for the addition of product i, and in a tree for the addition whose right operand begins
      with product i (the rounding of a lone product i, too);
    * ``n + j`` for the addition of chunk j to the outer register;
    * ``n + c + j * (p - 1) + l - 1`` for the addition of lane l in chunk j;
    * ``n + c * p + i`` for the rounding of product i.

    Attributes
    ----------
    format
        Register format; text is parsed.
    rounding
        Of every addition; text is parsed.
    product
        Format of the rounded products, or ``None`` for exact ones; text is parsed.
    chunk
        Products per inner sum, or ``None`` for one sum.
    outer
        Register of the chunk sums. Text without a rounding (``e8m23``) and a format take `rounding`;
        a register equal to the inner one is stored as ``None``.
    lanes
        Interleaved partial sums.
    order
        ``"sequential"`` or ``"pairwise"``.

    Examples
    --------
    >>> acc = Accumulator.parse("e6m9 chunk=64")
    >>> acc.format.frac_bits, acc.chunk, str(acc)
    (9, 64, 'e6m9 chunk=64')
    >>> str(Accumulator("e8m5", rounding="stochastic:10"))
    'e8m5 rounding=stochastic:10'
    >>> Accumulator.parse("e6m9 product=e5m7 chunk=64 outer=e8m23/toward-zero lanes=4").outer
    Register(format=FloatFormat(exp_bits=8, frac_bits=23, bias=127, specials='ieee', subnormals=True,
    signed=True), rounding=Rounding(mode=<Mode.TOWARD_ZERO: 'toward-zero'>, random_bits=0))
    """

    format: FloatFormat
    rounding: Rounding = Rounding.NEAREST_EVEN
    product: FloatFormat | None = None
    chunk: int | None = None
    outer: Register | None = None
    lanes: int = 1
    order: Order = "sequential"

    def __init__(
        self,
        format: FloatFormat | str,  # noqa: A002  the noun of the field
        *,
        rounding: Rounding | str = Rounding.NEAREST_EVEN,
        product: FloatFormat | str | None = None,
        chunk: int | None = None,
        outer: Register | FloatFormat | str | None = None,
        lanes: int = 1,
        order: Order = "sequential",
    ) -> None:
        fmt, mode = _signed_format("accumulator", format), Rounding.parse(rounding)
        if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int)):
            raise TypeError(f"chunk must be an integer or None, got {chunk!r}")
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}")
        if isinstance(lanes, bool) or not isinstance(lanes, int):
            raise TypeError(f"lanes must be an integer, got {lanes!r}")
        if not 1 <= lanes <= MAX_LANES:
            raise ValueError(f"lanes must be in 1..{MAX_LANES}, got {lanes}")
        if order not in _ORDERS:
            raise ValueError(f"order must be one of {', '.join(_ORDERS)}; got {order!r}")
        if order == "pairwise" and lanes > 1:
            raise ValueError(f"a tree has no lanes: order=pairwise excludes lanes={lanes}")
        if outer is not None and chunk is None:
            raise ValueError(f"an outer register adds the sums of chunks: outer={outer} needs chunk=<n>")
        if isinstance(outer, str):
            outer = Register.parse(outer, mode)
        elif outer is not None and not isinstance(outer, Register):
            outer = Register(outer, mode)
        object.__setattr__(self, "format", fmt)
        object.__setattr__(self, "rounding", mode)
        object.__setattr__(self, "product", None if product is None else _signed_format("product", product))
        object.__setattr__(self, "chunk", chunk)
        object.__setattr__(self, "outer", None if outer == Register(fmt, mode) else outer)
        object.__setattr__(self, "lanes", lanes)
        object.__setattr__(self, "order", order)

    @classmethod
    def parse(cls, text: str | Accumulator) -> Accumulator:
        """Read ``e6m9 product=e5m7 chunk=64 outer=e8m23 rounding=up``; an accumulator passes through.

        The options are ``product=<format>``, ``chunk=<n>``, ``outer=<format>[/<rounding>]``,
        ``lanes=<p>``, ``order=<order>`` and ``rounding=<mode>``, in any order.

        Raises
        ------
        ValueError
            An unknown word, a bad value, or options that exclude each other.
        """
        if isinstance(text, Accumulator):
            return text
        head, *words = text.split() or [""]
        options = read_options(words, _OPTIONS, "accumulator")
        return cls(
            head,
            rounding=options.get("rounding", Rounding.NEAREST_EVEN),
            product=options.get("product"),
            chunk=whole(options, "chunk", None),
            outer=options.get("outer"),
            lanes=cast("int", whole(options, "lanes", 1)),
            order=cast("Order", options.get("order", "sequential")),
        )

    def __str__(self) -> str:
        words = [str(self.format)]
        if self.product is not None:
            words.append(f"product={self.product}")
        if self.chunk is not None:
            words.append(f"chunk={self.chunk}")
        if self.outer is not None:
            same = self.outer.rounding == self.rounding
            words.append(f"outer={self.outer.format if same else self.outer}")
        if self.lanes > 1:
            words.append(f"lanes={self.lanes}")
        if self.order != "sequential":
            words.append(f"order={self.order}")
        if self.rounding != Rounding.NEAREST_EVEN:
            words.append(f"rounding={self.rounding}")
        return " ".join(words)

    @property
    def is_plain(self) -> bool:
        """Whether it is a sequential or chunked sum of exact products in one kind of register."""
        return self.product is None and self.outer is None and self.lanes == 1 and self.order == "sequential"


def _signed_format(name: str, value: FloatFormat | str) -> FloatFormat:
    fmt = FloatFormat.parse(value) if isinstance(value, str) else value
    if not isinstance(fmt, FloatFormat):
        raise TypeError(f"{name} format must be a FloatFormat or its text, got {value!r}")
    if not fmt.signed:
        raise ValueError(f"{name} format must be signed, got {fmt}")
    if not fmt.has_minus_zero:
        raise ValueError(f"{name} format must have a zero of each sign, got {fmt}")
    return fmt


def read_options(words: list[str], known: tuple[str, ...], noun: str) -> dict[str, str]:
    """Values of ``name=value`` words, each of a known name and given once."""
    options = dict(word.partition("=")[::2] for word in words)
    if unknown := [word for word in options if word not in known]:
        raise ValueError(f"{noun} options are {', '.join(known)} (as <option>=<value>), got {unknown[0]!r}")
    if len(options) < len(words):
        raise ValueError(f"each of {', '.join(known)} may be given once, got {' '.join(words)!r}")
    return options


def whole(options: dict[str, str], name: str, default: int | None) -> int | None:
    """Whole number of an option, or the default."""
    if (text := options.get(name)) is None:
        return default
    if not text.isdecimal():
        raise ValueError(f"{name} must be a whole number, got {text!r}")
    return int(text)
