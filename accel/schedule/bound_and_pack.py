"""Plans in atomic mode: bound, place, and decide jointly where that leaves a gap.

A greedy plan comes first, so there is one whatever the time limit. The exact optimum without addresses is
then a lower bound, and mostly its residency can be placed as it is: that is the optimum. Where it provably
cannot, other residencies of that cost are tried, and then the joint program of order, residency and
placement decides. Where the exact search runs out of time, the graph is large: a beam over orders and
windows searched again give a plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from accel.schedule._atomic.gap_model import replace_optimally
from accel.schedule._atomic.greedy import greedy
from accel.schedule._atomic.search import optimal_residencies
from accel.schedule._atomic.warm import load_search, load_windows
from accel.schedule._atomic.whole_prices import whole_price_bound
from accel.schedule._atomic.windows import improve_large, lower_bound, place_adjusted
from accel.schedule._clock import Clock
from accel.schedule._instance import Instance
from accel.schedule._packer.search import load_kernels as load_placer
from accel.schedule._placement import Placed, place, place_or_shed
from accel.schedule._residency import Residency
from accel.schedule._running import room_of
from accel.schedule.backends import Backend
from accel.schedule.peak import minimal_peak_order
from accel.schedule.plan import Method, Run, Transfer, TransferKind

#: Shares of the time that is left: first orders; the exact search; improvement of a large graph; placements.
_ORDERS_SHARE = 0.1
_SEARCH_SHARE = 0.3
_WINDOWS_SHARE = 0.75
_PLACEMENT_SHARE = 0.5
_OTHER_OPTIMA = 20
_MOST_JOINT_PAIRS = 200_000  # tensors and steps of a joint program that is worth to be written down


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A plan in bytes, and how it was found; see the attributes of ``Schedule``."""

    order: tuple[str, ...]
    residency: tuple[Run, ...]
    transfers: tuple[Transfer, ...]
    bound_bytes: int
    method: Method
    solver: str
    model_size: str
    warm_start: bool


def solve(instance: Instance, backend: Backend, *, deadline_s: float, seed: int) -> Found:
    """Plan of least traffic with all operands of an operator in the scratchpad.

    Parameters
    ----------
    deadline_s
        Reading of `time.perf_counter` at which to stop with the best plan.
    """
    found = _Solution(instance, backend, deadline_s=deadline_s, seed=seed)
    found.improve()
    residency, transfers = _moves(instance, found.plan)
    models = [run for run in backend.log if run.columns]
    return Found(
        order=tuple(instance.operators[i] for i in found.plan.residency.order),
        residency=residency,
        transfers=transfers,
        bound_bytes=found.bound * instance.unit_bytes,
        method=found.method,
        solver=" + ".join(dict.fromkeys((*(run.solver for run in backend.log), *found.engines))) or "none",
        model_size=max(models, key=lambda run: run.columns).model_size if models else "",
        warm_start=any(run.is_warm for run in backend.log),
    )


