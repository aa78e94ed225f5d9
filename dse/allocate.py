"""One option for each group, so that a sum of losses stays small at the least sum of costs, or the reverse.

The problem is the multiple-choice knapsack [Kellerer04]_: of every group g exactly one option o is taken,
costs and losses add up over the groups, and either the cost is minimised under a limit on the loss
(``max_loss``) or the loss under a limit on the cost (``max_cost``). A sum that exceeds a limit by less than
1e-9 of it keeps it: nine times a ninth may round to more than one. Formats of tensors and bits of layers
are such options, with bytes moved as cost and a measured or predicted error as loss.

References
----------
.. [Everett63] H. Everett, "Generalized Lagrange Multiplier Method for Solving Problems of Optimum Allocation
   of Resources", Operations Research 11(3), 1963.
.. [HiGHS] Q. Huangfu, J. Hall, "Parallelizing the dual revised simplex method", arXiv 1503.01889; the
   solver behind ``scipy.optimize.milp``.
.. [Kellerer04] H. Kellerer, U. Pferschy, D. Pisinger, "Knapsack Problems", Springer 2004, chapter 11.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, prod
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

Choice: TypeAlias = tuple[int, ...]  #: index of the option of each group

MOST_COMBINATIONS = 1 << 24  #: that `exhaustive` tries unless told otherwise
_ROUNDING = 1e-9  # share of the limit by which a sum may exceed it
_NEGLIGIBLE = 1e-8  # share of the limit
_OBJECTIVE_SCALE = 1e4  # of the integer program, whose solver stops at a gap of 1e-6


class AllocationError(ValueError):
    """No choice keeps the limit; the message names the least limit that can be kept."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Allocation:
    """Costs and losses of the options of some groups.

    Attributes
    ----------
    groups, options
        Names; every group chooses among the same options.
    cost : (g, o)
        Finite.
    loss : (g, o)
        Finite, or infinite for an option that a group must not take.

    Raises
    ------
    ValueError
        No group or option, names that repeat, another shape, a NaN, or a group without an option.

    Examples
    --------
    >>> bits = Allocation(
    ...     groups=("small", "large"),
    ...     options=("4", "8"),
    ...     cost=np.array([[40.0, 80.0], [400.0, 800.0]]),
    ...     loss=np.array([[0.3, 0.0], [0.2, 0.0]]),
    ... )
    >>> bits.named(exact(bits, max_loss=0.25))
    {'small': '8', 'large': '4'}
    """

    groups: tuple[str, ...]
    options: tuple[str, ...]
    cost: Float[np.ndarray, "g o"]
    loss: Float[np.ndarray, "g o"]

    def __post_init__(self) -> None:
        for kind in ("groups", "options"):
            names = tuple(getattr(self, kind))
            if not names or len(set(names)) != len(names):
                raise ValueError(f"{kind} must be distinct names, at least one, got {names}")
            object.__setattr__(self, kind, names)
        shape = (len(self.groups), len(self.options))
        for kind in ("cost", "loss"):
            values = np.array(getattr(self, kind), dtype=np.float64)
            if values.shape != shape:
                raise ValueError(
                    f"{kind} must have the shape {shape} of groups and options, got {values.shape}"
                )
            bad = np.isnan(values) | np.isneginf(values) | (np.isinf(values) & (kind == "cost"))
            if bad.any():
                g, o = np.argwhere(bad)[0]
                raise ValueError(
                    f"{kind} of {self.groups[g]} with {self.options[o]} must be finite, got {values[g, o]}"
                )
            values.flags.writeable = False
            object.__setattr__(self, kind, values)
        if not (possible := np.isfinite(self.loss).any(axis=1)).all():
            without = self.groups[int(possible.argmin())]
            raise ValueError(f"every group must have an option of finite loss, {without} has none")

    @property
    def size(self) -> int:
        """Number of choices, without options of infinite loss."""
        return prod(int(row.sum()) for row in np.isfinite(self.loss))

    def cost_of(self, choice: Sequence[int]) -> float:
        """Sum of the costs of a choice, added in the order of the groups."""
        return _total(self.cost, choice)

    def loss_of(self, choice: Sequence[int]) -> float:
        """Sum of the losses of a choice, added in the order of the groups."""
        return _total(self.loss, choice)

    def named(self, choice: Sequence[int]) -> dict[str, str]:
        """Option of each group by name."""
        return {group: self.options[o] for group, o in zip(self.groups, choice, strict=True)}


def _total(values: Float[np.ndarray, "g o"], choice: Sequence[int]) -> float:
    # One order everywhere: all methods then agree to the last bit on what a limit admits.
    total = 0.0
    for row, o in zip(values, choice, strict=True):
        total += float(row[o])
    return total


class _Aim(NamedTuple):
    """What is minimised, what is limited, and by how much; options not allowed are infinite in both."""

    wanted: Float[np.ndarray, "g o"]
    limited: Float[np.ndarray, "g o"]
    limit: float

    @property
    def most(self) -> float:
        """The limit, and what addends that round may be beyond it."""
        return self.limit + _ROUNDING * abs(self.limit)

    def holds(self, choice: Sequence[int]) -> bool:
        return _total(self.limited, choice) <= self.most


