"""Sizes of memory as people write them: ``512KiB``, and ranges of them, ``64KiB:4MiB:x2``."""

from __future__ import annotations

import re
from fractions import Fraction

from accel._given import LIMIT

_UNITS = {
    "": 1, "B": 1,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30,
    "KB": 10**3, "MB": 10**6, "GB": 10**9,
}  # fmt: skip
_MOST_SIZES = 200


def parse_size(text: str) -> int:
    """Bytes of ``512KiB``, ``1.5MiB``, ``100kB`` or ``65536``.

    Raises
    ------
    ValueError
        It is no such text, no whole number of bytes, not positive, or in KB, which means 1000 bytes to some
        and 1024 to others.

    Examples
    --------
    >>> parse_size("512KiB"), parse_size("1.5 MiB"), parse_size("702464")
    (524288, 1572864, 702464)
    """
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", text)
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None:
        raise ValueError(f"a size must be a number with B, KiB, MiB, GiB, kB, MB or GB, got {text!r}")
    if found[2].upper() == "KB" and found[2] != "kB":
        raise ValueError(f"a size must be in KiB, 1024 bytes, or in kB, 1000 bytes, got {text!r}")
    size = Fraction(found[1]) * unit
    if size.denominator != 1 or not 1 <= size < LIMIT:
        raise ValueError(f"a size must be a whole number of bytes, at least 1 and below 2**62, got {text!r}")
    return size.numerator


def parse_sweep(text: str) -> tuple[int, ...]:
    """Sizes of ``FROM:TO:xFACTOR`` or ``FROM:TO:+STEP``, or of a list ``A,B,C``; ascending.

    Raises
    ------
    ValueError
        It is no such text, or would give no size or more than 200.

    Examples
    --------
    >>> [size // 1024 for size in parse_sweep("64KiB:1MiB:x2")]
    [64, 128, 256, 512, 1024]
    >>> parse_sweep("1kB:2kB:+400B"), parse_sweep("2kB,1kB")
    ((1000, 1400, 1800), (1000, 2000))
    """
    if ":" not in text:
        return tuple(sorted({parse_size(part) for part in text.split(",")}))
    parts = text.split(":")
    if len(parts) != 3 or not parts[2] or parts[2][0] not in "x+":
        raise ValueError(f"a sweep must be FROM:TO:xFACTOR, FROM:TO:+STEP or a list A,B,C; got {text!r}")
    low, high = parse_size(parts[0]), parse_size(parts[1])
    if low > high:
        raise ValueError(f"a sweep must begin with its smallest size, got {text!r}")
    step = parts[2]
    if step[0] == "+":
        difference = parse_size(step[1:])
        count = (high - low) // difference + 1
        sizes = [low + k * difference for k in range(min(count, _MOST_SIZES + 1))]
    else:
        factor = _factor(step[1:], text)
        sizes = []
        power = 0
        while (size := int(low * factor**power)) <= high and len(sizes) <= _MOST_SIZES:
            sizes.append(size)
            power += 1
    if len(sizes) > _MOST_SIZES:
        raise ValueError(f"a sweep must have at most {_MOST_SIZES} sizes, {text!r} has more")
    return tuple(dict.fromkeys(sizes))


def _factor(text: str, whole: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 1.01 <= factor <= 1e6:
        raise ValueError(f"the factor of a sweep must be in 1.01..1e6, got {whole!r}")
    return factor


def size_text(size_bytes: float) -> str:
    """Bytes in the binary prefix that fits, exact where three decimals are enough.

    Examples
    --------
    >>> size_text(524288), size_text(702464), size_text(100)
    ('512 KiB', '686 KiB', '100 B')
    """
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.4g} {unit}"
    return f"{size_bytes:g} B"
