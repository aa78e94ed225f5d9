"""What formats hold, and what one rounding does: the tables behind ``bitfront formats`` and ``explain``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from numerics import (
    NAMED_FORMATS,
    BlockFormat,
    FixedFormat,
    Format,
    Rounding,
    cast,
    decode,
    encode,
    parse_format,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A value of a format with its code in binary."""

    value: float
    code: str

    def __str__(self) -> str:
        return f"{self.value!r:<24} code {self.code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One value, rounded.

    Attributes
    ----------
    below, above
        The largest value of the format at or below `value` and the least at or above it, ``None``
        beyond its ends; the same where `value` is on the format.
    is_tie
        `value` lies exactly between them.
    absolute_error, relative_error, ulp_error
        ``result - value``, exact; over ``|value|``; over the distance of the values around `value`
        (beyond the ends, of the two last values). ``None`` where the result is not finite, or the
        divisor is zero.
    """

    value: float
    format: Format
    rounding: Rounding
    below: Neighbour | None
    above: Neighbour | None
    is_tie: bool
    result: Neighbour
    absolute_error: Fraction | None
    relative_error: Fraction | None
    ulp_error: Fraction | None

    def lines(self) -> list[str]:
        """The explanation as printed, one fact a line."""
        facts = [
            ("value", repr(self.value)),
            ("format", f"{self.format} ({self.format.bits} bits)"),
            ("rounding", str(self.rounding)),
            ("below", "none, beyond the end of the format" if self.below is None else str(self.below)),
            ("above", "none, beyond the end of the format" if self.above is None else str(self.above)),
            ("tie", "yes" if self.is_tie else "no"),
            ("result", str(self.result)),
            ("absolute error", _shown(self.absolute_error)),
            ("relative error", _shown(self.relative_error)),
            ("error in ulp", _shown(self.ulp_error)),
        ]
        return [f"{name:<16}{text}" for name, text in facts]


def explain(
    value: float,
    fmt: Format | str,
    *,
    rounding: Rounding | str = Rounding.NEAREST_EVEN,
    seed: int | None = None,
) -> Explanation:
    """Round `value` to `fmt` and say what there was to choose from.

    Raises
    ------
    ValueError
        A value that is not finite; anything that `numerics.encode` refuses.

    Examples
    --------
    >>> e = explain(17.0, "e4m3fn")
    >>> e.below.value, e.above.value, e.is_tie, e.result.code, str(e.ulp_error)
    (16.0, 18.0, True, '0_1011_000', '-1/2')
    """
    fmt, rounding = parse_format(fmt), Rounding.parse(rounding)
    if not math.isfinite(value):
        raise ValueError(f"value must be a finite number, got {value!r}")
    code = encode(np.array([value]), fmt, rounding=rounding, seed=seed)
    result = float(decode(code, fmt, np.float64)[0])
    below, above = (_neighbour(value, fmt, mode) for mode in ("down", "up"))
    exact = Fraction(value)
    low, high = (None if n is None else Fraction(n.value) for n in (below, above))
    is_tie = low is not None and high is not None and low < exact < high and low + high == 2 * exact
    error = Fraction(result) - exact if math.isfinite(result) else None
    return Explanation(
        value=value,
        format=fmt,
        rounding=rounding,
        below=below,
        above=above,
        is_tie=is_tie,
        result=Neighbour(value=result, code=_binary(int(code[0]), fmt)),
        absolute_error=error,
        relative_error=None if error is None or exact == 0 else error / abs(exact),
        ulp_error=None if error is None else error / _ulp(low, high, fmt),
    )


def format_table() -> list[str]:
    """Lines of the table of all named formats."""
    header = f"{'name':<11}{'format':<29}{'bits':>6}{'max':>12}{'min':>12}{'min normal':>12}{'min > 0':>12}"
    rows = [header]
    for name, fmt in NAMED_FORMATS.items():
        if isinstance(fmt, BlockFormat):
            text = f"{fmt.element} block={fmt.block} scale={fmt.scale}"
            rows.append(f"{name:<11}{text:<29}{fmt.bits_per_value:>6.4g}")
            continue
        info = fmt.info()
        limits = (info.max, info.min, info.smallest_normal, info.smallest_subnormal)
        rows.append(f"{name:<11}{fmt!s:<29}{info.bits:>6}" + "".join(f"{limit:>12.5g}" for limit in limits))
    return rows


def _neighbour(value: float, fmt: Format, mode: str) -> Neighbour | None:
    x = np.array([value])
    found = cast(x, fmt, rounding=mode, overflow="saturate")
    beyond = found[0] > value if mode == "down" else found[0] < value
    if beyond:
        return None
    return Neighbour(value=float(found[0]), code=_binary(int(encode(found, fmt)[0]), fmt))


def _ulp(low: Fraction | None, high: Fraction | None, fmt: Format) -> Fraction:
    """Distance of the two values around a value; on a value, or beyond an end, of it and the next inwards."""
    if low is not None and high is not None and low < high:
        return high - low
    edge = low if low is not None else high
    assert edge is not None  # no value is beyond both ends
    if edge == 0:
        return Fraction(fmt.info().smallest_subnormal)
    inward = np.array([np.nextafter(float(edge), 0.0)])
    return abs(edge) - abs(Fraction(float(cast(inward, fmt, rounding="toward-zero")[0])))


def _binary(code: int, fmt: Format) -> str:
    digits = f"{code:0{fmt.bits}b}"
    sign = int(fmt.signed)
    point = sign + (fmt.int_bits if isinstance(fmt, FixedFormat) else fmt.exp_bits)
    parts = digits[:sign], digits[sign:point], digits[point:]
    return "_".join(part for part in parts if part)


def _shown(error: Fraction | None) -> str:
    if error is None:
        return "none"
    if error.denominator <= 1 << 20:
        return f"{float(error):.6g} ({error})" if error.denominator > 1 else f"{error}"
    return f"{float(error):.6g}"
