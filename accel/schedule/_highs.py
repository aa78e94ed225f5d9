"""The capacity relaxation by HiGHS, through SciPy: the second judge beside the constraint program."""

from __future__ import annotations

from accel.schedule._instance import Instance
from accel.schedule._program_rows import ScheduleProgram
from accel.schedule._program_solve import ask
from accel.schedule._search import Relaxed
from accel.schedule.integer_program import HIGHS_VERSION as VERSION
from accel.schedule.integer_program import solve_with_highs

__all__ = ["VERSION", "solve_capacity"]


def solve_capacity(instance: Instance, *, upper: int, deadline_s: float) -> Relaxed:
    """Least non-compulsory traffic, in units, below `upper`, placement left out."""
    try:
        model = ScheduleProgram(
            instance, lower=0, hint=None, upper=upper, is_joint=False, deadline_s=deadline_s
        )
    except TimeoutError:
        return Relaxed(0, None)
    answer = ask(solve_with_highs, model.program, deadline_s=deadline_s, name=VERSION)
    bound = min(max(answer.bound - model.rebate, 0), upper)
    return Relaxed(bound, None if answer.values is None else model.residency(answer.values))
