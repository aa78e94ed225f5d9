"""Whole numbers and words that a caller gives: read as they are meant, or refused in one line."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from operator import index
from typing import Any, TypeVar

LIMIT = 2**62  #: sizes are below it, so that compiled code can hold them in 64 bits

WordT = TypeVar("WordT", bound=StrEnum)


def whole(name: str, value: Any, *, least: int = 1) -> int:
    """`value` as an integer; those of NumPy count as well, a truth value does not.

    Raises
    ------
    TypeError
        It is no whole number.
    ValueError
        It is below `least`, or not below `LIMIT`.

    Examples
    --------
    >>> import numpy as np
    >>> whole("batch", np.int64(3))
    3
    """
    try:
        number = None if isinstance(value, bool) else index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    if number >= LIMIT:
        raise ValueError(f"{name} must be below 2**62, got {number}")
    return number


def wholes(name: str, values: Iterable[int], *, least: int = 1) -> tuple[int, ...]:
    """`values` as a tuple of integers, each of them `whole`."""
    try:
        found = tuple(values)
    except TypeError:
        raise TypeError(f"{name} must be a tuple of whole numbers, got {values!r}") from None
    return tuple(whole(f"a size of {name}", value, least=least) for value in found)


def word(name: str, words: type[WordT], text: str) -> WordT:
    """The member of `words` that a text names.

    Raises
    ------
    ValueError
        There is none; the message lists those there are.
    """
    try:
        return words(text)
    except ValueError:
        raise ValueError(f"{name} must be one of {', '.join(words)}, got {text!r}") from None
