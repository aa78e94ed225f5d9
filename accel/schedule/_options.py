"""Options that schedules, their limits and baselines share: plain Python values, or an error of one line."""

from __future__ import annotations

from collections import Counter
from math import inf
from numbers import Real
from typing import Any

from accel._given import whole
from accel.workload import Workload

MAX_SEED = 2**31 - 1  # of CP-SAT
_MOST_SECONDS = 1e6  # stands for no limit, which solvers do not take


def workload(value: Any) -> Workload:
    """`value`, a graph whose operators can be told apart by name.

    Raises
    ------
    TypeError
        It is no `Workload`.
    ValueError
        Two of its operators share a name.
    """
    if not isinstance(value, Workload):
        raise TypeError(f"graph must be a Workload, got {value!r:.80}")
    counts = Counter(operator.name for operator in value.operators)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise ValueError(f"operator names must differ, got {repeated[0]} {counts[repeated[0]]} times")
    return value


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Refuse with a `ValueError` what is none of the words `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")


def seconds(value: Any, *, may_be_zero: bool = False) -> float:
    """`time_limit_s`; an infinite one is cut to a number that solvers take.

    Raises
    ------
    TypeError
        It is no real number.
    ValueError
        It is not positive, or NaN.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"time_limit_s must be a number of seconds, got {value!r}")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond all floats
        number = inf if value > 0 else -inf  # type: ignore[operator]
    if not (number > 0 or (may_be_zero and number == 0)):
        raise ValueError(f"time_limit_s must be {'at least 0' if may_be_zero else 'positive'}, got {value}")
    return min(number, _MOST_SECONDS)


def random_seed(value: Any) -> int:
    """`seed`.

    Raises
    ------
    ValueError
        It is no whole number in 0..2**31 - 1.
    """
    try:
        number = whole("seed", value, least=0)
    except (TypeError, ValueError):
        number = -1
    if not 0 <= number <= MAX_SEED:
        raise ValueError(f"seed must be a whole number in 0..{MAX_SEED}, got {value!r}")
    return number


def tensor_names(name: str, values: Any) -> frozenset[str]:
    """`values` as a set of names; a text is one name, not a collection of letters.

    Raises
    ------
    TypeError
        They are no collection, or one of them is no text.
    """
    try:
        found = None if isinstance(values, str | bytes) else tuple(values)
    except TypeError:
        found = None
    if found is None:
        raise TypeError(f"{name} must be a collection of tensor names, got {values!r:.80}")
    for value in found:
        if not isinstance(value, str):
            raise TypeError(f"a name in {name} must be a text, got {value!r:.80}")
    return frozenset(found)