def _aim(problem: Allocation, max_loss: float | None, max_cost: float | None) -> _Aim:
    if (max_loss is None) == (max_cost is None):
        got = "neither" if max_loss is None else "both"
        raise ValueError(f"exactly one of max_loss and max_cost must be given, got {got}")
    allowed = np.isfinite(problem.loss)
    cost = np.where(allowed, problem.cost, np.inf)
    if max_loss is not None:
        name, aim = "max_loss", _Aim(cost, problem.loss, float(max_loss))
    else:
        assert max_cost is not None
        name, aim = "max_cost", _Aim(problem.loss, cost, float(max_cost))
    least = _total(aim.limited, aim.limited.argmin(axis=1).tolist())
    if not aim.most >= least:
        raise AllocationError(
            f"{name} must be at least {least:g}, which is the least possible, got {aim.limit:g}"
        )
    return aim


def exhaustive(
    problem: Allocation,
    *,
    max_loss: float | None = None,
    max_cost: float | None = None,
    most: int = MOST_COMBINATIONS,
) -> Choice:
    """Best of all choices; of equal ones that with less of what is limited, then the first.

    Raises
    ------
    AllocationError
        No choice keeps the limit.
    ValueError
        More than `most` choices.
    """
    aim = _aim(problem, max_loss, max_cost)
    if problem.size > most:
        raise ValueError(f"exhaustive search takes at most {most} choices, got {problem.size}")
    wanted, limited = np.zeros(1), np.zeros(1)
    columns = [np.flatnonzero(np.isfinite(row)) for row in problem.loss]
    for g, options in enumerate(columns):
        wanted = (wanted[:, None] + aim.wanted[g, options]).reshape(-1)
        limited = (limited[:, None] + aim.limited[g, options]).reshape(-1)
    kept = np.flatnonzero(limited <= aim.most)
    best = kept[np.lexsort((limited[kept], wanted[kept]))[0]]
    places = np.unravel_index(int(best), [len(options) for options in columns])
    return tuple(int(options[place]) for options, place in zip(columns, places, strict=True))


def greedy(problem: Allocation, *, max_loss: float | None = None, max_cost: float | None = None) -> Choice:
    """From what the limit likes best, the change that gains most per unit of the limit, again and again."""
    aim = _aim(problem, max_loss, max_cost)
    choice = _safest(aim)
    rows = np.arange(len(choice))
    while True:
        gain = aim.wanted[rows, choice][:, None] - aim.wanted
        price = aim.limited - aim.limited[rows, choice][:, None]
        # What costs nothing of the limit comes first, the largest gain before the others.
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(price > 0, gain / price, np.inf)
        ratio[~(gain > 0)] = -np.inf
        for place in np.lexsort((-gain.reshape(-1), -ratio.reshape(-1))):
            g, o = divmod(int(place), len(problem.options))
            if ratio[g, o] == -np.inf:
                return tuple(choice.tolist())
            changed = choice.copy()
            changed[g] = o
            if aim.holds(changed.tolist()):
                choice = changed
                break
        else:
            return tuple(choice.tolist())


def greedy_by_size(
    problem: Allocation, *, max_loss: float | None = None, max_cost: float | None = None
) -> Choice:
    """Group by group, that with most to gain first: the best option which the limit still admits."""
    aim = _aim(problem, max_loss, max_cost)
    choice = _safest(aim).tolist()
    start = aim.wanted[np.arange(len(choice)), choice]
    for g in np.argsort(-(start - aim.wanted.min(axis=1)), kind="stable").tolist():
        for o in np.argsort(aim.wanted[g], kind="stable").tolist():
            changed = [*choice[:g], o, *choice[g + 1 :]]
            if aim.wanted[g, o] < aim.wanted[g, choice[g]] and aim.holds(changed):
                choice = changed
                break
    return tuple(choice)


def _safest(aim: _Aim) -> np.ndarray:
    """Options with least of what is limited, (g,); of equal ones the better."""
    rank = np.lexsort((aim.wanted, aim.limited), axis=-1)
    return np.asarray(rank[:, 0])