class _Solution:
    """The best plan so far and the bound below it, in units, brought together stage by stage."""

    def __init__(self, instance: Instance, backend: Backend, *, deadline_s: float, seed: int) -> None:
        self._instance = instance
        self._backend = backend
        self._clock = Clock(deadline_s)
        self._seed = seed
        self._clock.load(load_placer)
        self.plan: Placed = greedy(instance)
        self.bound = 0
        self.method: Method = "greedy"
        self.engines: list[str] = []

    def _is_open(self) -> bool:
        return self.bound < self.plan.residency.cost and not self._clock.is_over

    def improve(self) -> None:
        """Close the gap between plan and bound, as far as time allows."""
        if not self._is_open():
            return
        self._clock.load(load_search)
        if self._backend.name not in ("search", "cp-sat"):
            self._clock.load(load_windows)  # a beam holds its bounds against a plan
        self._try_orders()
        if self._is_open() and self._backend.name == "search" and not self._instance.is_in_order:
            cost = self.plan.residency.cost
            deadline_s = self._clock.share(_ORDERS_SHARE)
            self.bound = whole_price_bound(self._instance, upper=cost, deadline_s=deadline_s)
        if not self._is_open():
            return
        relaxed = self._backend.solve_capacity(
            self._instance,
            upper=self.plan.residency.cost,
            hint=self.plan,
            deadline_s=self._clock.share(_SEARCH_SHARE),
            seed=self._seed,
        )
        self.bound = max(self.bound, relaxed.bound)
        if relaxed.residency is not None:
            self._place(relaxed.residency)
            if self._is_open() and relaxed.residency.cost == relaxed.bound:
                self._place_others(relaxed.bound)
        elif self._is_open():
            self._improve_windows()
        if self._is_open() and self._pairs <= _MOST_JOINT_PAIRS:
            bound, plan = self._backend.solve_joint(
                self._instance,
                lower=self.bound,
                hint=self.plan,
                deadline_s=self._clock.deadline_s,
                seed=self._seed,
            )
            self.bound = max(self.bound, bound)
            self._offer(plan, "joint")

    def _try_orders(self) -> None:
        """Best replacement in the file's order and in one of minimal peak: mostly near the optimum."""
        instance = self._instance
        orders = [tuple(range(len(instance.operators)))]
        if not instance.is_in_order:
            found = minimal_peak_order(instance, deadline_s=self._clock.share(_ORDERS_SHARE))
            if room_of(instance, found.order) <= instance.capacity:
                orders.append(found.order)
        for order in orders:
            residency, _ = replace_optimally(instance, order, deadline_s=self._clock.share(_ORDERS_SHARE))
            if residency.cost < self.plan.residency.cost:
                self._offer(self._place_quickly(residency), "greedy")

    @property
    def _pairs(self) -> int:
        return len(self._instance.tensors) * len(self._instance.operators)

    def _place(self, residency: Residency) -> None:
        """Place `residency` as it is, or failing that with fewer kept gaps."""
        self._offer(
            place(residency, deadline_s=self._clock.share(_PLACEMENT_SHARE), seed=self._seed)[0], "packing"
        )
        if self._is_open():
            self._offer(
                place_adjusted(
                    residency, self._place_quickly, deadline_s=self._clock.share(_PLACEMENT_SHARE)
                ),
                "packing",
            )
        if self._is_open():
            self._offer(place_or_shed(residency), "greedy")

    def _place_quickly(self, residency: Residency) -> Placed | None:
        return place(residency, deadline_s=perf_counter(), seed=self._seed)[0]

    def _place_others(self, optimum: int) -> None:
        """Place other residencies of the least cost."""
        others = optimal_residencies(
            self._instance,
            optimum,
            tries=_OTHER_OPTIMA,
            seed=self._seed,
            deadline_s=self._clock.share(_PLACEMENT_SHARE),
        )
        for residency in others:
            placed, _ = place(residency, deadline_s=self._clock.share(0.1), seed=self._seed)
            self._offer(placed, "packing")
            if not self._is_open():
                return

    def _improve_windows(self) -> None:
        self.engines.append("beam and windows")
        self._clock.load(load_windows)
        start = self.plan.residency
        better = improve_large(
            self._instance,
            start,
            deadline_s=self._clock.share(_WINDOWS_SHARE),
            seed=self._seed,
            lower=self.bound,
        )
        if better.cost < start.cost:
            self._offer(
                place(better, deadline_s=self._clock.share(_PLACEMENT_SHARE), seed=self._seed)[0], "windows"
            )
            if better.cost < self.plan.residency.cost:
                self._offer(
                    place_adjusted(
                        better, self._place_quickly, deadline_s=self._clock.share(_PLACEMENT_SHARE)
                    ),
                    "windows",
                )
                self._offer(place_or_shed(better), "windows")
        if self._is_open():
            cost = self.plan.residency.cost
            found = lower_bound(
                self._instance,
                self.plan.residency.order,
                upper=cost,
                deadline_s=self._clock.deadline_s,
            )
            self.bound = max(self.bound, min(found, cost))

    def _offer(self, plan: Placed | None, method: Method) -> None:
        if plan is not None and plan.residency.cost < self.plan.residency.cost:
            self.plan, self.method = plan, method


def _moves(instance: Instance, placed: Placed) -> tuple[tuple[Run, ...], tuple[Transfer, ...]]:
    """Return runs and transfers of a placed residency, in bytes."""
    residency, unit = placed.residency, instance.unit_bytes
    step = {i: t for t, i in enumerate(residency.order)}
    made = [None if i is None else step[i] for i in instance.producer]
    runs: list[Run] = []
    moves: list[tuple[int, TransferKind, int]] = []
    for block, address in zip(residency.blocks, placed.addresses, strict=True):
        v = block.tensor
        runs.append(
            Run(
                tensor=instance.tensors[v],
                start=block.start,
                end=block.end,
                address=address * unit,
                bytes=instance.size[v] * unit,
            )
        )
        if made[v] is None and block.start == residency.first_step[v]:
            moves.append((block.start, "load", v))
        elif block.start != made[v]:
            moves.append((block.start, "refetch", v))
    refetched = {v for _, kind, v in moves if kind == "refetch"}
    for v, at in enumerate(made):
        if at is not None and instance.is_output[v]:
            moves.append((at, "store", v))
        elif at is not None and v in refetched:
            moves.append((at, "spill", v))
    moves.sort(key=lambda move: (move[0], move[1] in ("spill", "store"), move[2]))
    return tuple(runs), tuple(
        Transfer(step=at, tensor=instance.tensors[v], bytes=instance.size[v] * unit, kind=kind)
        for at, kind, v in moves
    )
