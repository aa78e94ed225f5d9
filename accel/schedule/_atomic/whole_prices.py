"""What must be paid beside single operators if tensors leave whole: a bound that fractions cannot give.

Beside operator i the live tensors may exceed the room by little, but what leaves is a whole tensor at its
whole price. So a price is asked for: with P to pay, only tensors of a price up to P can leave, all others
stay. With a weight w on every unit that stays, a least cut over the states in which i can run bounds what
is paid from below: what leaves costs its price or w times its size, whichever is less, what cannot leave
counts w times its size, and w times the room is spared. Where that is more than P for some w, more than P
is paid.

Payments beside several operators add up where no transfer counts twice: a store counts beside the first of
them that the tensor may be live at, a refetch again only after a read that lies in between in every order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter

from accel.schedule._atomic.contraction import contracted
from accel.schedule._atomic.step_bounds import Cuts
from accel.schedule._instance import Instance

_WEIGHTS = (256, 16, 4, 2, 1)
_NO_MATTER = 1 << 62


def whole_price_bound(instance: Instance, *, upper: int, deadline_s: float) -> int:
    """Units that every plan pays, at most `upper`.

    Parameters
    ----------
    upper
        Units of a plan that is known.
    deadline_s
        Reading of `time.perf_counter` after which no further operator is looked at.
    """
    instance = contracted(instance).instance
    cuts = Cuts(instance)
    alone: dict[int, int] = {}
    for i in cuts.candidates():
        if perf_counter() > deadline_s:
            break
        if (units := _least_payment(instance, cuts, i, {})) > 0:
            alone[i] = units
    # Which operators come first matters: the dear ones, or the cheap ones that leave much for others.
    orders = (
        sorted(alone, key=lambda i: (-alone[i], i)),
        sorted(alone, key=lambda i: (alone[i], i)),
    )
    best = max(alone.values(), default=0)
    for order in orders:
        if best < upper:
            best = max(best, _sum(instance, cuts, order, alone, deadline_s))
    return min(best, upper)


def _sum(
    instance: Instance, cuts: Cuts, order: Sequence[int], alone: Mapping[int, int], deadline_s: float
) -> int:
    """Payments beside the operators of `order`, each without what those before it may have counted."""
    bound = 0
    counted: dict[int, list[int]] = {}  # by tensor: operators beside which it may have been
    for i in order:
        if perf_counter() > deadline_s:
            break
        crossing = cuts.crossing(i)
        is_new = counted.keys().isdisjoint(crossing)
        if (units := alone[i] if is_new else _least_payment(instance, cuts, i, counted)) > 0:
            bound += units
            for v in crossing:
                counted.setdefault(v, []).append(i)
    return bound


def _least_payment(instance: Instance, cuts: Cuts, i: int, counted: Mapping[int, Sequence[int]]) -> int:
    """Units paid for tensors that are out while operator `i` runs, in every order.

    Of a tensor in `counted` the store is left out; and its refetch too, so that it may leave for nothing,
    unless a read lies between `i` and every operator that may have counted it.
    """
    size, backed = instance.size, instance.always_backed
    price: dict[int, int] = {}
    for v in cuts.crossing(i):
        if v not in counted:
            price[v] = size[v] * (1 if backed[v] else 2)
        else:
            price[v] = size[v] if all(cuts.separates(v, i, j) for j in counted[v]) else 0
    steps = sorted({0, *price.values()})

    def bound_up_to(most: int, enough: int) -> int:
        """Bound on what is paid if no tensor dearer than `most` can leave; `enough` is as good as more."""
        best = 0
        for weight in _WEIGHTS:
            weighted = {
                v: min(units, weight * size[v]) if units <= most else weight * size[v]
                for v, units in price.items()
            }
            best = max(best, cuts.least(i, weighted, weight)[0])
            if best >= enough:
                break
        return best

    # The more may leave, the less is paid and the more may be paid: the first step at which both meet.
    low, high = 0, len(steps) - 1
    while low < high:
        middle = (low + high) // 2
        if bound_up_to(steps[middle], steps[middle + 1]) < steps[middle + 1]:
            high = middle
        else:
            low = middle + 1
    return max(bound_up_to(steps[low], _NO_MATTER), steps[low])
