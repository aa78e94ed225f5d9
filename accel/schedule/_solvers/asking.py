"""Ask a solver of integer programs, and believe only what can be checked."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from time import perf_counter
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from accel.schedule.integer_program import IntegerProgram, Solution, SolverFunction, Status

_SLACK = 1e-6  # share of a cost by which solvers are off, as their values are off integers


@dataclass(frozen=True, slots=True)
class Answer:
    """A solver's answer after its check.

    Attributes
    ----------
    values
        (n,) integers that keep every row and cost less than the program's upper bound, or ``None``.
    bound
        No solution costs less, as far as the solver is right; at most the program's upper bound.
    status
        ``"optimal"`` only for values that passed; ``"infeasible"`` where nothing is below the upper bound.
    is_warm
        Whether the solver started from the hint.
    rejected
        What is wrong with the values that the solver gave; empty where nothing is.
    """

    values: NDArray[np.float64] | None
    bound: int
    status: Status
    is_warm: bool
    rejected: str = ""


def ask(solver: SolverFunction, program: IntegerProgram, *, deadline_s: float, name: str) -> Answer:
    """Run `solver` until `deadline_s`, round what it returns to the nearest integers and check it.

    Raises
    ------
    ValueError
        It raises an error, or returns no :class:`Solution`, an unknown status, values of another shape,
        what is no number, or a bound above the cost of its own values.
    """
    remaining_s = deadline_s - perf_counter()
    if remaining_s <= 0:
        return Answer(None, _least(program), "unknown", is_warm=False)
    try:
        found = solver(program, remaining_s)
    except Exception as error:
        what = " ".join(str(error).split())
        raise ValueError(f"solver {name} failed: {type(error).__name__}: {what}") from error
    if not isinstance(found, Solution):
        raise ValueError(f"solver {name} must return a Solution, returned {type(found).__name__}")
    if found.status not in get_args(Status):
        raise ValueError(
            f"solver {name} must return a status of {', '.join(get_args(Status))}; returned {found.status!r}"
        )
    given_bound = _number(found.bound, name)
    bound = max(_rounded_up(given_bound), _least(program))
    is_limited = bool(np.isfinite(program.upper_bound))
    limit = round(program.upper_bound) if is_limited else 0
    if found.status == "infeasible":
        if is_limited:
            return Answer(None, limit, "infeasible", found.is_warm)
        return Answer(None, bound, "unknown", found.is_warm, "calls the program infeasible, which it is not")
    if is_limited:
        bound = min(bound, limit)
    if found.values is None:
        return Answer(None, bound, "unknown", found.is_warm)
    values = _array(found.values, name)
    if values.shape != program.c.shape:
        raise ValueError(
            f"solver {name} must return values of shape {program.c.shape}, returned {values.shape}"
        )
    # Half up, not half to even: addresses a whole number apart stay so.
    values = np.floor(values + 0.5)
    if broken := program.violation(values):
        return Answer(None, bound, "unknown", found.is_warm, broken)
    cost = round(program.objective(values))
    if np.isfinite(given_bound) and given_bound - cost > max(1.0, _SLACK * abs(cost)):
        raise ValueError(
            f"solver {name} must return a bound that no values are below, returned {given_bound:.10g} with "
            f"values that cost {cost}"
        )
    status: Status = "optimal" if found.status == "optimal" or bound >= cost else "feasible"
    if status == "optimal":
        if is_limited and cost > limit:
            problem = f"calls a cost of {cost} optimal, though one of {limit} is known"
            return Answer(None, bound, "unknown", found.is_warm, problem)
        bound = cost
    bound = min(bound, cost)
    if is_limited and cost >= limit:
        return Answer(None, bound, "infeasible" if bound >= limit else "unknown", found.is_warm)
    return Answer(values, bound, status, found.is_warm)


def _number(bound: Any, name: str) -> float:
    """`bound` as a float."""
    try:
        if isinstance(bound, str | bytes):
            raise TypeError
        return float(bound)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"solver {name} must return a bound that is a number, returned {bound!r:.80}"
        ) from None


def _array(values: Any, name: str) -> NDArray[np.float64]:
    """`values` as an array of floats."""
    try:
        found = np.asarray(values)
        if found.dtype.kind not in "biufO":
            raise TypeError
        return found.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        text = " ".join(repr(values).split())
        raise ValueError(f"solver {name} must return values that are numbers, returned {text:.80}") from None


def _least(program: IntegerProgram) -> int:
    """Cost that no values within the columns' bounds go below."""
    least = np.where(program.c > 0, program.c * program.lower, program.c * program.upper)
    return round(float(least[program.c != 0].sum()))


def _rounded_up(bound: float) -> int:
    """Costs are integers, so a bound is too; a hair above an integer, it is a float that means it."""
    return ceil(bound * (1 - 1e-9) - 1e-6) if np.isfinite(bound) else -(2**62)
