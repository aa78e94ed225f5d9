"""Number formats as plain values: small floats and fixed point.

A format is a set of values. It is frozen, hashable, checked at birth, printed as people write it
(``e4m3fn``, ``s3.4``) and parsed back from that text. Blocks that share a scale are in
`numerics.block`, the table of all names in `numerics.catalogue`.

References
----------
.. [OFP8] Open Compute Project, "OCP 8-bit Floating Point Specification", rev. 1.0, 2023.
.. [MX] Open Compute Project, "OCP Microscaling Formats (MX) Specification", rev. 1.0, 2023.
.. [Wang18] N. Wang et al., "Training Deep Neural Networks with 8-bit Floating Point Numbers",
   NeurIPS 2018, arXiv 1812.08011.
.. [HFP8] X. Sun et al., "Hybrid 8-bit Floating Point (HFP8) Training and Inference for Deep Neural
   Networks", NeurIPS 2019.
.. [FNUZ] B. Noune et al., "8-bit Numerical Formats for Deep Neural Networks", arXiv 2206.02915.
.. [P3109] IEEE SA P3109 Working Group, "Interim Report on Binary Floating-point Formats for Machine
   Learning".
.. [DLFloat] A. Agrawal et al., "DLFloat: A 16-b Floating Point Format Designed for Deep Learning
   Training and Inference", ARITH 2019.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from math import ldexp
from typing import Literal, TypeAlias, cast, get_args

import numpy as np
from jaxtyping import Float

Specials: TypeAlias = Literal["ieee", "fn", "none", "fnuz", "p3109", "fused-top"]
FixedOverflow: TypeAlias = Literal["saturate", "wrap"]

_SPECIALS: tuple[Specials, ...] = get_args(Specials)
_NAN_AT_MINUS_ZERO = ("fnuz", "p3109")
_LISTED_BITS = 16  # formats of at most so many bits list their values
# Without a suffix these mean the OCP formats [OFP8]_, [MX]_, as people write them.
_BARE: dict[tuple[int, int], Specials] = {
    (4, 3): "fn",
    (2, 1): "none",
    (2, 3): "none",
    (3, 2): "none",
}
_FLOAT_TEXT = re.compile(r"(u?)e(\d+)m(\d+)(ieee|fnuz|fn|none|p3109|fused-top)?(?:b(-?\d+))?(-flush)?")
_FIXED_TEXT = re.compile(r"([su])(\d+)\.(\d+)(-wrap)?")
_INTEGER_TEXT = re.compile(r"(u?)int(\d+)(-wrap)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatInfo:
    """Limits of a format, named as `numpy.finfo` names them.

    Attributes
    ----------
    bits, nexp, nmant
        Bits of one value, of its exponent field and of its stored fraction.
    max, min
        Largest and least finite value.
    smallest_normal, smallest_subnormal
        Smallest positive normal and smallest positive number; in fixed point both are one step.
    eps
        Spacing of the values relative to the power of two below them; in fixed point the step.
    minexp, maxexp
        Exponent of `smallest_normal`, and of the first power of two beyond the range.
    finite_values
        How many different finite numbers there are, zero counted once.
    """

    bits: int
    nexp: int
    nmant: int
    max: float
    min: float
    smallest_normal: float
    smallest_subnormal: float
    eps: float
    minexp: int
    maxexp: int
    finite_values: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatFormat:
    """A binary floating-point format of at most 32 bits.

    Attributes
    ----------
    exp_bits, frac_bits
        Exponent bits (1..8) and stored fraction bits (0..23).
    bias
        Exponent bias; ``None`` gives ``2**(exp_bits - 1) - 1``, one more with ``"fnuz"`` and
        ``"p3109"``.
    specials
        ``"ieee"``: the top exponent field holds infinities and NaNs. ``"fn"``: one NaN per sign, no
        infinity. ``"none"``: every code is a number. ``"fnuz"`` [FNUZ]_: one zero, one NaN at the
        code of -0, no infinity. ``"p3109"`` [P3109]_: the same NaN, and infinities at the code of
        largest magnitude of each sign. ``"fused-top"`` [DLFloat]_: the code of largest magnitude of
        each sign is "infinity or NaN"; it reads as NaN, and an overflow gives it.
    subnormals
        Without them, what rounds below the smallest normal number is zero.
    signed
        An unsigned format has no sign bit and no negative value.

    Examples
    --------
    >>> E4M3.max, E5M2.max, E4M3.min_subnormal == 2.0**-9
    (448.0, 57344.0, True)
    >>> str(FloatFormat.parse("e4m3fn")), E4M3.bits
    ('e4m3fn', 8)
    """

    exp_bits: int
    frac_bits: int
    bias: int | None = None
    specials: Specials = "ieee"
    subnormals: bool = True
    signed: bool = True

    def __post_init__(self) -> None:
        for name, low, high in (("exp_bits", 1, 8), ("frac_bits", 0, 23)):
            if not low <= (value := getattr(self, name)) <= high:
                raise ValueError(f"{name} must be in {low}..{high}, got {value!r}")
        if self.specials not in _SPECIALS:
            raise ValueError(f"specials must be one of {', '.join(_SPECIALS)}, got {self.specials!r}")
        if self.specials == "ieee" and self.exp_bits < 2:
            raise ValueError(f"exp_bits must be at least 2 with specials 'ieee', got {self.exp_bits}")
        if self.specials == "ieee" and self.frac_bits < 1:
            raise ValueError(f"frac_bits must be at least 1 with specials 'ieee', got {self.frac_bits}")
        if self._loses_top_code and self.exp_bits + self.frac_bits < 2:
            raise ValueError(
                f"frac_bits must be at least 1 with exp_bits 1 and specials {self.specials!r}, "
                f"got {self.frac_bits}"
            )
        if self.specials in _NAN_AT_MINUS_ZERO and not self.signed:
            raise ValueError(f"signed must be True with specials {self.specials!r}, got False")
        if self.bias is None:
            object.__setattr__(self, "bias", self._default_bias)
        elif not -127 <= self.bias <= 254:
            raise ValueError(f"bias must be in -127..254, got {self.bias}")
        if self.emin - self.frac_bits < -149 or self.emax > 127:
            raise ValueError(f"bias {self.bias} puts values of {self} outside the float32 range")

    @classmethod
    def parse(cls, text: str) -> FloatFormat:
        """Read ``e5m2``, ``e4m3fn``, ``e4m3noneb4``, ``e6m9-flush`` or a name such as ``bf16``."""
        key = text.strip().lower()
        if (named := _NAMED.get(key)) is not None:
            return named
        if (match := _FLOAT_TEXT.fullmatch(key)) is None:
            raise ValueError(
                f"format must be e<1..8>m<0..23>[{'|'.join(_SPECIALS)}][b<bias>][-flush] or one of "
                f"{', '.join(_NAMED)}; got {text!r}"
            )
        unsigned, exp_bits, frac_bits, specials, bias, flush = match.groups()
        pair = (int(exp_bits), int(frac_bits))
        return cls(
            exp_bits=pair[0],
            frac_bits=pair[1],
            bias=None if bias is None else int(bias),
            specials=cast("Specials", specials or _BARE.get(pair, "ieee")),
            subnormals=flush is None,
            signed=not unsigned,
        )

    def __str__(self) -> str:
        bare = _BARE.get((self.exp_bits, self.frac_bits), "ieee")
        # E4M3 keeps its suffix in print, for many write e4m3 and mean another.
        suffix = "" if self.specials == bare != "fn" else self.specials
        bias = "" if self.bias == self._default_bias else f"b{self.bias}"
        return (
            f"{'' if self.signed else 'u'}e{self.exp_bits}m{self.frac_bits}{suffix}{bias}"
            f"{'' if self.subnormals else '-flush'}"
        )

    @property
    def bits(self) -> int:
        """Bits of one stored value."""
        return int(self.signed) + self.exp_bits + self.frac_bits

    @property
    def precision(self) -> int:
        """Significand bits with the implicit one."""
        return self.frac_bits + 1

    @property
    def emin(self) -> int:
        """Exponent of the smallest positive normal number."""
        assert self.bias is not None  # filled in at birth
        return 1 - self.bias

    @property
    def emax(self) -> int:
        """Exponent of the largest finite number."""
        assert self.bias is not None
        top = (1 << self.exp_bits) - 1 - self.bias
        # One code of the top binade is taken; a format without fraction bits loses the binade.
        lost = self.specials == "ieee" or (self._loses_top_code and self.frac_bits == 0)
        return top - int(lost)

    @property
    def max(self) -> float:
        """Largest finite value: 448 for E4M3, 57344 for E5M2."""
        short = 2 if self._loses_top_code and self.frac_bits > 0 else 1
        return ldexp(2.0 - short * ldexp(1.0, -self.frac_bits), self.emax)

    @property
    def min_normal(self) -> float:
        """Smallest positive normal number."""
        return ldexp(1.0, self.emin)

    @property
    def min_subnormal(self) -> float:
        """Smallest positive number; without subnormals, the smallest normal one."""
        return ldexp(1.0, self.emin - self.frac_bits) if self.subnormals else self.min_normal

    @property
    def has_infinity(self) -> bool:
        """Whether the format has codes for infinities."""
        return self.specials in ("ieee", "p3109")

    @property
    def has_nan(self) -> bool:
        """Whether the format has a code for NaN."""
        return self.specials != "none"

    @property
    def has_minus_zero(self) -> bool:
        """Whether the format has a code for -0."""
        return self.signed and self.specials not in _NAN_AT_MINUS_ZERO

    @property
    def _default_bias(self) -> int:
        return (1 << (self.exp_bits - 1)) - int(self.specials not in _NAN_AT_MINUS_ZERO)

    @property
    def _loses_top_code(self) -> bool:
        """Whether exactly one code of each sign, that of largest magnitude, is no finite number."""
        return self.specials in ("fn", "p3109", "fused-top")

    @property
    def _positive_values(self) -> int:
        normal = (self.emax - self.emin + 1) << self.frac_bits
        top = int(self._loses_top_code and self.frac_bits > 0)
        return normal - top + ((1 << self.frac_bits) - 1) * self.subnormals

    def info(self) -> FormatInfo:
        """Limits of the format, as `numpy.finfo` gives them.

        Examples
        --------
        >>> E4M3.info().smallest_normal, E4M3.info().eps, E4M3.info().finite_values
        (0.015625, 0.125, 253)
        """
        return FormatInfo(
            bits=self.bits,
            nexp=self.exp_bits,
            nmant=self.frac_bits,
            max=self.max,
            min=-self.max if self.signed else 0.0,
            smallest_normal=self.min_normal,
            smallest_subnormal=self.min_subnormal,
            eps=ldexp(1.0, -self.frac_bits),
            minexp=self.emin,
            maxexp=self.emax + 1,
            finite_values=1 + self._positive_values * (1 + self.signed),
        )

    def values(self) -> Float[np.ndarray, " n"]:
        """All finite values in ascending order, zero once; formats of at most 16 bits.

        Examples
        --------
        >>> E2M1.values()[7:]
        array([0. , 0.5, 1. , 1.5, 2. , 3. , 4. , 6. ])
        """
        _check_listed(self)
        share = np.arange(1 << self.frac_bits)
        normal = [
            np.ldexp(share + float(1 << self.frac_bits), exponent - self.frac_bits)
            for exponent in range(self.emin, self.emax + 1)
        ]
        subnormal = np.ldexp(share[1:].astype(np.float64), self.emin - self.frac_bits)
        positive = np.concatenate([subnormal, *normal] if self.subnormals else normal)
        positive = positive[: self._positive_values]
        return np.concatenate([-positive[::-1] if self.signed else positive[:0], [0.0], positive])


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedFormat:
    """A fixed-point format ``s<integer>.<fraction>``.

    Attributes
    ----------
    int_bits, frac_bits
        Bits left and right of the binary point, without the sign: ``s3.4`` has 8 bits in all.
    signed
        Two's complement, ``-2**int_bits .. 2**int_bits - 2**-frac_bits``, or from zero on.
    overflow
        What a rounded value out of range becomes: the nearest end of the range (``"saturate"``), or
        the value of the range that is equal to it modulo ``2**bits`` steps (``"wrap"``).

    Examples
    --------
    >>> s = FixedFormat.parse("s3.4"); s.bits, s.min, s.max
    (8, -8.0, 7.9375)
    >>> str(FixedFormat.parse("int8-wrap"))
    's7.0-wrap'
    """

    int_bits: int
    frac_bits: int
    signed: bool = True
    overflow: FixedOverflow = "saturate"

    def __post_init__(self) -> None:
        for name in ("int_bits", "frac_bits"):
            if not 0 <= (value := getattr(self, name)) <= 31:
                raise ValueError(f"{name} must be in 0..31, got {value!r}")
        if not 1 <= self.bits <= 32:
            raise ValueError(f"a fixed format must have 1..32 bits, got {self.bits}")
        if self.overflow not in get_args(FixedOverflow):
            raise ValueError(f"overflow must be saturate or wrap, got {self.overflow!r}")

    @classmethod
    def parse(cls, text: str) -> FixedFormat:
        """Read ``s3.4``, ``u0.8``, ``int8``, ``s3.4-wrap``."""
        key = text.strip().lower()
        if integer := _INTEGER_TEXT.fullmatch(key):
            signed = not integer[1]
            int_bits, frac_bits, wrap = int(integer[2]) - signed, 0, integer[3]
        elif match := _FIXED_TEXT.fullmatch(key):
            signed = match[1] == "s"
            int_bits, frac_bits, wrap = int(match[2]), int(match[3]), match[4]
        else:
            raise ValueError(
                f"fixed format must be s<int>.<frac>, u<int>.<frac> or int<n>, with -wrap or without; "
                f"got {text!r}"
            )
        overflow: FixedOverflow = "wrap" if wrap else "saturate"
        return cls(int_bits=int_bits, frac_bits=frac_bits, signed=signed, overflow=overflow)

    def __str__(self) -> str:
        wrap = "-wrap" if self.overflow == "wrap" else ""
        return f"{'s' if self.signed else 'u'}{self.int_bits}.{self.frac_bits}{wrap}"

    @property
    def bits(self) -> int:
        """Bits of one stored value."""
        return int(self.signed) + self.int_bits + self.frac_bits

    @property
    def max(self) -> float:
        """Largest value."""
        return ldexp(1.0, self.int_bits) - ldexp(1.0, -self.frac_bits)

    @property
    def min(self) -> float:
        """Smallest value."""
        return -ldexp(1.0, self.int_bits) if self.signed else 0.0

    @property
    def step(self) -> float:
        """Distance of neighbouring values."""
        return ldexp(1.0, -self.frac_bits)

    def info(self) -> FormatInfo:
        """Limits of the format under the names of `numpy.finfo`."""
        return FormatInfo(
            bits=self.bits,
            nexp=0,
            nmant=self.int_bits + self.frac_bits,
            max=self.max,
            min=self.min,
            smallest_normal=self.step,
            smallest_subnormal=self.step,
            eps=self.step,
            minexp=-self.frac_bits,
            maxexp=self.int_bits,
            finite_values=1 << self.bits,
        )

    def values(self) -> Float[np.ndarray, " n"]:
        """All values in ascending order; formats of at most 16 bits."""
        _check_listed(self)
        return self.min + self.step * np.arange(1 << self.bits)


Format: TypeAlias = FloatFormat | FixedFormat


def _check_listed(fmt: Format) -> None:
    if fmt.bits > _LISTED_BITS:
        raise ValueError(f"values() lists formats of at most {_LISTED_BITS} bits, {fmt} has {fmt.bits}")


def parse_format(text: str | Format) -> Format:
    """Read any format from its text; a format passes through.

    Raises
    ------
    ValueError
        The text is no format; the message names it and the grammar.

    Examples
    --------
    >>> [str(parse_format(t)) for t in ("bf16", "e4m3fn", "s3.4", "int8")]
    ['e8m7', 'e4m3fn', 's3.4', 's7.0']
    """
    if isinstance(text, FloatFormat | FixedFormat):
        return text
    if not isinstance(text, str):
        raise TypeError(f"format must be text, FloatFormat or FixedFormat, got {text!r}")
    return _parsed(text)


@lru_cache(maxsize=1024)  # a cast of a cached array takes less time than reading its format
def _parsed(text: str) -> Format:
    if "block=" in text.lower() or re.match(r"mx|nv", text.strip().lower()):
        raise ValueError(f"one value's format is wanted; block formats are for cast, got {text!r}")
    if re.match(r"[su]\d|u?int\d", text.strip().lower()):
        return FixedFormat.parse(text)
    return FloatFormat.parse(text)


E4M3 = FloatFormat(exp_bits=4, frac_bits=3, specials="fn")  #: [OFP8]_
E5M2 = FloatFormat(exp_bits=5, frac_bits=2)  #: [OFP8]_, and the FP8 of [Wang18]_
E2M1 = FloatFormat(exp_bits=2, frac_bits=1, specials="none")  #: FP4 of [MX]_
E2M3 = FloatFormat(exp_bits=2, frac_bits=3, specials="none")  #: FP6 of [MX]_
E3M2 = FloatFormat(exp_bits=3, frac_bits=2, specials="none")  #: FP6 of [MX]_
HFP8 = FloatFormat(exp_bits=4, frac_bits=3, bias=4, specials="none")  #: forward format of [HFP8]_
E6M9 = FloatFormat(exp_bits=6, frac_bits=9)  #: the FP16 accumulator of [Wang18]_
BINARY16 = FloatFormat(exp_bits=5, frac_bits=10)
BFLOAT16 = FloatFormat(exp_bits=8, frac_bits=7)
TF32 = FloatFormat(exp_bits=8, frac_bits=10)
BINARY32 = FloatFormat(exp_bits=8, frac_bits=23)
E4M3FNUZ = FloatFormat(exp_bits=4, frac_bits=3, specials="fnuz")  #: [FNUZ]_
E5M2FNUZ = FloatFormat(exp_bits=5, frac_bits=2, specials="fnuz")  #: [FNUZ]_
BINARY8P3 = FloatFormat(exp_bits=5, frac_bits=2, specials="p3109")  #: [P3109]_
BINARY8P4 = FloatFormat(exp_bits=4, frac_bits=3, specials="p3109")  #: [P3109]_
#: After [DLFloat]_, which has no subnormals either but fills the lowest binade with normal numbers.
DLFLOAT16 = FloatFormat(exp_bits=6, frac_bits=9, specials="fused-top", subnormals=False)

_NAMED: dict[str, FloatFormat] = {
    "hfp8": HFP8,
    "fp16": BINARY16,
    "bf16": BFLOAT16,
    "tf32": TF32,
    "fp32": BINARY32,
    "binary16": BINARY16,
    "bfloat16": BFLOAT16,
    "binary32": BINARY32,
    "binary8p3": BINARY8P3,
    "binary8p4": BINARY8P4,
    "dlfloat16": DLFLOAT16,
}
