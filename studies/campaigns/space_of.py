"""A space from its description in a store: enough to encode designs and to fit models to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dse.space import Categorical, Integer, Ordinal, Permutation, PowerOfTwo, Real, Space
from dse.space.parameter import Parameter
from studies.campaigns.runs import Run, RunError


def space_of(run: Run) -> Space:
    """Space of a run, without its constraints and without the rows of its table.

    Choices that the description leaves out, as it does those of a long column of a table, are the values
    of the trials.

    Raises
    ------
    RunError
        A description that this version cannot read.
    """
    try:
        return Space([_parameter(description, run) for description in run.parameters])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run.folder}: the space of the campaign cannot be read: {error}") from None


def _parameter(description: Mapping[str, Any], run: Run) -> Parameter:
    name, kind = description["name"], description["kind"]
    condition = description.get("active_if")
    active_if = None if condition is None else (condition["parent"], condition["values"])

    def choices() -> list[Any]:
        listed = description["choices"]
        return list(listed) if isinstance(listed, list) else sorted(set(run.frame[name]))

    makers: dict[str, Callable[[], Parameter]] = {
        "real": lambda: Real(
            name, description["low"], description["high"], log=description["log"], active_if=active_if
        ),
        "integer": lambda: Integer(
            name, description["low"], description["high"], log=description["log"], active_if=active_if
        ),
        "power_of_two": lambda: PowerOfTwo(
            name, description["low"], description["high"], active_if=active_if
        ),
        "ordinal": lambda: Ordinal(name, choices(), log=description["log"], active_if=active_if),
        "categorical": lambda: Categorical(name, choices(), active_if=active_if),
        "permutation": lambda: Permutation(name, description["items"], active_if=active_if),
    }
    if kind not in makers:
        raise ValueError(f"kind of {name} must be one of {', '.join(makers)}, got {kind!r}")
    return makers[kind]()
