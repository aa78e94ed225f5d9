"""Integer linear programs as plain values, and the solvers that take them: functions of a few lines.

A solver is any function of a program and a time limit that returns a :class:`Solution`. The scheduler
trusts no answer: it rounds the values, holds them against every row, and replays the plan they stand for.
That nothing is cheaper it has to believe, unless a quick plan of its own is: then the bound is refused.

Examples
--------
A complete solver, which tries all values of a small program. A commercial one is as short: hand over
``program.A`` and the bounds, start from ``program.hint``, read values and bound.

>>> from itertools import product
>>> def enumerate_values(program: IntegerProgram, time_limit_s: float) -> Solution:
...     best = None
...     for values in product(*(np.arange(a, b + 1) for a, b in zip(program.lower, program.upper))):
...         if not program.violation(np.array(values)):
...             if best is None or program.objective(np.array(values)) < program.objective(best):
...                 best = np.array(values)
...     if best is None:
...         return Solution(status="infeasible")
...     return Solution(status="optimal", values=best, bound=program.objective(best))

Of two items that weigh 2 and 3 keep at most 4, at the least loss of 5 and 6 for those given up:

>>> knapsack = IntegerProgram(
...     c=np.array([-5.0, -6.0]),
...     A=csr_array([[2.0, 3.0]]),
...     row_lower=np.array([-np.inf]),
...     row_upper=np.array([4.0]),
...     lower=np.zeros(2),
...     upper=np.ones(2),
...     integrality=np.ones(2, np.uint8),
...     names=("first", "second"),
... )
>>> for solver in (enumerate_values, solve_with_highs):
...     found = solver(knapsack, 10.0)
...     print(found.status, found.values, found.bound)
optimal [0. 1.] -6.0
optimal [0. 1.] -6.0

To the scheduler such a function is given as it is, ``schedule(graph, size, backend=enumerate_values)``,
and on a command line by its place, ``--backend my_solvers:enumerate_values``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, vstack

from accel.schedule._solvers.quiet import without_stray_lines

Status: TypeAlias = Literal["optimal", "feasible", "infeasible", "unknown"]

HIGHS_VERSION = f"SciPy {scipy.__version__} HiGHS"
HIGHS_SECONDS_PER_ENTRY = 2e-5  # of A, for presolve and the first relaxation; measured on one core


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerProgram:
    """Minimise ``c @ x`` where ``row_lower <= A @ x <= row_upper`` and ``lower <= x <= upper``.

    Attributes
    ----------
    c, lower, upper
        (n,) float64. Costs are integers, in units of the scheduler.
    A
        (m, n) sparse, by rows.
    row_lower, row_upper
        (m,) float64; an infinity where a row has one side only.
    integrality
        (n,) 1 where the column must be an integer, 0 where it need not.
    names
        Of the columns.
    hint
        (n,) values of a known solution, for solvers that start from one; ``None`` where there is none.
    upper_bound
        Cost of a known solution, that of `hint` where there is one. Only cheaper ones are of use, and a
        solver may call the program infeasible where none is.

    Raises
    ------
    ValueError
        Shapes differ.
    """

    c: NDArray[np.float64]
    A: csr_array
    row_lower: NDArray[np.float64]
    row_upper: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    integrality: NDArray[np.uint8]
    names: tuple[str, ...]
    hint: NDArray[np.float64] | None = None
    upper_bound: float = np.inf

    def __post_init__(self) -> None:
        rows, columns = self.A.shape
        for name, length in (
            ("c", columns),
            ("lower", columns),
            ("upper", columns),
            ("integrality", columns),
            ("hint", columns),
            ("row_lower", rows),
            ("row_upper", rows),
        ):
            array = getattr(self, name)
            if array is None:
                continue
            if array.shape != (length,):
                raise ValueError(
                    f"{name} must have shape ({length},), as A has {self.A.shape}; got {array.shape}"
                )
            array.setflags(write=False)
        if len(self.names) != columns:
            raise ValueError(f"names must be {columns}, one for each column of A, got {len(self.names)}")

    def objective(self, values: NDArray[np.float64]) -> float:
        """Cost of `values`, (n,)."""
        return float(self.c @ values)

    def violation(self, values: NDArray[np.float64], *, tolerance: float = 0.0) -> str:
        """First broken bound, integrality or row of `values`, (n,), in words; empty where none is.

        Parameters
        ----------
        tolerance
            What a column or a row may be off by. With 0 the answer is exact where values and
            coefficients are integers whose products and sums stay below 2**53.
        """
        outside = (values < self.lower - tolerance) | (values > self.upper + tolerance) | ~np.isfinite(values)
        fraction = (self.integrality != 0) & (np.abs(values - np.rint(values)) > tolerance)
        if (bad := np.flatnonzero(outside | fraction)).size:
            j = bad[0]
            kind = "an integer " if self.integrality[j] else ""
            return (
                f"{self.names[j]} must be {kind}in {self.lower[j]:g}..{self.upper[j]:g}, is {values[j]:.10g}"
            )
        rows = self.A @ values
        off = np.maximum(self.row_lower - rows, rows - self.row_upper)
        if not (bad := np.flatnonzero(off > tolerance)).size:
            return ""
        k = bad[0]
        terms = [
            f"{a:+g} {self.names[j]}"
            for a, j in zip(self.A.data[self.A.indptr[k] :], self.A.indices[self.A.indptr[k] :], strict=True)
        ][: self.A.indptr[k + 1] - self.A.indptr[k]]
        text = " ".join([*terms[:6], *(["..."] if len(terms) > 6 else [])])
        return f"row {k} must be in {self.row_lower[k]:g}..{self.row_upper[k]:g}, is {rows[k]:.10g}: {text}"

    def below_bound(self) -> IntegerProgram:
        """Return the program with ``c @ x <= upper_bound - 1`` as one more row, and without the hint.

        For solvers that can neither start from a solution nor be told an objective limit.
        """
        if not np.isfinite(self.upper_bound):
            return replace(self, hint=None)
        return replace(
            self,
            A=csr_array(vstack([self.A, csr_array(self.c[np.newaxis])])),
            row_lower=np.append(self.row_lower, -np.inf),
            row_upper=np.append(self.row_upper, self.upper_bound - 1),
            hint=None,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """What a solver found.

    Attributes
    ----------
    status
        ``"optimal"``: no solution is cheaper than `values`. ``"feasible"``: some may be.
        ``"infeasible"``: there is none below the program's `upper_bound`; never for a time-out, which
        is ``"unknown"`` without values.
    values
        (n,), or ``None`` where no solution was found.
    bound
        No solution costs less; minus infinity where the solver knows none. Not needed with
        ``"optimal"`` and ``"infeasible"``.
    is_warm
        Whether the solver started from the program's hint.
    """

    status: Status
    values: NDArray[np.float64] | None = None
    bound: float = -np.inf
    is_warm: bool = False


SolverFunction: TypeAlias = Callable[[IntegerProgram, float], Solution]


def solve_with_highs(program: IntegerProgram, time_limit_s: float) -> Solution:
    """HiGHS through :func:`scipy.optimize.milp`, which takes no start: the hint is a bound instead.

    It looks at the clock only now and then while it prepares a program. What that may take is kept back
    from the limit, and a program that would need all of it is not begun: its status is ``"unknown"``.
    """
    cheaper = program.below_bound()
    limit_s = time_limit_s - HIGHS_SECONDS_PER_ENTRY * cheaper.A.nnz
    if limit_s <= 0:
        return Solution(status="unknown")
    with without_stray_lines():
        result = milp(
            c=cheaper.c,
            integrality=cheaper.integrality,
            bounds=Bounds(cheaper.lower, cheaper.upper),
            constraints=LinearConstraint(cheaper.A, cheaper.row_lower, cheaper.row_upper),
            options={"time_limit": limit_s, "mip_rel_gap": 0.0},
        )
    if result.status == 2:
        return Solution(status="infeasible")
    bound = -np.inf if result.mip_dual_bound is None else result.mip_dual_bound
    if result.x is None:
        return Solution(status="unknown", bound=bound)
    return Solution(status="optimal" if result.status == 0 else "feasible", values=result.x, bound=bound)
