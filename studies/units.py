"""Numbers as people read them: three digits, a prefix, a unit."""

from __future__ import annotations

from math import floor, isinf, isnan, log10

NOT_APPLICABLE = "-"

_PREFIXES = {-15: "f", -12: "p", -9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P"}
_DIGITS = 3


def si(value: float | None, unit: str) -> str:
    """Three digits with an SI prefix, a dash for ``None``.

    Examples
    --------
    >>> si(0.0123456, "J"), si(25_000_000, "B"), si(0, "B"), si(999.9, "B"), si(12, "B"), si(None, "J")
    ('12.3 mJ', '25.0 MB', '0 B', '1.00 kB', '12 B', '-')
    """
    if value is None or isnan(value):
        return NOT_APPLICABLE
    if value == 0 or isinf(value):
        return f"{value:g} {unit}".rstrip()
    rounded = float(f"{value:.{_DIGITS - 1}e}")
    power = min(max(3 * floor(log10(abs(rounded)) / 3), min(_PREFIXES)), max(_PREFIXES))
    scaled = rounded / 10.0**power
    text = f"{value:g}" if power == 0 and value == round(value) else digits(scaled)
    return f"{text} {_PREFIXES[power]}{unit}".rstrip()


def digits(value: float | None) -> str:
    """Three digits without a prefix or exponent; whole where there are more before the point.

    Examples
    --------
    >>> digits(0.5), digits(1234.5), digits(0), digits(None)
    ('0.500', '1234', '0', '-')
    """
    if value is None:
        return NOT_APPLICABLE
    if value == 0:
        return "0"
    return f"{value:.{max(0, _DIGITS - 1 - floor(log10(abs(value))))}f}"


def energy(pj: float | None) -> str:
    """Picojoules in the prefix that fits."""
    return si(None if pj is None else pj * 1e-12, "J")


def area(um2: float | None) -> str:
    """Square micrometres as square millimetres.

    Examples
    --------
    >>> area(3_213_000), area(1234)
    ('3.21 mm2', '0.00123 mm2')
    """
    return NOT_APPLICABLE if um2 is None else f"{digits(um2 * 1e-6)} mm2"


def share(part: float | None, total: float) -> str:
    """Per cent of a total; a dash where there is none.

    Examples
    --------
    >>> share(1, 3), share(1, 100_000), share(0, 3), share(1, 0)
    ('33.3 %', '<0.1 %', '0 %', '-')
    """
    if part is None or not total:
        return NOT_APPLICABLE
    per_cent = 100 * part / total
    if 0 < per_cent < 0.05:
        return "<0.1 %"
    return "0 %" if per_cent == 0 else f"{per_cent:.1f} %"


def change(relative: float | None) -> str:
    """Relative change in per cent, signed.

    Examples
    --------
    >>> change(0.0312), change(-0.5), change(0.0), change(12.3), change(1e-7), change(None)
    ('+3.1 %', '-50.0 %', '0 %', '+1230 %', '+0.0 %', '-')
    """
    if relative is None or isnan(relative):
        return NOT_APPLICABLE
    if relative == 0:
        return "0 %"
    return f"{100 * relative:+.0f} %" if abs(relative) >= 10 else f"{100 * relative:+.1f} %"


def ratio(value: float | None, base: float | None) -> str:
    """How many times `base`.

    Examples
    --------
    >>> ratio(3, 2), ratio(1, 0)
    ('1.50x', '-')
    """
    return NOT_APPLICABLE if value is None or not base else f"{digits(value / base)}x"