def exact(
    problem: Allocation,
    *,
    max_loss: float | None = None,
    max_cost: float | None = None,
    without: Sequence[Choice] = (),
) -> Choice:
    """Best choice, by integer linear programming [HiGHS]_.

    Parameters
    ----------
    without
        Choices that are not to be returned: with those found so far, the next best is found.

    Raises
    ------
    AllocationError
        No choice keeps the limit, or none but those of `without`.

    Notes
    -----
    The solver admits a violation of 1e-6 of the limit; a choice that breaks the limit by more than rounding
    is excluded and the program solved again, so that what is returned keeps it.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    aim = _aim(problem, max_loss, max_cost)
    least = aim.limited.min(axis=1)
    room = max(aim.most - _total(aim.limited, aim.limited.argmin(axis=1).tolist()), 0.0)
    above = aim.limited - least[:, None]
    scale = room or 1.0
    g, o = np.nonzero(above <= room * (1 + 1e-9))
    wanted = aim.wanted[g, o] - np.array([aim.wanted[k, o[g == k]].min() for k in range(len(least))])[g]
    wanted *= _OBJECTIVE_SCALE / (wanted.max() or 1.0)
    above = np.where(above < _NEGLIGIBLE * scale, 0.0, above)  # what the solver's tolerances cannot see
    one_each = (g == np.arange(len(least))[:, None]).astype(np.float64)
    constraints = [
        LinearConstraint(one_each, 1.0, 1.0),
        LinearConstraint((above[g, o] / scale)[None, :], -np.inf, room / scale),
    ]
    place = {pair: k for k, pair in enumerate(zip(g.tolist(), o.tolist(), strict=True))}

    def exclude(choice: Sequence[int]) -> None:
        if all(pair in place for pair in enumerate(choice)):
            row = np.zeros((1, len(g)))
            row[0, [place[pair] for pair in enumerate(choice)]] = 1.0
            constraints.append(LinearConstraint(row, -np.inf, len(least) - 1.0))

    for choice in without:
        exclude(choice)
    while True:
        found = milp(
            wanted,
            constraints=constraints,
            integrality=np.ones(len(g), np.int64),
            bounds=Bounds(0.0, 1.0),
            options={"mip_rel_gap": 0.0},
        )
        if found.x is None:
            raise AllocationError(f"no other choice keeps the limit {aim.limit:g}: {found.message}")
        taken = np.flatnonzero(found.x > 0.5)
        answer = tuple(int(o[k]) for k in taken[np.argsort(g[taken], kind="stable")])
        if aim.holds(answer):
            return answer
        exclude(answer)


def supported(problem: Allocation) -> list[Choice]:
    """Choices that minimise ``cost + multiplier * loss`` for some multiplier, cheapest first [Everett63]_.

    The sum falls apart into groups, each of which walks down the lower convex hull of its options as the
    multiplier grows; neighbours on the list differ in one group.
    """
    steps: list[tuple[float, int, int]] = []
    choice: list[int] = []
    for g, (cost, loss) in enumerate(zip(problem.cost, problem.loss, strict=True)):
        hull = _lower_hull(cost, loss)
        choice.append(hull[0])
        slope = 0.0
        for before, after in pairwise(hull):
            gained = loss[before] - loss[after]
            slope = max(slope, float((cost[after] - cost[before]) / gained))  # convex but for rounding
            steps.append((slope, g, after))
    path = [tuple(choice)]
    for _, g, after in sorted(steps, key=lambda step: step[:2]):
        choice[g] = after
        path.append(tuple(choice))
    return path


def _lower_hull(cost: Float[np.ndarray, " o"], loss: Float[np.ndarray, " o"]) -> list[int]:
    """Options on the lower convex hull, by rising cost and falling loss."""
    hull: list[int] = []
    for o in np.lexsort((loss, cost)).tolist():
        if not isfinite(loss[o]) or (hull and loss[o] >= loss[hull[-1]]):
            continue
        while len(hull) > 1:
            a, b = hull[-2:]
            # b lies on or above the line from a to o
            if (cost[b] - cost[a]) * (loss[a] - loss[o]) < (cost[o] - cost[a]) * (loss[a] - loss[b]):
                break
            hull.pop()
        hull.append(o)
    return hull


class Bounded(NamedTuple):
    """A choice, and a lower bound on what the best one has of the quantity that is minimised."""

    choice: Choice
    bound: float


def lagrangian(
    problem: Allocation, *, max_loss: float | None = None, max_cost: float | None = None
) -> Bounded:
    """Best choice that some multiplier gives, found by bisection of the multiplier over its breakpoints.

    The bound is the value of the dual at its maximum, which lies where the limit is crossed.
    """
    aim = _aim(problem, max_loss, max_cost)
    path = supported(problem)
    if max_cost is not None:
        path = path[::-1]  # along it, what is wanted rises and what is limited falls
    low, high = -1, len(path) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if aim.holds(path[middle]) else (middle, high)
    inside, wanted = path[high], _total(aim.wanted, path[high])
    if low < 0:
        return Bounded(inside, wanted)
    beyond = _total(aim.wanted, path[low])
    over, under = _total(aim.limited, path[low]), _total(aim.limited, inside)
    if over == under:
        return Bounded(inside, beyond)
    multiplier = (wanted - beyond) / (over - under)
    return Bounded(inside, beyond + multiplier * (over - aim.limit))


def cheapest_meeting(problem: Allocation, meets: Callable[[Choice], bool]) -> Choice:
    """Cheapest choice on the path of the multiplier that meets a target, by bisection with an oracle.

    Parameters
    ----------
    meets
        Asked about 1 + log2 of the path's length times; if it is true of a choice and false of a more
        expensive one on the path, one of its changes from false to true is found.

    Raises
    ------
    AllocationError
        Not even the choice of least loss meets the target.
    """
    path = supported(problem)
    low, high = -1, len(path) - 1
    if not meets(path[high]):
        raise AllocationError("the target must be one that the choice of least loss meets, it does not")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(path[middle]) else (middle, high)
    return path[high]
